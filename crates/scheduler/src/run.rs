//! The edge: changes come in, bindings, conditions and events go out.
//!
//! One task owns the snapshot and the queue, so a decision sees everything that came before it. Requests to the
//! API run beside it; what comes of a binding is one more thing that comes in.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use api::{meta, pod};
use client::{Change, EventType, Events, Informer, Informers, events};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Binding, Namespace, Node, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod, PodCondition,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::decide::{Placement, Refusal, decide};
use crate::queue::{Attempt, Event, Queue};
use crate::snapshot::Snapshot;
use crate::volumes;

/// How long a condition's message may be before an event cuts it.
const LONGEST_MESSAGE: usize = 1024;

/// What the scheduler is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The `schedulerName` of the pods that are its own, and the name it reports events under.
    pub scheduler_name: String,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            scheduler_name: "default-scheduler".to_owned(),
        }
    }
}

/// Schedules pods until `shutdown` is ready. Bindings under way are given up then; whoever starts next finds
/// out from the API what came of them.
pub async fn run(informers: Informers, config: Config, shutdown: impl Future<Output = ()>) {
    tokio::select! {
        () = schedule(informers, config) => {}
        () = shutdown => {}
    }
}

/// What came of a binding.
struct Bound {
    attempt: Attempt,
    node: String,
    result: Result<(), kube::Error>,
}

async fn schedule(informers: Informers, config: Config) {
    let (nodes, pods, namespaces) = (
        informers.all::<Node>(),
        informers.all::<Pod>(),
        informers.all::<Namespace>(),
    );
    let (volumes, claims, classes) = (
        informers.all::<PersistentVolume>(),
        informers.all::<PersistentVolumeClaim>(),
        informers.all::<StorageClass>(),
    );
    // Without the whole picture, full nodes look empty and a cluster looks as if it had no nodes.
    tokio::join!(nodes.synced(), pods.synced(), namespaces.synced());
    tokio::join!(volumes.synced(), claims.synced(), classes.synced());
    let (mut volume_changes, mut claim_changes, mut class_changes) =
        (volumes.subscribe(), claims.subscribe(), classes.subscribe());
    let (mut node_changes, mut pod_changes, mut namespace_changes) =
        (nodes.subscribe(), pods.subscribe(), namespaces.subscribe());
    let mut scheduler = Scheduler {
        events: Events::new(informers.client().clone(), &config.scheduler_name, None),
        client: informers.client().clone(),
        name: config.scheduler_name,
        pods,
        claims,
        snapshot: Snapshot::default(),
        queue: Queue::default(),
        bindings: JoinSet::new(),
        turn: 0,
    };
    loop {
        while let Some(change) = namespace_changes.try_next() {
            scheduler.namespace(&change);
        }
        while let Some(change) = node_changes.try_next() {
            scheduler.node(change);
        }
        while let Some(change) = volume_changes.try_next() {
            scheduler.volume(&change);
        }
        while let Some(change) = claim_changes.try_next() {
            scheduler.claim(&change);
        }
        while let Some(change) = class_changes.try_next() {
            scheduler.class(&change);
        }
        while let Some(change) = pod_changes.try_next() {
            scheduler.pod(change);
        }
        scheduler.work();
        let wake = scheduler.queue.next_wake();
        tokio::select! {
            change = pod_changes.next() => scheduler.pod(change),
            change = node_changes.next() => scheduler.node(change),
            change = namespace_changes.next() => scheduler.namespace(&change),
            change = volume_changes.next() => scheduler.volume(&change),
            change = claim_changes.next() => scheduler.claim(&change),
            change = class_changes.next() => scheduler.class(&change),
            Some(bound) = scheduler.bindings.join_next() => match bound {
                Ok(bound) => scheduler.bound(bound),
                Err(error) => warn!(%error, "a binding broke off"),
            },
            () = at(wake) => {}
        }
    }
}

/// Waits until the time has come; for ever when there is none.
async fn at(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake.into()).await,
        None => std::future::pending().await,
    }
}

struct Scheduler {
    client: kube::Client,
    events: Events,
    name: String,
    pods: Informer<Pod>,
    claims: Informer<PersistentVolumeClaim>,
    snapshot: Snapshot,
    queue: Queue,
    bindings: JoinSet<Bound>,
    turn: usize,
}

