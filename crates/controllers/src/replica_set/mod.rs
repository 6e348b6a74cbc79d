//! ReplicaSets: so many pods of one template, made, adopted, let go of and deleted as it takes.
//!
//! [`reconcile`] decides; here it is carried out. Pods are made in batches that double, so that what fails for all fails
//! for few first.

mod expectations;
mod rank;
mod reconcile;

use std::sync::Arc;
use std::time::Instant;

use client::events::{self, EventType};
use client::kube::Error;
use client::kube::api::{Api, DeleteParams, PostParams, Preconditions};
use client::{Change, Client, Events, Informer, Informers, WorkQueue};
use futures::future::join_all;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;

use self::expectations::Expectations;
use self::reconcile::{Failure, Observed, reconcile, status};
use crate::controller;
use crate::owner;

/// How many sets are worked on at one time.
const WORKERS: usize = 5;

/// How often a name that happened to be taken is made up anew.
const NAME_ATTEMPTS: usize = 8;

struct Controller {
    client: Client,
    events: Events,
    sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
    expectations: Expectations,
    queue: WorkQueue<String>,
}

/// `namespace/name`
fn key(meta: &ObjectMeta) -> Option<String> {
    Some(format!("{}/{}", meta.namespace.as_deref()?, meta.name.as_deref()?))
}

/// The key of the set that controls a pod.
fn controlling_set(pod: &ObjectMeta) -> Option<String> {
    let owner = owner::controller_of(pod).filter(|owner| owner.kind == "ReplicaSet")?;
    Some(format!("{}/{}", pod.namespace.as_deref()?, owner.name))
}

/// Whether a change of a pod is one that a set looks at.
fn matters(new: &Pod, old: &Pod) -> bool {
    let meta = |pod: &Pod| {
        let meta = &pod.metadata;
        (
            meta.labels.clone(),
            meta.owner_references.clone(),
            meta.deletion_timestamp.clone(),
        )
    };
    let ready = |pod: &Pod| (api::pod::is_ready(pod), rank::ready_since(pod));
    api::pod::phase(new) != api::pod::phase(old) || ready(new) != ready(old) || meta(new) != meta(old)
}

/// Runs until it is dropped.
pub async fn run(informers: &Informers) {
    let controller = Controller {
        client: informers.client().clone(),
        events: Events::new(informers.client().clone(), "replicaset-controller", None),
        sets: informers.all(),
        pods: informers.all(),
        expectations: Expectations::default(),
        queue: WorkQueue::default(),
    };
    controller.sets.synced().await;
    controller.pods.synced().await;
    let feed_sets = controller::feed(&controller.sets, &controller.queue, |change| {
        let key = key(&change.object().metadata)?;
        if let Change::Deleted(_) = change {
            controller.expectations.forget(&key);
        }
        Some(key)
    });
    let workers = (0..WORKERS).map(|_| {
        controller::work("replica-set", &controller.queue, async |key: String| {
            controller.sync(&key).await
        })
    });
    tokio::join!(feed_sets, controller.feed_pods(), join_all(workers));
}

impl Controller {
    async fn feed_pods(&self) {
        let mut changes = self.pods.subscribe();
        loop {
            match changes.next().await {
                Change::Applied { object, previous } => {
                    let set = controlling_set(&object.metadata);
                    if let Some(set) = &set {
                        self.expectations.created(set, api::pod::name(&object));
                        if api::pod::is_deleting(&object) {
                            self.expectations.deleted(set, api::pod::uid(&object));
                        }
                    }
                    if previous.as_ref().is_some_and(|previous| !matters(&object, previous)) {
                        continue;
                    }
                    let before = previous.and_then(|previous| controlling_set(&previous.metadata));
                    if owner::controller_of(&object.metadata).is_none() {
                        self.wake_adopters(&object);
                    }
                    let before = before.filter(|before| Some(before) != set.as_ref());
                    before.into_iter().chain(set).for_each(|set| self.queue.add(set));
                }
                Change::Deleted(pod) => {
                    if let Some(set) = controlling_set(&pod.metadata) {
                        self.expectations.created(&set, api::pod::name(&pod));
                        self.expectations.deleted(&set, api::pod::uid(&pod));
                        self.queue.add(set);
                    }
                }
            }
        }
    }

    /// Has the sets look at a pod that nobody controls and that they select.
    fn wake_adopters(&self, pod: &Pod) {
        if api::pod::is_deleting(pod) {
            return;
        }
        let sets = self.sets.list();
        sets.iter()
            .filter(|set| set.metadata.namespace == pod.metadata.namespace)
            .filter(|set| {
                reconcile::selector(set).is_some_and(|selector| selector.matches(pod.metadata.labels.as_ref()))
            })
            .filter_map(|set| key(&set.metadata))
            .for_each(|key| self.queue.add(key));
    }

