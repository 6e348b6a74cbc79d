//! Resizing a pod in place: asking the node's ledger, putting the grant in force, and saying how it goes.
//!
//! ```text
//! spec ─ask─> ledger ─┬─ not now, not ever ─> PodResizePending
//!                     └─ granted ─> PodResizeInProgress: pod's cgroup widened ─> containers, by the runtime or by a restart
//!                                                        ─> pod's cgroup as granted ─> ResizeCompleted
//! ```

use std::collections::HashSet;

use client::EventType::{Normal, Warning};
use cri::v1::{ContainerStatsRequest, PodSandboxStatsRequest, UInt64Value, UpdateContainerResourcesRequest};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodCondition, ResourceRequirements};
use serde::Serialize;
use tracing::warn;

use super::allocation::{self, Allocation, Change, Shares};
use super::ledger::{Amount, Ask, Verdict};
use super::observed::State;
use super::pod::{PodExt, Role};
use super::worker::{Worker, later};
use super::{conditions, plan};
use crate::cri_config::resources::{self, PodLimits};

/// Before trying again what could not be put in force.
const RETRY: SignedDuration = SignedDuration::from_secs(10);

/// What a pod waits for that wants to be resized.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// `Deferred` or `Infeasible`.
    pub reason: &'static str,
    /// Why.
    pub message: String,
    /// The generation of the pod that asks.
    pub generation: Option<i64>,
    /// Since when it waits.
    pub since: Timestamp,
}

/// A grant that is being put in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The generation of the pod that was granted.
    pub generation: Option<i64>,
    /// Why it could not be done yet.
    pub error: Option<String>,
}

/// How far the resizes of a pod are.
#[derive(Debug, Clone)]
pub struct Resize {
    /// What was granted and what is in force.
    pub allocation: Allocation,
    /// The limits of the pod's cgroup.
    limits: PodLimits,
    /// What was asked for and not granted.
    pub pending: Option<Pending>,
    /// What was granted and is not in force.
    pub progress: Option<Progress>,
    retry_at: Option<Timestamp>,
    /// Instances that were ended only to start with other resources.
    pub ended: HashSet<String>,
    pub(super) held: bool,
    /// The generation at which nothing was left to ask for.
    content: Option<i64>,
}

/// Whether something is to be put in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing.
    No,
    /// It failed; not before then.
    At(Timestamp),
    /// Now.
    Now,
}

impl Resize {
    /// Takes up what an earlier kubelet kept, if it kept something.
    pub fn of(pod: &Pod, kept: Option<Allocation>) -> Self {
        let allocation = kept.unwrap_or_else(|| Allocation::new(pod));
        let said = |kind: &str| api::pod::condition(pod, kind);
        let pending = said("PodResizePending").map(|said| Pending {
            reason: match said.reason.as_deref() {
                Some("Infeasible") => "Infeasible",
                _ => "Deferred",
            },
            message: said.message.clone().unwrap_or_default(),
            generation: said.observed_generation,
            since: said
                .last_transition_time
                .as_ref()
                .map_or_else(Timestamp::now, |time| time.0),
        });
        let progress = (!allocation.settled()).then(|| {
            let said = said("PodResizeInProgress");
            Progress {
                generation: said.map_or(pod.metadata.generation, |said| said.observed_generation),
                error: said.and_then(|said| said.message.clone()),
            }
        });
        Self {
            limits: resources::pod(&allocation.actual.put_into(pod)),
            allocation,
            pending,
            progress,
            retry_at: None,
            ended: HashSet::new(),
            held: false,
            content: None,
        }
    }

    /// The limits that the pod's cgroup is to have now: those granted, but no less than any container still has.
    fn target(&self, pod: &Pod) -> PodLimits {
        let granted = resources::pod(pod);
        if self.containers_settled() {
            granted
        } else {
            granted.wider(self.limits)
        }
    }

    fn containers_settled(&self) -> bool {
        let whole = self.allocation.granted.pod.as_ref();
        let only_containers = Shares {
            pod: whole.cloned(),
            containers: self.allocation.actual.containers.clone(),
        };
        only_containers.matches(&self.allocation.granted)
    }

