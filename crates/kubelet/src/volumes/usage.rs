//! Pods that write more to the node's disk than they may: in emptyDir volumes, in their containers' own layers, and in logs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Pod, Volume};

use super::directory;
use crate::cri_config::resources;
use crate::eviction::rank::Files;
use crate::pods::pod::PodExt;
use crate::stats::machine::FileSystem;

const STORAGE: &str = "ephemeral-storage";

/// What a pod uses of the node's disk, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Used {
    /// EmptyDir volumes, by name.
    pub volumes: BTreeMap<String, u64>,
    /// Containers with their logs, by name.
    pub containers: BTreeMap<String, u64>,
}

impl Used {
    /// Measures what is on disk. Containers' own layers are the runtime's to measure; they are added to these.
    pub fn measure(pod: &Pod, pod_dir: &Path, logs: &Path, mut layers: BTreeMap<String, u64>) -> Self {
        for (_, container) in pod.containers() {
            *layers.entry(container.name.clone()).or_default() += count(&logs.join(&container.name)).bytes;
        }
        let volumes = used(pod, pod_dir).into_iter();
        Used {
            volumes: volumes.map(|(name, used)| (name, used.bytes)).collect(),
            containers: layers,
        }
    }
}

fn volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec().and_then(|spec| spec.volumes.as_ref()).into_iter().flatten()
}

/// One in memory cannot exceed its limit.
fn is_on_disk(volume: &Volume) -> bool {
    let empty = volume.empty_dir.as_ref();
    empty.is_some_and(|empty| empty.medium.as_deref().unwrap_or_default().is_empty())
}

fn exceeds(used: u64, limit: i64) -> bool {
    limit > 0 && used > limit.unsigned_abs()
}

/// Why the pod is evicted, if it is.
pub fn over_limit(pod: &Pod, used: &Used) -> Option<String> {
    for volume in volumes(pod).filter(|volume| is_on_disk(volume)) {
        let Some(limit) = volume.empty_dir.as_ref().and_then(|empty| empty.size_limit.as_ref()) else {
            continue;
        };
        let bytes = Quantity::of(limit).map_or(0, Quantity::value);
        if used.volumes.get(&volume.name).is_some_and(|used| exceeds(*used, bytes)) {
            return Some(format!(
                "Usage of EmptyDir volume {:?} exceeds the limit {:?}. ",
                volume.name, limit.0
            ));
        }
    }
    let total = used.volumes.values().chain(used.containers.values()).sum();
    if let Some(limit) = api::pod::limits(pod)
        .get(STORAGE)
        .filter(|limit| exceeds(total, limit.value()))
    {
        return Some(format!(
            "Pod ephemeral local storage usage exceeds the total limit of containers {limit}. "
        ));
    }
    pod.containers().find_map(|(_, container)| {
        let limit = resources::limit(pod, container, STORAGE);
        let used = used.containers.get(&container.name)?;
        let written = container.resources.as_ref()?.limits.as_ref()?.get(STORAGE)?;
        exceeds(*used, limit).then(|| {
            format!(
                "Container {} exceeded its local ephemeral storage limit {:?}. ",
                container.name, written.0
            )
        })
    })
}

/// Whether anything of the pod has a limit to watch.
pub fn limited(pod: &Pod) -> bool {
    let sized = |volume: &Volume| {
        volume
            .empty_dir
            .as_ref()
            .is_some_and(|empty| empty.size_limit.is_some())
    };
    volumes(pod).any(|volume| is_on_disk(volume) && sized(volume))
        || pod
            .containers()
            .any(|(_, container)| resources::limit(pod, container, STORAGE) > 0)
}

/// What a tree takes on disk; files with several names count once.
pub fn count(root: &Path) -> Files {
    let mut total = Files::default();
    let mut seen = HashSet::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        // What goes away meanwhile takes nothing.
        let Ok(entries) = fs::read_dir(path) else { continue };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                pending.push(entry.path());
            }
            if metadata.nlink() == 1 || metadata.is_dir() || seen.insert((metadata.dev(), metadata.ino())) {
                total.bytes += metadata.blocks() * 512;
                total.inodes += 1;
            }
        }
    }
    total
}

/// What the pod's emptyDir volumes on disk take, by name.
pub fn used(pod: &Pod, pod_dir: &Path) -> HashMap<String, Files> {
    let on_disk = volumes(pod).filter(|volume| is_on_disk(volume));
    on_disk
        .map(|volume| {
            (
                volume.name.clone(),
                count(&directory(pod_dir, "empty-dir", &volume.name)),
            )
        })
        .collect()
}

/// The file systems of the pod's volumes, by name; of those that have a directory of the pod's.
pub fn file_systems(pod: &Pod, pod_dir: &Path) -> HashMap<String, FileSystem> {
    let plugins = fs::read_dir(pod_dir.join("volumes")).into_iter().flatten().flatten();
    let plugins: Vec<_> = plugins.map(|entry| entry.path()).collect();
    let found = volumes(pod).filter_map(|volume| {
        let at = plugins
            .iter()
            .map(|plugin| plugin.join(&volume.name))
            .find(|path| path.is_dir())?;
        Some((volume.name.clone(), FileSystem::of(&at)?))
    });
    found.collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Pod {
        let container = |name: &str, limit: &str| json!({"name": name, "resources": {"limits": {STORAGE: limit}}});
        serde_json::from_value(json!({"spec": {
            "containers": [container("a", "16Ki"), container("b", "48Ki")],
            "volumes": [{"name": "cache", "emptyDir": {"sizeLimit": "16Ki"}}, {"name": "memory", "emptyDir": {"medium": "Memory"}}],
        }}))
        .unwrap()
    }

    #[test]
    fn who_exceeds_what_is_said() {
        let used = |volume: u64, a: u64, b: u64| Used {
            volumes: [("cache".to_owned(), volume << 10)].into(),
            containers: [("a".to_owned(), a << 10), ("b".to_owned(), b << 10)].into(),
        };
        for (used, said) in [
            (used(16, 16, 32), None),
            (
                used(17, 0, 0),
                Some("Usage of EmptyDir volume \"cache\" exceeds the limit \"16Ki\". "),
            ),
            (
                used(0, 17, 0),
                Some("Container a exceeded its local ephemeral storage limit \"16Ki\". "),
            ),
            (
                used(16, 16, 33),
                Some("Pod ephemeral local storage usage exceeds the total limit of containers 64Ki. "),
            ),
        ] {
            assert_eq!(over_limit(&pod(), &used).as_deref(), said);
        }
        assert!(limited(&pod()));
        assert!(!limited(&Pod::default()));
    }

    #[test]
    fn volumes_and_logs_are_measured() {
        let dir = tempfile::tempdir().unwrap();
        let volume = directory(dir.path(), "empty-dir", "cache");
        fs::create_dir_all(&volume).unwrap();
        fs::write(volume.join("a"), vec![1; 8192]).unwrap();
        let logs = dir.path().join("logs");
        fs::create_dir_all(logs.join("b")).unwrap();
        fs::write(logs.join("b/0.log"), vec![1; 8192]).unwrap();
        let used = Used::measure(&pod(), dir.path(), &logs, [("a".to_owned(), 5)].into());
        assert!(used.volumes["cache"] >= 8192 && used.volumes.len() == 1);
        assert!(used.containers["a"] == 5 && used.containers["b"] >= 8192);
    }
}
