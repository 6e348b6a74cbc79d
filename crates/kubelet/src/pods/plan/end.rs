//! How containers end: one by itself, or all of a pod's.
//!
//! Every container of a pod that ends is told so at once, and its hook is run at once; app containers are then stopped together, and a
//! sidecar when those and the sidecars after it have ended. The time for all of this is one: the pod's grace period. When it is over
//! nobody waits any longer for a hook or a turn.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::{Action, Plan, prune};
use crate::pods::memory::Memory;
use crate::pods::observed::{Instance, Observed, State};
use crate::pods::pod::{PodExt, Role};

/// The seconds that any container gets to end, however little its pod has left.
pub const LEAST_GRACE: i64 = 2;

/// Ends the whole pod; `removed` says that nothing of it is to stay, `gone` that the API server has forgotten it.
pub fn plan(pod: &Pod, removed: bool, gone: bool, observed: &Observed, memory: &Memory, now: Timestamp) -> Plan {
    let mut plan = Plan {
        ended: true,
        ..Plan::default()
    };
    let (since, allowed) = memory.ending.unwrap_or((now, i64::MAX));
    let allowed = memory
        .verdict
        .as_ref()
        .and_then(|verdict| verdict.grace)
        .unwrap_or(allowed);
    // A grace period can be shortened while it runs, never lengthened.
    let deadline = since
        .saturating_add(SignedDuration::from_secs(allowed.min(pod.grace()).max(0)))
        .unwrap_or(Timestamp::MAX);
    let alive: Vec<&Instance> = observed
        .instances
        .iter()
        .filter(|instance| matches!(instance.state, State::Running | State::Unknown))
        .collect();
    if !alive.is_empty() {
        let next = next(pod, &alive);
        for one in alive {
            let container = pod.container(&one.name).map(|(_, container)| container);
            let turn = next.contains(&one.id.as_str());
            instance(container, one, deadline, turn, None, memory, now, &mut plan);
        }
        return plan;
    }
    for sandbox in observed.sandboxes.iter().filter(|sandbox| sandbox.ready) {
        plan.actions.push(Action::StopSandbox { id: sandbox.id.clone() });
    }
    if !removed {
        // What was on the node's disk is for others now.
        if !memory.released {
            plan.actions.push(Action::Release);
        }
        match memory
            .verdict
            .as_ref()
            .is_some_and(|verdict| verdict.reason == "Evicted")
        {
            true => plan
                .actions
                .extend(observed.instances.iter().map(|instance| Action::RemoveInstance {
                    id: instance.id.clone(),
                })),
            // The containers of a pod that ended stay for their logs until it is deleted.
            false => prune(observed, &mut plan),
        }
        return plan;
    }
    plan.removes = true;
    plan.actions
        .extend(observed.instances.iter().map(|instance| Action::RemoveInstance {
            id: instance.id.clone(),
        }));
    plan.actions.extend(
        observed
            .sandboxes
            .iter()
            .map(|sandbox| Action::RemoveSandbox { id: sandbox.id.clone() }),
    );
    if !memory.cleaned {
        plan.actions.push(Action::CleanUp);
    }
    if gone {
        plan.finished = plan.actions.is_empty();
    } else if !memory.forgotten {
        plan.actions.push(Action::Forget);
    }
    plan
}

/// The next step towards the end of one instance, which is to be over at `deadline`. `turn` says that nothing else has to end before.
#[allow(clippy::too_many_arguments)] // a step is made of all of these
pub fn instance(
    container: Option<&Container>,
    instance: &Instance,
    deadline: Timestamp,
    turn: bool,
    why: Option<String>,
    memory: &Memory,
    now: Timestamp,
    plan: &mut Plan,
) {
    let left = seconds(deadline.duration_since(now));
    let (hooking, told) = match memory.ends.get(&instance.id) {
        Some(end) => (end.hooking, true),
        None => (left > 0 && container.is_some_and(has_hook), false),
    };
    if !told {
        plan.actions.push(Action::End {
            id: instance.id.clone(),
            name: instance.name.clone(),
            grace: left,
            why,
            hook: hooking,
        });
    }
    if (hooking || !turn) && left > 0 {
        return plan.wake_at(deadline);
    }
    let sooner = memory.stopping.get(&instance.id).is_none_or(|at| {
        // Whole seconds apart: the same grace period, computed again, is not a shorter one.
        deadline.duration_since(*at) < SignedDuration::from_secs(-1) && at.duration_since(now).as_secs() > LEAST_GRACE
    });
    if sooner {
        plan.actions.push(Action::Stop {
            id: instance.id.clone(),
            grace: left.max(LEAST_GRACE),
        });
    }
}

fn has_hook(container: &Container) -> bool {
    container
        .lifecycle
        .as_ref()
        .is_some_and(|lifecycle| lifecycle.pre_stop.is_some())
}

/// Whole seconds; a begun one counts.
fn seconds(duration: SignedDuration) -> i64 {
    duration.as_secs() + i64::from(duration.subsec_nanos() > 0)
}

/// Whose turn it is: sidecars outlive the app containers, and end one after the other, the last one first.
fn next<'a>(pod: &Pod, alive: &[&'a Instance]) -> Vec<&'a str> {
    let sidecar = |instance: &Instance| {
        pod.containers()
            .position(|(role, container)| role == Role::Sidecar && container.name == instance.name)
    };
    let others: Vec<&str> = alive
        .iter()
        .filter(|instance| sidecar(instance).is_none())
        .map(|instance| instance.id.as_str())
        .collect();
    if !others.is_empty() {
        return others;
    }
    let last = alive.iter().max_by_key(|instance| sidecar(instance));
    last.map(|instance| instance.id.as_str()).into_iter().collect()
}
