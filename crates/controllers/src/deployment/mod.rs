//! Deployments: ReplicaSets in succession, one for each template, the next growing as the ones before shrink.
//!
//! [`reconcile`] decides; here it is carried out: sets made, written and deleted, the status written, events told.

mod hash;
mod proportion;
mod reconcile;
mod sets;
mod status;

use std::sync::Arc;

use api::selector::LabelSelector;
use client::events::{self, EventType};
use client::kube::Error;
use client::kube::api::{Api, DeleteParams, PostParams};
use client::{Change, Client, Events, Informer, Informers, WorkQueue};
use futures::future::join_all;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;

use self::reconcile::{Changes, Observed, Update, reconcile};
use crate::controller;
use crate::owner::{self, Claim};

/// How many Deployments are worked on at one time.
const WORKERS: usize = 5;

struct Controller {
    client: Client,
    events: Events,
    deployments: Informer<Deployment>,
    sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
    queue: WorkQueue<String>,
}

/// `namespace/name`
fn key(meta: &ObjectMeta) -> Option<String> {
    Some(format!("{}/{}", meta.namespace.as_deref()?, meta.name.as_deref()?))
}

/// The key of the Deployment that controls a set.
fn controlling_deployment(set: &ObjectMeta) -> Option<String> {
    let owner = owner::controller_of(set).filter(|owner| owner.kind == "Deployment")?;
    Some(format!("{}/{}", set.namespace.as_deref()?, owner.name))
}

fn selector(deployment: &Deployment) -> Option<LabelSelector> {
    LabelSelector::from_object(deployment.spec.as_ref().map(|spec| &spec.selector)).ok()
}

/// Runs until it is dropped.
pub async fn run(informers: &Informers) {
    let controller = Controller {
        client: informers.client().clone(),
        events: Events::new(informers.client().clone(), "deployment-controller", None),
        deployments: informers.all(),
        sets: informers.all(),
        pods: informers.all(),
        queue: WorkQueue::default(),
    };
    controller.deployments.synced().await;
    controller.sets.synced().await;
    controller.pods.synced().await;
    let feed_deployments = controller::feed(&controller.deployments, &controller.queue, |change| {
        key(&change.object().metadata)
    });
    // The last pod of an old set is what a recreation waits for.
    let feed_pods = controller::feed(&controller.pods, &controller.queue, |change| match change {
        Change::Deleted(pod) => controller.recreating(pod),
        Change::Applied { .. } => None,
    });
    let workers = (0..WORKERS).map(|_| {
        controller::work("deployment", &controller.queue, async |key: String| {
            controller.sync(&key).await
        })
    });
    tokio::join!(feed_deployments, feed_pods, controller.feed_sets(), join_all(workers));
}

impl Controller {
    async fn feed_sets(&self) {
        let mut changes = self.sets.subscribe();
        loop {
            let change = changes.next().await;
            let set = change.object();
            let now = controlling_deployment(&set.metadata);
            if now.is_none() && matches!(change, Change::Applied { .. }) {
                self.wake_adopters(set);
            }
            let before = match &change {
                Change::Applied { previous, .. } => previous.as_ref(),
                Change::Deleted(_) => None,
            };
            let before = before.and_then(|before| controlling_deployment(&before.metadata));
            let before = before.filter(|before| Some(before) != now.as_ref());
            before.into_iter().chain(now).for_each(|key| self.queue.add(key));
        }
    }

    /// Has the Deployments look at a set that nobody controls and that they select.
    fn wake_adopters(&self, set: &ReplicaSet) {
        if owner::controller_of(&set.metadata).is_some() {
            return;
        }
        let deployments = self.deployments.list();
        deployments
            .iter()
            .filter(|deployment| deployment.metadata.namespace == set.metadata.namespace)
            .filter(|deployment| selector(deployment).is_some_and(|all| all.matches(set.metadata.labels.as_ref())))
            .filter_map(|deployment| key(&deployment.metadata))
            .for_each(|key| self.queue.add(key));
    }

    /// The Deployment that a pod's set belongs to, when it recreates.
    fn recreating(&self, pod: &Pod) -> Option<String> {
        let namespace = pod.metadata.namespace.as_deref();
        let owner = owner::controller_of(&pod.metadata)?;
        let set = self.sets.get(namespace, &owner.name)?;
        let name = &owner::controller_of(&set.metadata)?.name;
        let deployment = self.deployments.get(namespace, name)?;
        (!sets::is_rolling(&deployment)).then(|| key(&deployment.metadata))?
    }

