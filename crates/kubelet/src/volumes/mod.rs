//! The volumes of a pod on the node.
//!
//! ```text
//! <root>/pods/<uid>/
//!   etc-hosts                                    what is mounted at /etc/hosts
//!   containers/<name>/<hex>                      a container's termination message
//!   volumes/kubernetes.io~empty-dir/<volume>/    a directory, or a tmpfs
//!   volumes/kubernetes.io~configmap/<volume>/    ..data -> ..<time>/, <key> -> ..data/<key>
//!   volumes/kubernetes.io~secret/…  ~projected/…  ~downward-api/…  ~cephfs/…  ~nfs/…
//!   volume-subpaths/<volume>/<container>/<n>     bind mounts of parts of volumes
//! ```
//!
//! [`resolve`] turns a volume into a [`Source`], a plain value with all its data; [`apply`] makes the directory be that. Both can be done
//! again at any time, which is how a changed ConfigMap reaches running pods as soon as the watch on it tells.

mod apply;
mod atomic;
mod ceph;
mod claim;
mod device;
mod nested;
mod nfs;
mod ownership;
mod resolve;
mod subpath;
mod teardown;
mod usage;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Pod, Volume};

use ceph::Ceph;
pub use device::devices;
use nfs::Nfs;
pub use resolve::{Context, resolve};
pub use subpath::bind as bind_subpath;
pub use teardown::tear_down;
pub use usage::{Used, count, file_systems, limited, over_limit, used};

use crate::pods::pod::PodExt;

/// One file of a volume made of data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Below the volume.
    pub path: String,
    /// Its content.
    pub data: Vec<u8>,
    /// Its permissions.
    pub mode: u32,
    /// Its owner, where not root.
    pub owner: Option<u32>,
}

/// What a volume is to be on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// An empty directory on disk.
    Directory,
    /// An empty directory in memory.
    Memory {
        /// At most so many bytes.
        size: i64,
    },
    /// An empty directory in huge pages.
    HugePages {
        /// The bytes of a page.
        page: i64,
    },
    /// Something of the node.
    Host {
        /// Where.
        path: PathBuf,
        /// What it must be: a `HostPathType`.
        kind: String,
    },
    /// Files made of objects.
    Files {
        /// All of them.
        files: Vec<File>,
        /// Whether they must not be written to disk.
        in_memory: bool,
    },
    /// A directory of the node that was set aside as a volume.
    Local {
        /// Where.
        path: PathBuf,
        /// Whether its files are given to the pod's group only when its root is not the group's.
        only_on_mismatch: bool,
    },
    /// A block device of the node that was set aside as a volume.
    Device {
        /// Where.
        path: PathBuf,
    },
    /// A part of a Ceph file system.
    Ceph(Ceph),
    /// What an NFS server exports.
    Nfs(Nfs),
}

/// A volume of the spec, found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Its name, or that of the PersistentVolume that it is.
    pub name: String,
    /// The name of its kind in paths.
    pub plugin: &'static str,
    /// What it is.
    pub source: Source,
    /// Whether the pod may only read it, whatever it is.
    pub read_only: bool,
}

/// What is done to make a volume usable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A directory or file is made or mounted.
    Mount,
    /// A block device is found.
    Map,
}

impl Step {
    /// As upstream's messages name it.
    fn name(self) -> &'static str {
        match self {
            Step::Mount => "MountVolume.SetUp",
            Step::Map => "MapVolume.MapBlockVolume",
        }
    }
}

/// A volume that cannot be set up: the text of its event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} failed for volume {volume:?} : {message}", step.name())]
pub struct Failure {
    /// What was not done.
    pub step: Step,
    /// The volume's name.
    pub volume: String,
    /// Why not.
    pub message: String,
}

impl Failure {
    /// The pod was deleted while it waited.
    pub fn ended() -> Self {
        Self::of(Step::Mount, "", "the pod is ending".into())
    }

    fn of(step: Step, volume: &str, message: String) -> Self {
        let volume = volume.to_owned();
        Self { step, volume, message }
    }

