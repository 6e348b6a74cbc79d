//! ReplicaSet: so many pods of one template.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetSpec, ReplicaSetStatus};
use k8s_openapi::api::autoscaling::v1::Scale;
use serde_json::Value;

use super::{scale, shared};
use crate::catalogue::{ALL_VERBS, Resource, Subresource};
use crate::field::{FieldError, Path};
use crate::kinds::pod::template;
use crate::meta::bump_generation;
use crate::strategy::{Typed, TypedStrategy};
use crate::table::{AGE, Column, NAME, age_cell, name_cell};

const SCHEMA: &str = "io.k8s.api.apps.v1.ReplicaSet";

/// `replicasets`
pub static RESOURCE: Resource = Resource {
    group: "apps",
    version: "v1",
    kind: "ReplicaSet",
    list_kind: "ReplicaSetList",
    plural: "replicasets",
    singular: "replicaset",
    short_names: &["rs"],
    categories: &["all"],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[scale::SUBRESOURCE, Subresource::status("apps", "v1", "ReplicaSet")],
    storage: "replicasets",
    schema: SCHEMA,
    strategy: &Typed::new(ReplicaSets, SCHEMA),
};

struct ReplicaSets;

fn validate_spec(spec: &ReplicaSetSpec) -> Vec<FieldError> {
    let path = Path::new("spec");
    let mut errors = Vec::new();
    shared::non_negative(spec.replicas.unwrap_or(1), &path.child("replicas"), &mut errors);
    let seconds = spec.min_ready_seconds.unwrap_or(0);
    shared::non_negative(seconds, &path.child("minReadySeconds"), &mut errors);
    let pods = spec.template.clone().unwrap_or_default();
    shared::selector_and_template(&spec.selector, &pods, &path, &mut errors);
    errors
}

fn validate(set: &ReplicaSet) -> Vec<FieldError> {
    validate_spec(&set.spec.clone().unwrap_or_default())
}

fn validate_status(status: &ReplicaSetStatus) -> Vec<FieldError> {
    let path = Path::new("status");
    let mut errors = Vec::new();
    let ready = status.ready_replicas.unwrap_or(0);
    let available = status.available_replicas.unwrap_or(0);
    let labeled = status.fully_labeled_replicas.unwrap_or(0);
    for (field, value) in [
        ("replicas", status.replicas),
        ("fullyLabeledReplicas", labeled),
        ("readyReplicas", ready),
        ("availableReplicas", available),
        ("terminatingReplicas", status.terminating_replicas.unwrap_or(0)),
    ] {
        shared::non_negative(value, &path.child(field), &mut errors);
    }
    let generation = status.observed_generation.unwrap_or(0);
    shared::non_negative(generation, &path.child("observedGeneration"), &mut errors);
    for (field, value) in [
        ("fullyLabeledReplicas", labeled),
        ("readyReplicas", ready),
        ("availableReplicas", available),
    ] {
        if value > status.replicas {
            let detail = "cannot be greater than status.replicas";
            errors.push(FieldError::invalid(&path.child(field), value, detail));
        }
    }
    if available > ready {
        let detail = "cannot be greater than readyReplicas";
        errors.push(FieldError::invalid(&path.child("availableReplicas"), available, detail));
    }
    errors
}

impl TypedStrategy for ReplicaSets {
    type Object = ReplicaSet;

    fn default(&self, set: &mut ReplicaSet) {
        let spec = set.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        template::default(spec.template.get_or_insert_default());
    }

    fn prepare_create(&self, set: &mut ReplicaSet) {
        set.status = Some(ReplicaSetStatus::default());
        set.metadata.generation = Some(1);
    }

    fn validate_create(&self, set: &ReplicaSet) -> Vec<FieldError> {
        validate(set)
    }

    fn prepare_update(&self, subresource: Option<&str>, new: &mut ReplicaSet, old: &ReplicaSet) {
        if subresource == Some("status") {
            new.spec.clone_from(&old.spec);
            return;
        }
        new.status.clone_from(&old.status);
        let changed = template::semantic(&new.spec) != template::semantic(&old.spec);
        bump_generation(&mut new.metadata, &old.metadata, changed);
    }

    fn validate_update(&self, subresource: Option<&str>, new: &ReplicaSet, old: &ReplicaSet) -> Vec<FieldError> {
        if subresource == Some("status") {
            return validate_status(&new.status.clone().unwrap_or_default());
        }
        let mut errors = validate(new);
        if let (Some(new), Some(old)) = (&new.spec, &old.spec) {
            shared::same_selector(&new.selector, &old.selector, &mut errors);
        }
        errors
    }

