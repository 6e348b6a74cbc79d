//! What to do next for a pod: a pure function of its object, of what the runtime has, of what the worker remembers, and of now.
//!
//! The worker does the actions, looks again, and asks again; when there is nothing to do, `wake` says when to ask though nothing happened.
//! The order within a pod is: sandbox, init containers one by one (sidecars stay), app containers all; and backwards at the end ([`end`]):
//! app containers all, sidecars one by one from the last, sandbox. A container can also want all of them to start anew ([`reset`]).

mod end;
pub mod reset;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::allocation;
use super::memory::{Memory, Waiting};
use super::observed::{Instance, Observed, Sandbox, State};
use super::pod::{PodExt, Role};
use super::resize::Due;
use crate::cri_config::labels;
use crate::words;

/// One step towards what the pod should be.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Make the pod's directories, volumes, cgroup and sandbox.
    CreateSandbox {
        /// How many sandboxes the pod had before.
        attempt: u32,
    },
    /// End what is in a sandbox and free its network.
    StopSandbox {
        /// Which.
        id: String,
    },
    /// Put in force what the pod was granted, as far as that needs no restart.
    Resize,
    /// Make and start an instance of a container.
    Start {
        /// The container of the spec.
        name: String,
        /// How many instances there were before.
        restarts: u32,
        /// Since when the last instance is gone, for its back-off.
        failed: Option<Timestamp>,
    },
    /// Say that a container ends, and do what it wants done before.
    End {
        /// Which instance.
        id: String,
        /// The container of the spec.
        name: String,
        /// Seconds that it has in all.
        grace: i64,
        /// What the event says besides its name.
        why: Option<String>,
        /// Whether its hook before the stop is run.
        hook: bool,
    },
    /// Tell a container to end.
    Stop {
        /// Which instance.
        id: String,
        /// Seconds until it is killed.
        grace: i64,
    },
    /// Forget an instance.
    RemoveInstance {
        /// Which.
        id: String,
    },
    /// Forget a sandbox.
    RemoveSandbox {
        /// Which.
        id: String,
    },
    /// Take away the volumes of a pod that is over and stays to be seen.
    Release,
    /// Take away volumes, cgroup, logs and directories.
    CleanUp,
    /// The containers of a pod that is to be deleted are gone: have the API server forget it.
    Forget,
}

/// What to do, what to say, and when to look again.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// In order; the first that fails ends the round.
    pub actions: Vec<Action>,
    /// When to plan again, if nothing happens before.
    pub wake: Option<Timestamp>,
    /// Containers that wait for their back-off.
    pub held_back: Vec<(String, Waiting)>,
    /// What is removed is removed because the pod is.
    pub removes: bool,
    /// The pod is over: it starts nothing any more.
    pub ended: bool,
    /// Nothing is left to do for this pod, ever.
    pub finished: bool,
}

impl Plan {
    fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }
}

/// Decides. `gone` says that the API server has no such pod any more.
pub fn plan(pod: &Pod, gone: bool, observed: &Observed, memory: &Memory, now: Timestamp) -> Plan {
    let removed = gone || pod.deletion().is_some();
    if removed || memory.verdict.is_some() || is_final(pod) {
        return end::plan(pod, removed, gone, observed, memory, now);
    }
    if reset::is_due(pod, observed) {
        return reset::plan(pod, observed, memory, now);
    }
    if is_over(pod, observed, memory) {
        return end::plan(pod, false, false, observed, memory, now);
    }
    let mut plan = run(pod, observed, memory, now);
    if let Some(deadline) = active_deadline(pod) {
        plan.wake_at(deadline);
    }
    plan
}

/// When the pod has been active for as long as it may.
pub fn active_deadline(pod: &Pod) -> Option<Timestamp> {
    let seconds = pod.spec.as_ref()?.active_deadline_seconds?;
    let started = pod.status.as_ref()?.start_time.as_ref()?.0;
    started.checked_add(SignedDuration::from_secs(seconds)).ok()
}

/// Whether the pod's status says that it is over: then it never is anything else.
fn is_final(pod: &Pod) -> bool {
    api::pod::is_terminal(pod)
}

