//! What is on disk of a sandbox and of a container, for the server that comes after this one.
//!
//! A record is a JSON file, replaced as a whole. Its `version` says how to read it; the CRI messages in it are kept
//! as the protobuf bytes that every version of the interface can read.

use std::fs;
use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use prost::Message;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use cri::v1::{ContainerConfig, PodSandboxConfig};

use crate::shim::protocol::{Confinement, Exit, Staging};

/// The version that this program writes, and the only one that it has had to read so far.
const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Versioned<T> {
    version: u32,
    #[serde(flatten)]
    record: T,
}

/// A CRI message, as its bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Proto<M>(pub M);

impl<M: Message> Serialize for Proto<M> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(self.0.encode_to_vec()))
    }
}

impl<'de, M: Message + Default> Deserialize<'de> for Proto<M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = BASE64.decode(text).map_err(serde::de::Error::custom)?;
        M::decode(bytes.as_slice()).map(Proto).map_err(serde::de::Error::custom)
    }
}

/// What is kept of a sandbox.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub(crate) struct SandboxRecord {
    pub id: String,
    pub config: Proto<PodSandboxConfig>,
    pub runtime_handler: String,
    /// Nanoseconds since the epoch, as every time here.
    pub created_at: i64,
    pub ready: bool,
    pub ips: Vec<String>,
    pub shim_pid: i32,
    pub pause_pid: i32,
    /// The pod's cgroup: every container's is below it.
    pub cgroup_parent: String,
}

/// What is kept of a container.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub(crate) struct ContainerRecord {
    pub id: String,
    pub sandbox_id: String,
    pub config: Proto<ContainerConfig>,
    /// The image's id, and the reference that the pod is told.
    pub image_id: String,
    pub image_ref: String,
    pub created_at: i64,
    pub stop_signal: i32,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub confinement: Confinement,
    #[serde(default)]
    pub staging: Option<Staging>,
    pub status: Status,
}

/// Where a container is in its life.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Status {
    /// Prepared, no process yet.
    Created,
    /// A shim has its process.
    Running { pid: i32, started_at: i64 },
    /// It has ended, and its process is gone.
    Exited(Ended),
}

/// How a container ended.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub(crate) struct Ended {
    /// Zero when it never started.
    pub started_at: i64,
    pub finished_at: i64,
    pub code: i32,
    pub reason: String,
    pub message: String,
}

impl Status {
    pub(crate) fn exited(&self) -> Option<&Ended> {
        match self {
            Status::Exited(ended) => Some(ended),
            _ => None,
        }
    }

    /// The end that a shim has reported.
    pub(crate) fn ended(started_at: i64, exit: Exit) -> Self {
        let reason = match exit {
            Exit { oom_killed: true, .. } => "OOMKilled",
            Exit { code: 0, .. } => "Completed",
            _ => "Error",
        };
        Status::Exited(Ended {
            started_at,
            finished_at: exit.at,
            code: exit.code,
            reason: reason.into(),
            message: String::new(),
        })
    }
}

/// Replaces a record. What is lost with the machine's power is lost with the containers.
pub(crate) fn save<T: Serialize>(path: &Path, record: &T) -> io::Result<()> {
    let bytes = serde_json::to_vec(&Versioned {
        version: VERSION,
        record,
    })?;
    let next = path.with_extension("next");
    fs::write(&next, bytes)?;
    fs::rename(&next, path)
}

/// Reads a record.
pub(crate) fn load<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let bytes = fs::read(path)?;
    let read: Versioned<T> = serde_json::from_slice(&bytes)?;
    if read.version != VERSION {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("version {} of the record is not known", read.version),
        ));
    }
    Ok(read.record)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed call fails the test

    use super::*;

    fn record() -> ContainerRecord {
        ContainerRecord {
            id: "c".into(),
            sandbox_id: "s".into(),
            config: Proto(ContainerConfig {
                log_path: "app/0.log".into(),
                ..Default::default()
            }),
            image_id: "sha256:1".into(),
            image_ref: "docker.io/library/busybox@sha256:2".into(),
            created_at: 1,
            stop_signal: 15,
            uid: 0,
            gid: 0,
            groups: vec![0],
            confinement: Confinement::default(),
            staging: None,
            status: Status::Running { pid: 7, started_at: 2 },
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("container.json");
        save(&path, &record()).unwrap();
        assert_eq!(load::<ContainerRecord>(&path).unwrap(), record());
    }

    #[test]
    fn a_record_of_another_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("container.json");
        let text = serde_json::to_string(&Versioned {
            version: 2,
            record: record(),
        })
        .unwrap();
        fs::write(&path, text).unwrap();
        let err = load::<ContainerRecord>(&path).unwrap_err();
        assert!(err.to_string().contains("version 2"), "{err}");
    }

    #[test]
    fn ends_have_reasons() {
        let exit = |code, oom_killed| Exit {
            code,
            at: 5,
            oom_killed,
        };
        for (exit, reason) in [
            (exit(0, false), "Completed"),
            (exit(1, false), "Error"),
            (exit(137, true), "OOMKilled"),
        ] {
            assert_eq!(Status::ended(1, exit).exited().unwrap().reason, reason);
        }
    }
}
