//! The status of a pod: a pure function of its object, of what the runtime has, of what the worker remembers, and of now.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    ContainerUser, HostIP, LinuxContainerUser, Pod, PodIP, PodStatus, ResourceRequirements, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::conditions;
use super::memory::{Memory, Waiting};
use super::observed::{Instance, Observed, State, time};
use super::plan::Plan;
use super::pod::{PodExt, Role};
use crate::cri_config::resources;

/// What a status is made of besides the pod's own things.
pub struct Facts<'a> {
    /// The node's addresses.
    pub host_ips: &'a [String],
    /// Now.
    pub now: Timestamp,
}

/// All of it.
pub fn status(pod: &Pod, observed: &Observed, memory: &Memory, plan: &Plan, facts: &Facts<'_>) -> PodStatus {
    let base = pod.status.clone().unwrap_or_default();
    let mut inits = Vec::new();
    let mut apps = Vec::new();
    let initialized = is_initialized(pod, observed, memory);
    for (role, container) in pod.containers() {
        let status = container_status(pod, role, container, observed, memory, plan, initialized);
        if role == Role::App {
            apps.push(status)
        } else {
            inits.push(status)
        }
    }
    apps.sort_by(|a, b| a.name.cmp(&b.name));
    let ephemeral: Vec<ContainerStatus> = pod
        .ephemeral()
        .map(|container| container_status(pod, Role::Ephemeral, &container, observed, memory, plan, initialized))
        .collect();
    let phase = phase(pod, &inits, &apps, memory, plan, observed);
    let mut status = PodStatus {
        phase: Some(phase.into()),
        start_time: base.start_time.clone().or(Some(Time(facts.now))),
        host_ip: facts.host_ips.first().cloned(),
        host_ips: Some(facts.host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect()),
        qos_class: Some(api::pod::stored_qos_class(pod).as_str().into()),
        observed_generation: pod.metadata.generation,
        allocated_resources: api::pod::written(&api::pod::requests_without_overhead(pod)),
        resources: pod.spec().and_then(|spec| spec.resources.clone()).map(|granted| {
            let resize = memory.resize.as_ref();
            let actual = resize.and_then(|resize| resize.allocation.actual.pod.clone());
            actual.unwrap_or(granted)
        }),
        init_container_statuses: (!inits.is_empty()).then_some(inits),
        container_statuses: (!apps.is_empty()).then_some(apps),
        ephemeral_container_statuses: (!ephemeral.is_empty()).then_some(ephemeral),
        ..base.clone()
    };
    if let Some(verdict) = memory.verdict.as_ref().filter(|_| phase == "Failed") {
        status.reason = Some(verdict.reason.clone());
        status.message = Some(verdict.message.clone()).filter(|message| !message.is_empty());
    }
    let ips: Vec<String> = match observed.sandbox() {
        Some(sandbox) if sandbox.host_network => facts.host_ips.to_vec(),
        Some(sandbox) => sandbox.ips.clone(),
        None => Vec::new(),
    };
    // A pod that is over keeps the address it had, for those who look where it was.
    if !ips.is_empty() || !plan.ended {
        status.pod_ip = ips.first().cloned();
        status.pod_ips = (!ips.is_empty()).then(|| ips.into_iter().map(|ip| PodIP { ip }).collect());
    }
    conditions::set(pod, &base, &mut status, observed, memory, facts.now);
    status
}

/// Whether every init container has done its work (or a sidecar its start).
fn is_initialized(pod: &Pod, observed: &Observed, memory: &Memory) -> bool {
    let apps_began = pod
        .containers()
        .any(|(role, container)| role == Role::App && observed.latest(&container.name).is_some());
    apps_began
        || pod
            .containers()
            .filter(|(role, _)| *role != Role::App)
            .all(|(role, container)| {
                observed.latest(&container.name).is_some_and(|instance| match role {
                    Role::Sidecar => instance.state == State::Running && memory.probes.started(container, &instance.id),
                    _ => instance.state == State::Exited && instance.exit_code == 0,
                })
            })
}

