//! Namespace: deleted in two steps. It stays, Terminating, until its content is gone and the last finalizer
//! of its spec was taken away through the `finalize` subresource.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceSpec, NamespaceStatus};
use serde_json::Value;

use crate::catalogue::{Resource, Subresource, Verb};
use crate::field::{FieldError, Path};
use crate::meta::{NameRule, names};
use crate::strategy::{Typed, TypedStrategy};
use crate::table::{AGE, Column, NAME, age_cell, name_cell};

const SCHEMA: &str = "io.k8s.api.core.v1.Namespace";

/// `namespaces`
pub static RESOURCE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "Namespace",
    list_kind: "NamespaceList",
    plural: "namespaces",
    singular: "namespace",
    short_names: &["ns"],
    categories: &[],
    namespaced: false,
    verbs: &[
        Verb::Create,
        Verb::Delete,
        Verb::Get,
        Verb::List,
        Verb::Patch,
        Verb::Update,
        Verb::Watch,
    ],
    subresources: &[
        Subresource {
            name: "finalize",
            group: "",
            version: "v1",
            kind: "Namespace",
            verbs: &[Verb::Update],
        },
        Subresource::status("", "v1", "Namespace"),
    ],
    storage: "namespaces",
    schema: SCHEMA,
    strategy: &Typed::new(Namespaces, SCHEMA),
};

/// The label that says a namespace's name, so that selectors can mean one namespace.
pub const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The finalizer of the namespace controller.
pub const FINALIZER: &str = "kubernetes";

struct Namespaces;

fn label_with_name(namespace: &mut Namespace) {
    if let Some(name) = namespace.metadata.name.as_deref().filter(|name| !name.is_empty()) {
        let labels = namespace.metadata.labels.get_or_insert_with(BTreeMap::new);
        labels.insert(NAME_LABEL.to_owned(), name.to_owned());
    }
}

