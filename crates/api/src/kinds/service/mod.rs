//! Service: an address and ports in front of pods. Addresses and node ports are the API server's to give.

mod print;
mod validate;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ClientIPConfig, LoadBalancerStatus, Service, ServicePort, ServiceSpec, ServiceStatus, SessionAffinityConfig,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use crate::catalogue::{ALL_VERBS, Resource, Subresource, Verb};
use crate::field::FieldError;
use crate::meta::NameRule;
use crate::strategy::{Typed, TypedStrategy};
use crate::table::Column;

const SCHEMA: &str = "io.k8s.api.core.v1.Service";

/// `services`
pub static RESOURCE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "Service",
    list_kind: "ServiceList",
    plural: "services",
    singular: "service",
    short_names: &["svc"],
    categories: &["all"],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[
        Subresource {
            name: "proxy",
            group: "",
            version: "v1",
            kind: "ServiceProxyOptions",
            verbs: &[Verb::Create, Verb::Delete, Verb::Get, Verb::Patch, Verb::Update],
        },
        Subresource::status("", "v1", "Service"),
    ],
    storage: "services",
    schema: SCHEMA,
    strategy: &Typed::new(Services, SCHEMA),
};

/// The cluster IP of a Service that wants none.
pub const HEADLESS: &str = "None";

struct Services;

/// The Service's type; ClusterIP when it is not set.
pub fn service_type(spec: &ServiceSpec) -> &str {
    spec.type_
        .as_deref()
        .filter(|kind| !kind.is_empty())
        .unwrap_or("ClusterIP")
}

/// Whether the Service has names for its pods, but no address of its own.
pub fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ip.as_deref() == Some(HEADLESS)
        || spec
            .cluster_ips
            .as_ref()
            .is_some_and(|ips| ips.first().is_some_and(|ip| ip == HEADLESS))
}

/// Whether a load balancer asks each node, on a port of its own, whether there is an endpoint: when no other node is to be asked.
pub fn needs_health_check(spec: &ServiceSpec) -> bool {
    service_type(spec) == "LoadBalancer" && spec.external_traffic_policy.as_deref() == Some("Local")
}

fn default_spec(spec: &mut ServiceSpec) {
    let unset = |field: &Option<String>| field.as_deref().is_none_or(str::is_empty);
    if unset(&spec.session_affinity) {
        spec.session_affinity = Some("None".into());
    }
    match spec.session_affinity.as_deref() {
        Some("None") => spec.session_affinity_config = None,
        Some("ClientIP") => {
            let config = spec
                .session_affinity_config
                .get_or_insert_with(SessionAffinityConfig::default);
            let client = config.client_ip.get_or_insert_with(ClientIPConfig::default);
            client.timeout_seconds.get_or_insert(10_800);
        }
        _ => {}
    }
    if unset(&spec.type_) {
        spec.type_ = Some("ClusterIP".into());
    }
    for port in spec.ports.iter_mut().flatten() {
        if unset(&port.protocol) {
            port.protocol = Some("TCP".into());
        }
        let target = port.target_port.get_or_insert(IntOrString::Int(0));
        if matches!(target, IntOrString::Int(0)) || matches!(target, IntOrString::String(name) if name.is_empty()) {
            *target = IntOrString::Int(port.port);
        }
    }
    let kind = service_type(spec).to_owned();
    let outside = matches!(kind.as_str(), "NodePort" | "LoadBalancer");
    let reachable = outside || (kind == "ClusterIP" && spec.external_ips.iter().flatten().next().is_some());
    if reachable && unset(&spec.external_traffic_policy) {
        spec.external_traffic_policy = Some("Cluster".into());
    }
    if (outside || kind == "ClusterIP") && unset(&spec.internal_traffic_policy) {
        spec.internal_traffic_policy = Some("Cluster".into());
    }
    if kind == "LoadBalancer" {
        spec.allocate_load_balancer_node_ports.get_or_insert(true);
    }
}

fn empty_status() -> ServiceStatus {
    ServiceStatus {
        load_balancer: Some(LoadBalancerStatus::default()),
        conditions: None,
    }
}

/// Brings `clusterIP` and `clusterIPs` together, where a client that knows only one of them has set or changed that one.
fn join_cluster_ips(new: &mut ServiceSpec, old: Option<&ServiceSpec>) {
    let ip = new.cluster_ip.clone().filter(|ip| !ip.is_empty());
    let only_one_is_set = ip.is_some() && new.cluster_ips.as_ref().is_none_or(Vec::is_empty);
    let only_one_has_changed =
        old.is_some_and(|old| new.cluster_ip != old.cluster_ip && new.cluster_ips == old.cluster_ips);
    if only_one_is_set || only_one_has_changed {
        new.cluster_ips = ip.map(|ip| vec![ip]);
    }
}

