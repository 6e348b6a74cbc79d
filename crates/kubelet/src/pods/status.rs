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
use super::plan::{self, Plan, reset};
use super::pod::{PodExt, Role};
use crate::cri_config::resources;

/// What a status is made of besides the pod's own things.
pub struct Facts<'a> {
    /// The node's addresses.
    pub host_ips: &'a [String],
    /// Now.
    pub now: Timestamp,
}

/// The bytes that the last words of all of a pod's containers have together.
const LONGEST_WORDS: usize = 12 * 1024;
/// Why a container ended, and why it waits, when all of its pod's are started anew.
const RESTARTING_ALL: &str = "RestartingAllContainers";

/// All of it.
pub fn status(pod: &Pod, observed: &Observed, memory: &Memory, plan: &Plan, facts: &Facts<'_>) -> PodStatus {
    let base = pod.status.clone().unwrap_or_default();
    let sight = Sight {
        pod,
        observed,
        memory,
        plan,
        resetting: !plan.ended && reset::is_wanted(pod, observed),
    };
    let mut inits = Vec::new();
    let mut apps = Vec::new();
    for (role, container) in pod.containers() {
        let status = sight.container(role, container);
        if role == Role::App {
            apps.push(status)
        } else {
            inits.push(status)
        }
    }
    let mut ephemeral: Vec<ContainerStatus> = pod
        .ephemeral()
        .map(|container| sight.container(Role::Ephemeral, &container))
        .collect();
    let share = LONGEST_WORDS / (inits.len() + apps.len() + ephemeral.len()).max(1);
    let all = inits.iter_mut().chain(&mut apps).chain(&mut ephemeral);
    all.for_each(|status| shorten(status, share));
    let mut phase = sight.phase(&inits, &apps);
    if plan.ended && !observed.any_running() && !api::pod::is_static(pod) {
        // What is deleted before it ran has failed too.
        if pod.deletion().is_some() && !matches!(phase, "Succeeded" | "Failed") {
            phase = "Failed";
        }
        if matches!(phase, "Succeeded" | "Failed") {
            settle(&mut inits, &mut apps);
        }
    }
    apps.sort_by(|a, b| a.name.cmp(&b.name));
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
        // Of a pod that was refused there is nothing to tell but why.
        if observed.sandboxes.is_empty() && observed.instances.is_empty() && base.container_statuses.is_none() {
            status.init_container_statuses = None;
            status.container_statuses = None;
        }
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

/// What a status is made from.
struct Sight<'a> {
    pod: &'a Pod,
    observed: &'a Observed,
    memory: &'a Memory,
    plan: &'a Plan,
    /// Whether all containers are being started anew.
    resetting: bool,
}

