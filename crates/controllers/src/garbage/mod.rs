//! Garbage collection: what becomes of objects when their owners go.
//!
//! Every kind of the catalogue is watched, by its metadata alone, into one [`Graph`] of who owns whom. A change in it
//! wakes the objects that it concerns; [`decide`] says what becomes of each, and here that is carried out. An owner goes
//! in the background (it is gone, and its dependents follow), in the foreground (it waits with the finalizer
//! `foregroundDeletion` until those that block it are gone) or leaves orphans (it waits with the finalizer `orphan` until
//! they have forgotten it).

mod decide;
mod graph;

use std::collections::HashSet;
use std::pin::pin;

use api::{Catalogue, Resource, Verb};
use client::events::EventType;
use client::kube::api::{Api, DeleteParams, DynamicObject, PartialObjectMeta, Patch, PatchParams, Preconditions};
use client::kube::runtime::WatchStreamExt;
use client::kube::runtime::watcher::{self, DefaultBackoff, Event, watcher};
use client::kube::{self, Error};
use client::{Change, Client, Events, Informer, Informers, WorkQueue};
use futures::StreamExt;
use futures::future::join_all;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Namespace, Node as ClusterNode, ObjectReference, Pod, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::watch;
use tracing::warn;

use self::decide::{Dependents, Owner, Verdict, decide};
use self::graph::{End, FOREGROUND, Graph, Node, ORPHAN, Uid};
use crate::controller;

/// How many objects are worked on at one time.
const WORKERS: usize = 10;

struct Collector {
    client: Client,
    events: Events,
    graph: Mutex<Graph>,
    queue: WorkQueue<Uid>,
    /// How many kinds have yet to be listed.
    unlisted: watch::Sender<usize>,
}

/// The kinds that are watched: all whose objects can be deleted, each once, but for events, which own nothing, are
/// owned by nobody and are many.
fn kinds() -> Vec<&'static Resource> {
    let mut kinds: Vec<&'static Resource> = Vec::new();
    for resource in Catalogue::builtin().resources() {
        let wanted = [Verb::List, Verb::Watch, Verb::Delete]
            .iter()
            .all(|verb| resource.allows(*verb));
        let known = kinds.iter().any(|known| known.storage == resource.storage);
        if wanted && !known && resource.storage != "events" {
            kinds.push(resource);
        }
    }
    kinds
}

/// Runs until it is dropped.
pub async fn run(informers: &Informers) {
    let kinds = kinds();
    let collector = Collector {
        client: informers.client().clone(),
        events: Events::new(informers.client().clone(), "garbage-collector-controller", None),
        graph: Mutex::default(),
        queue: WorkQueue::default(),
        unlisted: watch::Sender::new(kinds.len()),
    };
    let mut feeds = Vec::with_capacity(kinds.len());
    for resource in kinds {
        feeds.push(collector.feed(informers, resource));
    }
    let work = async {
        // Half a picture has owners that only seem to be missing.
        let _ = collector.unlisted.subscribe().wait_for(|left| *left == 0).await;
        let workers = (0..WORKERS).map(|_| {
            controller::work("garbage-collector", &collector.queue, async |uid: Uid| {
                collector.attend(&uid).await
            })
        });
        join_all(workers).await
    };
    tokio::join!(join_all(feeds), work);
}

/// The owner's kind, when it is served.
fn kind_of(owner: &OwnerReference) -> Option<&'static Resource> {
    let (group, version) = owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
    Catalogue::builtin().find_kind(group, version, &owner.kind)
}

/// What an owner is to its dependents, by how it goes.
fn state(end: Option<End>) -> Owner {
    match end {
        Some(End::Foreground) => Owner::Waiting,
        Some(End::Plain | End::Orphan) | None => Owner::Solid,
    }
}

impl Collector {
    fn wake(&self, uids: Vec<Uid>) {
        uids.into_iter().for_each(|uid| self.queue.add(uid));
    }