/// Keeps the addresses and ports that were given to the old object, where an update leaves them out.
fn keep_allocations(new: &mut ServiceSpec, old: &ServiceSpec) {
    let (was, is) = (service_type(old), service_type(new).to_owned());
    if was != "ExternalName" && is != "ExternalName" {
        if new.cluster_ip.as_deref().is_none_or(str::is_empty) && new.cluster_ips.as_ref().is_none_or(Vec::is_empty) {
            new.cluster_ip.clone_from(&old.cluster_ip);
            new.cluster_ips.clone_from(&old.cluster_ips);
        }
        if new.ip_families.as_ref().is_none_or(Vec::is_empty) {
            new.ip_families.clone_from(&old.ip_families);
        }
        if new.ip_family_policy.is_none() {
            new.ip_family_policy.clone_from(&old.ip_family_policy);
        }
    }
    if is_outside(was) && is_outside(&is) {
        keep_node_ports(new, old);
    }
    if needs_health_check(old) && needs_health_check(new) && new.health_check_node_port.unwrap_or_default() == 0 {
        new.health_check_node_port = old.health_check_node_port;
    }
}

/// A port is known again by its name, whatever else of it has changed.
fn keep_node_ports(new: &mut ServiceSpec, old: &ServiceSpec) {
    let of = |spec: &ServiceSpec| -> Vec<i32> {
        let ports = spec.ports.iter().flatten();
        ports
            .filter_map(|port| port.node_port.filter(|port| *port != 0))
            .collect()
    };
    let had = of(old);
    let mut used: Vec<i32> = of(new).into_iter().filter(|port| had.contains(port)).collect();
    let missing = |port: &&mut ServicePort| port.node_port.unwrap_or_default() == 0;
    for port in new.ports.iter_mut().flatten().filter(missing) {
        let named = |other: &&ServicePort| {
            other.name.as_deref().unwrap_or_default() == port.name.as_deref().unwrap_or_default()
        };
        let before = old.ports.iter().flatten().rfind(named).and_then(|old| old.node_port);
        if let Some(before) = before.filter(|before| !used.contains(before)) {
            port.node_port = Some(before);
            used.push(before);
        }
    }
}

/// Whether a Service of the type has node ports.
fn is_outside(kind: &str) -> bool {
    matches!(kind, "NodePort" | "LoadBalancer")
}

/// Clears what only the old type has, where an update has changed the type and left it as it was.
fn drop_what_the_type_has_not(new: &mut ServiceSpec, old: &ServiceSpec) {
    fn clear<T: PartialEq>(new: &mut Option<T>, old: &Option<T>) {
        if new == old {
            *new = None;
        }
    }
    let (was, is) = (service_type(old), service_type(new).to_owned());
    if was != "ExternalName" && is == "ExternalName" {
        clear(&mut new.cluster_ip, &old.cluster_ip);
        clear(&mut new.cluster_ips, &old.cluster_ips);
        clear(&mut new.ip_families, &old.ip_families);
        clear(&mut new.ip_family_policy, &old.ip_family_policy);
        clear(&mut new.internal_traffic_policy, &old.internal_traffic_policy);
    }
    if is_outside(was) && !is_outside(&is) {
        let node_ports = |spec: &ServiceSpec| -> Vec<i32> {
            let ports = spec.ports.iter().flatten();
            ports.map(|port| port.node_port.unwrap_or_default()).collect()
        };
        if node_ports(new) == node_ports(old) {
            for port in new.ports.iter_mut().flatten() {
                port.node_port = None;
            }
        }
        if new.external_ips.iter().flatten().next().is_none() {
            clear(&mut new.external_traffic_policy, &old.external_traffic_policy);
        }
    }
    if was == "LoadBalancer" && is != "LoadBalancer" {
        clear(
            &mut new.allocate_load_balancer_node_ports,
            &old.allocate_load_balancer_node_ports,
        );
        clear(&mut new.load_balancer_class, &old.load_balancer_class);
    }
    if needs_health_check(old) && !needs_health_check(new) {
        clear(&mut new.health_check_node_port, &old.health_check_node_port);
    }
}

