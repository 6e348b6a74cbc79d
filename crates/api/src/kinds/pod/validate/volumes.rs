//! The pod's volumes: names, exactly one source each.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{PodSpec, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Errors, label, volume_sources as source};
use crate::field::{FieldError, Path};
use crate::meta::names;
use crate::quantity::Quantity;

/// The valid volumes of a pod, by name.
pub(super) type Volumes<'a> = HashMap<&'a str, &'a Volume>;

/// Checks the volumes; answers those that containers can mount.
pub(super) fn volumes<'a>(spec: &'a PodSpec, meta: &ObjectMeta, path: &Path<'_>, errors: &mut Errors) -> Volumes<'a> {
    let mut known = Volumes::new();
    let pod_name = meta.name.as_deref().unwrap_or_default();
    let claim_of = |volume: &Volume| format!("{pod_name}-{}", volume.name);
    for (i, volume) in spec.volumes.iter().flatten().enumerate() {
        let path = path.index(i);
        let before = errors.len();
        one_source(volume, pod_name, &path, errors);
        if volume.name.is_empty() {
            errors.push(FieldError::required(&path.child("name"), ""));
        } else {
            label(&volume.name, &path.child("name"), errors);
        }
        if known.contains_key(volume.name.as_str()) {
            errors.push(FieldError::duplicate(&path.child("name"), &volume.name));
        }
        if errors.len() == before {
            known.insert(&volume.name, volume);
        }
        if let Some(claim) = &volume.persistent_volume_claim
            && !pod_name.is_empty()
            && spec
                .volumes
                .iter()
                .flatten()
                .any(|v| v.ephemeral.is_some() && claim_of(v) == claim.claim_name)
        {
            errors.push(FieldError::invalid(
                &path.child("persistentVolumeClaim").child("claimName"),
                &claim.claim_name,
                "can not reference a PVC that will be created for an ephemeral volume",
            ));
        }
    }
    known
}

/// Checks that a volume has one source, and that one.
fn one_source(volume: &Volume, pod_name: &str, path: &Path<'_>, errors: &mut Errors) {
    let mut found = false;
    if let Some(dir) = &volume.empty_dir {
        found = true;
        let valid = dir
            .size_limit
            .as_ref()
            .is_none_or(|limit| Quantity::of(limit).is_ok_and(|q| !q.is_negative()));
        if !valid {
            let detail = "SizeLimit field must be a valid resource quantity";
            errors.push(FieldError::forbidden(
                &path.child("emptyDir").child("sizeLimit"),
                detail,
            ));
        }
    }
    // Each with the name under which upstream refuses it as one too many, and under which its own fields are.
    macro_rules! sources {
        ($($field:ident, $name:literal, $path:literal, $check:expr;)*) => {$(
            if let Some(given) = &volume.$field {
                if found {
                    errors.push(FieldError::forbidden(&path.child($name), "may not specify more than 1 volume type"));
                } else {
                    found = true;
                    $check(given, &path.child($path), errors);
                }
            }
        )*};
    }
    sources! {
        host_path, "hostPath", "hostPath", source::host_path;
        git_repo, "gitRepo", "gitRepo", source::git_repo;
        gce_persistent_disk, "gcePersistentDisk", "persistentDisk", source::gce_persistent_disk;
        aws_elastic_block_store, "awsElasticBlockStore", "awsElasticBlockStore", source::aws_elastic_block_store;
        secret, "secret", "secret", source::secret;
        nfs, "nfs", "nfs", source::nfs;
        iscsi, "iscsi", "iscsi", source::iscsi;
        glusterfs, "glusterfs", "glusterfs", source::glusterfs;
        flocker, "flocker", "flocker", source::flocker;
        persistent_volume_claim, "persistentVolumeClaim", "persistentVolumeClaim", source::persistent_volume_claim;
        rbd, "rbd", "rbd", source::rbd;
        cinder, "cinder", "cinder", source::cinder;
        cephfs, "cephFS", "cephfs", source::cephfs;
        quobyte, "quobyte", "quobyte", source::quobyte;
        downward_api, "downwarAPI", "downwardAPI", source::downward_api;
        fc, "fc", "fc", source::fc;
        flex_volume, "flexVolume", "flexVolume", source::flex_volume;
        config_map, "configMap", "configMap", source::config_map;
        azure_file, "azureFile", "azureFile", source::azure_file;
        vsphere_volume, "vsphereVolume", "vsphereVolume", source::vsphere;
        photon_persistent_disk, "photonPersistentDisk", "photonPersistentDisk", source::photon;
        portworx_volume, "portworxVolume", "portworxVolume", source::portworx;
        azure_disk, "azureDisk", "azureDisk", source::azure_disk;
        storageos, "storageos", "storageos", source::storage_os;
        projected, "projected", "projected", source::projected;
        scale_io, "scaleIO", "scaleIO", source::scale_io;
        csi, "csi", "csi", source::csi;
        ephemeral, "ephemeral", "ephemeral", source::ephemeral;
        image, "image", "image", source::image;
    }
    if volume.ephemeral.is_some() && !pod_name.is_empty() && !volume.name.is_empty() {
        let claim = format!("{pod_name}-{}", volume.name);
        for message in names::dns1123_subdomain(&claim) {
            let detail = format!("PVC name {}: {message}", crate::field::quote(&claim));
            errors.push(FieldError::invalid(&path.child("name"), &volume.name, detail));
        }
    }
    if let Some(iscsi) = &volume.iscsi
        && iscsi.initiator_name.is_some()
        && volume.name.len() + 1 + iscsi.target_portal.len() > 64
    {
        let detail = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";
        errors.push(FieldError::invalid(&path.child("name"), &volume.name, detail));
    }
    if !found {
        errors.push(FieldError::required(path, "must specify a volume type"));
    }
}
