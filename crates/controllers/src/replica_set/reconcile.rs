//! What is to be done about a ReplicaSet's pods, and what its status says of them. No I/O.

use std::sync::Arc;
use std::time::Duration;

use api::pod;
use api::selector::LabelSelector;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;

use super::rank;
use crate::owner::{self, Claim};

/// The most pods that are made or deleted at one time.
const BURST: usize = 500;

/// The condition of a set that could not make or delete its pods.
const REPLICA_FAILURE: &str = "ReplicaFailure";

/// What is known when a ReplicaSet is looked at.
pub struct Observed<'a> {
    /// The set.
    pub set: &'a ReplicaSet,
    /// The pods of its namespace.
    pub pods: &'a [Arc<Pod>],
    /// The sets with the same controller, itself included.
    pub kin: &'a [Arc<ReplicaSet>],
    /// Whether all that was done before has been seen.
    pub settled: bool,
    /// The time.
    pub now: Timestamp,
}

/// What is to be done.
#[derive(Debug, Default, PartialEq)]
pub struct Changes {
    /// Pods to become the controller of.
    pub adopt: Vec<Arc<Pod>>,
    /// Pods to let go of.
    pub release: Vec<Arc<Pod>>,
    /// How many pods to make.
    pub create: usize,
    /// Pods to delete.
    pub delete: Vec<Arc<Pod>>,
    /// The set's own pods that count, those to adopt and to delete included.
    pub active: Vec<Arc<Pod>>,
    /// How many of its pods are ending.
    pub terminating: i32,
}

/// Whether a pod counts: it has not ended and is not to.
fn is_active(pod: &Pod) -> bool {
    !pod::is_terminal(pod) && !pod::is_deleting(pod)
}

/// How many pods the set wishes for.
pub fn wished(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// The set's selector; none when it is not valid, and then the set has no pods.
pub fn selector(set: &ReplicaSet) -> Option<LabelSelector> {
    LabelSelector::from_object(set.spec.as_ref().map(|spec| &spec.selector)).ok()
}

/// Decides what becomes of the pods.
pub fn reconcile(observed: &Observed<'_>) -> Changes {
    let set = observed.set;
    let mut changes = Changes::default();
    let Some(selector) = selector(set) else {
        return changes;
    };
    for pod in observed.pods.iter().filter(|pod| !pod::is_terminal(pod)) {
        match owner::claim(&set.metadata, &selector, &pod.metadata) {
            Claim::Own if pod::is_deleting(pod) => changes.terminating += 1,
            Claim::Own => changes.active.push(pod.clone()),
            Claim::Adopt => {
                changes.active.push(pod.clone());
                changes.adopt.push(pod.clone());
            }
            Claim::Release if !pod::is_deleting(pod) => changes.release.push(pod.clone()),
            Claim::Release | Claim::Leave => {}
        }
    }
    if !observed.settled || set.metadata.deletion_timestamp.is_some() {
        return changes;
    }
    let wished = usize::try_from(wished(set)).unwrap_or(0);
    let present = changes.active.len();
    changes.create = wished.saturating_sub(present).min(BURST);
    let surplus = present.saturating_sub(wished).min(BURST);
    if surplus > 0 {
        changes.delete = rank::to_delete(changes.active.clone(), &related(observed), surplus, observed.now);
    }
    changes
}

/// The pods of the sets with the same controller.
fn related(observed: &Observed<'_>) -> Vec<Arc<Pod>> {
    let selectors: Vec<_> = observed.kin.iter().filter_map(|set| selector(set)).collect();
    let pods = observed.pods.iter().filter(|pod| is_active(pod));
    pods.filter(|pod| {
        selectors
            .iter()
            .any(|selector| selector.matches(pod.metadata.labels.as_ref()))
    })
    .cloned()
    .collect()
}

/// Why pods could not be made or deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// `FailedCreate` or `FailedDelete`.
    pub reason: &'static str,
    /// What the server said.
    pub message: String,
}

