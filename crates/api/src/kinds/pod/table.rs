//! The table of pods: what one line says of a pod.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated, ContainerStatus, Pod};
use serde_json::Value;

use crate::pod::{self, is_sidecar};
use crate::table::{AGE, Column, NAME, age, age_cell, name_cell};

/// The columns of [`row`].
pub(super) const COLUMNS: &[Column] = &[
    NAME,
    Column::new("Ready", "string", "The aggregate readiness state of this pod for accepting traffic."),
    Column::new("Status", "string", "The aggregate status of the containers in this pod."),
    Column::new(
        "Restarts",
        "string",
        "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
    ),
    AGE,
    Column::new("IP", "string", "podIP address allocated to the pod. Routable at least within the cluster. Empty if not yet allocated.").wide(),
    Column::new(
        "Node",
        "string",
        "NodeName indicates in which node this pod is scheduled. If empty, this pod is a candidate for scheduling by the scheduler defined in schedulerName. Once this field is set, the kubelet for this node becomes responsible for the lifecycle of this pod. This field should not be used to express a desire for the pod to be scheduled on a specific node. https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#nodename",
    )
    .wide(),
    Column::new(
        "Nominated Node",
        "string",
        "nominatedNodeName is set only when this pod preempts other pods on the node, but it cannot be scheduled right away as preemption victims receive their graceful termination periods. This field does not guarantee that the pod will be scheduled on this node. Scheduler may decide to place the pod elsewhere if other nodes become available sooner. Scheduler may also decide to give the resources on this node to a higher priority pod that is created after preemption. As a result, this field may be different than PodSpec.nodeName when the pod is scheduled.",
    )
    .wide(),
    Column::new(
        "Readiness Gates",
        "string",
        "If specified, all readiness gates will be evaluated for pod readiness. A pod is ready when all its containers are ready AND all conditions specified in the readiness gates have status equal to \"True\" More info: https://git.k8s.io/enhancements/keps/sig-network/580-pod-readiness-gates",
    )
    .wide(),
];

/// The cells of a pod.
pub(super) fn row(pod: &Pod, now: Timestamp) -> Vec<Value> {
    let summary = Summary::of(pod);
    let status = pod.status.as_ref();
    let or_none = |text: Option<&str>| Value::from(text.filter(|text| !text.is_empty()).unwrap_or("<none>"));
    let restarts = match summary.last_restart {
        Some(last) if summary.restarts != 0 => format!("{} ({} ago)", summary.restarts, age(Some(last), now)),
        _ => summary.restarts.to_string(),
    };
    vec![
        name_cell(&pod.metadata),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.into(),
        restarts.into(),
        age_cell(&pod.metadata, now),
        or_none(
            status
                .and_then(|s| s.pod_ips.as_ref()?.first())
                .map(|ip| ip.ip.as_str()),
        ),
        or_none(pod::node_name(pod)),
        or_none(status.and_then(|s| s.nominated_node_name.as_deref())),
        readiness_gates(pod).into(),
    ]
}

fn readiness_gates(pod: &Pod) -> String {
    let gates = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.readiness_gates.as_deref())
        .unwrap_or_default();
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let open = gates
        .iter()
        .filter(|gate| pod::condition_is_true(pod, &gate.condition_type))
        .count();
    format!("{open}/{}", gates.len())
}

/// What a line counts, and the one word for how the pod is.
struct Summary {
    ready: usize,
    total: usize,
    reason: String,
    restarts: i32,
    last_restart: Option<Timestamp>,
}