    /// Whether the runtime or the pod's cgroup is to be told something. `pod` has the grant in its spec.
    pub fn due(&self, pod: &Pod, now: Timestamp) -> Due {
        if self.progress.is_none() {
            return Due::No;
        }
        if let Some(at) = self.retry_at.filter(|at| *at > now) {
            return Due::At(at);
        }
        let change = allocation::change(pod, &self.allocation);
        let whole = change.restart.is_empty() && self.allocation.granted.pod != self.allocation.actual.pod;
        if !change.update.is_empty() || whole || self.limits != self.target(pod) {
            Due::Now
        } else {
            Due::No
        }
    }

    /// The conditions about it, before their times.
    pub fn conditions(&self) -> impl Iterator<Item = PodCondition> + '_ {
        let pending = self.pending.iter().map(|pending| PodCondition {
            type_: conditions::RESIZE_PENDING.into(),
            reason: Some(pending.reason.into()),
            message: Some(pending.message.clone()),
            observed_generation: pending.generation,
            ..Default::default()
        });
        let progress = self.progress.iter().map(|progress| PodCondition {
            type_: conditions::RESIZE_IN_PROGRESS.into(),
            reason: progress.error.as_ref().map(|_| "Error".into()),
            message: progress.error.clone(),
            observed_generation: progress.generation,
            ..Default::default()
        });
        pending.chain(progress)
    }
}

/// What an event says of a resize.
fn message(what: &str, pod: &Pod, generation: Option<i64>, error: Option<&str>) -> String {
    #[derive(Serialize)]
    struct Named<'a> {
        name: &'a str,
        resources: ResourceRequirements,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Summary<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        resources: Option<&'a ResourceRequirements>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        init_containers: Vec<Named<'a>>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        containers: Vec<Named<'a>>,
        generation: i64,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<&'a str>,
    }
    let named = |apps: bool| {
        let containers = pod.containers().filter(|(role, _)| (*role == Role::App) == apps);
        let named = containers.map(|(_, container)| Named {
            name: &container.name,
            resources: container.resources.clone().unwrap_or_default(),
        });
        named.collect()
    };
    let summary = Summary {
        resources: pod.spec().and_then(|spec| spec.resources.as_ref()),
        init_containers: named(false),
        containers: named(true),
        generation: generation.unwrap_or(0),
        error,
    };
    match serde_json::to_string(&summary) {
        Ok(summary) => format!("Pod resize {what}: {summary}"),
        Err(_) => format!("Pod resize {what}"),
    }
}

/// What is wrong with limits that are to become smaller than what is used, in upstream's words; usage in bytes.
fn refuse_shrinking(change: &Change, pod_usage: Option<u64>, usage: impl Fn(&str) -> Option<u64>) -> Option<String> {
    let over = |limit: i64, usage: Option<u64>| usage.filter(|usage| *usage >= limit.unsigned_abs());
    let mut errors = Vec::new();
    if let Some((limit, usage)) = change
        .pod_shrinks
        .and_then(|limit| Some((limit, over(limit, pod_usage)?)))
    {
        errors.push(format!(
            "attempting to set pod memory limit ({limit}) below current usage ({usage})"
        ));
    }
    for (name, limit) in &change.shrinking {
        if let Some(usage) = over(*limit, usage(name)) {
            errors.push(format!(
                "attempting to set container {name:?} memory limit ({limit}) below current usage ({usage})"
            ));
        }
    }
    match errors.as_slice() {
        [] => None,
        [error] => Some(format!("cannot decrease memory limits: {error}")),
        errors => Some(format!("cannot decrease memory limits: [{}]", errors.join(", "))),
    }
}

/// Whether a kubelet has taken the pod in: then it has a time of its start.
pub fn is_taken_in(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| status.start_time.is_some())
}

impl Worker {
    /// Whether nothing is to become of the pod any more.
    pub(super) fn is_over(&self) -> bool {
        self.gone
            || self.pod.deletion().is_some()
            || self.memory.verdict.is_some()
            || plan::is_over(&self.pod, &self.observed, &self.memory)
    }

