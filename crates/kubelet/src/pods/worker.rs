//! The worker of one pod: looks, decides, says, acts, and looks again, until there is nothing to do; then it waits for its mailbox.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use client::EventType::{Normal, Warning};
use cri::v1::ContainerStatsRequest;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::watch;
use tracing::{debug, warn};

use super::allocation::Allocation;
use super::context::Context;
use super::mailbox::{Mailbox, Standing};
use super::memory::{Memory, Verdict, Waiting};
use super::observed::Observed;
use super::plan::{self, Plan};
use super::pod::PodExt;
use super::resize::{Resize, is_taken_in};
use super::start::{CONFIG_ERROR, image_owner};
use super::status::{self, Facts};
use super::writer::{Wanted, Writer};
use super::{Pods, View, admission, conditions, node_state, unserved};
use crate::cri_config::sandbox;
use crate::field::Addresses;
use crate::objects::Objects;
use crate::probes::{self, Probes, Surroundings};
use crate::tokens::Tokens;
use crate::volumes::{self, Mounted, Which};

/// Before trying again what the runtime or the kernel refused.
pub(super) const RETRY: SignedDuration = SignedDuration::from_secs(1);
/// Before trying again to bring volumes up to date, doubled with each failure up to the longest.
const RETRY_REFRESH: SignedDuration = SignedDuration::from_secs(1);
const RETRY_REFRESH_LONGEST: SignedDuration = SignedDuration::from_secs(122);
/// How often volumes with a limit are measured.
const MEASURE: SignedDuration = SignedDuration::from_secs(10);
/// An evicted pod ends at once.
const EVICTION_GRACE: i64 = 1;

pub(super) struct Worker {
    pub(super) context: Arc<Context>,
    /// All pods of the node.
    pub(super) pods: Pods,
    pub(super) mailbox: Arc<Mailbox>,
    /// The pod with the resources that it was granted, and the status that the kubelet knows.
    pub(super) pod: Arc<Pod>,
    /// The pod as the API server has it.
    pub(super) seen: Arc<Pod>,
    seen_changed: bool,
    /// What shows a static pod in the API, once it is there.
    mirror: Option<Arc<Pod>>,
    pub(super) memory: Memory,
    pub(super) observed: Arc<Observed>,
    /// Where the volumes are, once they are set up.
    pub(super) volumes: Option<HashMap<String, Mounted>>,
    /// What the pod refers to.
    pub(super) objects: Objects,
    tokens: Tokens,
    /// Whether volumes made of data are older than that.
    stale: bool,
    refresh_failures: u32,
    pub(super) gone: bool,
    pub(super) writer: Writer,
    view: watch::Sender<View>,
    published: Option<PodStatus>,
    /// Containers whose back-off was told, and for which end of theirs.
    told: HashMap<String, Timestamp>,
    probes: Probes,
    next_refresh: Option<Timestamp>,
    next_measure: Option<Timestamp>,
}

impl Worker {
    /// A worker that knows what stands; its mail finds it.
    pub(super) fn new(pods: Pods, mailbox: Arc<Mailbox>, view: watch::Sender<View>) -> Self {
        let context = pods.context.clone();
        let Standing { pod, gone, mirror } = mailbox.standing();
        let mut memory = Memory::of(&pod);
        let kept = Allocation::load(&context.config.pod_dir(pod.uid()));
        memory.resize = (!gone).then(|| Resize::of(&pod, kept));
        Self {
            objects: Objects::new(context.informers.clone(), pod.namespace(), mailbox.clone()),
            tokens: Tokens::new(context.client.clone()),
            stale: true,
            refresh_failures: 0,
            writer: Writer::start(context.client.clone()),
            context,
            pods,
            mailbox,
            seen: pod.clone(),
            seen_changed: false,
            mirror,
            pod: match &memory.resize {
                Some(resize) => Arc::new(resize.allocation.granted.put_into(&pod)),
                None => pod,
            },
            memory,
            observed: Arc::default(),
            volumes: None,
            gone,
            view,
            published: None,
            told: HashMap::new(),
            probes: Probes::default(),
            next_refresh: None,
            next_measure: None,
        }
    }

