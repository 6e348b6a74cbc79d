//! What makes a pod valid: one module an area, in the order in which upstream reports errors.
//!
//! The checks take the path of what they check and push errors on a list. They expect a defaulted object.

mod containers;
mod env;
mod mounts;
mod network;
mod probes;
mod resize;
mod resources;
mod scheduling;
mod security;
mod selectors;
mod spec;
mod status;
mod update;
pub(crate) mod volume_sources;
mod volumes;

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Serialize;

pub(crate) use self::resize::resize;
pub(crate) use self::scheduling::taint_effect;
pub(crate) use self::selectors::node_selector;
pub(crate) use self::status::update_status;
pub(crate) use self::update::{ephemeral_containers, semantic, update};
use crate::field::{FieldError, Path};
use crate::meta::{names, validate_annotations, validate_labels};

/// Where checks leave what they found.
type Errors = Vec<FieldError>;

/// Checks a new pod below its name.
pub(crate) fn create(pod: &Pod) -> Errors {
    let mut errors = metadata_and_spec(pod);
    let path = Path::new("spec");
    let Some(spec) = &pod.spec else { return errors };
    if spec.ephemeral_containers.iter().flatten().next().is_some() {
        errors.push(FieldError::forbidden(
            &path.child("ephemeralContainers"),
            "cannot be set on create",
        ));
    }
    let gated = spec.scheduling_gates.iter().flatten().next().is_some();
    if gated && spec.node_name.as_deref().is_some_and(|name| !name.is_empty()) {
        let detail = "cannot be set until all schedulingGates have been cleared";
        errors.push(FieldError::forbidden(&path.child("nodeName"), detail));
    }
    errors
}

/// What is checked of a pod whenever its spec may have been written.
fn metadata_and_spec(pod: &Pod) -> Errors {
    let mut errors = Vec::new();
    let path = Path::new("spec");
    let Some(spec) = &pod.spec else {
        errors.push(FieldError::required(&path.child("containers"), ""));
        return errors;
    };
    spec::annotations(&pod.metadata, spec, &Path::new("metadata"), &mut errors);
    spec::pod_spec(spec, &pod.metadata, &path, &mut errors);
    spec::only_for_pods(spec, &path, &mut errors);
    errors
}

/// Checks a template of pods.
pub(crate) fn template(template: &PodTemplateSpec, path: &Path<'_>, errors: &mut Errors) {
    let none = Default::default();
    let meta = template.metadata.as_ref().unwrap_or(&none);
    validate_labels(meta.labels.as_ref(), &path.child("labels"), errors);
    validate_annotations(meta.annotations.as_ref(), &path.child("annotations"), errors);
    let spec_path = path.child("spec");
    let Some(spec) = &template.spec else {
        errors.push(FieldError::required(&spec_path.child("containers"), ""));
        return;
    };
    spec::annotations(meta, spec, path, errors);
    spec::pod_spec(spec, meta, &spec_path, errors);
    if spec.ephemeral_containers.iter().flatten().next().is_some() {
        errors.push(FieldError::forbidden(
            &spec_path.child("ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        ));
    }
}

/// Checks a selector by labels.
pub(crate) fn label_selector(selector: &LabelSelector, path: &Path<'_>, errors: &mut Errors) {
    selectors::label_selector(selector, path, errors);
}

/// Adds one error for each message about a value.
fn refuse(errors: &mut Errors, path: &Path<'_>, value: impl Serialize + Copy, messages: Vec<String>) {
    errors.extend(
        messages
            .into_iter()
            .map(|message| FieldError::invalid(path, value, message)),
    );
}

/// Checks a value against an enumeration; empty is a missing value.
fn one_of(value: &str, supported: &[&str], path: &Path<'_>, errors: &mut Errors) {
    if value.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else if !supported.contains(&value) {
        errors.push(FieldError::not_supported(path, value, supported));
    }
}

/// Checks that a text is there.
fn required(value: &str, path: &Path<'_>, errors: &mut Errors) {
    if value.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
}

fn label(value: &str, path: &Path<'_>, errors: &mut Errors) {
    refuse(errors, path, value, names::dns1123_label(value));
}

fn subdomain(value: &str, path: &Path<'_>, errors: &mut Errors) {
    refuse(errors, path, value, names::dns1123_subdomain(value));
}

fn qualified_name(value: &str, path: &Path<'_>, errors: &mut Errors) {
    refuse(errors, path, value, names::qualified_name(value));
}

fn non_negative(value: i64, path: &Path<'_>, errors: &mut Errors) {
    if value < 0 {
        errors.push(FieldError::invalid(path, value, "must be greater than or equal to 0"));
    }
}

fn ip(value: &str, path: &Path<'_>, errors: &mut Errors) {
    if value.parse::<IpAddr>().is_err() {
        let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        errors.push(FieldError::invalid(path, value, detail));
    }
}

fn within(value: i64, low: i64, high: i64, path: &Path<'_>, errors: &mut Errors) {
    if !(low..=high).contains(&value) {
        errors.push(FieldError::invalid(
            path,
            value,
            format!("must be between {low} and {high}, inclusive"),
        ));
    }
}

/// A path that may not climb out of where it starts.
fn no_backsteps(value: &str, path: &Path<'_>, errors: &mut Errors) {
    if value.split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(path, value, "must not contain '..'"));
    }
}

/// A relative path that stays below where it starts.
fn descending_path(value: &str, path: &Path<'_>, errors: &mut Errors) {
    if value.starts_with('/') {
        errors.push(FieldError::invalid(path, value, "must be a relative path"));
    }
    no_backsteps(value, path, errors);
}

/// A file in a volume whose own bookkeeping has names that start with two dots.
fn unreserved_path(value: &str, path: &Path<'_>, errors: &mut Errors) {
    descending_path(value, path, errors);
    if value.starts_with("..") && !value.starts_with("../") && value != ".." {
        errors.push(FieldError::invalid(path, value, "must not start with '..'"));
    }
}

fn file_mode(mode: Option<i32>, path: &Path<'_>, errors: &mut Errors) {
    if let Some(mode) = mode.filter(|mode| !(0..=0o777).contains(mode)) {
        let detail = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.push(FieldError::invalid(path, mode, detail));
    }
}

#[cfg(test)]
mod tests;
