//! What a worker remembers of its pod between two looks at it. All of it is lost with the process and none of it is missed: what must
//! outlive a restart is in the runtime's annotations and in the pod's status.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::backoff::Backoffs;
use super::resize::Resize;
use crate::probes::{Kind, Results};

/// Why a container waits, as its status says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Such as `ImagePullBackOff`.
    pub reason: String,
    /// Details for people.
    pub message: String,
}

impl Waiting {
    /// A reason with its details.
    pub fn new(reason: &str, message: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            message: message.into(),
        }
    }
}

/// Why a pod had to end before its containers did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Such as `Evicted` or `DeadlineExceeded`.
    pub reason: String,
    /// Details for people.
    pub message: String,
    /// Seconds that its containers have to end, where not what the pod says.
    pub grace: Option<i64>,
    /// Whether somebody else's good is the cause: the pod gets the condition DisruptionTarget.
    pub disrupts: bool,
}

/// The end of an instance that has been told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// When it is killed at the latest.
    pub deadline: Timestamp,
    /// Whether its hook before the stop still runs.
    pub hooking: bool,
}

/// The memory of a worker.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// Restarts of containers, by name.
    pub restarts: Backoffs,
    /// Pulls of images, by image.
    pub pulls: Backoffs,
    /// When the last pull of an image failed, and with what.
    pub failed_pulls: HashMap<String, (Timestamp, Waiting)>,
    /// Why containers do not run though they should, by name.
    pub waiting: HashMap<String, Waiting>,
    /// When what failed may be tried again, by container name; `""` is the sandbox and what comes before it.
    pub retry_at: HashMap<String, Timestamp>,
    /// Failures in a row before the sandbox.
    pub sandbox_failures: u32,
    /// Containers whose image is being pulled, by name.
    pub pulling: HashSet<String>,
    /// Instances whose hook after the start is not done, by id.
    pub hooking: HashSet<String>,
    /// Instances whose hook after the start failed, by id.
    pub unhooked: HashSet<String>,
    /// What probes have found.
    pub probes: Results,
    /// Images pulled for the next start of a container, by its name.
    pub pulled: HashMap<String, String>,
    /// Images that the pod may have as they are on the node, by id and the name that it knows them by.
    pub its_images: HashSet<(String, String)>,
    /// When the last instance of a container ended that was taken away to start it anew, by name.
    pub reset: HashMap<String, Timestamp>,
    /// Instances that are to end, by id.
    pub ends: HashMap<String, End>,
    /// Containers told to stop, by id, and when they are killed.
    pub stopping: HashMap<String, Timestamp>,
    /// When the pod began to end, and how long it has.
    pub ending: Option<(Timestamp, i64)>,
    /// Set when the pod must end.
    pub verdict: Option<Verdict>,
    /// Whether what was of the pod is being taken away.
    pub cleaning: bool,
    /// Whether the volumes of a pod that is over were taken away.
    pub released: bool,
    /// Whether the API server was asked to forget the pod.
    pub forgotten: bool,
    /// Whether nothing is left of the pod on the node.
    pub cleaned: bool,
    /// Whether the volumes are set up.
    pub volumes_ready: bool,
    /// How far resizes are; none for a pod of which only its end is left.
    pub resize: Option<Resize>,
}

impl Memory {
    /// Takes up what an earlier kubelet decided on a pod.
    pub fn of(pod: &Pod) -> Self {
        let status = pod.status.as_ref();
        let failed = status.filter(|status| status.phase.as_deref() == Some("Failed"));
        let verdict = failed.and_then(|status| {
            Some(Verdict {
                reason: status.reason.clone()?,
                message: status.message.clone().unwrap_or_default(),
                grace: None,
                // Its condition is in the status already.
                disrupts: false,
            })
        });
        Self {
            verdict,
            probes: probed(pod),
            ..Self::default()
        }
    }
}

/// What an earlier kubelet's probes had found of instances: one that was ready stays so until its probe says otherwise, and nobody loses
/// their endpoints because the kubelet starts anew.
fn probed(pod: &Pod) -> Results {
    let mut results = Results::default();
    let Some(status) = &pod.status else { return results };
    let all = [&status.container_statuses, &status.init_container_statuses];
    for container in all.into_iter().flatten().flatten() {
        let id = container.container_id.as_deref().and_then(|id| id.split_once("://"));
        let running = container.state.as_ref().is_some_and(|state| state.running.is_some());
        let Some((_, id)) = id.filter(|_| running) else {
            continue;
        };
        if container.started == Some(true) {
            results.set(id, Kind::Startup, true);
        }
        if container.ready {
            results.set(id, Kind::Readiness, true);
        }
    }
    results
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_ready_stays_so_when_the_kubelet_starts_anew() {
        let probe = json!({"exec": {"command": ["true"]}});
        let container = |name: &str| json!({"name": name, "startupProbe": probe, "readinessProbe": probe});
        let status = |name: &str, id: &str, state: &str, ready: bool| {
            json!({"name": name, "containerID": format!("podium://{id}"), "image": "", "imageID": "", "restartCount": 0,
                "state": {state: {"exitCode": 0}}, "started": true, "ready": ready})
        };
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns"},
            "spec": {"containers": [container("a"), container("b"), container("c")]},
            "status": {"containerStatuses": [
                status("a", "1", "running", true), status("b", "2", "running", false), status("c", "3", "terminated", true)]},
        }))
        .unwrap();
        let memory = Memory::of(&pod);
        let containers = &pod.spec.as_ref().unwrap().containers;
        let known = ["1", "2", "3", "4"].map(|id| {
            let container = &containers[0];
            (memory.probes.started(container, id), memory.probes.ready(container, id))
        });
        assert_eq!(known, [(true, true), (true, false), (false, false), (false, false)]);
    }
}
