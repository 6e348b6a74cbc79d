//! Block volumes: devices of the node that containers get as devices, under names of their own.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use cri::v1::Device;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::Mounted;
use crate::pods::pod::PodExt;

/// The device that a path leads to: those below /dev/disk are links.
pub(super) fn find(path: &Path) -> Result<PathBuf, String> {
    let said = |error: std::io::Error| format!("stat {}: {error}", path.display());
    let found = fs::canonicalize(path).map_err(said)?;
    if fs::metadata(&found).map_err(said)?.file_type().is_block_device() {
        Ok(found)
    } else {
        Err(format!("{} is not a block device", path.display()))
    }
}

/// Whether the pod's containers use a claim's volume as what it is.
pub(super) fn fits(pod: &Pod, volume: &str, block: bool) -> Result<(), String> {
    let (mode, wrong) = match block {
        true => ("Block", "volumeMounts"),
        false => ("Filesystem", "volumeDevices"),
    };
    let misused = pod.containers().any(|(_, container)| match block {
        true => container
            .volume_mounts
            .iter()
            .flatten()
            .any(|mount| mount.name == volume),
        false => container
            .volume_devices
            .iter()
            .flatten()
            .any(|device| device.name == volume),
    });
    match misused {
        true => Err(format!(
            "volume {volume} has volumeMode {mode}, but is specified in {wrong}"
        )),
        false => Ok(()),
    }
}

/// The devices that a container has of its pod's volumes.
pub fn devices(container: &Container, volumes: &HashMap<String, Mounted>) -> Result<Vec<Device>, String> {
    let one = |device: &k8s_openapi::api::core::v1::VolumeDevice| {
        let volume = volumes
            .get(&device.name)
            .filter(|volume| volume.device)
            .ok_or_else(|| {
                format!(
                    "cannot find volume {:?} to pass into container {:?}",
                    device.name, container.name
                )
            })?;
        Ok(Device {
            container_path: device.device_path.clone(),
            host_path: volume.path.to_string_lossy().into_owned(),
            permissions: if volume.read_only { "r" } else { "mrw" }.into(),
        })
    };
    container.volume_devices.iter().flatten().map(one).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_block_device_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let missing = find(&at("missing")).unwrap_err();
        assert!(
            missing.starts_with(&format!("stat {}: No such file", at("missing").display())),
            "{missing}"
        );
        for other in [dir.path(), Path::new("/dev/null")] {
            assert_eq!(
                find(other).unwrap_err(),
                format!("{} is not a block device", other.display())
            );
        }
    }

    #[test]
    fn volumes_are_used_as_what_they_are() {
        let container = json!({"name": "c", "volumeMounts": [{"name": "m", "mountPath": "/m"}], "volumeDevices": [{"name": "d", "devicePath": "/dev/d"}]});
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [container]}})).unwrap();
        assert_eq!(fits(&pod, "m", false), Ok(()));
        assert_eq!(fits(&pod, "d", true), Ok(()));
        assert_eq!(
            fits(&pod, "m", true).unwrap_err(),
            "volume m has volumeMode Block, but is specified in volumeMounts"
        );
        assert_eq!(
            fits(&pod, "d", false).unwrap_err(),
            "volume d has volumeMode Filesystem, but is specified in volumeDevices"
        );
    }

    #[test]
    fn devices_have_their_names_and_what_may_be_done_with_them() {
        let container: Container =
            serde_json::from_value(json!({"name": "c", "volumeDevices": [{"name": "d", "devicePath": "/dev/x"}]}))
                .unwrap();
        let volume = |device: bool, read_only: bool| {
            let path = PathBuf::from("/dev/loop7");
            HashMap::from([(
                "d".to_owned(),
                Mounted {
                    path,
                    read_only,
                    device,
                },
            )])
        };
        for (read_only, permissions) in [(true, "r"), (false, "mrw")] {
            let expected = Device {
                container_path: "/dev/x".into(),
                host_path: "/dev/loop7".into(),
                permissions: permissions.into(),
            };
            assert_eq!(devices(&container, &volume(true, read_only)), Ok(vec![expected]));
        }
        for volumes in [volume(false, false), HashMap::new()] {
            assert_eq!(
                devices(&container, &volumes).unwrap_err(),
                "cannot find volume \"d\" to pass into container \"c\""
            );
        }
    }
}