/// What the set's status is to be, and after what time it will be another one for no other reason than the time.
pub fn status(
    set: &ReplicaSet,
    changes: &Changes,
    failure: Option<&Failure>,
    now: Timestamp,
) -> (ReplicaSetStatus, Option<Duration>) {
    let spec = set.spec.as_ref();
    let seconds = spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    let none = ObjectMeta::default();
    let template = spec
        .and_then(|spec| spec.template.as_ref()?.metadata.as_ref())
        .unwrap_or(&none);
    let labels = template
        .labels
        .as_ref()
        .map(LabelSelector::from_map)
        .unwrap_or_default();
    let (mut labeled, mut ready, mut available) = (0, 0, 0);
    let mut next: Option<Duration> = None;
    for pod in &changes.active {
        labeled += i32::from(labels.matches(pod.metadata.labels.as_ref()));
        if !pod::is_ready(pod) {
            continue;
        }
        ready += 1;
        match available_in(pod, seconds, now) {
            Some(Duration::ZERO) => available += 1,
            Some(wait) => next = Some(next.map_or(wait, |next| next.min(wait))),
            None => {}
        }
    }
    let mut status = set.status.clone().unwrap_or_default();
    let nonzero = |count: i32| (count != 0).then_some(count);
    status.replicas = i32::try_from(changes.active.len()).unwrap_or(i32::MAX);
    status.fully_labeled_replicas = nonzero(labeled);
    status.ready_replicas = nonzero(ready);
    status.available_replicas = nonzero(available);
    status.terminating_replicas = Some(changes.terminating);
    status.observed_generation = set.metadata.generation;
    let conditions = status.conditions.get_or_insert_default();
    let known = conditions.iter().any(|condition| condition.type_ == REPLICA_FAILURE);
    match failure {
        Some(failure) if !known => conditions.push(ReplicaSetCondition {
            type_: REPLICA_FAILURE.into(),
            status: "True".into(),
            last_transition_time: Some(api::meta::time(now)),
            reason: Some(failure.reason.into()),
            message: Some(failure.message.clone()),
        }),
        Some(_) => {}
        None => conditions.retain(|condition| condition.type_ != REPLICA_FAILURE),
    }
    if conditions.is_empty() {
        status.conditions = None;
    }
    (status, next)
}