impl Scheduler {
    fn namespace(&mut self, change: &Change<Namespace>) {
        match change {
            Change::Applied { object, .. } => self.snapshot.set_namespace(object),
            Change::Deleted(object) => {
                self.snapshot
                    .remove_namespace(object.metadata.name.as_deref().unwrap_or_default());
            }
        }
    }

    fn node(&mut self, change: Change<Node>) {
        match change {
            Change::Applied { object, previous } => {
                let helps = previous.is_none_or(|previous| !offers_the_same(&previous, &object));
                self.snapshot.set_node(object);
                if helps {
                    self.queue.on(Event::Node, Instant::now());
                }
            }
            Change::Deleted(node) => self
                .snapshot
                .remove_node(node.metadata.name.as_deref().unwrap_or_default()),
        }
    }

    fn volume(&mut self, change: &Change<PersistentVolume>) {
        let there = matches!(change, Change::Applied { .. });
        self.snapshot.storage.set_volume(change.object(), there);
        self.queue.on(Event::Storage, Instant::now());
    }

    fn claim(&mut self, change: &Change<PersistentVolumeClaim>) {
        let there = matches!(change, Change::Applied { .. });
        self.snapshot.storage.set_claim(change.object(), there);
        self.queue.on(Event::Storage, Instant::now());
    }

    fn class(&mut self, change: &Change<StorageClass>) {
        let there = matches!(change, Change::Applied { .. });
        self.snapshot.storage.set_class(change.object(), there);
        self.queue.on(Event::Storage, Instant::now());
    }

    fn pod(&mut self, change: Change<Pod>) {
        let now = Instant::now();
        let (pod, gone) = match change {
            Change::Applied { object, .. } => (object, false),
            Change::Deleted(object) => (object, true),
        };
        let uid = pod::uid(&pod).to_owned();
        if gone || pod::is_terminal(&pod) {
            self.queue.remove(&uid);
            if self.snapshot.has_pod(&uid) {
                self.snapshot.forget(&uid);
                self.queue.on(Event::PodGone, now);
            }
        } else if let Some(node) = pod::node_name(&pod).map(str::to_owned) {
            self.queue.remove(&uid);
            let shrunk = self.snapshot.place(pod, &node);
            self.queue
                .on(if shrunk { Event::PodGone } else { Event::PodPlaced }, now);
        } else if pod::is_deleting(&pod) {
            self.queue.remove(&uid);
        } else if self.is_mine(&pod) && !self.snapshot.has_pod(&uid) {
            self.queue.set(pod, now);
        }
    }

    fn is_mine(&self, pod: &Pod) -> bool {
        let name = pod.spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref());
        name.unwrap_or("default-scheduler") == self.name
    }

    /// Tries every pod whose turn it is.
    fn work(&mut self) {
        while let Some(attempt) = self.queue.pop(Instant::now()) {
            self.turn = self.turn.wrapping_add(1);
            match decide(&attempt.pod, &self.snapshot, self.turn) {
                Ok(placement) => {
                    // The pod counts at once, so that the next decision knows of it.
                    self.snapshot.place(attempt.pod.clone(), &placement.node);
                    self.queue.on(Event::PodPlaced, Instant::now());
                    let claims = self.claims.clone();
                    self.bindings
                        .spawn(bind(self.client.clone(), claims, attempt, placement));
                }
                Err(Refusal { message, filters }) => {
                    debug!(pod = pod::full_name(&attempt.pod), message, "no node");
                    self.report(&attempt.pod, "Unschedulable", &message);
                    self.queue.refused(attempt, filters, Instant::now());
                }
            }
        }
    }

    fn bound(&mut self, bound: Bound) {
        let Bound { attempt, node, result } = bound;
        let pod = &attempt.pod;
        let (namespace, name) = (pod::namespace(pod), pod::name(pod));
        let Err(error) = result else {
            let message = format!("Successfully assigned {namespace}/{name} to {node}");
            self.events
                .record(&events::reference(&**pod), EventType::Normal, "Scheduled", message);
            return;
        };
        let latest = self
            .pods
            .get(Some(namespace), name)
            .filter(|latest| pod::uid(latest) == pod::uid(pod));
        if latest.as_ref().is_some_and(|latest| pod::node_name(latest).is_some()) {
            // Bound after all: the answer was lost, or somebody else was quicker. The change brings the node.
            return;
        }
        self.snapshot.forget(pod::uid(pod));
        self.queue.on(Event::PodGone, Instant::now());
        let Some(latest) = latest.filter(|latest| !pod::is_deleting(latest)) else {
            // Deleted meanwhile: there is nobody left to tell.
            return;
        };
        warn!(%error, namespace, name, node, "a pod could not be bound");
        let why = match &error {
            kube::Error::Api(status) => status.message.clone(),
            other => other.to_string(),
        };
        let message = format!("binding rejected: running Bind plugin \"DefaultBinder\": {why}");
        self.report(pod, "SchedulerError", &message);
        self.queue.retry(Attempt { pod: latest, ..attempt }, Instant::now());
    }

    /// Says on the pod, and in an event, that it has no node and why.
    fn report(&self, pod: &Arc<Pod>, reason: &str, message: &str) {
        self.events.record(
            &events::reference(&**pod),
            EventType::Warning,
            "FailedScheduling",
            shortened(message),
        );
        let Some(patch) = condition_patch(pod, reason, message, Timestamp::now()) else {
            return;
        };
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), pod::namespace(pod));
        let name = pod::name(pod).to_owned();
        tokio::spawn(async move {
            if let Err(error) = pods
                .patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch))
                .await
            {
                debug!(%error, pod = name, "writing the PodScheduled condition");
            }
        });
    }
}

