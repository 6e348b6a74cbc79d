//! StorageClass: how volumes come about, and when claims are bound to them.

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::Value;

use crate::catalogue::{ALL_VERBS, Resource};
use crate::field::{FieldError, Path};
use crate::meta::names;
use crate::strategy::{Typed, TypedStrategy};
use crate::table::{AGE, Column, NAME, age_cell};

const SCHEMA: &str = "io.k8s.api.storage.v1.StorageClass";

/// `storageclasses.storage.k8s.io`
pub static RESOURCE: Resource = Resource {
    group: "storage.k8s.io",
    version: "v1",
    kind: "StorageClass",
    list_kind: "StorageClassList",
    plural: "storageclasses",
    singular: "storageclass",
    short_names: &["sc"],
    categories: &[],
    namespaced: false,
    verbs: ALL_VERBS,
    subresources: &[],
    storage: "storageclasses",
    schema: SCHEMA,
    strategy: &Typed::new(StorageClasses, SCHEMA),
};

/// The annotations that make a class the one of claims that name none.
const DEFAULT: [&str; 2] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];

/// Whether claims that name no class are of this one.
pub fn is_default(class: &StorageClass) -> bool {
    let annotations = class.metadata.annotations.as_ref();
    annotations.is_some_and(|all| {
        DEFAULT
            .iter()
            .any(|key| all.get(*key).is_some_and(|value| value == "true"))
    })
}

struct StorageClasses;

impl TypedStrategy for StorageClasses {
    type Object = StorageClass;

    fn default(&self, class: &mut StorageClass) {
        class.reclaim_policy.get_or_insert_with(|| "Delete".into());
        class.volume_binding_mode.get_or_insert_with(|| "Immediate".into());
    }

    fn validate_create(&self, class: &StorageClass) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = Path::new("provisioner");
        if class.provisioner.is_empty() {
            errors.push(FieldError::required(&path, class.provisioner.as_str()));
        } else {
            let lower = class.provisioner.to_lowercase();
            let wrong = names::qualified_name(&lower);
            errors.extend(
                wrong
                    .into_iter()
                    .map(|wrong| FieldError::invalid(&path, &class.provisioner, wrong)),
            );
        }
        let mut one_of = |field: &'static str, value: Option<&str>, supported: &[&str]| {
            let value = value.unwrap_or_default();
            if !supported.contains(&value) {
                errors.push(FieldError::not_supported(&Path::new(field), value, supported));
            }
        };
        one_of("reclaimPolicy", class.reclaim_policy.as_deref(), &["Delete", "Retain"]);
        let modes = &["Immediate", "WaitForFirstConsumer"];
        one_of("volumeBindingMode", class.volume_binding_mode.as_deref(), modes);
        if class.parameters.iter().flatten().any(|(name, _)| name.is_empty()) {
            let detail = "must be nonempty.";
            errors.push(FieldError::invalid(&Path::new("parameters"), "", detail));
        }
        errors
    }

    fn validate_update(&self, _subresource: Option<&str>, new: &StorageClass, old: &StorageClass) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut fixed = |field: &'static str, same: bool| {
            if !same {
                let detail = format!("updates to {field} are forbidden.");
                errors.push(FieldError::forbidden(&Path::new(field), detail));
            }
        };
        let parameters = |class: &StorageClass| class.parameters.clone().unwrap_or_default();
        fixed("parameters", parameters(new) == parameters(old));
        fixed("provisioner", new.provisioner == old.provisioner);
        fixed("reclaimPolicy", new.reclaim_policy == old.reclaim_policy);
        if new.volume_binding_mode != old.volume_binding_mode {
            let mode = new.volume_binding_mode.as_deref().unwrap_or_default();
            errors.push(FieldError::invalid(
                &Path::new("volumeBindingMode"),
                mode,
                "field is immutable",
            ));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::new(
                "Provisioner",
                "string",
                "provisioner indicates the type of the provisioner.",
            ),
            Column::new(
                "ReclaimPolicy",
                "string",
                "reclaimPolicy controls the reclaimPolicy for dynamically provisioned PersistentVolumes of this storage class. Defaults to Delete.",
            ),
            Column::new(
                "VolumeBindingMode",
                "string",
                "volumeBindingMode indicates how PersistentVolumeClaims should be provisioned and bound.  When unset, VolumeBindingImmediate is used. This field is only honored by servers that enable the VolumeScheduling feature.",
            ),
            Column::new(
                "AllowVolumeExpansion",
                "string",
                "allowVolumeExpansion shows whether the storage class allow volume expand.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn row(&self, class: &StorageClass, now: Timestamp) -> Vec<Value> {
        let name = class.metadata.name.as_deref().unwrap_or_default();
        let marked = if is_default(class) {
            format!("{name} (default)")
        } else {
            name.to_owned()
        };
        vec![
            marked.into(),
            class.provisioner.as_str().into(),
            class.reclaim_policy.as_deref().unwrap_or("Delete").into(),
            class.volume_binding_mode.as_deref().unwrap_or("Immediate").into(),
            class.allow_volume_expansion.unwrap_or(false).into(),
            age_cell(&class.metadata, now),
        ]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{cells, created, updated};

    #[test]
    fn classes_say_what_is_wrong() {
        let said = created(&RESOURCE, json!({"provisioner": "", "volumeBindingMode": "Later"})).unwrap_err();
        assert!(said.contains("provisioner: Required value"), "{said}");
        assert!(said.contains(r#"volumeBindingMode: Unsupported value: "Later": supported values: "Immediate", "WaitForFirstConsumer""#), "{said}");
        let said = updated(
            &RESOURCE,
            None,
            json!({"provisioner": "a/b"}),
            json!({"provisioner": "a/c"}),
        )
        .unwrap_err();
        assert!(
            said.contains("provisioner: Forbidden: updates to provisioner are forbidden."),
            "{said}"
        );
        updated(
            &RESOURCE,
            None,
            json!({"provisioner": "a/b"}),
            json!({"provisioner": "a/b", "allowVolumeExpansion": true}),
        )
        .unwrap();
    }

    #[test]
    fn rows_mark_the_default() {
        let annotations = json!({"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}});
        let row = cells(
            &RESOURCE,
            json!({"metadata": annotations, "provisioner": "kubernetes.io/no-provisioner"}),
        );
        let expected = [
            json!("a (default)"),
            json!("kubernetes.io/no-provisioner"),
            json!("Delete"),
            json!("Immediate"),
            json!(false),
            json!("60s"),
        ];
        assert_eq!(row, expected);
    }
}
