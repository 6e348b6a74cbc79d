//! The worker of one pod: looks, decides, says, acts, and looks again, until there is nothing to do; then it waits for its mailbox.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use client::EventType::{Normal, Warning};
use cri::v1::{
    RemoveContainerRequest, RemovePodSandboxRequest, RunPodSandboxRequest, StopContainerRequest, StopPodSandboxRequest,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use k8s_openapi::api::node::v1::RuntimeClass;
use tokio::sync::watch;
use tracing::{debug, warn};

use super::context::Context;
use super::mailbox::Mailbox;
use super::memory::{Memory, Verdict, Waiting};
use super::observed::Observed;
use super::plan::{self, Action, Plan};
use super::pod::PodExt;
use super::status::{self, Facts};
use super::writer::{Wanted, Writer};
use super::{View, conditions, unserved};
use crate::cri_config::sandbox;
use crate::field::Addresses;
use crate::objects::Objects;
use crate::volumes;

/// Before trying again what the runtime or the kernel refused.
const RETRY: SignedDuration = SignedDuration::from_secs(1);
/// The longest pause between tries before the sandbox.
const RETRY_LONGEST: SignedDuration = SignedDuration::from_secs(122);
/// How soon changes of objects reach files in volumes.
const REFRESH: SignedDuration = SignedDuration::from_secs(60);
/// How often volumes with a limit are measured.
const MEASURE: SignedDuration = SignedDuration::from_secs(10);
/// An evicted pod ends at once.
const EVICTION_GRACE: i64 = 1;

pub(super) struct Worker {
    pub(super) context: Arc<Context>,
    pub(super) mailbox: Arc<Mailbox>,
    /// The pod with the status that the kubelet knows.
    pub(super) pod: Arc<Pod>,
    /// The pod as the API server has it.
    seen: Arc<Pod>,
    seen_changed: bool,
    pub(super) memory: Memory,
    pub(super) observed: Arc<Observed>,
    /// Where the volumes are, once they are set up.
    pub(super) volumes: Option<HashMap<String, PathBuf>>,
    gone: bool,
    writer: Writer,
    view: watch::Sender<View>,
    published: Option<PodStatus>,
    /// Containers whose back-off was told, and for which end of theirs.
    told: HashMap<String, Timestamp>,
    next_refresh: Option<Timestamp>,
    next_measure: Option<Timestamp>,
}

impl Worker {
    pub(super) fn new(
        context: Arc<Context>,
        mailbox: Arc<Mailbox>,
        pod: Arc<Pod>,
        gone: bool,
    ) -> (Self, watch::Receiver<View>) {
        let observed = Arc::new(Observed::default());
        let (view, receiver) = watch::channel(View {
            pod: pod.clone(),
            observed: observed.clone(),
        });
        let worker = Self {
            memory: Memory::of(&pod),
            writer: Writer::start(context.client.clone()),
            context,
            mailbox,
            seen: pod.clone(),
            seen_changed: false,
            pod,
            observed,
            volumes: None,
            gone,
            view,
            published: None,
            told: HashMap::new(),
            next_refresh: None,
            next_measure: None,
        };
        (worker, receiver)
    }

    pub(super) async fn run(mut self) {
        let mut first = true;
        loop {
            self.read_mail();
            if let Err(error) = self.look().await {
                warn!(pod = %self.pod.full_name(), %error, "the runtime does not say what it has");
                tokio::time::sleep(RETRY.unsigned_abs()).await;
                continue;
            }
            if std::mem::take(&mut first) && self.observed.sandboxes.is_empty() && !self.gone {
                self.tell_unserved();
            }
            let mut now = Timestamp::now();
            self.judge(now).await;
            let plan = plan::plan(&self.pod, self.gone, &self.observed, &self.memory, now);
            if plan.ended && self.memory.ending.is_none() {
                self.memory.ending = Some((now, self.pod.grace()));
            }
            self.tell_back_offs(&plan);
            self.publish(&plan, now);
            if plan.finished {
                return;
            }
            if !plan.actions.is_empty() {
                self.act(&plan).await;
                continue;
            }
            now = Timestamp::now();
            let wake = [plan.wake, self.next_refresh, self.next_measure]
                .into_iter()
                .flatten()
                .min();
            match wake {
                Some(at) => {
                    let left = at.duration_since(now).max(SignedDuration::ZERO).unsigned_abs();
                    // A wait that was cut short by mail is taken up again by the next plan.
                    let _ = tokio::time::timeout(left, self.mailbox.wait()).await;
                }
                None => self.mailbox.wait().await,
            }
        }
    }

    fn read_mail(&mut self) {
        let mail = self.mailbox.take();
        if let Some(pod) = mail.pod {
            self.see(pod);
        }
        self.gone |= mail.gone;
        for id in mail.not_stopped {
            self.memory.stopping.remove(&id);
        }
        for (container, image, pulled) in mail.pulled {
            self.take_pull(&container, &image, pulled);
        }
    }

    /// Takes the object as the API server has it, with the status that the kubelet knows: the server's may be behind.
    fn see(&mut self, seen: Arc<Pod>) {
        let mut pod = Pod::clone(&seen);
        if let Some(own) = &self.published {
            let theirs = pod
                .status
                .take()
                .and_then(|status| status.conditions)
                .unwrap_or_default();
            let mut status = own.clone();
            let conditions = status.conditions.get_or_insert_default();
            conditions.retain(|condition| conditions::is_own(&condition.type_));
            conditions.extend(
                theirs
                    .into_iter()
                    .filter(|condition| !conditions::is_own(&condition.type_)),
            );
            pod.status = Some(status);
        }
        self.pod = Arc::new(pod);
        self.seen = seen;
        self.seen_changed = true;
    }

    async fn look(&mut self) -> cri::Result<()> {
        let mut observed = Observed::of(&*self.context.runtime, self.pod.uid(), &self.observed).await?;
        observed.read_messages(&self.pod, &self.observed).await;
        self.observed = Arc::new(observed);
        let alive = &self.observed.instances;
        self.memory
            .stopping
            .retain(|id, _| alive.iter().any(|instance| instance.id == *id));
        Ok(())
    }

    /// Whether the pod must end, and what must be refreshed.
    async fn judge(&mut self, now: Timestamp) {
        if self.gone || self.pod.deletion().is_some() || self.memory.verdict.is_some() {
            (self.next_refresh, self.next_measure) = (None, None);
            return;
        }
        if plan::active_deadline(&self.pod).is_some_and(|deadline| deadline <= now)
            && !plan::is_over(&self.pod, &self.observed)
        {
            let message = "Pod was active on the node longer than the specified deadline";
            self.context
                .events
                .record(&self.pod.reference(), Normal, "DeadlineExceeded", message);
            self.memory.verdict = Some(Verdict {
                reason: "DeadlineExceeded".into(),
                message: message.into(),
                grace: None,
            });
            return;
        }
        if self.volumes.is_none() {
            return;
        }
        if volumes::follows_objects(&self.pod) && *self.next_refresh.get_or_insert(later(now, REFRESH)) <= now {
            self.next_refresh = Some(later(now, REFRESH));
            if let Err(failure) = self.set_up_volumes().await {
                self.context
                    .events
                    .record(&self.pod.reference(), Warning, "FailedMount", failure.to_string());
            }
        }
        if volumes::limited(&self.pod) && *self.next_measure.get_or_insert(later(now, MEASURE)) <= now {
            self.next_measure = Some(later(now, MEASURE));
            let (pod, directory) = (self.pod.clone(), self.pod_dir());
            let measured = tokio::task::spawn_blocking(move || volumes::over_limit(&pod, &directory)).await;
            if let Ok(Some(message)) = measured {
                self.context
                    .events
                    .record(&self.pod.reference(), Warning, "Evicted", message.clone());
                self.memory.verdict = Some(Verdict {
                    reason: "Evicted".into(),
                    message,
                    grace: Some(EVICTION_GRACE),
                });
            }
        }
    }

    fn tell_unserved(&self) {
        for field in unserved::fields(&self.pod) {
            let message = format!("{field} is not served by this build and has no effect");
            self.context
                .events
                .record(&self.pod.reference(), Warning, "FieldNotServed", message);
        }
    }

    fn tell_back_offs(&mut self, plan: &Plan) {
        for (name, _) in &plan.held_back {
            let Some(ended) = self.observed.latest(name).map(|instance| instance.finished()) else {
                continue;
            };
            if self.told.insert(name.clone(), ended) != Some(ended) {
                let message = format!(
                    "Back-off restarting failed container {name} in pod {}",
                    self.pod.full_name()
                );
                self.tell(name, Warning, "BackOff", message);
            }
        }
    }

    /// An event about a container.
    pub(super) fn tell(&self, container: &str, kind: client::EventType, reason: &str, message: impl Into<String>) {
        let about = match self.pod.container(container) {
            Some((role, _)) => self.pod.container_reference(role, container),
            None => self.pod.reference(),
        };
        self.context.events.record(&about, kind, reason, message);
    }

    fn publish(&mut self, plan: &Plan, now: Timestamp) {
        // What is being taken away says nothing of how the pod was.
        if self.memory.cleaning {
            self.view.send_replace(View {
                pod: self.pod.clone(),
                observed: self.observed.clone(),
            });
            return;
        }
        let facts = Facts {
            host_ips: &self.context.host_ips,
            ready: &|_| true,
            started: &|_| true,
            now,
        };
        let status = status::status(&self.pod, &self.observed, &self.memory, plan, &facts);
        let changed = self.pod.status.as_ref() != Some(&status);
        if changed {
            self.pod = Arc::new(Pod {
                status: Some(status.clone()),
                ..Pod::clone(&self.pod)
            });
        }
        self.view.send_replace(View {
            pod: self.pod.clone(),
            observed: self.observed.clone(),
        });
        if (changed || std::mem::take(&mut self.seen_changed)) && !self.gone {
            self.published = Some(status.clone());
            self.writer.write(Wanted {
                pod: self.seen.clone(),
                status,
                forget: false,
            });
        }
    }

    async fn act(&mut self, plan: &Plan) {
        for action in &plan.actions {
            let takes_away = matches!(
                action,
                Action::RemoveInstance { .. } | Action::RemoveSandbox { .. } | Action::CleanUp
            );
            self.memory.cleaning |= takes_away && plan.removes;
            let done = match action {
                Action::CreateSandbox { attempt } => self.create_sandbox(*attempt).await,
                Action::Start { name, restarts, failed } => self.start(name, *restarts, *failed).await,
                Action::Stop { id, name, grace, why } => {
                    self.stop(id, name, *grace, why.as_deref());
                    true
                }
                Action::StopSandbox { id } => {
                    let request = StopPodSandboxRequest {
                        pod_sandbox_id: id.clone(),
                    };
                    self.asked(
                        "stop sandbox",
                        self.context.runtime.stop_pod_sandbox(request).await.map(drop),
                    )
                    .await
                }
                Action::RemoveInstance { id } => self.remove_instance(id).await,
                Action::RemoveSandbox { id } => {
                    let request = RemovePodSandboxRequest {
                        pod_sandbox_id: id.clone(),
                    };
                    self.asked(
                        "remove sandbox",
                        self.context.runtime.remove_pod_sandbox(request).await.map(drop),
                    )
                    .await
                }
                Action::CleanUp => self.clean_up().await,
                Action::Forget => {
                    self.forget();
                    true
                }
            };
            if !done {
                break;
            }
        }
    }

    /// Whether it went well; a failure is said and not tried again at once.
    async fn asked(&self, what: &str, answer: cri::Result<()>) -> bool {
        match answer {
            Err(error) if !error.is_not_found() => {
                warn!(pod = %self.pod.full_name(), %error, "the runtime could not {what}");
                tokio::time::sleep(RETRY.unsigned_abs()).await;
                false
            }
            _ => true,
        }
    }

    pub(super) fn pod_dir(&self) -> PathBuf {
        self.context.config.pod_dir(self.pod.uid())
    }

    pub(super) fn addresses(&self) -> Addresses {
        let host = self.context.host_ips.clone();
        let pod = match self.observed.sandbox() {
            Some(sandbox) if sandbox.host_network => host.clone(),
            Some(sandbox) => sandbox.ips.clone(),
            None => Vec::new(),
        };
        Addresses { pod, host }
    }

    pub(super) async fn set_up_volumes(&mut self) -> Result<(), volumes::Failure> {
        let mut context = volumes::Context {
            objects: Objects::new(&self.context.client, self.pod.namespace()),
            addresses: self.addresses(),
            capacity: self.context.capacity,
        };
        self.volumes = Some(volumes::set_up(&self.pod, &self.pod_dir(), &mut context).await?);
        Ok(())
    }

    async fn create_sandbox(&mut self, attempt: u32) -> bool {
        match self.try_create_sandbox(attempt).await {
            Ok(()) => {
                self.memory.sandbox_failures = 0;
                self.memory.retry_at.remove("");
                true
            }
            Err((reason, message)) => {
                self.context
                    .events
                    .record(&self.pod.reference(), Warning, reason, message);
                self.memory.sandbox_failures += 1;
                let delay = RETRY * 2i32.saturating_pow(self.memory.sandbox_failures.min(16) - 1);
                self.memory
                    .retry_at
                    .insert(String::new(), later(Timestamp::now(), delay.min(RETRY_LONGEST)));
                false
            }
        }
    }

    /// The error is the reason and message of its event.
    async fn try_create_sandbox(&mut self, attempt: u32) -> Result<(), (&'static str, String)> {
        let sandboxed = |error: String| {
            (
                "FailedCreatePodSandBox",
                format!("Failed to create pod sandbox: {error}"),
            )
        };
        self.set_up_volumes()
            .await
            .map_err(|failure| ("FailedMount", failure.to_string()))?;
        self.context.cgroups.create(&self.pod).map_err(|error| {
            (
                "FailedCreatePodContainer",
                format!("unable to ensure pod container exists: {error}"),
            )
        })?;
        let config = sandbox::config(&self.pod, attempt, &self.context.config, &self.context.node_dns);
        let logs = PathBuf::from(&config.log_directory);
        std::fs::create_dir_all(&logs).map_err(|error| sandboxed(format!("mkdir {}: {error}", logs.display())))?;
        let runtime_handler = self.runtime_handler().await.map_err(sandboxed)?;
        let request = RunPodSandboxRequest {
            config: Some(config),
            runtime_handler,
        };
        self.context
            .runtime
            .run_pod_sandbox(request)
            .await
            .map_err(|error| sandboxed(error.to_string()))?;
        Ok(())
    }

    async fn runtime_handler(&self) -> Result<String, String> {
        let Some(name) = self
            .pod
            .spec()
            .and_then(|spec| spec.runtime_class_name.as_deref())
            .filter(|name| !name.is_empty())
        else {
            return Ok(String::new());
        };
        let api = client::kube::Api::<RuntimeClass>::all(self.context.client.clone());
        let found = api.get_opt(name).await.map_err(|error| error.to_string())?;
        found
            .map(|class| class.handler)
            .ok_or_else(|| format!("failed to get sandbox runtime: RuntimeClass {name:?} not found"))
    }

    /// The stop goes on beside the worker: its grace period may be long, and may be shortened.
    fn stop(&mut self, id: &str, name: &str, grace: i64, why: Option<&str>) {
        let deadline = later(Timestamp::now(), SignedDuration::from_secs(grace));
        if self.memory.stopping.insert(id.to_owned(), deadline).is_none() {
            let message = why.map_or_else(|| format!("Stopping container {name}"), str::to_owned);
            self.tell(name, Normal, "Killing", message);
        }
        let (runtime, mailbox, id) = (self.context.runtime.clone(), self.mailbox.clone(), id.to_owned());
        tokio::spawn(async move {
            match runtime
                .stop_container(StopContainerRequest {
                    container_id: id.clone(),
                    timeout: grace,
                })
                .await
            {
                Err(error) if !error.is_not_found() => {
                    warn!(container = %id, %error, "the runtime could not stop a container");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    mailbox.not_stopped(id);
                }
                _ => mailbox.wake(),
            }
        });
    }

    async fn remove_instance(&mut self, id: &str) -> bool {
        let request = RemoveContainerRequest {
            container_id: id.to_owned(),
        };
        if !self
            .asked(
                "remove container",
                self.context.runtime.remove_container(request).await.map(drop),
            )
            .await
        {
            return false;
        }
        if let Some(instance) = self.observed.instances.iter().find(|instance| instance.id == id) {
            remove_logs(&instance.log_path);
        }
        true
    }

    async fn clean_up(&mut self) -> bool {
        let cgroups = self.context.cgroups.clone();
        let (directory, uid) = (self.pod_dir(), self.pod.uid().to_owned());
        let logs = self.context.config.pod_logs_dir.join(sandbox::log_directory(&self.pod));
        let named = !self.pod.name().is_empty();
        let all = move || {
            volumes::tear_down(&directory).map_err(|error| error.to_string())?;
            cgroups.remove(&uid).map_err(|error| error.to_string())?;
            match std::fs::remove_dir_all(&logs) {
                Err(error) if named && error.kind() != std::io::ErrorKind::NotFound => {
                    Err(format!("remove {}: {error}", logs.display()))
                }
                _ => Ok(()),
            }
        };
        let cleaned = match tokio::task::spawn_blocking(all).await {
            Ok(cleaned) => cleaned,
            Err(error) => Err(error.to_string()),
        };
        match cleaned {
            Ok(()) => {
                self.memory.cleaned = true;
                true
            }
            Err(error) => {
                warn!(pod = %self.pod.full_name(), %error, "a pod's things could not be taken away yet");
                tokio::time::sleep(RETRY.unsigned_abs()).await;
                false
            }
        }
    }

    fn forget(&mut self) {
        self.memory.forgotten = true;
        if let Some(status) = self.pod.status.clone() {
            debug!(pod = %self.pod.full_name(), "nothing of the pod is left");
            self.writer.write(Wanted {
                pod: self.seen.clone(),
                status,
                forget: true,
            });
        }
    }

    /// The container waits for this reason; tried again later.
    pub(super) fn hold(&mut self, name: &str, waiting: Waiting, again: SignedDuration) {
        self.memory.waiting.insert(name.to_owned(), waiting);
        self.memory
            .retry_at
            .insert(name.to_owned(), later(Timestamp::now(), again));
    }

    fn take_pull(&mut self, container: &str, image: &str, pulled: crate::image::Pulled) {
        self.memory.pulling.remove(container);
        let now = Timestamp::now();
        let message = pulled.message(image);
        match pulled.outcome {
            Ok(found) => {
                self.tell(container, Normal, "Pulled", message);
                self.memory.pulls.reset(image);
                self.memory.failed_pulls.remove(image);
                self.memory.pulled.insert(container.to_owned(), found.id);
            }
            Err(error) => {
                self.tell(container, Warning, "Failed", message);
                self.tell(container, Warning, "Failed", "Error: ErrImagePull");
                self.memory.pulls.next(image, now, now);
                let waiting = Waiting::new("ErrImagePull", error);
                self.memory
                    .failed_pulls
                    .insert(image.to_owned(), (now, waiting.clone()));
                self.hold(container, waiting, super::start::SHOW_PULL_ERROR);
            }
        }
    }
}

pub(super) fn later(now: Timestamp, by: SignedDuration) -> Timestamp {
    now.saturating_add(by).unwrap_or(Timestamp::MAX)
}

/// The log and its rotated predecessors.
fn remove_logs(path: &str) {
    let path = std::path::Path::new(path);
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return;
    };
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(|entry| entry.starts_with(name)) {
            // The whole directory goes with the pod.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
