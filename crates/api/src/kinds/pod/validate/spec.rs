//! The spec as a whole, and its small fields.

use k8s_openapi::api::core::v1::{Container, PodSpec, SecurityContext};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{
    Errors, containers, descending_path, label, network, one_of, qualified_name, resources, scheduling, security,
    subdomain, volumes, within,
};
use crate::field::{FieldError, Path};
use crate::meta::{names, validate_labels};
use crate::pod;

/// Checks the spec of a pod.
pub(super) fn pod_spec(spec: &PodSpec, meta: &ObjectMeta, path: &Path<'_>, errors: &mut Errors) {
    if spec.termination_grace_period_seconds.is_none() {
        errors.push(FieldError::required(&path.child("terminationGracePeriodSeconds"), ""));
    }
    let volumes = volumes::volumes(spec, meta, &path.child("volumes"), errors);
    resource_claims(spec, &path.child("resourceClaims"), errors);
    containers::all(spec, &volumes, path, errors);
    resources::pod_level(spec, &path.child("resources"), errors);
    network::host_ports(spec, path, errors);
    one_of(
        spec.restart_policy.as_deref().unwrap_or_default(),
        &["Always", "OnFailure", "Never"],
        &path.child("restartPolicy"),
        errors,
    );
    network::dns_policy(spec, &path.child("dnsPolicy"), errors);
    validate_labels(spec.node_selector.as_ref(), &path.child("nodeSelector"), errors);
    security::pod(spec, path, errors);
    if let Some(affinity) = &spec.affinity {
        scheduling::affinity(affinity, &path.child("affinity"), errors);
    }
    network::dns_config(spec, &path.child("dnsConfig"), errors);
    for (i, gate) in spec.readiness_gates.iter().flatten().enumerate() {
        let path = path.child("readinessGates");
        qualified_name(&gate.condition_type, &path.index(i).child("conditionType"), errors);
    }
    scheduling::gates(spec, &path.child("schedulingGates"), errors);
    scheduling::spread(spec, &path.child("topologySpreadConstraints"), errors);
    security::windows_host_process(spec, path, errors);
    security::host_users(spec, path, errors);
    for (field, name) in [
        ("serviceAccountName", &spec.service_account_name),
        ("nodeName", &spec.node_name),
        ("priorityClassName", &spec.priority_class_name),
        ("runtimeClassName", &spec.runtime_class_name),
    ] {
        if let Some(name) = name
            .as_deref()
            .filter(|name| !name.is_empty() || field == "runtimeClassName")
        {
            subdomain(name, &path.child(field), errors);
        }
    }
    if let Some(seconds) = spec.active_deadline_seconds {
        within(
            seconds,
            1,
            i32::MAX.into(),
            &path.child("activeDeadlineSeconds"),
            errors,
        );
    }
    for (field, name) in [("hostname", &spec.hostname), ("subdomain", &spec.subdomain)] {
        if let Some(name) = name.as_deref().filter(|name| !name.is_empty()) {
            label(name, &path.child(field), errors);
        }
    }
    network::hostname_override(spec, path, errors);
    scheduling::tolerations(
        spec.tolerations.as_deref().unwrap_or_default(),
        &path.child("tolerations"),
        errors,
    );
    network::host_aliases(spec, &path.child("hostAliases"), errors);
    if let Some(policy) = &spec.preemption_policy {
        one_of(
            policy,
            &["PreemptLowerPriority", "Never"],
            &path.child("preemptionPolicy"),
            errors,
        );
    }
    if let Some(overhead) = &spec.overhead {
        let requirements = k8s_openapi::api::core::v1::ResourceRequirements {
            limits: Some(overhead.clone()),
            ..Default::default()
        };
        resources::requirements(&requirements, &[], &path.child("overhead"), errors);
    }
    if let Some(os) = &spec.os {
        let before = errors.len();
        one_of(&os.name, &["linux", "windows"], &path.child("os").child("name"), errors);
        if errors.len() == before {
            match os.name.as_str() {
                "linux" => security::only_linux(spec, path, errors),
                _ => security::only_windows(spec, path, errors),
            }
        }
    }
}