    fn scale(&self, set: &ReplicaSet) -> Option<Scale> {
        let spec = set.spec.as_ref()?;
        let present = set.status.as_ref().map_or(0, |status| status.replicas);
        Some(scale::of(&set.metadata, spec.replicas, &spec.selector, present))
    }

    fn set_replicas(&self, set: &mut ReplicaSet, replicas: i32) {
        set.spec.get_or_insert_default().replicas = Some(replicas);
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::new(
                "Desired",
                "integer",
                "Replicas is the number of desired pods. This is a pointer to distinguish between explicit zero and unspecified. Defaults to 1. More info: https://kubernetes.io/docs/concepts/workloads/controllers/replicaset",
            ),
            Column::new(
                "Current",
                "integer",
                "Replicas is the most recently observed number of non-terminating pods. More info: https://kubernetes.io/docs/concepts/workloads/controllers/replicaset",
            ),
            Column::new(
                "Ready",
                "integer",
                "The number of non-terminating pods targeted by this ReplicaSet with a Ready Condition.",
            ),
            AGE,
            shared::CONTAINERS,
            shared::IMAGES,
            Column::new(
                "Selector",
                "string",
                "Selector is a label query over pods that should match the replica count. Label keys and values that must match in order to be controlled by this replica set. It must match the pod template's labels. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
            )
            .wide(),
        ];
        COLUMNS
    }

    fn row(&self, set: &ReplicaSet, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (
            set.spec.clone().unwrap_or_default(),
            set.status.clone().unwrap_or_default(),
        );
        let [containers, images, selector] = shared::wide_cells(&spec.template.unwrap_or_default(), &spec.selector);
        vec![
            name_cell(&set.metadata),
            spec.replicas.unwrap_or(0).into(),
            status.replicas.into(),
            status.ready_replicas.unwrap_or(0).into(),
            age_cell(&set.metadata, now),
            containers,
            images,
            selector,
        ]
    }

    fn fields(&self) -> &'static [&'static str] {
        &["status.replicas"]
    }

    fn field(&self, set: &ReplicaSet, path: &str) -> Option<String> {
        (path == "status.replicas").then(|| set.status.as_ref().map_or(0, |status| status.replicas).to_string())
    }

    fn warnings(&self, new: &ReplicaSet, old: Option<&ReplicaSet>) -> Vec<String> {
        if old.is_some_and(|old| old.metadata.generation == new.metadata.generation) {
            return Vec::new();
        }
        let pods = new.spec.as_ref().and_then(|spec| spec.template.as_ref());
        pods.map_or_else(Vec::new, |pods| shared::warnings(&new.metadata, pods, old.is_none()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{cells, created, updated};

    fn set(spec: Value) -> Value {
        let mut whole = json!({
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}},
        });
        for (field, value) in spec.as_object().unwrap() {
            whole[field] = value.clone();
        }
        json!({"spec": whole})
    }

    #[test]
    fn a_new_one_has_one_replica_and_a_whole_template() {
        let value = created(&RESOURCE, set(json!({}))).unwrap().to_value().unwrap();
        assert_eq!(value["spec"]["replicas"], 1);
        assert_eq!(value["spec"]["template"]["spec"]["restartPolicy"], "Always");
        assert_eq!(value["metadata"]["generation"], 1);
        assert_eq!(value["status"], json!({"replicas": 0}));
    }

    #[test]
    fn rows() {
        assert_eq!(
            cells(&RESOURCE, set(json!({"replicas": 3}))),
            [
                json!("a"),
                json!(3),
                json!(0),
                json!(0),
                json!("60s"),
                json!("c"),
                json!("i:1"),
                json!("app=web")
            ]
        );
    }

    #[test]
    fn the_status_is_checked_through_its_own_path() {
        let mut new = set(json!({}));
        new["status"] = json!({"replicas": 1, "readyReplicas": 2, "availableReplicas": 3});
        assert_eq!(
            updated(&RESOURCE, Some("status"), set(json!({})), new.clone()).unwrap_err(),
            r#"ReplicaSet.apps "a" is invalid: [status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas, status.availableReplicas: Invalid value: 3: cannot be greater than status.replicas, status.availableReplicas: Invalid value: 3: cannot be greater than readyReplicas]"#
        );
        new["status"] = json!({"replicas": 1});
        new["spec"]["replicas"] = 5.into();
        let value = updated(&RESOURCE, Some("status"), set(json!({})), new.clone()).unwrap();
        assert_eq!(
            (&value["spec"]["replicas"], &value["status"]),
            (&json!(1), &json!({"replicas": 1}))
        );
        let value = updated(&RESOURCE, None, set(json!({})), new).unwrap();
        assert_eq!(
            (&value["spec"]["replicas"], &value["metadata"]["generation"]),
            (&json!(5), &json!(2))
        );
    }
}