fn container_status(
    pod: &Pod,
    role: Role,
    container: &Container,
    observed: &Observed,
    memory: &Memory,
    plan: &Plan,
    initialized: bool,
) -> ContainerStatus {
    let name = &container.name;
    let instances: Vec<&Instance> = observed
        .instances
        .iter()
        .filter(|instance| instance.name == *name)
        .collect();
    let latest = instances.first().copied();
    let known = known(pod, role, name);
    let held_back = plan
        .held_back
        .iter()
        .find(|(held, _)| held == name)
        .map(|(_, waiting)| waiting);
    let trouble = held_back.or_else(|| memory.waiting.get(name));
    let earlier = |from: usize| {
        let dead = instances
            .iter()
            .skip(from)
            .find(|instance| instance.state == State::Exited);
        dead.map(|dead| ended(dead))
            .or_else(|| known.and_then(|known| known.last_state.clone()))
    };
    let waits = |waiting: Option<&Waiting>| {
        let reason = match waiting {
            Some(waiting) => waiting.reason.clone(),
            None => match role {
                Role::App if initialized => "ContainerCreating".into(),
                Role::Ephemeral if pod.containers().all(|(role, _)| role == Role::App) => "ContainerCreating".into(),
                _ => "PodInitializing".into(),
            },
        };
        let message = waiting
            .map(|waiting| waiting.message.clone())
            .filter(|message| !message.is_empty());
        ContainerState {
            waiting: Some(ContainerStateWaiting {
                reason: Some(reason),
                message,
            }),
            ..Default::default()
        }
    };
    let (state, last) = match latest {
        Some(instance) => match instance.state {
            // Until its hook is done, a container is not up.
            State::Running if memory.hooking.contains(&instance.id) => (waits(trouble), earlier(1)),
            State::Running | State::Unknown => {
                let started_at = Some(Time(time(instance.started_at)));
                (
                    ContainerState {
                        running: Some(ContainerStateRunning { started_at }),
                        ..Default::default()
                    },
                    earlier(1),
                )
            }
            State::Exited if !plan.ended && trouble.is_some() && pod.restarts(role, container, instance.exit_code) => {
                (waits(trouble), Some(ended(instance)))
            }
            State::Exited => (ended(instance), earlier(1)),
            State::Created => (waits(trouble), earlier(1)),
        },
        // An instance that was there and is forgotten has left its end in the pod's status.
        None => match known
            .and_then(|known| known.state.clone())
            .filter(|state| state.terminated.is_some() && plan.ended)
        {
            Some(state) => (state, known.and_then(|known| known.last_state.clone())),
            None => (waits(trouble), known.and_then(|known| known.last_state.clone())),
        },
    };
    let running = state.running.is_some();
    let started = running && latest.is_some_and(|latest| memory.probes.started(container, &latest.id));
    let probed = latest.is_some_and(|latest| memory.probes.ready(container, &latest.id));
    let ready = match role {
        Role::Init => state.terminated.as_ref().is_some_and(|ended| ended.exit_code == 0),
        Role::Ephemeral => false,
        _ => started && probed && !plan.ended,
    };
    ContainerStatus {
        name: name.clone(),
        ready,
        started: (role != Role::Ephemeral).then_some(started),
        restart_count: latest
            .map(|latest| latest.restarts as i32)
            .or(known.map(|known| known.restart_count))
            .unwrap_or(0),
        image: latest.map_or_else(
            || container.image.clone().unwrap_or_default(),
            |latest| latest.image.clone(),
        ),
        image_id: latest
            .map(|latest| latest.image_ref.clone())
            .or(known.map(|known| known.image_id.clone()))
            .unwrap_or_default(),
        container_id: latest
            .map(|latest| format!("podium://{}", latest.id))
            .or_else(|| known?.container_id.clone()),
        state: Some(state),
        last_state: Some(last.unwrap_or_default()),
        allocated_resources: container
            .resources
            .as_ref()
            .and_then(|resources| resources.requests.clone()),
        resources: Some(in_force(container, latest.filter(|_| running), memory)),
        user: latest
            .and_then(|latest| latest.user.as_ref())
            .map(|user| ContainerUser {
                linux: Some(LinuxContainerUser {
                    uid: user.uid,
                    gid: user.gid,
                    supplemental_groups: Some(user.supplemental_groups.clone()).filter(|groups| !groups.is_empty()),
                }),
            }),
        volume_mounts: latest.and_then(|_| volume_mounts(container)),
        ..Default::default()
    }
}

