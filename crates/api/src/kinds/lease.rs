//! Lease: who holds something, and since when. Nodes renew one each as their heartbeat.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::Value;

use crate::catalogue::{ALL_VERBS, Resource};
use crate::field::{FieldError, Path};
use crate::strategy::{Typed, TypedStrategy};
use crate::table::{AGE, Column, NAME, age_cell, name_cell};

const SCHEMA: &str = "io.k8s.api.coordination.v1.Lease";

/// `leases.coordination.k8s.io`
pub static RESOURCE: Resource = Resource {
    group: "coordination.k8s.io",
    version: "v1",
    kind: "Lease",
    list_kind: "LeaseList",
    plural: "leases",
    singular: "lease",
    short_names: &[],
    categories: &[],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[],
    storage: "leases",
    schema: SCHEMA,
    strategy: &Typed::new(Leases, SCHEMA),
};

struct Leases;

fn validate(lease: &Lease) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::new("spec");
    let Some(spec) = &lease.spec else { return errors };
    if let Some(seconds) = spec.lease_duration_seconds.filter(|seconds| *seconds <= 0) {
        errors.push(FieldError::invalid(
            &path.child("leaseDurationSeconds"),
            seconds,
            "must be greater than 0",
        ));
    }
    if let Some(transitions) = spec.lease_transitions.filter(|transitions| *transitions < 0) {
        let detail = "must be greater than or equal to 0";
        errors.push(FieldError::invalid(
            &path.child("leaseTransitions"),
            transitions,
            detail,
        ));
    }
    errors
}

impl TypedStrategy for Leases {
    type Object = Lease;

    fn validate_create(&self, lease: &Lease) -> Vec<FieldError> {
        validate(lease)
    }

    fn validate_update(&self, _subresource: Option<&str>, new: &Lease, _old: &Lease) -> Vec<FieldError> {
        validate(new)
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::new(
                "Holder",
                "string",
                "holderIdentity contains the identity of the holder of a current lease. If Coordinated Leader Election is used, the holder identity must be equal to the elected LeaseCandidate.metadata.name field.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn row(&self, lease: &Lease, now: Timestamp) -> Vec<Value> {
        let holder = lease
            .spec
            .as_ref()
            .and_then(|spec| spec.holder_identity.as_deref())
            .unwrap_or_default();
        vec![
            name_cell(&lease.metadata),
            holder.into(),
            age_cell(&lease.metadata, now),
        ]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{cells, created};

    #[test]
    fn durations_are_positive() {
        assert_eq!(
            created(&RESOURCE, json!({"spec": {"leaseDurationSeconds": 0}})).unwrap_err(),
            r#"Lease.coordination.k8s.io "a" is invalid: spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"#
        );
    }

    #[test]
    fn times_keep_their_microseconds() {
        let lease = created(&RESOURCE, json!({"spec": {"renewTime": "2024-01-01T00:00:00.000001Z"}})).unwrap();
        assert_eq!(
            lease.to_value().unwrap()["spec"]["renewTime"],
            "2024-01-01T00:00:00.000001Z"
        );
    }

    #[test]
    fn rows() {
        assert_eq!(
            cells(&RESOURCE, json!({"spec": {"holderIdentity": "n1"}})),
            [json!("a"), json!("n1"), json!("60s")]
        );
    }
}
