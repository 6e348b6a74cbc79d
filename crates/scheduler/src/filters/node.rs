//! What a node says about which pods it takes, and a pod about which nodes it wants.

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Pod, Taint, Toleration};

use super::{Filter, Rejection};
use crate::snapshot::NodeInfo;

/// Whether a toleration is for a taint.
fn covers(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (effect, key, operator) = (
        text(&toleration.effect),
        text(&toleration.key),
        text(&toleration.operator),
    );
    (effect.is_empty() || effect == taint.effect)
        && (key.is_empty() || key == taint.key)
        && match operator.as_str() {
            "Exists" => true,
            "" | "Equal" => !key.is_empty() && text(&toleration.value) == text(&taint.value),
            _ => false,
        }
}

/// Whether a pod puts up with a taint.
pub(crate) fn tolerates(pod: &Pod, taint: &Taint) -> bool {
    let tolerations = pod.spec.iter().flat_map(|spec| spec.tolerations.iter().flatten());
    tolerations.into_iter().any(|toleration| covers(toleration, taint))
}

pub(super) fn unschedulable(pod: &Pod, info: &NodeInfo) -> Result<(), Rejection> {
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Default::default()
    };
    if !info.is_unschedulable() || tolerates(pod, &taint) {
        return Ok(());
    }
    Err(Rejection::lasting(
        Filter::NodeUnschedulable,
        "node(s) were unschedulable",
    ))
}

pub(super) fn name(pod: &Pod, info: &NodeInfo) -> Result<(), Rejection> {
    match api::pod::node_name(pod) {
        Some(name) if name != info.name() => Err(Rejection::lasting(
            Filter::NodeName,
            "node(s) didn't match the requested node name",
        )),
        _ => Ok(()),
    }
}

pub(super) fn taints(pod: &Pod, info: &NodeInfo) -> Result<(), Rejection> {
    let keeps_off = |taint: &&Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
    match info
        .taints
        .iter()
        .filter(keeps_off)
        .find(|taint| !tolerates(pod, taint))
    {
        None => Ok(()),
        Some(_) => Err(Rejection::lasting(
            Filter::TaintToleration,
            "node(s) had untolerated taint(s)",
        )),
    }
}

pub(super) fn affinity(pod: &Pod, info: &NodeInfo) -> Result<(), Rejection> {
    if wants(pod, info) {
        return Ok(());
    }
    Err(Rejection::lasting(
        Filter::NodeAffinity,
        "node(s) didn't match Pod's node affinity/selector",
    ))
}

/// Whether the node is one of those that the pod wants to run on, and no other.
pub(super) fn wants(pod: &Pod, info: &NodeInfo) -> bool {
    let Some(spec) = &pod.spec else { return true };
    let selected = spec
        .node_selector
        .iter()
        .flatten()
        .all(|(key, value)| info.label(key) == Some(value));
    let required = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref());
    selected
        && required.is_none_or(|selector| {
            selector
                .node_selector_terms
                .iter()
                .any(|term| matches_node_term(term, info))
        })
}

/// Whether a node meets every requirement of a term; an empty term selects nothing.
pub(crate) fn matches_node_term(term: &NodeSelectorTerm, info: &NodeInfo) -> bool {
    let labels = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    (!labels.is_empty() || !fields.is_empty())
        && labels
            .iter()
            .all(|requirement| meets(requirement, info.label(&requirement.key)))
        && fields
            .iter()
            .all(|requirement| requirement.key == "metadata.name" && meets(requirement, Some(info.name())))
}

fn meets(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = || value.is_some_and(|value| values.iter().any(|other| other == value));
    let compare = |holds: fn(&i64, &i64) -> bool| {
        let value = value.and_then(|value| value.parse().ok());
        let bound = values.first().and_then(|bound| bound.parse().ok());
        matches!((value, bound), (Some(value), Some(bound)) if holds(&value, &bound))
    };
    match requirement.operator.as_str() {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(i64::gt),
        "Lt" => compare(i64::lt),
        _ => false,
    }
}