    /// Asks the ledger for what the pod wants, and says what comes of it; says too when all of it is in force.
    pub(super) fn negotiate(&mut self, now: Timestamp) {
        let over = self.is_over();
        let Some(resize) = &mut self.memory.resize else { return };
        let (uid, ledger) = (self.pod.uid().to_owned(), &self.context.ledger);
        if over {
            (resize.pending, resize.progress) = (None, None);
            ledger.withdraw(&uid);
            // Of what was deleted by force the API server knows nothing any more, and what it held is given to others.
            if self.gone || !self.observed.any_running() {
                ledger.release(&uid);
            }
            return;
        }
        let generation = self.seen.metadata.generation;
        let mut said = Vec::new();
        if generation.is_none() || resize.content != generation {
            let desired = Shares::of(&self.seen);
            if desired.matches(&resize.allocation.granted) {
                resize.content = generation;
                resize.pending = None;
                ledger.withdraw(&uid);
            } else {
                let wanted = desired.put_into(&self.seen);
                let ask = Ask {
                    wants: Amount::of(&wanted),
                    priority: wanted.spec().and_then(|spec| spec.priority).unwrap_or(0),
                    guaranteed: api::pod::stored_qos_class(&wanted) == api::pod::Qos::Guaranteed,
                    since: resize.pending.as_ref().map_or(now, |pending| pending.since),
                };
                let since = ask.since;
                let refused = match ledger.ask(&uid, ask, &self.mailbox) {
                    Verdict::Granted => None,
                    Verdict::Deferred(message) => Some(("Deferred", message)),
                    Verdict::Infeasible(message) => Some(("Infeasible", message)),
                };
                if let Some((reason, message)) = refused {
                    let pending = Pending {
                        reason,
                        message,
                        generation,
                        since,
                    };
                    if resize.pending.as_ref() != Some(&pending) {
                        let text = self::message(reason, &wanted, generation, Some(&pending.message));
                        let event = if reason == "Deferred" {
                            "ResizeDeferred"
                        } else {
                            "ResizeInfeasible"
                        };
                        said.push((Warning, event, text));
                        resize.pending = Some(pending);
                    }
                } else {
                    let running = |name: &str| {
                        let latest = self.observed.latest(name);
                        latest.is_some_and(|instance| matches!(instance.state, State::Running | State::Unknown))
                    };
                    let has_sandbox = self.observed.sandbox().is_some();
                    for name in resize.allocation.granted.differing(&desired) {
                        // What failed for want of resources need not wait any more.
                        self.memory.restarts.reset(name);
                    }
                    resize.allocation.grant(desired, running, has_sandbox);
                    resize.pending = None;
                    resize.retry_at = None;
                    resize.content = generation;
                    resize.progress = Some(Progress {
                        generation,
                        error: None,
                    });
                    said.push((
                        Normal,
                        "ResizeStarted",
                        self::message("started", &wanted, generation, None),
                    ));
                    self.pod = resize.allocation.granted.put_into(&self.pod).into();
                    self.keep_allocation();
                }
            }
        }
        self.complete(&mut said);
        for (kind, reason, text) in said {
            self.context.events.record(&self.pod.reference(), kind, reason, text);
        }
    }

