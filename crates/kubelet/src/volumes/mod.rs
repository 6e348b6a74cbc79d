//! The volumes of a pod on the node.
//!
//! ```text
//! <root>/pods/<uid>/
//!   etc-hosts                                    what is mounted at /etc/hosts
//!   containers/<name>/<hex>                      a container's termination message
//!   volumes/kubernetes.io~empty-dir/<volume>/    a directory, or a tmpfs
//!   volumes/kubernetes.io~configmap/<volume>/    ..data -> ..<time>/, <key> -> ..data/<key>
//!   volumes/kubernetes.io~secret/…  ~projected/…  ~downward-api/…
//!   volume-subpaths/<volume>/<container>/<n>     bind mounts of parts of volumes
//! ```
//!
//! [`resolve`] turns a volume into a [`Source`], a plain value with all its data; [`apply`] makes the directory be that. Both can be done
//! again at any time, which is how changed ConfigMaps reach running pods.

mod apply;
mod atomic;
mod resolve;
mod subpath;
mod teardown;
mod usage;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

pub use resolve::{Context, resolve};
pub use subpath::bind as bind_subpath;
pub use teardown::tear_down;
pub use usage::{limited, over_limit};

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
}

/// What a volume is to be on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// An empty directory on disk.
    Directory,
    /// An empty directory in memory.
    Memory {
        /// At most so many bytes.
        size: Option<i64>,
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
}

/// A volume that cannot be set up: the text of its `FailedMount` event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume {volume:?} : {message}")]
pub struct Failure {
    /// The volume's name.
    pub volume: String,
    /// Why not.
    pub message: String,
}

/// Where a volume of a kind is, below the pod's directory.
fn directory(pod_dir: &Path, plugin: &str, name: &str) -> PathBuf {
    pod_dir
        .join("volumes")
        .join(format!("kubernetes.io~{plugin}"))
        .join(name)
}

/// Sets up every volume; the answer is where each is on the node.
pub async fn set_up(pod: &Pod, pod_dir: &Path, context: &mut Context<'_>) -> Result<HashMap<String, PathBuf>, Failure> {
    let mut resolved = Vec::new();
    for volume in pod.spec().and_then(|spec| spec.volumes.as_ref()).into_iter().flatten() {
        let (plugin, source) = resolve(pod, volume, context).await.map_err(|message| Failure {
            volume: volume.name.clone(),
            message,
        })?;
        resolved.push((volume.name.clone(), directory(pod_dir, plugin, &volume.name), source));
    }
    if resolved.is_empty() {
        return Ok(HashMap::new());
    }
    let fs_group = pod.spec().and_then(|spec| spec.security_context.as_ref()?.fs_group);
    let all = move || {
        let mut paths = HashMap::new();
        for (volume, directory, source) in resolved {
            match apply::apply(&directory, &source, fs_group) {
                Ok(path) => paths.insert(volume, path),
                Err(message) => return Err(Failure { volume, message }),
            };
        }
        Ok(paths)
    };
    match tokio::task::spawn_blocking(all).await {
        Ok(paths) => paths,
        Err(error) => Err(Failure {
            volume: String::new(),
            message: error.to_string(),
        }),
    }
}

/// Whether what is in a volume changes when objects do.
pub fn follows_objects(pod: &Pod) -> bool {
    let volumes = pod.spec().and_then(|spec| spec.volumes.as_ref()).into_iter().flatten();
    volumes.into_iter().any(|volume| {
        volume.config_map.is_some()
            || volume.secret.is_some()
            || volume.downward_api.is_some()
            || volume.projected.is_some()
    })
}
