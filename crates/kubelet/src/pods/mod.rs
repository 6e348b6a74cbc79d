//! The pods of this node: one worker each, woken only by what concerns its pod.
//!
//! ```text
//! API (watch on spec.nodeName) ─┐
//! runtime (container events)   ─┼─> mailbox of one pod ─> worker: observe → plan → status → act ─┐
//! pulls, stops, timers         ─┘         ^───────────────────────────────────────────────────────┘
//! ```
//!
//! [`plan`] and [`status`] decide without I/O. After a restart the picture is rebuilt from the API, the runtime's labels and annotations, and
//! the one thing that neither of them knows, which is kept with the pod: what it was granted ([`allocation`]). What the API no longer knows is
//! ended.

mod act;
pub mod admission;
pub mod allocation;
pub mod backoff;
mod conditions;
mod context;
mod enter;
#[cfg(test)]
mod fixtures;
mod hooks;
mod keep;
pub mod ledger;
mod mailbox;
pub mod memory;
pub mod node_state;
pub mod observed;
pub mod plan;
pub mod pod;
mod preempt;
pub mod resize;
mod start;
pub mod status;
mod termination;
mod unserved;
pub mod users;
mod worker;
mod writer;

use std::collections::{HashMap, HashSet};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use client::EventType::Warning;
use client::{Change, Informer};
use cri::v1::{ContainerEventResponse, GetEventsRequest, ListPodSandboxRequest};
use futures::StreamExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tracing::{error, info, warn};

pub use context::Context;
pub use mailbox::Mailbox;

use crate::cri_config::labels;
use crate::server::PodLookup;
use crate::words;
use observed::{Observed, State};
use pod::PodExt;
use worker::Worker;

/// The safety net under the runtime's events.
const RELIST: Duration = Duration::from_secs(60);
/// Before asking a runtime again that does not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// What a worker lets others see.
#[derive(Clone)]
pub struct View {
    /// The pod with the status that the kubelet knows now.
    pub pod: Arc<Pod>,
    /// What the runtime has of it.
    pub observed: Arc<Observed>,
    /// Whether the pod is over and its volumes were taken away.
    pub released: bool,
}

struct Handle {
    mailbox: Arc<Mailbox>,
    view: watch::Receiver<View>,
}

type Workers = Mutex<HashMap<String, Handle>>;

/// All pods of the node. Cheap to clone.
#[derive(Clone)]
pub struct Pods {
    context: Arc<Context>,
    workers: Arc<Workers>,
    /// Told when a worker is done.
    ended: Arc<Notify>,
    /// Whether every pod that was there at the start has its worker.
    complete: Arc<watch::Sender<bool>>,
}

impl Pods {
    /// No pod yet.
    pub fn new(context: Arc<Context>) -> Self {
        Self {
            context,
            workers: Arc::default(),
            ended: Arc::default(),
            complete: Arc::default(),
        }
    }

    /// Looks after the pods until the future is dropped; the pods run on. `complete` resolves when the static pods are known, which are
    /// there before and without the API server.
    pub async fn run(&self, informer: Informer<Pod>, complete: impl Future<Output = ()>) {
        let mut changes = informer.subscribe();
        let apply = async {
            informer.synced().await;
            // Before any worker asks for more, all of them hold what they have.
            let holds =
                |pod: &&Arc<Pod>| resize::is_taken_in(pod) && !api::pod::is_terminal(pod) && !api::pod::is_mirror(pod);
            for pod in informer.list().iter().filter(holds) {
                self.context.ledger.take_in(pod);
            }
            let mut missing: HashSet<String> = informer.list().iter().map(|pod| pod.uid().to_owned()).collect();
            loop {
                if missing.is_empty() {
                    self.complete
                        .send_if_modified(|complete| !std::mem::replace(complete, true));
                }
                let change = changes.next().await;
                missing.remove(change.object().uid());
                match change {
                    // What a mirror shows is a static pod, which has its worker already.
                    Change::Applied { object, .. } if api::pod::is_mirror(&object) => {}
                    Change::Applied { object, .. } => self.apply(from_api(object)),
                    Change::Deleted(pod) => self.gone(pod),
                }
            }
        };
        let orphans = async {
            complete.await;
            informer.synced().await;
            self.end_orphans(&informer).await;
        };
        tokio::join!(
            apply,
            orphans,
            self.follow_runtime(),
            self.relist(),
            self.weigh_classes()
        );
    }

