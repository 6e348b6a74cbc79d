//! Empties a namespace that is being deleted, then lets it go.
//!
//! Every namespaced kind of the catalogue that can be deleted as a collection is: pods first, and nothing else until
//! none of them is left, so that what guards or feeds a pod is there for as long as the pod is. What has finalizers, or
//! a pod that is still ending, keeps the namespace: each kind of which something is left is watched from where its list
//! ended, and the next of it to go wakes the controller. When nothing is left the finalizer `kubernetes` is taken off
//! and the API server removes the namespace.

use std::collections::HashMap;
use std::pin::pin;
use std::time::Duration;

use api::{Catalogue, Resource, Verb};
use client::kube::api::{Api, DynamicObject, ListParams, PartialObjectMeta, WatchEvent, WatchParams};
use client::kube::core::ObjectMeta;
use client::kube::{Client, Error};
use client::{Change, Informers, WorkQueue};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::json;
use tokio::task::JoinSet;
use tracing::debug;

use crate::controller;

/// The finalizer that is ours.
const FINALIZER: &str = "kubernetes";

/// How long until a namespace is looked at again when what is left in it could not be watched.
const PAUSE: Duration = Duration::from_secs(1);

/// One kind with objects left in the namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// `pods.`, `leases.coordination.k8s.io`: plural, dot, group.
    pub resource: String,
    /// How many.
    pub count: usize,
    /// The finalizers on them, and on how many each is.
    pub finalizers: Vec<(String, usize)>,
}

/// Whether a namespace is ours to empty.
pub fn is_ending(namespace: &Namespace) -> bool {
    let finalizers = namespace
        .spec
        .as_ref()
        .and_then(|spec| spec.finalizers.as_deref())
        .unwrap_or_default();
    namespace.metadata.deletion_timestamp.is_some() && finalizers.iter().any(|finalizer| finalizer == FINALIZER)
}

/// The conditions that tell a user what a namespace still waits for, in upstream's words: of what is left, and of what
/// could not be deleted or looked at, each with why.
pub fn conditions(left: &[Left], failures: &[String], now: Timestamp) -> Vec<NamespaceCondition> {
    let condition = |type_: &str, is: bool, reason: &str, message: String| NamespaceCondition {
        type_: type_.into(),
        status: if is { "True" } else { "False" }.into(),
        last_transition_time: Some(Time(now)),
        reason: Some(reason.into()),
        message: Some(message),
    };
    // Sorted, so that the same state is the same message and no update.
    let sorted = |mut parts: Vec<String>| {
        parts.sort();
        parts.join(", ")
    };
    let resources = left
        .iter()
        .map(|left| format!("{} has {} resource instances", left.resource, left.count))
        .collect();
    let resources = sorted(resources);
    let mut finalizers: Vec<(String, usize)> = Vec::new();
    for (name, count) in left.iter().flat_map(|left| &left.finalizers) {
        match finalizers.iter_mut().find(|(known, _)| known == name) {
            Some((_, total)) => *total += count,
            None => finalizers.push((name.clone(), *count)),
        }
    }
    let finalizers = finalizers
        .iter()
        .map(|(name, count)| format!("{name} in {count} resource instances"))
        .collect();
    let finalizers = sorted(finalizers);
    let content = match failures.len() {
        0 => condition(
            "NamespaceDeletionContentFailure",
            false,
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization".into(),
        ),
        count => condition(
            "NamespaceDeletionContentFailure",
            true,
            "ContentDeletionFailed",
            format!(
                "Failed to delete all resource types, {count} remaining: {}",
                sorted(failures.to_vec())
            ),
        ),
    };
    let remaining = match resources.is_empty() {
        true => condition(
            "NamespaceContentRemaining",
            false,
            "ContentRemoved",
            "All content successfully removed".into(),
        ),
        false => condition(
            "NamespaceContentRemaining",
            true,
            "SomeResourcesRemain",
            format!("Some resources are remaining: {resources}"),
        ),
    };
    let blocking = match finalizers.is_empty() {
        true => condition(
            "NamespaceFinalizersRemaining",
            false,
            "ContentHasNoFinalizers",
            "All content-preserving finalizers finished".into(),
        ),
        false => condition(
            "NamespaceFinalizersRemaining",
            true,
            "SomeFinalizersRemain",
            format!("Some content in the namespace has finalizers remaining: {finalizers}"),
        ),
    };
    vec![
        condition(
            "NamespaceDeletionDiscoveryFailure",
            false,
            "ResourcesDiscovered",
            "All resources successfully discovered".into(),
        ),
        condition(
            "NamespaceDeletionGroupVersionParsingFailure",
            false,
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed".into(),
        ),
        content,
        remaining,
        blocking,
    ]
}

