//! The conditions of a pod, with upstream's reasons and messages.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::memory::Memory;
use super::observed::Observed;
use super::plan::reset;
use super::pod::{PodExt, Role};

/// A resize was asked for and not granted.
pub const RESIZE_PENDING: &str = "PodResizePending";
/// A resize was granted and is not in force yet.
pub const RESIZE_IN_PROGRESS: &str = "PodResizeInProgress";

/// What a condition says, before its times.
struct Says {
    kind: &'static str,
    status: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Says {
    fn yes(kind: &'static str) -> Self {
        Self {
            kind,
            status: true,
            reason: None,
            message: None,
        }
    }

    fn no(kind: &'static str, reason: &'static str, message: Option<String>) -> Self {
        Self {
            kind,
            status: false,
            reason: Some(reason),
            message,
        }
    }
}

/// Whether the kubelet says this condition, and nobody else.
pub fn is_own(kind: &str) -> bool {
    matches!(
        kind,
        "PodReadyToStartContainers"
            | "Initialized"
            | "Ready"
            | "ContainersReady"
            | "PodScheduled"
            | RESIZE_PENDING
            | RESIZE_IN_PROGRESS
            | reset::CONDITION
    )
}

/// Sets the kubelet's conditions in `status`, whose phase and containers are there already; those of others stay.
pub fn set(pod: &Pod, base: &PodStatus, status: &mut PodStatus, observed: &Observed, memory: &Memory, now: Timestamp) {
    let containers = containers_ready(pod, status);
    let ready = match gates(pod, base) {
        Some((reason, message)) if containers.status => Says::no("Ready", reason, Some(message)),
        _ => Says {
            kind: "Ready",
            status: containers.status,
            reason: containers.reason,
            message: containers.message.clone(),
        },
    };
    let network = observed
        .sandbox()
        .is_some_and(|sandbox| sandbox.host_network || !sandbox.ips.is_empty());
    let can_start = Says {
        kind: "PodReadyToStartContainers",
        status: network,
        reason: None,
        message: None,
    };
    let mut says = vec![
        can_start,
        initialized(pod, base, status),
        ready,
        containers,
        Says::yes("PodScheduled"),
    ];
    if pod.spec().is_some_and(api::pod::may_restart_all) {
        says.push(restarting(pod, status, observed));
    }
    if let Some(verdict) = memory.verdict.as_ref().filter(|verdict| verdict.disrupts) {
        let message = Some(verdict.message.clone());
        says.push(Says {
            kind: "DisruptionTarget",
            status: true,
            reason: Some("TerminationByKubelet"),
            message,
        });
    }
    let known = base.conditions.as_deref().unwrap_or_default();
    let mut conditions: Vec<PodCondition> = says
        .into_iter()
        .map(|says| condition(says, known, pod.metadata.generation, now))
        .collect();
    if !matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        let resizes = memory.resize.iter().flat_map(|resize| resize.conditions());
        conditions.extend(resizes.map(|resize| {
            let before = known.iter().find(|known| known.type_ == resize.type_);
            let since = before.and_then(|before| before.last_transition_time.clone());
            PodCondition {
                status: "True".into(),
                last_transition_time: since.or(Some(Time(now))),
                ..resize
            }
        }));
    }
    let others = known
        .iter()
        .filter(|known| !conditions.iter().any(|own| own.type_ == known.type_))
        // A resize that is done is not spoken of any more.
        .filter(|known| ![RESIZE_PENDING, RESIZE_IN_PROGRESS].contains(&known.type_.as_str()))
        .cloned()
        .collect::<Vec<_>>();
    conditions.extend(others);
    status.conditions = Some(conditions);
}

fn condition(says: Says, known: &[PodCondition], generation: Option<i64>, now: Timestamp) -> PodCondition {
    let status = if says.status { "True" } else { "False" };
    let before = known
        .iter()
        .find(|known| known.type_ == says.kind && known.status == status);
    let since = before
        .and_then(|before| before.last_transition_time.clone())
        .unwrap_or(Time(now));
    PodCondition {
        type_: says.kind.into(),
        status: status.into(),
        reason: says.reason.map(str::to_owned),
        message: says.message.filter(|message| !message.is_empty()),
        last_transition_time: Some(since),
        observed_generation: generation,
        ..Default::default()
    }
}

