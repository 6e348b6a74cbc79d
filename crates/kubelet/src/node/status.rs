//! The status of a node: pure functions of what the machine is and what the runtime says.

use std::collections::BTreeMap;

use cri::v1::{Image, StatusResponse};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeFeatures, NodeRuntimeHandler,
    NodeRuntimeHandlerFeatures, NodeStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::facts::Machine;
use crate::config::Config;
use crate::eviction::thresholds::Pressure;
use crate::pods::node_state::NodeState;

/// As many as upstream reports.
const MOST_IMAGES: usize = 50;

/// The labels of a node.
pub fn labels(name: &str, architecture: &str) -> BTreeMap<String, String> {
    [
        ("beta.kubernetes.io/arch", architecture),
        ("beta.kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture),
        ("kubernetes.io/hostname", name),
        ("kubernetes.io/os", "linux"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// All of it; `known` has the conditions as they were.
pub fn status(
    known: &NodeStatus,
    config: &Config,
    machine: &Machine,
    own: &NodeState,
    runtime: &cri::Result<StatusResponse>,
    images: Vec<Image>,
    now: Timestamp,
) -> NodeStatus {
    let address = |kind: &str, address: String| NodeAddress {
        type_: kind.into(),
        address,
    };
    let mut addresses: Vec<NodeAddress> = config
        .node_ips
        .iter()
        .map(|ip| address("InternalIP", ip.to_string()))
        .collect();
    addresses.push(address("Hostname", config.node_name.clone()));
    let [capacity, allocatable] = machine.resources(config.configuration.max_pods);
    let pressed = |pressure: Pressure, [bad, good]: [(&str, &str); 2]| {
        let yes = own.pressures.contains(&pressure);
        let (reason, message) = if yes { bad } else { good };
        condition(known, pressure.name(), yes, reason, message.to_owned(), now)
    };
    let conditions = vec![
        pressed(
            Pressure::Memory,
            [
                (
                    "KubeletHasInsufficientMemory",
                    "kubelet has insufficient memory available",
                ),
                ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            ],
        ),
        pressed(
            Pressure::Disk,
            [
                ("KubeletHasDiskPressure", "kubelet has disk pressure"),
                ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            ],
        ),
        pressed(
            Pressure::Pid,
            [
                ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
                ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            ],
        ),
        match not_ready(runtime, own.shutting_down) {
            None => condition(
                known,
                "Ready",
                true,
                "KubeletReady",
                "kubelet is posting ready status".into(),
                now,
            ),
            Some(why) => condition(known, "Ready", false, "KubeletNotReady", why, now),
        },
    ];
    let answer = runtime.as_ref().ok();
    NodeStatus {
        addresses: Some(addresses),
        allocatable: Some(allocatable),
        capacity: Some(capacity),
        conditions: Some(conditions),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint {
                port: config.port.into(),
            }),
        }),
        features: answer
            .and_then(|answer| answer.features.as_ref())
            .map(|features| NodeFeatures {
                supplemental_groups_policy: Some(features.supplemental_groups_policy),
            }),
        images: Some(list(images)),
        node_info: Some(machine.info.clone()),
        runtime_handlers: answer
            .map(|answer| answer.runtime_handlers.iter().map(handler).collect::<Vec<_>>())
            .filter(|handlers| !handlers.is_empty()),
        ..Default::default()
    }
}

fn handler(handler: &cri::v1::RuntimeHandler) -> NodeRuntimeHandler {
    NodeRuntimeHandler {
        name: Some(handler.name.clone()),
        features: handler.features.as_ref().map(|features| NodeRuntimeHandlerFeatures {
            recursive_read_only_mounts: Some(features.recursive_read_only_mounts),
            user_namespaces: Some(features.user_namespaces),
        }),
    }
}

fn list(images: Vec<Image>) -> Vec<ContainerImage> {
    let mut images = images;
    images.sort_by_key(|image| std::cmp::Reverse(image.size));
    images.truncate(MOST_IMAGES);
    let listed = images.into_iter().map(|image| ContainerImage {
        names: Some(image.repo_digests.into_iter().chain(image.repo_tags).collect()),
        size_bytes: i64::try_from(image.size).ok(),
    });
    listed.collect()
}

fn condition(
    known: &NodeStatus,
    kind: &str,
    yes: bool,
    reason: &str,
    message: String,
    now: Timestamp,
) -> NodeCondition {
    let status = if yes { "True" } else { "False" };
    let before = known
        .conditions
        .iter()
        .flatten()
        .find(|known| known.type_ == kind && known.status == status);
    NodeCondition {
        type_: kind.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_heartbeat_time: Some(Time(now)),
        last_transition_time: Some(
            before
                .and_then(|before| before.last_transition_time.clone())
                .unwrap_or(Time(now)),
        ),
    }
}

/// What keeps the node from running pods.
fn not_ready(runtime: &cri::Result<StatusResponse>, shutting_down: bool) -> Option<String> {
    let conditions = match runtime {
        Err(_) => return Some("container runtime is down".into()),
        Ok(answer) => answer
            .status
            .as_ref()
            .map(|status| status.conditions.as_slice())
            .unwrap_or_default(),
    };
    let mut against = Vec::new();
    for (kind, what) in [
        ("RuntimeReady", "container runtime not ready"),
        ("NetworkReady", "container runtime network not ready"),
    ] {
        match conditions.iter().find(|condition| condition.r#type == kind) {
            Some(condition) if condition.status => {}
            Some(condition) => {
                against.push(format!(
                    "{what}: {kind}=false reason:{} message:{}",
                    condition.reason, condition.message
                ));
            }
            None => against.push(format!("{what}: {kind}=false reason: message:")),
        }
    }
    if shutting_down {
        against.push("node is shutting down".into());
    }
    match against.len() {
        0 => None,
        1 => against.pop(),
        _ => Some(format!("[{}]", against.join(", "))),
    }
}

/// Whether the node is Ready.
pub fn is_ready(status: &NodeStatus) -> bool {
    holds(status, "Ready")
}

fn holds(status: &NodeStatus, kind: &str) -> bool {
    status
        .conditions
        .iter()
        .flatten()
        .any(|condition| condition.type_ == kind && condition.status == "True")
}

/// Whether anything but the heartbeat is different.
pub fn differs(before: &NodeStatus, after: &NodeStatus) -> bool {
    let still = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
        }
        status
    };
    still(before) != still(after)
}

