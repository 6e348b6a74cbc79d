//! Updates of a pod's status.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodSpec, PodStatus};

use super::{Errors, ip, qualified_name, subdomain};
use crate::field::{FieldError, Path};
use crate::pod::{self, is_sidecar, may_restart_all};

/// Conditions whose names have no rule to follow.
const SYSTEM_CONDITIONS: &[&str] = &["PodScheduled", "Ready", "Initialized"];

/// Checks a new status against the one it takes the place of.
pub(crate) fn update_status(new: &Pod, old: &Pod) -> Errors {
    let mut errors = Vec::new();
    let empty = PodStatus::default();
    let status = new.status.as_ref().unwrap_or(&empty);
    let old_status = old.status.as_ref().unwrap_or(&empty);
    let metadata = Path::new("metadata");
    for (i, condition) in status.conditions.iter().flatten().enumerate() {
        if !SYSTEM_CONDITIONS.contains(&condition.type_.as_str()) {
            // Upstream looks for them here.
            let path = metadata.child("conditions");
            qualified_name(&condition.type_, &path.index(i).child("Type"), &mut errors);
        }
    }
    let path = Path::new("status");
    if pod::node_name(new) != pod::node_name(old) {
        errors.push(FieldError::forbidden(
            &path.child("nodeName"),
            "may not be changed directly",
        ));
    }
    if status.nominated_node_name != old_status.nominated_node_name
        && let Some(name) = status.nominated_node_name.as_deref().filter(|name| !name.is_empty())
    {
        subdomain(name, &path.child("nominatedNodeName"), &mut errors);
    }
    if status.qos_class != old_status.qos_class {
        let class = status.qos_class.as_deref().unwrap_or_default();
        errors.push(FieldError::invalid(
            &path.child("qosClass"),
            class,
            "field is immutable",
        ));
    }
    if let Some(spec) = &old.spec {
        transitions(status, old_status, spec, &path, &mut errors);
    }
    claims(status, new, &path.child("resourceClaimStatuses"), &mut errors);
    let ips: Vec<&str> = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).collect();
    addresses(&ips, &path.child("podIPs"), &mut errors);
    let ips: Vec<&str> = status.host_ips.iter().flatten().map(|ip| ip.ip.as_str()).collect();
    if let Some(first) = ips.first()
        && status.host_ip.as_deref() != Some(first)
    {
        let path = path.child("hostIPs");
        errors.push(FieldError::invalid(
            &path.index(0).child("ip"),
            first,
            "must be equal to `hostIP`",
        ));
    }
    addresses(&ips, &path.child("hostIPs"), &mut errors);
    errors
}

/// A container that ended for good stays ended.
fn transitions(new: &PodStatus, old: &PodStatus, spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    let policy = spec.restart_policy.as_deref().unwrap_or("Always");
    let rules = |name: &str| {
        spec.containers
            .iter()
            .chain(spec.init_containers.iter().flatten())
            .any(|c| c.name == name && (c.restart_policy_rules.is_some() || c.restart_policy.is_some()))
    };
    let sidecar = |name: &str| {
        spec.init_containers
            .iter()
            .flatten()
            .any(|c| c.name == name && is_sidecar(c))
    };
    // Then even those start again that ended for good.
    let anew = may_restart_all(spec);
    let mut check =
        |field: &str, policy: &str, new: &Option<Vec<ContainerStatus>>, old: &Option<Vec<ContainerStatus>>| {
            if policy == "Always" || (anew && field != "ephemeralContainerStatuses") {
                return;
            }
            for (i, before) in old.iter().flatten().enumerate() {
                let Some(ended) = before.state.as_ref().and_then(|state| state.terminated.as_ref()) else {
                    continue;
                };
                let may_restart = (ended.exit_code != 0 && policy == "OnFailure")
                    || rules(&before.name)
                    || (field == "initContainerStatuses" && sidecar(&before.name));
                if may_restart {
                    continue;
                }
                let is_back = new.iter().flatten().any(|after| {
                    after.name == before.name && after.state.as_ref().is_none_or(|state| state.terminated.is_none())
                });
                if is_back {
                    let path = path.child(field);
                    let detail = "may not be transitioned to non-terminated state";
                    errors.push(FieldError::forbidden(&path.index(i).child("state"), detail));
                }
            }
        };
    check(
        "containerStatuses",
        policy,
        &new.container_statuses,
        &old.container_statuses,
    );
    check(
        "initContainerStatuses",
        policy,
        &new.init_container_statuses,
        &old.init_container_statuses,
    );
    check(
        "ephemeralContainerStatuses",
        "Never",
        &new.ephemeral_container_statuses,
        &old.ephemeral_container_statuses,
    );
}

fn claims(status: &PodStatus, pod: &Pod, path: &Path<'_>, errors: &mut Errors) {
    let known = || pod.spec.iter().flat_map(|spec| spec.resource_claims.iter().flatten());
    let claims = status.resource_claim_statuses.as_deref().unwrap_or_default();
    for (i, claim) in claims.iter().enumerate() {
        let path = path.index(i);
        if !known().any(|known| known.name == claim.name) {
            let detail = "must match the name of an entry in `spec.resourceClaims`";
            errors.push(FieldError::invalid(&path.child("name"), &claim.name, detail));
        }
        if claims[..i].iter().any(|other| other.name == claim.name) {
            errors.push(FieldError::duplicate(&path.child("name"), &claim.name));
        }
        if let Some(name) = &claim.resource_claim_name {
            subdomain(name, &path.child("name"), errors);
        }
    }
}

/// One address of each family at most.
fn addresses(ips: &[&str], path: &Path<'_>, errors: &mut Errors) {
    for (i, address) in ips.iter().enumerate() {
        ip(address, &path.index(i), errors);
    }
    if ips.len() < 2 {
        return;
    }
    let parsed: Vec<IpAddr> = ips.iter().filter_map(|ip| ip.parse().ok()).collect();
    let both = parsed.iter().any(IpAddr::is_ipv4) && parsed.iter().any(IpAddr::is_ipv6);
    if !both || ips.len() > 2 {
        let shown: Vec<serde_json::Value> = ips.iter().map(|ip| serde_json::json!({"ip": ip})).collect();
        let detail = "may specify no more than one IP for each IP family";
        errors.push(FieldError::invalid(path, shown, detail));
    }
    for (i, address) in ips
        .iter()
        .enumerate()
        .filter(|(i, address)| ips[..*i].contains(address))
    {
        errors.push(FieldError::duplicate(
            &path.index(i),
            serde_json::json!({"ip": address}),
        ));
    }
}