/// What is in force for a container; what was granted, for one that does not run.
fn in_force(container: &Container, running: Option<&Instance>, memory: &Memory) -> ResourceRequirements {
    let granted = || container.resources.clone().unwrap_or_default();
    let Some(instance) = running else { return granted() };
    let kept = memory
        .resize
        .as_ref()
        .map(|resize| &resize.allocation.actual.containers);
    let actual = kept
        .and_then(|kept| kept.get(&container.name).cloned())
        .unwrap_or_else(granted);
    match &instance.resources {
        Some(told) => resources::in_force(actual, told),
        None => actual,
    }
}

/// What the pod's object says of a container.
fn known<'a>(pod: &'a Pod, role: Role, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let list = role.kind().statuses(status);
    list.iter().find(|status| status.name == name)
}

fn ended(instance: &Instance) -> ContainerState {
    let reason = match (instance.reason.as_str(), instance.exit_code) {
        ("", 0) => "Completed".into(),
        ("", _) => "Error".into(),
        (reason, _) => reason.to_owned(),
    };
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: instance.exit_code,
            reason: Some(reason),
            message: Some(instance.message.clone()).filter(|message| !message.is_empty()),
            started_at: Some(Time(time(instance.started_at))),
            finished_at: Some(Time(time(instance.finished_at))),
            container_id: Some(format!("podium://{}", instance.id)),
            signal: None,
        }),
        ..Default::default()
    }
}

fn volume_mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.as_ref()?.iter().map(|mount| {
        let read_only = mount.read_only.filter(|read_only| *read_only);
        VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only,
            recursive_read_only: read_only.map(|_| match mount.recursive_read_only.as_deref() {
                Some("Enabled" | "IfPossible") => "Enabled".into(),
                _ => "Disabled".into(),
            }),
            ..Default::default()
        }
    });
    Some(mounts.collect::<Vec<_>>()).filter(|mounts| !mounts.is_empty())
}

fn phase(
    pod: &Pod,
    inits: &[ContainerStatus],
    apps: &[ContainerStatus],
    memory: &Memory,
    plan: &Plan,
    observed: &Observed,
) -> &'static str {
    // Once over, a pod is never anything else again.
    match pod.status.as_ref().and_then(|status| status.phase.as_deref()) {
        Some("Succeeded") => return "Succeeded",
        Some("Failed") => return "Failed",
        _ => {}
    }
    // A pod is over when its last container is.
    if memory.verdict.is_some() && !observed.any_running() {
        return "Failed";
    }
    let never = pod.spec().and_then(|spec| spec.restart_policy.as_deref()) == Some("Never");
    let on_failure = pod.spec().and_then(|spec| spec.restart_policy.as_deref()) == Some("OnFailure");
    let mut pending = false;
    for ((role, container), status) in pod.containers().filter(|(role, _)| *role != Role::App).zip(inits) {
        let state = status.state.clone().unwrap_or_default();
        let apps_began = apps.iter().any(|app| app.container_id.is_some());
        match role {
            Role::Sidecar => pending |= status.started != Some(true) && !apps_began,
            _ => match state.terminated.map(|ended| ended.exit_code) {
                Some(0) => {}
                Some(code) if !pod.restarts(role, container, code) && !observed.any_running() => return "Failed",
                _ => pending |= !apps_began,
            },
        }
    }
    let (mut running, mut stopped, mut succeeded, mut waiting) = (0, 0, 0, 0);
    for status in apps {
        let state = status.state.as_ref();
        if state.is_some_and(|state| state.running.is_some()) {
            running += 1;
        } else if let Some(ended) = state.and_then(|state| state.terminated.as_ref()) {
            stopped += 1;
            succeeded += usize::from(ended.exit_code == 0);
        } else if status.last_state.as_ref().is_some_and(|last| last.terminated.is_some()) {
            stopped += 1;
        } else {
            waiting += 1;
        }
    }
    match () {
        () if pending || waiting > 0 => "Pending",
        () if running > 0 => "Running",
        () if stopped == 0 => "Pending",
        // Sidecars end after the others, and the pod after them.
        () if observed.any_running() => "Running",
        () if plan.ended => {
            if succeeded == stopped {
                "Succeeded"
            } else {
                "Failed"
            }
        }
        () if never || on_failure => {
            if succeeded == stopped {
                "Succeeded"
            } else if never {
                "Failed"
            } else {
                "Running"
            }
        }
        () => "Running",
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