/// How long until a ready pod is available; zero when it is.
fn available_in(pod: &Pod, seconds: i32, now: Timestamp) -> Option<Duration> {
    if seconds <= 0 {
        return Some(Duration::ZERO);
    }
    let since = rank::ready_since(pod)?;
    let ready_for = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    Some(Duration::from_secs(seconds.unsigned_abs().into()).saturating_sub(ready_for))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use serde_json::{Value, json};

    use super::*;

    const NOW: &str = "2026-01-01T00:01:00Z";

    fn now() -> Timestamp {
        NOW.parse().unwrap()
    }

    fn set(replicas: i32, change: impl FnOnce(&mut Value)) -> Arc<ReplicaSet> {
        let mut value = json!({
            "metadata": {"name": "web", "namespace": "ns", "uid": "set", "generation": 2},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web", "hash": "1"}}},
            },
        });
        change(&mut value);
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn pod(name: &str, change: impl FnOnce(&mut Value)) -> Arc<Pod> {
        let mut value = json!({
            "metadata": {
                "name": name, "namespace": "ns", "uid": name, "labels": {"app": "web", "hash": "1"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "set", "controller": true}],
            },
            "spec": {"nodeName": "n", "containers": []},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:50Z"}]},
        });
        change(&mut value);
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn told(set: &Arc<ReplicaSet>, pods: &[Arc<Pod>], settled: bool) -> String {
        let changes = reconcile(&Observed {
            set,
            pods,
            kin: std::slice::from_ref(set),
            settled,
            now: now(),
        });
        let names = |pods: &[Arc<Pod>]| {
            let names: Vec<_> = pods.iter().map(|pod| pod.metadata.name.clone().unwrap()).collect();
            names.join(",")
        };
        format!(
            "adopt [{}] release [{}] create {} delete [{}] of {} and {} ending",
            names(&changes.adopt),
            names(&changes.release),
            changes.create,
            names(&changes.delete),
            changes.active.len(),
            changes.terminating
        )
    }

    #[test]
    fn what_becomes_of_the_pods() {
        let owned = |name: &str| pod(name, |_| {});
        let orphan = |name: &str| pod(name, |pod| pod["metadata"]["ownerReferences"] = Value::Null);
        let unready = |name: &str| pod(name, |pod| pod["status"] = json!({"phase": "Pending"}));
        let strayed = pod("strayed", |pod| pod["metadata"]["labels"]["app"] = "other".into());
        let ended = pod("ended", |pod| pod["status"]["phase"] = "Failed".into());
        let ending = pod("ending", |pod| pod["metadata"]["deletionTimestamp"] = NOW.into());
        let others = pod("others", |pod| {
            pod["metadata"]["ownerReferences"][0]["uid"] = "x".into()
        });
        let plain = |replicas: i32| set(replicas, |_| {});
        let going = set(3, |set| set["metadata"]["deletionTimestamp"] = NOW.into());
        let broken = set(3, |set| {
            set["spec"]["selector"] = json!({"matchExpressions": [{"key": "a", "operator": "Nope"}]});
        });
        for (set, pods, settled, want) in [
            (
                plain(3),
                vec![],
                true,
                "adopt [] release [] create 3 delete [] of 0 and 0 ending",
            ),
            (
                plain(3),
                vec![],
                false,
                "adopt [] release [] create 0 delete [] of 0 and 0 ending",
            ),
            (
                plain(900),
                vec![],
                true,
                "adopt [] release [] create 500 delete [] of 0 and 0 ending",
            ),
            (
                plain(1),
                vec![owned("a")],
                true,
                "adopt [] release [] create 0 delete [] of 1 and 0 ending",
            ),
            (
                plain(1),
                vec![owned("a"), unready("b")],
                true,
                "adopt [] release [] create 0 delete [b] of 2 and 0 ending",
            ),
            (
                plain(0),
                vec![owned("a")],
                true,
                "adopt [] release [] create 0 delete [a] of 1 and 0 ending",
            ),
            (
                plain(2),
                vec![orphan("a"), owned("b")],
                true,
                "adopt [a] release [] create 0 delete [] of 2 and 0 ending",
            ),
            (
                plain(1),
                vec![strayed, ended, ending, others],
                true,
                "adopt [] release [strayed] create 1 delete [] of 0 and 1 ending",
            ),
            (
                going,
                vec![owned("a"), orphan("b")],
                true,
                "adopt [] release [] create 0 delete [] of 1 and 0 ending",
            ),
            (
                broken,
                vec![owned("a")],
                true,
                "adopt [] release [] create 0 delete [] of 0 and 0 ending",
            ),
        ] {
            assert_eq!(told(&set, &pods, settled), want);
        }
    }

    fn status_of(set: &Arc<ReplicaSet>, pods: &[Arc<Pod>], failure: Option<&Failure>) -> (Value, Option<Duration>) {
        let changes = reconcile(&Observed {
            set,
            pods,
            kin: &[],
            settled: true,
            now: now(),
        });
        let (status, next) = status(set, &changes, failure, now());
        (serde_json::to_value(status).unwrap(), next)
    }

    #[test]
    fn the_status_counts() {
        let pods = [
            pod("a", |_| {}),
            pod("b", |pod| pod["metadata"]["labels"]["hash"] = "2".into()),
            pod("c", |pod| pod["status"] = json!({"phase": "Pending"})),
            pod("d", |pod| pod["metadata"]["deletionTimestamp"] = NOW.into()),
        ];
        assert_eq!(
            status_of(&set(3, |_| {}), &pods, None),
            (
                json!({"replicas": 3, "fullyLabeledReplicas": 2, "readyReplicas": 2, "availableReplicas": 2, "terminatingReplicas": 1, "observedGeneration": 2}),
                None
            )
        );
        let patient = |seconds: i32| set(3, move |set| set["spec"]["minReadySeconds"] = seconds.into());
        let (status, next) = status_of(&patient(10), &pods, None);
        assert_eq!((&status["availableReplicas"], next), (&json!(2), None));
        let (status, next) = status_of(&patient(15), &pods, None);
        assert_eq!(
            (status.get("availableReplicas"), next),
            (None, Some(Duration::from_secs(5)))
        );
    }

    #[test]
    fn a_failure_is_a_condition_until_it_is_over() {
        let failure = Failure {
            reason: "FailedCreate",
            message: "no".into(),
        };
        let condition = json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "no", "lastTransitionTime": NOW}]);
        let (status, _) = status_of(&set(1, |_| {}), &[], Some(&failure));
        assert_eq!(status["conditions"], condition);
        let failed = set(1, |set| set["status"] = json!({"replicas": 0, "conditions": condition}));
        let (status, _) = status_of(&failed, &[], None);
        assert_eq!(status.get("conditions"), None);
    }
}
