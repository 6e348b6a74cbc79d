//! Who owns whom: every object with its owners, and by owner its dependents. No I/O.
//!
//! What is seen is put in here, and the answer is which objects are to be looked at for it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use api::Resource;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// The finalizer of an object that goes after its dependents.
pub const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an object that goes after its dependents were let go of.
pub const ORPHAN: &str = "orphan";

/// An object's uid.
pub type Uid = Arc<str>;

/// What is remembered of an object.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its kind.
    pub resource: &'static Resource,
    /// Its namespace, for a kind that has one.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: Uid,
    /// Its owners.
    pub owners: Vec<OwnerReference>,
    /// How it goes, when it is going.
    pub end: Option<End>,
}

/// How an object that was deleted goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// When others let go of it: a kubelet, another controller.
    Plain,
    /// After its dependents.
    Foreground,
    /// After its dependents were let go of.
    Orphan,
}

impl Node {
    /// What an object's metadata says; none when it has no uid, which every stored object has.
    pub fn of(resource: &'static Resource, meta: &ObjectMeta) -> Option<Self> {
        Some(Self {
            resource,
            namespace: meta.namespace.clone().filter(|_| resource.namespaced),
            name: meta.name.clone()?,
            uid: meta.uid.as_deref()?.into(),
            owners: meta.owner_references.clone().unwrap_or_default(),
            end: End::of(meta),
        })
    }

    fn owner_uids(&self) -> impl Iterator<Item = &str> {
        self.owners.iter().map(|owner| &*owner.uid)
    }

    /// Whether the object keeps an owner that goes in the foreground.
    pub fn blocks(&self, owner: &str) -> bool {
        self.owners
            .iter()
            .any(|reference| reference.uid == owner && reference.block_owner_deletion == Some(true))
    }
}

impl End {
    /// How an object goes, by its metadata.
    pub fn of(meta: &ObjectMeta) -> Option<Self> {
        meta.deletion_timestamp.as_ref()?;
        let has = |wanted: &str| meta.finalizers.iter().flatten().any(|finalizer| finalizer == wanted);
        Some(match () {
            () if has(ORPHAN) => End::Orphan,
            () if has(FOREGROUND) => End::Foreground,
            () => End::Plain,
        })
    }
}

/// All objects and their owners.
#[derive(Default)]
pub struct Graph {
    nodes: HashMap<Uid, Node>,
    /// By the uid of the owner, which need not be there.
    dependents: HashMap<String, HashSet<Uid>>,
}

impl Graph {
    /// The object with the uid.
    pub fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// The objects that name an owner.
    pub fn dependents(&self, uid: &str) -> impl Iterator<Item = &Node> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|uid| self.nodes.get(uid))
    }

    /// An object is there, or has changed. Gives the objects to look at.
    pub fn seen(&mut self, node: Node) -> Vec<Uid> {
        let uid = node.uid.clone();
        let old = self.nodes.insert(uid.clone(), node.clone());
        let same_owners = old.as_ref().is_some_and(|old| old.owners == node.owners);
        let same_end = old.as_ref().is_some_and(|old| old.end == node.end);
        let mut wake = Vec::new();
        if !same_owners {
            if let Some(old) = &old {
                self.forget_owners(old);
                // An owner may have waited for this very reference.
                wake.extend(self.waiting_owners(old));
            }
            for owner in node.owner_uids() {
                self.dependents.entry(owner.to_owned()).or_default().insert(uid.clone());
            }
        }
        let is_held = matches!(node.end, Some(End::Foreground | End::Orphan));
        if (!same_owners && !node.owners.is_empty()) || (!same_end && is_held) {
            wake.push(uid.clone());
        }
        if !same_end && node.end == Some(End::Foreground) {
            wake.extend(self.dependents(&uid).map(|node| node.uid.clone()));
        }
        wake
    }

    /// An object is gone. Gives the objects to look at.
    pub fn gone(&mut self, uid: &str) -> Vec<Uid> {
        let Some(node) = self.nodes.remove(uid) else {
            return Vec::new();
        };
        self.forget_owners(&node);
        let mut wake: Vec<Uid> = self.dependents(uid).map(|node| node.uid.clone()).collect();
        wake.extend(self.waiting_owners(&node));
        wake
    }

    /// A whole list of a kind was seen; what was not in it is gone. Gives the objects to look at.
    pub fn listed(&mut self, resource: &'static Resource, listed: &HashSet<Uid>) -> Vec<Uid> {
        let gone: Vec<Uid> = self
            .nodes
            .values()
            .filter(|node| std::ptr::eq(node.resource, resource) && !listed.contains(&node.uid))
            .map(|node| node.uid.clone())
            .collect();
        gone.iter().flat_map(|uid| self.gone(uid)).collect()
    }

    fn waiting_owners(&self, node: &Node) -> Vec<Uid> {
        node.owner_uids()
            .filter_map(|uid| self.nodes.get(uid))
            .filter(|owner| owner.end == Some(End::Foreground))
            .map(|owner| owner.uid.clone())
            .collect()
    }

    fn forget_owners(&mut self, node: &Node) {
        for owner in node.owner_uids() {
            if let Some(dependents) = self.dependents.get_mut(owner) {
                dependents.remove(&node.uid);
                if dependents.is_empty() {
                    self.dependents.remove(owner);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use serde_json::json;

    use super::*;

    fn node(uid: &str, owners: &[&str], end: Option<&str>) -> Node {
        let owners: Vec<_> = owners
            .iter()
            .map(|owner| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": owner, "blockOwnerDeletion": true}))
            .collect();
        let mut meta = json!({"name": uid, "namespace": "ns", "uid": uid, "ownerReferences": owners});
        if let Some(finalizer) = end {
            meta["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            meta["finalizers"] = json!([finalizer]);
        }
        let resource = api::Catalogue::builtin().find("", "v1", "configmaps").unwrap();
        Node::of(resource, &serde_json::from_value(meta).unwrap()).unwrap()
    }

    fn told(mut wake: Vec<Uid>) -> String {
        wake.sort();
        wake.dedup();
        wake.join(" ")
    }

    #[test]
    fn who_is_to_be_looked_at() {
        let mut graph = Graph::default();
        assert_eq!(told(graph.seen(node("a", &[], None))), "");
        assert_eq!(told(graph.seen(node("b", &["a"], None))), "b");
        assert_eq!(told(graph.seen(node("b", &["a"], None))), "", "nothing new");
        assert_eq!(told(graph.seen(node("c", &["a", "x"], None))), "c");
        assert_eq!(told(graph.seen(node("a", &[], Some("some/other")))), "");
        assert_eq!(told(graph.seen(node("a", &[], Some(FOREGROUND)))), "a b c");
        assert_eq!(
            told(graph.seen(node("c", &["x"], None))),
            "a c",
            "the owner no longer waits for it"
        );
        assert_eq!(told(graph.gone("b")), "a");
        assert_eq!(told(graph.gone("b")), "");
        assert_eq!(told(graph.gone("a")), "");
        assert_eq!(told(graph.seen(node("x", &[], Some(ORPHAN)))), "x");
        assert_eq!(told(graph.gone("x")), "c");
        assert_eq!(graph.dependents("a").count(), 0);
    }

    #[test]
    fn a_new_list_tells_who_went_unseen() {
        let mut graph = Graph::default();
        graph.seen(node("a", &[], None));
        graph.seen(node("b", &["a"], None));
        let resource = graph.get("a").unwrap().resource;
        let listed = HashSet::from([Uid::from("b")]);
        assert_eq!(told(graph.listed(resource, &listed)), "b");
        assert!(graph.get("a").is_none());
    }
}
