//! RuntimeClass: a name for a configuration of the container runtime.

use jiff::Timestamp;
use k8s_openapi::api::node::v1::RuntimeClass;
use serde_json::Value;

use crate::catalogue::{ALL_VERBS, Resource};
use crate::field::{FieldError, Path};
use crate::meta::names;
use crate::quantity::Quantity;
use crate::strategy::{Typed, TypedStrategy};
use crate::table::{AGE, Column, NAME, age_cell, name_cell};

const SCHEMA: &str = "io.k8s.api.node.v1.RuntimeClass";

/// `runtimeclasses.node.k8s.io`
pub static RESOURCE: Resource = Resource {
    group: "node.k8s.io",
    version: "v1",
    kind: "RuntimeClass",
    list_kind: "RuntimeClassList",
    plural: "runtimeclasses",
    singular: "runtimeclass",
    short_names: &[],
    categories: &[],
    namespaced: false,
    verbs: ALL_VERBS,
    subresources: &[],
    storage: "runtimeclasses",
    schema: SCHEMA,
    strategy: &Typed::new(RuntimeClasses, SCHEMA),
};

struct RuntimeClasses;

impl TypedStrategy for RuntimeClasses {
    type Object = RuntimeClass;

    fn validate_create(&self, class: &RuntimeClass) -> Vec<FieldError> {
        let path = Path::new("handler");
        let mut errors: Vec<FieldError> = names::dns1123_label(&class.handler)
            .into_iter()
            .map(|message| FieldError::invalid(&path, &class.handler, message))
            .collect();
        let overhead = Path::new("overhead");
        let fixed = overhead.child("podFixed");
        for (name, quantity) in class
            .overhead
            .iter()
            .flat_map(|overhead| overhead.pod_fixed.iter().flatten())
        {
            if Quantity::of(quantity).is_ok_and(Quantity::is_negative) {
                let detail = "must be greater than or equal to 0";
                errors.push(FieldError::invalid(&fixed.key(name), quantity, detail));
            }
        }
        let scheduling = Path::new("scheduling");
        let selector = class
            .scheduling
            .as_ref()
            .and_then(|scheduling| scheduling.node_selector.as_ref());
        crate::meta::validate_labels(selector, &scheduling.child("nodeSelector"), &mut errors);
        errors
    }

    fn validate_update(&self, _subresource: Option<&str>, new: &RuntimeClass, old: &RuntimeClass) -> Vec<FieldError> {
        if new.handler == old.handler {
            return Vec::new();
        }
        vec![FieldError::invalid(
            &Path::new("handler"),
            &new.handler,
            "field is immutable",
        )]
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::new(
                "Handler",
                "string",
                "handler specifies the underlying runtime and configuration that the CRI implementation will use to handle pods of this class. The possible values are specific to the node & CRI configuration.  It is assumed that all handlers are available on every node, and handlers of the same name are equivalent on every node. For example, a handler called \"runc\" might specify that the runc OCI runtime (using native Linux containers) will be used to run the containers in a pod. The Handler must be lowercase, conform to the DNS Label (RFC 1123) requirements, and is immutable.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn row(&self, class: &RuntimeClass, now: Timestamp) -> Vec<Value> {
        vec![
            name_cell(&class.metadata),
            class.handler.as_str().into(),
            age_cell(&class.metadata, now),
        ]
    }
}
