//! The table of nodes.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeStatus};
use serde_json::Value;

use crate::table::{AGE, Column, NAME, age_cell, name_cell};

const ADDRESSES: &str = "List of addresses reachable to the node. Queried from cloud provider, if available. More info: https://kubernetes.io/docs/reference/node/node-status/#addresses Note: This field is declared as mergeable, but the merge key is not sufficiently unique, which can cause data corruption when it is merged. Callers should instead use a full-replacement patch. See https://pr.k8s.io/79391 for an example. Consumers should assume that addresses can change during the lifetime of a Node. However, there are some exceptions where this may not be possible, such as Pods that inherit a Node's address in its own status or consumers of the downward API (status.hostIP).";

/// The columns of [`row`].
pub(super) const COLUMNS: &[Column] = &[
    NAME,
    Column::new("Status", "string", "The status of the node"),
    Column::new("Roles", "string", "The roles of the node"),
    AGE,
    Column::new("Version", "string", "Kubelet Version reported by the node."),
    Column::new("Internal-IP", "string", ADDRESSES).wide(),
    Column::new("External-IP", "string", ADDRESSES).wide(),
    Column::new(
        "OS-Image",
        "string",
        "OS Image reported by the node from /etc/os-release (e.g. Debian GNU/Linux 7 (wheezy)).",
    )
    .wide(),
    Column::new(
        "Kernel-Version",
        "string",
        "Kernel Version reported by the node from 'uname -r' (e.g. 3.16.0-0.bpo.4-amd64).",
    )
    .wide(),
    Column::new(
        "Container-Runtime",
        "string",
        "ContainerRuntime Version reported by the node through runtime remote API (e.g. containerd://1.4.2).",
    )
    .wide(),
];

const ROLE: &str = "node-role.kubernetes.io/";

/// The cells of a node.
pub(super) fn row(node: &Node, now: Timestamp) -> Vec<Value> {
    let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
    let known = |text: Option<&String>| -> Value {
        text.map(String::as_str)
            .filter(|text| !text.is_empty())
            .unwrap_or("<unknown>")
            .into()
    };
    vec![
        name_cell(&node.metadata),
        status(node).into(),
        roles(node).into(),
        age_cell(&node.metadata, now),
        info.map(|info| info.kubelet_version.as_str())
            .unwrap_or_default()
            .into(),
        address(node.status.as_ref(), "InternalIP").into(),
        address(node.status.as_ref(), "ExternalIP").into(),
        known(info.map(|info| &info.os_image)),
        known(info.map(|info| &info.kernel_version)),
        known(info.map(|info| &info.container_runtime_version)),
    ]
}

fn status(node: &Node) -> String {
    let mut conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.rfind(|condition| condition.type_ == "Ready");
    let ready = match ready.map(|condition| condition.status.as_str()) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    match node.spec.as_ref().and_then(|spec| spec.unschedulable) {
        Some(true) => format!("{ready},SchedulingDisabled"),
        _ => ready.to_owned(),
    }
}

fn roles(node: &Node) -> String {
    let labels = node.metadata.labels.iter().flatten();
    let roles: BTreeSet<&str> = labels
        .filter_map(|(key, value)| match key.strip_prefix(ROLE) {
            Some(role) => Some(role),
            None if key == "kubernetes.io/role" => Some(value),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    if roles.is_empty() {
        "<none>".to_owned()
    } else {
        roles.into_iter().collect::<Vec<_>>().join(",")
    }
}

fn address<'a>(status: Option<&'a NodeStatus>, kind: &str) -> &'a str {
    let mut addresses = status.into_iter().flat_map(|status| status.addresses.iter().flatten());
    addresses
        .find(|address| address.type_ == kind)
        .map_or("<none>", |address| &address.address)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "the fixtures are constants")]
    use super::*;
    use serde_json::json;

    #[test]
    fn rows() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        for (node, want) in [
            (
                json!({
                    "metadata": {"name": "n1", "creationTimestamp": "2023-11-14T22:11:20Z", "labels": {"node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "worker"}},
                    "spec": {"unschedulable": true},
                    "status": {
                        "conditions": [{"type": "Ready", "status": "True"}],
                        "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}, {"type": "Hostname", "address": "n1"}],
                        "nodeInfo": {"kubeletVersion": "v1.36.0", "osImage": "Debian", "kernelVersion": "6.18", "containerRuntimeVersion": "podium://0.1"},
                    },
                }),
                [
                    "n1",
                    "Ready,SchedulingDisabled",
                    "control-plane,worker",
                    "2m",
                    "v1.36.0",
                    "10.0.0.1",
                    "<none>",
                    "Debian",
                    "6.18",
                    "podium://0.1",
                ],
            ),
            (
                json!({"metadata": {"name": "n2"}, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}),
                [
                    "n2",
                    "NotReady",
                    "<none>",
                    "<unknown>",
                    "",
                    "<none>",
                    "<none>",
                    "<unknown>",
                    "<unknown>",
                    "<unknown>",
                ],
            ),
            (
                json!({"metadata": {"name": "n3"}}),
                [
                    "n3",
                    "Unknown",
                    "<none>",
                    "<unknown>",
                    "",
                    "<none>",
                    "<none>",
                    "<unknown>",
                    "<unknown>",
                    "<unknown>",
                ],
            ),
        ] {
            let node: Node = serde_json::from_value(node).unwrap();
            let got = row(&node, now);
            assert_eq!(got, want.map(Value::from), "{node:?}");
            assert_eq!(got.len(), COLUMNS.len());
        }
    }
}