impl Sight<'_> {
    fn container(&self, role: Role, container: &Container) -> ContainerStatus {
        let (pod, memory, name) = (self.pod, self.memory, &container.name);
        let instances: Vec<&Instance> = self
            .observed
            .instances
            .iter()
            .filter(|instance| instance.name == *name)
            .collect();
        let latest = instances.first().copied();
        let known = pod.container_status(role, name);
        let held_back = self.plan.held_back.iter().find(|(held, _)| held == name);
        let trouble = held_back
            .map(|(_, waiting)| waiting)
            .or_else(|| memory.waiting.get(name));
        let earlier = |from: usize| {
            let dead = instances
                .iter()
                .skip(from)
                .find(|instance| instance.state == State::Exited);
            dead.map(|dead| ended(dead))
                .or_else(|| known.and_then(|known| left_behind(known, latest)))
        };
        let waits = || self.waits(trouble);
        let restarts = |code| !self.plan.ended && pod.restarts(role, container, code);
        let mut restart_count = latest
            .map(|latest| latest.restarts as i32)
            .or(known.map(|known| known.restart_count))
            .unwrap_or(0);
        let (state, last) = match latest {
            Some(instance) => match instance.state {
                // Until its hook is done, a container is not up; and when that failed, it never was.
                State::Running if memory.hooking.contains(&instance.id) || memory.unhooked.contains(&instance.id) => {
                    (waits(), earlier(1))
                }
                State::Running | State::Unknown => (running(instance), earlier(1)),
                State::Exited if trouble.is_some() && restarts(instance.exit_code) => (waits(), Some(ended(instance))),
                State::Exited => (ended(instance), earlier(1)),
                State::Created => (waits(), earlier(1)),
            },
            // An instance that was there and is forgotten has left its end in the pod's status.
            None => match known.and_then(|known| Some((known, known.state.as_ref()?))) {
                Some((known, state)) if self.resetting && state.waiting.is_none() => {
                    restart_count = known.restart_count + 1;
                    let message = "The container is removed because RestartAllContainers in place";
                    let waiting = Waiting::new(RESTARTING_ALL, message);
                    (self.waits(Some(&waiting)), Some(lost(RESTARTING_ALL, message)))
                }
                Some((known, state)) if self.resetting && trouble.is_none() => {
                    (state.clone(), known.last_state.clone())
                }
                Some((_, state)) if state.terminated.is_some() && trouble.is_some() && !self.plan.ended => {
                    (waits(), Some(state.clone()))
                }
                Some((known, state)) if state.terminated.is_some() => (state.clone(), known.last_state.clone()),
                Some((known, state)) if state.running.is_some() => {
                    restart_count = known.restart_count + i32::from(pod.deletion().is_none());
                    let message = "The container could not be located when the pod was deleted.  The container used to be Running";
                    (waits(), Some(lost("ContainerStatusUnknown", message)))
                }
                Some((known, _)) => (waits(), known.last_state.clone()),
                None => (waits(), None),
            },
        };
        let running = state.running.is_some();
        let started = running && latest.is_some_and(|latest| memory.probes.started(container, &latest.id));
        let probed = latest.is_some_and(|latest| memory.probes.ready(container, &latest.id));
        let ready = match role {
            Role::Init => state.terminated.as_ref().is_some_and(|ended| ended.exit_code == 0),
            Role::Ephemeral => false,
            _ => started && probed,
        };
        ContainerStatus {
            name: name.clone(),
            ready,
            started: (role != Role::Ephemeral).then_some(started),
            restart_count,
            image: latest.map_or_else(
                || container.image.clone().unwrap_or_default(),
                |latest| latest.image.clone(),
            ),
            image_id: latest
                .map(|latest| latest.image_ref.clone())
                .or(known.map(|known| known.image_id.clone()))
                .unwrap_or_default(),
            container_id: latest.map(Instance::full_id).or_else(|| known?.container_id.clone()),
            state: Some(state),
            last_state: Some(last.unwrap_or_default()),
            allocated_resources: container
                .resources
                .as_ref()
                .and_then(|resources| resources.requests.clone()),
            resources: Some(in_force(container, latest.filter(|_| running), memory)),
            stop_signal: container
                .lifecycle
                .as_ref()
                .and_then(|lifecycle| lifecycle.stop_signal.clone()),
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

    fn waits(&self, waiting: Option<&Waiting>) -> ContainerState {
        let spec = self.pod.spec();
        let has_inits = spec.is_some_and(|spec| spec.init_containers.iter().flatten().next().is_some());
        let reason = match waiting {
            Some(waiting) => waiting.reason.clone(),
            None if has_inits => "PodInitializing".into(),
            None => "ContainerCreating".into(),
        };
        let message = waiting.map(|waiting| waiting.message.clone());
        ContainerState {
            waiting: Some(ContainerStateWaiting {
                reason: Some(reason),
                message: message.filter(|message| !message.is_empty()),
            }),
            ..Default::default()
        }
    }

    /// The phase, from the statuses of containers in the order of the spec.
    fn phase(&self, inits: &[ContainerStatus], apps: &[ContainerStatus]) -> &'static str {
        // Once over, a pod is never anything else again.
        match api::pod::phase(self.pod) {
            "Succeeded" => return "Succeeded",
            "Failed" => return "Failed",
            _ => {}
        }
        // A pod is over when its last container is.
        let alive = self.observed.any_running();
        if self.memory.verdict.is_some() && !alive {
            return "Failed";
        }
        let apps_began = apps_began(self.pod, self.observed);
        let (mut pending, mut running, mut stopped) = (false, 0, 0);
        let (mut succeeded, mut restarting, mut waiting) = (0, 0, 0);
        for ((role, container), status) in self.pod.containers().zip(inits.iter().chain(apps)) {
            let tally = Tally::of(status);
            let latest = self.observed.latest(&container.name);
            let resized = latest.is_some_and(|latest| plan::resized(self.memory, latest));
            let again = |ended: &ContainerStateTerminated| {
                let anew = ended.reason.as_deref() == Some(RESTARTING_ALL);
                anew || resized || self.pod.restarts(role, container, ended.exit_code)
            };
            match (role, tally) {
                (Role::Init, Tally::Stopped(ended, _)) if ended.exit_code == 0 => {}
                (Role::Init, Tally::Stopped(ended, _)) if !again(ended) && !alive => return "Failed",
                (Role::Init, Tally::Stopped(..)) => {}
                (Role::Init, Tally::Running | Tally::Waiting) => pending |= !apps_began,
                (Role::Sidecar, Tally::Running) => {
                    pending |= status.started != Some(true) && !apps_began;
                    running += 1;
                }
                (Role::Sidecar, Tally::Waiting) => waiting += 1,
                (Role::Sidecar, Tally::Stopped(..)) => {}
                // They have no part in how the pod fares.
                (Role::Ephemeral, _) => {}
                (Role::App, Tally::Running) => running += 1,
                (Role::App, Tally::Waiting) => waiting += 1,
                (Role::App, Tally::Stopped(ended, over)) => {
                    stopped += 1;
                    succeeded += usize::from(over && ended.exit_code == 0);
                    restarting += usize::from(again(ended));
                }
            }
        }
        match () {
            () if pending || waiting > 0 => "Pending",
            () if running > 0 || alive && stopped > 0 => "Running",
            () if stopped == 0 => "Pending",
            () if restarting > 0 && !self.plan.ended => "Running",
            () if succeeded == stopped => "Succeeded",
            () => "Failed",
        }
    }
}

