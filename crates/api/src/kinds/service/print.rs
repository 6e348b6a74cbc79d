//! The table of Services.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use serde_json::Value;

use super::service_type;
use crate::table::{AGE, Column, NAME, age_cell, name_cell};

pub(super) const COLUMNS: &[Column] = &[
    NAME,
    Column::new("Type", "string", "type determines how the Service is exposed. Defaults to ClusterIP. Valid options are ExternalName, ClusterIP, NodePort, and LoadBalancer. \"ClusterIP\" allocates a cluster-internal IP address for load-balancing to endpoints. Endpoints are determined by the selector or if that is not specified, by manual construction of an Endpoints object or EndpointSlice objects. If clusterIP is \"None\", no virtual IP is allocated and the endpoints are published as a set of endpoints rather than a virtual IP. \"NodePort\" builds on ClusterIP and allocates a port on every node which routes to the same endpoints as the clusterIP. \"LoadBalancer\" builds on NodePort and creates an external load-balancer (if supported in the current cloud) which routes to the same endpoints as the clusterIP. \"ExternalName\" aliases this service to the specified externalName. Several other fields do not apply to ExternalName services. More info: https://kubernetes.io/docs/concepts/services-networking/service/#publishing-services-service-types"),
    Column::new("Cluster-IP", "string", "clusterIP is the IP address of the service and is usually assigned randomly. If an address is specified manually, is in-range (as per system configuration), and is not in use, it will be allocated to the service; otherwise creation of the service will fail. This field may not be changed through updates unless the type field is also being changed to ExternalName (which requires this field to be blank) or the type field is being changed from ExternalName (in which case this field may optionally be specified, as describe above).  Valid values are \"None\", empty string (\"\"), or a valid IP address. Setting this to \"None\" makes a \"headless service\" (no virtual IP), which is useful when direct endpoint connections are preferred and proxying is not required.  Only applies to types ClusterIP, NodePort, and LoadBalancer. If this field is specified when creating a Service of type ExternalName, creation will fail. This field will be wiped when updating a Service to type ExternalName. More info: https://kubernetes.io/docs/concepts/services-networking/service/#virtual-ips-and-service-proxies"),
    Column::new("External-IP", "string", "externalIPs is a list of IP addresses for which nodes in the cluster will also accept traffic for this service.  These IPs are not managed by Kubernetes.  The user is responsible for ensuring that traffic arrives at a node with this IP.  A common example is external load-balancers that are not part of the Kubernetes system."),
    Column::new("Port(s)", "string", "The list of ports that are exposed by this service. More info: https://kubernetes.io/docs/concepts/services-networking/service/#virtual-ips-and-service-proxies"),
    AGE,
    Column::new("Selector", "string", "Route service traffic to pods with label keys and values matching this selector. If empty or not present, the service is assumed to have an external process managing its endpoints, which Kubernetes will not modify. Only applies to types ClusterIP, NodePort, and LoadBalancer. Ignored if type is ExternalName. More info: https://kubernetes.io/docs/concepts/services-networking/service/").wide(),
];

const NONE: &str = "<none>";

/// Joins with commas; `<none>` for nothing.
fn listed<S: AsRef<str>>(items: impl Iterator<Item = S>) -> String {
    let mut out = String::new();
    for item in items {
        if !out.is_empty() {
            out.push(',');
        }
        out.push_str(item.as_ref());
    }
    if out.is_empty() { NONE.to_owned() } else { out }
}

/// Labels as `-o wide` shows them: `a=b,c=d`.
pub(crate) fn labels(labels: Option<&BTreeMap<String, String>>) -> String {
    listed(
        labels
            .into_iter()
            .flatten()
            .map(|(key, value)| format!("{key}={value}")),
    )
}

fn port(port: &ServicePort) -> String {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    match port.node_port.filter(|node_port| *node_port > 0) {
        Some(node_port) => format!("{}:{node_port}/{protocol}", port.port),
        None => format!("{}/{protocol}", port.port),
    }
}

fn external(service: &Service, spec: &ServiceSpec) -> String {
    let external = spec.external_ips.iter().flatten().map(String::as_str);
    match service_type(spec) {
        "ExternalName" => spec.external_name.clone().unwrap_or_default(),
        "LoadBalancer" => {
            let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
            let ingress = status.and_then(|status| status.ingress.as_deref()).unwrap_or_default();
            let balanced = ingress.iter().filter_map(|ingress| {
                ingress
                    .ip
                    .as_deref()
                    .filter(|ip| !ip.is_empty())
                    .or(ingress.hostname.as_deref())
            });
            match listed(balanced.chain(external)) {
                none if none == NONE => "<pending>".to_owned(),
                some => some,
            }
        }
        _ => listed(external),
    }
}

pub(super) fn row(service: &Service, now: Timestamp) -> Vec<Value> {
    let empty = ServiceSpec::default();
    let spec = service.spec.as_ref().unwrap_or(&empty);
    let cluster_ip = spec
        .cluster_ips
        .as_ref()
        .and_then(|ips| ips.first())
        .or(spec.cluster_ip.as_ref())
        .filter(|ip| !ip.is_empty());
    vec![
        name_cell(&service.metadata),
        service_type(spec).into(),
        cluster_ip.map_or(NONE, String::as_str).into(),
        external(service, spec).into(),
        listed(spec.ports.iter().flatten().map(port)).into(),
        age_cell(&service.metadata, now),
        labels(spec.selector.as_ref()).into(),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use serde_json::json;

    use crate::kinds::service::RESOURCE;
    use crate::kinds::testing::cells;

    #[test]
    fn rows() {
        let port = json!([{"port": 80}]);
        for (spec, want) in [
            (
                json!({"clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"], "ports": port, "selector": {"app": "web"}}),
                ["ClusterIP", "10.96.0.5", "<none>", "80/TCP", "60s", "app=web"],
            ),
            (
                json!({"clusterIP": "None", "clusterIPs": ["None"]}),
                ["ClusterIP", "None", "<none>", "<none>", "60s", "<none>"],
            ),
            (
                json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}),
                ["NodePort", "<none>", "<none>", "80:30080/TCP", "60s", "<none>"],
            ),
            (
                json!({"type": "LoadBalancer", "ports": port}),
                ["LoadBalancer", "<none>", "<pending>", "80/TCP", "60s", "<none>"],
            ),
            (
                json!({"type": "ExternalName", "externalName": "a.b"}),
                ["ExternalName", "<none>", "a.b", "<none>", "60s", "<none>"],
            ),
            (
                json!({"ports": port, "externalIPs": ["1.2.3.4", "1.2.3.5"]}),
                ["ClusterIP", "<none>", "1.2.3.4,1.2.3.5", "80/TCP", "60s", "<none>"],
            ),
        ] {
            let row = cells(&RESOURCE, json!({"spec": spec}));
            assert_eq!(row[1..], want.map(|cell| json!(cell)), "{spec}");
        }
    }
}
