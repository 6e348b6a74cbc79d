//! Binding a pod to a node: what the `binding` subresource does.

use k8s_openapi::api::core::v1::{Binding, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{is_deleting, name, node_name, set_condition};
use crate::field::{FieldError, Path, quote};

/// Checks a binding by itself.
pub fn validate_binding(binding: &Binding) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::new("target");
    if let Some(kind) = binding
        .target
        .kind
        .as_deref()
        .filter(|kind| !matches!(*kind, "" | "Node"))
    {
        errors.push(FieldError::not_supported(
            &path.child("kind"),
            kind,
            &["Node", "<empty>"],
        ));
    }
    if binding.target.name.as_deref().is_none_or(str::is_empty) {
        errors.push(FieldError::required(&path.child("name"), ""));
    }
    errors
}

/// Binds the pod, or says why it cannot be bound: that is a conflict.
pub fn bind(pod: &mut Pod, binding: &Binding, now: Time) -> Result<(), String> {
    let own_name = name(pod).to_owned();
    if let (Some(wanted), Some(uid)) = (binding.metadata.uid.as_deref(), pod.metadata.uid.as_deref())
        && !wanted.is_empty()
        && wanted != uid
    {
        return Err(format!(
            "Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}"
        ));
    }
    if is_deleting(pod) {
        return Err(format!("pod {own_name} is being deleted, cannot be assigned to a host"));
    }
    if let Some(node) = node_name(pod) {
        return Err(format!("pod {own_name} is already assigned to node {}", quote(node)));
    }
    let spec = pod.spec.get_or_insert_default();
    if spec.scheduling_gates.iter().flatten().next().is_some() {
        return Err(format!("pod {own_name} has non-empty .spec.schedulingGates"));
    }
    spec.node_name.clone_from(&binding.target.name);
    for (own, added) in [
        (&mut pod.metadata.annotations, &binding.metadata.annotations),
        (&mut pod.metadata.labels, &binding.metadata.labels),
    ] {
        if let Some(added) = added {
            own.get_or_insert_default().extend(added.clone());
        }
    }
    set_condition(
        pod.status.get_or_insert_default(),
        PodCondition {
            type_: "PodScheduled".into(),
            status: "True".into(),
            observed_generation: pod.metadata.generation,
            last_transition_time: Some(now),
            ..Default::default()
        },
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "the fixtures are constants")]
    use super::*;
    use jiff::Timestamp;
    use serde_json::{Value, json};

    fn binding(value: Value) -> Binding {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_binding_names_a_node() {
        let errors = |value| {
            validate_binding(&binding(value))
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert!(errors(json!({"target": {"kind": "Node", "name": "n"}})).is_empty());
        assert_eq!(
            errors(json!({"target": {"kind": "Pod"}})),
            [
                r#"target.kind: Unsupported value: "Pod": supported values: "Node", "<empty>""#,
                "target.name: Required value",
            ]
        );
    }

    #[test]
    fn who_can_be_bound() {
        for (pod, want) in [
            (json!({"metadata": {"name": "p"}, "spec": {"containers": []}}), Ok(())),
            (
                json!({"metadata": {"name": "p"}, "spec": {"containers": [], "nodeName": "m"}}),
                Err("pod p is already assigned to node \"m\""),
            ),
            (
                json!({"metadata": {"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"containers": []}}),
                Err("pod p is being deleted, cannot be assigned to a host"),
            ),
            (
                json!({"metadata": {"name": "p"}, "spec": {"containers": [], "schedulingGates": [{"name": "g"}]}}),
                Err("pod p has non-empty .spec.schedulingGates"),
            ),
        ] {
            let mut object: Pod = serde_json::from_value(pod.clone()).unwrap();
            let binding = binding(json!({"metadata": {"annotations": {"a": "b"}}, "target": {"name": "n"}}));
            let got = bind(&mut object, &binding, Time(Timestamp::UNIX_EPOCH));
            assert_eq!(got, want.map_err(str::to_owned), "{pod}");
            if got.is_ok() {
                assert_eq!(node_name(&object), Some("n"));
                assert!(super::super::condition_is_true(&object, "PodScheduled"));
                assert_eq!(object.metadata.annotations.unwrap()["a"], "b");
            }
        }
    }
}
