//! The template of pods that a workload holds: a pod's metadata and spec, with a pod's own rules.

use k8s_openapi::api::core::v1::PodTemplateSpec;

pub(crate) use super::validate::{label_selector, semantic, template as validate};
use super::{defaults, warnings};
use crate::field::Path;

/// Fills in what the template's author left out.
pub(crate) fn default(template: &mut PodTemplateSpec) {
    defaults::pod_spec(template.spec.get_or_insert_default());
}

/// What the template's author is warned of.
pub(crate) fn warnings(template: &PodTemplateSpec, path: &Path<'_>) -> Vec<String> {
    let none = Default::default();
    let meta = template.metadata.as_ref().unwrap_or(&none);
    match &template.spec {
        Some(spec) => warnings::of_parts(meta, spec, &path.child("metadata"), &path.child("spec")),
        None => Vec::new(),
    }
}
