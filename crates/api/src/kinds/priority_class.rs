//! PriorityClass: a name for how important pods are.

use jiff::Timestamp;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use crate::catalogue::{ALL_VERBS, Resource};
use crate::field::{FieldError, Path};
use crate::strategy::{Typed, TypedStrategy};
use crate::table::{AGE, Column, NAME, age_cell, name_cell};

const SCHEMA: &str = "io.k8s.api.scheduling.v1.PriorityClass";

/// `priorityclasses.scheduling.k8s.io`
pub static RESOURCE: Resource = Resource {
    group: "scheduling.k8s.io",
    version: "v1",
    kind: "PriorityClass",
    list_kind: "PriorityClassList",
    plural: "priorityclasses",
    singular: "priorityclass",
    short_names: &["pc"],
    categories: &[],
    namespaced: false,
    verbs: ALL_VERBS,
    subresources: &[],
    storage: "priorityclasses",
    schema: SCHEMA,
    strategy: &Typed::new(PriorityClasses, SCHEMA),
};

/// The highest priority that users may give; those above are the system's.
pub const HIGHEST_USER_PRIORITY: i32 = 1_000_000_000;

const SYSTEM: [(&str, i32, &str); 2] = [
    (
        "system-cluster-critical",
        2 * HIGHEST_USER_PRIORITY,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
    (
        "system-node-critical",
        2 * HIGHEST_USER_PRIORITY + 1000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
];

/// The classes that every cluster has.
pub fn system() -> Vec<PriorityClass> {
    SYSTEM
        .iter()
        .map(|(name, value, description)| PriorityClass {
            metadata: ObjectMeta {
                name: Some((*name).to_owned()),
                ..Default::default()
            },
            value: Some(*value),
            description: Some((*description).to_owned()),
            preemption_policy: Some("PreemptLowerPriority".into()),
            global_default: None,
        })
        .collect()
}

struct PriorityClasses;

const POLICIES: &[&str] = &["Never", "PreemptLowerPriority"];

fn validate(class: &PriorityClass) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let name = class.metadata.name.as_deref().unwrap_or_default();
    let value = class.value.unwrap_or_default();
    if name.starts_with("system-") {
        let known = SYSTEM.iter().find(|(system, ..)| *system == name);
        let wrong = match known {
            None => Some("priority class names with 'system-' prefix are reserved for system use only".to_owned()),
            Some((_, want, _)) if *want != value => Some(format!("value of {name} PriorityClass must be {want}")),
            Some(_) if class.global_default == Some(true) => {
                Some(format!("globalDefault of {name} PriorityClass must be false"))
            }
            Some((.., want)) if class.description.as_deref() != Some(want) => {
                Some(format!("description of {name} PriorityClass must be {want}"))
            }
            Some(_) => None,
        };
        if let Some(wrong) = wrong {
            let detail =
                format!("priority class names with 'system-' prefix are reserved for system use only. error: {wrong}");
            errors.push(FieldError::forbidden(&Path::new("metadata").child("name"), detail));
        }
    } else if value > HIGHEST_USER_PRIORITY {
        let detail = format!("maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}");
        errors.push(FieldError::forbidden(&Path::new("value"), detail));
    }
    if let Some(policy) = class
        .preemption_policy
        .as_deref()
        .filter(|policy| !POLICIES.contains(policy))
    {
        errors.push(FieldError::not_supported(
            &Path::new("preemptionPolicy"),
            policy,
            POLICIES,
        ));
    }
    errors
}

impl TypedStrategy for PriorityClasses {
    type Object = PriorityClass;

    fn default(&self, class: &mut PriorityClass) {
        class
            .preemption_policy
            .get_or_insert_with(|| "PreemptLowerPriority".into());
        class.value.get_or_insert(0);
    }

    fn prepare_create(&self, class: &mut PriorityClass) {
        class.metadata.generation = Some(1);
    }

    fn validate_create(&self, class: &PriorityClass) -> Vec<FieldError> {
        validate(class)
    }

    fn validate_update(&self, _subresource: Option<&str>, new: &PriorityClass, old: &PriorityClass) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if new.value.unwrap_or_default() != old.value.unwrap_or_default() {
            errors.push(FieldError::forbidden(
                &Path::new("value"),
                "may not be changed in an update.",
            ));
        }
        if new.preemption_policy != old.preemption_policy {
            let policy = new.preemption_policy.as_deref().unwrap_or_default();
            errors.push(FieldError::invalid(
                &Path::new("preemptionPolicy"),
                policy,
                "field is immutable",
            ));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::new(
                "Value",
                "integer",
                "value represents the integer value of this priority class. This is the actual priority that pods receive when they have the name of this class in their pod spec.",
            ),
            Column::new(
                "Global-Default",
                "boolean",
                "globalDefault specifies whether this PriorityClass should be considered as the default priority for pods that do not have any priority class. Only one PriorityClass can be marked as `globalDefault`. However, if more than one PriorityClasses exists with their `globalDefault` field set to true, the smallest value of such global default PriorityClasses will be used as the default priority.",
            ),
            AGE,
            Column::new(
                "PreemptionPolicy",
                "string",
                "preemptionPolicy is the Policy for preempting pods with lower priority. One of Never, PreemptLowerPriority. Defaults to PreemptLowerPriority if unset.",
            ),
        ];
        COLUMNS
    }

    fn row(&self, class: &PriorityClass, now: Timestamp) -> Vec<Value> {
        vec![
            name_cell(&class.metadata),
            class.value.unwrap_or_default().into(),
            class.global_default.unwrap_or_default().into(),
            age_cell(&class.metadata, now),
            class.preemption_policy.as_deref().unwrap_or_default().into(),
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
    fn users_stay_below_the_system() {
        assert_eq!(
            created(&RESOURCE, json!({"value": 2_000_000_000})).unwrap_err(),
            r#"PriorityClass.scheduling.k8s.io "a" is invalid: value: Forbidden: maximum allowed value of a user defined priority is 1000000000"#
        );
        assert!(created(&RESOURCE, json!({"metadata": {"name": "system-x"}, "value": 1}))
            .unwrap_err()
            .contains("metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only"));
        for class in system() {
            assert_eq!(validate(&class), []);
        }
    }

    #[test]
    fn its_value_stays() {
        assert_eq!(
            updated(&RESOURCE, None, json!({"value": 1}), json!({"value": 2})).unwrap_err(),
            r#"PriorityClass.scheduling.k8s.io "a" is invalid: value: Forbidden: may not be changed in an update."#
        );
    }

    #[test]
    fn rows() {
        let row = cells(&RESOURCE, json!({"value": 7, "globalDefault": true}));
        assert_eq!(
            row,
            [
                json!("a"),
                json!(7),
                json!(true),
                json!("60s"),
                json!("PreemptLowerPriority")
            ]
        );
    }
}
