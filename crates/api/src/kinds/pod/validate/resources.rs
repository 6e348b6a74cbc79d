//! Requests and limits: names of resources, amounts, and how they go together.

use k8s_openapi::api::core::v1::{PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Written;

use super::{Errors, refuse};
use crate::field::{FieldError, Path};
use crate::meta::names;
use crate::pod::aggregate_container_requests;
use crate::quantity::Quantity;

const HUGE_PAGES: &str = "hugepages-";

/// Resources without a domain in their name: those of containers first, then those of quotas alone.
const STANDARD: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
];

const OF_CONTAINERS: &[&str] = &["cpu", "memory", "ephemeral-storage"];

fn is_huge_pages(name: &str) -> bool {
    name.starts_with(HUGE_PAGES)
}

/// Whether Kubernetes itself defines the resource.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Whether the resource is one that a device plugin or an operator brings.
pub(crate) fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && names::qualified_name(&format!("requests.{name}")).is_empty()
}

/// Whether less may be asked for than is allowed.
fn allows_overcommit(name: &str) -> bool {
    is_native(name) && !is_huge_pages(name)
}

fn container_resource_name(name: &str, path: &Path<'_>, errors: &mut Errors) {
    let messages = names::qualified_name(name);
    if !messages.is_empty() {
        refuse(errors, path, name, messages);
        return;
    }
    if !name.contains('/') {
        if !STANDARD.contains(&name) && !is_huge_pages(name) {
            let detail = "must be a standard resource type or fully qualified";
            errors.push(FieldError::invalid(path, name, detail));
        }
        if !OF_CONTAINERS.contains(&name) && !is_huge_pages(name) {
            errors.push(FieldError::invalid(
                path,
                name,
                "must be a standard resource for containers",
            ));
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.push(FieldError::invalid(
            path,
            name,
            "doesn't follow extended resource name standard",
        ));
    }
}

/// The amount, if it is one and may be had of this resource.
fn amount(name: &str, written: &Written, path: &Path<'_>, errors: &mut Errors) -> Option<Quantity> {
    let quantity = match Quantity::of(written) {
        Ok(quantity) => quantity,
        Err(error) => {
            errors.push(FieldError::invalid(path, &written.0, error.to_string()));
            return None;
        }
    };
    let shown = quantity.to_string();
    if quantity.is_negative() {
        errors.push(FieldError::invalid(path, &shown, "must be greater than or equal to 0"));
    }
    if is_extended(name) && quantity.millis() % 1000 != 0 {
        errors.push(FieldError::invalid(path, &shown, "must be an integer"));
    }
    if let Some(size) = name.strip_prefix(HUGE_PAGES) {
        let page = size.parse::<Quantity>().map(Quantity::value).unwrap_or(0);
        if page <= 0 || quantity.is_negative() || quantity.value() % page != 0 {
            let detail = format!("{shown} is not positive integer multiple of {name}");
            errors.push(FieldError::invalid(path, &shown, detail));
        }
    }
    Some(quantity)
}

pub(super) fn requirements(requirements: &ResourceRequirements, claims: &[&str], path: &Path<'_>, errors: &mut Errors) {
    amounts(requirements, path, container_resource_name, errors);
    let mut seen: Vec<(&str, Option<&str>)> = Vec::new();
    for (i, claim) in requirements.claims.iter().flatten().enumerate() {
        let list = path.child("claims");
        let path = list.index(i);
        if claim.name.is_empty() {
            errors.push(FieldError::required(&path.child("name"), ""));
            continue;
        }
        let key = (
            claim.name.as_str(),
            claim.request.as_deref().filter(|request| !request.is_empty()),
        );
        if seen.contains(&key) {
            errors.push(FieldError::duplicate(&path, &claim.name));
        } else {
            seen.push(key);
        }
        if !claims.contains(&claim.name.as_str()) {
            errors.push(FieldError::not_found(&path.child("name"), &claim.name));
        }
    }
}

fn amounts(
    requirements: &ResourceRequirements,
    path: &Path<'_>,
    check_name: impl Fn(&str, &Path<'_>, &mut Errors),
    errors: &mut Errors,
) {
    let (limits_path, requests_path) = (path.child("limits"), path.child("requests"));
    for (name, written) in requirements.limits.iter().flatten() {
        check_name(name, &limits_path.key(name), errors);
        amount(name, written, &limits_path.key(name), errors);
    }
    for (name, written) in requirements.requests.iter().flatten() {
        check_name(name, &requests_path.key(name), errors);
        let request = amount(name, written, &requests_path.key(name), errors);
        let limit = requirements
            .limits
            .as_ref()
            .and_then(|limits| limits.get(name))
            .map(Quantity::of);
        match (request, limit) {
            (Some(request), Some(Ok(limit))) => {
                let shown = request.to_string();
                if request != limit && !allows_overcommit(name) {
                    let detail = format!("must be equal to {name} limit of {limit}");
                    errors.push(FieldError::invalid(&requests_path, shown, detail));
                } else if request > limit {
                    let detail = format!("must be less than or equal to {name} limit of {limit}");
                    errors.push(FieldError::invalid(&requests_path, shown, detail));
                }
            }
            (_, None) if !allows_overcommit(name) => {
                let detail = "Limit must be set for non overcommitable resources";
                errors.push(FieldError::required(&limits_path, detail));
            }
            _ => {}
        }
    }
    let names = || {
        requirements
            .limits
            .iter()
            .chain(&requirements.requests)
            .flat_map(|amounts| amounts.keys())
    };
    if names().any(|name| is_huge_pages(name)) && !names().any(|name| matches!(name.as_str(), "cpu" | "memory")) {
        errors.push(FieldError::forbidden(path, "HugePages require cpu or memory"));
    }
}

fn pod_resource_name(name: &str, path: &Path<'_>, errors: &mut Errors) {
    if !crate::pod::is_pod_level(name) {
        errors.push(FieldError::not_supported(path, name, &["cpu", "hugepages-", "memory"]));
    }
}

/// What is given for the whole pod has to hold what its containers ask for.
pub(super) fn pod_level(spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    let Some(resources) = &spec.resources else { return };
    if resources.claims.is_some() {
        let detail = "claims cannot be set for Resources at pod-level";
        errors.push(FieldError::forbidden(&path.child("claims"), detail));
    }
    amounts(resources, path, pod_resource_name, errors);
    let requests_path = path.child("requests");
    for (name, sum) in aggregate_container_requests(spec) {
        let Some(Ok(pod)) = resources
            .requests
            .as_ref()
            .and_then(|requests| requests.get(&name))
            .map(Quantity::of)
        else {
            continue;
        };
        if sum > pod {
            let detail = format!("must be greater than or equal to aggregate container requests of {sum}");
            errors.push(FieldError::invalid(&requests_path.key(&name), pod.to_string(), detail));
        }
    }
    for (i, container) in spec.containers.iter().enumerate() {
        let limits = container
            .resources
            .iter()
            .flat_map(|resources| resources.limits.iter().flatten());
        for (name, limit) in limits {
            let pod = resources
                .limits
                .as_ref()
                .and_then(|limits| limits.get(name))
                .map(Quantity::of);
            if let (Some(Ok(pod)), Ok(limit)) = (pod, Quantity::of(limit))
                && limit > pod
            {
                let list = path.child("containers");
                let detail = format!("must be less than or equal to pod limits of {pod}");
                errors.push(FieldError::invalid(
                    &list.index(i).key(name).child("limits"),
                    limit.to_string(),
                    detail,
                ));
            }
        }
    }
}