fn initialized(pod: &Pod, base: &PodStatus, status: &PodStatus) -> Says {
    const KIND: &str = "Initialized";
    if status.phase.as_deref() == Some("Succeeded") {
        return Says {
            reason: Some("PodCompleted"),
            ..Says::yes(KIND)
        };
    }
    let done = |status: &ContainerStatus| match pod.container(&status.name) {
        Some((Role::Sidecar, _)) => status.started == Some(true),
        _ => status.ready,
    };
    let inits = status.init_container_statuses.iter().flatten();
    let incomplete: Vec<&str> = inits
        .filter(|status| !done(status))
        .map(|status| status.name.as_str())
        .collect();
    let began = |status: &ContainerStatus| {
        let state = status.state.as_ref();
        state.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
    };
    let apps_began = status.container_statuses.iter().flatten().any(began);
    let was = |condition: &PodCondition| condition.type_ == KIND && condition.status == "True";
    // Init containers that run again do not undo that they have run.
    let before = base.conditions.iter().flatten().any(was);
    if incomplete.is_empty() || apps_began || before {
        return Says::yes(KIND);
    }
    let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
    Says::no(KIND, "ContainersNotInitialized", Some(message))
}

fn containers_ready(pod: &Pod, status: &PodStatus) -> Says {
    const KIND: &str = "ContainersReady";
    match status.phase.as_deref() {
        Some("Succeeded") => return Says::no(KIND, "PodCompleted", None),
        Some("Failed") => return Says::no(KIND, "PodFailed", None),
        _ => {}
    }
    let lists = [&status.init_container_statuses, &status.container_statuses];
    let statuses: Vec<&ContainerStatus> = lists.into_iter().flatten().flatten().collect();
    let is_ready = |name: &str| statuses.iter().any(|status| status.name == name && status.ready);
    let unready: Vec<&str> = pod
        .containers()
        .filter(|(role, container)| *role != Role::Init && !is_ready(&container.name))
        .map(|(_, container)| container.name.as_str())
        .collect();
    if unready.is_empty() {
        return Says::yes(KIND);
    }
    Says::no(
        KIND,
        "ContainersNotReady",
        Some(format!("containers with unready status: [{}]", unready.join(" "))),
    )
}

/// Whether all containers are being started anew; said of pods that may want that.
fn restarting(pod: &Pod, status: &PodStatus, observed: &Observed) -> Says {
    match status.phase.as_deref() {
        Some("Succeeded") => Says::no(reset::CONDITION, "PodCompleted", None),
        Some("Failed") => Says::no(reset::CONDITION, "PodFailed", None),
        _ if reset::is_due(pod, observed) => Says {
            reason: Some("RestartAllContainersStarted"),
            message: Some("container exited with restart policy rule".into()),
            ..Says::yes(reset::CONDITION)
        },
        _ => Says {
            status: false,
            ..Says::yes(reset::CONDITION)
        },
    }
}

/// What the pod's readiness gates say against its being ready.
fn gates(pod: &Pod, base: &PodStatus) -> Option<(&'static str, String)> {
    let mut against = Vec::new();
    for gate in pod.spec()?.readiness_gates.iter().flatten() {
        let kind = &gate.condition_type;
        match base
            .conditions
            .iter()
            .flatten()
            .find(|condition| condition.type_ == *kind)
        {
            None => against.push(format!(
                "corresponding condition of pod readiness gate {kind:?} does not exist."
            )),
            Some(condition) if condition.status != "True" => {
                against.push(format!(
                    "the status of pod readiness gate {kind:?} is not \"True\", but {}",
                    condition.status
                ));
            }
            Some(_) => {}
        }
    }
    (!against.is_empty()).then(|| ("ReadinessGatesNotReady", against.join(", ")))
}
