//! What the system itself writes into a pod, and what a write may not touch.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodCondition, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use super::validate::semantic;
use crate::meta::bump_generation;
use crate::pod::qos_class;

const GATED_MESSAGE: &str = "Scheduling is blocked due to non-empty scheduling gates";

/// Gives a new pod its first status.
pub(super) fn create(pod: &mut Pod) {
    pod.metadata.generation = Some(1);
    let spec = pod.spec.get_or_insert_default();
    let gated = spec.scheduling_gates.iter().flatten().next().is_some();
    pod.status = Some(PodStatus {
        phase: Some("Pending".into()),
        qos_class: Some(qos_class(spec).to_string()),
        conditions: gated.then(|| {
            vec![PodCondition {
                type_: "PodScheduled".into(),
                status: "False".into(),
                reason: Some("SchedulingGated".into()),
                message: Some(GATED_MESSAGE.into()),
                observed_generation: pod.metadata.generation,
                ..Default::default()
            }]
        }),
        ..Default::default()
    });
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    merge_label_keys(spec, &labels);
}

/// Turns the keys by which a pod looks for its like into requirements with the pod's own values.
fn merge_label_keys(spec: &mut PodSpec, labels: &BTreeMap<String, String>) {
    let merge = |selector: &mut Option<LabelSelector>, keys: Option<&Vec<String>>, operator: &str| {
        let Some(selector) = selector else { return };
        for key in keys.into_iter().flatten() {
            if let Some(value) = labels.get(key) {
                selector
                    .match_expressions
                    .get_or_insert_default()
                    .push(LabelSelectorRequirement {
                        key: key.clone(),
                        operator: operator.to_owned(),
                        values: Some(vec![value.clone()]),
                    });
            }
        }
    };
    let mut terms = Vec::new();
    if let Some(affinity) = &mut spec.affinity {
        if let Some(near) = &mut affinity.pod_affinity {
            terms.extend(
                near.required_during_scheduling_ignored_during_execution
                    .iter_mut()
                    .flatten(),
            );
            let preferred = near
                .preferred_during_scheduling_ignored_during_execution
                .iter_mut()
                .flatten();
            terms.extend(preferred.map(|weighted| &mut weighted.pod_affinity_term));
        }
        if let Some(far) = &mut affinity.pod_anti_affinity {
            terms.extend(
                far.required_during_scheduling_ignored_during_execution
                    .iter_mut()
                    .flatten(),
            );
            let preferred = far
                .preferred_during_scheduling_ignored_during_execution
                .iter_mut()
                .flatten();
            terms.extend(preferred.map(|weighted| &mut weighted.pod_affinity_term));
        }
    }
    for term in terms {
        merge(&mut term.label_selector, term.match_label_keys.as_ref(), "In");
        merge(&mut term.label_selector, term.mismatch_label_keys.as_ref(), "NotIn");
    }
    for constraint in spec.topology_spread_constraints.iter_mut().flatten() {
        merge(
            &mut constraint.label_selector,
            constraint.match_label_keys.as_ref(),
            "In",
        );
    }
}

/// Puts back what an update, of the pod or through a subresource, has no say in.
pub(super) fn update(subresource: Option<&str>, new: &mut Pod, old: &Pod) {
    match subresource {
        Some("status") => {
            new.spec.clone_from(&old.spec);
            // Old kubelets sent these back changed.
            new.metadata.owner_references.clone_from(&old.metadata.owner_references);
            let old_class = old.status.as_ref().and_then(|status| status.qos_class.clone());
            let status = new.status.get_or_insert_default();
            if status.qos_class.as_deref().is_none_or(str::is_empty) {
                status.qos_class = old_class;
            }
            return;
        }
        Some("ephemeralcontainers") => only_spec(new, old, |spec, sent| {
            spec.ephemeral_containers.clone_from(&sent.ephemeral_containers);
        }),
        Some("resize") => only_spec(new, old, |spec, sent| {
            spec.resources.clone_from(&sent.resources);
            resources_of(&mut spec.containers, &sent.containers);
            let sent = sent.init_containers.clone().unwrap_or_default();
            if spec.init_containers.is_some() || !sent.is_empty() {
                resources_of(spec.init_containers.get_or_insert_default(), &sent);
            }
        }),
        _ => new.status.clone_from(&old.status),
    }
    let changed = semantic(&new.spec) != semantic(&old.spec);
    bump_generation(&mut new.metadata, &old.metadata, changed);
}

/// Makes `new` the old pod, but for what `take` takes of the spec that was sent.
fn only_spec(new: &mut Pod, old: &Pod, take: impl FnOnce(&mut PodSpec, &PodSpec)) {
    let sent = std::mem::replace(new, old.clone());
    new.metadata.resource_version = sent.metadata.resource_version;
    new.metadata.uid = sent.metadata.uid;
    new.metadata.name = sent.metadata.name;
    new.metadata.namespace = sent.metadata.namespace;
    if let (Some(spec), Some(sent)) = (&mut new.spec, &sent.spec) {
        take(spec, sent);
    }
}

