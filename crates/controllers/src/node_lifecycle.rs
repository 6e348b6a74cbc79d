//! Notices nodes that no longer say that they live, and marks nodes that pods should keep away from.
//!
//! A node renews its Lease in `kube-node-lease`. When the Lease has not changed for [`GRACE`] by this machine's own
//! clock (the node's may differ), the node's conditions become Unknown. The taints `not-ready` and `unreachable` follow
//! the Ready condition. Evicting pods by those taints comes with several nodes.

use std::collections::HashMap;
use std::time::Duration;

use client::events::reference;
use client::kube::api::{Api, Patch, PatchParams};
use client::{Change, EventType, Events, Informers, Selection, WorkQueue};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use crate::controller;

/// How long a node may be silent, as upstream's --node-monitor-grace-period since v1.32.
const GRACE: Duration = Duration::from_secs(50);

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
const PRESSURES: [(&str, &str); 3] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
];

/// What is to change on a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// The conditions that become Unknown.
    pub conditions: Vec<NodeCondition>,
    /// All taints the node is to have, when they are others than now.
    pub taints: Option<Vec<Taint>>,
}

/// Decides on a node that has been silent for `silent`.
pub fn reconcile(node: &Node, silent: Duration, now: Timestamp) -> Changes {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    let unknown: Vec<_> = match silent < GRACE {
        true => Vec::new(),
        false => conditions
            .iter()
            .filter(|condition| condition.status != "Unknown")
            .map(|condition| lost(condition, now))
            .collect(),
    };
    let status = |type_: &str| {
        let both = unknown.iter().chain(conditions);
        both.into_iter()
            .find(|condition| condition.type_ == type_)
            .map(|condition| condition.status.as_str())
    };
    let mut wanted: Vec<(&str, &str)> = match status("Ready") {
        Some("True") => vec![],
        Some("False") | None => vec![(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")],
        Some(_) => vec![(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")],
    };
    wanted.extend(
        PRESSURES
            .iter()
            .filter(|(type_, _)| status(type_) == Some("True"))
            .map(|(_, taint)| (*taint, "NoSchedule")),
    );
    if node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true)) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    Changes {
        conditions: unknown,
        taints: taints(node, &wanted, now),
    }
}

/// A condition that the node no longer stands for.
fn lost(condition: &NodeCondition, now: Timestamp) -> NodeCondition {
    NodeCondition {
        status: "Unknown".into(),
        reason: Some("NodeStatusUnknown".into()),
        message: Some("Kubelet stopped posting node status.".into()),
        last_transition_time: Some(Time(now)),
        ..condition.clone()
    }
}

/// The node's taints with ours as wanted and all others untouched; none when that is what it has.
fn taints(node: &Node, wanted: &[(&str, &str)], now: Timestamp) -> Option<Vec<Taint>> {
    let ours = |taint: &Taint| {
        let pressure = PRESSURES.iter().any(|(_, key)| taint.key == *key);
        pressure || [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&taint.key.as_str())
    };
    let has = node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.as_deref())
        .unwrap_or_default();
    let is_wanted = |taint: &Taint| wanted.contains(&(taint.key.as_str(), taint.effect.as_str()));
    let mut next: Vec<Taint> = has
        .iter()
        .filter(|taint| !ours(taint) || is_wanted(taint))
        .cloned()
        .collect();
    for (key, effect) in wanted {
        if !next.iter().any(|taint| taint.key == *key && taint.effect == *effect) {
            next.push(Taint {
                key: (*key).into(),
                effect: (*effect).into(),
                time_added: Some(Time(now)),
                ..Default::default()
            });
        }
    }
    (next != has).then_some(next)
}

/// Why a node is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// It has changed.
    Changed(String),
    /// It would have been silent for too long by now, had it said nothing. One of these waits for each node.
    Due(String),
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Key::Changed(name) | Key::Due(name)) = self;
        f.write_str(name)
    }
}

