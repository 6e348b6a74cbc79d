//! The cluster as the scheduler sees it: nodes with the pods on them, kept up change by change.
//!
//! A pod that was promised a node counts there at once (it is *assumed*), until the API shows it bound or the
//! binding fails.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api::pod::{self, HostPort, host_ports};
use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, Taint};
use k8s_openapi::api::storage::v1::StorageClass;

use crate::demand::Demand;

/// The pods that a node takes when it does not say.
const DEFAULT_POD_COUNT: i64 = 110;

/// Conditions that keep pods off a node: type, the status that does, and the taint that stands for it.
const CONDITION_TAINTS: &[(&str, &str, &str)] = &[
    ("Ready", "False", "node.kubernetes.io/not-ready"),
    ("Ready", "Unknown", "node.kubernetes.io/unreachable"),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];

/// A pod on a node, with what is asked of it again and again.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) pod: Arc<Pod>,
    demand: Demand,
    ports: Vec<HostPort>,
}

/// One node and its pods.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    /// The node; none while only pods of it are known.
    node: Option<Arc<Node>>,
    pub(crate) taints: Vec<Taint>,
    pub(crate) allocatable: Demand,
    pub(crate) max_pods: i64,
    pub(crate) requested: Demand,
    /// Sizes in bytes of the images that the node has, by each of their names.
    pub(crate) images: HashMap<String, i64>,
    pub(crate) pods: HashMap<String, Placed>,
}

impl NodeInfo {
    fn set_node(&mut self, node: Arc<Node>) {
        let status = node.status.as_ref();
        let amounts: pod::Resources = status
            .and_then(|status| status.allocatable.as_ref())
            .into_iter()
            .flatten()
            .filter_map(|(name, written)| Some((name.clone(), Quantity::of(written).ok()?)))
            .collect();
        self.max_pods = amounts.get("pods").map_or(DEFAULT_POD_COUNT, |count| count.value());
        self.allocatable = Demand::from_amounts(amounts);
        self.images = status
            .iter()
            .flat_map(|status| status.images.iter().flatten())
            .flat_map(|image| {
                let size = image.size_bytes.unwrap_or(0);
                image.names.iter().flatten().map(move |name| (name.clone(), size))
            })
            .collect();
        self.taints = taints(&node);
        self.node = Some(node);
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        self.node
            .as_ref()
            .and_then(|node| node.metadata.name.as_deref())
            .unwrap_or_default()
    }

    pub(crate) fn labels(&self) -> Option<&BTreeMap<String, String>> {
        self.node.as_ref().and_then(|node| node.metadata.labels.as_ref())
    }

    pub(crate) fn is_unschedulable(&self) -> bool {
        self.node.as_ref().and_then(|node| node.spec.as_ref()?.unschedulable) == Some(true)
    }

    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        self.labels()?.get(key).map(String::as_str)
    }

    pub(crate) fn used_ports(&self) -> impl Iterator<Item = &HostPort> {
        self.pods.values().flat_map(|placed| &placed.ports)
    }
}

/// The node's taints, with those that its conditions stand for: a node that says it is not ready takes no pods,
/// whether or not somebody has written that down as a taint yet.
fn taints(node: &Node) -> Vec<Taint> {
    let mut taints = node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.clone())
        .unwrap_or_default();
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    let mut add = |key: &str| {
        if !taints
            .iter()
            .any(|taint| taint.key == key && taint.effect == "NoSchedule")
        {
            taints.push(Taint {
                key: key.to_owned(),
                effect: "NoSchedule".to_owned(),
                ..Default::default()
            });
        }
    };
    if !conditions.iter().any(|condition| condition.type_ == "Ready") {
        add("node.kubernetes.io/not-ready");
    }
    for (kind, status, key) in CONDITION_TAINTS {
        if conditions
            .iter()
            .any(|condition| condition.type_ == *kind && condition.status == *status)
        {
            add(key);
        }
    }
    taints
}

/// Volumes, claims and classes, as last seen.
#[derive(Clone, Debug, Default)]
pub struct Storage {
    volumes: BTreeMap<String, Arc<PersistentVolume>>,
    claims: HashMap<(String, String), Arc<PersistentVolumeClaim>>,
    classes: HashMap<String, Arc<StorageClass>>,
}

impl Storage {
    /// Takes in a volume, or takes it out.
    pub fn set_volume(&mut self, volume: &Arc<PersistentVolume>, there: bool) {
        let name = volume.metadata.name.clone().unwrap_or_default();
        match there {
            true => drop(self.volumes.insert(name, volume.clone())),
            false => drop(self.volumes.remove(&name)),
        }
    }

    /// Takes in a claim, or takes it out.
    pub fn set_claim(&mut self, claim: &Arc<PersistentVolumeClaim>, there: bool) {
        let meta = &claim.metadata;
        let key = (
            meta.namespace.clone().unwrap_or_default(),
            meta.name.clone().unwrap_or_default(),
        );
        match there {
            true => drop(self.claims.insert(key, claim.clone())),
            false => drop(self.claims.remove(&key)),
        }
    }

    /// Takes in a class, or takes it out.
    pub fn set_class(&mut self, class: &Arc<StorageClass>, there: bool) {
        let name = class.metadata.name.clone().unwrap_or_default();
        match there {
            true => drop(self.classes.insert(name, class.clone())),
            false => drop(self.classes.remove(&name)),
        }
    }

    pub(crate) fn claim(&self, namespace: &str, name: &str) -> Option<&Arc<PersistentVolumeClaim>> {
        self.claims.get(&(namespace.to_owned(), name.to_owned()))
    }

    pub(crate) fn volume(&self, name: &str) -> Option<&Arc<PersistentVolume>> {
        self.volumes.get(name)
    }

