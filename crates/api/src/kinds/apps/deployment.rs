//! Deployment: ReplicaSets in succession, one for each template that it has had.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentSpec, DeploymentStatus, DeploymentStrategy, RollingUpdateDeployment,
};
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::{scale, shared};
use crate::catalogue::{ALL_VERBS, Resource, Subresource};
use crate::field::{FieldError, Path};
use crate::kinds::pod::template;
use crate::meta::bump_generation;
use crate::strategy::{Typed, TypedStrategy};
use crate::table::{AGE, Column, NAME, age_cell, name_cell};

const SCHEMA: &str = "io.k8s.api.apps.v1.Deployment";

/// `deployments`
pub static RESOURCE: Resource = Resource {
    group: "apps",
    version: "v1",
    kind: "Deployment",
    list_kind: "DeploymentList",
    plural: "deployments",
    singular: "deployment",
    short_names: &["deploy"],
    categories: &["all"],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[scale::SUBRESOURCE, Subresource::status("apps", "v1", "Deployment")],
    storage: "deployments",
    schema: SCHEMA,
    strategy: &Typed::new(Deployments, SCHEMA),
};

struct Deployments;

/// What a percentage says; none for a number, or for a text that is no percentage.
fn percent(value: &IntOrString) -> Option<i64> {
    match value {
        IntOrString::Int(_) => None,
        IntOrString::String(text) => text
            .strip_suffix('%')
            .filter(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))?
            .parse()
            .ok(),
    }
}

fn number_or_percent(value: &IntOrString, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    match value {
        IntOrString::Int(number) => shared::non_negative(*number, path, errors),
        IntOrString::String(_) if percent(value).is_none() => {
            let detail = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
            errors.push(FieldError::invalid(path, value, detail));
        }
        IntOrString::String(_) => {}
    }
}

fn is_nothing(value: &IntOrString) -> bool {
    matches!(value, IntOrString::Int(0)) || percent(value) == Some(0)
}

fn validate_strategy(strategy: &DeploymentStrategy, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let rolling = path.child("rollingUpdate");
    match (strategy.type_.as_deref().unwrap_or_default(), &strategy.rolling_update) {
        ("Recreate", None) => {}
        ("Recreate", Some(_)) => {
            let detail = "may not be specified when strategy `type` is 'Recreate'";
            errors.push(FieldError::forbidden(&rolling, detail));
        }
        ("RollingUpdate", None) => {
            errors.push(FieldError::required(
                &rolling,
                "this should be defaulted and never be nil",
            ));
        }
        ("RollingUpdate", Some(parameters)) => {
            let none = IntOrString::Int(0);
            let unavailable = parameters.max_unavailable.as_ref().unwrap_or(&none);
            let surge = parameters.max_surge.as_ref().unwrap_or(&none);
            let at = rolling.child("maxUnavailable");
            number_or_percent(unavailable, &at, errors);
            number_or_percent(surge, &rolling.child("maxSurge"), errors);
            if is_nothing(unavailable) && is_nothing(surge) {
                errors.push(FieldError::invalid(
                    &at,
                    unavailable,
                    "may not be 0 when `maxSurge` is 0",
                ));
            }
            if percent(unavailable).is_some_and(|percent| percent > 100) {
                errors.push(FieldError::invalid(&at, unavailable, "must not be greater than 100%"));
            }
        }
        (other, rolling) => errors.push(FieldError::not_supported(
            path,
            // The fields' names are those of upstream's internal type, which its message shows.
            json!({"Type": other, "RollingUpdate": rolling}),
            &["Recreate", "RollingUpdate"],
        )),
    }
}

fn validate_spec(spec: &DeploymentSpec) -> Vec<FieldError> {
    let path = Path::new("spec");
    let mut errors = Vec::new();
    shared::non_negative(spec.replicas.unwrap_or(1), &path.child("replicas"), &mut errors);
    shared::selector_and_template(&spec.selector, &spec.template, &path, &mut errors);
    let strategy = spec.strategy.clone().unwrap_or_default();
    validate_strategy(&strategy, &path.child("strategy"), &mut errors);
    let ready = spec.min_ready_seconds.unwrap_or(0);
    shared::non_negative(ready, &path.child("minReadySeconds"), &mut errors);
    let limit = spec.revision_history_limit.unwrap_or(0);
    shared::non_negative(limit, &path.child("revisionHistoryLimit"), &mut errors);
    if let Some(deadline) = spec.progress_deadline_seconds {
        let at = path.child("progressDeadlineSeconds");
        shared::non_negative(deadline, &at, &mut errors);
        if deadline <= ready {
            errors.push(FieldError::invalid(
                &at,
                deadline,
                "must be greater than minReadySeconds",
            ));
        }
    }
    errors
}

fn validate(deployment: &Deployment) -> Vec<FieldError> {
    validate_spec(&deployment.spec.clone().unwrap_or_default())
}

