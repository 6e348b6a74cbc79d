//! `autoscaling/v1` Scale: what the `scale` subresource of every workload takes and returns.

use k8s_openapi::api::autoscaling::v1::{Scale, ScaleSpec, ScaleStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use crate::catalogue::{Subresource, Verb};
use crate::field::{FieldError, Path};
use crate::selector;

/// The kind's name in OpenAPI.
pub const SCHEMA: &str = "io.k8s.api.autoscaling.v1.Scale";

/// The subresource, as workloads have it.
pub(super) const SUBRESOURCE: Subresource = Subresource {
    name: "scale",
    group: "autoscaling",
    version: "v1",
    kind: "Scale",
    verbs: &[Verb::Get, Verb::Patch, Verb::Update],
};

/// The scale of an object.
pub(super) fn of(meta: &ObjectMeta, replicas: Option<i32>, selector: &LabelSelector, present: i32) -> Scale {
    let selector =
        selector::LabelSelector::from_object(Some(selector)).unwrap_or_else(|_| selector::LabelSelector::nothing());
    Scale {
        metadata: ObjectMeta {
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            creation_timestamp: meta.creation_timestamp.clone(),
            ..ObjectMeta::default()
        },
        spec: Some(ScaleSpec {
            replicas: replicas.filter(|replicas| *replicas != 0),
        }),
        status: Some(ScaleStatus {
            replicas: present,
            selector: Some(selector.to_string()).filter(|text| !text.is_empty()),
        }),
    }
}

/// Checks a scale that was sent.
pub fn validate(scale: &Scale) -> Vec<FieldError> {
    let replicas = scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
    let mut errors = Vec::new();
    if replicas < 0 {
        let detail = "must be greater than or equal to 0";
        errors.push(FieldError::invalid(
            &Path::new("spec").child("replicas"),
            replicas,
            detail,
        ));
    }
    errors
}