/// Whether every container has ended for good, or an init container that is not tried again has failed.
pub fn is_over(pod: &Pod, observed: &Observed, memory: &Memory) -> bool {
    if is_final(pod) {
        return true;
    }
    let ended = |role, container: &Container| {
        observed.latest(&container.name).and_then(|instance| {
            let again = pod.restarts(role, container, instance.exit_code) || resized(memory, instance);
            (instance.state == State::Exited && !again).then_some(instance.exit_code)
        })
    };
    let mut apps = 0;
    for (role, container) in pod.containers() {
        match role {
            Role::Init if ended(role, container).is_some_and(|code| code != 0) => return true,
            Role::Init | Role::Sidecar | Role::Ephemeral => {}
            Role::App if ended(role, container).is_none() => return false,
            Role::App => apps += 1,
        }
    }
    apps > 0
}

/// Whether an instance ended only to start with other resources.
pub(super) fn resized(memory: &Memory, instance: &Instance) -> bool {
    let resize = memory.resize.as_ref();
    resize.is_some_and(|resize| resize.ended.contains(&instance.id))
}

fn run(pod: &Pod, observed: &Observed, memory: &Memory, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(sandbox) = observed.sandbox().filter(|sandbox| usable(pod, sandbox)) else {
        replace_sandbox(observed, memory, now, &mut plan);
        return plan;
    };
    for other in observed.sandboxes.iter().filter(|other| other.id != sandbox.id) {
        if other.ready {
            plan.actions.push(Action::StopSandbox { id: other.id.clone() });
        } else if !observed.instances.iter().any(|instance| instance.sandbox == other.id) {
            plan.actions.push(Action::RemoveSandbox { id: other.id.clone() });
        }
    }
    match memory.resize.as_ref().map(|resize| resize.due(pod, now)) {
        Some(Due::Now) => plan.actions.push(Action::Resize),
        Some(Due::At(at)) => plan.wake_at(at),
        Some(Due::No) | None => {}
    }
    // They may come while the pod still starts: that may be what is to be looked at.
    for container in pod.ephemeral() {
        match observed.latest(&container.name) {
            None => start(pod, Role::Ephemeral, &container, None, memory, now, &mut plan),
            Some(instance) if instance.state == State::Created => plan.actions.push(Action::RemoveInstance {
                id: instance.id.clone(),
            }),
            Some(_) => {}
        }
    }
    let apps_began = pod
        .containers()
        .any(|(role, container)| role == Role::App && observed.latest_in(&sandbox.id, &container.name).is_some());
    for (role, container) in pod.containers() {
        let current = observed.latest_in(&sandbox.id, &container.name);
        let last = observed.latest(&container.name);
        let mut go_on = true;
        match current.map(|instance| instance.state) {
            // Containers that ran before apps began and were removed since have done their work.
            None if role == Role::Init && apps_began => {}
            // In a new sandbox, init containers run again, and apps as after any exit.
            None if role != Role::App
                || last.is_none_or(|last| {
                    last.state != State::Exited || pod.restarts(role, container, last.exit_code)
                }) =>
            {
                start(pod, role, container, last, memory, now, &mut plan);
                go_on = role == Role::App || apps_began;
            }
            None => {}
            Some(State::Created | State::Unknown) => {
                // A kubelet ended between making and starting it.
                plan.actions.extend(current.map(|instance| Action::RemoveInstance {
                    id: instance.id.clone(),
                }));
                go_on = role == Role::App || apps_began;
            }
            Some(State::Running) => {
                let Some(instance) = current else { continue };
                if let Some((why, grace)) = ends_alone(pod, role, container, instance, memory) {
                    let allowed = SignedDuration::from_secs(grace.unwrap_or(pod.grace()));
                    let deadline = memory.ends.get(&instance.id).map(|end| end.deadline);
                    let deadline = deadline.unwrap_or(now.saturating_add(allowed).unwrap_or(Timestamp::MAX));
                    end::instance(
                        Some(container),
                        instance,
                        deadline,
                        true,
                        Some(why),
                        memory,
                        now,
                        &mut plan,
                    );
                }
                let up = !memory.hooking.contains(&instance.id)
                    && (role == Role::App || memory.probes.started(container, &instance.id));
                go_on = role != Role::Init && (up || apps_began && role == Role::Sidecar);
            }
            Some(State::Exited) => {
                let code = current.map_or(0, |instance| instance.exit_code);
                if pod.restarts(role, container, code) || current.is_some_and(|current| resized(memory, current)) {
                    start(pod, role, container, last, memory, now, &mut plan);
                    go_on = role == Role::App || apps_began;
                }
            }
        }
        if !go_on {
            break;
        }
    }
    // Last, as it can wait and what is to start cannot.
    prune(observed, &mut plan);
    plan
}

