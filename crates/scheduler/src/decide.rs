//! The decision: which node a pod gets, or why it gets none, in upstream's words.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, Pod};

use crate::filters::{Candidate, Filter, everywhere};
use crate::scores::scores;
use crate::snapshot::{NodeInfo, Snapshot};

/// Why a pod gets no node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the pod's condition and event say.
    pub message: String,
    /// Who refused; the pod is tried again when something happens that may change the mind of one of them.
    pub filters: BTreeSet<Filter>,
}

/// Where a pod goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    /// The node's name.
    pub node: String,
    /// What claims of the pod's namespace get with it: each by its name, with its volume.
    pub volumes: Vec<(String, Arc<PersistentVolume>)>,
}

/// The node that suits the pod best. `turn` breaks ties: count it up from pod to pod, so that equal nodes take turns.
pub fn decide(pod: &Pod, snapshot: &Snapshot, turn: usize) -> Result<Placement, Refusal> {
    let total = snapshot.nodes().count();
    if total == 0 {
        return Err(Refusal {
            message: "no nodes available to schedule pods".to_owned(),
            filters: BTreeSet::from([Filter::NodeName]),
        });
    }
    if let Some((filter, why)) = everywhere(pod, snapshot) {
        let message = format!("0/{total} nodes are available: {why}. {}", preemption(pod, total, 0));
        return Err(Refusal {
            message,
            filters: BTreeSet::from([filter]),
        });
    }
    let candidate = Candidate::new(pod, snapshot);
    let mut fitting = Vec::new();
    let mut rejections = Vec::new();
    for info in snapshot.nodes() {
        match candidate.check(info) {
            Ok(()) => fitting.push(info),
            Err(rejection) => rejections.push(rejection),
        }
    }
    let chosen = match fitting[..] {
        [] => None,
        [only] => Some(only),
        _ => Some(best(&candidate, &fitting, snapshot, turn)),
    };
    if let Some(info) = chosen {
        return Ok(Placement {
            node: info.name().to_owned(),
            volumes: candidate.volumes_on(info),
        });
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in rejections.iter().flat_map(|rejection| &rejection.reasons) {
        *counts.entry(reason).or_default() += 1;
    }
    let mut reasons: Vec<String> = counts
        .into_iter()
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    reasons.sort();
    let preemptible = rejections.iter().filter(|rejection| rejection.preemptible).count();
    Err(Refusal {
        message: format!(
            "0/{total} nodes are available: {}. {}",
            reasons.join(", "),
            preemption(pod, total, preemptible)
        ),
        filters: rejections.iter().map(|rejection| rejection.filter).collect(),
    })
}

fn best<'a>(candidate: &Candidate<'_>, nodes: &[&'a NodeInfo], snapshot: &Snapshot, turn: usize) -> &'a NodeInfo {
    let scores = scores(candidate, nodes, snapshot);
    let most = scores.iter().copied().max().unwrap_or(0);
    let tied: Vec<&NodeInfo> = nodes
        .iter()
        .zip(&scores)
        .filter(|(_, score)| **score == most)
        .map(|(n, _)| *n)
        .collect();
    tied[turn % tied.len()]
}

/// What upstream says of every pod without resource claims: it looks for some to give back before it looks for victims.
const NO_CLAIMS: &str = "no new claims to deallocate, ";

/// What came of looking for pods to push aside, on the nodes where that could help.
fn preemption(pod: &Pod, total: usize, preemptible: usize) -> String {
    let policy = pod.spec.as_ref().and_then(|spec| spec.preemption_policy.as_deref());
    if policy == Some("Never") {
        return format!("{NO_CLAIMS}preemption: not eligible due to preemptionPolicy=Never.");
    }
    let parts: Vec<String> = [
        (preemptible, "No preemption victims found for incoming pod"),
        (total - preemptible, "Preemption is not helpful for scheduling"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, why)| format!("{count} {why}"))
    .collect::<BTreeSet<_>>()
    .into_iter()
    .collect();
    format!(
        "{NO_CLAIMS}preemption: 0/{total} nodes are available: {}.",
        parts.join(", ")
    )
}

#[cfg(test)]
mod tests;
