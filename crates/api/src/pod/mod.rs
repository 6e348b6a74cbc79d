//! What several rooms ask of a pod: its containers, its conditions, its resources. Pure functions of values.

mod conditions;
mod containers;
mod placement;
mod resources;
mod sysctl;

use k8s_openapi::api::core::v1::Pod;

pub use conditions::{condition, condition_is_true, is_ready, set_condition};
pub use containers::{
    ContainerKind, as_container, container_status, containers, find_container, is_restartable, is_sidecar,
    may_restart_all, restarts, restarts_all,
};
pub use placement::{HostPort, host_ports, matches_node_term, tolerates, wants_node};
pub(crate) use resources::is_pod_level;
pub use resources::{
    Qos, Resources, aggregate_container_requests, has_pod_level_resources, limits, observed_requests, qos_class,
    requests, requests_without_overhead, stored_qos_class, written,
};
pub use sysctl::{SysctlNamespace, sysctl_name, sysctl_namespace};

/// The annotation that says where a kubelet has a pod from: `file`, `http` or `api`.
pub const CONFIG_SOURCE_ANNOTATION: &str = "kubernetes.io/config.source";
/// The annotation with the hash of a static pod's manifest.
pub const CONFIG_HASH_ANNOTATION: &str = "kubernetes.io/config.hash";
/// The annotation that makes a pod the mirror of a static pod; its value is the static pod's hash.
pub const CONFIG_MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
/// The annotation with the time at which a kubelet first saw a static pod.
pub const CONFIG_SEEN_ANNOTATION: &str = "kubernetes.io/config.seen";

/// Pods of at least this priority are critical to their node or cluster.
pub const SYSTEM_CRITICAL_PRIORITY: i32 = 2_000_000_000;

fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// Whether the pod stands for a static pod of some node, which the API only shows.
pub fn is_mirror(pod: &Pod) -> bool {
    annotation(pod, CONFIG_MIRROR_ANNOTATION).is_some()
}

/// Whether a kubelet has the pod from somewhere else than the API.
pub fn is_static(pod: &Pod) -> bool {
    annotation(pod, CONFIG_SOURCE_ANNOTATION).is_some_and(|source| source != "api")
}

/// Whether the pod goes before others when its node is short of something.
pub fn is_critical(pod: &Pod) -> bool {
    is_static(pod)
        || is_mirror(pod)
        || pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0) >= SYSTEM_CRITICAL_PRIORITY
}

/// `name_namespace`, under which a kubelet matches a static pod with its mirror.
pub fn full_name(pod: &Pod) -> String {
    format!("{}_{}", name(pod), namespace(pod))
}

/// The pod's name.
pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// The pod's namespace.
pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

/// The pod's uid.
pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// The node that the pod is bound to.
pub fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

/// The pod's phase; empty when there is none yet.
pub fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

/// Whether the pod has ended for good.
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether somebody has asked that the pod go.
pub fn is_deleting(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether the pod uses its node's network.
pub fn is_host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{PodSpec, PodStatus};

    fn annotated(pairs: &[(&str, &str)]) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.name = Some("web".into());
        pod.metadata.namespace = Some("shop".into());
        pod.metadata.annotations = Some(pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect());
        pod
    }

    #[test]
    fn static_pods_and_their_mirrors() {
        for (annotations, is_static_pod, mirror) in [
            (&[][..], false, false),
            (&[("kubernetes.io/config.source", "api")][..], false, false),
            (&[("kubernetes.io/config.source", "file")][..], true, false),
            (&[("kubernetes.io/config.mirror", "d34d")][..], false, true),
        ] {
            let pod = annotated(annotations);
            assert_eq!(is_static(&pod), is_static_pod, "{annotations:?}");
            assert_eq!(is_mirror(&pod), mirror, "{annotations:?}");
            assert_eq!(is_critical(&pod), is_static_pod || mirror, "{annotations:?}");
        }
        assert_eq!(full_name(&annotated(&[])), "web_shop");
    }

    #[test]
    fn critical_by_priority() {
        for (priority, critical) in [
            (0, false),
            (1_000_000_000, false),
            (2_000_000_000, true),
            (2_000_001_000, true),
        ] {
            let pod = Pod {
                spec: Some(PodSpec {
                    priority: Some(priority),
                    ..Default::default()
                }),
                ..Default::default()
            };
            assert_eq!(is_critical(&pod), critical, "{priority}");
        }
    }

    #[test]
    fn terminal_phases() {
        for (phase, terminal) in [
            ("", false),
            ("Pending", false),
            ("Running", false),
            ("Succeeded", true),
            ("Failed", true),
        ] {
            let pod = Pod {
                status: Some(PodStatus {
                    phase: Some(phase.into()),
                    ..Default::default()
                }),
                ..Default::default()
            };
            assert_eq!(is_terminal(&pod), terminal, "{phase}");
        }
    }
}
