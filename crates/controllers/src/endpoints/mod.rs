//! Which pods are behind which Service: the objects Endpoints and EndpointSlice.
//!
//! Three controllers look at one [`Index`]: `slices` writes the EndpointSlices of Services with a selector, `v1` their
//! Endpoints, and `mirror` the slices of Endpoints that somebody wrote by hand for a Service without one. Each decides
//! as a function of values; what is written goes into the index at once, so that a decision that follows before the
//! watch has brought it does not write it again.

mod index;
mod mirror;
mod pods;
mod slices;
#[cfg(test)]
mod testing;
mod v1;

use std::sync::Arc;

use client::events::{self, EventType};
use client::kube::Error;
use client::kube::api::{Api, DeleteParams, PostParams, Preconditions};
use client::{Client, Events, Informers, WorkQueue};
use k8s_openapi::api::core::v1::{Endpoints, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;

use crate::controller;
use index::{Index, Observed};

/// Which Service a slice belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Which controller a slice belongs to.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// Marks what belongs to a headless Service.
const HEADLESS: &str = "service.kubernetes.io/headless";

/// Marks Endpoints that are no endpoints but somebody's lock.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

/// Says when the change happened that the write followed.
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// A Service or Endpoints by `namespace/name`.
type Key = String;

/// What is done to the slices of one Service.
#[derive(Debug, PartialEq)]
enum Change {
    Create(EndpointSlice),
    Update(EndpointSlice),
    Delete(Arc<EndpointSlice>),
}

/// Runs until it is dropped.
pub async fn run(informers: &Informers) {
    let services = informers.all::<Service>();
    let pods = informers.all::<Pod>();
    let slices = informers.all::<EndpointSlice>();
    let endpoints = informers.all::<Endpoints>();
    let nodes = informers.all::<Node>();
    tokio::join!(
        services.synced(),
        pods.synced(),
        slices.synced(),
        endpoints.synced(),
        nodes.synced()
    );
    let index = Mutex::new(Index::default());
    let (for_slices, for_v1, for_mirror) = (
        WorkQueue::<Key>::default(),
        WorkQueue::<Key>::default(),
        WorkQueue::<Key>::default(),
    );
    let both = |keys: Vec<Key>| {
        for key in keys {
            for_slices.add(key.clone());
            for_v1.add(key);
        }
    };
    let feed_services = async {
        let mut changes = services.subscribe();
        loop {
            let change = changes.next().await;
            let key = key_of(&change.object().metadata);
            index.lock().service(&key, &change);
            for_mirror.add(key.clone());
            both(vec![key]);
        }
    };
    let feed_pods = async {
        let mut changes = pods.subscribe();
        loop {
            let change = changes.next().await;
            let touched = index.lock().pod(&change);
            both(touched);
        }
    };
    let feed_slices = async {
        let mut changes = slices.subscribe();
        loop {
            let change = changes.next().await;
            if let Some(key) = index.lock().slice(&change) {
                for_mirror.add(key.clone());
                for_slices.add(key);
            }
        }
    };
    // Endpoints may be written before their Service is, so that what comes without one is nobody's business; but one may
    // have gone before this process came.
    let left_over = endpoints.list();
    let left_over = left_over.iter().filter(|endpoints| v1::may_be_left_over(endpoints));
    left_over.for_each(|endpoints| for_v1.add(key_of(&endpoints.metadata)));
    let feed_endpoints = controller::feed(&endpoints, &for_v1, |change| {
        let key = key_of(&change.object().metadata);
        index.lock().has_service(&key).then_some(key)
    });
    let feed_hand_written = controller::feed(&endpoints, &for_mirror, |change| {
        Some(key_of(&change.object().metadata))
    });
    let feed_nodes = async {
        let mut changes = nodes.subscribe();
        loop {
            let change = changes.next().await;
            if index.lock().node(&change) {
                let all = index.lock().services();
                all.into_iter().for_each(|key| for_slices.add(key));
            }
        }
    };
    let client = informers.client();
    let told_of_slices = Events::new(client.clone(), "endpoint-slice-controller", None);
    let work_slices = || {
        controller::work("endpointslice", &for_slices, async |key: Key| {
            let changes = index.lock().observe(&key, slices::reconcile);
            let applied = apply(client, &index, &key, changes).await;
            if let Some(error) = applied.as_ref().err().filter(|error| is_told(error)) {
                let (namespace, name) = split(&key);
                if let Some(service) = services.get(Some(namespace), name) {
                    let why = controller::message(error);
                    let message = format!("Error updating Endpoint Slices for Service {key}: {why}");
                    let about = events::reference(&*service);
                    told_of_slices.record(&about, EventType::Warning, "FailedToUpdateEndpointSlices", message);
                }
            }
            applied
        })
    };
    let told_of_v1 = Events::new(client.clone(), "endpoint-controller", None);
    let work_v1 = || {
        controller::work("endpoints", &for_v1, async |key: Key| {
            let (namespace, name) = split(&key);
            let known = endpoints.get(Some(namespace), name);
            let decide = |observed: Observed<'_>| v1::reconcile(observed, known.as_deref());
            let change = index.lock().observe(&key, decide);
            apply_v1(client, &told_of_v1, namespace, change).await
        })
    };
    let work_mirror = controller::work("endpointslice-mirroring", &for_mirror, async |key: Key| {
        let (namespace, name) = split(&key);
        let written = endpoints.get(Some(namespace), name);
        let decide = |observed: Observed<'_>| mirror::reconcile(observed, written.as_deref());
        let changes = index.lock().observe(&key, decide);
        apply(client, &index, &key, changes).await
    });
    let feeds = async {
        tokio::join!(
            feed_services,
            feed_pods,
            feed_slices,
            feed_endpoints,
            feed_hand_written,
            feed_nodes
        )
    };
    // Several workers, each on another Service: they wait for the store's disk most of the time.
    let workers = async {
        tokio::join!(
            work_slices(),
            work_slices(),
            work_slices(),
            work_slices(),
            work_v1(),
            work_v1(),
            work_mirror
        )
    };
    tokio::join!(feeds, workers);
}

async fn apply(client: &Client, index: &Mutex<Index>, key: &str, changes: Vec<Change>) -> Result<(), Error> {
    let (namespace, _) = split(key);
    let api = Api::<EndpointSlice>::namespaced(client.clone(), namespace);
    for change in changes {
        match change {
            Change::Create(slice) => match api.create(&PostParams::default(), &slice).await {
                Ok(written) => index.lock().written(written),
                Err(error) if is_useless(&error) => {}
                Err(error) => return Err(error),
            },
            Change::Update(slice) => {
                let name = slice.metadata.name.clone().unwrap_or_default();
                let written = api.replace(&name, &PostParams::default(), &slice).await?;
                index.lock().written(written);
            }
            Change::Delete(slice) => {
                let name = slice.metadata.name.as_deref().unwrap_or_default();
                controller::ignore_gone(api.delete(name, &exactly(&slice.metadata)).await)?;
                index.lock().removed(&slice);
            }
        }
    }
    Ok(())
}

async fn apply_v1(client: &Client, events: &Events, namespace: &str, change: Option<v1::Change>) -> Result<(), Error> {
    let api = Api::<Endpoints>::namespaced(client.clone(), namespace);
    let tell = |about: &Endpoints, reason: &str, what: &str, error: Error| {
        if is_told(&error) {
            let message = format!("{what} {}: {}", key_of(&about.metadata), controller::message(&error));
            events.record(&events::reference(about), EventType::Warning, reason, message);
        }
        error
    };
    match change {
        None => Ok(()),
        Some(v1::Change::Create(endpoints)) => match api.create(&PostParams::default(), &endpoints).await {
            Err(error) if is_useless(&error) => Ok(()),
            Err(error) => {
                let what = "Failed to create endpoint for service";
                Err(tell(&endpoints, "FailedToCreateEndpoint", what, error))
            }
            Ok(_) => Ok(()),
        },
        Some(v1::Change::Update(endpoints)) => {
            let name = endpoints.metadata.name.clone().unwrap_or_default();
            let written = api.replace(&name, &PostParams::default(), &endpoints).await;
            let told = |error| tell(&endpoints, "FailedToUpdateEndpoint", "Failed to update endpoint", error);
            written.map(drop).map_err(told)
        }
        Some(v1::Change::Delete(meta)) => {
            let name = meta.name.as_deref().unwrap_or_default();
            // What somebody wrote does not come back, so the API itself is to say that the Service is gone: a Service may
            // be newer than what is known here.
            let services = Api::<Service>::namespaced(client.clone(), namespace);
            if services.get_metadata_opt(name).await?.is_some() {
                return Ok(());
            }
            match api.delete(name, &exactly(&meta)).await {
                Err(error) if controller::is_conflict(&error) => Ok(()),
                deleted => controller::ignore_gone(deleted),
            }
        }
    }
}

/// Deletes that object, and none that has come in its place.
fn exactly(meta: &ObjectMeta) -> DeleteParams {
    DeleteParams {
        preconditions: Some(Preconditions {
            uid: meta.uid.clone(),
            resource_version: None,
        }),
        ..Default::default()
    }
}

/// Whether nothing can be made, as the namespace is ending or gone.
fn is_useless(error: &Error) -> bool {
    controller::namespace_is_ending(error) || controller::is_gone(error)
}

/// Whether users are told of an error. That somebody else was faster is mended by the next attempt.
fn is_told(error: &Error) -> bool {
    !controller::is_conflict(error)
}

fn key_of(meta: &ObjectMeta) -> Key {
    format!(
        "{}/{}",
        meta.namespace.as_deref().unwrap_or_default(),
        meta.name.as_deref().unwrap_or_default()
    )
}

fn split(key: &str) -> (&str, &str) {
    key.split_once('/').unwrap_or(("", key))
}
