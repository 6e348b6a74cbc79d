//! What a Deployment's status says: how many pods there are, and the conditions in upstream's words.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::jiff::Timestamp;

use super::sets;

pub const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const REPLICA_FAILURE: &str = "ReplicaFailure";

/// The reason of a rollout that is over.
const ALL_AVAILABLE: &str = "NewReplicaSetAvailable";
/// The reason of a rollout that took too long.
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";

/// How long a rollout may make no progress; none for ever.
fn deadline(deployment: &Deployment) -> Option<Duration> {
    let seconds = sets::spec(deployment).progress_deadline_seconds?;
    (seconds != i32::MAX).then(|| Duration::from_secs(seconds.max(0).unsigned_abs().into()))
}

fn condition<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == kind)
}

fn remove(status: &mut DeploymentStatus, kind: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|condition| condition.type_ != kind);
    }
    status.conditions = status.conditions.take().filter(|conditions| !conditions.is_empty());
}

/// Puts a condition in; one with the same status and reason stays as it is.
fn set(status: &mut DeploymentStatus, mut new: DeploymentCondition) {
    if let Some(old) = condition(status, &new.type_).filter(|old| old.status == new.status) {
        if old.reason == new.reason {
            return;
        }
        new.last_transition_time.clone_from(&old.last_transition_time);
    }
    remove(status, &new.type_);
    status.conditions.get_or_insert_default().push(new);
}

fn new_condition(kind: &str, status: &str, reason: &str, message: String, now: Timestamp) -> DeploymentCondition {
    DeploymentCondition {
        type_: kind.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_transition_time: Some(api::meta::time(now)),
        last_update_time: Some(api::meta::time(now)),
    }
}

/// Says that the rollout goes on, or how it does not.
fn progressing(deployment: &mut Deployment, status: &str, reason: &str, message: String, now: Timestamp) {
    if deadline(deployment).is_some() {
        let condition = new_condition(PROGRESSING, status, reason, message, now);
        set(deployment.status.get_or_insert_default(), condition);
    }
}

/// A set was made for the rollout.
pub fn set_created(deployment: &mut Deployment, name: &str, now: Timestamp) {
    let message = format!("Created new replica set \"{name}\"");
    progressing(deployment, "True", "NewReplicaSetCreated", message, now);
}

/// The rollout's set is there, and nothing was said of a rollout.
pub fn set_found(deployment: &mut Deployment, name: &str, now: Timestamp) {
    let said = deployment
        .status
        .as_ref()
        .is_some_and(|status| condition(status, PROGRESSING).is_some());
    if !said {
        let message = format!("Found new replica set \"{name}\"");
        progressing(deployment, "True", "FoundNewReplicaSet", message, now);
    }
}

/// The set for the rollout could not be made.
pub fn set_failed(deployment: &mut Deployment, message: &str, now: Timestamp) {
    progressing(deployment, "False", "ReplicaSetCreateError", message.to_owned(), now);
}

/// Says whether the Deployment is paused, so that no deadline runs meanwhile. What has timed out stays so.
pub fn pause(deployment: &mut Deployment, now: Timestamp) {
    let reason = deployment
        .status
        .as_ref()
        .and_then(|status| condition(status, PROGRESSING)?.reason.clone());
    let wished = sets::spec(deployment).paused == Some(true);
    match (reason.as_deref(), wished) {
        (Some(TIMED_OUT), _) => {}
        (Some(PAUSED), true) => {}
        (_, true) => progressing(deployment, "Unknown", PAUSED, "Deployment is paused".into(), now),
        (Some(PAUSED), false) => {
            progressing(
                deployment,
                "Unknown",
                "DeploymentResumed",
                "Deployment is resumed".into(),
                now,
            );
        }
        (_, false) => {}
    }
}

/// Counts pods, and says whether enough are available.
pub fn counted(
    deployment: &Deployment,
    new: Option<&ReplicaSet>,
    all: &[&ReplicaSet],
    now: Timestamp,
) -> DeploymentStatus {
    let sum = |count: fn(&k8s_openapi::api::apps::v1::ReplicaSetStatus) -> i32| -> i32 {
        all.iter().filter_map(|set| set.status.as_ref()).map(count).sum()
    };
    let available = sum(|status| status.available_replicas.unwrap_or(0));
    let unavailable = (sets::sizes(all.iter().copied()) - available).max(0);
    let nonzero = |count: i32| (count != 0).then_some(count);
    let updated = new
        .and_then(|new| new.status.as_ref())
        .map_or(0, |status| status.replicas);
    let old = deployment.status.as_ref();
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: nonzero(sum(|status| status.replicas)),
        updated_replicas: nonzero(updated),
        ready_replicas: nonzero(sum(|status| status.ready_replicas.unwrap_or(0))),
        available_replicas: nonzero(available),
        unavailable_replicas: nonzero(unavailable),
        terminating_replicas: Some(sum(|status| status.terminating_replicas.unwrap_or(0))),
        collision_count: old.and_then(|status| status.collision_count),
        conditions: old.and_then(|status| status.conditions.clone()),
    };
    let enough = available >= sets::wished(deployment) - sets::max_unavailable(deployment);
    let (is, reason, message) = match enough {
        true => (
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
        ),
        false => (
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        ),
    };
    set(&mut status, new_condition(AVAILABLE, is, reason, message.into(), now));
    status
}