    /// The reason of its event.
    pub fn reason(&self) -> &'static str {
        match self.step {
            Step::Mount => "FailedMount",
            Step::Map => "FailedMapVolume",
        }
    }
}

/// Where a volume of a kind is, below the pod's directory.
fn directory(pod_dir: &Path, plugin: &str, name: &str) -> PathBuf {
    pod_dir
        .join("volumes")
        .join(format!("kubernetes.io~{plugin}"))
        .join(name)
}

/// Where a volume is on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// Its directory, file or device.
    pub path: PathBuf,
    /// Whether no container may write it.
    pub read_only: bool,
    /// Whether containers get it as a block device instead of mounting it.
    pub device: bool,
}

/// Which volumes of a pod are set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// All, before the pod starts.
    All,
    /// Those made of data, while it runs.
    Data,
}

/// Sets up volumes; the answer is where each is on the node.
pub async fn set_up(
    pod: &Pod,
    pod_dir: &Path,
    which: Which,
    context: &Context<'_>,
) -> Result<HashMap<String, Mounted>, Failure> {
    let mut resolved = Vec::new();
    let volumes = pod.spec().and_then(|spec| spec.volumes.as_ref()).into_iter().flatten();
    // An image is the runtime's to mount.
    let volumes = volumes.filter(|volume| volume.image.is_none());
    for volume in volumes.filter(|volume| which == Which::All || is_data(volume)) {
        let found = resolve(pod, volume, context)
            .await
            .map_err(|message| Failure::of(Step::Mount, &volume.name, message))?;
        let places = match is_data(volume) {
            true => nested::places(pod, &volume.name),
            false => Vec::new(),
        };
        resolved.push((
            volume.name.clone(),
            directory(pod_dir, found.plugin, &volume.name),
            found,
            places,
        ));
    }
    if resolved.is_empty() {
        return Ok(HashMap::new());
    }
    for (_, directory, found, _) in &resolved {
        mount_remote(&found.source, directory)
            .await
            .map_err(|message| Failure::of(Step::Mount, &found.name, message))?;
    }
    let fs_group = pod.spec().and_then(|spec| spec.security_context.as_ref()?.fs_group);
    let all = move || {
        let mut mounted = HashMap::new();
        for (volume, directory, found, places) in resolved {
            let applied = apply::apply(&directory, &found.source, fs_group)
                .and_then(|at| apply::make_places(&directory, &places).map(|()| at));
            match applied {
                Ok(mut at) => {
                    at.read_only |= found.read_only;
                    mounted.insert(volume, at);
                }
                Err(message) => {
                    let step = match found.source {
                        Source::Device { .. } => Step::Map,
                        _ => Step::Mount,
                    };
                    return Err(Failure::of(step, &found.name, message));
                }
            }
        }
        Ok(mounted)
    };
    match tokio::task::spawn_blocking(all).await {
        Ok(mounted) => mounted,
        Err(error) => Err(Failure::of(Step::Mount, "", error.to_string())),
    }
}

/// Mounts a file system of another machine's, unless it is there already.
async fn mount_remote(source: &Source, directory: &Path) -> Result<(), String> {
    if !matches!(source, Source::Ceph(_) | Source::Nfs(_)) {
        return Ok(());
    }
    let at = directory.to_owned();
    // A look at a dead mount may never return.
    let prepared = tokio::task::spawn_blocking(move || apply::prepare_mount(&at)).await;
    let there = prepared.map_err(|error| error.to_string())??;
    if there {
        return Ok(());
    }
    match source {
        Source::Ceph(ceph) => ceph.mount(directory, &directory.with_added_extension("keyring")).await,
        Source::Nfs(nfs) => nfs.mount(directory).await,
        _ => Ok(()),
    }
}

/// Whether a volume is made of data, and so changes when objects do.
fn is_data(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
}

/// Whether what is in a volume of the pod changes when objects do.
pub fn follows_objects(pod: &Pod) -> bool {
    let volumes = pod.spec().and_then(|spec| spec.volumes.as_ref()).into_iter().flatten();
    volumes.into_iter().any(is_data)
}
