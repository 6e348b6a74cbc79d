//! Where a pod may run: affinity, spreading, tolerations, gates.

use k8s_openapi::api::core::v1::{Affinity, PodAffinityTerm, PodSpec, Toleration, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::selectors::{label_selector, node_selector, node_selector_term};
use super::{Errors, label, qualified_name};
use crate::field::{FieldError, Path};
use crate::meta::names;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub(super) fn affinity(affinity: &Affinity, path: &Path<'_>, errors: &mut Errors) {
    if let Some(node) = &affinity.node_affinity {
        let path = path.child("nodeAffinity");
        if let Some(selector) = &node.required_during_scheduling_ignored_during_execution {
            node_selector(selector, &path.child(REQUIRED), errors);
        }
        let terms = node
            .preferred_during_scheduling_ignored_during_execution
            .iter()
            .flatten();
        for (i, term) in terms.enumerate() {
            let list = path.child(PREFERRED);
            let path = list.index(i);
            weight(term.weight, &path, errors);
            node_selector_term(&term.preference, false, &path.child("preference"), errors);
        }
    }
    let no_terms = (None, None);
    let (required, preferred) = affinity.pod_affinity.as_ref().map_or(no_terms, |pods| {
        (
            pods.required_during_scheduling_ignored_during_execution.as_ref(),
            pods.preferred_during_scheduling_ignored_during_execution.as_ref(),
        )
    });
    pod_terms(required, preferred, &path.child("podAffinity"), errors);
    let (required, preferred) = affinity.pod_anti_affinity.as_ref().map_or(no_terms, |pods| {
        (
            pods.required_during_scheduling_ignored_during_execution.as_ref(),
            pods.preferred_during_scheduling_ignored_during_execution.as_ref(),
        )
    });
    pod_terms(required, preferred, &path.child("podAntiAffinity"), errors);
}

fn pod_terms(
    required: Option<&Vec<PodAffinityTerm>>,
    preferred: Option<&Vec<k8s_openapi::api::core::v1::WeightedPodAffinityTerm>>,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    for (i, term) in required.into_iter().flatten().enumerate() {
        let path = path.child(REQUIRED);
        pod_affinity_term(term, &path.index(i), errors);
    }
    for (i, weighted) in preferred.into_iter().flatten().enumerate() {
        let list = path.child(PREFERRED);
        let path = list.index(i);
        weight(weighted.weight, &path, errors);
        pod_affinity_term(&weighted.pod_affinity_term, &path.child("podAffinityTerm"), errors);
    }
}

fn weight(weight: i32, path: &Path<'_>, errors: &mut Errors) {
    if !(1..=100).contains(&weight) {
        errors.push(FieldError::invalid(
            &path.child("weight"),
            weight,
            "must be in the range 1-100",
        ));
    }
}

fn pod_affinity_term(term: &PodAffinityTerm, path: &Path<'_>, errors: &mut Errors) {
    for (field, selector) in [
        ("labelSelector", &term.label_selector),
        ("namespaceSelector", &term.namespace_selector),
    ] {
        if let Some(selector) = selector {
            label_selector(selector, &path.child(field), errors);
        }
    }
    for namespace in term.namespaces.iter().flatten() {
        label(namespace, &path.child("namespace"), errors);
    }
    let matching = term.match_label_keys.as_deref().unwrap_or_default();
    let mismatching = term.mismatch_label_keys.as_deref().unwrap_or_default();
    label_keys(
        matching,
        term.label_selector.as_ref(),
        &path.child("matchLabelKeys"),
        errors,
    );
    label_keys(
        mismatching,
        term.label_selector.as_ref(),
        &path.child("mismatchLabelKeys"),
        errors,
    );
    for (i, key) in matching.iter().enumerate().filter(|(_, key)| mismatching.contains(key)) {
        let detail = "exists in both matchLabelKeys and mismatchLabelKeys";
        errors.push(FieldError::invalid(&path.child("matchLabelKeys").index(i), key, detail));
    }
    topology_key(&term.topology_key, path, errors);
}

fn topology_key(key: &str, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("topologyKey");
    if key.is_empty() {
        errors.push(FieldError::required(&path, "can not be empty"));
    }
    qualified_name(key, &path, errors);
}

fn label_keys(keys: &[String], selector: Option<&LabelSelector>, path: &Path<'_>, errors: &mut Errors) {
    if !keys.is_empty() && selector.is_none() {
        errors.push(FieldError::forbidden(
            path,
            "must not be specified when labelSelector is not set",
        ));
    }
    for (i, key) in keys.iter().enumerate() {
        qualified_name(key, &path.index(i), errors);
    }
}

pub(super) fn spread(spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    let constraints = spec.topology_spread_constraints.as_deref().unwrap_or_default();
    for (i, constraint) in constraints.iter().enumerate() {
        let path = path.index(i);
        if constraint.max_skew <= 0 {
            let detail = "must be greater than zero";
            errors.push(FieldError::invalid(&path.child("maxSkew"), constraint.max_skew, detail));
        }
        topology_key(&constraint.topology_key, &path, errors);
        let when = constraint.when_unsatisfiable.as_str();
        if !["DoNotSchedule", "ScheduleAnyway"].contains(&when) {
            let supported = &["DoNotSchedule", "ScheduleAnyway"];
            errors.push(FieldError::not_supported(
                &path.child("whenUnsatisfiable"),
                when,
                supported,
            ));
        }
        let same = |other: &TopologySpreadConstraint| {
            other.topology_key == constraint.topology_key && other.when_unsatisfiable == constraint.when_unsatisfiable
        };
        if constraints[..i].iter().any(same) {
            errors.push(FieldError::duplicate(
                &path.child("{topologyKey, whenUnsatisfiable}"),
                format!("{{{}, {when}}}", constraint.topology_key),
            ));
        }
        if let Some(domains) = constraint.min_domains {
            let path = path.child("minDomains");
            if domains <= 0 {
                errors.push(FieldError::invalid(&path, domains, "must be greater than zero"));
            }
            if when != "DoNotSchedule" {
                let detail = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {when}");
                errors.push(FieldError::invalid(&path, domains, detail));
            }
        }
        for (field, policy) in [
            ("nodeAffinityPolicy", &constraint.node_affinity_policy),
            ("nodeTaintsPolicy", &constraint.node_taints_policy),
        ] {
            if let Some(policy) = policy.as_deref().filter(|policy| !["Honor", "Ignore"].contains(policy)) {
                errors.push(FieldError::not_supported(
                    &path.child(field),
                    policy,
                    &["Honor", "Ignore"],
                ));
            }
        }
        let keys = constraint.match_label_keys.as_deref().unwrap_or_default();
        label_keys(
            keys,
            constraint.label_selector.as_ref(),
            &path.child("matchLabelKeys"),
            errors,
        );
        if let Some(selector) = &constraint.label_selector {
            label_selector(selector, &path.child("labelSelector"), errors);
        }
    }
}

const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Checks the effect of a taint or toleration.
pub(crate) fn taint_effect(effect: &str, path: &Path<'_>, errors: &mut Errors) {
    if !EFFECTS.contains(&effect) {
        errors.push(FieldError::not_supported(path, effect, EFFECTS));
    }
}

pub(super) fn tolerations(tolerations: &[Toleration], path: &Path<'_>, errors: &mut Errors) {
    for (i, toleration) in tolerations.iter().enumerate() {
        let path = path.index(i);
        let key = toleration.key.as_deref().unwrap_or_default();
        let operator = toleration.operator.as_deref().unwrap_or_default();
        let value = toleration.value.as_deref().unwrap_or_default();
        let effect = toleration.effect.as_deref().unwrap_or_default();
        if !key.is_empty() {
            qualified_name(key, &path.child("key"), errors);
        } else if operator != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(FieldError::invalid(&path.child("operator"), operator, detail));
        }
        if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(FieldError::invalid(&path.child("effect"), effect, detail));
        }
        match operator {
            "" | "Equal" => {
                let messages = names::label_value(value);
                if !messages.is_empty() {
                    errors.push(FieldError::invalid(&path.child("operator"), value, messages.join(";")));
                }
            }
            "Exists" => {
                if !value.is_empty() {
                    let detail = "value must be empty when `operator` is 'Exists'";
                    errors.push(FieldError::invalid(&path.child("operator"), value, detail));
                }
            }
            other => errors.push(FieldError::not_supported(
                &path.child("operator"),
                other,
                &["Equal", "Exists"],
            )),
        }
        if !effect.is_empty() {
            taint_effect(effect, &path.child("effect"), errors);
        }
    }
}

pub(super) fn gates(spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    let gates = spec.scheduling_gates.as_deref().unwrap_or_default();
    for (i, gate) in gates.iter().enumerate() {
        qualified_name(&gate.name, &path.index(i), errors);
        if gates[..i].iter().any(|other| other.name == gate.name) {
            errors.push(FieldError::duplicate(&path.index(i), &gate.name));
        }
    }
}