/// Takes what can be resized of each container. Others than there were are left as sent, for validation to refuse.
fn resources_of(containers: &mut Vec<Container>, sent: &[Container]) {
    let names = |containers: &[Container]| containers.iter().map(|c| c.name.clone()).collect::<Vec<_>>();
    if names(containers) != names(sent) {
        *containers = sent.to_vec();
        return;
    }
    for (container, sent) in containers.iter_mut().zip(sent) {
        container.resources.clone_from(&sent.resources);
        container.resize_policy.clone_from(&sent.resize_policy);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "the fixtures are constants")]
    use super::*;
    use serde_json::{Value, json};

    fn pod(value: Value) -> Pod {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_new_pod_is_pending() {
        let mut new = pod(json!({
            "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1"},
        }));
        create(&mut new);
        assert_eq!(
            serde_json::to_value(&new.status).unwrap(),
            json!({"phase": "Pending", "qosClass": "Burstable"})
        );
        assert_eq!(new.metadata.generation, Some(1));
    }

    #[test]
    fn a_gated_pod_says_so() {
        let mut new = pod(json!({"spec": {"containers": [], "schedulingGates": [{"name": "wait"}]}}));
        create(&mut new);
        assert_eq!(
            serde_json::to_value(new.status.unwrap().conditions).unwrap(),
            json!([{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "Scheduling is blocked due to non-empty scheduling gates", "observedGeneration": 1}])
        );
    }

    #[test]
    fn label_keys_become_requirements() {
        let mut new = pod(json!({
            "metadata": {"labels": {"version": "2"}},
            "spec": {
                "containers": [],
                "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                    {"topologyKey": "zone", "labelSelector": {}, "matchLabelKeys": ["version", "absent"], "mismatchLabelKeys": ["version"]},
                ]}},
                "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}, "matchLabelKeys": ["version"]}],
            },
        }));
        create(&mut new);
        let spec = serde_json::to_value(&new.spec).unwrap();
        let within = json!({"key": "version", "operator": "In", "values": ["2"]});
        let without = json!({"key": "version", "operator": "NotIn", "values": ["2"]});
        assert_eq!(
            spec.pointer("/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution/0/labelSelector/matchExpressions"),
            Some(&json!([within, without]))
        );
        assert_eq!(
            spec.pointer("/topologySpreadConstraints/0/labelSelector/matchExpressions"),
            Some(&json!([within]))
        );
    }

    #[test]
    fn each_way_in_changes_its_part_only() {
        let old = json!({
            "metadata": {"name": "p", "generation": 3, "labels": {"a": "1"}},
            "spec": {"containers": [{"name": "c", "image": "i:1", "resources": {"limits": {"cpu": "1"}}}]},
            "status": {"phase": "Pending", "qosClass": "Burstable"},
        });
        let sent = json!({
            "metadata": {"name": "p", "generation": 3, "labels": {"a": "2"}},
            "spec": {
                "containers": [{"name": "c", "image": "i:2", "resources": {"limits": {"cpu": "2"}}}],
                "ephemeralContainers": [{"name": "e", "image": "sh"}],
            },
            "status": {"phase": "Running"},
        });
        for (subresource, label, image, cpu, ephemeral, phase, generation) in [
            (None, "2", "i:2", "2", 1, "Pending", 4),
            (Some("status"), "2", "i:1", "1", 0, "Running", 3),
            (Some("ephemeralcontainers"), "1", "i:1", "1", 1, "Pending", 4),
            (Some("resize"), "1", "i:1", "2", 0, "Pending", 4),
        ] {
            let (mut new, old) = (pod(sent.clone()), pod(old.clone()));
            update(subresource, &mut new, &old);
            let got = serde_json::to_value(&new).unwrap();
            assert_eq!(got["metadata"]["labels"]["a"], label, "{subresource:?}");
            assert_eq!(got["spec"]["containers"][0]["image"], image, "{subresource:?}");
            assert_eq!(
                got["spec"]["containers"][0]["resources"]["limits"]["cpu"], cpu,
                "{subresource:?}"
            );
            let count = got["spec"]["ephemeralContainers"].as_array().map_or(0, Vec::len);
            assert_eq!(count, ephemeral, "{subresource:?}");
            assert_eq!(got["status"]["phase"], phase, "{subresource:?}");
            assert_eq!(got["status"]["qosClass"], "Burstable", "{subresource:?}");
            assert_eq!(got["metadata"]["generation"], generation, "{subresource:?}");
        }
    }
}
