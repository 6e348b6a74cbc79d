//! Pod: its entry in the catalogue, and how its parts make a strategy.

mod defaults;
mod prepare;
mod table;
pub(crate) mod template;
pub(crate) mod validate;
mod volume_defaults;
mod warnings;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use serde_json::Value;

pub(crate) use self::validate::taint_effect;
use crate::catalogue::{ALL_VERBS, Resource, Subresource, Verb};
use crate::field::FieldError;
use crate::pod;
use crate::strategy::{Grace, Typed, TypedStrategy};
use crate::table::Column;

const SCHEMA: &str = "io.k8s.api.core.v1.Pod";

/// A path below a pod that takes and returns something else than the pod.
const fn subresource(name: &'static str, kind: &'static str, verbs: &'static [Verb]) -> Subresource {
    Subresource {
        name,
        group: "",
        version: "v1",
        kind,
        verbs,
    }
}

/// A path below a pod through which a part of it is changed.
const fn part(name: &'static str) -> Subresource {
    subresource(name, "Pod", &[Verb::Get, Verb::Patch, Verb::Update])
}

/// `pods`
pub static RESOURCE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "Pod",
    list_kind: "PodList",
    plural: "pods",
    singular: "pod",
    short_names: &["po"],
    categories: &["all"],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[
        subresource("attach", "PodAttachOptions", &[Verb::Create, Verb::Get]),
        subresource("binding", "Binding", &[Verb::Create]),
        part("ephemeralcontainers"),
        Subresource {
            name: "eviction",
            group: "policy",
            version: "v1",
            kind: "Eviction",
            verbs: &[Verb::Create],
        },
        subresource("exec", "PodExecOptions", &[Verb::Create, Verb::Get]),
        subresource("log", "Pod", &[Verb::Get]),
        subresource("portforward", "PodPortForwardOptions", &[Verb::Create, Verb::Get]),
        subresource(
            "proxy",
            "PodProxyOptions",
            &[Verb::Create, Verb::Delete, Verb::Get, Verb::Patch, Verb::Update],
        ),
        part("resize"),
        part("status"),
    ],
    storage: "pods",
    schema: SCHEMA,
    strategy: &Typed::new(Pods, SCHEMA),
};

struct Pods;

impl TypedStrategy for Pods {
    type Object = Pod;

    fn default(&self, pod: &mut Pod) {
        defaults::pod(pod);
    }

    fn prepare_create(&self, pod: &mut Pod) {
        prepare::create(pod);
    }

    fn validate_create(&self, pod: &Pod) -> Vec<FieldError> {
        validate::create(pod)
    }

    fn prepare_update(&self, subresource: Option<&str>, new: &mut Pod, old: &Pod) {
        prepare::update(subresource, new, old);
    }

    fn validate_update(&self, subresource: Option<&str>, new: &Pod, old: &Pod) -> Vec<FieldError> {
        match subresource {
            Some("status") => validate::update_status(new, old),
            Some("ephemeralcontainers") => validate::ephemeral_containers(new, old),
            Some("resize") => validate::resize(new, old),
            _ => validate::update(new, old),
        }
    }

    fn graceful_deletion(&self, pod: &Pod, options: &DeleteOptions) -> Grace {
        graceful_deletion(pod, options)
    }

    fn columns(&self) -> &'static [Column] {
        table::COLUMNS
    }

    fn row(&self, pod: &Pod, now: Timestamp) -> Vec<Value> {
        table::row(pod, now)
    }

    fn fields(&self) -> &'static [&'static str] {
        FIELDS
    }

    fn field(&self, pod: &Pod, path: &str) -> Option<String> {
        field(pod, path)
    }

    fn warnings(&self, new: &Pod, _old: Option<&Pod>) -> Vec<String> {
        warnings::of(new)
    }
}

