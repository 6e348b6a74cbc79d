//! emptyDir volumes that hold more than they may.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;

use super::directory;
use crate::pods::pod::PodExt;

/// Why the pod is evicted, if it is: the first emptyDir on disk that exceeds its limit. One in memory cannot.
pub fn over_limit(pod: &Pod, pod_dir: &Path) -> Option<String> {
    for volume in pod.spec().and_then(|spec| spec.volumes.as_ref()).into_iter().flatten() {
        let Some(empty) = volume
            .empty_dir
            .as_ref()
            .filter(|empty| empty.medium.as_deref().unwrap_or_default().is_empty())
        else {
            continue;
        };
        let Some(limit) = &empty.size_limit else { continue };
        let Ok(bytes) = api::quantity::Quantity::of(limit) else {
            continue;
        };
        if bytes.value() > 0 && used(&directory(pod_dir, "empty-dir", &volume.name)) > bytes.value() as u64 {
            return Some(format!(
                "Usage of EmptyDir volume {:?} exceeds the limit {:?}. ",
                volume.name, limit.0
            ));
        }
    }
    None
}

/// Whether any volume of the pod has a limit to watch.
pub fn limited(pod: &Pod) -> bool {
    let volumes = pod.spec().and_then(|spec| spec.volumes.as_ref()).into_iter().flatten();
    volumes.into_iter().any(|volume| {
        volume
            .empty_dir
            .as_ref()
            .is_some_and(|empty| empty.size_limit.is_some() && empty.medium.as_deref().unwrap_or_default().is_empty())
    })
}

/// The bytes that a tree takes on disk; files with several names count once.
fn used(root: &Path) -> u64 {
    let mut total = 0;
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
                total += metadata.blocks() * 512;
            }
        }
    }
    total
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_volume_over_its_limit_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let pod: Pod = serde_json::from_value(json!({
            "spec": {"containers": [], "volumes": [{"name": "cache", "emptyDir": {"sizeLimit": "16Ki"}}]},
        }))
        .unwrap();
        assert!(limited(&pod));
        let volume = directory(dir.path(), "empty-dir", "cache");
        fs::create_dir_all(&volume).unwrap();
        fs::write(volume.join("a"), vec![1; 8192]).unwrap();
        assert_eq!(over_limit(&pod, dir.path()), None);
        fs::write(volume.join("b"), vec![1; 16384]).unwrap();
        assert_eq!(
            over_limit(&pod, dir.path()).unwrap(),
            "Usage of EmptyDir volume \"cache\" exceeds the limit \"16Ki\". "
        );
    }
}
