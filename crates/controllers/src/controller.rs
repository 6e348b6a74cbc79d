//! The thin loop that the controllers share: keys in, work done, back-off when it fails.

use std::fmt::Display;
use std::hash::Hash;

use api::Resource;
use client::kube::api::{Api, DynamicObject};
use client::kube::core::{ApiResource, GroupVersionKind};
use client::kube::{Client, Error};
use client::{Change, Informer, WorkQueue};
use tracing::{debug, warn};

/// Adds a key for each change of an informer's objects, until it is dropped.
pub async fn feed<K, Q>(informer: &Informer<K>, queue: &WorkQueue<Q>, key: impl Fn(&Change<K>) -> Option<Q>)
where
    K: client::kube::Resource<DynamicType = ()>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
    Q: Hash + Eq + Clone,
{
    let mut changes = informer.subscribe();
    loop {
        if let Some(key) = key(&changes.next().await) {
            queue.add(key);
        }
    }
}

/// Works on one key after the other until it is dropped. A key whose work fails comes again later.
pub async fn work<Q, F>(name: &str, queue: &WorkQueue<Q>, reconcile: impl Fn(Q) -> F)
where
    Q: Hash + Eq + Clone + Display,
    F: Future<Output = Result<(), Error>>,
{
    loop {
        let claim = queue.next().await;
        let key = claim.key().clone();
        match reconcile(key.clone()).await {
            Ok(()) => {}
            // Somebody else changed the object: the change wakes us anyway, the retry is for when it already has.
            Err(error) if is_conflict(&error) => {
                debug!(controller = name, %key, "changed meanwhile");
                claim.retry();
            }
            Err(error) => {
                warn!(controller = name, %key, %error, "will be tried again");
                claim.retry();
            }
        }
    }
}

/// The kind, as clients of objects of any kind name it.
pub fn api_resource(resource: &Resource) -> ApiResource {
    let kind = GroupVersionKind::gvk(resource.group, resource.version, resource.kind);
    ApiResource::from_gvk_with_plural(&kind, resource.plural)
}

/// The objects of a kind in a namespace, or of one that has none.
pub fn objects(client: &Client, resource: &Resource, namespace: Option<&str>) -> Api<DynamicObject> {
    let kind = api_resource(resource);
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &kind),
        None => Api::all_with(client.clone(), &kind),
    }
}

/// Whether the object had changed, or was made, since it was seen.
pub fn is_conflict(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.code == 409)
}

/// Whether the object is gone already.
pub fn is_gone(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.code == 404)
}

/// Whether nothing can be made any more, as the namespace is going.
pub fn namespace_is_ending(error: &Error) -> bool {
    let Error::Api(status) = error else { return false };
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    causes.any(|cause| cause.reason == "NamespaceTerminating")
}

/// What the server said, for users.
pub fn message(error: &Error) -> String {
    match error {
        Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Success when the object is gone already.
pub fn ignore_gone<T>(result: Result<T, Error>) -> Result<(), Error> {
    match result {
        Err(error) if !is_gone(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Deletes every object of a kind in a namespace.
pub async fn delete_collection(client: &Client, path: &str) -> Result<(), Error> {
    let request = http::Request::delete(path).body(Vec::new()).map_err(Error::HttpError)?;
    match client.request_text(request).await {
        Ok(_) => Ok(()),
        Err(error) => ignore_gone(Err::<(), _>(error)),
    }
}
