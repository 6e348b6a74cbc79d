//! Containers: what all have in common, and what init, main and ephemeral ones may not have.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{Container, ContainerPort, ContainerResizePolicy, EphemeralContainer, PodSpec};

use super::volumes::Volumes;
use super::{Errors, env, label, mounts, one_of, probes, refuse, required, resources, security};
use crate::field::{FieldError, Path};
use crate::meta::names;
use crate::pod::{as_container, is_sidecar};

const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
const MESSAGE_POLICIES: &[&str] = &["File", "FallbackToLogsOnError"];
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

/// How many restart rules a container may have, and how many exit codes a rule.
const MAX_RESTART_RULES: usize = 20;
const MAX_EXIT_CODES: usize = 255;

pub(super) fn all(spec: &PodSpec, volumes: &Volumes<'_>, path: &Path<'_>, errors: &mut Errors) {
    main(spec, volumes, &path.child("containers"), errors);
    init(spec, volumes, &path.child("initContainers"), errors);
    ephemeral(spec, volumes, &path.child("ephemeralContainers"), errors);
}

fn main(spec: &PodSpec, volumes: &Volumes<'_>, path: &Path<'_>, errors: &mut Errors) {
    if spec.containers.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    let mut names = HashSet::new();
    for (i, container) in spec.containers.iter().enumerate() {
        let path = path.index(i);
        common(container, spec, volumes, &path, errors);
        if !names.insert(container.name.as_str()) {
            errors.push(FieldError::duplicate(&path.child("name"), &container.name));
        }
        probes::lifecycle_and_probes(container, spec, &path, errors);
        restart_policy(container, &["Always", "OnFailure", "Never"], &path, errors);
    }
    host_port_conflicts(spec.containers.iter().enumerate(), path, errors);
}

fn init(spec: &PodSpec, volumes: &Volumes<'_>, path: &Path<'_>, errors: &mut Errors) {
    let mut names: HashSet<&str> = spec
        .containers
        .iter()
        .map(|container| container.name.as_str())
        .collect();
    for (i, container) in spec.init_containers.iter().flatten().enumerate() {
        let list = path;
        let path = list.index(i);
        common(container, spec, volumes, &path, errors);
        restart_policy(container, &["Always", "OnFailure", "Never"], &path, errors);
        if !container.name.is_empty() && !names.insert(&container.name) {
            errors.push(FieldError::duplicate(&path.child("name"), &container.name));
        }
        // One at a time, so only a container's own ports can collide.
        host_port_conflicts([(i, container)].into_iter(), list, errors);
        if is_sidecar(container) {
            probes::lifecycle_and_probes(container, spec, &path, errors);
        } else {
            for (field, is_set) in [
                ("lifecycle", container.lifecycle.is_some()),
                ("livenessProbe", container.liveness_probe.is_some()),
                ("readinessProbe", container.readiness_probe.is_some()),
                ("startupProbe", container.startup_probe.is_some()),
            ] {
                if is_set {
                    let detail = "may not be set for init containers without restartPolicy=Always";
                    errors.push(FieldError::forbidden(&path.child(field), detail));
                }
            }
        }
    }
}

fn ephemeral(spec: &PodSpec, volumes: &Volumes<'_>, path: &Path<'_>, errors: &mut Errors) {
    let mut names: HashSet<&str> = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
        .map(|c| c.name.as_str())
        .collect();
    let targets = names.clone();
    for (i, container) in spec.ephemeral_containers.iter().flatten().enumerate() {
        let path = path.index(i);
        common(&as_container(container), spec, volumes, &path, errors);
        if !names.insert(&container.name) {
            errors.push(FieldError::duplicate(&path.child("name"), &container.name));
        }
        let target = container.target_container_name.as_deref().unwrap_or_default();
        if !target.is_empty() && !targets.contains(target) {
            errors.push(FieldError::not_found(&path.child("targetContainerName"), target));
        }
        only_for_debugging(container, &path, errors);
    }
}

/// Ephemeral containers are no part of a workload, so whatever a workload would rely on is refused.
fn only_for_debugging(container: &EphemeralContainer, path: &Path<'_>, errors: &mut Errors) {
    const DETAIL: &str = "cannot be set for an Ephemeral Container";
    let resources = container
        .resources
        .as_ref()
        .is_some_and(|resources| *resources != Default::default());
    for (field, is_set) in [
        ("ports", container.ports.is_some()),
        ("resources", resources),
        ("resizePolicy", container.resize_policy.is_some()),
        ("restartPolicy", container.restart_policy.is_some()),
        ("restartPolicyRules", container.restart_policy_rules.is_some()),
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
        ("lifecycle", container.lifecycle.is_some()),
    ] {
        if is_set {
            errors.push(FieldError::forbidden(&path.child(field), DETAIL));
        }
    }
    for (i, mount) in container.volume_mounts.iter().flatten().enumerate() {
        for (field, sub_path) in [("subPath", &mount.sub_path), ("subPathExpr", &mount.sub_path_expr)] {
            if sub_path.as_deref().is_some_and(|p| !p.is_empty()) {
                let mounts = path.child("volumeMounts");
                errors.push(FieldError::forbidden(&mounts.index(i).child(field), DETAIL));
            }
        }
    }
}

