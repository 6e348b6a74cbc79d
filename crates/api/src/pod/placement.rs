//! Which nodes a pod wants and puts up with, and which of a node's ports it takes: what scheduling and a node's own admission share.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Pod, Taint, Toleration};

use super::is_sidecar;

type Labels = BTreeMap<String, String>;

/// Whether a toleration is for a taint.
fn covers(toleration: &Toleration, taint: &Taint) -> bool {
    let [effect, key, operator, value] = [
        &toleration.effect,
        &toleration.key,
        &toleration.operator,
        &toleration.value,
    ]
    .map(|field| field.as_deref().unwrap_or_default());
    (effect.is_empty() || effect == taint.effect)
        && (key.is_empty() || key == taint.key)
        && match operator {
            "Exists" => true,
            "" | "Equal" => !key.is_empty() && value == taint.value.as_deref().unwrap_or_default(),
            _ => false,
        }
}

/// Whether a pod puts up with a taint.
pub fn tolerates(pod: &Pod, taint: &Taint) -> bool {
    let tolerations = pod.spec.iter().flat_map(|spec| spec.tolerations.iter().flatten());
    tolerations.into_iter().any(|toleration| covers(toleration, taint))
}

/// Whether a node is one of those that the pod wants to run on, and no other.
pub fn wants_node(pod: &Pod, name: &str, labels: Option<&Labels>) -> bool {
    let Some(spec) = &pod.spec else { return true };
    let selected = spec
        .node_selector
        .iter()
        .flatten()
        .all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value));
    let required = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref());
    selected
        && required.is_none_or(|selector| {
            selector
                .node_selector_terms
                .iter()
                .any(|term| matches_node_term(term, name, labels))
        })
}

/// Whether a node meets every requirement of a term; an empty term selects nothing.
pub fn matches_node_term(term: &NodeSelectorTerm, name: &str, labels: Option<&Labels>) -> bool {
    let label = |key: &str| labels?.get(key).map(String::as_str);
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    (!expressions.is_empty() || !fields.is_empty())
        && expressions
            .iter()
            .all(|requirement| meets(requirement, label(&requirement.key)))
        && fields
            .iter()
            .all(|requirement| requirement.key == "metadata.name" && meets(requirement, Some(name)))
}

fn meets(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = || value.is_some_and(|value| values.iter().any(|other| other == value));
    let compare = |holds: fn(&i64, &i64) -> bool| {
        let value = value.and_then(|value| value.parse().ok());
        let bound = values.first().and_then(|bound| bound.parse().ok());
        matches!((value, bound), (Some(value), Some(bound)) if holds(&value, &bound))
    };
    match requirement.operator.as_str() {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(i64::gt),
        "Lt" => compare(i64::lt),
        _ => false,
    }
}

/// A port of the node that a pod listens on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// The node's address; empty for all of them.
    pub ip: String,
    /// TCP, UDP or SCTP.
    pub protocol: String,
    /// Its number.
    pub port: i32,
}

impl HostPort {
    /// Whether two pods cannot both have their port.
    pub fn conflicts(&self, other: &HostPort) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || self.ip.is_empty() || other.ip.is_empty())
    }
}

/// The node's ports that a pod listens on.
pub fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    // Sidecars run beside the main containers; other init containers are gone by then.
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|container| is_sidecar(container));
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            let ip = port
                .host_ip
                .as_deref()
                .filter(|ip| *ip != "0.0.0.0")
                .unwrap_or_default();
            Some(HostPort {
                ip: ip.to_owned(),
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                port: port.host_port.filter(|port| *port > 0)?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_in_conflict() {
        let port = |ip: &str, protocol: &str, port| HostPort {
            ip: ip.into(),
            protocol: protocol.into(),
            port,
        };
        for (a, b, want) in [
            (port("", "TCP", 80), port("", "TCP", 80), true),
            (port("", "TCP", 80), port("", "UDP", 80), false),
            (port("", "TCP", 80), port("", "TCP", 81), false),
            (port("10.0.0.1", "TCP", 80), port("", "TCP", 80), true),
            (port("10.0.0.1", "TCP", 80), port("10.0.0.2", "TCP", 80), false),
        ] {
            assert_eq!(a.conflicts(&b), want, "{a:?} {b:?}");
        }
    }
}
