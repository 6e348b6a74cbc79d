//! Who has to go so that a critical pod gets what it asks for, as upstream's kubelet chooses: of the better classes as few as can be, and of
//! those first whose going comes nearest to what is missing.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use api::pod::Qos;
use k8s_openapi::api::core::v1::Pod;

use super::ledger::{Amount, Lack, PODS};
use super::pod::PodExt;

/// What is missing, by resource; nothing that is zero.
type Missing = BTreeMap<String, i64>;

/// Whether one pod may have another one ended for itself.
fn yields(pod: &Pod, to: &Pod) -> bool {
    let priority = |pod: &Pod| pod.spec().and_then(|spec| spec.priority).unwrap_or(0);
    (api::pod::is_critical(to) && !api::pod::is_critical(pod)) || priority(to) > priority(pod)
}

struct Candidate<'a> {
    pod: &'a Arc<Pod>,
    holds: Amount,
}

impl Candidate<'_> {
    fn holds(&self, resource: &str) -> i64 {
        if resource == PODS { 1 } else { self.holds.get(resource) }
    }

    /// How far from what is missing that is which this one holds: the sum of the squares of what parts of it stay missing.
    fn distance(&self, missing: &Missing) -> f64 {
        let parts = missing.iter().map(|(resource, amount)| {
            let rest = (amount - self.holds(resource)).max(0);
            (rest as f64 / *amount as f64).powi(2)
        });
        parts.sum()
    }
}

fn without<'a>(missing: &Missing, gone: impl Iterator<Item = &'a Candidate<'a>> + Clone) -> Missing {
    let rest = missing.iter().map(|(resource, amount)| {
        let freed: i64 = gone.clone().map(|candidate| candidate.holds(resource)).sum();
        (resource.clone(), amount - freed)
    });
    rest.filter(|(_, amount)| *amount > 0).collect()
}

fn impossible(missing: &Missing) -> String {
    let mut list = String::new();
    for (resource, amount) in missing {
        // Writing to a string does not fail.
        let _ = write!(list, "(res: {resource}, q: {amount}), ");
    }
    format!("no set of running pods found to reclaim resources: [{list}]")
}

/// The nearest of the candidates, until nothing is missing.
fn nearest<'a>(mut candidates: Vec<&'a Candidate<'a>>, mut missing: Missing) -> Result<Vec<&'a Candidate<'a>>, String> {
    let mut chosen = Vec::new();
    while !missing.is_empty() {
        let rank = |candidate: &Candidate<'_>| {
            let size = (candidate.holds("memory"), candidate.holds("cpu"));
            (candidate.distance(&missing), size)
        };
        let best = candidates.iter().enumerate().min_by(|(_, a), (_, b)| {
            let ((a, a_size), (b, b_size)) = (rank(a), rank(b));
            a.total_cmp(&b).then(a_size.cmp(&b_size))
        });
        let Some(index) = best.map(|(index, _)| index) else {
            return Err(impossible(&missing));
        };
        let best = candidates.swap_remove(index);
        missing = without(&missing, std::iter::once(best));
        chosen.push(best);
    }
    Ok(chosen)
}

/// The pods that go for this one, of all that hold something; the error is upstream's.
pub fn victims(pod: &Pod, others: &[Arc<Pod>], lacks: &[Lack]) -> Result<Vec<Arc<Pod>>, String> {
    let missing: Missing = lacks
        .iter()
        .map(|lack| (lack.resource.clone(), lack.missing()))
        .collect();
    let all: Vec<Candidate<'_>> = others
        .iter()
        .filter(|other| yields(other, pod))
        .map(|other| Candidate {
            pod: other,
            holds: Amount::of(other),
        })
        .collect();
    let of = |class: Qos| {
        all.iter()
            .filter(move |candidate| api::pod::stored_qos_class(candidate.pod) == class)
    };
    let rest = without(&missing, all.iter());
    if !rest.is_empty() {
        return Err(impossible(&rest));
    }
    let (best_effort, burstable) = (of(Qos::BestEffort), of(Qos::Burstable));
    let left = without(&missing, best_effort.clone().chain(burstable.clone()));
    let guaranteed = nearest(of(Qos::Guaranteed).collect(), left)?;
    let left = without(&missing, best_effort.clone().chain(guaranteed.iter().copied()));
    let burstable = nearest(burstable.collect(), left)?;
    let left = without(&missing, burstable.iter().chain(&guaranteed).copied());
    let best_effort = nearest(best_effort.collect(), left)?;
    let chosen = best_effort.into_iter().chain(burstable).chain(guaranteed);
    Ok(chosen.map(|candidate| candidate.pod.clone()).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use serde_json::{Value, json};

    use super::super::ledger::{Bid, Denial, Ledger};
    use super::*;

    fn pod(name: &str, priority: i32, resources: Value) -> Arc<Pod> {
        let pod = json!({
            "metadata": {"name": name, "uid": name},
            "spec": {"priority": priority, "containers": [{"name": "c", "resources": resources}]},
        });
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn asks(cpu: &str) -> Value {
        json!({"requests": {"cpu": cpu, "memory": "1"}})
    }

    fn limited(cpu: &str) -> Value {
        let all = json!({"cpu": cpu, "memory": "1"});
        json!({"requests": all, "limits": all})
    }

    /// Who goes on a node of 4 CPUs and some pods.
    fn gone(others: &[Arc<Pod>], most: i64, cpu: &str) -> Result<Vec<String>, String> {
        let capacity = json!({"cpu": "4", "memory": "1Gi", "pods": most.to_string()});
        let ledger = Ledger::new(Amount::listed(&serde_json::from_value(capacity).unwrap()));
        others.iter().for_each(|pod| ledger.take_in(pod));
        let critical = pod("critical", api::pod::SYSTEM_CRITICAL_PRIORITY, asks(cpu));
        let bid = Bid {
            wants: Amount::of(&critical),
            class: Qos::Burstable,
            ports: Vec::new(),
            critical: true,
            misplaced: None,
            extended: Amount::default(),
        };
        let lacks = match ledger.admit("critical", bid) {
            Ok(()) => Vec::new(),
            Err(Denial::Crowded(lacks)) => lacks,
            Err(Denial::Refused(refusal)) => panic!("{refusal:?}"),
        };
        let chosen = victims(&critical, others, &lacks)?;
        Ok(chosen.iter().map(|pod| pod.name().to_owned()).collect())
    }

    #[test]
    fn the_lesser_classes_and_the_nearest_go() {
        let node = [
            pod("none", 0, json!({})),
            pod("burstable-1", 0, asks("1")),
            pod("burstable-500m", 0, asks("500m")),
            pod("guaranteed", 0, limited("1")),
            pod("other-critical", api::pod::SYSTEM_CRITICAL_PRIORITY, asks("1500m")),
        ];
        for (most, cpu, expected) in [
            (9, "0", vec![]),
            (5, "0", vec!["none"]),
            (9, "400m", vec!["burstable-500m"]),
            (9, "800m", vec!["burstable-1"]),
            (9, "1200m", vec!["burstable-1", "burstable-500m"]),
            (9, "2", vec!["burstable-1", "guaranteed"]),
        ] {
            let mut chosen = gone(&node, most, cpu).unwrap();
            let mut expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
            chosen.sort();
            expected.sort();
            assert_eq!(chosen, expected, "{most} {cpu}");
        }
        assert_eq!(
            gone(&node, 9, "3").unwrap_err(),
            "no set of running pods found to reclaim resources: [(res: cpu, q: 500), ]"
        );
    }
}
