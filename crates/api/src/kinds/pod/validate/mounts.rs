//! Where a container mounts the pod's volumes.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{Container, VolumeMount};

use super::volumes::Volumes;
use super::{Errors, descending_path, required};
use crate::field::{FieldError, Path};

pub(super) fn mounts(container: &Container, volumes: &Volumes<'_>, path: &Path<'_>, errors: &mut Errors) {
    let devices = container.volume_devices.as_deref().unwrap_or_default();
    let mut taken = HashSet::new();
    for (i, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let list = path;
        let path = list.index(i);
        required(&mount.name, &path.child("name"), errors);
        if !volumes.contains_key(mount.name.as_str()) {
            errors.push(FieldError::not_found(&path.child("name"), &mount.name));
        }
        required(&mount.mount_path, &path.child("mountPath"), errors);
        if !taken.insert(mount.mount_path.as_str()) {
            errors.push(FieldError::invalid(
                &path.child("mountPath"),
                &mount.mount_path,
                "must be unique",
            ));
        }
        if devices.iter().any(|device| device.name == mount.name) {
            let detail = "must not already exist in volumeDevices";
            errors.push(FieldError::invalid(&path.child("name"), &mount.name, detail));
        }
        if devices.iter().any(|device| device.device_path == mount.mount_path) {
            let detail = "must not already exist as a path in volumeDevices";
            errors.push(FieldError::invalid(&path.child("mountPath"), &mount.mount_path, detail));
        }
        let given = |field: &Option<String>| field.clone().filter(|value| !value.is_empty());
        let sub_path = given(&mount.sub_path);
        if let Some(sub_path) = &sub_path {
            descending_path(sub_path, &list.child("subPath"), errors);
        }
        if let Some(expression) = given(&mount.sub_path_expr) {
            if sub_path.is_some() {
                let detail = "subPathExpr and subPath are mutually exclusive";
                errors.push(FieldError::invalid(&path.child("subPathExpr"), &expression, detail));
            }
            descending_path(&expression, &list.child("subPathExpr"), errors);
        }
        propagation(mount, container, &list.child("mountPropagation"), errors);
        recursive_read_only(mount, &list.child("recursiveReadOnly"), errors);
    }
}

fn propagation(mount: &VolumeMount, container: &Container, path: &Path<'_>, errors: &mut Errors) {
    let Some(propagation) = &mount.mount_propagation else {
        return;
    };
    let supported = &["Bidirectional", "HostToContainer", "None"];
    if !supported.contains(&propagation.as_str()) {
        errors.push(FieldError::not_supported(path, propagation, supported));
    }
    let privileged = container
        .security_context
        .as_ref()
        .and_then(|context| context.privileged)
        == Some(true);
    if propagation == "Bidirectional" && !privileged {
        let detail = "Bidirectional mount propagation is available only to privileged containers";
        errors.push(FieldError::forbidden(path, detail));
    }
}

fn recursive_read_only(mount: &VolumeMount, path: &Path<'_>, errors: &mut Errors) {
    match mount.recursive_read_only.as_deref() {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if mount.read_only != Some(true) {
                errors.push(FieldError::forbidden(
                    path,
                    "may only be specified when readOnly is true",
                ));
            }
            if mount
                .mount_propagation
                .as_deref()
                .is_some_and(|propagation| propagation != "None")
            {
                let detail = "may only be specified when mountPropagation is None or not specified";
                errors.push(FieldError::forbidden(path, detail));
            }
        }
        Some(other) => {
            errors.push(FieldError::not_supported(
                path,
                other,
                &["Disabled", "Enabled", "IfPossible"],
            ));
        }
    }
}

pub(super) fn devices(container: &Container, volumes: &Volumes<'_>, path: &Path<'_>, errors: &mut Errors) {
    let mounts = container.volume_mounts.as_deref().unwrap_or_default();
    let mut names = HashSet::new();
    let mut paths = HashSet::new();
    for (i, device) in container.volume_devices.iter().flatten().enumerate() {
        let path = path.index(i);
        let (name, device_path) = (path.child("name"), path.child("devicePath"));
        required(&device.name, &name, errors);
        if !device.name.is_empty() && !names.insert(device.name.as_str()) {
            errors.push(FieldError::invalid(&name, &device.name, "must be unique"));
        }
        match volumes.get(device.name.as_str()) {
            Some(volume) if volume.persistent_volume_claim.is_none() && volume.ephemeral.is_none() => {
                let detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.push(FieldError::invalid(&name, &device.name, detail));
            }
            Some(_) => {}
            None => errors.push(FieldError::not_found(&name, &device.name)),
        }
        required(&device.device_path, &device_path, errors);
        if device.device_path.split('/').any(|part| part == "..") {
            let detail = "can not contain backsteps ('..')";
            errors.push(FieldError::invalid(&device_path, &device.device_path, detail));
        } else if !paths.insert(device.device_path.as_str()) {
            errors.push(FieldError::invalid(&device_path, &device.device_path, "must be unique"));
        }
        if mounts.iter().any(|mount| mount.name == device.name) {
            let detail = "must not already exist in volumeMounts";
            errors.push(FieldError::invalid(&name, &device.name, detail));
        }
        if mounts.iter().any(|mount| mount.mount_path == device.device_path) {
            let detail = "must not already exist as a path in volumeMounts";
            errors.push(FieldError::invalid(&device_path, &device.device_path, detail));
        }
    }
}
