//! The registry: objects in the store, one verb a file.
//!
//! An object's key is `/registry/<storage>/<namespace>/<name>`, without the namespace for a kind that has none.
//! What is kept under it is the object's JSON with a hole for its resourceVersion, which is the store's revision.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod facets;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod modify;
pub(crate) mod page;
pub(crate) mod patch;
pub(crate) mod selection;
pub(crate) mod update;
pub(crate) mod watch;

use std::sync::Arc;

use api::{Object, Resource, Status, status};
use bytes::Bytes;
use store::{Entry, Value};

use crate::call::Call;

/// The key of an object.
pub(crate) fn key(resource: &Resource, namespace: Option<&str>, name: &str) -> String {
    match namespace.filter(|_| resource.namespaced) {
        Some(namespace) => format!("/registry/{}/{namespace}/{name}", resource.storage),
        None => format!("/registry/{}/{name}", resource.storage),
    }
}

/// What all keys of a kind, or of its objects in one namespace, begin with.
pub(crate) fn prefix(resource: &Resource, namespace: Option<&str>) -> String {
    match namespace.filter(|_| resource.namespaced) {
        Some(namespace) => format!("/registry/{}/{namespace}/", resource.storage),
        None => format!("/registry/{}/", resource.storage),
    }
}

/// The object that a call names, as it is stored.
pub(crate) async fn current(call: &Call<'_>) -> Result<Arc<Entry>, Status> {
    let name = call.name()?;
    let key = key(call.resource, call.namespace, name);
    match call.server.store.get(&key).await.map_err(store_error)? {
        Some(entry) => Ok(entry),
        None => Err(status::not_found(call.resource.group, call.resource.plural, name)),
    }
}

/// An object of any resource, when it is there.
pub(crate) async fn lookup(
    store: &dyn store::Store,
    resource: &Resource,
    namespace: Option<&str>,
    name: &str,
) -> Result<Option<Box<dyn Object>>, Status> {
    match store.get(&key(resource, namespace, name)).await.map_err(store_error)? {
        Some(entry) => resource.strategy.load(&entry.value).map(Some),
        None => Ok(None),
    }
}

/// The object's bytes for the store.
pub(crate) fn encode(object: &mut dyn Object) -> Result<Value, Status> {
    let encoded = object.encode().map_err(status::internal)?;
    Ok(Value::stamped(encoded.bytes, encoded.stamp))
}

/// The bytes of an object that is not stored: the answer to a dry run.
pub(crate) fn unstored(object: &dyn Object) -> Result<Bytes, Status> {
    let value = object.to_value().map_err(status::internal)?;
    serde_json::to_vec(&value).map(Bytes::from).map_err(status::internal)
}

/// What a client is told when the store fails: conflicts are each verb's own matter and do not come here.
pub(crate) fn store_error(error: store::Error) -> Status {
    match error {
        store::Error::Compacted { requested, oldest } => status::too_old(requested, oldest),
        store::Error::Future { requested, newest } => status::too_large_resource_version(requested, newest, 1),
        store::Error::Closed => status::service_unavailable("the server is shutting down"),
        other => {
            tracing::error!(error = %other, "store");
            status::internal(other)
        }
    }
}
