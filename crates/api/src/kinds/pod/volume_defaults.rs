//! What a volume gets that its author left out.

use k8s_openapi::api::core::v1::Volume;

use super::defaults::{downward_file, pull_policy, set, set_text};

/// The mode of files made from Secrets, ConfigMaps and fields: `rw-r--r--`.
const FILE_MODE: i32 = 0o644;

/// How long a projected token lasts, when the pod does not say.
const TOKEN_SECONDS: i64 = 3600;

/// Fills in a volume; one without a source is an empty directory.
pub(super) fn volume(volume: &mut Volume) {
    if *volume
        == (Volume {
            name: volume.name.clone(),
            ..Default::default()
        })
    {
        volume.empty_dir = Some(Default::default());
    }
    if let Some(secret) = &mut volume.secret {
        set(&mut secret.default_mode, FILE_MODE);
    }
    if let Some(map) = &mut volume.config_map {
        set(&mut map.default_mode, FILE_MODE);
    }
    if let Some(downward) = &mut volume.downward_api {
        set(&mut downward.default_mode, FILE_MODE);
        downward.items.iter_mut().flatten().for_each(downward_file);
    }
    if let Some(projected) = &mut volume.projected {
        set(&mut projected.default_mode, FILE_MODE);
        for source in projected.sources.iter_mut().flatten() {
            if let Some(token) = &mut source.service_account_token {
                set(&mut token.expiration_seconds, TOKEN_SECONDS);
            }
            if let Some(downward) = &mut source.downward_api {
                downward.items.iter_mut().flatten().for_each(downward_file);
            }
            if let Some(certificate) = &mut source.pod_certificate {
                set(&mut certificate.max_expiration_seconds, 86_400);
            }
        }
    }
    if let Some(path) = &mut volume.host_path {
        set(&mut path.type_, String::new());
    }
    if let Some(image) = &mut volume.image {
        let policy = pull_policy(image.reference.as_deref().unwrap_or_default());
        set_text(&mut image.pull_policy, policy);
    }
    if let Some(template) = volume.ephemeral.as_mut().and_then(|e| e.volume_claim_template.as_mut()) {
        set_text(&mut template.spec.volume_mode, "Filesystem");
    }
    if let Some(iscsi) = &mut volume.iscsi {
        set_text(&mut iscsi.iscsi_interface, "default");
    }
    if let Some(rbd) = &mut volume.rbd {
        set_text(&mut rbd.pool, "rbd");
        set_text(&mut rbd.user, "admin");
        set_text(&mut rbd.keyring, "/etc/ceph/keyring");
    }
    if let Some(disk) = &mut volume.azure_disk {
        set_text(&mut disk.caching_mode, "ReadWrite");
        set_text(&mut disk.kind, "Shared");
        set_text(&mut disk.fs_type, "ext4");
        set(&mut disk.read_only, false);
    }
    if let Some(scale_io) = &mut volume.scale_io {
        set_text(&mut scale_io.storage_mode, "ThinProvisioned");
        set_text(&mut scale_io.fs_type, "xfs");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "the fixtures are constants")]
    use super::*;
    use serde_json::json;

    #[test]
    fn sources() {
        for (given, want) in [
            (json!({"name": "v"}), json!({"name": "v", "emptyDir": {}})),
            (
                json!({"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}),
                json!({"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}),
            ),
            (
                json!({"name": "v", "secret": {"secretName": "s"}}),
                json!({"name": "v", "secret": {"secretName": "s", "defaultMode": 420}}),
            ),
            (
                json!({"name": "v", "configMap": {"name": "c", "defaultMode": 256}}),
                json!({"name": "v", "configMap": {"name": "c", "defaultMode": 256}}),
            ),
            (
                json!({"name": "v", "hostPath": {"path": "/x"}}),
                json!({"name": "v", "hostPath": {"path": "/x", "type": ""}}),
            ),
            (
                json!({"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}, {"downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}]}}]}}),
                json!({"name": "v", "projected": {"defaultMode": 420, "sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}}, {"downwardAPI": {"items": [{"path": "n", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}]}}]}}),
            ),
            (
                json!({"name": "v", "image": {"reference": "web:1"}}),
                json!({"name": "v", "image": {"reference": "web:1", "pullPolicy": "IfNotPresent"}}),
            ),
        ] {
            let mut object: Volume = serde_json::from_value(given.clone()).unwrap();
            volume(&mut object);
            assert_eq!(serde_json::to_value(object).unwrap(), want, "{given}");
        }
    }
}