    /// Resolves when every pod that was there at the start has its worker.
    pub async fn complete(&self) {
        // The sender lives in `self`, so that waiting cannot fail.
        let _ = self.complete.subscribe().wait_for(|complete| *complete).await;
    }

    /// Whether a pod still has a worker.
    pub fn is_at_work(&self, uid: &str) -> bool {
        self.workers.lock().contains_key(uid)
    }

    /// Resolves when some worker is done, since it was last asked for; for one who waits.
    pub async fn ended(&self) {
        self.ended.notified().await;
    }

    /// A pod must end before its containers do.
    pub fn end_early(&self, uid: &str, verdict: memory::Verdict) {
        if let Some(worker) = self.workers.lock().get(uid) {
            worker.mailbox.end_early(verdict);
        }
    }

    /// Resolves when nothing is left of what a pod that ended early had, but its object.
    pub async fn cleaned(&self, uid: &str) {
        let view = self.workers.lock().get(uid).map(|worker| worker.view.clone());
        if let Some(mut view) = view {
            let cleaned = |view: &View| api::pod::is_terminal(&view.pod) && view.observed.instances.is_empty();
            // A worker that ends has left nothing.
            let _ = view.wait_for(cleaned).await;
        }
    }

    /// Resolves when a pod is over and its volumes are taken away.
    pub async fn released(&self, uid: &str) {
        let view = self.workers.lock().get(uid).map(|worker| worker.view.clone());
        if let Some(mut view) = view {
            // A worker that ends has left nothing.
            let _ = view.wait_for(|view| view.released).await;
        }
    }

    /// The pods that are not over.
    pub fn active(&self) -> Vec<Arc<Pod>> {
        let over = |view: &View| api::pod::is_terminal(&view.pod) || view.pod.deletion().is_some();
        let active = self.views().into_iter().filter(|view| !over(view));
        active.map(|view| view.pod).collect()
    }

    /// A static pod is no longer wanted: it ends, with the grace period that it asks for.
    pub fn end(&self, pod: &Pod) {
        if let Some(worker) = self.workers.lock().get(pod.uid()) {
            let mut pod = pod.clone();
            pod.metadata.deletion_timestamp = Some(Time(Timestamp::now()));
            worker.mailbox.gone(Arc::new(pod));
        }
    }

    /// The status of a static pod is to be written to its mirror.
    pub fn show_on(&self, pod: &Pod, mirror: Arc<Pod>) {
        if let Some(worker) = self.workers.lock().get(pod.uid()) {
            worker.mailbox.show_on(mirror);
        }
    }

    /// A pod is there, or has changed.
    pub fn apply(&self, pod: Arc<Pod>) {
        let mut workers = self.workers.lock();
        match workers.get(pod.uid()) {
            Some(worker) => worker.mailbox.apply(pod),
            None => drop(workers.insert(pod.uid().to_owned(), self.employ(pod, false))),
        }
    }

    fn gone(&self, pod: Arc<Pod>) {
        if let Some(worker) = self.workers.lock().get(pod.uid()) {
            worker.mailbox.gone(Arc::new(forced(&pod)));
        }
    }

    fn employ(&self, pod: Arc<Pod>, gone: bool) -> Handle {
        let mailbox = Arc::new(Mailbox::new(pod.clone(), gone));
        let (view, seen) = watch::channel(View {
            pod: pod.clone(),
            observed: Arc::default(),
            released: false,
        });
        let handle = Handle {
            mailbox: mailbox.clone(),
            view: seen,
        };
        let pods = self.clone();
        tokio::spawn(async move {
            let employ = || Worker::new(pods.clone(), mailbox.clone(), view.clone()).run();
            let broke = |why: &str, pause| pods.tell_broken(&pod, why, pause);
            // Whoever wants the pod gone need not wait.
            let hurry = || {
                let mailbox = mailbox.clone();
                let ends_already = mailbox.has_ended();
                async move {
                    match ends_already {
                        true => pending().await,
                        false => mailbox.ends().await,
                    }
                }
            };
            keep::keep(employ, broke, hurry).await;
            pods.context.metrics.forget(pod.uid());
            pods.workers.lock().remove(pod.uid());
            pods.ended.notify_one();
        });
        handle
    }

