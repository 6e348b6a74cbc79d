//! What the author of a pod is warned of: fields that no longer work, and what most likely was not meant.

use std::collections::{BTreeMap, HashMap, HashSet};

use k8s_openapi::api::core::v1::{Container, NodeSelectorTerm, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Written;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::field::{Path, quote};
use crate::pod;
use crate::quantity::Quantity;

const DEPRECATED_ANNOTATIONS: &[(&str, &str)] = &[
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    (
        "security.alpha.kubernetes.io/sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
];

const DEPRECATED_LABELS: &[(&str, &str)] = &[
    (
        "beta.kubernetes.io/arch",
        "deprecated since v1.14; use \"kubernetes.io/arch\" instead",
    ),
    (
        "beta.kubernetes.io/os",
        "deprecated since v1.14; use \"kubernetes.io/os\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
];

const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const SECCOMP: &str = "non-functional in v1.27+; use the \"seccompProfile\" field instead";

fn deprecated_label(key: &str) -> Option<&'static str> {
    DEPRECATED_LABELS
        .iter()
        .find(|(label, _)| *label == key)
        .map(|(_, message)| *message)
}

/// The warnings about a pod.
pub(super) fn of(pod: &Pod) -> Vec<String> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    of_parts(&pod.metadata, spec, &Path::new("metadata"), &Path::new("spec"))
}

/// The warnings about the two parts of a pod or of a template of pods, and where the parts stand.
pub(super) fn of_parts(meta: &ObjectMeta, spec: &PodSpec, meta_path: &Path<'_>, path: &Path<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    node_labels(spec, path, &mut warnings);
    let annotations_path = meta_path.child("annotations");
    let annotations = meta.annotations.as_ref();
    let annotated = |key: &str| annotations.is_some_and(|annotations| annotations.contains_key(key));
    for (key, message) in DEPRECATED_ANNOTATIONS.iter().filter(|(key, _)| annotated(key)) {
        warnings.push(format!("{}: {message}", annotations_path.key(key)));
    }
    volumes(spec, path, &mut warnings);
    for (field, values) in [
        (
            "ip",
            spec.host_aliases
                .iter()
                .flatten()
                .map(|alias| &alias.ip)
                .collect::<Vec<_>>(),
        ),
        (
            "name",
            spec.image_pull_secrets
                .iter()
                .flatten()
                .map(|secret| &secret.name)
                .collect(),
        ),
    ] {
        let list = if field == "ip" {
            "hostAliases"
        } else {
            "imagePullSecrets"
        };
        for (i, value) in values.iter().enumerate() {
            if values[..i].contains(value) {
                warnings.push(format!(
                    "{path}.{list}[{i}].{field}: duplicate {field} {}",
                    quote(value)
                ));
            }
        }
        for (i, _) in values
            .iter()
            .enumerate()
            .filter(|(_, value)| value.is_empty() && field == "name")
        {
            warnings.push(format!("{path}.{list}[{i}].name: invalid empty name \"\""));
        }
    }
    fractions(spec.overhead.as_ref(), &path.child("overhead"), &mut warnings);
    let pod_profile = spec
        .security_context
        .as_ref()
        .is_some_and(|context| context.seccomp_profile.is_some());
    if !pod_profile && annotated(SECCOMP_POD) {
        warnings.push(format!("{}: {SECCOMP}", annotations_path.key(SECCOMP_POD)));
    }
    for (kind, i, container) in pod::containers(spec) {
        let list = path.child(kind.field());
        let key = format!("{SECCOMP_CONTAINER}{}", container.name);
        let own = container
            .security_context
            .as_ref()
            .is_some_and(|context| context.seccomp_profile.is_some());
        if !own && annotated(&key) {
            warnings.push(format!("{}: {SECCOMP}", annotations_path.key(&key)));
        }
        in_container(&container, &list.index(i), &mut warnings);
    }
    ports(spec, path, &mut warnings);
    if spec.termination_grace_period_seconds.is_some_and(|seconds| seconds < 0) {
        warnings.push(format!(
            "{path}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
        ));
    }
    warnings
}

fn node_labels(spec: &PodSpec, path: &Path<'_>, warnings: &mut Vec<String>) {
    for key in spec.node_selector.iter().flat_map(BTreeMap::keys) {
        if let Some(message) = deprecated_label(key) {
            warnings.push(format!("{}: {message}", path.child("nodeSelector").key(key)));
        }
    }
    if let Some(affinity) = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
    {
        let base = format!("{path}.affinity.nodeAffinity");
        let required = affinity.required_during_scheduling_ignored_during_execution.iter();
        for (i, term) in required.flat_map(|selector| &selector.node_selector_terms).enumerate() {
            let at = format!("{base}.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[{i}]");
            in_term(term, &at, warnings);
        }
        let preferred = affinity
            .preferred_during_scheduling_ignored_during_execution
            .iter()
            .flatten();
        for (i, term) in preferred.enumerate() {
            let at = format!("{base}.preferredDuringSchedulingIgnoredDuringExecution[{i}].preference");
            in_term(&term.preference, &at, warnings);
        }
    }
    for (i, constraint) in spec.topology_spread_constraints.iter().flatten().enumerate() {
        let list = path.child("topologySpreadConstraints");
        let path = list.index(i);
        if let Some(message) = deprecated_label(&constraint.topology_key) {
            warnings.push(format!(
                "{}: {} is {message}",
                path.child("topologyKey"),
                constraint.topology_key
            ));
        }
        if constraint.label_selector.is_none() {
            let message = "a null labelSelector results in matching no pod";
            warnings.push(format!("{}: {message}", path.child("labelSelector")));
        }
    }
}

fn in_term(term: &NodeSelectorTerm, at: &str, warnings: &mut Vec<String>) {
    for (i, expression) in term.match_expressions.iter().flatten().enumerate() {
        if let Some(message) = deprecated_label(&expression.key) {
            warnings.push(format!(
                "{at}.matchExpressions[{i}].key: {} is {message}",
                expression.key
            ));
        }
    }
}

fn volumes(spec: &PodSpec, path: &Path<'_>, warnings: &mut Vec<String>) {
    for (i, volume) in spec.volumes.iter().flatten().enumerate() {
        let list = path.child("volumes");
        let path = list.index(i);
        for (field, is_set, message) in [
            (
                "photonPersistentDisk",
                volume.photon_persistent_disk.is_some(),
                "deprecated in v1.11, non-functional in v1.16+",
            ),
            (
                "gitRepo",
                volume.git_repo.is_some(),
                "deprecated in v1.11, and disabled by default in v1.33+",
            ),
            (
                "scaleIO",
                volume.scale_io.is_some(),
                "deprecated in v1.16, non-functional in v1.22+",
            ),
            (
                "flocker",
                volume.flocker.is_some(),
                "deprecated in v1.22, non-functional in v1.25+",
            ),
            (
                "storageOS",
                volume.storageos.is_some(),
                "deprecated in v1.22, non-functional in v1.25+",
            ),
            (
                "quobyte",
                volume.quobyte.is_some(),
                "deprecated in v1.22, non-functional in v1.25+",
            ),
            (
                "glusterfs",
                volume.glusterfs.is_some(),
                "deprecated in v1.25, non-functional in v1.26+",
            ),
            (
                "cephfs",
                volume.cephfs.is_some(),
                "deprecated in v1.28, non-functional in v1.31+",
            ),
            (
                "rbd",
                volume.rbd.is_some(),
                "deprecated in v1.28, non-functional in v1.31+",
            ),
        ] {
            if is_set {
                warnings.push(format!("{}: {message}", path.child(field)));
            }
        }
    }
}

fn fractions(amounts: Option<&BTreeMap<String, Written>>, path: &Path<'_>, warnings: &mut Vec<String>) {
    for name in ["memory", "ephemeral-storage"] {
        let quantity = amounts
            .and_then(|amounts| amounts.get(name))
            .and_then(|written| Quantity::of(written).ok());
        if let Some(quantity) = quantity.filter(|quantity| quantity.millis() % 1000 != 0) {
            warnings.push(format!(
                "{}: fractional byte value \"{quantity}\" is invalid, must be an integer",
                path.key(name)
            ));
        }
    }
}

fn in_container(container: &Container, path: &Path<'_>, warnings: &mut Vec<String>) {
    if let Some(resources) = &container.resources {
        let path = path.child("resources");
        fractions(resources.limits.as_ref(), &path.child("limits"), warnings);
        fractions(resources.requests.as_ref(), &path.child("requests"), warnings);
    }
    let mut seen = HashSet::new();
    for (i, variable) in container.env.iter().flatten().enumerate() {
        // Taking up the value that stood before is the one use of a second definition.
        let reference = format!("$({})", variable.name);
        let value = variable.value.as_deref().unwrap_or_default();
        let extends = variable.value_from.is_none() && value != reference && value.contains(&reference);
        if !seen.insert(&variable.name) && !extends {
            warnings.push(format!(
                "{}: hides previous definition of {}, which may be dropped when using apply",
                path.child("env").index(i),
                quote(&variable.name)
            ));
        }
    }
}

/// Two definitions of one port, in one container or in two.
fn ports(spec: &PodSpec, path: &Path<'_>, warnings: &mut Vec<String>) {
    type Place = (String, String, i32);
    let mut known: HashMap<(i32, String), Vec<Place>> = HashMap::new();
    for (kind, i, container) in pod::containers(spec) {
        for (j, port) in container.ports.iter().flatten().enumerate() {
            let list = path.child(kind.field());
            let at = list.index(i).child("ports").index(j).to_string();
            let protocol = port.protocol.clone().unwrap_or_default();
            let host_ip = port.host_ip.clone().unwrap_or_default();
            let host_port = port.host_port.unwrap_or(0);
            let others = known.entry((port.container_port, protocol)).or_default();
            for (other, other_ip, other_port) in others.iter() {
                if host_ip == *other_ip && host_port == *other_port {
                    warnings.push(format!("{at}: duplicate port definition with {other}"));
                } else if host_port == 0 || *other_port == 0 {
                    warnings.push(format!("{at}: overlapping port definition with {other}"));
                } else if host_port == *other_port && (host_ip.is_empty() || other_ip.is_empty()) {
                    warnings.push(format!("{at}: dangerously ambiguous port definition with {other}"));
                }
            }
            others.push((at, host_ip, host_port));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "the fixtures are constants")]
    use super::*;
    use serde_json::json;

    #[test]
    fn warned() {
        let cases: Vec<(serde_json::Value, &[&str])> = vec![
            (json!({"spec": {"containers": [{"name": "a"}]}}), &[]),
            (
                json!({"spec": {"containers": [], "nodeSelector": {"beta.kubernetes.io/os": "linux"}}}),
                &["spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead"],
            ),
            (
                json!({"spec": {"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}, {"name": "X", "value": "$(X)2"}, {"name": "X", "value": "3"}]}]}}),
                &[
                    "spec.containers[0].env[2]: hides previous definition of \"X\", which may be dropped when using apply",
                ],
            ),
            (
                json!({"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 80, "protocol": "TCP"}]}, {"name": "b", "ports": [{"containerPort": 80, "protocol": "TCP"}]}]}}),
                &["spec.containers[1].ports[0]: duplicate port definition with spec.containers[0].ports[0]"],
            ),
            (
                json!({"spec": {"containers": [{"name": "a", "resources": {"requests": {"memory": "100m"}}}]}}),
                &[
                    "spec.containers[0].resources.requests[memory]: fractional byte value \"100m\" is invalid, must be an integer",
                ],
            ),
            (
                json!({"spec": {"containers": [], "imagePullSecrets": [{"name": "s"}, {"name": "s"}, {"name": ""}]}}),
                &[
                    "spec.imagePullSecrets[1].name: duplicate name \"s\"",
                    "spec.imagePullSecrets[2].name: invalid empty name \"\"",
                ],
            ),
            (
                json!({"metadata": {"annotations": {"seccomp.security.alpha.kubernetes.io/pod": "unconfined"}}, "spec": {"containers": []}}),
                &[
                    "metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]: non-functional in v1.27+; use the \"seccompProfile\" field instead",
                ],
            ),
        ];
        for (pod, want) in cases {
            let object: Pod = serde_json::from_value(pod.clone()).unwrap();
            assert_eq!(of(&object), want, "{pod}");
        }
    }
}
