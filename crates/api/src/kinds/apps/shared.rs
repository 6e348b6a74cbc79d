//! What the kinds of workloads check and show alike.

use k8s_openapi::api::core::v1::{Container, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde_json::Value;

use crate::field::{FieldError, Path};
use crate::kinds::pod::template;
use crate::meta::names;
use crate::selector;
use crate::table::Column;

pub(super) const CONTAINERS: Column =
    Column::new("Containers", "string", "Names of each container in the template.").wide();
pub(super) const IMAGES: Column = Column::new(
    "Images",
    "string",
    "Images referenced by each container in the template.",
)
.wide();

/// Checks that a number is not below zero.
pub(super) fn non_negative(value: impl Into<i64>, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let value = value.into();
    if value < 0 {
        errors.push(FieldError::invalid(path, value, "must be greater than or equal to 0"));
    }
}

/// Checks a selector, and that the pods of the template are ones that it selects.
///
/// A selector that is not there is decoded like an empty one; neither may be, and the message is that of the
/// former, which is what happens.
pub(super) fn selector_and_template(
    selector: &LabelSelector,
    pods: &PodTemplateSpec,
    spec: &Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    let path = spec.child("selector");
    let is_missing = *selector == LabelSelector::default();
    if is_missing {
        errors.push(FieldError::required(&path, ""));
    } else {
        template::label_selector(selector, &path, errors);
        let size = selector.match_labels.as_ref().map_or(0, |labels| labels.len())
            + selector.match_expressions.as_ref().map_or(0, Vec::len);
        if size == 0 {
            let detail = "empty selector is invalid for deployment";
            errors.push(FieldError::invalid(&path, selector, detail));
        }
    }
    let at = spec.child("template");
    match selector::LabelSelector::from_object((!is_missing).then_some(selector)) {
        Err(_) => errors.push(FieldError::invalid(&path, selector, "invalid label selector")),
        Ok(found) => {
            let labels = pods.metadata.as_ref().and_then(|meta| meta.labels.as_ref());
            if !found.is_everything() && !found.matches(labels) {
                let metadata = at.child("metadata");
                let detail = "`selector` does not match template `labels`";
                errors.push(FieldError::invalid(&metadata.child("labels"), labels, detail));
            }
            lasting_template(pods, &at, errors);
        }
    }
}

/// Checks a template of pods that are to run for good.
fn lasting_template(pods: &PodTemplateSpec, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    template::validate(pods, path, errors);
    let Some(spec) = &pods.spec else { return };
    let at = path.child("spec");
    let policy = spec.restart_policy.as_deref().unwrap_or_default();
    if policy != "Always" {
        errors.push(FieldError::not_supported(
            &at.child("restartPolicy"),
            policy,
            &["Always"],
        ));
    }
    if spec.active_deadline_seconds.is_some() {
        let detail = "activeDeadlineSeconds in ReplicaSet is not Supported";
        errors.push(FieldError::forbidden(&at.child("activeDeadlineSeconds"), detail));
    }
}

/// Checks that the selector is the old one.
pub(super) fn same_selector(new: &LabelSelector, old: &LabelSelector, errors: &mut Vec<FieldError>) {
    if template::semantic(new) != template::semantic(old) {
        let spec = Path::new("spec");
        errors.push(FieldError::invalid(&spec.child("selector"), new, "field is immutable"));
    }
}

/// What the author of a workload is warned of: a name that will not do for its pods, and the template.
pub(super) fn warnings(meta: &ObjectMeta, pods: &PodTemplateSpec, is_new: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    let messages = names::dns1123_label(meta.name.as_deref().unwrap_or_default());
    if is_new && !messages.is_empty() {
        warnings.push(format!(
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [{}]",
            messages.join(" ")
        ));
    }
    let spec = Path::new("spec");
    warnings.extend(template::warnings(pods, &spec.child("template")));
    warnings
}

/// The cells of `-o wide`: names and images of the containers, and the selector.
pub(super) fn wide_cells(pods: &PodTemplateSpec, selector: &LabelSelector) -> [Value; 3] {
    let containers = || pods.spec.iter().flat_map(|spec| &spec.containers);
    let joined = |part: fn(&Container) -> &str| containers().map(part).collect::<Vec<_>>().join(",").into();
    let selector = match selector::LabelSelector::from_object(Some(selector)) {
        Ok(selector) if selector.is_everything() => "<none>".to_owned(),
        Ok(selector) => selector.to_string(),
        Err(_) => "<error>".to_owned(),
    };
    [
        joined(|container| &container.name),
        joined(|container| container.image.as_deref().unwrap_or_default()),
        selector.into(),
    ]
}
