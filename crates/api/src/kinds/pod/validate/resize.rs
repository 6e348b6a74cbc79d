//! Updates through `resize`: how much CPU and memory a pod and its containers have, and nothing else.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Written;

use super::update::{same, spec_of};
use super::{Errors, metadata_and_spec};
use crate::field::{FieldError, Path};
use crate::pod::{self, is_sidecar};

type Amounts = BTreeMap<String, Written>;

/// Checks an update through `resize`.
pub(crate) fn resize(new_pod: &Pod, old_pod: &Pod) -> Errors {
    let refuse = |detail: &str| vec![FieldError::forbidden(&Path::new(""), detail)];
    if pod::is_mirror(old_pod) {
        return refuse("static pods cannot be resized");
    }
    let (new, old) = (spec_of(new_pod), spec_of(old_pod));
    if old.os.as_ref().is_some_and(|os| os.name == "windows") {
        return refuse("windows pods cannot be resized");
    }
    let mut errors = metadata_and_spec(new_pod);
    let path = Path::new("spec");
    if pod::stored_qos_class(old_pod) != pod::qos_class(&new) {
        let class = pod::stored_qos_class(new_pod).as_str();
        let detail = "Pod QOS Class may not change as a result of resizing";
        errors.push(FieldError::invalid(&path, class, detail));
    }
    if !reports_resources(old_pod) {
        let detail = "Pod running on node without support for resize";
        errors.push(FieldError::forbidden(&path, detail));
    }
    if pod::has_pod_level_resources(&old) || pod::has_pod_level_resources(&new) {
        whole_pod(new.resources.as_ref(), old.resources.as_ref(), &path, &mut errors);
    }
    let before = errors.len();
    let (new_inits, old_inits) = (inits(&new), inits(&old));
    same_containers(&new.containers, &old.containers, &path, "containers", &mut errors);
    same_containers(new_inits, old_inits, &path, "initContainers", &mut errors);
    if errors.len() > before {
        return errors;
    }
    for (field, new, old) in [
        ("initContainers", new_inits, old_inits),
        ("containers", new.containers.as_slice(), old.containers.as_slice()),
    ] {
        let list = path.child(field);
        for (i, (new, old)) in new.iter().zip(old).enumerate() {
            let path = list.index(i);
            nothing_removed(
                [new.resources.as_ref(), old.resources.as_ref()],
                "resource",
                &path.child("resources"),
                &mut errors,
            );
        }
    }
    for (new, old) in new.containers.iter().zip(&old.containers) {
        if !same(&with_compute_of(new, old), old) {
            errors.push(FieldError::forbidden(
                &path,
                "only cpu and memory resources are mutable",
            ));
        }
    }
    let list = path.child("initContainers");
    for (i, (new, old)) in new_inits.iter().zip(old_inits).enumerate() {
        if !same(&with_compute_of(new, old), old) {
            let detail = "only cpu and memory resources for init or sidecar containers are mutable";
            errors.push(FieldError::forbidden(&list.index(i), detail));
        }
        // It would have to begin its work again.
        let restarts = |container: &Container| {
            let policies = container.resize_policy.iter().flatten();
            policies
                .into_iter()
                .any(|policy| policy.restart_policy == "RestartContainer")
        };
        if !same(new, old) && !is_sidecar(new) && restarts(old) {
            let detail = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
            errors.push(FieldError::forbidden(&list.index(i), detail));
        }
    }
    errors
}

fn inits(spec: &PodSpec) -> &[Container] {
    spec.init_containers.as_deref().unwrap_or_default()
}

/// A kubelet that says what its containers have can change it.
fn reports_resources(pod: &Pod) -> bool {
    let statuses = pod
        .status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten());
    statuses
        .into_iter()
        .find(|status| status.state.as_ref().is_some_and(|state| state.running.is_some()))
        .is_none_or(|status| status.resources.is_some())
}

fn whole_pod(
    new: Option<&ResourceRequirements>,
    old: Option<&ResourceRequirements>,
    spec: &Path<'_>,
    errors: &mut Errors,
) {
    let path = spec.child("resources");
    if old.is_some() && new.is_none() {
        errors.push(FieldError::forbidden(&path, "pod-level resources cannot be removed"));
        return;
    }
    nothing_removed([new, old], "pod-level resource", &path, errors);
    let nothing = ResourceRequirements::default();
    let (new, old) = (new.unwrap_or(&nothing), old.unwrap_or(&nothing));
    let rest = ResourceRequirements {
        claims: new.claims.clone(),
        ..compute_of(new, old)
    };
    if !same(&rest, old) {
        let detail = "only cpu and memory resources are mutable at pod-level";
        errors.push(FieldError::forbidden(spec, detail));
    }
}

fn same_containers(new: &[Container], old: &[Container], spec: &Path<'_>, field: &str, errors: &mut Errors) {
    let path = spec.child(field);
    if new.len() != old.len() {
        let detail = format!("{field} may not be added or removed on resize");
        errors.push(FieldError::forbidden(&path, detail));
        return;
    }
    for (i, (new, old)) in new.iter().zip(old).enumerate() {
        if new.name != old.name {
            let detail = format!("{field} may not be renamed or reordered on resize");
            errors.push(FieldError::forbidden(&path.index(i).child("name"), detail));
        }
    }
}

fn nothing_removed([new, old]: [Option<&ResourceRequirements>; 2], what: &str, path: &Path<'_>, errors: &mut Errors) {
    let amounts = |of: fn(&ResourceRequirements) -> &Option<Amounts>| {
        [new, old].map(|resources| resources.and_then(|resources| of(resources).as_ref()))
    };
    for (field, [new, old]) in [
        ("requests", amounts(|resources| &resources.requests)),
        ("limits", amounts(|resources| &resources.limits)),
    ] {
        let removed = |name: &String| new.is_none_or(|new| !new.contains_key(name));
        if old.into_iter().flatten().any(|(name, _)| removed(name)) {
            errors.push(FieldError::forbidden(
                &path.child(field),
                format!("{what} {field} cannot be removed"),
            ));
        }
    }
}

/// The container with its CPU and memory put back to what they were.
fn with_compute_of(new: &Container, old: &Container) -> Container {
    let nothing = ResourceRequirements::default();
    let of = |container: &Container| container.resources.clone().unwrap_or_else(|| nothing.clone());
    Container {
        // Claims are not resized, and upstream refuses a container that has some.
        resources: Some(compute_of(&of(new), &of(old))),
        ..new.clone()
    }
}

fn compute_of(new: &ResourceRequirements, old: &ResourceRequirements) -> ResourceRequirements {
    let amounts = |new: Option<&Amounts>, old: Option<&Amounts>| {
        let mut amounts = new.cloned().unwrap_or_default();
        for name in ["cpu", "memory"] {
            match old.and_then(|old| old.get(name)) {
                Some(quantity) => amounts.insert(name.to_owned(), quantity.clone()),
                None => amounts.remove(name),
            };
        }
        (!amounts.is_empty()).then_some(amounts)
    };
    ResourceRequirements {
        claims: None,
        limits: amounts(new.limits.as_ref(), old.limits.as_ref()),
        requests: amounts(new.requests.as_ref(), old.requests.as_ref()),
    }
}