impl Summary {
    fn of(pod: &Pod) -> Self {
        let no_inits = Vec::new();
        let inits = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.init_containers.as_ref())
            .unwrap_or(&no_inits);
        let main = pod.spec.as_ref().map_or(0, |spec| spec.containers.len());
        let status = pod.status.as_ref();
        let status_reason = status
            .and_then(|s| s.reason.as_deref())
            .filter(|reason| !reason.is_empty());
        let mut summary = Summary {
            ready: 0,
            total: main + inits.iter().filter(|container| is_sidecar(container)).count(),
            reason: status_reason.unwrap_or(pod::phase(pod)).to_owned(),
            restarts: 0,
            last_restart: None,
        };
        let gated = pod::condition(pod, "PodScheduled").is_some_and(|c| c.reason.as_deref() == Some("SchedulingGated"));
        if gated {
            summary.reason = "SchedulingGated".to_owned();
        }
        let statuses = |of: Option<&Vec<ContainerStatus>>| of.cloned().unwrap_or_default();
        let init_statuses = statuses(status.and_then(|s| s.init_container_statuses.as_ref()));
        let initializing = summary.initialize(&init_statuses, inits);
        if !initializing || pod::condition_is_true(pod, "Initialized") {
            summary.run(
                &statuses(status.and_then(|s| s.container_statuses.as_ref())),
                &init_statuses,
                inits,
                pod,
            );
        }
        if pod::is_deleting(pod) {
            if status_reason == Some("NodeLost") {
                summary.reason = "Unknown".to_owned();
            } else if !pod::is_terminal(pod) {
                summary.reason = "Terminating".to_owned();
            }
        }
        summary
    }

    fn count_restarts(&mut self, status: &ContainerStatus) {
        self.restarts += status.restart_count;
        let ended = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
        self.last_restart = self
            .last_restart
            .max(ended.and_then(|ended| ended.finished_at.as_ref()).map(|t| t.0));
    }

    /// Looks at the init containers; answers whether one of them is still on its way.
    fn initialize(&mut self, statuses: &[ContainerStatus], containers: &[Container]) -> bool {
        for (i, status) in statuses.iter().enumerate() {
            self.count_restarts(status);
            let sidecar = containers.iter().any(|c| c.name == status.name && is_sidecar(c));
            let state = status.state.clone().unwrap_or_default();
            if state.terminated.as_ref().is_some_and(|ended| ended.exit_code == 0) {
                continue;
            }
            if sidecar && status.started == Some(true) {
                self.ready += usize::from(status.ready);
                continue;
            }
            let waiting = state.waiting.and_then(|waiting| waiting.reason);
            self.reason = match (
                state.terminated,
                waiting.filter(|r| !r.is_empty() && r != "PodInitializing"),
            ) {
                (Some(ended), _) => format!("Init:{}", ending(&ended)),
                (None, Some(reason)) => format!("Init:{reason}"),
                (None, None) => format!("Init:{i}/{}", containers.len()),
            };
            return true;
        }
        false
    }

    /// Looks at the main containers. Restarts of init containers that have done their work no longer count.
    fn run(&mut self, statuses: &[ContainerStatus], inits: &[ContainerStatus], containers: &[Container], pod: &Pod) {
        (self.restarts, self.last_restart) = (0, None);
        let is_of_sidecar = |s: &&ContainerStatus| containers.iter().any(|c| c.name == s.name && is_sidecar(c));
        for status in inits.iter().filter(is_of_sidecar) {
            self.count_restarts(status);
        }
        let mut running = false;
        for status in statuses.iter().rev() {
            self.count_restarts(status);
            let state = status.state.as_ref();
            let waiting = state
                .and_then(|s| s.waiting.as_ref()?.reason.as_deref())
                .filter(|r| !r.is_empty());
            if let Some(reason) = waiting {
                self.reason = reason.to_owned();
            } else if let Some(ended) = state.and_then(|s| s.terminated.as_ref()) {
                self.reason = ending(ended);
            } else if status.ready && state.is_some_and(|s| s.running.is_some()) {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && running {
            self.reason = if pod::is_ready(pod) { "Running" } else { "NotReady" }.to_owned();
        }
    }
}

/// How a container ended, in a word.
fn ending(ended: &ContainerStateTerminated) -> String {
    match (ended.reason.as_deref().unwrap_or_default(), ended.signal.unwrap_or(0)) {
        ("", 0) => format!("ExitCode:{}", ended.exit_code),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "the fixtures are constants")]
    use super::*;
    use serde_json::json;

    const NOW: i64 = 1_700_000_000;

    fn at(ago: i64) -> String {
        Timestamp::from_second(NOW - ago).unwrap().to_string()
    }

    fn status(name: &str, ready: bool, restarts: i32, state: Value) -> Value {
        json!({"name": name, "ready": ready, "restartCount": restarts, "image": "", "imageID": "", "state": state})
    }

    fn started(mut status: Value) -> Value {
        status["started"] = json!(true);
        status
    }

    fn running() -> Value {
        json!({"running": {}})
    }

    fn waiting(reason: &str) -> Value {
        json!({"waiting": {"reason": reason}})
    }

    fn ended(code: i32, reason: &str) -> Value {
        json!({"terminated": {"exitCode": code, "reason": reason}})
    }

    fn shown(spec: Value, status: Value, deleted: bool) -> (String, String, String) {
        let mut pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec, "status": status})).unwrap();
        if deleted {
            pod.metadata.deletion_timestamp = serde_json::from_value(json!(at(1))).unwrap();
        }
        let row = row(&pod, Timestamp::from_second(NOW).unwrap());
        assert_eq!(row.len(), COLUMNS.len());
        let text = |i: usize| row[i].as_str().unwrap().to_owned();
        (text(1), text(2), text(3))
    }

    #[test]
    fn one_word_for_how_a_pod_is() {
        let two = json!({"containers": [{"name": "a"}, {"name": "b"}]});
        let with_init = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "j"}]});
        let with_sidecar =
            json!({"containers": [{"name": "a"}], "initContainers": [{"name": "s", "restartPolicy": "Always"}]});
        let ready = json!([{"type": "Ready", "status": "True"}]);
        let cases = [
            (
                "not yet bound",
                &two,
                json!({"phase": "Pending"}),
                false,
                ("0/2", "Pending", "0"),
            ),
            (
                "gated",
                &two,
                json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}),
                false,
                ("0/2", "SchedulingGated", "0"),
            ),
            (
                "creating",
                &two,
                json!({"phase": "Pending", "containerStatuses": [status("a", false, 0, waiting("ContainerCreating")), status("b", false, 0, waiting("ContainerCreating"))]}),
                false,
                ("0/2", "ContainerCreating", "0"),
            ),
            (
                "running",
                &two,
                json!({"phase": "Running", "containerStatuses": [status("a", true, 0, running()), status("b", true, 0, running())]}),
                false,
                ("2/2", "Running", "0"),
            ),
            (
                "one not ready",
                &two,
                json!({"phase": "Running", "containerStatuses": [status("a", true, 0, running()), status("b", false, 0, running())]}),
                false,
                ("1/2", "Running", "0"),
            ),
            (
                "back-off",
                &two,
                json!({"phase": "Running", "containerStatuses": [status("a", false, 2, waiting("CrashLoopBackOff")), status("b", true, 0, running())]}),
                false,
                ("1/2", "CrashLoopBackOff", "2"),
            ),
            (
                "one completed, the pod ready",
                &two,
                json!({"phase": "Running", "conditions": ready, "containerStatuses": [status("a", true, 0, running()), status("b", false, 0, ended(0, "Completed"))]}),
                false,
                ("1/2", "Running", "0"),
            ),
            (
                "one completed, the pod not ready",
                &two,
                json!({"phase": "Running", "containerStatuses": [status("a", true, 0, running()), status("b", false, 0, ended(0, "Completed"))]}),
                false,
                ("1/2", "NotReady", "0"),
            ),
            (
                "ended with a code",
                &two,
                json!({"phase": "Failed", "containerStatuses": [status("a", false, 0, ended(3, ""))]}),
                false,
                ("0/2", "ExitCode:3", "0"),
            ),
            (
                "ended by a signal",
                &two,
                json!({"phase": "Failed", "containerStatuses": [status("a", false, 0, json!({"terminated": {"exitCode": 137, "signal": 9}}))]}),
                false,
                ("0/2", "Signal:9", "0"),
            ),
            (
                "going",
                &two,
                json!({"phase": "Running", "containerStatuses": [status("a", true, 0, running()), status("b", true, 0, running())]}),
                true,
                ("2/2", "Terminating", "0"),
            ),
            (
                "gone wrong and going",
                &two,
                json!({"phase": "Failed"}),
                true,
                ("0/2", "Failed", "0"),
            ),
            (
                "its node is lost",
                &two,
                json!({"phase": "Running", "reason": "NodeLost"}),
                true,
                ("0/2", "Unknown", "0"),
            ),
            (
                "evicted",
                &two,
                json!({"phase": "Failed", "reason": "Evicted"}),
                false,
                ("0/2", "Evicted", "0"),
            ),
            (
                "first init container runs",
                &with_init,
                json!({"phase": "Pending", "initContainerStatuses": [status("i", false, 0, running()), status("j", false, 0, waiting("PodInitializing"))]}),
                false,
                ("0/1", "Init:0/2", "0"),
            ),
            (
                "second init container waits",
                &with_init,
                json!({"phase": "Pending", "initContainerStatuses": [status("i", true, 0, ended(0, "Completed")), status("j", false, 0, waiting("PodInitializing"))]}),
                false,
                ("0/1", "Init:1/2", "0"),
            ),
            (
                "init container fails",
                &with_init,
                json!({"phase": "Pending", "initContainerStatuses": [status("i", false, 3, waiting("CrashLoopBackOff"))]}),
                false,
                ("0/1", "Init:CrashLoopBackOff", "3"),
            ),
            (
                "init container ended with a code",
                &with_init,
                json!({"phase": "Pending", "initContainerStatuses": [status("i", false, 0, ended(2, ""))]}),
                false,
                ("0/1", "Init:ExitCode:2", "0"),
            ),
            (
                "init container ended by a signal",
                &with_init,
                json!({"phase": "Pending", "initContainerStatuses": [status("i", false, 0, json!({"terminated": {"exitCode": 137, "signal": 9}}))]}),
                false,
                ("0/1", "Init:Signal:9", "0"),
            ),
            (
                "init container has to be restarted, and its pod was initialized before",
                &with_init,
                json!({"phase": "Running", "conditions": [{"type": "Initialized", "status": "True"}], "initContainerStatuses": [status("i", false, 2, running())], "containerStatuses": [status("a", false, 3, waiting("PodInitializing"))]}),
                false,
                ("0/1", "PodInitializing", "3"),
            ),
            (
                "a sidecar that has not started holds the others back",
                &with_sidecar,
                json!({"phase": "Pending", "initContainerStatuses": [status("s", false, 0, running())], "containerStatuses": [status("a", false, 0, waiting("PodInitializing"))]}),
                false,
                ("0/2", "Init:0/1", "0"),
            ),
            (
                "out of time",
                &two,
                json!({"phase": "Failed", "reason": "DeadlineExceeded"}),
                false,
                ("0/2", "DeadlineExceeded", "0"),
            ),
            (
                "init containers are done, and their restarts forgotten",
                &with_init,
                json!({"phase": "Running", "initContainerStatuses": [status("i", true, 4, ended(0, "Completed")), status("j", true, 0, ended(0, "Completed"))], "containerStatuses": [status("a", true, 1, running())]}),
                false,
                ("1/1", "Running", "1"),
            ),
            (
                "a sidecar counts",
                &with_sidecar,
                json!({"phase": "Running", "initContainerStatuses": [started(status("s", true, 2, running()))], "containerStatuses": [status("a", true, 1, running())]}),
                false,
                ("2/2", "Running", "3"),
            ),
        ];
        for (what, spec, status, deleted, (ready, reason, restarts)) in cases {
            let want = (ready.to_owned(), reason.to_owned(), restarts.to_owned());
            assert_eq!(shown(spec.clone(), status, deleted), want, "{what}");
        }
    }

    #[test]
    fn the_last_restart() {
        let mut container = status("a", true, 2, running());
        container["lastState"] = json!({"terminated": {"exitCode": 1, "finishedAt": at(175)}});
        let (_, _, restarts) = shown(
            json!({"containers": [{"name": "a"}]}),
            json!({"phase": "Running", "containerStatuses": [container]}),
            false,
        );
        assert_eq!(restarts, "2 (2m55s ago)");
    }

    #[test]
    fn wide() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "creationTimestamp": at(60)},
            "spec": {"nodeName": "n", "containers": [], "readinessGates": [{"conditionType": "x"}, {"conditionType": "y"}]},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.7"}], "conditions": [{"type": "x", "status": "True"}]},
        }))
        .unwrap();
        let row = row(&pod, Timestamp::from_second(NOW).unwrap());
        assert_eq!(row[4..], ["60s", "10.0.0.7", "n", "<none>", "1/2"].map(Value::from));
    }
}