    pub(crate) fn volumes(&self) -> impl Iterator<Item = &Arc<PersistentVolume>> {
        self.volumes.values()
    }

    /// Whether a claim gets its volume only with a pod's node.
    pub(crate) fn waits_for_consumer(&self, claim: &PersistentVolumeClaim) -> bool {
        let name = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_ref());
        let class = name.and_then(|name| self.classes.get(name));
        class.is_some_and(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"))
    }
}

/// Every node, with the pods that count on it.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    nodes: BTreeMap<String, NodeInfo>,
    /// Where each pod counts, by uid.
    places: HashMap<String, String>,
    namespaces: HashMap<String, BTreeMap<String, String>>,
    /// The cluster's storage.
    pub storage: Storage,
}

impl Snapshot {
    /// The nodes that are known, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.values().filter(|info| info.node.is_some())
    }

    /// The labels of a namespace.
    pub(crate) fn namespace_labels(&self, namespace: &str) -> Option<&BTreeMap<String, String>> {
        self.namespaces.get(namespace)
    }

    /// Takes in a node, new or changed.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let name = node.metadata.name.clone().unwrap_or_default();
        self.nodes.entry(name).or_default().set_node(node);
    }

    /// Takes out a node. Its pods are remembered until they go, in case it comes back.
    pub fn remove_node(&mut self, name: &str) {
        if let Some(info) = self.nodes.get_mut(name) {
            if info.pods.is_empty() {
                self.nodes.remove(name);
            } else {
                *info = NodeInfo {
                    pods: std::mem::take(&mut info.pods),
                    requested: info.requested.clone(),
                    ..NodeInfo::default()
                };
            }
        }
    }

    /// Takes in a namespace, new or changed.
    pub fn set_namespace(&mut self, namespace: &Namespace) {
        let labels = namespace.metadata.labels.clone().unwrap_or_default();
        self.namespaces
            .insert(namespace.metadata.name.clone().unwrap_or_default(), labels);
    }

    /// Takes out a namespace.
    pub fn remove_namespace(&mut self, name: &str) {
        self.namespaces.remove(name);
    }

    /// Counts a pod on the node that it is bound to, or was promised. Answers whether it holds something else
    /// there than before: then it may have given something back.
    pub fn place(&mut self, pod: Arc<Pod>, node: &str) -> bool {
        let uid = pod::uid(&pod).to_owned();
        let before = self.remove_pod(&uid);
        let placed = Placed {
            demand: Demand::of(&pod),
            ports: host_ports(&pod),
            pod,
        };
        let changed = before.is_some_and(|before| before.demand != placed.demand);
        let info = self.nodes.entry(node.to_owned()).or_default();
        info.requested.add(&placed.demand);
        info.pods.insert(uid.clone(), placed);
        self.places.insert(uid, node.to_owned());
        changed
    }

    /// Counts a pod no longer.
    pub fn forget(&mut self, uid: &str) {
        self.remove_pod(uid);
    }

    fn remove_pod(&mut self, uid: &str) -> Option<Placed> {
        let name = self.places.remove(uid)?;
        let info = self.nodes.get_mut(&name)?;
        let placed = info.pods.remove(uid)?;
        info.requested.subtract(&placed.demand);
        if info.node.is_none() && info.pods.is_empty() {
            self.nodes.remove(&name);
        }
        Some(placed)
    }

    /// Whether the pod counts somewhere.
    pub fn has_pod(&self, uid: &str) -> bool {
        self.places.contains_key(uid)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "the fixtures are constants")]
    use super::*;
    use serde_json::{Value, json};

    fn node(value: Value) -> Arc<Node> {
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn pod(uid: &str, cpu: &str) -> Arc<Pod> {
        let value = json!({
            "metadata": {"name": uid, "uid": uid},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
        });
        Arc::new(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn pods_count_where_they_are() {
        let mut snapshot = Snapshot::default();
        // Pods may be seen before their node.
        snapshot.place(pod("a", "1"), "n");
        assert_eq!(snapshot.nodes().count(), 0);
        snapshot.set_node(node(
            json!({"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "4", "pods": "10"}}}),
        ));
        snapshot.place(pod("b", "500m"), "n");
        let requested = |snapshot: &Snapshot| snapshot.nodes().next().unwrap().requested.milli_cpu;
        assert_eq!(requested(&snapshot), 1500);
        // Placed again, as when a promise comes true, it counts once.
        snapshot.place(pod("b", "500m"), "n");
        assert_eq!(requested(&snapshot), 1500);
        snapshot.forget("a");
        assert_eq!(requested(&snapshot), 500);
        snapshot.remove_node("n");
        assert_eq!(snapshot.nodes().count(), 0);
        assert!(snapshot.has_pod("b"));
        snapshot.set_node(node(json!({"metadata": {"name": "n"}})));
        assert_eq!(requested(&snapshot), 500);
    }

    #[test]
    fn conditions_are_taints() {
        let ready = |status: &str| json!({"type": "Ready", "status": status});
        for (conditions, want) in [
            (json!([]), vec!["node.kubernetes.io/not-ready"]),
            (json!([ready("True")]), vec![]),
            (json!([ready("False")]), vec!["node.kubernetes.io/not-ready"]),
            (json!([ready("Unknown")]), vec!["node.kubernetes.io/unreachable"]),
            (
                json!([ready("True"), {"type": "DiskPressure", "status": "True"}]),
                vec!["node.kubernetes.io/disk-pressure"],
            ),
        ] {
            let node = node(json!({"metadata": {"name": "n"}, "status": {"conditions": conditions}}));
            let keys: Vec<String> = taints(&node).into_iter().map(|taint| taint.key).collect();
            assert_eq!(keys, want, "{conditions}");
        }
    }
}
