//! Node: a machine that runs pods. Its kubelet writes the status; the spec says what may run there.

mod table;
mod validate;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use serde_json::Value;

use crate::catalogue::{ALL_VERBS, Resource, Subresource, Verb};
use crate::field::FieldError;
use crate::strategy::{Typed, TypedStrategy};
use crate::table::Column;

const SCHEMA: &str = "io.k8s.api.core.v1.Node";

/// `nodes`
pub static RESOURCE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "Node",
    list_kind: "NodeList",
    plural: "nodes",
    singular: "node",
    short_names: &["no"],
    categories: &[],
    namespaced: false,
    verbs: ALL_VERBS,
    subresources: &[
        Subresource {
            name: "proxy",
            group: "",
            version: "v1",
            kind: "NodeProxyOptions",
            verbs: &[Verb::Create, Verb::Delete, Verb::Get, Verb::Patch, Verb::Update],
        },
        Subresource::status("", "v1", "Node"),
    ],
    storage: "nodes",
    schema: SCHEMA,
    strategy: &Typed::new(Nodes, SCHEMA),
};

struct Nodes;

impl TypedStrategy for Nodes {
    type Object = Node;

    fn default(&self, node: &mut Node) {
        default(node);
    }

    fn validate_create(&self, node: &Node) -> Vec<FieldError> {
        validate::create(node)
    }

    fn prepare_update(&self, subresource: Option<&str>, new: &mut Node, old: &Node) {
        match subresource {
            Some("status") => new.spec.clone_from(&old.spec),
            _ => new.status.clone_from(&old.status),
        }
    }

    fn validate_update(&self, _subresource: Option<&str>, new: &Node, old: &Node) -> Vec<FieldError> {
        validate::update(new, old)
    }

    fn columns(&self) -> &'static [Column] {
        table::COLUMNS
    }

    fn row(&self, node: &Node, now: Timestamp) -> Vec<Value> {
        table::row(node, now)
    }

    fn fields(&self) -> &'static [&'static str] {
        &["spec.unschedulable"]
    }

    fn field(&self, node: &Node, path: &str) -> Option<String> {
        (path == "spec.unschedulable").then(|| {
            node.spec
                .as_ref()
                .and_then(|spec| spec.unschedulable)
                .unwrap_or(false)
                .to_string()
        })
    }
}

/// What is not said to be kept back can be given to pods; one address range and the list of them agree.
fn default(node: &mut Node) {
    if let Some(spec) = &mut node.spec {
        let cidrs = spec.pod_cidrs.get_or_insert_default();
        match spec.pod_cidr.as_deref().filter(|cidr| !cidr.is_empty()) {
            Some(cidr) if cidrs.is_empty() => cidrs.push(cidr.to_owned()),
            _ => spec.pod_cidr = cidrs.first().cloned(),
        }
        if cidrs.is_empty() {
            spec.pod_cidrs = None;
        }
        if spec.unschedulable == Some(false) {
            spec.unschedulable = None;
        }
    }
    if let Some(status) = &mut node.status
        && status.allocatable.is_none()
    {
        status.allocatable.clone_from(&status.capacity);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "the fixtures are constants")]
    use super::*;
    use serde_json::json;

    #[test]
    fn filled_in() {
        for (given, want) in [
            (
                json!({"spec": {"podCIDR": "10.0.0.0/24"}}),
                json!({"spec": {"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"]}}),
            ),
            (
                json!({"spec": {"podCIDRs": ["10.0.0.0/24"]}}),
                json!({"spec": {"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"]}}),
            ),
            (json!({"spec": {"unschedulable": false}}), json!({"spec": {}})),
            (
                json!({"status": {"capacity": {"cpu": "2"}}}),
                json!({"status": {"capacity": {"cpu": "2"}, "allocatable": {"cpu": "2"}}}),
            ),
        ] {
            let mut node: Node = serde_json::from_value(given.clone()).unwrap();
            default(&mut node);
            let wanted: Node = serde_json::from_value(want).unwrap();
            assert_eq!(node, wanted, "{given}");
        }
    }
}