fn validate_status(new: &DeploymentStatus, old: &DeploymentStatus) -> Vec<FieldError> {
    let path = Path::new("status");
    let mut errors = Vec::new();
    let of = |count: Option<i32>| count.unwrap_or(0);
    let generation = new.observed_generation.unwrap_or(0);
    shared::non_negative(generation, &path.child("observedGeneration"), &mut errors);
    for (field, value) in [
        ("replicas", new.replicas),
        ("updatedReplicas", new.updated_replicas),
        ("readyReplicas", new.ready_replicas),
        ("availableReplicas", new.available_replicas),
        ("unavailableReplicas", new.unavailable_replicas),
        ("terminatingReplicas", new.terminating_replicas),
        ("collisionCount", new.collision_count),
    ] {
        shared::non_negative(of(value), &path.child(field), &mut errors);
    }
    let available = of(new.available_replicas);
    for (field, value) in [
        ("updatedReplicas", of(new.updated_replicas)),
        ("readyReplicas", of(new.ready_replicas)),
        ("availableReplicas", available),
    ] {
        if value > of(new.replicas) {
            let detail = "cannot be greater than status.replicas";
            errors.push(FieldError::invalid(&path.child(field), value, detail));
        }
    }
    if available > of(new.ready_replicas) {
        let detail = "cannot be greater than readyReplicas";
        errors.push(FieldError::invalid(&path.child("availableReplicas"), available, detail));
    }
    if of(new.collision_count) < of(old.collision_count) {
        let at = path.child("collisionCount");
        errors.push(FieldError::invalid(
            &at,
            of(new.collision_count),
            "cannot be decremented",
        ));
    }
    errors
}

impl TypedStrategy for Deployments {
    type Object = Deployment;

    fn default(&self, deployment: &mut Deployment) {
        let spec = deployment.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        let strategy = spec.strategy.get_or_insert_default();
        if strategy.type_.as_deref().is_none_or(str::is_empty) {
            strategy.type_ = Some("RollingUpdate".into());
        }
        if strategy.type_.as_deref() == Some("RollingUpdate") {
            let quarter = || IntOrString::String("25%".into());
            let rolling = strategy
                .rolling_update
                .get_or_insert_with(RollingUpdateDeployment::default);
            rolling.max_unavailable.get_or_insert_with(quarter);
            rolling.max_surge.get_or_insert_with(quarter);
        }
        spec.revision_history_limit.get_or_insert(10);
        spec.progress_deadline_seconds.get_or_insert(600);
        template::default(&mut spec.template);
    }

    fn prepare_create(&self, deployment: &mut Deployment) {
        deployment.status = Some(DeploymentStatus::default());
        deployment.metadata.generation = Some(1);
    }

    fn validate_create(&self, deployment: &Deployment) -> Vec<FieldError> {
        validate(deployment)
    }

    fn prepare_update(&self, subresource: Option<&str>, new: &mut Deployment, old: &Deployment) {
        if subresource == Some("status") {
            new.spec.clone_from(&old.spec);
            new.metadata.labels.clone_from(&old.metadata.labels);
            return;
        }
        new.status.clone_from(&old.status);
        // Annotations are copied to ReplicaSets, so that they are a part of the wish.
        let changed = new.metadata.annotations.clone().unwrap_or_default()
            != old.metadata.annotations.clone().unwrap_or_default()
            || template::semantic(&new.spec) != template::semantic(&old.spec);
        bump_generation(&mut new.metadata, &old.metadata, changed);
    }

    fn validate_update(&self, subresource: Option<&str>, new: &Deployment, old: &Deployment) -> Vec<FieldError> {
        if subresource == Some("status") {
            return validate_status(
                &new.status.clone().unwrap_or_default(),
                &old.status.clone().unwrap_or_default(),
            );
        }
        let mut errors = validate(new);
        if let (Some(new), Some(old)) = (&new.spec, &old.spec) {
            shared::same_selector(&new.selector, &old.selector, &mut errors);
        }
        errors
    }

    fn scale(&self, deployment: &Deployment) -> Option<Scale> {
        let spec = deployment.spec.as_ref()?;
        let present = deployment
            .status
            .as_ref()
            .and_then(|status| status.replicas)
            .unwrap_or(0);
        Some(scale::of(&deployment.metadata, spec.replicas, &spec.selector, present))
    }