    async fn sync(&self, key: &str) -> Result<(), Error> {
        let Some((namespace, name)) = key.split_once('/') else {
            return Ok(());
        };
        let Some(deployment) = self.deployments.get(Some(namespace), name) else {
            return Ok(());
        };
        let sets = self.claim(&deployment).await?;
        let changes = reconcile(&Observed {
            deployment: &deployment,
            sets: &sets,
            with_pods: &self.with_pods(&deployment, &sets),
            now: Timestamp::now(),
        });
        if let Some(again) = changes.again {
            self.queue.add_after(key.to_owned(), again);
        }
        self.carry_out(&deployment, changes).await
    }

    /// The sets that the Deployment controls, those included that it now becomes the controller of.
    async fn claim(&self, deployment: &Deployment) -> Result<Vec<Arc<ReplicaSet>>, Error> {
        let Some(selector) = selector(deployment) else {
            return Ok(Vec::new());
        };
        let (mut own, mut adopt, mut release) = (Vec::new(), Vec::new(), Vec::new());
        for set in self.sets.list() {
            if set.metadata.namespace != deployment.metadata.namespace {
                continue;
            }
            match owner::claim(&deployment.metadata, &selector, &set.metadata) {
                Claim::Own => own.push(set),
                Claim::Adopt => adopt.push(set),
                Claim::Release => release.push(set),
                Claim::Leave => {}
            }
        }
        owner::adopt(&self.client, deployment, &adopt).await?;
        owner::release(&self.client, deployment, &release).await?;
        // What was adopted just now comes again with its new owner.
        Ok(own)
    }

    /// The uids of the sets with pods that have not ended; only a recreation asks.
    fn with_pods(&self, deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> Vec<String> {
        if sets::is_rolling(deployment) {
            return Vec::new();
        }
        let pods = self.pods.list();
        let owners = pods
            .iter()
            .filter(|pod| pod.metadata.namespace == deployment.metadata.namespace && !api::pod::is_terminal(pod))
            .filter_map(|pod| Some(&owner::controller_of(&pod.metadata)?.uid));
        owners
            .filter(|uid| sets.iter().any(|set| set.metadata.uid.as_ref() == Some(uid)))
            .cloned()
            .collect()
    }

    async fn carry_out(&self, deployment: &Deployment, changes: Changes) -> Result<(), Error> {
        let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
        let about = events::reference(deployment);
        let sets = Api::<ReplicaSet>::namespaced(self.client.clone(), namespace);
        let told = |events: Vec<String>| {
            for event in events {
                self.events
                    .record(&about, EventType::Normal, "ScalingReplicaSet", event);
            }
        };
        if let Some(Update { set, events }) = changes.create {
            match sets.create(&PostParams::default(), &set).await {
                Ok(_) => told(events),
                Err(error) => return self.not_created(deployment, &set, &about, error).await,
            }
        }
        for Update { set, events } in changes.update {
            let name = set.metadata.name.as_deref().unwrap_or_default();
            sets.replace(name, &PostParams::default(), &set).await?;
            told(events);
        }
        for name in changes.delete {
            controller::ignore_gone(sets.delete(&name, &DeleteParams::default()).await)?;
        }
        match changes.status {
            Some(new) => self.write_status(&new).await,
            None => Ok(()),
        }
    }

    async fn write_status(&self, deployment: &Deployment) -> Result<(), Error> {
        let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
        let name = deployment.metadata.name.as_deref().unwrap_or_default();
        let api = Api::<Deployment>::namespaced(self.client.clone(), namespace);
        controller::ignore_gone(api.replace_status(name, &PostParams::default(), deployment).await)
    }

    /// The set could not be made: it may be there and not be seen yet, its name may be another's, or it is refused.
    async fn not_created(
        &self,
        deployment: &Deployment,
        set: &ReplicaSet,
        about: &ObjectReference,
        error: Error,
    ) -> Result<(), Error> {
        let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
        let name = set.metadata.name.as_deref().unwrap_or_default();
        if controller::namespace_is_ending(&error) || controller::is_gone(&error) {
            return Ok(());
        }
        let mut new = deployment.clone();
        if controller::is_conflict(&error) {
            let sets = Api::<ReplicaSet>::namespaced(self.client.clone(), namespace);
            let there = sets.get(name).await?;
            let is_ours =
                owner::controller_of(&there.metadata).map(|owner| &owner.uid) == deployment.metadata.uid.as_ref();
            if is_ours && sets::is_of_template(deployment, &there) {
                // The event of its creation is under way.
                return Ok(());
            }
            let collisions = new.status.get_or_insert_default().collision_count.get_or_insert(0);
            *collisions = collisions.saturating_add(1);
            return self.write_status(&new).await;
        }
        let message = format!(
            "Failed to create new replica set \"{name}\": {}",
            controller::message(&error)
        );
        self.events
            .record(about, EventType::Warning, "ReplicaSetCreateError", &*message);
        status::set_failed(&mut new, &message, Timestamp::now());
        if new != *deployment {
            self.write_status(&new).await?;
        }
        Err(error)
    }
}