    fn complete(&mut self, said: &mut Vec<(client::EventType, &'static str, String)>) {
        let Some(resize) = &mut self.memory.resize else { return };
        let in_force = resize.allocation.settled()
            && (self.observed.sandbox().is_none() || resize.limits == resize.target(&self.pod));
        if let Some(progress) = resize.progress.take_if(|_| in_force) {
            said.push((
                Normal,
                "ResizeCompleted",
                message("completed", &self.pod, progress.generation, None),
            ));
            self.context.ledger.hold(self.pod.uid(), Amount::of(&self.pod));
        }
    }

    /// What was granted, for the next kubelet. A pod without a directory has nothing in force yet.
    fn keep_allocation(&self) {
        let (Some(resize), directory) = (&self.memory.resize, self.pod_dir()) else {
            return;
        };
        if directory.exists()
            && let Err(error) = resize.allocation.save(&directory)
        {
            warn!(pod = %self.pod.full_name(), %error, "what the pod was granted could not be kept");
        }
    }

    /// The pod's cgroup was made, with the limits of the pod.
    pub(super) fn sandbox_has_resources(&mut self) {
        if let Some(resize) = &mut self.memory.resize {
            resize.limits = resources::pod(&self.pod);
            resize.allocation.actual.pod.clone_from(&resize.allocation.granted.pod);
        }
        self.keep_allocation();
    }

    /// A container was started with what it was granted.
    pub(super) fn container_has_resources(&mut self, name: &str) {
        if let Some(resize) = &mut self.memory.resize
            && !resize.allocation.settled()
        {
            resize.allocation.enact(name);
            self.keep_allocation();
        }
    }

    /// An instance is being ended; if that is to give it other resources, it starts again whatever its policy says.
    pub(super) fn note_end_for_resize(&mut self, id: &str, name: &str) {
        let pod = self.pod.clone();
        if let Some(resize) = &mut self.memory.resize
            && let Some((role, container)) = pod.container(name)
            && allocation::ends_for_resize(&pod, role, container, Some(&resize.allocation))
        {
            resize.ended.insert(id.to_owned());
        }
    }

    /// Puts in force what was granted, as far as that needs no restart.
    pub(super) async fn resize(&mut self) -> bool {
        let outcome = self.try_resize().await;
        self.keep_allocation();
        let Some(resize) = &mut self.memory.resize else {
            return true;
        };
        let generation = self.pod.metadata.generation;
        let error = outcome.err();
        resize.retry_at = error.is_some().then(|| later(Timestamp::now(), RETRY));
        let progress = resize.progress.get_or_insert(Progress {
            generation,
            error: None,
        });
        if let Some(error) = error
            .as_deref()
            .filter(|error| progress.error.as_deref() != Some(*error))
        {
            let text = message("error", &self.pod, progress.generation, Some(error));
            self.context
                .events
                .record(&self.pod.reference(), Warning, "ResizeError", text);
        }
        progress.error = error;
        true
    }

    async fn try_resize(&mut self) -> Result<(), String> {
        let pod = self.pod.clone();
        let Some(resize) = &self.memory.resize else {
            return Ok(());
        };
        let (granted, before) = (resources::pod(&pod), resize.limits);
        let change = allocation::change(&pod, &resize.allocation);
        self.refuse_shrinking(&change).await?;
        let set = |limits| {
            let written = self.context.cgroups.limit(&pod, limits);
            written.map_err(|error| error.to_string())
        };
        let wider = granted.wider(before);
        if wider != before {
            set(wider)?;
        }
        for name in &change.update {
            let (Some((role, container)), Some(instance)) = (pod.container(name), self.observed.latest(name)) else {
                continue;
            };
            let linux = resources::container(
                &pod,
                container,
                role,
                self.context.memory_capacity,
                self.context.cgroups.unified(),
            );
            let request = UpdateContainerResourcesRequest {
                container_id: instance.id.clone(),
                linux: Some(linux),
                ..Default::default()
            };
            let updated = self.context.runtime.update_container_resources(request).await;
            updated.map_err(|error| error.message)?;
            if let Some(resize) = &mut self.memory.resize {
                resize.limits = wider;
                resize.allocation.enact(name);
            }
        }
        let Some(resize) = &mut self.memory.resize else {
            return Ok(());
        };
        resize.limits = wider;
        if resize.containers_settled() {
            let written = self.context.cgroups.limit(&pod, granted);
            written.map_err(|error| error.to_string())?;
            resize.limits = granted;
            resize.allocation.actual.pod.clone_from(&resize.allocation.granted.pod);
        }
        Ok(())
    }

    /// The kernel would kill what does not fit any more.
    async fn refuse_shrinking(&self, change: &Change) -> Result<(), String> {
        if change.shrinking.is_empty() && change.pod_shrinks.is_none() {
            return Ok(());
        }
        let bytes = |value: Option<UInt64Value>| value.map(|value| value.value);
        let runtime = &self.context.runtime;
        let mut pod_usage = None;
        if let Some(sandbox) = self.observed.sandbox().filter(|_| change.pod_shrinks.is_some()) {
            let request = PodSandboxStatsRequest {
                pod_sandbox_id: sandbox.id.clone(),
            };
            let stats = runtime.pod_sandbox_stats(request).await;
            let linux = stats
                .map_err(|error| error.message)?
                .stats
                .and_then(|stats| stats.linux);
            pod_usage = linux.and_then(|linux| bytes(linux.memory?.usage_bytes));
        }
        let mut usage = std::collections::HashMap::new();
        for (name, _) in &change.shrinking {
            let Some(instance) = self.observed.latest(name) else {
                continue;
            };
            let request = ContainerStatsRequest {
                container_id: instance.id.clone(),
            };
            let stats = runtime.container_stats(request).await.map_err(|error| error.message)?;
            let memory = stats.stats.and_then(|stats| stats.memory);
            usage.extend(bytes(memory.and_then(|memory| memory.usage_bytes)).map(|used| (name.clone(), used)));
        }
        refuse_shrinking(change, pod_usage, |name| usage.get(name).copied()).map_or(Ok(()), Err)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pods::fixtures::{NOW, at};

    fn pod(cpu: &str) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "uid": "u", "generation": 3}, "spec": {
            "initContainers": [{"name": "side", "restartPolicy": "Always"}],
            "containers": [{"name": "a", "resources": {"limits": {"cpu": cpu}, "requests": {"cpu": cpu}}}],
        }}))
        .unwrap()
    }

    #[test]
    fn what_events_say() {
        assert_eq!(
            message("started", &pod("1"), Some(3), None),
            r#"Pod resize started: {"initContainers":[{"name":"side","resources":{}}],"containers":[{"name":"a","resources":{"limits":{"cpu":"1"},"requests":{"cpu":"1"}}}],"generation":3}"#
        );
        let deferred = message("Deferred", &pod("1"), Some(3), Some("no room"));
        assert!(deferred.ends_with(r#""generation":3,"error":"no room"}"#), "{deferred}");
    }

    #[test]
    fn limits_below_what_is_used() {
        let change = Change {
            shrinking: vec![("a".into(), 100), ("b".into(), 100)],
            pod_shrinks: Some(200),
            ..Change::default()
        };
        for (pod, a, b, want) in [
            (Some(150), 50, 99, None),
            (
                Some(150),
                50,
                100,
                Some(
                    r#"cannot decrease memory limits: attempting to set container "b" memory limit (100) below current usage (100)"#,
                ),
            ),
            (
                Some(300),
                200,
                0,
                Some(
                    r#"cannot decrease memory limits: [attempting to set pod memory limit (200) below current usage (300), attempting to set container "a" memory limit (100) below current usage (200)]"#,
                ),
            ),
        ] {
            let got = refuse_shrinking(&change, pod, |name| Some(if name == "a" { a } else { b }));
            assert_eq!(got.as_deref(), want);
        }
    }

    #[test]
    fn what_is_due() {
        let mut resize = Resize::of(&pod("1"), None);
        assert_eq!(resize.due(&pod("1"), at(NOW)), Due::No);
        let after = pod("2");
        resize.allocation.grant(Shares::of(&after), |_| true, true);
        resize.progress = Some(Progress {
            generation: Some(4),
            error: None,
        });
        assert_eq!(resize.due(&after, at(NOW)), Due::Now);
        resize.retry_at = Some(at(NOW + 5));
        assert_eq!(resize.due(&after, at(NOW)), Due::At(at(NOW + 5)));
        assert_eq!(resize.due(&after, at(NOW + 5)), Due::Now);
        resize.allocation.enact("a");
        assert_eq!(
            resize.due(&after, at(NOW + 5)),
            Due::Now,
            "the pod's cgroup is still the old one"
        );
        resize.limits = resources::pod(&after);
        assert_eq!(resize.due(&after, at(NOW + 5)), Due::No);
    }

    #[test]
    fn a_new_kubelet_goes_on() {
        let mut allocation = Allocation::new(&pod("1"));
        allocation.grant(Shares::of(&pod("2")), |_| true, true);
        let mut pod = pod("2");
        pod.status = serde_json::from_value(json!({"conditions": [
            {"type": "PodResizeInProgress", "status": "True", "observedGeneration": 2},
        ]}))
        .unwrap();
        let resize = Resize::of(&pod, Some(allocation));
        assert_eq!(resize.progress.as_ref().unwrap().generation, Some(2));
        assert_eq!(resize.due(&pod, at(NOW)), Due::Now);
        assert!(Resize::of(&pod, None).progress.is_none());
    }
}