/// A pod that no kubelet has, or that has ended, goes at once; any other when its containers have had their
/// time to end.
fn graceful_deletion(pod: &Pod, options: &DeleteOptions) -> Grace {
    if pod::node_name(pod).is_none() || pod::is_terminal(pod) {
        return Grace::Immediate;
    }
    let own = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
    match options.grace_period_seconds.or(own).unwrap_or(0) {
        0 => Grace::Immediate,
        // Older clients meant the shortest time there is.
        ..0 => Grace::Seconds(1),
        seconds => Grace::Seconds(seconds),
    }
}

/// What a field selector for pods may name.
const FIELDS: &[&str] = &[
    "spec.hostNetwork",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.nominatedNodeName",
    "status.phase",
    "status.podIP",
    "status.podIPs",
];

fn field(pod: &Pod, path: &str) -> Option<String> {
    let (spec, status) = (pod.spec.as_ref(), pod.status.as_ref());
    let value = match path {
        "spec.hostNetwork" => return Some(pod::is_host_network(pod).to_string()),
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.as_deref()),
        "spec.restartPolicy" => spec.and_then(|spec| spec.restart_policy.as_deref()),
        "spec.schedulerName" => spec.and_then(|spec| spec.scheduler_name.as_deref()),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.as_deref()),
        "status.nominatedNodeName" => status.and_then(|status| status.nominated_node_name.as_deref()),
        "status.phase" => status.and_then(|status| status.phase.as_deref()),
        "status.podIP" | "status.podIPs" => {
            let first = status.and_then(|status| status.pod_ips.as_ref()?.first());
            first.map(|ip| ip.ip.as_str())
        }
        _ => return None,
    };
    Some(value.unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "the fixtures are constants")]
    use super::*;
    use serde_json::json;

    #[test]
    fn how_pods_go() {
        let options = |seconds: Option<i64>| DeleteOptions {
            grace_period_seconds: seconds,
            ..Default::default()
        };
        for (node, phase, own, asked, want) in [
            (None, "Pending", 30, None, Grace::Immediate),
            (None, "Pending", 30, Some(10), Grace::Immediate),
            (Some("n"), "Running", 30, None, Grace::Seconds(30)),
            (Some("n"), "Running", 30, Some(5), Grace::Seconds(5)),
            (Some("n"), "Running", 30, Some(0), Grace::Immediate),
            (Some("n"), "Running", 0, None, Grace::Immediate),
            (Some("n"), "Running", -1, None, Grace::Seconds(1)),
            (Some("n"), "Succeeded", 30, None, Grace::Immediate),
            (Some("n"), "Failed", 30, Some(10), Grace::Immediate),
        ] {
            let pod: Pod = serde_json::from_value(json!({
                "spec": {"nodeName": node, "terminationGracePeriodSeconds": own, "containers": []},
                "status": {"phase": phase},
            }))
            .unwrap();
            assert_eq!(
                graceful_deletion(&pod, &options(asked)),
                want,
                "{node:?} {phase} {own} {asked:?}"
            );
        }
    }

    #[test]
    fn fields_to_select_by() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"nodeName": "n1", "restartPolicy": "Never", "schedulerName": "s", "serviceAccountName": "a", "containers": []},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}], "nominatedNodeName": "n2"},
        }))
        .unwrap();
        for (path, want) in [
            ("spec.nodeName", Some("n1")),
            ("spec.restartPolicy", Some("Never")),
            ("spec.schedulerName", Some("s")),
            ("spec.serviceAccountName", Some("a")),
            ("spec.hostNetwork", Some("false")),
            ("status.phase", Some("Running")),
            ("status.podIP", Some("10.0.0.1")),
            ("status.podIPs", Some("10.0.0.1")),
            ("status.nominatedNodeName", Some("n2")),
            ("spec.hostname", None),
        ] {
            assert_eq!(field(&pod, path).as_deref(), want, "{path}");
            assert_eq!(FIELDS.contains(&path), want.is_some(), "{path}");
        }
        assert_eq!(field(&Pod::default(), "spec.nodeName").as_deref(), Some(""));
    }
}