/// Whether a rollout is over: every pod is new and available.
pub fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wished = sets::wished(deployment);
    [status.updated_replicas, status.replicas, status.available_replicas]
        .iter()
        .all(|count| count.unwrap_or(0) == wished)
        && status.observed_generation >= deployment.metadata.generation
}

/// Whether the status shows more than the old one: more new pods, or fewer old ones.
fn has_progressed(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let of = |count: Option<i32>| count.unwrap_or(0);
    let olds = |status: &DeploymentStatus| of(status.replicas) - of(status.updated_replicas);
    of(new.updated_replicas) > of(old.updated_replicas)
        || olds(new) < olds(old)
        || of(new.ready_replicas) > of(old.ready_replicas)
        || of(new.available_replicas) > of(old.available_replicas)
}

/// When a rollout that makes no progress has taken too long.
fn due(deployment: &Deployment, status: &DeploymentStatus) -> Option<Timestamp> {
    let since = condition(status, PROGRESSING)?.last_update_time.as_ref()?.0;
    since.checked_add(deadline(deployment)?).ok()
}

/// The status while a rollout may be under way.
pub fn of_rollout(
    deployment: &Deployment,
    new: Option<&ReplicaSet>,
    all: &[&ReplicaSet],
    now: Timestamp,
) -> DeploymentStatus {
    let mut status = counted(deployment, new, all, now);
    let none = DeploymentStatus::default();
    let old = deployment.status.as_ref().unwrap_or(&none);
    let said = condition(old, PROGRESSING).cloned();
    let reason = said.as_ref().and_then(|condition| condition.reason.as_deref());
    let was_complete = status.replicas == status.updated_replicas && reason == Some(ALL_AVAILABLE);
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    let what = match new.and_then(|new| new.metadata.name.as_deref()) {
        Some(set) => format!("ReplicaSet \"{set}\""),
        None => format!("Deployment \"{name}\""),
    };
    if deadline(deployment).is_none() {
        remove(&mut status, PROGRESSING);
    } else if was_complete {
    } else if is_complete(deployment, &status) {
        let message = format!("{what} has successfully progressed.");
        set(
            &mut status,
            new_condition(PROGRESSING, "True", ALL_AVAILABLE, message, now),
        );
    } else if has_progressed(old, &status) {
        let message = format!("{what} is progressing.");
        let mut condition = new_condition(PROGRESSING, "True", "ReplicaSetUpdated", message, now);
        if let Some(said) = said.as_ref().filter(|said| said.status == "True") {
            condition.last_transition_time.clone_from(&said.last_transition_time);
        }
        // Not only where the reason is new: the deadline runs from the last progress.
        remove(&mut status, PROGRESSING);
        set(&mut status, condition);
    } else if reason != Some(ALL_AVAILABLE) && due(deployment, &status).is_some_and(|due| due < now) {
        let message = format!("{what} has timed out progressing.");
        set(
            &mut status,
            new_condition(PROGRESSING, "False", TIMED_OUT, message, now),
        );
    }
    match failure(new, all) {
        Some(failure) => set(&mut status, failure),
        None => remove(&mut status, REPLICA_FAILURE),
    }
    status
}

/// The failure of a set to make its pods, the new one's first.
fn failure(new: Option<&ReplicaSet>, all: &[&ReplicaSet]) -> Option<DeploymentCondition> {
    let of = |set: &ReplicaSet| {
        let conditions = set.status.as_ref()?.conditions.as_ref()?;
        conditions
            .iter()
            .find(|condition| condition.type_ == REPLICA_FAILURE)
            .cloned()
    };
    let found = new.and_then(of).or_else(|| all.iter().find_map(|set| of(set)))?;
    Some(DeploymentCondition {
        type_: found.type_,
        status: found.status,
        reason: found.reason,
        message: found.message,
        last_update_time: found.last_transition_time.clone(),
        last_transition_time: found.last_transition_time,
    })
}

/// After what time to look whether a rollout has taken too long.
pub fn look_again(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> Option<Duration> {
    let reason = condition(status, PROGRESSING)?.reason.as_deref();
    if is_complete(deployment, status) || reason == Some(TIMED_OUT) || reason == Some(PAUSED) {
        return None;
    }
    let left = Duration::try_from(due(deployment, status)?.duration_since(now)).unwrap_or_default();
    // Times in conditions are whole seconds.
    Some(left + Duration::from_secs(1))
}