/// The status as a strategic merge patch: addresses are replaced, conditions of others stay.
pub fn patch(status: &NodeStatus) -> Value {
    let mut patch = serde_json::to_value(status).unwrap_or_default();
    if let Some(addresses) = patch.get_mut("addresses").and_then(Value::as_array_mut) {
        addresses.insert(0, json!({"$patch": "replace"}));
    }
    patch
}

/// The events of what changed in the conditions: reason and message.
pub fn news(before: Option<&NodeStatus>, after: &NodeStatus, node: &str) -> Vec<(String, String)> {
    let words = [
        ("MemoryPressure", "NodeHasInsufficientMemory", "NodeHasSufficientMemory"),
        ("DiskPressure", "NodeHasDiskPressure", "NodeHasNoDiskPressure"),
        ("PIDPressure", "NodeHasInsufficientPID", "NodeHasSufficientPID"),
        ("Ready", "NodeReady", "NodeNotReady"),
    ];
    let changed = words.iter().filter(|(kind, _, _)| match before {
        Some(before) => holds(before, kind) != holds(after, kind),
        // Being not ready yet is no news.
        None => *kind != "Ready" || holds(after, kind),
    });
    let event = |(kind, yes, no): &(&str, &str, &str)| {
        let reason = if holds(after, kind) { *yes } else { *no };
        (reason.to_owned(), format!("Node {node} status is now: {reason}"))
    };
    changed.map(event).collect()
}

/// The event of a node's being cordoned, or not any more.
pub fn schedulable_news(unschedulable: bool, node: &str) -> (&'static str, String) {
    let reason = if unschedulable {
        "NodeNotSchedulable"
    } else {
        "NodeSchedulable"
    };
    (reason, format!("Node {node} status is now: {reason}"))
}

#[cfg(test)]
mod tests {
    use cri::v1::{RuntimeCondition, RuntimeStatus};

    use super::*;

    fn runtime(conditions: &[(&str, bool, &str)]) -> cri::Result<StatusResponse> {
        let conditions = conditions.iter().map(|(kind, status, reason)| RuntimeCondition {
            r#type: (*kind).into(),
            status: *status,
            reason: (*reason).into(),
            message: "m".into(),
        });
        Ok(StatusResponse {
            status: Some(RuntimeStatus {
                conditions: conditions.collect(),
            }),
            ..Default::default()
        })
    }

    #[test]
    fn what_keeps_a_node_from_being_ready() {
        let cases = [
            (runtime(&[("RuntimeReady", true, ""), ("NetworkReady", true, "")]), None),
            (
                runtime(&[
                    ("RuntimeReady", true, ""),
                    ("NetworkReady", false, "NetworkPluginNotReady"),
                ]),
                Some("container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:m"),
            ),
            (Err(cri::Error::internal("")), Some("container runtime is down")),
            (
                runtime(&[("RuntimeReady", false, "a"), ("NetworkReady", false, "b")]),
                Some(
                    "[container runtime not ready: RuntimeReady=false reason:a message:m, container runtime network not ready: NetworkReady=false reason:b message:m]",
                ),
            ),
        ];
        for (runtime, expected) in cases {
            assert_eq!(not_ready(&runtime, false).as_deref(), expected);
        }
        let well = runtime(&[("RuntimeReady", true, ""), ("NetworkReady", true, "")]);
        assert_eq!(not_ready(&well, true).as_deref(), Some("node is shutting down"));
    }

    #[test]
    fn a_condition_keeps_its_time_while_it_holds() {
        let (first, second) = (Timestamp::UNIX_EPOCH, Timestamp::MAX);
        let known = NodeStatus {
            conditions: Some(vec![condition(
                &NodeStatus::default(),
                "Ready",
                true,
                "r",
                "m".into(),
                first,
            )]),
            ..Default::default()
        };
        let again = condition(&known, "Ready", true, "r", "m".into(), second);
        assert_eq!(
            (again.last_transition_time, again.last_heartbeat_time),
            (Some(Time(first)), Some(Time(second)))
        );
        assert_eq!(
            condition(&known, "Ready", false, "r", "m".into(), second).last_transition_time,
            Some(Time(second))
        );
    }
}