/// Why one instance ends though its pod goes on, and in how many seconds, where not what the pod says.
fn ends_alone(
    pod: &Pod,
    role: Role,
    container: &Container,
    instance: &Instance,
    memory: &Memory,
) -> Option<(String, Option<i64>)> {
    if !instance.hash.is_empty() && instance.hash != labels::hash(container) {
        return Some((
            format!("Container {} definition changed, will be restarted", container.name),
            None,
        ));
    }
    if memory.unhooked.contains(&instance.id) {
        return Some(("FailedPostStartHook".into(), None));
    }
    let allocation = memory.resize.as_ref().map(|resize| &resize.allocation);
    if allocation::ends_for_resize(pod, role, container, allocation) {
        return Some((format!("Container {} resize requires restart", container.name), None));
    }
    memory.probes.condemned(pod, role, container, &instance.id)
}

/// A sandbox that lost its address, or stands in the wrong network, cannot hold the pod.
fn usable(pod: &Pod, sandbox: &Sandbox) -> bool {
    sandbox.host_network == pod.host_network() && (sandbox.host_network || !sandbox.ips.is_empty())
}

fn replace_sandbox(observed: &Observed, memory: &Memory, now: Timestamp, plan: &mut Plan) {
    for sandbox in observed.sandboxes.iter() {
        let alive = observed
            .instances
            .iter()
            .any(|instance| instance.sandbox == sandbox.id && instance.state != State::Exited);
        if sandbox.ready || alive {
            plan.actions.push(Action::StopSandbox { id: sandbox.id.clone() });
        }
    }
    if !plan.actions.is_empty() {
        // What has ended with it may not be started again, and then no sandbox is needed.
        return;
    }
    if let Some(at) = memory.retry_at.get("").filter(|at| **at > now) {
        plan.wake_at(*at);
        return;
    }
    let attempt = observed
        .sandboxes
        .iter()
        .map(|sandbox| sandbox.attempt + 1)
        .max()
        .unwrap_or(0);
    plan.actions.push(Action::CreateSandbox { attempt });
}

fn start(
    pod: &Pod,
    role: Role,
    container: &Container,
    last: Option<&Instance>,
    memory: &Memory,
    now: Timestamp,
    plan: &mut Plan,
) {
    let name = &container.name;
    if memory.pulling.contains(name) {
        return;
    }
    if let Some(at) = memory.retry_at.get(name).filter(|at| **at > now) {
        return plan.wake_at(*at);
    }
    // An instance that was taken away to start anew still counts.
    let failed = last.map(Instance::finished).or(memory.reset.get(name).copied());
    if let Some((until, delay)) = failed.and_then(|failed| memory.restarts.until(name, failed, now)) {
        plan.wake_at(until);
        let delay = words::duration(delay.unsigned_abs());
        let message = format!(
            "back-off {delay} restarting failed container={name} pod={}",
            pod.full_name()
        );
        plan.held_back
            .push((name.clone(), Waiting::new("CrashLoopBackOff", message)));
        return;
    }
    let restarts = last.map_or_else(|| restarts_before(pod, role, name), |last| last.restarts + 1);
    plan.actions.push(Action::Start {
        name: name.clone(),
        restarts,
        failed,
    });
}

/// How many instances there were before, when the runtime has none of them any more.
fn restarts_before(pod: &Pod, role: Role, name: &str) -> u32 {
    let Some(known) = pod.container_status(role, name) else {
        return 0;
    };
    let had_begun = known
        .state
        .as_ref()
        .is_some_and(|state| state.running.is_some() || state.terminated.is_some());
    u32::try_from(known.restart_count).unwrap_or(0) + u32::from(had_begun)
}

/// Of each container's instances that ended, only the newest is kept, for its status and its log.
fn prune(observed: &Observed, plan: &mut Plan) {
    let mut kept = std::collections::HashSet::new();
    for instance in observed
        .instances
        .iter()
        .filter(|instance| instance.state == State::Exited)
    {
        if !kept.insert(&instance.name) {
            plan.actions.push(Action::RemoveInstance {
                id: instance.id.clone(),
            });
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