fn common(container: &Container, spec: &PodSpec, volumes: &Volumes<'_>, path: &Path<'_>, errors: &mut Errors) {
    if container.name.is_empty() {
        errors.push(FieldError::required(&path.child("name"), ""));
    } else {
        label(&container.name, &path.child("name"), errors);
    }
    required(
        container.image.as_deref().unwrap_or_default(),
        &path.child("image"),
        errors,
    );
    one_of(
        container.termination_message_policy.as_deref().unwrap_or_default(),
        MESSAGE_POLICIES,
        &path.child("terminationMessagePolicy"),
        errors,
    );
    ports(
        container.ports.as_deref().unwrap_or_default(),
        &path.child("ports"),
        errors,
    );
    env::env(container, spec, path, errors);
    mounts::mounts(container, volumes, &path.child("volumeMounts"), errors);
    mounts::devices(container, volumes, &path.child("volumeDevices"), errors);
    pull_policy(
        container.image_pull_policy.as_deref(),
        &path.child("imagePullPolicy"),
        errors,
    );
    if let Some(requirements) = &container.resources {
        let claims: Vec<&str> = spec
            .resource_claims
            .iter()
            .flatten()
            .map(|claim| claim.name.as_str())
            .collect();
        resources::requirements(requirements, &claims, &path.child("resources"), errors);
    }
    let resize = container.resize_policy.as_deref().unwrap_or_default();
    resize_policy(
        resize,
        spec.restart_policy.as_deref(),
        &path.child("resizePolicy"),
        errors,
    );
    if let Some(context) = &container.security_context {
        security::container(context, spec, &path.child("securityContext"), errors);
    }
}

pub(super) fn pull_policy(policy: Option<&str>, path: &Path<'_>, errors: &mut Errors) {
    one_of(policy.unwrap_or_default(), PULL_POLICIES, path, errors);
}

fn ports(ports: &[ContainerPort], path: &Path<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            let messages = names::port_name(name);
            if messages.is_empty() && !seen.insert(name) {
                errors.push(FieldError::duplicate(&path.child("name"), name));
            }
            refuse(errors, &path.child("name"), name, messages);
        }
        if port.container_port == 0 {
            errors.push(FieldError::required(&path.child("containerPort"), ""));
        } else {
            let messages = names::port_number(port.container_port);
            refuse(errors, &path.child("containerPort"), port.container_port, messages);
        }
        if let Some(host_port) = port.host_port.filter(|port| *port != 0) {
            refuse(
                errors,
                &path.child("hostPort"),
                host_port,
                names::port_number(host_port),
            );
        }
        one_of(
            port.protocol.as_deref().unwrap_or_default(),
            PROTOCOLS,
            &path.child("protocol"),
            errors,
        );
    }
}

fn host_port_conflicts<'a>(
    containers: impl Iterator<Item = (usize, &'a Container)>,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    let mut taken = HashSet::new();
    for (i, container) in containers {
        for (j, port) in container.ports.iter().flatten().enumerate() {
            let Some(host_port) = port.host_port.filter(|port| *port != 0) else {
                continue;
            };
            let protocol = port.protocol.as_deref().unwrap_or_default();
            let key = format!("{protocol}/{}/{host_port}", port.host_ip.as_deref().unwrap_or_default());
            if taken.contains(&key) {
                let path = path.index(i);
                errors.push(FieldError::duplicate(
                    &path.child("ports").index(j).child("hostPort"),
                    key,
                ));
            } else {
                taken.insert(key);
            }
        }
    }
}

fn restart_policy(container: &Container, supported: &[&str], path: &Path<'_>, errors: &mut Errors) {
    if let Some(policy) = &container.restart_policy
        && !supported.contains(&policy.as_str())
    {
        errors.push(FieldError::not_supported(
            &path.child("restartPolicy"),
            policy,
            supported,
        ));
    }
    let rules = container.restart_policy_rules.as_deref().unwrap_or_default();
    if rules.is_empty() {
        return;
    }
    if container.restart_policy.is_none() {
        let detail = "must specify restartPolicy when restart rules are used";
        errors.push(FieldError::required(&path.child("restartPolicy"), detail));
    }
    let path = path.child("restartPolicyRules");
    if rules.len() > MAX_RESTART_RULES {
        errors.push(FieldError::too_many(&path, rules.len(), MAX_RESTART_RULES));
    }
    for (i, rule) in rules.iter().enumerate() {
        let path = path.index(i);
        one_of(
            &rule.action,
            &["Restart", "RestartAllContainers"],
            &path.child("action"),
            errors,
        );
        let Some(codes) = &rule.exit_codes else {
            errors.push(FieldError::required(&path.child("exitCodes"), "must be specified"));
            continue;
        };
        let path = path.child("exitCodes");
        one_of(&codes.operator, &["In", "NotIn"], &path.child("operator"), errors);
        let values = codes.values.as_deref().unwrap_or_default();
        if values.is_empty() {
            errors.push(FieldError::required(&path.child("values"), "must be specified"));
        } else if values.len() > MAX_EXIT_CODES {
            errors.push(FieldError::too_many(
                &path.child("values"),
                values.len(),
                MAX_EXIT_CODES,
            ));
        }
        for (j, code) in values
            .iter()
            .enumerate()
            .filter(|(j, code)| values[..*j].contains(code))
        {
            errors.push(FieldError::duplicate(&path.child("values").index(j), code));
        }
    }
}

fn resize_policy(policies: &[ContainerResizePolicy], pod_policy: Option<&str>, path: &Path<'_>, errors: &mut Errors) {
    for (i, policy) in policies.iter().enumerate() {
        if policies[..i]
            .iter()
            .any(|other| other.resource_name == policy.resource_name)
        {
            errors.push(FieldError::duplicate(&path.index(i), &policy.resource_name));
        }
        one_of(&policy.resource_name, &["cpu", "memory"], path, errors);
        one_of(
            &policy.restart_policy,
            &["NotRequired", "RestartContainer"],
            path,
            errors,
        );
        if pod_policy == Some("Never") && policy.restart_policy != "NotRequired" {
            let detail = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            errors.push(FieldError::invalid(path, &policy.restart_policy, detail));
        }
    }
}
