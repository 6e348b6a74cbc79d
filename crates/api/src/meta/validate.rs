//! Validation of ObjectMeta.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::names::{self, NameRule};
use crate::field::{FieldError, Path};

/// The most bytes that all annotations of an object may have together.
const ANNOTATIONS_MAX: usize = 256 * 1024;

/// Finalizers that have no domain in their name.
const STANDARD_FINALIZERS: &[&str] = &["kubernetes", "orphan", "foregroundDeletion"];

/// Checks the metadata of a new object.
pub fn validate_create(meta: &ObjectMeta, namespaced: bool, rule: NameRule, path: &Path<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(prefix) = meta.generate_name.as_deref().filter(|prefix| !prefix.is_empty()) {
        for message in rule.check_prefix(prefix) {
            errors.push(FieldError::invalid(&path.child("generateName"), prefix, message));
        }
    }
    match meta.name.as_deref().unwrap_or_default() {
        "" => errors.push(FieldError::required(
            &path.child("name"),
            "name or generateName is required",
        )),
        name => {
            for message in rule.check(name) {
                errors.push(FieldError::invalid(&path.child("name"), name, message));
            }
        }
    }
    match meta.namespace.as_deref().unwrap_or_default() {
        "" if namespaced => errors.push(FieldError::required(&path.child("namespace"), "")),
        "" => {}
        namespace if namespaced => {
            for message in names::dns1123_label(namespace) {
                errors.push(FieldError::invalid(&path.child("namespace"), namespace, message));
            }
        }
        _ => errors.push(FieldError::forbidden(
            &path.child("namespace"),
            "not allowed on this type",
        )),
    }
    if let Some(generation) = meta.generation.filter(|generation| *generation < 0) {
        let detail = "must be greater than or equal to 0";
        errors.push(FieldError::invalid(&path.child("generation"), generation, detail));
    }
    validate_changeable(meta, path, &mut errors);
    errors
}

/// Checks the metadata of an update against what it updates.
pub fn validate_update(new: &ObjectMeta, old: &ObjectMeta, path: &Path<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if old.deletion_timestamp.is_some() {
        let before: BTreeSet<&String> = old.finalizers.iter().flatten().collect();
        let added: Vec<&str> = new
            .finalizers
            .iter()
            .flatten()
            .filter(|f| !before.contains(f))
            .map(String::as_str)
            .collect();
        if !added.is_empty() {
            let list = added
                .iter()
                .map(|f| crate::field::quote(f))
                .collect::<Vec<_>>()
                .join(", ");
            errors.push(FieldError::forbidden(
                &path.child("finalizers"),
                format!("no new finalizers can be added if the object is being deleted, found new finalizers []string{{{list}}}"),
            ));
        }
    }
    for (field, new, old) in [
        ("name", &new.name, &old.name),
        ("namespace", &new.namespace, &old.namespace),
        ("uid", &new.uid, &old.uid),
    ] {
        let (new, old) = (new.as_deref().unwrap_or_default(), old.as_deref().unwrap_or_default());
        if new != old {
            errors.push(FieldError::invalid(&path.child(field), new, "field is immutable"));
        }
    }
    if new.deletion_timestamp != old.deletion_timestamp {
        let at = path.child("deletionTimestamp");
        errors.push(FieldError::invalid(&at, &new.deletion_timestamp, "field is immutable"));
    }
    if new.deletion_grace_period_seconds != old.deletion_grace_period_seconds {
        let at = path.child("deletionGracePeriodSeconds");
        errors.push(FieldError::invalid(
            &at,
            new.deletion_grace_period_seconds,
            "field is immutable",
        ));
    }
    validate_changeable(new, path, &mut errors);
    errors
}

fn validate_changeable(meta: &ObjectMeta, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    validate_labels(meta.labels.as_ref(), &path.child("labels"), errors);
    validate_annotations(meta.annotations.as_ref(), &path.child("annotations"), errors);
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    validate_owners(owners, &path.child("ownerReferences"), errors);
    validate_finalizers(
        meta.finalizers.as_deref().unwrap_or_default(),
        &path.child("finalizers"),
        errors,
    );
}

/// Checks the keys and values of labels.
pub fn validate_labels(labels: Option<&BTreeMap<String, String>>, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (key, value) in labels.into_iter().flatten() {
        errors.extend(
            names::qualified_name(key)
                .into_iter()
                .map(|m| FieldError::invalid(path, key, m)),
        );
        errors.extend(
            names::label_value(value)
                .into_iter()
                .map(|m| FieldError::invalid(path, value, m)),
        );
    }
}

