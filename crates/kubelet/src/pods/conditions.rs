//! The conditions of a pod, with upstream's reasons and messages.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::memory::Memory;
use super::observed::Observed;
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
    )
}

/// Sets the kubelet's conditions in `status`, whose phase and containers are there already; those of others stay.
pub fn set(pod: &Pod, base: &PodStatus, status: &mut PodStatus, observed: &Observed, memory: &Memory, now: Timestamp) {
    let containers = containers_ready(status);
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
        initialized(pod, status),
        ready,
        containers,
        Says::yes("PodScheduled"),
    ];
    if let Some(verdict) = memory.verdict.as_ref().filter(|verdict| verdict.reason == "Evicted") {
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

fn initialized(pod: &Pod, status: &PodStatus) -> Says {
    let inits = status.init_container_statuses.as_deref().unwrap_or_default();
    if inits.is_empty() {
        return match status.phase.as_deref() {
            Some("Succeeded") => Says {
                reason: Some("PodCompleted"),
                ..Says::yes("Initialized")
            },
            _ => Says::yes("Initialized"),
        };
    }
    let done = |status: &ContainerStatus| match pod.container(&status.name) {
        Some((Role::Sidecar, _)) => status.started == Some(true),
        _ => status.ready,
    };
    let incomplete: Vec<&str> = inits
        .iter()
        .filter(|status| !done(status))
        .map(|status| status.name.as_str())
        .collect();
    let apps_began = status
        .container_statuses
        .iter()
        .flatten()
        .any(|status| status.container_id.is_some());
    match status.phase.as_deref() {
        Some("Succeeded") => Says {
            reason: Some("PodCompleted"),
            ..Says::yes("Initialized")
        },
        _ if incomplete.is_empty() || apps_began => Says::yes("Initialized"),
        _ => {
            let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
            Says::no("Initialized", "ContainersNotInitialized", Some(message))
        }
    }
}

fn containers_ready(status: &PodStatus) -> Says {
    const KIND: &str = "ContainersReady";
    match status.phase.as_deref() {
        Some("Succeeded") => return Says::no(KIND, "PodCompleted", None),
        Some("Failed") => return Says::no(KIND, "PodFailed", None),
        _ => {}
    }
    let apps = status.container_statuses.iter().flatten();
    let unready: Vec<&str> = apps
        .filter(|status| !status.ready)
        .map(|status| status.name.as_str())
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
