//! Pods that are to be spread evenly over the values of a label of nodes.

use std::collections::HashMap;

use api::pod;
use api::selector::LabelSelector;
use k8s_openapi::api::core::v1::{Pod, TopologySpreadConstraint};

use super::{Filter, Rejection, node};
use crate::snapshot::{NodeInfo, Snapshot};

struct Constraint {
    key: String,
    max_skew: i64,
    /// Whether the pod counts among those that it is spread with.
    counts_itself: i64,
    /// Matching pods for each value of the key, over the nodes that count.
    matching: HashMap<String, i64>,
    /// The fewest matching pods of any value; 0 while there are fewer values than there have to be.
    fewest: i64,
}

/// The constraints of a pod that have to be met.
pub(super) struct Spread {
    constraints: Vec<Constraint>,
}

fn hard(pod: &Pod) -> Vec<&TopologySpreadConstraint> {
    let constraints = pod
        .spec
        .iter()
        .flat_map(|spec| spec.topology_spread_constraints.iter().flatten());
    constraints
        .filter(|constraint| constraint.when_unsatisfiable == "DoNotSchedule")
        .collect()
}

/// Whether a node's pods are counted for a constraint.
fn counts(constraint: &TopologySpreadConstraint, pod: &Pod, info: &NodeInfo) -> bool {
    let honors = |policy: &Option<String>, default| policy.as_deref().map_or(default, |policy| policy == "Honor");
    (!honors(&constraint.node_affinity_policy, true) || node::wants(pod, info))
        && (!honors(&constraint.node_taints_policy, false) || node::taints(pod, info).is_ok())
}

impl Spread {
    pub(super) fn new(pod: &Pod, snapshot: &Snapshot) -> Self {
        let wanted = hard(pod);
        let has_all_keys = |info: &NodeInfo| wanted.iter().all(|c| info.label(&c.topology_key).is_some());
        let constraints = wanted
            .iter()
            .map(|constraint| {
                let selector = LabelSelector::from_object(constraint.label_selector.as_ref())
                    .unwrap_or_else(|_| LabelSelector::nothing());
                let mut matching: HashMap<String, i64> = HashMap::new();
                for info in snapshot
                    .nodes()
                    .filter(|info| has_all_keys(info) && counts(constraint, pod, info))
                {
                    let value = info.label(&constraint.topology_key).unwrap_or_default().to_owned();
                    let like = |other: &Pod| {
                        pod::namespace(other) == pod::namespace(pod)
                            && !pod::is_deleting(other)
                            && selector.matches(other.metadata.labels.as_ref())
                    };
                    let count = info.pods.values().filter(|placed| like(&placed.pod)).count();
                    *matching.entry(value).or_default() += i64::try_from(count).unwrap_or(i64::MAX);
                }
                let enough = matching.len() >= usize::try_from(constraint.min_domains.unwrap_or(1)).unwrap_or(1);
                let fewest = if enough {
                    matching.values().copied().min().unwrap_or(0)
                } else {
                    0
                };
                Constraint {
                    key: constraint.topology_key.clone(),
                    max_skew: constraint.max_skew.into(),
                    counts_itself: selector.matches(pod.metadata.labels.as_ref()).into(),
                    matching,
                    fewest,
                }
            })
            .collect();
        Spread { constraints }
    }

    pub(super) fn check(&self, info: &NodeInfo) -> Result<(), Rejection> {
        const WHY: &str = "node(s) didn't match pod topology spread constraints";
        for constraint in &self.constraints {
            let Some(value) = info.label(&constraint.key) else {
                let why = format!("{WHY} (missing required label)");
                return Err(Rejection::lasting(Filter::PodTopologySpread, why));
            };
            let matching = constraint.matching.get(value).copied().unwrap_or(0);
            if matching + constraint.counts_itself - constraint.fewest > constraint.max_skew {
                return Err(Rejection::passing(Filter::PodTopologySpread, WHY));
            }
        }
        Ok(())
    }
}
