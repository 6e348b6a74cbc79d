//! Selectors of pods by their labels and of nodes by their labels and names.

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::{Errors, qualified_name, refuse, subdomain};
use crate::field::{FieldError, Path};
use crate::meta::{names, validate_labels};

const VALUES_NEEDED: &str = "must be specified when `operator` is 'In' or 'NotIn'";
const VALUES_UNUSED: &str = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";

pub(super) fn label_selector(selector: &LabelSelector, path: &Path<'_>, errors: &mut Errors) {
    validate_labels(selector.match_labels.as_ref(), &path.child("matchLabels"), errors);
    for (i, requirement) in selector.match_expressions.iter().flatten().enumerate() {
        let list = path.child("matchExpressions");
        let path = list.index(i);
        let values = requirement.values.as_deref().unwrap_or_default();
        match requirement.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => {
                errors.push(FieldError::required(&path.child("values"), VALUES_NEEDED));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                errors.push(FieldError::forbidden(&path.child("values"), VALUES_UNUSED));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.push(FieldError::invalid(
                &path.child("operator"),
                other,
                "not a valid selector operator",
            )),
        }
        qualified_name(&requirement.key, &path.child("key"), errors);
        for (j, value) in values.iter().enumerate() {
            refuse(errors, &path.child("values").index(j), value, names::label_value(value));
        }
    }
}

pub(crate) fn node_selector(selector: &NodeSelector, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("nodeSelectorTerms");
    if selector.node_selector_terms.is_empty() {
        errors.push(FieldError::required(&path, "must have at least one node selector term"));
    }
    for (i, term) in selector.node_selector_terms.iter().enumerate() {
        node_selector_term(term, true, &path.index(i), errors);
    }
}

/// Checks a term; in a preference, which may just as well not be met, values are let through.
pub(super) fn node_selector_term(term: &NodeSelectorTerm, strict: bool, path: &Path<'_>, errors: &mut Errors) {
    for (i, requirement) in term.match_expressions.iter().flatten().enumerate() {
        let path = path.child("matchExpressions");
        node_requirement(requirement, strict, &path.index(i), errors);
    }
    for (i, requirement) in term.match_fields.iter().flatten().enumerate() {
        let path = path.child("matchFields");
        node_field_requirement(requirement, &path.index(i), errors);
    }
}

fn node_requirement(requirement: &NodeSelectorRequirement, strict: bool, path: &Path<'_>, errors: &mut Errors) {
    let values = requirement.values.as_deref().unwrap_or_default();
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            errors.push(FieldError::required(&path.child("values"), VALUES_NEEDED));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            errors.push(FieldError::forbidden(&path.child("values"), VALUES_UNUSED));
        }
        "Gt" | "Lt" if values.len() != 1 => {
            let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            errors.push(FieldError::required(&path.child("values"), detail));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.push(FieldError::invalid(
            &path.child("operator"),
            other,
            "not a valid selector operator",
        )),
    }
    qualified_name(&requirement.key, &path.child("key"), errors);
    if strict {
        for (i, value) in values.iter().enumerate() {
            refuse(errors, &path.child("values").index(i), value, names::label_value(value));
        }
    }
}

fn node_field_requirement(requirement: &NodeSelectorRequirement, path: &Path<'_>, errors: &mut Errors) {
    let values = requirement.values.as_deref().unwrap_or_default();
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.len() != 1 => {
            let detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errors.push(FieldError::required(&path.child("values"), detail));
        }
        "In" | "NotIn" => {}
        other => errors.push(FieldError::invalid(
            &path.child("operator"),
            other,
            "not a valid selector operator",
        )),
    }
    if requirement.key == "metadata.name" {
        for (i, value) in values.iter().enumerate() {
            subdomain(value, &path.child("values").index(i), errors);
        }
    } else {
        let detail = "not a valid field selector key";
        errors.push(FieldError::invalid(&path.child("key"), &requirement.key, detail));
    }
}