/// What is left of one kind; none when it is nothing.
pub fn left(resource: &Resource, items: &[ObjectMeta]) -> Option<Left> {
    let mut finalizers: Vec<(String, usize)> = Vec::new();
    for name in items.iter().filter_map(|item| item.finalizers.as_ref()).flatten() {
        match finalizers.iter_mut().find(|(known, _)| known == name) {
            Some((_, count)) => *count += 1,
            None => finalizers.push((name.clone(), 1)),
        }
    }
    (!items.is_empty()).then(|| Left {
        resource: format!("{}.{}", resource.plural, resource.group),
        count: items.len(),
        finalizers,
    })
}

/// Whether an event changes what a namespace waits for, of which these were listed.
fn matters(event: &WatchEvent<PartialObjectMeta>, listed: &[ObjectMeta]) -> bool {
    match event {
        WatchEvent::Bookmark(_) => false,
        WatchEvent::Modified(object) => listed
            .iter()
            .find(|item| item.uid == object.metadata.uid)
            .is_none_or(|item| item.finalizers != object.metadata.finalizers),
        WatchEvent::Added(_) | WatchEvent::Deleted(_) | WatchEvent::Error(_) => true,
    }
}

/// The kinds whose objects go with their namespace, in the steps in which they go; of two kinds stored as one, the first.
fn steps() -> [Vec<&'static Resource>; 2] {
    let mut kinds: Vec<&'static Resource> = Vec::new();
    for resource in Catalogue::builtin().resources() {
        let deletable = resource.namespaced && resource.allows(Verb::DeleteCollection) && resource.allows(Verb::List);
        if deletable && !kinds.iter().any(|known| known.storage == resource.storage) {
            kinds.push(resource);
        }
    }
    let (pods, others) = kinds
        .into_iter()
        .partition(|kind| (kind.group, kind.plural) == ("", "pods"));
    [pods, others]
}

/// Runs until it is dropped.
pub async fn run(informers: &Informers) {
    let namespaces = informers.all::<Namespace>();
    namespaces.synced().await;
    let queue = WorkQueue::<String>::default();
    let feed = controller::feed(&namespaces, &queue, |change| match change {
        Change::Applied { object, .. } if is_ending(object) => object.metadata.name.clone(),
        _ => None,
    });
    // What each namespace waits for; taking an entry out ends its watches.
    let waits = Mutex::new(HashMap::<String, JoinSet<()>>::new());
    let work = controller::work("namespace", &queue, async |name: String| {
        let Some(namespace) = namespaces.get(None, &name).filter(|namespace| is_ending(namespace)) else {
            waits.lock().remove(&name);
            return Ok(());
        };
        let Emptied { remaining, failures } = empty(informers.client(), &name).await;
        if remaining.is_empty() && failures.is_empty() {
            waits.lock().remove(&name);
            return finalize(informers.client(), &namespace).await;
        }
        let left: Vec<Left> = remaining.iter().map(|remaining| remaining.left.clone()).collect();
        let mut watches = JoinSet::new();
        for remaining in remaining {
            let (queue, name) = (queue.clone(), name.clone());
            watches.spawn(async move {
                match remaining.changed().await {
                    Ok(()) => queue.add(name),
                    Err(error) => {
                        debug!(namespace = name, %error, "what is left cannot be watched");
                        queue.add_after(name, PAUSE);
                    }
                }
            });
        }
        waits.lock().insert(name, watches);
        let told: Vec<String> = failures.iter().map(controller::message).collect();
        report(informers.client(), &namespace, &left, &told).await?;
        // What failed is tried again, by the back-off of all work.
        failures.into_iter().next().map_or(Ok(()), Err)
    });
    tokio::join!(feed, work);
}

/// What is left of one kind, and where its list ended.
struct Remaining {
    left: Left,
    objects: Api<DynamicObject>,
    listed: Vec<ObjectMeta>,
    version: String,
}

impl Remaining {
    async fn of(resource: &Resource, objects: &Api<DynamicObject>) -> Result<Option<Self>, Error> {
        let list = objects.list_metadata(&ListParams::default()).await?;
        let version = list.metadata.resource_version.unwrap_or_default();
        let listed: Vec<_> = list.items.into_iter().map(|item| item.metadata).collect();
        Ok(left(resource, &listed).map(|left| Self {
            left,
            objects: objects.clone(),
            listed,
            version,
        }))
    }