    /// A worker broke off, and another takes over after the pause.
    fn tell_broken(&self, pod: &Pod, why: &str, pause: Duration) {
        error!(pod = %pod.full_name(), why, again_in = ?pause, "the worker of a pod panicked");
        let message = format!(
            "error syncing pod, will be tried again in {}: {why}",
            words::duration(pause)
        );
        let about = pod.reference();
        self.context.events.record(&about, Warning, "FailedSync", message);
    }

    /// Ends what the runtime and the disk have of pods that the API server does not know.
    async fn end_orphans(&self, informer: &Informer<Pod>) {
        let sandboxes = loop {
            match self
                .context
                .runtime
                .list_pod_sandbox(ListPodSandboxRequest { filter: None })
                .await
            {
                Ok(response) => break response.items,
                Err(error) => {
                    warn!(%error, "the runtime lists no sandboxes");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        };
        // Only its own directories tell which pods were this node's: cgroups are the whole machine's.
        let directories = std::fs::read_dir(self.context.config.root_dir.join("pods"))
            .into_iter()
            .flatten()
            .flatten();
        let left: Vec<String> = directories
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        // Known after the runtime and the disk were asked: what has come meanwhile is not taken for an orphan.
        let mut known: HashSet<String> = informer.list().iter().map(|pod| pod.uid().to_owned()).collect();
        known.extend(self.workers.lock().keys().cloned());
        let mut orphans = HashMap::new();
        for sandbox in sandboxes {
            let Some(metadata) = sandbox.metadata else { continue };
            // What the kubelet did not make is not the kubelet's to end.
            if sandbox
                .labels
                .get(labels::POD_UID)
                .is_none_or(|uid| known.contains(uid))
            {
                continue;
            }
            let grace = sandbox
                .annotations
                .get(labels::GRACE)
                .and_then(|grace| grace.parse().ok());
            orphans
                .entry(metadata.uid.clone())
                .or_insert_with(|| orphan(metadata.namespace, metadata.name, metadata.uid, grace));
        }
        for uid in left.into_iter().filter(|uid| !known.contains(uid)) {
            orphans
                .entry(uid.clone())
                .or_insert_with(|| orphan(String::new(), String::new(), uid, None));
        }
        for (uid, pod) in orphans {
            info!(pod = %pod.full_name(), "ending a pod that the API server does not know");
            self.workers.lock().insert(uid, self.employ(Arc::new(pod), true));
        }
    }

    /// A runtime that has no events is asked anew instead, as often as upstream's kubelet asks.
    async fn follow_runtime(&self) {
        let mut told = String::new();
        let mut tell = |error: cri::Error| {
            let text = error.to_string();
            if told != text {
                warn!(%error, "the runtime sends no container events");
                told = text;
            }
        };
        loop {
            match self.context.runtime.get_container_events(GetEventsRequest {}).await {
                Ok(mut events) => {
                    // What happened before the stream began is found by looking.
                    self.wake_all();
                    while let Some(event) = events.next().await {
                        match event {
                            Ok(event) => self.wake(&event),
                            Err(error) => {
                                tell(error);
                                break;
                            }
                        }
                    }
                }
                Err(error) => {
                    tell(error);
                    self.wake_all();
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn wake(&self, event: &ContainerEventResponse) {
        let of_sandbox = event
            .pod_sandbox_status
            .as_ref()
            .and_then(|status| status.labels.get(labels::POD_UID));
        let of_container = || {
            event
                .containers_statuses
                .first()
                .and_then(|status| status.labels.get(labels::POD_UID))
        };
        let workers = self.workers.lock();
        match of_sandbox.or_else(of_container) {
            Some(uid) => {
                if let Some(worker) = workers.get(uid) {
                    worker.mailbox.wake();
                }
            }
            None => {
                let concerned = |worker: &&Handle| {
                    let view = worker.view.borrow();
                    let id = &event.container_id;
                    view.observed.instances.iter().any(|instance| instance.id == *id)
                        || view.observed.sandboxes.iter().any(|sandbox| sandbox.id == *id)
                };
                workers
                    .values()
                    .filter(concerned)
                    .for_each(|worker| worker.mailbox.wake());
            }
        }
    }

    fn wake_all(&self) {
        self.workers.lock().values().for_each(|worker| worker.mailbox.wake());
    }

    /// Keeps the weights of the pods' classes as the pods come and go.
    async fn weigh_classes(&self) {
        let mut burstable = self.context.ledger.burstable();
        let cgroups = &self.context.cgroups;
        loop {
            let millis = *burstable.borrow_and_update();
            if let Err(error) = cgroups.weigh_classes(millis) {
                warn!(%error, "the weights of the pods' classes could not be set");
            }
            // The sender lives in `self`, so that waiting cannot fail.
            let _ = burstable.changed().await;
        }
    }

    async fn relist(&self) {
        loop {
            tokio::time::sleep(RELIST).await;
            self.wake_all();
        }
    }

    /// What every worker lets others see.
    pub fn views(&self) -> Vec<View> {
        self.workers
            .lock()
            .values()
            .map(|worker| worker.view.borrow().clone())
            .collect()
    }
}

/// Only a kubelet says that a pod is from elsewhere.
fn from_api(pod: Arc<Pod>) -> Arc<Pod> {
    if !api::pod::is_static(&pod) {
        return pod;
    }
    let mut pod = Pod::clone(&pod);
    if let Some(annotations) = &mut pod.metadata.annotations {
        annotations.remove(api::pod::CONFIG_SOURCE_ANNOTATION);
    }
    Arc::new(pod)
}

/// A pod that the API server has let go of: whoever forced that wants no grace period any more.
fn forced(pod: &Pod) -> Pod {
    let mut pod = pod.clone();
    pod.metadata
        .deletion_timestamp
        .get_or_insert_with(|| Time(Timestamp::now()));
    pod.metadata.deletion_grace_period_seconds = Some(0);
    pod
}

/// Enough of a pod to end it.
fn orphan(namespace: String, name: String, uid: String, grace: Option<i64>) -> Pod {
    Pod {
        metadata: ObjectMeta {
            namespace: Some(namespace),
            name: Some(name),
            uid: Some(uid),
            ..Default::default()
        },
        spec: Some(PodSpec {
            termination_grace_period_seconds: grace,
            ..Default::default()
        }),
        status: None,
    }
}

impl PodLookup for Pods {
    fn pods(&self) -> Vec<Arc<Pod>> {
        self.views().into_iter().map(|view| view.pod).collect()
    }

    fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let mut found: Vec<Arc<Pod>> = self
            .pods()
            .into_iter()
            .filter(|pod| pod.namespace() == namespace && pod.name() == name)
            .collect();
        // One that is ending may still be there when its successor has come.
        found.sort_by_key(|pod| pod.metadata.creation_timestamp.clone());
        found.pop()
    }

    fn sandbox_id(&self, pod_uid: &str) -> Option<String> {
        let view = self.workers.lock().get(pod_uid)?.view.borrow().clone();
        view.observed.sandbox().map(|sandbox| sandbox.id.clone())
    }

    fn container_id(&self, pod_uid: &str, container: &str) -> Option<String> {
        let view = self.workers.lock().get(pod_uid)?.view.borrow().clone();
        view.observed.latest(container).map(|instance| instance.id.clone())
    }

    fn ended(&self, container_id: &str) -> BoxFuture<'static, ()> {
        let id = container_id.to_owned();
        let runs = move |view: &View| {
            view.observed
                .instances
                .iter()
                .any(|instance| instance.id == id && matches!(instance.state, State::Running | State::Unknown))
        };
        let views: Vec<_> = self.workers.lock().values().map(|worker| worker.view.clone()).collect();
        let view = views.into_iter().find(|view| runs(&view.borrow()));
        Box::pin(async move {
            if let Some(mut view) = view {
                // The worker ends after its last container.
                let _ = view.wait_for(|view| !runs(view)).await;
            }
        })
    }
}