    fn set_replicas(&self, deployment: &mut Deployment, replicas: i32) {
        deployment.spec.get_or_insert_default().replicas = Some(replicas);
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::new("Ready", "string", "Number of the pod with ready state"),
            Column::new(
                "Up-to-date",
                "string",
                "Total number of non-terminating pods targeted by this deployment that have the desired template spec.",
            ),
            Column::new(
                "Available",
                "string",
                "Total number of available non-terminating pods (ready for at least minReadySeconds) targeted by this deployment.",
            ),
            AGE,
            shared::CONTAINERS,
            shared::IMAGES,
            Column::new(
                "Selector",
                "string",
                "Label selector for pods. Existing ReplicaSets whose pods are selected by this will be the ones affected by this deployment. It must match the pod template's labels.",
            )
            .wide(),
        ];
        COLUMNS
    }

    fn row(&self, deployment: &Deployment, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (
            deployment.spec.clone().unwrap_or_default(),
            deployment.status.clone().unwrap_or_default(),
        );
        let [containers, images, selector] = shared::wide_cells(&spec.template, &spec.selector);
        let ready = status.ready_replicas.unwrap_or(0);
        vec![
            name_cell(&deployment.metadata),
            format!("{ready}/{}", spec.replicas.unwrap_or(0)).into(),
            status.updated_replicas.unwrap_or(0).into(),
            status.available_replicas.unwrap_or(0).into(),
            age_cell(&deployment.metadata, now),
            containers,
            images,
            selector,
        ]
    }

    fn warnings(&self, new: &Deployment, old: Option<&Deployment>) -> Vec<String> {
        if old.is_some_and(|old| old.metadata.generation == new.metadata.generation) {
            return Vec::new();
        }
        let spec = new.spec.as_ref();
        spec.map_or_else(Vec::new, |spec| {
            shared::warnings(&new.metadata, &spec.template, old.is_none())
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::kinds::testing::{cells, created, updated};

    fn deployment(spec: Value) -> Value {
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
    fn a_new_one_has_upstreams_defaults() {
        let value = created(&RESOURCE, deployment(json!({}))).unwrap().to_value().unwrap();
        let spec = &value["spec"];
        assert_eq!(spec["replicas"], 1);
        assert_eq!(
            spec["strategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
        );
        assert_eq!(
            (&spec["revisionHistoryLimit"], &spec["progressDeadlineSeconds"]),
            (&json!(10), &json!(600))
        );
        assert_eq!(spec["template"]["spec"]["terminationGracePeriodSeconds"], 30);
        assert_eq!(
            (&value["metadata"]["generation"], &value["status"]),
            (&json!(1), &json!({}))
        );
    }

    #[test]
    fn rows() {
        assert_eq!(
            cells(&RESOURCE, deployment(json!({"replicas": 3}))),
            [
                json!("a"),
                json!("0/3"),
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
    fn what_is_refused() {
        let rolling = |unavailable: Value, surge: Value| json!({"strategy": {"rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": surge}}});
        for (spec, want) in [
            (
                json!({"selector": {"matchLabels": {"app": "other"}}}),
                r#"spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template `labels`"#,
            ),
            (
                json!({"selector": {}}),
                r#"[spec.selector: Required value, spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template `labels`]"#,
            ),
            (
                json!({"replicas": -1}),
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                json!({"template": {"metadata": {"labels": {"app": "web"}}, "spec": {"restartPolicy": "Never", "containers": []}}}),
                r#"[spec.template.spec.containers: Required value, spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"]"#,
            ),
            (
                rolling(json!(0), json!("0%")),
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
            ),
            (
                rolling(json!("101%"), json!("x")),
                r#"[spec.strategy.rollingUpdate.maxSurge: Invalid value: "x": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%'), spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "101%": must not be greater than 100%]"#,
            ),
            (
                json!({"strategy": {"type": "Recreate", "rollingUpdate": {}}}),
                "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
            ),
            (
                json!({"progressDeadlineSeconds": 10, "minReadySeconds": 10}),
                "spec.progressDeadlineSeconds: Invalid value: 10: must be greater than minReadySeconds",
            ),
        ] {
            let error = created(&RESOURCE, deployment(spec)).unwrap_err();
            assert_eq!(error, format!("Deployment.apps \"a\" is invalid: {want}"));
        }
    }

    #[test]
    fn the_selector_stays() {
        let new = json!({
            "selector": {"matchLabels": {"app": "other"}},
            "template": {"metadata": {"labels": {"app": "other"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}},
        });
        assert_eq!(
            updated(&RESOURCE, None, deployment(json!({})), deployment(new)).unwrap_err(),
            r#"Deployment.apps "a" is invalid: spec.selector: Invalid value: {"matchLabels":{"app":"other"}}: field is immutable"#
        );
    }

    #[test]
    fn the_generation_counts_wishes() {
        for (change, path, generation) in [
            (json!({}), None, 1),
            (json!({"replicas": 2}), None, 2),
            (json!({"replicas": 2}), Some("scale"), 2),
            (json!({"replicas": 2}), Some("status"), 1),
        ] {
            let value = updated(&RESOURCE, path, deployment(json!({})), deployment(change)).unwrap();
            assert_eq!(value["metadata"]["generation"], generation, "{path:?}");
        }
        let mut annotated = deployment(json!({}));
        annotated["metadata"] = json!({"annotations": {"x": "y"}});
        let value = updated(&RESOURCE, None, deployment(json!({})), annotated).unwrap();
        assert_eq!(value["metadata"]["generation"], 2);
    }

    #[test]
    fn the_template_is_warned_of_where_it_stands() {
        let spec = json!({"template": {"metadata": {"labels": {"app": "web"}}, "spec": {
            "nodeSelector": {"beta.kubernetes.io/os": "linux"}, "containers": [{"name": "c", "image": "i"}],
        }}});
        let mut object = deployment(spec);
        object["metadata"] = json!({"name": "a.b"});
        let object = created(&RESOURCE, object).unwrap();
        assert_eq!(
            RESOURCE.strategy.warnings(&*object, None),
            [
                "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]",
                "spec.template.spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
            ]
        );
    }
}