fn resource_claims(spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for (i, claim) in spec.resource_claims.iter().flatten().enumerate() {
        let path = path.index(i);
        let name = claim.name.as_str();
        if name.is_empty() {
            errors.push(FieldError::required(&path.child("name"), ""));
        } else if seen.contains(&name) {
            errors.push(FieldError::duplicate(&path.child("name"), name));
        } else {
            label(name, &path.child("name"), errors);
            seen.push(name);
        }
        match (&claim.resource_claim_name, &claim.resource_claim_template_name) {
            (Some(_), Some(_)) => errors.push(FieldError::invalid(
                &path,
                claim,
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
            )),
            (None, None) => errors.push(FieldError::invalid(
                &path,
                claim,
                "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
            )),
            _ => {}
        }
        for (field, name) in [
            ("resourceClaimName", &claim.resource_claim_name),
            ("resourceClaimTemplateName", &claim.resource_claim_template_name),
        ] {
            if let Some(name) = name {
                subdomain(name, &path.child(field), errors);
            }
        }
    }
}

/// Checks the annotations that mean something on a pod.
pub(super) fn annotations(meta: &ObjectMeta, spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("annotations");
    let annotation = |key: &str| meta.annotations.as_ref().and_then(|annotations| annotations.get(key));
    if annotation(pod::CONFIG_MIRROR_ANNOTATION).is_some() && spec.node_name.as_deref().is_none_or(str::is_empty) {
        let detail = "must set spec.nodeName if mirror pod annotation is set";
        errors.push(FieldError::invalid(
            &path.key(pod::CONFIG_MIRROR_ANNOTATION),
            "",
            detail,
        ));
    }
    const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
    if let Some(cost) = annotation(COST) {
        // Upstream reads it with Go's rules for 32-bit integers, without a sign or zeros in front.
        let plain = !cost.starts_with('+') && (cost == "0" || !cost.trim_start_matches('-').starts_with('0'));
        if cost.parse::<i32>().is_err() || !plain {
            errors.push(FieldError::invalid(&path.key(COST), cost, "must be a 32bit integer"));
        }
    }
    let prefix = "container.seccomp.security.alpha.kubernetes.io/";
    for (key, profile) in meta.annotations.iter().flatten() {
        if key == "seccomp.security.alpha.kubernetes.io/pod" || key.starts_with(prefix) {
            seccomp_annotation(profile, &path.child(key), errors);
        }
    }
}

fn seccomp_annotation(profile: &str, path: &Path<'_>, errors: &mut Errors) {
    if let Some(file) = profile.strip_prefix("localhost/") {
        descending_path(file, path, errors);
    } else if !matches!(profile, "runtime/default" | "docker/default" | "unconfined") {
        errors.push(FieldError::invalid(path, profile, "must be a valid seccomp profile"));
    }
}

/// Checks what templates are let off.
pub(super) fn only_for_pods(spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    if spec.service_account_name.as_deref().is_none_or(str::is_empty) {
        for (i, volume) in spec.volumes.iter().flatten().enumerate() {
            let sources = volume.projected.iter().flat_map(|p| p.sources.iter().flatten());
            for (j, source) in sources.enumerate() {
                if source.service_account_token.is_some() {
                    let path = path.child("volumes");
                    errors.push(FieldError::forbidden(
                        &path
                            .index(i)
                            .child("projected")
                            .child("sources")
                            .index(j)
                            .child("serviceAccountToken"),
                        "must not be specified when serviceAccountName is not set",
                    ));
                }
            }
        }
    }
    for (kind, i, container) in pod::containers(spec) {
        let list = path.child(kind.field());
        image_whitespace(&container, &list.index(i), errors);
    }
}

pub(super) fn image_whitespace(container: &Container, path: &Path<'_>, errors: &mut Errors) {
    let image = container.image.as_deref().unwrap_or_default();
    if image.trim() != image {
        let detail = "must not have leading or trailing whitespace";
        errors.push(FieldError::invalid(&path.child("image"), image, detail));
    }
}

/// Calls `check` with the security context of every container that has one, and its path.
pub(super) fn each_security_context(
    spec: &PodSpec,
    path: &Path<'_>,
    mut check: impl FnMut(&SecurityContext, &Path<'_>),
) {
    for (kind, i, container) in pod::containers(spec) {
        if let Some(context) = &container.security_context {
            let list = path.child(kind.field());
            check(context, &list.index(i).child("securityContext"));
        }
    }
}

/// Keys of environment variables: any printable ASCII but the equals sign.
pub(super) fn variable_name(name: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if name.is_empty() {
        messages.push("environment variable name must be non-empty".to_owned());
    }
    if !name.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=') {
        messages.push(
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
                .to_owned(),
        );
    }
    messages
}

/// The messages about a key of a ConfigMap or Secret.
pub(super) fn config_key(key: &str, path: &Path<'_>, errors: &mut Errors) {
    if key.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else {
        names::config_map_key(key, path, errors);
    }
}