/// Checks the keys of annotations, and the size of all of them.
pub fn validate_annotations(
    annotations: Option<&BTreeMap<String, String>>,
    path: &Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    let mut bytes = 0;
    for (key, value) in annotations.into_iter().flatten() {
        let messages = names::qualified_name(&key.to_lowercase());
        errors.extend(
            messages
                .into_iter()
                .map(|message| FieldError::invalid(path, key, message)),
        );
        bytes += key.len() + value.len();
    }
    if bytes > ANNOTATIONS_MAX {
        errors.push(FieldError::too_long(path, ANNOTATIONS_MAX));
    }
}

fn validate_owners(owners: &[OwnerReference], path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let mut controller: Option<&OwnerReference> = None;
    for owner in owners {
        let version = owner.api_version.rsplit('/').next().unwrap_or_default();
        if version.is_empty() {
            errors.push(FieldError::invalid(
                &path.child("apiVersion"),
                &owner.api_version,
                "version must not be empty",
            ));
        }
        for (field, value) in [("kind", &owner.kind), ("name", &owner.name), ("uid", &owner.uid)] {
            if value.is_empty() {
                errors.push(FieldError::invalid(&path.child(field), value, "must not be empty"));
            }
        }
        if owner.api_version == "v1" && owner.kind == "Event" {
            let detail = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(FieldError::invalid(path, owner, detail));
        }
        if owner.controller == Some(true) {
            match controller {
                Some(first) => errors.push(FieldError::invalid(
                    path,
                    owners,
                    format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {}/{} and {}/{}",
                        first.kind, first.name, owner.kind, owner.name
                    ),
                )),
                None => controller = Some(owner),
            }
        }
    }
}

fn validate_finalizers(finalizers: &[String], path: &Path<'_>, errors: &mut Vec<FieldError>) {
    // The two rules name the field differently; so does upstream.
    for (index, finalizer) in finalizers.iter().enumerate() {
        errors.extend(
            names::qualified_name(finalizer)
                .into_iter()
                .map(|m| FieldError::invalid(path, finalizer, m)),
        );
        if !finalizer.contains('/') && !STANDARD_FINALIZERS.contains(&finalizer.as_str()) {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(FieldError::invalid(&path.index(index), finalizer, detail));
        }
    }
    let has = |name: &str| finalizers.iter().any(|finalizer| finalizer == name);
    if has("orphan") && has("foregroundDeletion") {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(FieldError::invalid(path, finalizers, detail));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_new_object_needs_a_name_and_a_namespace() {
        let errors = validate_create(
            &ObjectMeta::default(),
            true,
            NameRule::Subdomain,
            &Path::new("metadata"),
        );
        assert_eq!(
            messages(&errors),
            [
                "metadata.name: Required value: name or generateName is required",
                "metadata.namespace: Required value",
            ]
        );
        let meta = ObjectMeta {
            name: Some("n".into()),
            namespace: Some("x".into()),
            ..Default::default()
        };
        let errors = validate_create(&meta, false, NameRule::Subdomain, &Path::new("metadata"));
        assert_eq!(
            messages(&errors),
            ["metadata.namespace: Forbidden: not allowed on this type"]
        );
    }

    #[test]
    fn names_and_uids_do_not_change() {
        let old = ObjectMeta {
            name: Some("a".into()),
            uid: Some("1".into()),
            ..Default::default()
        };
        let new = ObjectMeta {
            name: Some("b".into()),
            uid: Some("2".into()),
            ..Default::default()
        };
        assert_eq!(
            messages(&validate_update(&new, &old, &Path::new("metadata"))),
            [
                r#"metadata.name: Invalid value: "b": field is immutable"#,
                r#"metadata.uid: Invalid value: "2": field is immutable"#,
            ]
        );
    }

    #[test]
    fn finalizers_are_qualified() {
        let meta = ObjectMeta {
            name: Some("a".into()),
            finalizers: Some(vec!["kubernetes".into(), "mine".into(), "a.b/c".into()]),
            ..Default::default()
        };
        assert_eq!(
            messages(&validate_create(
                &meta,
                false,
                NameRule::Subdomain,
                &Path::new("metadata")
            )),
            [
                r#"metadata.finalizers[1]: Invalid value: "mine": name is neither a standard finalizer name nor is it fully qualified"#
            ]
        );
    }

    #[test]
    fn one_controller_only() {
        let owner = |name: &str| OwnerReference {
            api_version: "apps/v1".into(),
            kind: "ReplicaSet".into(),
            name: name.into(),
            uid: name.into(),
            controller: Some(true),
            ..Default::default()
        };
        let meta = ObjectMeta {
            name: Some("a".into()),
            owner_references: Some(vec![owner("x"), owner("y")]),
            ..Default::default()
        };
        let errors = validate_create(&meta, false, NameRule::Subdomain, &Path::new("metadata"));
        assert_eq!(errors.len(), 1);
        assert!(
            errors[0]
                .detail
                .ends_with("references for ReplicaSet/x and ReplicaSet/y"),
            "{}",
            errors[0]
        );
    }
}
