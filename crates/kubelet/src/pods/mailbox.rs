//! What waits for a worker: the newest object of its pod, and the outcomes of what it set going. Any number of wakes are one.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::memory::Verdict;
use crate::image::Pulled;
use crate::probes::Kind;

/// The mail since the last time.
#[derive(Default)]
pub struct Mail {
    /// The pod, if it changed.
    pub pod: Option<Arc<Pod>>,
    /// The API server has no such pod any more.
    pub gone: bool,
    /// What shows a static pod in the API, if it changed.
    pub mirror: Option<Arc<Pod>>,
    /// A ConfigMap or Secret that the pod refers to changed.
    pub objects: bool,
    /// Pulls that came to an end: for what (a container, or a container's volume), image, outcome.
    pub pulled: Vec<(String, String, Pulled)>,
    /// Probes whose result turned: instance, probe, result.
    pub probed: Vec<(String, Kind, bool)>,
    /// Hooks after the start that are done: container, instance, outcome.
    pub hooked: Vec<(String, String, Result<(), String>)>,
    /// Instances whose hook before the stop is done.
    pub pre_stopped: Vec<String>,
    /// Instances that could not be told to stop.
    pub not_stopped: Vec<String>,
    /// Why the pod must end before its containers do.
    pub verdict: Option<Verdict>,
}

/// What every worker of the pod has to know, be it the first or one that takes over.
#[derive(Clone)]
pub struct Standing {
    /// The pod as last seen.
    pub pod: Arc<Pod>,
    /// The API server has no such pod any more.
    pub gone: bool,
    /// What shows a static pod in the API, once it is there.
    pub mirror: Option<Arc<Pod>>,
}

/// One for each pod.
pub struct Mailbox {
    standing: Mutex<Standing>,
    mail: Mutex<Mail>,
    arrived: Notify,
    ends: watch::Sender<bool>,
}

impl Mailbox {
    /// No mail yet.
    pub fn new(pod: Arc<Pod>, gone: bool) -> Self {
        let mirror = None;
        Self {
            ends: watch::Sender::new(gone || api::pod::is_deleting(&pod)),
            standing: Mutex::new(Standing { pod, gone, mirror }),
            mail: Mutex::default(),
            arrived: Notify::new(),
        }
    }

    /// What stands, whatever mail was taken.
    pub fn standing(&self) -> Standing {
        self.standing.lock().clone()
    }

    /// The pod changed.
    pub fn apply(&self, pod: Arc<Pod>) {
        if api::pod::is_deleting(&pod) {
            self.ends.send_replace(true);
        }
        self.standing.lock().pod = pod.clone();
        self.mail.lock().pod = Some(pod);
        self.wake();
    }

    /// The pod is gone; this was its last state.
    pub fn gone(&self, pod: Arc<Pod>) {
        let mut standing = self.standing.lock();
        standing.pod = pod.clone();
        standing.gone = true;
        drop(standing);
        let mut mail = self.mail.lock();
        mail.pod = Some(pod);
        mail.gone = true;
        drop(mail);
        self.ends.send_replace(true);
        self.wake();
    }

    /// The status of the static pod is to be written to this object.
    pub fn show_on(&self, mirror: Arc<Pod>) {
        self.standing.lock().mirror = Some(mirror.clone());
        self.mail.lock().mirror = Some(mirror);
        self.wake();
    }

    /// A ConfigMap or Secret that the pod refers to changed.
    pub fn objects_changed(&self) {
        self.mail.lock().objects = true;
        self.wake();
    }

    /// A pull came to its end.
    pub fn pulled(&self, container: String, image: String, pulled: Pulled) {
        self.mail.lock().pulled.push((container, image, pulled));
        self.wake();
    }

    /// A probe's result turned.
    pub fn probed(&self, instance: String, kind: Kind, good: bool) {
        self.mail.lock().probed.push((instance, kind, good));
        self.wake();
    }

    /// A hook after the start is done.
    pub fn hooked(&self, container: String, instance: String, outcome: Result<(), String>) {
        self.mail.lock().hooked.push((container, instance, outcome));
        self.wake();
    }

    /// A hook before the stop is done, well or not.
    pub fn pre_stopped(&self, instance: String) {
        self.mail.lock().pre_stopped.push(instance);
        self.wake();
    }

    /// An instance could not be told to stop.
    pub fn not_stopped(&self, id: String) {
        self.mail.lock().not_stopped.push(id);
        self.wake();
    }

    /// The pod must end before its containers do.
    pub fn end_early(&self, verdict: Verdict) {
        self.mail.lock().verdict.get_or_insert(verdict);
        self.wake();
    }

    /// Something may have changed.
    pub fn wake(&self) {
        self.arrived.notify_one();
    }

    /// Waits until something arrives.
    pub async fn wait(&self) {
        self.arrived.notified().await;
    }

    /// Resolves when the pod is told to end, for what takes long and is then in vain.
    pub async fn ends(&self) {
        // The sender lives in `self`, so that waiting cannot fail.
        let _ = self.ends.subscribe().wait_for(|ends| *ends).await;
    }

    /// Whether the pod was told to end.
    pub fn has_ended(&self) -> bool {
        *self.ends.borrow()
    }

    /// Takes what is there.
    pub fn take(&self) -> Mail {
        std::mem::take(&mut *self.mail.lock())
    }
}
