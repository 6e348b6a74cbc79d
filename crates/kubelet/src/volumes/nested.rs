//! Where other volumes are mounted within a volume made of data: containers can only read it, so that the places have to be there before.

use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

/// Directories below the volume, as any container of the pod needs them. What is mounted within one of them is that one's matter.
pub fn places(pod: &Pod, volume: &str) -> Vec<PathBuf> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let inits = spec.init_containers.iter().flatten();
    let named = inits.chain(&spec.containers).map(|container| &container.volume_mounts);
    let ephemeral = spec
        .ephemeral_containers
        .iter()
        .flatten()
        .map(|container| &container.volume_mounts);
    let mut places = Vec::new();
    for mounts in named.chain(ephemeral) {
        let mut paths: Vec<(PathBuf, &str)> = mounts
            .iter()
            .flatten()
            .map(|mount| {
                (
                    Path::new("/").join(&mount.mount_path).components().collect(),
                    &*mount.name,
                )
            })
            .collect();
        paths.sort();
        for (at, _) in paths.iter().filter(|(_, name)| *name == volume) {
            let mut last: Option<&Path> = None;
            for (path, _) in &paths {
                let Ok(below) = path.strip_prefix(at) else { continue };
                if below.as_os_str().is_empty() || last.is_some_and(|last| path.starts_with(last)) {
                    continue;
                }
                last = Some(path);
                let plain = below.components().all(|part| matches!(part, Component::Normal(_)));
                if plain && !places.iter().any(|place| place == below) {
                    places.push(below.to_owned());
                }
            }
        }
    }
    places
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn places_for_other_volumes() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "initContainers": [{"name": "i", "volumeMounts": [
                {"name": "conf", "mountPath": "/conf/"}, {"name": "more", "mountPath": "/conf/early"},
            ]}],
            "containers": [
                {"name": "a", "volumeMounts": [
                    {"name": "more", "mountPath": "/etc/conf/certs/own"}, {"name": "most", "mountPath": "/etc/conf/certs/own/deep"},
                    {"name": "conf", "mountPath": "/etc/conf"}, {"name": "more", "mountPath": "/etc/conf.d"},
                    {"name": "more", "mountPath": "/etc/conf/../up"},
                ]},
                {"name": "b", "volumeMounts": [{"name": "conf", "mountPath": "relative"}, {"name": "more", "mountPath": "/relative/x"}]},
            ],
        }}))
        .unwrap();
        let found: Vec<String> = places(&pod, "conf")
            .iter()
            .map(|place| place.display().to_string())
            .collect();
        assert_eq!(found, ["early", "certs/own", "x"]);
        let found: Vec<String> = places(&pod, "more")
            .iter()
            .map(|place| place.display().to_string())
            .collect();
        assert_eq!(found, ["deep"]);
    }
}
