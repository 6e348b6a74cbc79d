//! How a runtime is set up, and where it keeps what.
//!
//! ```text
//! <run-dir>/                       gone with the machine's next start, like the containers
//!   shim.log                       what shims had to say when they failed
//!   pause/                         the root of every pause container: the program, and empty dev and proc
//!   sandboxes/<id>/
//!     sandbox.json                 record, see `record`; without it the sandbox was never there
//!     shim.sock                    the shim's door
//!     hosts hostname resolv.conf   seen by the pod's containers
//!     shm/                         a tmpfs, the containers' /dev/shm
//!     config.json, state/          the pause container's bundle, libcontainer's state
//!     rootfs/                      its root, where the pod has users of its own
//!   containers/<id>/
//!     container.json               record
//!     config.json                  the bundle's specification
//!     rootfs/                      where the container's own mount namespace has its root
//!     0 1 … upper work             links to the layers and to the directories below
//!     layers/ mounts/              what is made ready of the node beforehand (`shim::staging`); full only in its own mounts
//!     state/                       libcontainer's state
//! <data-dir>/containers/<id>/
//!   upper/ work/                   what the container writes
//!   volumes/                       and what it writes where its image declares volumes
//! ```

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// How a runtime is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// What outlives the machine's next start: images, and what containers write.
    pub data_dir: PathBuf,
    /// What does not: records of sandboxes and containers, sockets of shims.
    pub run_dir: PathBuf,
    /// How registries are reached, see [`images`](crate::images); it need not exist.
    pub registries_file: PathBuf,
    /// The program that is started as the shim, with its arguments: `/proc/self/exe shim` in `podium`.
    pub shim: Vec<OsString>,
}

impl Config {
    /// The runtime of a `podium` process.
    pub fn new(data_dir: impl Into<PathBuf>, run_dir: impl Into<PathBuf>) -> Self {
        let data_dir = data_dir.into();
        Self {
            registries_file: data_dir.join("registries.yaml"),
            data_dir,
            run_dir: run_dir.into(),
            shim: vec!["/proc/self/exe".into(), "shim".into()],
        }
    }
}

/// The directories of a runtime.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    data: PathBuf,
    run: PathBuf,
}

impl Layout {
    pub(crate) fn new(data_dir: &Path, run_dir: &Path) -> Self {
        Self {
            data: data_dir.to_owned(),
            run: run_dir.to_owned(),
        }
    }

    /// For whoever asks the runtime where it keeps things.
    pub(crate) fn details(&self) -> serde_json::Value {
        serde_json::json!({"dataDir": self.data, "runDir": self.run, "cgroupDriver": "cgroupfs"})
    }

    pub(crate) fn run(&self) -> &Path {
        &self.run
    }

    pub(crate) fn shim_log(&self) -> PathBuf {
        self.run.join("shim.log")
    }

    pub(crate) fn pause(&self) -> PathBuf {
        self.run.join("pause")
    }

    pub(crate) fn sandboxes(&self) -> PathBuf {
        self.run.join("sandboxes")
    }

    pub(crate) fn sandbox(&self, id: &str) -> PathBuf {
        self.sandboxes().join(id)
    }

    pub(crate) fn containers(&self) -> PathBuf {
        self.run.join("containers")
    }

    pub(crate) fn container(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }

    pub(crate) fn writable_all(&self) -> PathBuf {
        self.data.join("containers")
    }

    /// What a container writes.
    pub(crate) fn writable(&self, id: &str) -> PathBuf {
        self.writable_all().join(id)
    }
}