fn phase(namespace: &Namespace) -> &str {
    namespace
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

fn validate_finalizers(namespace: &Namespace) -> Vec<FieldError> {
    let spec = Path::new("spec");
    let path = spec.child("finalizers");
    let mut errors = Vec::new();
    for finalizer in namespace.spec.iter().flat_map(|spec| spec.finalizers.iter().flatten()) {
        errors.extend(
            names::qualified_name(finalizer)
                .into_iter()
                .map(|m| FieldError::invalid(&path, finalizer, m)),
        );
        if !finalizer.contains('/') && finalizer != FINALIZER {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(FieldError::invalid(&path, finalizer, detail));
        }
    }
    errors
}

impl TypedStrategy for Namespaces {
    type Object = Namespace;

    fn name_rule(&self) -> NameRule {
        NameRule::Label
    }

    fn default(&self, namespace: &mut Namespace) {
        label_with_name(namespace);
    }

    fn prepare_create(&self, namespace: &mut Namespace) {
        // Once more: the name may have been generated after the defaults.
        label_with_name(namespace);
        namespace.status = Some(NamespaceStatus {
            phase: Some("Active".into()),
            conditions: None,
        });
        let spec = namespace.spec.get_or_insert_with(NamespaceSpec::default);
        let finalizers = spec.finalizers.get_or_insert_with(Vec::new);
        if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
        }
    }

    fn validate_create(&self, namespace: &Namespace) -> Vec<FieldError> {
        validate_finalizers(namespace)
    }

    fn prepare_update(&self, subresource: Option<&str>, new: &mut Namespace, old: &Namespace) {
        if subresource != Some("finalize") {
            new.spec.clone_from(&old.spec);
        }
        if subresource != Some("status") {
            new.status.clone_from(&old.status);
        }
    }

    fn validate_update(&self, subresource: Option<&str>, new: &Namespace, _old: &Namespace) -> Vec<FieldError> {
        match subresource {
            Some("finalize") => validate_finalizers(new),
            Some("status") => {
                let detail = match (&new.metadata.deletion_timestamp, phase(new)) {
                    (None, phase) if phase != "Active" => "may only be 'Active' if `deletionTimestamp` is empty",
                    (Some(_), phase) if phase != "Terminating" => {
                        "may only be 'Terminating' if `deletionTimestamp` is not empty"
                    }
                    _ => return Vec::new(),
                };
                vec![FieldError::invalid(
                    &Path::new("status").child("Phase"),
                    phase(new),
                    detail,
                )]
            }
            _ => Vec::new(),
        }
    }

    fn is_held(&self, namespace: &Namespace) -> bool {
        namespace
            .spec
            .as_ref()
            .is_some_and(|spec| spec.finalizers.iter().flatten().next().is_some())
    }

    fn mark_deleted(&self, namespace: &mut Namespace) {
        namespace.status.get_or_insert_with(NamespaceStatus::default).phase = Some("Terminating".into());
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::new("Status", "string", "The status of the namespace"),
            AGE,
        ];
        COLUMNS
    }

    fn row(&self, namespace: &Namespace, now: Timestamp) -> Vec<Value> {
        vec![
            name_cell(&namespace.metadata),
            phase(namespace).into(),
            age_cell(&namespace.metadata, now),
        ]
    }

    fn fields(&self) -> &'static [&'static str] {
        &["status.phase", "name"]
    }

    fn field(&self, namespace: &Namespace, path: &str) -> Option<String> {
        match path {
            "status.phase" => Some(phase(namespace).to_owned()),
            "name" => Some(namespace.metadata.name.clone().unwrap_or_default()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{cells, created, updated};

    #[test]
    fn a_new_one_is_active_labelled_and_held() {
        let namespace = created(&RESOURCE, json!({"status": {"phase": "Terminating"}})).unwrap();
        let value = namespace.to_value().unwrap();
        assert_eq!(value["status"], json!({"phase": "Active"}));
        assert_eq!(value["spec"], json!({"finalizers": ["kubernetes"]}));
        assert_eq!(value["metadata"]["labels"], json!({"kubernetes.io/metadata.name": "a"}));
        assert!(value["metadata"].get("namespace").is_none());
        assert!(RESOURCE.strategy.is_held(&*namespace));
        assert_eq!(cells(&RESOURCE, json!({})), [json!("a"), json!("Active"), json!("60s")]);
    }

    #[test]
    fn names_are_labels() {
        let error = created(&RESOURCE, json!({"metadata": {"name": "a.b"}})).unwrap_err();
        assert_eq!(
            error,
            r#"Namespace "a.b" is invalid: metadata.name: Invalid value: "a.b": must not contain dots"#
        );
    }

    #[test]
    fn each_part_changes_through_its_own_path() {
        let new = json!({"spec": {"finalizers": ["a.b/c"]}, "status": {"phase": "Active", "conditions": []}});
        let finalizers = |subresource| {
            let value = updated(&RESOURCE, subresource, json!({}), new.clone()).unwrap();
            value["spec"]["finalizers"].clone()
        };
        assert_eq!(finalizers(None), json!(["kubernetes"]));
        assert_eq!(finalizers(Some("status")), json!(["kubernetes"]));
        assert_eq!(finalizers(Some("finalize")), json!(["a.b/c"]));
        let error = updated(
            &RESOURCE,
            Some("status"),
            json!({}),
            json!({"status": {"phase": "Terminating"}}),
        );
        assert_eq!(
            error.unwrap_err(),
            r#"Namespace "a" is invalid: status.Phase: Invalid value: "Terminating": may only be 'Active' if `deletionTimestamp` is empty"#
        );
    }

    #[test]
    fn a_deleted_one_is_terminating() {
        let mut namespace = created(&RESOURCE, json!({})).unwrap();
        RESOURCE.strategy.mark_deleted(&mut *namespace);
        assert_eq!(
            RESOURCE.strategy.field(&*namespace, "status.phase").as_deref(),
            Some("Terminating")
        );
    }
}
