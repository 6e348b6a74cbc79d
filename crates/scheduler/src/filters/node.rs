//! What a node says about which pods it takes, and a pod about which nodes it wants.

use api::pod::tolerates;
use k8s_openapi::api::core::v1::{NodeSelectorTerm, Pod, Taint};

use super::{Filter, Rejection};
use crate::snapshot::NodeInfo;

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
    api::pod::wants_node(pod, info.name(), info.labels())
}

/// Whether a node meets every requirement of a term; an empty term selects nothing.
pub(crate) fn matches_node_term(term: &NodeSelectorTerm, info: &NodeInfo) -> bool {
    api::pod::matches_node_term(term, info.name(), info.labels())
}
