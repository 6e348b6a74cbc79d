//! Storage that outlives pods: PersistentVolume, PersistentVolumeClaim, StorageClass.

pub mod claim;
pub mod class;
pub mod volume;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Written;

use crate::field::{FieldError, Path};
use crate::quantity::Quantity;

/// The finalizer that keeps a volume while a claim has it.
pub const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";
/// The finalizer that keeps a claim while a pod uses it.
pub const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";

const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const VOLUME_MODES: &[&str] = &["Block", "Filesystem"];

/// Access modes as tables show them: in this order, each once.
fn short_modes(modes: Option<&Vec<String>>) -> String {
    let all = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let given = |mode: &str| modes.is_some_and(|modes| modes.iter().any(|given| given == mode));
    let shown: Vec<&str> = all
        .iter()
        .filter(|(mode, _)| given(mode))
        .map(|(_, short)| *short)
        .collect();
    shown.join(",")
}

fn validate_modes(modes: Option<&Vec<String>>, path: &Path<'_>, required: &str, errors: &mut Vec<FieldError>) {
    let modes = modes.map(Vec::as_slice).unwrap_or_default();
    if modes.is_empty() {
        errors.push(FieldError::required(path, required));
    }
    for mode in modes.iter().filter(|mode| !ACCESS_MODES.contains(&mode.as_str())) {
        errors.push(FieldError::not_supported(path, mode, ACCESS_MODES));
    }
    if modes.len() > 1 && modes.iter().any(|mode| mode == "ReadWriteOncePod") {
        let detail = "may not use ReadWriteOncePod with other access modes";
        errors.push(FieldError::forbidden(path, detail));
    }
}

fn validate_volume_mode(mode: Option<&str>, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if let Some(mode) = mode.filter(|mode| !VOLUME_MODES.contains(mode)) {
        errors.push(FieldError::not_supported(path, mode, VOLUME_MODES));
    }
}

fn validate_amount(amount: &Written, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if !Quantity::of(amount).is_ok_and(|amount| amount.value() > 0) {
        errors.push(FieldError::invalid(path, amount, "must be greater than zero"));
    }
}

/// The storage in a list of resources, as it is written.
fn storage(resources: Option<&BTreeMap<String, Written>>) -> &str {
    resources
        .and_then(|resources| resources.get("storage"))
        .map(|storage| storage.0.as_str())
        .unwrap_or_default()
}

fn add_finalizer(meta: &mut k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta, finalizer: &str) {
    let finalizers = meta.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|given| given == finalizer) {
        finalizers.push(finalizer.to_owned());
    }
}