/// What is set and of no use.
fn warnings(spec: &ServiceSpec) -> Vec<String> {
    let kind = service_type(spec);
    let balanced = spec.load_balancer_ip.as_deref().is_some_and(|ip| !ip.is_empty());
    let external = spec.external_ips.iter().flatten().next().is_some();
    let headless = kind == "ClusterIP" && spec.cluster_ip.as_deref() == Some(HEADLESS);
    let close = spec.traffic_distribution.as_deref() == Some("PreferClose");
    let texts = [
        (
            headless && balanced,
            "spec.loadBalancerIP is ignored for headless services",
        ),
        (
            headless && external,
            "spec.externalIPs is ignored for headless services",
        ),
        (
            headless && spec.session_affinity.as_deref() != Some("None"),
            "spec.SessionAffinity is ignored for headless services",
        ),
        (
            external && !headless && kind != "ExternalName",
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
        ),
        (
            external && kind == "ExternalName",
            "spec.externalIPs is ignored when spec.type is \"ExternalName\"",
        ),
        (
            kind != "ExternalName" && spec.external_name.as_deref().is_some_and(|name| !name.is_empty()),
            "spec.externalName is ignored when spec.type is not \"ExternalName\"",
        ),
        (
            close,
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"",
        ),
    ];
    let told = texts.into_iter().filter(|(is_so, _)| *is_so);
    told.map(|(_, text)| text.to_owned()).collect()
}

impl TypedStrategy for Services {
    type Object = Service;

    fn name_rule(&self) -> NameRule {
        NameRule::Label1035
    }

    fn default(&self, service: &mut Service) {
        default_spec(service.spec.get_or_insert_with(ServiceSpec::default));
    }

    fn prepare_create(&self, service: &mut Service) {
        service.status = Some(empty_status());
        if let Some(spec) = &mut service.spec {
            join_cluster_ips(spec, None);
        }
    }

    fn validate_create(&self, service: &Service) -> Vec<FieldError> {
        validate::service(service)
    }

    fn prepare_update(&self, subresource: Option<&str>, new: &mut Service, old: &Service) {
        if subresource == Some("status") {
            new.spec.clone_from(&old.spec);
            return;
        }
        new.status.clone_from(&old.status);
        if let (Some(new), Some(old)) = (&mut new.spec, &old.spec) {
            join_cluster_ips(new, Some(old));
            keep_allocations(new, old);
            drop_what_the_type_has_not(new, old);
        }
    }

    fn validate_update(&self, subresource: Option<&str>, new: &Service, old: &Service) -> Vec<FieldError> {
        if subresource == Some("status") {
            return Vec::new();
        }
        validate::service_update(new, old)
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn warnings(&self, new: &Service, _old: Option<&Service>) -> Vec<String> {
        new.spec.as_ref().map(warnings).unwrap_or_default()
    }

    fn columns(&self) -> &'static [Column] {
        print::COLUMNS
    }

    fn row(&self, service: &Service, now: Timestamp) -> Vec<Value> {
        print::row(service, now)
    }

