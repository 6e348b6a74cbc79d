//! Starting all containers of a pod anew, in the sandbox and on the volumes that it has, because one of them ended in a way for which a
//! restart rule asks for that (`action: RestartAllContainers`).
//!
//! Every instance is ended, without its hook and with the least grace, and taken away; what is not there any more then starts as in a new
//! pod. The one that asked for it goes last: as long as it is there a new kubelet sees what is going on.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::{Action, Plan, end};
use crate::pods::memory::Memory;
use crate::pods::observed::{Instance, Observed, State};
use crate::pods::pod::PodExt;

/// Whether some container's end asks for it, or it is going on.
pub fn is_wanted(pod: &Pod, observed: &Observed) -> bool {
    let wanted = |container: &Container| {
        let last = observed.latest(&container.name);
        last.is_some_and(|instance| asks(container, instance))
    };
    api::pod::condition_is_true(pod, CONDITION) || pod.containers().any(|(_, container)| wanted(container))
}

/// The pod's condition while it is going on.
pub const CONDITION: &str = "AllContainersRestarting";

/// Whether it is wanted and something is still to be taken away.
pub fn is_due(pod: &Pod, observed: &Observed) -> bool {
    let there = |(_, container): (_, &Container)| observed.latest(&container.name).is_some();
    is_wanted(pod, observed) && pod.containers().any(there)
}

fn asks(container: &Container, instance: &Instance) -> bool {
    instance.state == State::Exited && api::pod::restarts_all(container, instance.exit_code)
}

/// The next steps of it.
pub fn plan(pod: &Pod, observed: &Observed, memory: &Memory, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let of_spec: Vec<(&Container, &Instance)> = observed
        .instances
        .iter()
        .filter_map(|instance| Some((pod.container(&instance.name)?.1, instance)))
        .collect();
    let alive = |instance: &Instance| matches!(instance.state, State::Running | State::Unknown);
    for (_, instance) in of_spec.iter().filter(|(_, instance)| alive(instance)) {
        end::instance(None, instance, now, true, None, memory, now, &mut plan);
    }
    if of_spec.iter().any(|(_, instance)| alive(instance)) {
        return plan;
    }
    let (sources, others): (Vec<_>, Vec<_>) = of_spec
        .iter()
        .partition(|(container, instance)| asks(container, instance));
    let remove = others
        .iter()
        .chain(&sources)
        .map(|(_, instance)| Action::RemoveInstance {
            id: instance.id.clone(),
        });
    plan.actions.extend(remove);
    plan
}