    async fn sync(&self, key: &str) -> Result<(), Error> {
        let Some((namespace, name)) = key.split_once('/') else {
            return Ok(());
        };
        let Some(set) = self.sets.get(Some(namespace), name) else {
            return Ok(());
        };
        let pending = self.expectations.pending(key, Instant::now());
        if let Some(left) = pending {
            self.queue.add_after(key.to_owned(), left);
        }
        let mut pods = self.pods.list();
        pods.retain(|pod| pod.metadata.namespace.as_deref() == Some(namespace));
        let changes = reconcile(&Observed {
            set: &set,
            pods: &pods,
            kin: &self.kin(&set),
            settled: pending.is_none(),
            now: Timestamp::now(),
        });
        owner::adopt(&self.client, &*set, &changes.adopt).await?;
        owner::release(&self.client, &*set, &changes.release).await?;
        let result = match changes.create {
            0 => self.delete(key, &set, &changes.delete).await,
            count => self.create(key, &set, count).await,
        };
        let failure = result.as_ref().err().map(|(reason, error)| Failure {
            reason,
            message: controller::message(error),
        });
        let (status, next) = status(&set, &changes, failure.as_ref(), Timestamp::now());
        if let Some(next) = next {
            self.queue.add_after(key.to_owned(), next);
        }
        if set.status.as_ref() != Some(&status) {
            let mut new = ReplicaSet::clone(&set);
            new.status = Some(status);
            let api = Api::<ReplicaSet>::namespaced(self.client.clone(), namespace);
            controller::ignore_gone(api.replace_status(name, &PostParams::default(), &new).await)?;
        }
        result.map_err(|(_, error)| error)
    }

    /// The sets with the same controller as this one, itself included.
    fn kin(&self, set: &Arc<ReplicaSet>) -> Vec<Arc<ReplicaSet>> {
        let Some(controller) = owner::controller_of(&set.metadata) else {
            return vec![set.clone()];
        };
        let mut kin = self.sets.list();
        kin.retain(|other| owner::controller_of(&other.metadata).is_some_and(|owner| owner.uid == controller.uid));
        kin
    }

    /// Makes pods, in batches of 1, 2, 4, …; stops after the first batch with a failure.
    async fn create(&self, key: &str, set: &ReplicaSet, count: usize) -> Result<(), (&'static str, Error)> {
        let about = events::reference(set);
        let pod = pod_of(set);
        let api = Api::<Pod>::namespaced(
            self.client.clone(),
            set.metadata.namespace.as_deref().unwrap_or_default(),
        );
        let (mut made, mut batch) = (0, 1);
        while made < count {
            let size = batch.min(count - made);
            let results = join_all((0..size).map(|_| self.create_one(key, &api, &pod, &about))).await;
            for result in results {
                result.map_err(|error| ("FailedCreate", error))?;
            }
            made += size;
            batch = size * 2;
        }
        Ok(())
    }

    async fn create_one(&self, key: &str, api: &Api<Pod>, pod: &Pod, about: &ObjectReference) -> Result<(), Error> {
        let prefix = pod.metadata.generate_name.as_deref().unwrap_or_default();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let name = api::meta::generate_name(prefix);
            let mut pod = pod.clone();
            pod.metadata.name = Some(name.clone());
            // The name is known before the pod is there, so that it can be expected.
            self.expectations.creating(key, &name);
            let Err(error) = api.create(&PostParams::default(), &pod).await else {
                let message = format!("Created pod: {name}");
                self.events
                    .record(about, EventType::Normal, "SuccessfulCreate", message);
                return Ok(());
            };
            self.expectations.created(key, &name);
            if controller::is_conflict(&error) && attempts < NAME_ATTEMPTS {
                continue;
            }
            // Nothing can be made in a namespace that is going, and the set goes with it.
            if controller::namespace_is_ending(&error) || controller::is_gone(&error) {
                return Ok(());
            }
            let message = format!("Error creating: {}", controller::message(&error));
            self.events.record(about, EventType::Warning, "FailedCreate", message);
            return Err(error);
        }
    }

    async fn delete(&self, key: &str, set: &ReplicaSet, pods: &[Arc<Pod>]) -> Result<(), (&'static str, Error)> {
        let about = events::reference(set);
        let api = Api::<Pod>::namespaced(
            self.client.clone(),
            set.metadata.namespace.as_deref().unwrap_or_default(),
        );
        // All of them are expected before the first goes.
        pods.iter()
            .for_each(|pod| self.expectations.deleting(key, api::pod::uid(pod)));
        let results = join_all(pods.iter().map(|pod| self.delete_one(key, &api, pod, &about))).await;
        for result in results {
            result.map_err(|error| ("FailedDelete", error))?;
        }
        Ok(())
    }

    async fn delete_one(&self, key: &str, api: &Api<Pod>, pod: &Pod, about: &ObjectReference) -> Result<(), Error> {
        let name = api::pod::name(pod);
        let this_one = DeleteParams {
            preconditions: Some(Preconditions {
                uid: pod.metadata.uid.clone(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let Err(error) = api.delete(name, &this_one).await else {
            let message = format!("Deleted pod: {name}");
            self.events
                .record(about, EventType::Normal, "SuccessfulDelete", message);
            return Ok(());
        };
        self.expectations.deleted(key, api::pod::uid(pod));
        if controller::is_gone(&error) {
            return Ok(());
        }
        let message = format!("Error deleting: {}", controller::message(&error));
        self.events.record(about, EventType::Warning, "FailedDelete", message);
        Err(error)
    }
}

/// A pod of the set's template, named by nobody yet.
fn pod_of(set: &ReplicaSet) -> Pod {
    let template = set
        .spec
        .as_ref()
        .and_then(|spec| spec.template.clone())
        .unwrap_or_default();
    let meta = template.metadata.unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: set.metadata.name.as_ref().map(|name| format!("{name}-")),
            namespace: set.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner::reference(set)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}
