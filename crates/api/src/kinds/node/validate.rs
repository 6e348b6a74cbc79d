//! What makes a node valid.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus, Taint};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Written;

use crate::field::{FieldError, Path};
use crate::kinds::pod::taint_effect;
use crate::meta::names;
use crate::quantity::Quantity;

/// Checks a new node below its name.
pub(super) fn create(node: &Node) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::new("spec");
    if let Some(spec) = &node.spec {
        taints(
            spec.taints.as_deref().unwrap_or_default(),
            &path.child("taints"),
            &mut errors,
        );
        pod_cidrs(spec, &path.child("podCIDRs"), &mut errors);
    }
    status(node, &mut errors);
    errors
}

/// Checks an update: addresses and provider, once known, stay.
pub(super) fn update(new: &Node, old: &Node) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::new("spec");
    let empty = NodeSpec::default();
    let (new_spec, old_spec) = (new.spec.as_ref().unwrap_or(&empty), old.spec.as_ref().unwrap_or(&empty));
    status(new, &mut errors);
    taints(
        new_spec.taints.as_deref().unwrap_or_default(),
        &path.child("taints"),
        &mut errors,
    );
    let cidrs = |spec: &NodeSpec| spec.pod_cidrs.clone().unwrap_or_default();
    if cidrs(old_spec).is_empty() {
        pod_cidrs(new_spec, &path.child("podCIDRs"), &mut errors);
    } else if cidrs(new_spec) != cidrs(old_spec) {
        let detail = "node updates may not change podCIDR except from \"\" to valid";
        errors.push(FieldError::forbidden(&path.child("podCIDRs"), detail));
    }
    let provider = |spec: &NodeSpec| spec.provider_id.clone().unwrap_or_default();
    if !provider(old_spec).is_empty() && provider(new_spec) != provider(old_spec) {
        let detail = "node updates may not change providerID except from \"\" to valid";
        errors.push(FieldError::forbidden(&path.child("providerID"), detail));
    }
    if new_spec.config_source.is_some() && new_spec.config_source != old_spec.config_source {
        let detail = "configSource is no longer supported; may only be cleared";
        errors.push(FieldError::forbidden(&path.child("configSource"), detail));
    }
    if new_spec.external_id != old_spec.external_id {
        errors.push(FieldError::forbidden(&path.child("externalID"), "may not be updated"));
    }
    errors
}

fn status(node: &Node, errors: &mut Vec<FieldError>) {
    let empty = NodeStatus::default();
    let status = node.status.as_ref().unwrap_or(&empty);
    let path = Path::new("status");
    amounts(status.capacity.as_ref(), &path.child("capacity"), errors);
    amounts(status.allocatable.as_ref(), &path.child("allocatable"), errors);
    let mut seen = HashSet::new();
    for (i, address) in status.addresses.iter().flatten().enumerate() {
        if !seen.insert((&address.type_, &address.address)) {
            let path = path.child("addresses");
            errors.push(FieldError::duplicate(&path.index(i), address));
        }
    }
}

fn amounts(amounts: Option<&BTreeMap<String, Written>>, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (name, written) in amounts.into_iter().flatten() {
        let path = path.key(name);
        match Quantity::of(written) {
            Err(error) => errors.push(FieldError::invalid(&path, &written.0, error.to_string())),
            Ok(quantity) if quantity.is_negative() => {
                let detail = "must be greater than or equal to 0";
                errors.push(FieldError::invalid(&path, quantity.to_string(), detail));
            }
            Ok(_) => {}
        }
    }
}

fn taints(taints: &[Taint], path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let mut seen = HashSet::new();
    for (i, taint) in taints.iter().enumerate() {
        let path = path.index(i);
        for message in names::qualified_name(&taint.key) {
            errors.push(FieldError::invalid(&path.child("key"), &taint.key, message));
        }
        let value = taint.value.as_deref().unwrap_or_default();
        let messages = names::label_value(value);
        if !messages.is_empty() {
            errors.push(FieldError::invalid(&path.child("value"), value, messages.join(";")));
        }
        if taint.effect.is_empty() {
            errors.push(FieldError::required(&path.child("effect"), ""));
        } else {
            taint_effect(&taint.effect, &path.child("effect"), errors);
        }
        if !seen.insert((&taint.key, &taint.effect)) {
            errors.push(FieldError {
                detail: "taints must be unique by key and effect pair".to_owned(),
                ..FieldError::duplicate(&path, taint)
            });
        }
    }
}

fn pod_cidrs(spec: &NodeSpec, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let cidrs = spec.pod_cidrs.as_deref().unwrap_or_default();
    let mut families = Vec::new();
    for (i, cidr) in cidrs.iter().enumerate() {
        match parse_cidr(cidr) {
            Some(address) => families.push(address.is_ipv4()),
            None => errors.push(FieldError::invalid(
                &path.index(i),
                cidr,
                "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            )),
        }
        if cidrs[..i].contains(cidr) {
            errors.push(FieldError::duplicate(&path.index(i), cidr));
        }
    }
    if cidrs.len() > 1 && (cidrs.len() > 2 || !(families.contains(&true) && families.contains(&false))) {
        let detail = "may specify no more than one CIDR for each IP family";
        errors.push(FieldError::invalid(path, cidrs, detail));
    }
}

fn parse_cidr(cidr: &str) -> Option<IpAddr> {
    let (address, bits) = cidr.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let max = if address.is_ipv4() { 32 } else { 128 };
    bits.parse::<u8>().ok().filter(|bits| *bits <= max).map(|_| address)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "the fixtures are constants")]
    use super::*;
    use serde_json::{Value, json};

    fn node(value: Value) -> Node {
        serde_json::from_value(value).unwrap()
    }

    fn shown(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn new_nodes() {
        let cases: Vec<(Value, &[&str])> = vec![
            (json!({"spec": {"podCIDRs": ["10.0.0.0/24", "fd00::/64"]}}), &[]),
            (
                json!({"spec": {"podCIDRs": ["10.0.0.0"]}}),
                &[
                    r#"spec.podCIDRs[0]: Invalid value: "10.0.0.0": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"#,
                ],
            ),
            (
                json!({"spec": {"podCIDRs": ["10.0.0.0/24", "10.0.1.0/24"]}}),
                &[
                    r#"spec.podCIDRs: Invalid value: ["10.0.0.0/24","10.0.1.0/24"]: may specify no more than one CIDR for each IP family"#,
                ],
            ),
            (
                json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "Never"}, {"key": "b", "effect": ""}]}}),
                &[
                    r#"spec.taints[1].effect: Unsupported value: "Never": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute""#,
                    "spec.taints[2].effect: Required value",
                ],
            ),
            (
                json!({"status": {"capacity": {"cpu": "-1"}}}),
                &[r#"status.capacity[cpu]: Invalid value: "-1": must be greater than or equal to 0"#],
            ),
        ];
        for (value, want) in cases {
            assert_eq!(shown(&create(&node(value.clone()))), want, "{value}");
        }
    }

    #[test]
    fn what_stays() {
        let old = json!({"spec": {"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"], "providerID": "a"}});
        let cases: Vec<(Value, &[&str])> = vec![
            (old.clone(), &[]),
            (
                json!({"spec": {"podCIDRs": ["10.0.1.0/24"], "providerID": "b"}}),
                &[
                    "spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid",
                    "spec.providerID: Forbidden: node updates may not change providerID except from \"\" to valid",
                ],
            ),
        ];
        for (new, want) in cases {
            assert_eq!(shown(&update(&node(new.clone()), &node(old.clone()))), want, "{new}");
        }
    }
}