    /// Waits until the namespace should be looked at again.
    async fn changed(self) -> Result<(), Error> {
        let events = self
            .objects
            .watch_metadata(&WatchParams::default(), &self.version)
            .await?;
        let mut events = pin!(events);
        while let Some(event) = events.try_next().await? {
            if matters(&event, &self.listed) {
                break;
            }
        }
        Ok(())
    }
}

/// What a round of deleting has come to.
#[derive(Default)]
struct Emptied {
    remaining: Vec<Remaining>,
    /// Of the kinds that could not be deleted or listed.
    failures: Vec<Error>,
}

/// Deletes what is there, one step after the other; gives what is still left after that. A kind that fails keeps no other
/// of its step.
async fn empty(client: &Client, namespace: &str) -> Emptied {
    let mut emptied = Emptied::default();
    for kinds in steps() {
        for resource in kinds {
            match empty_of(client, namespace, resource).await {
                Ok(remaining) => emptied.remaining.extend(remaining),
                Err(error) => emptied.failures.push(error),
            }
        }
        if !emptied.remaining.is_empty() || !emptied.failures.is_empty() {
            break;
        }
    }
    emptied
}

async fn empty_of(client: &Client, namespace: &str, resource: &Resource) -> Result<Option<Remaining>, Error> {
    let objects = controller::objects(client, resource, Some(namespace));
    if Remaining::of(resource, &objects).await?.is_none() {
        return Ok(None);
    }
    controller::delete_collection(client, objects.resource_url()).await?;
    Remaining::of(resource, &objects).await
}

async fn report(client: &Client, namespace: &Namespace, left: &[Left], failures: &[String]) -> Result<(), Error> {
    let before = namespace
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    let mut now = conditions(left, failures, Timestamp::now());
    for condition in &mut now {
        // A condition that has not changed keeps its time, and then the patch changes nothing.
        if let Some(old) = before
            .iter()
            .find(|old| old.type_ == condition.type_ && old.status == condition.status)
        {
            condition.last_transition_time = old.last_transition_time.clone();
        }
    }
    if before == now {
        return Ok(());
    }
    let name = namespace.metadata.name.as_deref().unwrap_or_default();
    let patch = json!({"status": {"conditions": now}}).to_string().into_bytes();
    let request = http::Request::patch(format!("/api/v1/namespaces/{name}/status"))
        .header("content-type", "application/strategic-merge-patch+json")
        .body(patch)
        .map_err(Error::HttpError)?;
    controller::ignore_gone(client.request_text(request).await)
}

