//! Updates of a pod's spec: by itself, and through the subresource that adds containers to it.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{Affinity, Container, NodeAffinity, Pod, PodSpec, Toleration};
use serde::Serialize;
use serde_json::Value;

use super::spec::image_whitespace;
use super::{Errors, metadata_and_spec, required, within};
use crate::field::{FieldError, Path};
use crate::pod;

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// A value without what is as good as not there, so that two specs that mean the same are equal.
pub(crate) fn semantic(value: &impl Serialize) -> Value {
    fn prune(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.values_mut().for_each(prune);
                fields.retain(|key, value| match value {
                    Value::Null => false,
                    Value::String(s) => !s.is_empty(),
                    Value::Array(items) => !items.is_empty(),
                    Value::Object(map) => {
                        !(map.is_empty()
                            && matches!(
                                key.as_str(),
                                "nodeSelector" | "limits" | "requests" | "overhead" | "resources"
                            ))
                    }
                    _ => true,
                });
            }
            Value::Array(items) => items.iter_mut().for_each(prune),
            _ => {}
        }
    }
    let mut value = serde_json::to_value(value).unwrap_or(Value::Null);
    prune(&mut value);
    value
}

pub(super) fn same(a: &impl Serialize, b: &impl Serialize) -> bool {
    semantic(a) == semantic(b)
}

pub(super) fn spec_of(pod: &Pod) -> Cow<'_, PodSpec> {
    pod.spec
        .as_ref()
        .map_or_else(|| Cow::Owned(PodSpec::default()), Cow::Borrowed)
}

/// Checks an update of the pod itself.
pub(crate) fn update(new_pod: &Pod, old_pod: &Pod) -> Errors {
    let mut errors = metadata_and_spec(new_pod);
    let (new, old) = (spec_of(new_pod), spec_of(old_pod));
    let path = Path::new("spec");
    let none = Vec::new();
    let inits = |spec: &PodSpec| spec.init_containers.clone().unwrap_or_default();
    let (new_inits, old_inits) = (inits(&new), inits(&old));
    for (field, new, old) in [
        ("containers", &new.containers, &old.containers),
        ("initContainers", &new_inits, &old_inits),
    ] {
        let path = path.child(field);
        if new.len() != old.len() {
            errors.push(FieldError::forbidden(
                &path,
                "pod updates may not add or remove containers",
            ));
            return errors;
        }
        for (i, container) in new.iter().enumerate() {
            required(
                container.image.as_deref().unwrap_or_default(),
                &path.index(i).child("image"),
                &mut errors,
            );
            image_whitespace(container, &path.index(i), &mut errors);
        }
    }
    let deadline = path.child("activeDeadlineSeconds");
    match (new.active_deadline_seconds, old.active_deadline_seconds) {
        (Some(new), _) if !(0..=i32::MAX.into()).contains(&new) => {
            within(new, 0, i32::MAX.into(), &deadline, &mut errors);
            return errors;
        }
        (Some(new), Some(old)) if old < new => {
            let detail = "must be less than or equal to previous value";
            errors.push(FieldError::invalid(&deadline, new, detail));
            return errors;
        }
        (None, Some(_)) => {
            let detail = "must not update from a positive integer to nil value";
            errors.push(FieldError::invalid(&deadline, Value::Null, detail));
        }
        _ => {}
    }
    only_added_tolerations(
        new.tolerations.as_ref().unwrap_or(&none),
        old.tolerations.as_deref().unwrap_or_default(),
        &path.child("tolerations"),
        &mut errors,
    );
    only_removed_gates(&new, &old, &path.child("schedulingGates"), &mut errors);
    if same(&*new, &*old) {
        return errors;
    }
    let mut rest = with_changeable_fields_of(&new, &old);
    if old.scheduling_gates.iter().flatten().next().is_some() {
        narrowing_of_gated(&mut rest, &old, &path, &mut errors);
    }
    let (old, rest) = (semantic(&*old), semantic(&rest));
    if old != rest {
        let changes = changes(&old, &rest);
        let detail = format!("pod updates may not change fields other than {UPDATABLE}\n{changes}");
        errors.push(FieldError::forbidden(&path, detail));
    }
    errors
}

/// The new spec with everything put back that an update may change.
fn with_changeable_fields_of(new: &PodSpec, old: &PodSpec) -> PodSpec {
    let mut rest = new.clone();
    let images = |rest: &mut [Container], old: &[Container]| {
        for (container, old) in rest.iter_mut().zip(old) {
            container.image.clone_from(&old.image);
        }
    };
    images(&mut rest.containers, &old.containers);
    images(
        rest.init_containers.as_deref_mut().unwrap_or_default(),
        old.init_containers.as_deref().unwrap_or_default(),
    );
    rest.active_deadline_seconds = old.active_deadline_seconds;
    rest.scheduling_gates.clone_from(&old.scheduling_gates);
    rest.tolerations.clone_from(&old.tolerations);
    if old.termination_grace_period_seconds.is_some_and(|seconds| seconds < 0)
        && rest.termination_grace_period_seconds == Some(1)
    {
        rest.termination_grace_period_seconds = old.termination_grace_period_seconds;
    }
    rest
}