/// Runs until it is dropped.
pub async fn run(informers: &Informers) {
    let nodes = informers.all::<Node>();
    let leases = informers.selected::<Lease>(Selection::fields("metadata.namespace=kube-node-lease"));
    nodes.synced().await;
    let events = Events::new(informers.client().clone(), "node-controller", None);
    let queue = WorkQueue::<Key>::default();
    let heard: Mutex<HashMap<String, Instant>> = Mutex::default();
    let feed_nodes = async {
        let mut changes = nodes.subscribe();
        loop {
            let change = changes.next().await;
            let node = change.object();
            let name = node.metadata.name.clone().unwrap_or_default();
            let event =
                |reason: &str, message: String| events.record(&reference(&**node), EventType::Normal, reason, message);
            match &change {
                Change::Deleted(_) => {
                    heard.lock().remove(&name);
                    event(
                        "RemovingNode",
                        format!("Node {name} event: Removing Node {name} from Controller"),
                    );
                }
                Change::Applied { .. } => {
                    let known = heard.lock().contains_key(&name);
                    if !known {
                        heard.lock().insert(name.clone(), Instant::now());
                        queue.add_after(Key::Due(name.clone()), GRACE);
                        event(
                            "RegisteredNode",
                            format!("Node {name} event: Registered Node {name} in Controller"),
                        );
                    }
                    queue.add(Key::Changed(name));
                }
            }
        }
    };
    let feed_leases = controller::feed(&leases, &queue, |change| {
        let name = change.object().metadata.name.clone()?;
        heard.lock().insert(name.clone(), Instant::now());
        // A renewal alone changes nothing, unless the node was lost.
        let ready = nodes.get(None, &name)?;
        let conditions = ready.status.as_ref()?.conditions.as_deref()?;
        conditions
            .iter()
            .any(|condition| condition.status == "Unknown")
            .then_some(Key::Changed(name))
    });
    let work = controller::work("node-lifecycle", &queue, async |key: Key| {
        let name = key.to_string();
        let Some(node) = nodes.get(None, &name) else {
            return Ok(());
        };
        let silent = heard.lock().get(&name).map_or(Duration::ZERO, Instant::elapsed);
        let changes = reconcile(&node, silent, Timestamp::now());
        if let Key::Due(_) = key {
            queue.add_after(key, GRACE.checked_sub(silent).unwrap_or(GRACE));
        }
        let api = Api::<Node>::all(informers.client().clone());
        if !changes.conditions.is_empty() {
            let patch = json!({"status": {"conditions": changes.conditions}});
            controller::ignore_gone(
                api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch))
                    .await,
            )?;
            events.record(
                &reference(&*node),
                EventType::Normal,
                "NodeNotReady",
                format!("Node {name} status is now: NodeNotReady"),
            );
        }
        if let Some(taints) = changes.taints {
            // The version guards against a taint that somebody adds at the same time.
            let patch =
                json!({"metadata": {"resourceVersion": node.metadata.resource_version}, "spec": {"taints": taints}});
            if changes.conditions.is_empty() {
                controller::ignore_gone(api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await)?;
            }
        }
        Ok(())
    });
    tokio::join!(feed_nodes, feed_leases, work);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;

    fn node(ready: &str, taints: serde_json::Value) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "a"}, "spec": {"taints": taints},
            "status": {"conditions": [{"type": "Ready", "status": ready}, {"type": "MemoryPressure", "status": "False"}]},
        }))
        .unwrap()
    }

    fn keys(changes: &Changes) -> Option<Vec<String>> {
        changes.taints.as_ref().map(|taints| {
            taints
                .iter()
                .map(|taint| format!("{}:{}", taint.key, taint.effect))
                .collect()
        })
    }

    #[test]
    fn a_node_that_lives_is_left_alone() {
        let changes = reconcile(
            &node("True", json!([{"key": "mine", "effect": "NoSchedule"}])),
            Duration::from_secs(10),
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!(changes, Changes::default());
    }

    #[test]
    fn a_silent_node_is_unknown_and_unreachable() {
        let changes = reconcile(&node("True", json!([])), GRACE, Timestamp::UNIX_EPOCH);
        assert_eq!(changes.conditions.len(), 2);
        assert!(changes.conditions.iter().all(|condition| condition.status == "Unknown"));
        assert_eq!(
            keys(&changes).unwrap(),
            [
                "node.kubernetes.io/unreachable:NoSchedule",
                "node.kubernetes.io/unreachable:NoExecute"
            ]
        );
    }

    #[test]
    fn taints_follow_the_ready_condition_and_spare_others() {
        let changes = reconcile(
            &node("False", json!([{"key": "mine", "effect": "NoSchedule"}])),
            Duration::ZERO,
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!(
            keys(&changes).unwrap(),
            [
                "mine:NoSchedule",
                "node.kubernetes.io/not-ready:NoSchedule",
                "node.kubernetes.io/not-ready:NoExecute"
            ]
        );
        let tainted = json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}, {"key": "mine", "effect": "NoExecute"}]);
        assert_eq!(
            keys(&reconcile(
                &node("True", tainted),
                Duration::ZERO,
                Timestamp::UNIX_EPOCH
            ))
            .unwrap(),
            ["mine:NoExecute"]
        );
    }
}