async fn finalize(client: &Client, namespace: &Namespace) -> Result<(), Error> {
    let mut namespace = namespace.clone();
    if let Some(finalizers) = namespace.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
        finalizers.retain(|finalizer| finalizer != FINALIZER);
    }
    let name = namespace.metadata.name.as_deref().unwrap_or_default();
    let body = serde_json::to_vec(&namespace).map_err(Error::SerdeError)?;
    let request = http::Request::put(format!("/api/v1/namespaces/{name}/finalize"))
        .header("content-type", "application/json")
        .body(body)
        .map_err(Error::HttpError)?;
    controller::ignore_gone(client.request_text(request).await)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use serde_json::Value;

    use super::*;

    fn object(name: &str, finalizers: &[&str]) -> ObjectMeta {
        let finalizers = (!finalizers.is_empty()).then_some(finalizers);
        serde_json::from_value(json!({"name": name, "uid": name, "finalizers": finalizers})).unwrap()
    }

    #[test]
    fn only_ending_namespaces_with_our_finalizer_are_ours() {
        let namespace = |value: Value| serde_json::from_value::<Namespace>(value).unwrap();
        let ending =
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"finalizers": ["kubernetes"]}});
        assert!(is_ending(&namespace(ending)));
        assert!(!is_ending(&namespace(
            json!({"metadata": {}, "spec": {"finalizers": ["kubernetes"]}})
        )));
        let done = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"finalizers": []}});
        assert!(!is_ending(&namespace(done)));
    }

    #[test]
    fn what_is_left_is_counted() {
        let maps = Catalogue::builtin().find("", "v1", "configmaps").unwrap();
        assert_eq!(left(maps, &[]), None);
        let left = left(maps, &[object("a", &["a.b/c"]), object("b", &[])]).unwrap();
        assert_eq!(
            left,
            Left {
                resource: "configmaps.".into(),
                count: 2,
                finalizers: vec![("a.b/c".into(), 1)]
            }
        );
    }

    #[test]
    fn what_is_left_and_what_failed_is_told_in_upstreams_words() {
        const NONE_LEFT: &str = "All content successfully removed";
        const NONE_HELD: &str = "All content-preserving finalizers finished";
        const NONE_FAILED: &str = "All content successfully deleted, may be waiting on finalization";
        let left = |resource: &str, count: usize, finalizers: &[(&str, usize)]| Left {
            resource: resource.into(),
            count,
            finalizers: finalizers
                .iter()
                .map(|(name, count)| ((*name).into(), *count))
                .collect(),
        };
        for (what, left, failures, content, remaining, held) in [
            (
                "one",
                vec![left("configmaps.", 2, &[("a.b/c", 1)])],
                &[][..],
                ("False", "ContentDeleted", NONE_FAILED),
                (
                    "True",
                    "SomeResourcesRemain",
                    "Some resources are remaining: configmaps. has 2 resource instances",
                ),
                (
                    "True",
                    "SomeFinalizersRemain",
                    "Some content in the namespace has finalizers remaining: a.b/c in 1 resource instances",
                ),
            ),
            (
                "two kinds and two finalizers, of which one is on both",
                vec![
                    left("secrets.", 1, &[("z.b/c", 1), ("a.b/c", 1)]),
                    left("leases.coordination.k8s.io", 3, &[("z.b/c", 2)]),
                ],
                &[],
                ("False", "ContentDeleted", NONE_FAILED),
                (
                    "True",
                    "SomeResourcesRemain",
                    "Some resources are remaining: leases.coordination.k8s.io has 3 resource instances, \
                     secrets. has 1 resource instances",
                ),
                (
                    "True",
                    "SomeFinalizersRemain",
                    "Some content in the namespace has finalizers remaining: a.b/c in 1 resource instances, \
                     z.b/c in 3 resource instances",
                ),
            ),
            (
                "two that failed",
                vec![],
                &["secrets: no", "configmaps: no"],
                (
                    "True",
                    "ContentDeletionFailed",
                    "Failed to delete all resource types, 2 remaining: configmaps: no, secrets: no",
                ),
                ("False", "ContentRemoved", NONE_LEFT),
                ("False", "ContentHasNoFinalizers", NONE_HELD),
            ),
        ] {
            let failures: Vec<String> = failures.iter().map(|text| (*text).into()).collect();
            let told = conditions(&left, &failures, Timestamp::UNIX_EPOCH);
            for (type_, want) in [
                ("NamespaceDeletionContentFailure", content),
                ("NamespaceContentRemaining", remaining),
                ("NamespaceFinalizersRemaining", held),
            ] {
                let found = told.iter().find(|condition| condition.type_ == type_).unwrap();
                let (reason, message) = (found.reason.as_deref().unwrap(), found.message.as_deref().unwrap());
                assert_eq!((found.status.as_str(), reason, message), want, "{what}");
            }
        }
    }

    #[test]
    fn only_what_changes_what_is_waited_for_wakes() {
        let listed = [object("a", &["a.b/c"]), object("b", &[])];
        let event = |type_: &str, name: &str, finalizers: &[&str]| {
            let object = json!({"metadata": object(name, finalizers)});
            serde_json::from_value::<WatchEvent<PartialObjectMeta>>(json!({"type": type_, "object": object})).unwrap()
        };
        for (type_, name, finalizers, expected) in [
            ("DELETED", "b", &[][..], true),
            ("MODIFIED", "b", &[], false),
            ("MODIFIED", "a", &["a.b/c"], false),
            ("MODIFIED", "a", &[], true),
            ("MODIFIED", "a", &["a.b/c", "d"], true),
            ("MODIFIED", "unknown", &[], true),
            ("ADDED", "c", &[], true),
        ] {
            let event = event(type_, name, finalizers);
            assert_eq!(matters(&event, &listed), expected, "{type_} {name} {finalizers:?}");
        }
        let bookmark = json!({"type": "BOOKMARK", "object": {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"resourceVersion": "9"}}});
        assert!(!matters(&serde_json::from_value(bookmark).unwrap(), &listed));
    }

    #[test]
    fn each_stored_kind_is_emptied_once_and_pods_before_all_others() {
        let [first, others] = steps();
        assert_eq!(first.iter().map(|kind| kind.plural).collect::<Vec<_>>(), ["pods"]);
        assert!(others.iter().any(|kind| kind.plural == "configmaps"));
        assert!(others.iter().all(|kind| kind.namespaced && kind.plural != "pods"));
        assert_eq!(others.iter().filter(|kind| kind.plural == "events").count(), 1);
    }
}