    fn seen(&self, resource: &'static Resource, meta: &ObjectMeta) -> Option<Uid> {
        let node = Node::of(resource, meta)?;
        let uid = node.uid.clone();
        let wake = self.graph.lock().seen(node);
        self.wake(wake);
        Some(uid)
    }

    fn gone(&self, meta: &ObjectMeta) {
        let wake = self.graph.lock().gone(meta.uid.as_deref().unwrap_or_default());
        self.wake(wake);
    }

    /// Keeps the graph current in one kind. Kinds that other controllers have whole are not watched twice.
    async fn feed(&self, informers: &Informers, resource: &'static Resource) {
        match resource.storage {
            "deployments" => self.feed_shared(resource, informers.all::<Deployment>()).await,
            "namespaces" => self.feed_shared(resource, informers.all::<Namespace>()).await,
            "nodes" => self.feed_shared(resource, informers.all::<ClusterNode>()).await,
            "pods" => self.feed_shared(resource, informers.all::<Pod>()).await,
            "replicasets" => self.feed_shared(resource, informers.all::<ReplicaSet>()).await,
            "serviceaccounts" => self.feed_shared(resource, informers.all::<ServiceAccount>()).await,
            _ => self.feed_metadata(resource).await,
        }
    }

    async fn feed_shared<K>(&self, resource: &'static Resource, informer: Informer<K>)
    where
        K: kube::Resource<DynamicType = ()>
            + Clone
            + serde::de::DeserializeOwned
            + std::fmt::Debug
            + Send
            + Sync
            + 'static,
    {
        informer.synced().await;
        let mut changes = informer.subscribe();
        // What the subscription begins with is the whole list.
        while let Some(change) = changes.try_next() {
            self.apply(resource, &change);
        }
        self.unlisted.send_modify(|left| *left -= 1);
        loop {
            self.apply(resource, &changes.next().await);
        }
    }

    fn apply<K: kube::Resource<DynamicType = ()>>(&self, resource: &'static Resource, change: &Change<K>) {
        match change {
            Change::Applied { object, .. } => drop(self.seen(resource, object.meta())),
            Change::Deleted(object) => self.gone(object.meta()),
        }
    }

    async fn feed_metadata(&self, resource: &'static Resource) {
        let objects =
            Api::<PartialObjectMeta<DynamicObject>>::all_with(self.client.clone(), &controller::api_resource(resource));
        let mut events = pin!(watcher(objects, watcher::Config::default()).backoff(DefaultBackoff::default()));
        let mut listed = HashSet::new();
        let mut is_first = true;
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(object)) => listed.extend(self.seen(resource, &object.metadata)),
                Ok(Event::InitDone) => {
                    let wake = self.graph.lock().listed(resource, &std::mem::take(&mut listed));
                    self.wake(wake);
                    if std::mem::take(&mut is_first) {
                        self.unlisted.send_modify(|left| *left -= 1);
                    }
                }
                Ok(Event::Apply(object)) => drop(self.seen(resource, &object.metadata)),
                Ok(Event::Delete(object)) => self.gone(&object.metadata),
                Err(error) => warn!(resource = resource.plural, %error, "watch interrupted"),
            }
        }
    }

    fn api(&self, node: &Node) -> Api<DynamicObject> {
        controller::objects(&self.client, node.resource, node.namespace.as_deref())
    }

    /// The object as it is, when it still is the one that is meant.
    async fn live(&self, node: &Node) -> Result<Option<ObjectMeta>, Error> {
        let found = self.api(node).get_metadata_opt(&node.name).await?;
        let meta = found.map(|found| found.metadata);
        Ok(meta.filter(|meta| meta.uid.as_deref() == Some(&*node.uid)))
    }

    /// Looks at one object.
    async fn attend(&self, uid: &Uid) -> Result<(), Error> {
        let (node, dependents) = {
            let graph = self.graph.lock();
            let Some(node) = graph.get(uid).cloned() else {
                return Ok(());
            };
            let dependents: Vec<Node> = graph.dependents(uid).cloned().collect();
            (node, dependents)
        };
        match node.end {
            Some(End::Orphan) => self.set_free(&node, &dependents).await,
            Some(End::Foreground) => self.wait_for(&node, &dependents).await,
            Some(End::Plain) => Ok(()),
            None => self.judge(&node, &dependents).await,
        }
    }

    /// Has the dependents forget an object, and then lets it go.
    async fn set_free(&self, node: &Node, dependents: &[Node]) -> Result<(), Error> {
        for dependent in dependents {
            self.detach(dependent, &[node.uid.to_string()]).await?;
        }
        self.remove_finalizer(node, ORPHAN).await
    }

    /// Lets an object go when none of its dependents blocks it any more.
    async fn wait_for(&self, node: &Node, dependents: &[Node]) -> Result<(), Error> {
        if !dependents.iter().any(|dependent| dependent.blocks(&node.uid)) {
            return self.remove_finalizer(node, FOREGROUND).await;
        }
        dependents
            .iter()
            .filter(|dependent| dependent.end.is_none() && dependent.blocks(&node.uid))
            .for_each(|dependent| self.queue.add(dependent.uid.clone()));
        Ok(())
    }

    /// Decides on an object that was not deleted, by its owners as they are.
    async fn judge(&self, node: &Node, dependents: &[Node]) -> Result<(), Error> {
        // The common case, in which nobody has to be asked.
        if node
            .owners
            .iter()
            .all(|owner| self.known(node, owner) == Some(Owner::Solid))
        {
            return Ok(());
        }
        let Some(meta) = self.live(node).await? else {
            return Ok(());
        };
        if meta.deletion_timestamp.is_some() {
            return Ok(());
        }
        let mut owners = Vec::new();
        for owner in meta.owner_references.iter().flatten() {
            owners.push((owner.uid.clone(), self.owner(node, owner).await?));
        }
        let finalizer = End::of(&ObjectMeta {
            deletion_timestamp: Some(api::meta::time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH)),
            ..meta.clone()
        });
        let dependents = Dependents {
            any: !dependents.is_empty(),
            waiting: dependents
                .iter()
                .any(|dependent| dependent.end == Some(End::Foreground)),
        };
        match decide(&owners, finalizer, dependents) {
            Verdict::Keep => Ok(()),
            Verdict::Detach(owners) => self.detach(node, &owners).await,
            Verdict::Delete { policy, unblock } => {
                let mut version = meta.resource_version.clone();
                if unblock {
                    version = self.unblock(node, &meta).await?;
                }
                self.delete(node, version, policy).await
            }
        }
    }

    /// How an object finds one of its owners by the graph alone.
    fn known(&self, node: &Node, reference: &OwnerReference) -> Option<Owner> {
        let resource = kind_of(reference)?;
        let graph = self.graph.lock();
        let owner = graph.get(&reference.uid)?;
        let is_meant = owner.resource.kind == resource.kind
            && owner.name == reference.name
            && owner.namespace.as_deref() == node.namespace.as_deref().filter(|_| resource.namespaced);
        is_meant.then(|| state(owner.end))
    }

    /// How an object finds one of its owners: in the graph, which knows all that is there, or else by asking.
    async fn owner(&self, node: &Node, reference: &OwnerReference) -> Result<Owner, Error> {
        if let Some(known) = self.known(node, reference) {
            return Ok(known);
        }
        let Some(resource) = kind_of(reference) else {
            return Ok(Owner::Unknown);
        };
        let namespace = node.namespace.as_deref().filter(|_| resource.namespaced);
        if resource.namespaced && namespace.is_none() {
            // Without a namespace there is no way to tell which object is meant.
            return Ok(Owner::Unknown);
        }
        let objects = controller::objects(&self.client, resource, namespace);
        let found = objects.get_metadata_opt(&reference.name).await?;
        if let Some(found) = found.filter(|found| found.metadata.uid.as_ref() == Some(&reference.uid)) {
            return Ok(state(End::of(&found.metadata)));
        }
        let elsewhere = self
            .graph
            .lock()
            .get(&reference.uid)
            .map(|known| known.namespace.clone());
        if elsewhere.is_some_and(|elsewhere| elsewhere.as_deref() != namespace) {
            self.tell_of_other_namespace(node, reference);
        }
        Ok(Owner::Absent)
    }

    /// An owner can not be in another namespace; whoever wrote that will wonder where the object went.
    fn tell_of_other_namespace(&self, node: &Node, owner: &OwnerReference) {
        let about = ObjectReference {
            api_version: Some(node.resource.api_version()),
            kind: Some(node.resource.kind.to_owned()),
            name: Some(node.name.clone()),
            namespace: node.namespace.clone(),
            uid: Some(node.uid.to_string()),
            ..ObjectReference::default()
        };
        let namespace = node.namespace.as_deref().unwrap_or_default();
        let message = format!(
            "ownerRef [{}/{}, namespace: {namespace}, name: {}, uid: {}] does not exist in namespace \"{namespace}\"",
            owner.api_version, owner.kind, owner.name, owner.uid
        );
        self.events
            .record(&about, EventType::Warning, "OwnerRefInvalidNamespace", message);
    }

    async fn delete(&self, node: &Node, version: Option<String>, policy: &str) -> Result<(), Error> {
        let options = DeleteParams {
            propagation_policy: Some(match policy {
                "Orphan" => kube::api::PropagationPolicy::Orphan,
                "Foreground" => kube::api::PropagationPolicy::Foreground,
                _ => kube::api::PropagationPolicy::Background,
            }),
            // Its owners may be others by now.
            preconditions: Some(Preconditions {
                uid: Some(node.uid.to_string()),
                resource_version: version,
            }),
            ..DeleteParams::default()
        };
        controller::ignore_gone(self.api(node).delete(&node.name, &options).await)
    }

    /// Takes owners out of an object's references.
    async fn detach(&self, node: &Node, owners: &[String]) -> Result<(), Error> {
        let Some(meta) = self.live(node).await? else {
            return Ok(());
        };
        let references = meta.owner_references.unwrap_or_default();
        let kept: Vec<_> = references.iter().filter(|owner| !owners.contains(&owner.uid)).collect();
        if kept.len() == references.len() {
            return Ok(());
        }
        let kept = (!kept.is_empty()).then_some(kept);
        self.patch(
            node,
            json!({"resourceVersion": meta.resource_version, "ownerReferences": kept}),
        )
        .await
        .map(drop)
    }

    /// Has an object no longer keep its owners; gives its new version.
    async fn unblock(&self, node: &Node, meta: &ObjectMeta) -> Result<Option<String>, Error> {
        let mut references = meta.owner_references.clone().unwrap_or_default();
        references
            .iter_mut()
            .for_each(|owner| owner.block_owner_deletion = Some(false));
        self.patch(
            node,
            json!({"resourceVersion": meta.resource_version, "ownerReferences": references}),
        )
        .await
    }

    async fn remove_finalizer(&self, node: &Node, finalizer: &str) -> Result<(), Error> {
        let Some(meta) = self.live(node).await? else {
            return Ok(());
        };
        let finalizers = meta.finalizers.unwrap_or_default();
        let kept: Vec<_> = finalizers.iter().filter(|known| *known != finalizer).collect();
        if kept.len() == finalizers.len() {
            return Ok(());
        }
        let kept = (!kept.is_empty()).then_some(kept);
        self.patch(
            node,
            json!({"resourceVersion": meta.resource_version, "finalizers": kept}),
        )
        .await
        .map(drop)
    }

    /// Changes an object's metadata; gives its new version. Success when it is gone.
    async fn patch(&self, node: &Node, metadata: serde_json::Value) -> Result<Option<String>, Error> {
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        let result = self
            .api(node)
            .patch_metadata(&node.name, &PatchParams::default(), &patch)
            .await;
        match result {
            Ok(patched) => Ok(patched.metadata.resource_version),
            Err(error) if controller::is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