/// Whether an app container has been started in the pod's sandbox: then its init containers are done.
fn apps_began(pod: &Pod, observed: &Observed) -> bool {
    let in_sandbox = |container: &Container| match observed.sandbox() {
        Some(sandbox) => observed.latest_in(&sandbox.id, &container.name),
        None => observed.latest(&container.name),
    };
    pod.containers()
        .filter(|(role, _)| *role == Role::App)
        .any(|(_, container)| in_sandbox(container).is_some_and(|instance| instance.state != State::Created))
}

/// What a container counts as for the phase of its pod.
enum Tally<'a> {
    Running,
    /// It has never run.
    Waiting,
    /// How it ended, and whether that is its state and not what was before it.
    Stopped(&'a ContainerStateTerminated, bool),
}

impl<'a> Tally<'a> {
    fn of(status: &'a ContainerStatus) -> Self {
        let now = status.state.as_ref();
        let before = status.last_state.as_ref();
        match (
            now.and_then(|state| state.terminated.as_ref()),
            before.and_then(|state| state.terminated.as_ref()),
        ) {
            _ if now.is_some_and(|state| state.running.is_some()) => Self::Running,
            (Some(ended), _) => Self::Stopped(ended, true),
            (None, Some(ended)) => Self::Stopped(ended, false),
            (None, None) => Self::Waiting,
        }
    }
}

/// Cuts the last words of a container.
fn shorten(status: &mut ContainerStatus, longest: usize) {
    for state in [&mut status.state, &mut status.last_state].into_iter().flatten() {
        if let Some(message) = state.terminated.as_mut().and_then(|ended| ended.message.as_mut()) {
            message.truncate(message.floor_char_boundary(longest));
        }
    }
}

/// How a container ended before its present instance, as its last status says, which may be that of an earlier one.
fn left_behind(known: &ContainerStatus, present: Option<&Instance>) -> Option<ContainerState> {
    let same = present.is_some_and(|present| known.container_id.as_deref() == Some(&present.full_id()));
    let told = [known.state.as_ref().filter(|_| !same), known.last_state.as_ref()];
    told.into_iter()
        .flatten()
        .find(|state| state.terminated.is_some())
        .cloned()
}

/// When the pod is over, so are its containers. One whose end nobody saw has failed, so that it is taken neither for one that went well nor
/// for one that is still to come. Init containers that were not tried, and what would have followed them, stay as they are.
fn settle(inits: &mut [ContainerStatus], apps: &mut [ContainerStatus]) {
    let ends = |status: &ContainerStatus| {
        let states = [&status.state, &status.last_state]
            .map(|state| state.as_ref()?.terminated.as_ref().map(|ended| ended.exit_code));
        states.into_iter().flatten().collect::<Vec<_>>()
    };
    let waits = |status: &ContainerStatus| status.state.as_ref().is_some_and(|state| state.waiting.is_some());
    let tried = |status: &ContainerStatus| !waits(status) || !ends(status).is_empty();
    let initialized = inits.last().is_none_or(|last| ends(last).contains(&0)) || apps.iter().any(tried);
    let count = inits.iter().rposition(tried).map_or(1, |last| last + 1);
    let apps = apps.iter_mut().filter(|_| initialized);
    for status in inits.iter_mut().take(count).chain(apps) {
        if status.state.as_ref().is_none_or(|state| state.terminated.is_none()) {
            let message = "The container could not be located when the pod was terminated";
            status.state = Some(lost("ContainerStatusUnknown", message));
            (status.ready, status.started) = (false, Some(false));
        }
    }
}

/// The end of a container that nobody saw.
fn lost(reason: &str, message: &str) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: 137,
            reason: Some(reason.into()),
            message: Some(message.into()),
            ..Default::default()
        }),
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

fn running(instance: &Instance) -> ContainerState {
    let started_at = Some(Time(time(instance.started_at)));
    ContainerState {
        running: Some(ContainerStateRunning { started_at }),
        ..Default::default()
    }
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
            container_id: Some(instance.full_id()),
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

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