async fn bind(
    client: kube::Client,
    claims: Informer<PersistentVolumeClaim>,
    attempt: Attempt,
    placement: Placement,
) -> Bound {
    let node = placement.node;
    let result = match volumes::bind(&client, &claims, &attempt.pod, &placement.volumes).await {
        Ok(()) => bind_pod(client, &attempt.pod, &node).await,
        Err(error) => Err(error),
    };
    Bound { result, attempt, node }
}

async fn bind_pod(client: kube::Client, pod: &Pod, node: &str) -> Result<(), kube::Error> {
    let binding = Binding {
        metadata: ObjectMeta {
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            uid: pod.metadata.uid.clone(),
            ..Default::default()
        },
        target: ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            ..Default::default()
        },
    };
    let pods: Api<Pod> = Api::namespaced(client, pod::namespace(pod));
    let answer = pods
        .create_subresource::<_, Value>("binding", pod::name(pod), &PostParams::default(), &binding)
        .await;
    answer.map(drop)
}

/// Whether two states of a node are the same in all that decides where pods go. Heartbeats and the images that
/// come and go are no news.
fn offers_the_same(a: &Node, b: &Node) -> bool {
    let spec = |node: &Node| node.spec.as_ref().map(|spec| (spec.taints.clone(), spec.unschedulable));
    let allocatable = |node: &Node| node.status.as_ref().and_then(|status| status.allocatable.clone());
    let conditions = |node: &Node| -> Vec<(String, String)> {
        let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions
            .map(|condition| (condition.type_.clone(), condition.status.clone()))
            .collect()
    };
    a.metadata.labels == b.metadata.labels
        && spec(a) == spec(b)
        && allocatable(a) == allocatable(b)
        && conditions(a) == conditions(b)
}

/// The patch that gives the pod the condition; none when it has it already.
fn condition_patch(pod: &Pod, reason: &str, message: &str, now: Timestamp) -> Option<Value> {
    let old = pod::condition(pod, "PodScheduled");
    let was_false = old.filter(|old| old.status == "False");
    if was_false.is_some_and(|old| old.reason.as_deref() == Some(reason) && old.message.as_deref() == Some(message)) {
        return None;
    }
    let condition = PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        observed_generation: pod.metadata.generation,
        last_transition_time: was_false
            .and_then(|old| old.last_transition_time.clone())
            .or(Some(meta::time(now))),
        ..Default::default()
    };
    Some(json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}}))
}

fn shortened(message: &str) -> String {
    const END: &str = " ...";
    if message.len() <= LONGEST_MESSAGE {
        return message.to_owned();
    }
    let mut end = LONGEST_MESSAGE - END.len();
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{END}", &message[..end])
}

#[cfg(test)]
mod tests;
