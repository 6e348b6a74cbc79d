//! Which pods go first when there are too many: those that are worth least, in upstream's order.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use api::pod::{self, ContainerKind};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

/// The annotation with which users say what a pod is worth.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// What a pod is judged by.
struct Worth {
    assigned: bool,
    phase: u8,
    ready: bool,
    cost: i32,
    /// How many pods of the same kin are on its node.
    company: usize,
    /// Magnitudes of times.
    ready_for: Option<i32>,
    restarts: (i32, i32),
    age: Option<i32>,
    uid: String,
}

impl Worth {
    fn of(pod: &Pod, company: &HashMap<String, usize>, now: Timestamp) -> Self {
        let node = pod::node_name(pod).unwrap_or_default();
        let since = |time: Timestamp| magnitude(now.as_nanosecond() - time.as_nanosecond());
        let ready = pod::is_ready(pod);
        let annotations = pod.metadata.annotations.as_ref();
        Self {
            assigned: !node.is_empty(),
            phase: match pod::phase(pod) {
                "Pending" => 0,
                "Unknown" => 1,
                _ => 2,
            },
            ready,
            cost: annotations
                .and_then(|all| all.get(DELETION_COST)?.parse().ok())
                .unwrap_or(0),
            company: company.get(node).copied().unwrap_or(0),
            ready_for: ready_since(pod).filter(|_| ready).map(since),
            restarts: restarts(pod),
            age: pod.metadata.creation_timestamp.as_ref().map(|time| since(time.0)),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
        }
    }

    /// Less is deleted first. The younger by an order of magnitude go first; within one, chance decides.
    fn compare(&self, other: &Self) -> Ordering {
        self.assigned
            .cmp(&other.assigned)
            .then(self.phase.cmp(&other.phase))
            .then(self.ready.cmp(&other.ready))
            .then(self.cost.cmp(&other.cost))
            .then(other.company.cmp(&self.company))
            .then(self.ready_for.cmp(&other.ready_for))
            .then(other.restarts.cmp(&self.restarts))
            .then(self.age.cmp(&other.age))
            .then_with(|| self.uid.cmp(&other.uid))
    }
}

fn magnitude(nanoseconds: i128) -> i32 {
    match u128::try_from(nanoseconds) {
        Ok(0) | Err(_) => -1,
        Ok(some) => some.ilog2() as i32,
    }
}

/// When the pod's Ready condition became what it is.
pub(super) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    Some(pod::condition(pod, "Ready")?.last_transition_time.as_ref()?.0)
}

/// The most restarts of a container, and of a sidecar.
fn restarts(pod: &Pod) -> (i32, i32) {
    let (Some(spec), Some(status)) = (&pod.spec, &pod.status) else {
        return (0, 0);
    };
    let most = |kind: ContainerKind, names: Vec<&str>| {
        kind.statuses(status)
            .iter()
            .filter(|status| names.contains(&status.name.as_str()))
            .map(|status| status.restart_count)
            .max()
            .unwrap_or(0)
    };
    let main = spec.containers.iter().map(|container| container.name.as_str());
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|container| pod::is_sidecar(container))
        .map(|container| container.name.as_str());
    (
        most(ContainerKind::Main, main.collect()),
        most(ContainerKind::Init, sidecars.collect()),
    )
}

/// The `count` pods to delete; `kin` are the pods of all ReplicaSets with the same controller.
pub fn to_delete(mut pods: Vec<Arc<Pod>>, kin: &[Arc<Pod>], count: usize, now: Timestamp) -> Vec<Arc<Pod>> {
    if count < pods.len() {
        let mut company: HashMap<String, usize> = HashMap::new();
        for pod in kin {
            *company
                .entry(pod::node_name(pod).unwrap_or_default().to_owned())
                .or_default() += 1;
        }
        let mut ranked: Vec<_> = pods
            .into_iter()
            .map(|pod| (Worth::of(&pod, &company, now), pod))
            .collect();
        ranked.sort_by(|(a, _), (b, _)| a.compare(b));
        pods = ranked.into_iter().map(|(_, pod)| pod).collect();
        pods.truncate(count);
    }
    pods
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, change: impl FnOnce(&mut Value)) -> Arc<Pod> {
        let mut value = json!({
            "metadata": {"name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": "n1", "containers": [{"name": "c"}], "initContainers": [{"name": "s", "restartPolicy": "Always"}]},
            "status": {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:01Z"}],
                "containerStatuses": [{"name": "c", "restartCount": 1, "image": "", "imageID": "", "ready": true}],
                "initContainerStatuses": [{"name": "s", "restartCount": 1, "image": "", "imageID": "", "ready": true}],
            },
        });
        change(&mut value);
        Arc::new(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn the_least_worth_goes_first() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        let plain = || pod("plain", |_| {});
        // Each in its turn goes before a plain pod, and after those above it.
        let order = [
            pod("unassigned", |pod| pod["spec"]["nodeName"] = Value::Null),
            pod("pending", |pod| pod["status"]["phase"] = "Pending".into()),
            pod("unknown", |pod| pod["status"]["phase"] = "Unknown".into()),
            pod("unready", |pod| {
                pod["status"]["conditions"][0]["status"] = "False".into()
            }),
            pod("cheap", |pod| {
                pod["metadata"]["annotations"] = json!({"controller.kubernetes.io/pod-deletion-cost": "-1"});
            }),
            pod("crowded", |pod| pod["spec"]["nodeName"] = "n2".into()),
            pod("ready-late", |pod| {
                pod["status"]["conditions"][0]["lastTransitionTime"] = "2026-01-01T23:59:00Z".into();
            }),
            pod("restarted", |pod| {
                pod["status"]["containerStatuses"][0]["restartCount"] = 2.into()
            }),
            pod("sidecar-restarted", |pod| {
                pod["status"]["initContainerStatuses"][0]["restartCount"] = 2.into();
            }),
            pod("young", |pod| {
                pod["metadata"]["creationTimestamp"] = "2026-01-01T20:00:00Z".into()
            }),
            plain(),
            pod("dear", |pod| {
                pod["metadata"]["annotations"] = json!({"controller.kubernetes.io/pod-deletion-cost": "5"});
            }),
        ];
        let mut kin: Vec<_> = order.to_vec();
        kin.extend((0..20).map(|n| pod(&format!("kin-{n}"), |pod| pod["spec"]["nodeName"] = "n2".into())));
        let names = |pods: Vec<Arc<Pod>>| -> Vec<String> {
            pods.iter().map(|pod| pod.metadata.name.clone().unwrap()).collect()
        };
        let mut shuffled = order.to_vec();
        shuffled.reverse();
        let want = names(order.to_vec());
        assert_eq!(names(to_delete(shuffled.clone(), &kin, 11, now)), want[..11]);
        assert_eq!(to_delete(shuffled, &kin, 12, now).len(), 12);
    }

    #[test]
    fn among_pods_of_about_one_age_chance_decides() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        let older = pod("a", |_| {});
        let younger = pod("b", |pod| {
            pod["status"]["conditions"][0]["lastTransitionTime"] = "2026-01-01T00:05:00Z".into();
        });
        let gone = to_delete(vec![younger, older], &[], 1, now);
        assert_eq!(gone[0].metadata.name.as_deref(), Some("a"));
    }
}