    fn fields(&self) -> &'static [&'static str] {
        &["spec.clusterIP", "spec.type"]
    }

    fn field(&self, service: &Service, path: &str) -> Option<String> {
        let spec = service.spec.as_ref();
        match path {
            "spec.clusterIP" => Some(spec.and_then(|spec| spec.cluster_ip.clone()).unwrap_or_default()),
            "spec.type" => Some(spec.map(service_type).unwrap_or_default().to_owned()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{created, updated};

    #[test]
    fn defaults() {
        let service = created(
            &RESOURCE,
            json!({"spec": {"ports": [{"port": 80}]}, "status": {"conditions": []}}),
        )
        .unwrap();
        let value = service.to_value().unwrap();
        assert_eq!(
            value["spec"],
            json!({
                "internalTrafficPolicy": "Cluster",
                "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
                "sessionAffinity": "None",
                "type": "ClusterIP",
            })
        );
        assert_eq!(value["status"], json!({"loadBalancer": {}}));
    }

    #[test]
    fn an_update_keeps_what_was_allocated() {
        let old = json!({"spec": {"type": "NodePort", "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"],
            "ports": [{"port": 80, "nodePort": 30080}]}});
        let new = json!({"spec": {"type": "NodePort", "ports": [{"port": 80, "targetPort": 8080}]}});
        let value = updated(&RESOURCE, None, old.clone(), new).unwrap();
        assert_eq!(value["spec"]["clusterIP"], "10.96.0.5");
        assert_eq!(value["spec"]["ports"][0]["nodePort"], 30080);
        let moved = json!({"spec": {"clusterIP": "10.96.0.6", "clusterIPs": ["10.96.0.6"], "ports": [{"port": 80}]}});
        let error = updated(&RESOURCE, None, old, moved).unwrap_err();
        assert_eq!(
            error,
            r#"Service "a" is invalid: spec.clusterIPs[0]: Invalid value: ["10.96.0.6"]: may not change once set"#
        );
    }

    #[test]
    fn a_port_that_keeps_its_name_keeps_its_node_port() {
        let old = json!({"spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30090,
            "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"], "ports": [
            {"name": "a", "port": 80, "nodePort": 30080}, {"name": "b", "port": 81, "nodePort": 30081}]}});
        let new = json!({"spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "clusterIP": "10.96.0.5", "ports": [
            {"name": "b", "port": 8080}, {"name": "c", "port": 81}, {"name": "a", "port": 80, "nodePort": 30080}]}});
        let value = updated(&RESOURCE, None, old.clone(), new).unwrap();
        let ports = value["spec"]["ports"].as_array().unwrap();
        let ports: Vec<&Value> = ports.iter().map(|port| &port["nodePort"]).collect();
        assert_eq!(ports, [&json!(30081), &Value::Null, &json!(30080)]);
        assert_eq!(value["spec"]["clusterIPs"], json!(["10.96.0.5"]));
        assert_eq!(value["spec"]["healthCheckNodePort"], 30090);

        let mut new = old.clone();
        new["spec"]["healthCheckNodePort"] = 30091.into();
        let error = updated(&RESOURCE, None, old.clone(), new).unwrap_err();
        assert!(
            error.ends_with("spec.healthCheckNodePort: Forbidden: field is immutable"),
            "{error}"
        );
        let mut new = old.clone();
        new["spec"]["externalTrafficPolicy"] = "Cluster".into();
        let value = updated(&RESOURCE, None, old, new).unwrap();
        assert_eq!(value["spec"].get("healthCheckNodePort"), None);
    }

    #[test]
    fn what_is_of_no_use_is_told() {
        let told = |spec: Value| warnings(&serde_json::from_value(spec).unwrap()).join("; ");
        for (spec, expected) in [
            (json!({"clusterIP": "10.96.0.5", "sessionAffinity": "ClientIP"}), ""),
            (
                json!({"clusterIP": "None", "sessionAffinity": "ClientIP", "externalIPs": ["203.0.113.9"]}),
                "spec.externalIPs is ignored for headless services; spec.SessionAffinity is ignored for headless services",
            ),
            (
                json!({"externalIPs": ["203.0.113.9"], "externalName": "a.b", "trafficDistribution": "PreferClose"}),
                "spec.externalIPs is deprecated and may no longer be implemented in some clusters; \
                 spec.externalName is ignored when spec.type is not \"ExternalName\"; \
                 spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"",
            ),
            (
                json!({"type": "ExternalName", "externalName": "a.b", "externalIPs": ["203.0.113.9"]}),
                "spec.externalIPs is ignored when spec.type is \"ExternalName\"",
            ),
        ] {
            assert_eq!(told(spec.clone()), expected, "{spec}");
        }
    }

    #[test]
    fn a_change_of_type_clears_what_the_new_one_has_not() {
        let old = json!({"spec": {"type": "NodePort", "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "externalTrafficPolicy": "Cluster",
            "internalTrafficPolicy": "Cluster", "ports": [{"port": 80, "nodePort": 30080}]}});
        let mut new = old.clone();
        new["spec"]["type"] = "ClusterIP".into();
        let value = updated(&RESOURCE, None, old.clone(), new).unwrap();
        assert_eq!(value["spec"]["clusterIP"], "10.96.0.5");
        assert_eq!(value["spec"]["ports"][0].get("nodePort"), None);
        assert_eq!(value["spec"].get("externalTrafficPolicy"), None);

        let mut new = old.clone();
        new["spec"]["type"] = "ExternalName".into();
        new["spec"]["externalName"] = "example.org".into();
        let value = updated(&RESOURCE, None, old.clone(), new).unwrap();
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            assert_eq!(value["spec"].get(field), None, "{field}");
        }
        // One that is asked for is refused.
        let mut new = old.clone();
        new["spec"]["type"] = "ClusterIP".into();
        new["spec"]["ports"][0]["nodePort"] = 30081.into();
        let error = updated(&RESOURCE, None, old, new).unwrap_err();
        assert!(error.contains("may not be used when `type` is 'ClusterIP'"), "{error}");
    }
}