    pub(super) async fn run(mut self) {
        let mut first = true;
        loop {
            self.read_mail();
            debug!(pod = %self.pod.full_name(), "looks");
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
            if !self.enter().await {
                continue;
            }
            self.negotiate(now);
            let plan = plan::plan(&self.pod, self.gone, &self.observed, &self.memory, now);
            if plan.ended {
                self.objects.forget();
            }
            if plan.ended && self.memory.ending.is_none() {
                self.memory.ending = Some((now, self.pod.grace()));
            }
            self.keep_probes(&plan);
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
        for id in mail.pre_stopped {
            if let Some(end) = self.memory.ends.get_mut(&id) {
                end.hooking = false;
            }
        }
        if let Some(mirror) = mail.mirror {
            self.mirror = Some(mirror);
            self.seen_changed = true;
        }
        if mail.objects {
            self.stale = true;
            self.retry_references();
        }
        if let Some(verdict) = mail.verdict
            && !api::pod::is_terminal(&self.pod)
        {
            self.memory.verdict.get_or_insert(verdict);
        }
        for id in mail.not_stopped {
            self.memory.stopping.remove(&id);
        }
        for (instance, kind, good) in mail.probed {
            self.memory.probes.set(&instance, kind, good);
        }
        for (container, instance, outcome) in mail.hooked {
            self.memory.hooking.remove(&instance);
            if let Err(error) = outcome {
                // The details may hold secrets: they are for those who may read the pod, and not for all who read events.
                self.tell(&container, Warning, "FailedPostStartHook", "PostStartHook failed");
                let waiting = Waiting::new("PostStartHookError", error);
                self.memory.waiting.insert(container, waiting);
                self.memory.unhooked.insert(instance);
            }
        }
        for (container, image, pulled) in mail.pulled {
            self.take_pull(&container, &image, pulled);
        }
    }

    /// What waits for an object may have it now.
    fn retry_references(&mut self) {
        let memory = &mut self.memory;
        memory.retry_at.remove("");
        memory.retry_at.retain(|name, _| {
            memory
                .waiting
                .get(name)
                .is_none_or(|waiting| waiting.reason != CONFIG_ERROR)
        });
    }

    /// Takes the object as the API server has it, with the status that the kubelet knows: the server's may be behind.
    fn see(&mut self, seen: Arc<Pod>) {
        if seen.metadata.generation != self.seen.metadata.generation {
            // What did not work may do so now.
            self.memory.retry_at.clear();
        }
        let mut pod = match &self.memory.resize {
            Some(resize) => resize.allocation.granted.put_into(&seen),
            None => Pod::clone(&seen),
        };
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
        // Files can show these.
        self.stale |= self.pod.metadata.labels != pod.metadata.labels
            || self.pod.metadata.annotations != pod.metadata.annotations
            || self.pod.spec != pod.spec;
        self.pod = Arc::new(pod);
        self.seen = seen;
        self.seen_changed = true;
    }

    async fn look(&mut self) -> cri::Result<()> {
        let (runtime, name) = (&*self.context.runtime, self.context.runtime_name().await?);
        let mut observed = Observed::of(runtime, name, self.pod.uid(), &self.observed).await?;
        observed.read_messages(&self.pod, &self.observed).await;
        self.observed = Arc::new(observed);
        let alive = &self.observed.instances;
        let there = |id: &String| alive.iter().any(|instance| instance.id == *id);
        self.memory.ends.retain(|id, _| there(id));
        self.memory.stopping.retain(|id, _| there(id));
        self.memory.hooking.retain(there);
        self.memory.unhooked.retain(there);
        if let Some(resize) = &mut self.memory.resize {
            resize.ended.retain(there);
        }
        self.memory.probes.retain(&self.observed);
        Ok(())
    }

    /// Whether the pod must end, and what must be refreshed.
    async fn judge(&mut self, now: Timestamp) {
        if self.gone || self.pod.deletion().is_some() || self.memory.verdict.is_some() {
            (self.next_refresh, self.next_measure) = (None, None);
            self.objects.forget();
            return;
        }
        if !is_taken_in(&self.pod) && self.observed.sandboxes.is_empty() {
            let refusal = node_state::refusal(&self.pod, &self.context.state.borrow());
            if let Some((reason, message)) = refusal {
                return self.refuse(reason.into(), message);
            }
        }
        // What runs already was admitted by an earlier kubelet.
        let refusal = self.observed.sandboxes.is_empty().then(|| {
            let allowed = &self.context.config.allowed_unsafe_sysctls;
            admission::refusal(&self.pod, allowed, self.context.kernel)
        });
        if let Some(refusal) = refusal.flatten() {
            return self.refuse(refusal.reason, refusal.message);
        }
        if plan::active_deadline(&self.pod).is_some_and(|deadline| deadline <= now)
            && !plan::is_over(&self.pod, &self.observed, &self.memory)
        {
            let message = "Pod was active on the node longer than the specified deadline";
            self.context
                .events
                .record(&self.pod.reference(), Normal, "DeadlineExceeded", message);
            self.memory.verdict = Some(Verdict {
                reason: "DeadlineExceeded".into(),
                message: message.into(),
                grace: None,
                disrupts: false,
            });
            return;
        }
        if self.observed.sandbox().is_none() {
            // What has no sandbox has its volumes brought up to date with the next one.
            (self.next_refresh, self.next_measure) = (None, None);
            return;
        }
        let due = self.next_refresh.is_some_and(|at| at <= now);
        if std::mem::take(&mut self.stale) || due {
            self.refresh_volumes(now).await;
        }
        if volumes::limited(&self.pod) && *self.next_measure.get_or_insert(later(now, MEASURE)) <= now {
            self.next_measure = Some(later(now, MEASURE));
            let measured = self.measure().await;
            if let Some(message) = measured {
                self.context
                    .events
                    .record(&self.pod.reference(), Warning, "Evicted", message.clone());
                self.memory.verdict = Some(Verdict {
                    reason: "Evicted".into(),
                    message,
                    grace: Some(EVICTION_GRACE),
                    disrupts: false,
                });
            }
        }
    }

    /// The pod is not taken in.
    pub(super) fn refuse(&mut self, reason: String, message: String) {
        let said = format!("Pod was rejected: {message}");
        self.context
            .events
            .record(&self.pod.reference(), Warning, &reason, message);
        self.memory.verdict = Some(Verdict {
            reason,
            message: said,
            grace: None,
            disrupts: false,
        });
    }

    /// Why the pod writes too much, if it does.
    async fn measure(&self) -> Option<String> {
        let mut layers = BTreeMap::new();
        for (_, container) in self.pod.containers() {
            let Some(instance) = self.observed.latest(&container.name) else {
                continue;
            };
            let request = ContainerStatsRequest {
                container_id: instance.id.clone(),
            };
            // What the runtime cannot measure counts as nothing.
            let stats = self.context.runtime.container_stats(request).await;
            let layer = stats.ok().and_then(|answer| answer.stats?.writable_layer?.used_bytes);
            layers.insert(container.name.clone(), layer.map_or(0, |used| used.value));
        }
        let (pod, directory) = (self.pod.clone(), self.pod_dir());
        let logs = self.context.config.pod_logs_dir.join(sandbox::log_directory(&self.pod));
        let measure = move || {
            let used = volumes::Used::measure(&pod, &directory, &logs, layers);
            volumes::over_limit(&pod, &used)
        };
        tokio::task::spawn_blocking(measure).await.ok().flatten()
    }

    fn tell_unserved(&self) {
        for message in unserved::messages(&self.pod, self.context.kernel) {
            self.context
                .events
                .record(&self.pod.reference(), Warning, "FieldNotServed", message);
        }
    }

    fn keep_probes(&mut self, plan: &Plan) {
        if !self.pod.containers().any(|(_, container)| probes::any(container)) {
            return;
        }
        let surroundings = Arc::new(Surroundings {
            runtime: self.context.runtime.clone(),
            events: self.context.events.clone(),
            mailbox: self.mailbox.clone(),
            metrics: self.context.metrics.clone(),
            ip: self.ip(),
        });
        self.probes.keep(
            &self.pod,
            &self.observed,
            &self.memory.probes,
            plan.ended,
            &surroundings,
        );
    }

    fn tell_back_offs(&mut self, plan: &Plan) {
        for (name, _) in &plan.held_back {
            let ended = self.observed.latest(name).map(|instance| instance.finished());
            let Some(ended) = ended.or(self.memory.reset.get(name).copied()) else {
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
        let about = match self.pod.role(container) {
            Some(role) => self.pod.container_reference(role, container),
            None => self.pod.reference(),
        };
        self.context.events.record(&about, kind, reason, message);
    }

    fn publish(&mut self, plan: &Plan, now: Timestamp) {
        // What is being taken away says nothing of how the pod was.
        if self.memory.cleaning {
            self.show();
            return;
        }
        let facts = Facts {
            host_ips: &self.context.host_ips,
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
        self.show();
        if (changed || std::mem::take(&mut self.seen_changed)) && !self.gone {
            self.published = Some(status.clone());
            let shown = match api::pod::is_static(&self.pod) {
                true => self.mirror.clone(),
                false => Some(self.seen.clone()),
            };
            if let Some(pod) = shown {
                self.writer.write(Wanted {
                    pod,
                    status,
                    forget: false,
                });
            }
        }
    }

    fn show(&self) {
        self.view.send_replace(View {
            pod: self.pod.clone(),
            observed: self.observed.clone(),
            released: self.memory.released,
        });
    }

    pub(super) fn pod_dir(&self) -> PathBuf {
        self.context.config.pod_dir(self.pod.uid())
    }

    /// The pod's first address; empty while it has none.
    pub(super) fn ip(&self) -> String {
        self.addresses().pod.into_iter().next().unwrap_or_default()
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

    async fn mount(&self, which: Which) -> Result<HashMap<String, Mounted>, volumes::Failure> {
        let context = volumes::Context {
            client: &self.context.client,
            objects: &self.objects,
            tokens: &self.tokens,
            addresses: self.addresses(),
            capacity: self.context.capacity,
        };
        volumes::set_up(&self.pod, &self.pod_dir(), which, &context).await
    }

    pub(super) async fn set_up_volumes(&mut self) -> Result<(), volumes::Failure> {
        self.stale = false;
        let mounted = tokio::select! {
            mounted = self.mount(Which::All) => mounted?,
            // What a server that does not answer would have given is no longer wanted.
            () = self.mailbox.ends() => return Err(volumes::Failure::ended()),
        };
        self.volumes = Some(mounted);
        self.next_refresh = self.tokens.renewal();
        Ok(())
    }

    /// Brings what objects say into the files of running containers.
    async fn refresh_volumes(&mut self, now: Timestamp) {
        if !volumes::follows_objects(&self.pod) {
            return;
        }
        match self.mount(Which::Data).await {
            Ok(_) => {
                self.refresh_failures = 0;
                self.next_refresh = self.tokens.renewal();
            }
            Err(failure) => {
                self.context
                    .events
                    .record(&self.pod.reference(), Warning, failure.reason(), failure.to_string());
                let delay = RETRY_REFRESH * 2i32.saturating_pow(self.refresh_failures.min(16));
                self.refresh_failures += 1;
                self.next_refresh = Some(later(now, delay.min(RETRY_REFRESH_LONGEST)));
            }
        }
    }

    /// The container waits for this reason; tried again later.
    pub(super) fn hold(&mut self, name: &str, waiting: Waiting, again: SignedDuration) {
        self.memory.waiting.insert(name.to_owned(), waiting);
        self.memory
            .retry_at
            .insert(name.to_owned(), later(Timestamp::now(), again));
    }

    fn take_pull(&mut self, key: &str, image: &str, pulled: crate::image::Pulled) {
        let container = image_owner(key);
        self.memory.pulling.remove(container);
        let now = Timestamp::now();
        let message = pulled.message(image);
        match pulled.outcome {
            Ok(found) => {
                self.tell(container, Normal, "Pulled", message);
                self.memory.pulls.reset(image);
                self.memory.failed_pulls.remove(image);
                self.memory.pulled.insert(key.to_owned(), found.id);
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
