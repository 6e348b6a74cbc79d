//! Scores: which of the nodes that a pod can run on suits it best. Each gives 0 to 100.

use std::collections::HashMap;

use api::pod::tolerates;
use k8s_openapi::api::core::v1::Taint;

use crate::filters::{Candidate, matches_node_term};
use crate::snapshot::{NodeInfo, Snapshot};

const MAX: i64 = 100;

/// What each score weighs in the sum.
const TAINT_TOLERATION: i64 = 3;
const NODE_AFFINITY: i64 = 2;

const MIB: i64 = 1024 * 1024;
/// An image below this size is pulled too quickly to matter; above that, for one container, it matters no more.
const SMALL_IMAGE: i64 = 23 * MIB;
const LARGE_IMAGE: i64 = 1000 * MIB;

/// The score of each node, in their order.
pub(crate) fn scores(candidate: &Candidate<'_>, nodes: &[&NodeInfo], snapshot: &Snapshot) -> Vec<i64> {
    let spread = ImageSpread::new(snapshot);
    let intolerable = normalized(nodes.iter().map(|info| intolerable(candidate, info)).collect(), true);
    let preferred = normalized(nodes.iter().map(|info| preferred(candidate, info)).collect(), false);
    nodes
        .iter()
        .enumerate()
        .map(|(i, info)| {
            TAINT_TOLERATION * intolerable[i]
                + NODE_AFFINITY * preferred[i]
                + least_allocated(candidate, info)
                + balanced(candidate, info)
                + spread.locality(candidate, info)
        })
        .collect()
}

/// Stretched so that the most is 100; reversed, the most is 0.
fn normalized(mut scores: Vec<i64>, reverse: bool) -> Vec<i64> {
    let most = scores.iter().copied().max().unwrap_or(0);
    for score in &mut scores {
        let share = if most == 0 { 0 } else { *score * MAX / most };
        *score = if reverse { MAX - share } else { share };
    }
    scores
}

/// The taints that the pod would rather not have.
fn intolerable(candidate: &Candidate<'_>, info: &NodeInfo) -> i64 {
    let soft = |taint: &&Taint| taint.effect == "PreferNoSchedule" && !tolerates(candidate.pod, taint);
    i64::try_from(info.taints.iter().filter(soft).count()).unwrap_or(i64::MAX / MAX)
}

/// The weights of the pod's wishes that the node meets.
fn preferred(candidate: &Candidate<'_>, info: &NodeInfo) -> i64 {
    let affinity = candidate
        .pod
        .spec
        .as_ref()
        .and_then(|spec| spec.affinity.as_ref()?.node_affinity.as_ref());
    let terms = affinity.and_then(|affinity| affinity.preferred_during_scheduling_ignored_during_execution.as_ref());
    terms
        .into_iter()
        .flatten()
        .filter(|term| matches_node_term(&term.preference, info))
        .map(|term| i64::from(term.weight))
        .sum()
}

/// The emptier, the better.
fn least_allocated(candidate: &Candidate<'_>, info: &NodeInfo) -> i64 {
    let free = |allocatable: i64, wanted: i64| match allocatable {
        1.. if wanted <= allocatable => {
            Some(((allocatable - wanted) as i128 * MAX as i128 / allocatable as i128) as i64)
        }
        1.. => Some(0),
        // Of what the node does not have, there is nothing to compare.
        _ => None,
    };
    let (has, used, more) = (&info.allocatable, &info.requested, &candidate.demand);
    let parts = [
        free(has.milli_cpu, used.scored_milli_cpu + more.scored_milli_cpu),
        free(has.memory, used.scored_memory + more.scored_memory),
    ];
    let known: Vec<i64> = parts.into_iter().flatten().collect();
    if known.is_empty() {
        0
    } else {
        known.iter().sum::<i64>() / known.len() as i64
    }
}

/// The more alike the shares of CPU and memory that are taken, the better.
fn balanced(candidate: &Candidate<'_>, info: &NodeInfo) -> i64 {
    let share =
        |allocatable: i64, wanted: i64| (allocatable > 0).then(|| (wanted as f64 / allocatable as f64).clamp(0.0, 1.0));
    let (has, used, more) = (&info.allocatable, &info.requested, &candidate.demand);
    let cpu = share(has.milli_cpu, used.milli_cpu + more.milli_cpu);
    let memory = share(has.memory, used.memory + more.memory);
    let apart = match (cpu, memory) {
        (Some(cpu), Some(memory)) => (cpu - memory).abs() / 2.0,
        _ => 0.0,
    };
    ((1.0 - apart) * MAX as f64) as i64
}

/// On how many nodes each image is: one that is everywhere says little.
struct ImageSpread<'a> {
    holders: HashMap<&'a str, i64>,
    nodes: i64,
}

impl<'a> ImageSpread<'a> {
    fn new(snapshot: &'a Snapshot) -> Self {
        let mut spread = ImageSpread {
            holders: HashMap::new(),
            nodes: 0,
        };
        for info in snapshot.nodes() {
            spread.nodes += 1;
            for name in info.images.keys() {
                *spread.holders.entry(name).or_default() += 1;
            }
        }
        spread
    }

    /// The more of the pod's images the node has, the better.
    fn locality(&self, candidate: &Candidate<'_>, info: &NodeInfo) -> i64 {
        let Some(spec) = &candidate.pod.spec else { return 0 };
        let mut containers = 0;
        let mut sum = 0;
        for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
            containers += 1;
            let name = canonical(container.image.as_deref().unwrap_or_default());
            if let Some(size) = info.images.get(&name) {
                let holders = self.holders.get(name.as_str()).copied().unwrap_or(1);
                sum += (*size as i128 * holders as i128 / self.nodes.max(1) as i128) as i64;
            }
        }
        let most = LARGE_IMAGE * containers;
        if most <= SMALL_IMAGE {
            return 0;
        }
        MAX * (sum.clamp(SMALL_IMAGE, most) - SMALL_IMAGE) / (most - SMALL_IMAGE)
    }
}

/// The name with the tag that goes without saying.
fn canonical(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or_default();
    if last.contains(':') || last.contains('@') {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}