/// A pod that is held back may be told more closely where to run. What is fine is put back in `rest`.
fn narrowing_of_gated(rest: &mut PodSpec, old: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    let selector = |spec: &PodSpec| spec.node_selector.clone().unwrap_or_default();
    let (new_selector, old_selector) = (selector(rest), selector(old));
    if new_selector != old_selector {
        if old_selector
            .iter()
            .any(|(key, value)| new_selector.get(key) != Some(value))
        {
            let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
            errors.push(FieldError::invalid(&path.child("nodeSelector"), &new_selector, detail));
        }
        rest.node_selector.clone_from(&old.node_selector);
    }
    let of = |affinity: &Option<Affinity>| affinity.as_ref().and_then(|affinity| affinity.node_affinity.clone());
    let (new_affinity, old_affinity) = (of(&rest.affinity), of(&old.affinity));
    if same(&new_affinity, &old_affinity) {
        return;
    }
    let affinity_path = path.child("affinity");
    node_affinity_narrowed(
        new_affinity.as_ref(),
        old_affinity.as_ref(),
        &affinity_path.child("nodeAffinity"),
        errors,
    );
    match (&mut rest.affinity, &old.affinity) {
        (Some(new), None) if new.pod_affinity.is_none() && new.pod_anti_affinity.is_none() => rest.affinity = None,
        (Some(new), _) => new.node_affinity = old_affinity,
        (None, _) => {
            rest.affinity = old_affinity.map(|node| Affinity {
                node_affinity: Some(node),
                ..Default::default()
            })
        }
    }
}

/// Terms are alternatives, so none may be added, and each may only ask for more.
fn node_affinity_narrowed(
    new: Option<&NodeAffinity>,
    old: Option<&NodeAffinity>,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    let required = |affinity: Option<&NodeAffinity>| {
        affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.clone())
    };
    let Some(old) = required(old) else { return };
    let path = path.child("requiredDuringSchedulingIgnoredDuringExecution");
    let path = path.child("nodeSelectorTerms");
    let new = required(new).unwrap_or_default();
    if new.node_selector_terms.len() != old.node_selector_terms.len() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        errors.push(FieldError::invalid(&path, &new.node_selector_terms, detail));
        return;
    }
    for (i, (new, old)) in new.node_selector_terms.iter().zip(&old.node_selector_terms).enumerate() {
        let expressions = |term: &k8s_openapi::api::core::v1::NodeSelectorTerm| {
            (
                term.match_expressions.clone().unwrap_or_default(),
                term.match_fields.clone().unwrap_or_default(),
            )
        };
        let (new_labels, new_fields) = expressions(new);
        let (old_labels, old_fields) = expressions(old);
        let was_empty = old_labels.is_empty() && old_fields.is_empty();
        if was_empty || !new_labels.starts_with(&old_labels) || !new_fields.starts_with(&old_fields) {
            let detail = "only additions are allowed (no mutations or deletions)";
            errors.push(FieldError::invalid(&path.index(i), new, detail));
        }
    }
}

fn only_added_tolerations(new: &[Toleration], old: &[Toleration], path: &Path<'_>, errors: &mut Errors) {
    let kept = |old: &Toleration| {
        new.iter().any(|new| {
            let old = Toleration {
                toleration_seconds: new.toleration_seconds,
                ..old.clone()
            };
            same(&old, new)
        })
    };
    if !old.iter().all(kept) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden(path, detail));
    }
}

fn only_removed_gates(new: &PodSpec, old: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    for (i, gate) in new.scheduling_gates.iter().flatten().enumerate() {
        if !old.scheduling_gates.iter().flatten().any(|old| old.name == gate.name) {
            let detail = format!(
                "only deletion is allowed, but found new scheduling gate '{}'",
                gate.name
            );
            errors.push(FieldError::forbidden(&path.index(i).child("name"), detail));
        }
    }
}

/// What changed between two values, a line for each side of each field.
fn changes(old: &Value, new: &Value) -> String {
    fn walk(path: &str, old: &Value, new: &Value, out: &mut String) {
        match (old, new) {
            _ if old == new => {}
            (Value::Object(a), Value::Object(b)) => {
                let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
                for key in keys {
                    let at = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or(Value::Null);
                    walk(&format!("{path}.{key}"), &at(a), &at(b), out);
                }
            }
            (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
                for (i, (a, b)) in a.iter().zip(b).enumerate() {
                    walk(&format!("{path}[{i}]"), a, b, out);
                }
            }
            _ => {
                for (sign, value) in [('-', old), ('+', new)] {
                    if !value.is_null() {
                        out.push_str(&format!("{sign} {path}: {value}\n"));
                    }
                }
            }
        }
    }
    let mut out = String::new();
    walk("spec", old, new, &mut out);
    out
}

/// Checks an update through `ephemeralcontainers`, which may only add some.
pub(crate) fn ephemeral_containers(new_pod: &Pod, old_pod: &Pod) -> Errors {
    if pod::is_mirror(old_pod) {
        let detail = "static pods do not support ephemeral containers";
        return vec![FieldError::forbidden(&Path::new(""), detail)];
    }
    let mut errors = metadata_and_spec(new_pod);
    let path = Path::new("spec");
    let path = path.child("ephemeralContainers");
    let (new, old) = (spec_of(new_pod), spec_of(old_pod));
    for old in old.ephemeral_containers.iter().flatten() {
        let name = crate::field::quote(&old.name);
        match new
            .ephemeral_containers
            .iter()
            .flatten()
            .find(|new| new.name == old.name)
        {
            None => {
                let detail = format!("existing ephemeral containers {name} may not be removed\n");
                errors.push(FieldError::forbidden(&path, detail));
            }
            Some(new) if !same(new, old) => {
                let changes = changes(&semantic(old), &semantic(new));
                let detail = format!("existing ephemeral containers {name} may not be changed\n{changes}");
                errors.push(FieldError::forbidden(&path, detail));
            }
            Some(_) => {}
        }
    }
    errors
}
