//! What a Service asks of its pods.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ContainerPort, Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;

/// Whether a Service's selector selects a pod. One without a selector selects none.
pub fn selects(service: &Service, pod: &Pod) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let Some(selector) = selector.filter(|selector| !selector.is_empty()) else {
        return false;
    };
    let namespaces = (&service.metadata.namespace, &pod.metadata.namespace);
    let labels = pod.metadata.labels.as_ref();
    let has = |(key, value)| labels.is_some_and(|labels| labels.get(key) == Some(value));
    namespaces.0 == namespaces.1 && selector.iter().all(has)
}

/// Whether anything differs that endpoints are made of.
pub fn differ(one: &Pod, other: &Pod) -> bool {
    let facts = |pod: &Pod| {
        let spec = pod.spec.as_ref();
        (
            (
                pod.metadata.uid.clone(),
                pod.metadata.labels.clone(),
                pod.metadata.deletion_timestamp.clone(),
            ),
            spec.map(|spec| (spec.node_name.clone(), spec.hostname.clone(), spec.subdomain.clone())),
            (
                ips(pod).map(str::to_owned).collect::<Vec<_>>(),
                is_over(pod),
                api::pod::is_ready(pod),
            ),
        )
    };
    facts(one) != facts(other)
}

/// Whether a pod can be an endpoint at all: it has an address and has not ended.
pub fn is_candidate(pod: &Pod) -> bool {
    ips(pod).next().is_some() && !is_over(pod)
}

fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether the pod is on its way out.
pub fn is_leaving(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

fn ips(pod: &Pod) -> impl Iterator<Item = &str> {
    let status = pod.status.as_ref();
    let all = status.and_then(|status| status.pod_ips.as_ref()).into_iter().flatten();
    let one = status.and_then(|status| status.pod_ip.as_deref());
    all.map(|ip| ip.ip.as_str()).chain(one)
}

/// The pod's address of the one family that Services have.
pub fn ip(pod: &Pod) -> Option<&str> {
    ips(pod).find(|ip| !ip.contains(':'))
}

/// The name that the pod has under a headless Service's, if that is the subdomain it asks for.
pub fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let hostname = spec.hostname.as_deref().filter(|name| !name.is_empty())?;
    (spec.subdomain == service.metadata.name && service.metadata.name.is_some()).then(|| hostname.to_owned())
}

/// The number of a Service's port in a pod; none when the pod has no port of that name.
pub fn target(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match port.target_port.as_ref() {
        None => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let protocol = |protocol: &Option<String>| protocol.clone().unwrap_or_else(|| "TCP".into());
            let fits = |at: &&ContainerPort| {
                at.name.as_deref() == Some(name.as_str()) && protocol(&at.protocol) == protocol(&port.protocol)
            };
            let spec = pod.spec.as_ref()?;
            let sidecars = spec
                .init_containers
                .iter()
                .flatten()
                .filter(|init| api::pod::is_sidecar(init));
            let containers = spec.containers.iter().chain(sidecars);
            let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
            ports.find(fits).map(|port| port.container_port)
        }
    }
}

/// When the last change happened that made the pods what they are to the Service.
pub fn last_change(service: &Service, pods: &[&Pod]) -> Option<String> {
    let changed = pods.iter().filter_map(|pod| {
        let ready = api::pod::condition(pod, "Ready").and_then(|ready| ready.last_transition_time.clone());
        ready.into_iter().chain(pod.metadata.deletion_timestamp.clone()).max()
    });
    let Time(last) = changed.chain(service.metadata.creation_timestamp.clone()).max()?;
    // A deletion's time is the end of its grace period, which may be to come.
    Some(last.min(Timestamp::now()).to_string())
}

/// The labels that the objects of a Service have from it.
pub fn labels_of(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(super::HEADLESS);
    if service.spec.as_ref().is_some_and(is_headless) {
        labels.insert(super::HEADLESS.into(), String::new());
    }
    labels
}

fn is_headless(spec: &k8s_openapi::api::core::v1::ServiceSpec) -> bool {
    spec.cluster_ip.as_deref() == Some("None")
}
