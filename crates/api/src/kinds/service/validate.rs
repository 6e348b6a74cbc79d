//! Validation of Services.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;

use super::{HEADLESS, is_headless, is_outside, needs_health_check, service_type};
use crate::field::{FieldError, Path};
use crate::kinds::addresses::{self as shared, NO_ADDRESS};
use crate::meta::{names, validate_labels};

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const AFFINITIES: &[&str] = &["ClientIP", "None"];
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const POLICIES: &[&str] = &["Cluster", "Local"];
const FAMILIES: &[&str] = &["IPv4", "IPv6"];
const FAMILY_POLICIES: &[&str] = &["PreferDualStack", "RequireDualStack", "SingleStack"];
const DISTRIBUTIONS: &[&str] = &["PreferClose", "PreferSameNode", "PreferSameZone"];

/// What load balancers are kept from.
const KUBELET_PORT: i32 = 10250;

/// The longest time, in seconds, for which a client can be kept on one pod.
const MAX_AFFINITY_SECONDS: i32 = 86_400;

pub(super) fn service(service: &Service) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::new("spec");
    let empty = ServiceSpec::default();
    let spec = service.spec.as_ref().unwrap_or(&empty);
    let kind = service_type(spec);
    let headless = is_headless(spec);
    let ports = spec.ports.as_deref().unwrap_or_default();
    if ports.is_empty() && !headless && kind != "ExternalName" {
        errors.push(FieldError::required(&path.child("ports"), ""));
    }
    by_type(spec, kind, headless, &path, &mut errors);
    validate_ports(ports, kind, &path.child("ports"), &mut errors);
    validate_labels(spec.selector.as_ref(), &path.child("selector"), &mut errors);
    affinity(spec, &path, &mut errors);
    if kind != "ExternalName" {
        addresses(spec, &path, &mut errors);
    }
    for (index, ip) in spec.external_ips.iter().flatten().enumerate() {
        let list = path.child("externalIPs");
        shared::reachable(ip, &list.index(index), &mut errors);
    }
    if !TYPES.contains(&kind) {
        errors.push(FieldError::not_supported(&path.child("type"), kind, TYPES));
    }
    load_balancer(spec, kind, &path, &mut errors);
    traffic(spec, kind, &path, &mut errors);
    errors
}

/// What is said to be the Service's own addresses, and their families.
fn addresses(spec: &ServiceSpec, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let list = path.child("clusterIPs");
    let ips = spec.cluster_ips.as_deref().unwrap_or_default();
    match (spec.cluster_ip.as_deref().unwrap_or_default(), ips.first()) {
        ("", Some(_)) => {
            let detail = "must be empty when `clusterIP` is not specified";
            errors.push(FieldError::invalid(&list, ips, detail));
        }
        (ip, Some(first)) if ip != first => {
            errors.push(FieldError::invalid(&list, ips, "first value must match `clusterIP`"));
        }
        _ => {}
    }
    let families = path.child("ipFamilies");
    let mut seen: Vec<&str> = Vec::new();
    for (index, family) in spec.ip_families.iter().flatten().enumerate() {
        if !FAMILIES.contains(&family.as_str()) {
            errors.push(FieldError::not_supported(&families.index(index), family, FAMILIES));
        }
        if seen.contains(&family.as_str()) {
            errors.push(FieldError::duplicate(&families.index(index), family));
        }
        seen.push(family);
    }
    if let Some(policy) = spec
        .ip_family_policy
        .as_deref()
        .filter(|policy| !FAMILY_POLICIES.contains(policy))
    {
        errors.push(FieldError::not_supported(
            &path.child("ipFamilyPolicy"),
            policy,
            FAMILY_POLICIES,
        ));
    }
    let mut bad = false;
    for (index, ip) in ips.iter().enumerate() {
        if index == 0 && ip == HEADLESS {
            if ips.len() > 1 {
                bad = true;
                errors.push(FieldError::invalid(
                    &list,
                    ips,
                    "'None' must be the first and only value",
                ));
            }
        } else if ip.parse::<IpAddr>().is_err() {
            bad = true;
            errors.push(FieldError::invalid(&list.index(index), ip, NO_ADDRESS));
        }
    }
    if ips.len() > 2 {
        errors.push(FieldError::invalid(&list, ips, "may only hold up to 2 values"));
    }
    if bad {
        return;
    }
    let is_v6 = |ip: &String| ip.contains(':');
    if ips.len() > 1 && !(ips.len() == 2 && is_v6(&ips[0]) != is_v6(&ips[1])) {
        let detail = "may specify no more than one IP for each IP family";
        errors.push(FieldError::invalid(&list, ips, detail));
    }
    let with_family = ips.iter().zip(spec.ip_families.iter().flatten()).enumerate();
    for (index, (ip, family)) in with_family.filter(|(_, (ip, _))| *ip != HEADLESS) {
        let of = if is_v6(ip) { "IPv6" } else { "IPv4" };
        if FAMILIES.contains(&family.as_str()) && family != of {
            let detail = format!("expected an {family} value as indicated by `ipFamilies[{index}]`");
            errors.push(FieldError::invalid(&list.index(index), ip, detail));
        }
    }
}

/// What only a Service of the type LoadBalancer may have.
fn load_balancer(spec: &ServiceSpec, kind: &str, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let is_one = kind == "LoadBalancer";
    let mut only = |field: &str| {
        if !is_one {
            let detail = "may only be used when `type` is 'LoadBalancer'";
            errors.push(FieldError::forbidden(&path.child(field), detail));
        }
    };
    // The field's name in the path is upstream's.
    let ranges = path.child("LoadBalancerSourceRanges");
    if spec.load_balancer_source_ranges.iter().flatten().next().is_some() {
        only("LoadBalancerSourceRanges");
    }
    if spec.allocate_load_balancer_node_ports.is_some() {
        only("allocateLoadBalancerNodePorts");
    }
    if spec.load_balancer_class.is_some() {
        only("loadBalancerClass");
    }
    for (index, range) in spec.load_balancer_source_ranges.iter().flatten().enumerate() {
        if !is_range(range.trim()) {
            let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            errors.push(FieldError::invalid(&ranges.index(index), range.trim(), detail));
        }
    }
    if let Some(class) = spec.load_balancer_class.as_deref().filter(|_| is_one) {
        let at = path.child("loadBalancerClass");
        errors.extend(
            names::qualified_name(class)
                .into_iter()
                .map(|m| FieldError::invalid(&at, class, m)),
        );
    }
}

/// Whether it is an address and the length of a prefix.
fn is_range(text: &str) -> bool {
    let parts = text
        .split_once('/')
        .map(|(ip, prefix)| (ip.parse(), prefix.parse::<u8>()));
    match parts {
        Some((Ok(IpAddr::V4(_)), Ok(prefix))) => prefix <= 32,
        Some((Ok(IpAddr::V6(_)), Ok(prefix))) => prefix <= 128,
        _ => false,
    }
}

/// Where traffic may go, and where a load balancer asks whether there is somebody for it.
fn traffic(spec: &ServiceSpec, kind: &str, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let set = |policy: &Option<String>| policy.clone().filter(|policy| !policy.is_empty());
    let external = path.child("externalTrafficPolicy");
    if let Some(policy) = set(&spec.external_traffic_policy) {
        if !is_outside(kind) && spec.external_ips.iter().flatten().next().is_none() {
            let detail = "may only be set for externally-accessible services";
            errors.push(FieldError::invalid(&external, policy, detail));
        } else if !POLICIES.contains(&policy.as_str()) {
            errors.push(FieldError::not_supported(&external, &policy, POLICIES));
        }
    }
    // One that is needed and not asked for is given later.
    if let Some(port) = spec.health_check_node_port.filter(|port| *port != 0) {
        let at = path.child("healthCheckNodePort");
        if needs_health_check(spec) {
            errors.extend(
                names::port_number(port)
                    .into_iter()
                    .map(|m| FieldError::invalid(&at, port, m)),
            );
        } else {
            let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.push(FieldError::invalid(&at, port, detail));
        }
    }
    if let Some(policy) = set(&spec.internal_traffic_policy).filter(|policy| !POLICIES.contains(&policy.as_str())) {
        errors.push(FieldError::not_supported(
            &path.child("internalTrafficPolicy"),
            &policy,
            POLICIES,
        ));
    }
    if let Some(wanted) = spec
        .traffic_distribution
        .as_deref()
        .filter(|wanted| !DISTRIBUTIONS.contains(wanted))
    {
        errors.push(FieldError::not_supported(
            &path.child("trafficDistribution"),
            wanted,
            DISTRIBUTIONS,
        ));
    }
}

fn by_type(spec: &ServiceSpec, kind: &str, headless: bool, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let ips = path.child("clusterIPs");
    match kind {
        "NodePort" | "LoadBalancer" => {
            let ports = path.child("ports");
            let exposed = spec.ports.iter().flatten().enumerate();
            for (index, port) in exposed.filter(|(_, port)| kind == "LoadBalancer" && port.port == KUBELET_PORT) {
                let detail = format!("may not expose port {KUBELET_PORT} externally since it is used by kubelet");
                errors.push(FieldError::invalid(&ports.index(index), port.port, detail));
            }
            if headless {
                let detail = format!("may not be set to 'None' for {kind} services");
                errors.push(FieldError::invalid(&ips.index(0), HEADLESS, detail));
            }
        }
        "ExternalName" => {
            let addressed = spec.cluster_ips.iter().flatten().next().is_some()
                || spec.cluster_ip.as_deref().is_some_and(|ip| !ip.is_empty());
            for (field, set) in [
                ("clusterIPs", addressed),
                ("ipFamilies", spec.ip_families.iter().flatten().next().is_some()),
                ("ipFamilyPolicy", spec.ip_family_policy.is_some()),
            ] {
                if set {
                    let detail = "may not be set for ExternalName services";
                    errors.push(FieldError::forbidden(&path.child(field), detail));
                }
            }
            let name = spec.external_name.as_deref().unwrap_or_default();
            let path = path.child("externalName");
            // A dot at the end is how DNS writes a full name.
            let checked = name.strip_suffix('.').unwrap_or(name);
            if name.is_empty() {
                errors.push(FieldError::required(&path, ""));
            } else {
                errors.extend(
                    names::dns1123_subdomain(checked)
                        .into_iter()
                        .map(|m| FieldError::invalid(&path, name, m)),
                );
            }
        }
        _ => {}
    }
}

fn validate_ports(ports: &[ServicePort], kind: &str, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let mut seen: Vec<(&str, i32)> = Vec::with_capacity(ports.len());
    let mut seen_node_ports: Vec<(&str, i32)> = Vec::with_capacity(ports.len());
    let mut seen_names: Vec<&str> = Vec::with_capacity(ports.len());
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        match port.name.as_deref().unwrap_or_default() {
            "" if ports.len() > 1 => errors.push(FieldError::required(&path.child("name"), "")),
            "" => {}
            name => {
                let at = path.child("name");
                errors.extend(
                    names::dns1123_label(name)
                        .into_iter()
                        .map(|m| FieldError::invalid(&at, name, m)),
                );
                if seen_names.contains(&name) {
                    errors.push(FieldError::duplicate(&at, name));
                }
                seen_names.push(name);
            }
        }
        let number = path.child("port");
        errors.extend(
            names::port_number(port.port)
                .into_iter()
                .map(|m| FieldError::invalid(&number, port.port, m)),
        );
        let protocol = port.protocol.as_deref().unwrap_or_default();
        if protocol.is_empty() {
            errors.push(FieldError::required(&path.child("protocol"), ""));
        } else if !PROTOCOLS.contains(&protocol) {
            errors.push(FieldError::not_supported(&path.child("protocol"), protocol, PROTOCOLS));
        }
        let target = path.child("targetPort");
        match &port.target_port {
            Some(IntOrString::Int(n)) => {
                errors.extend(
                    names::port_number(*n)
                        .into_iter()
                        .map(|m| FieldError::invalid(&target, n, m)),
                );
            }
            Some(IntOrString::String(name)) => {
                errors.extend(
                    names::port_name(name)
                        .into_iter()
                        .map(|m| FieldError::invalid(&target, name, m)),
                );
            }
            None => {}
        }
        if let Some(protocol) = port.app_protocol.as_deref() {
            let at = path.child("appProtocol");
            errors.extend(
                names::qualified_name(protocol)
                    .into_iter()
                    .map(|m| FieldError::invalid(&at, protocol, m)),
            );
        }
        if let Some(node_port) = port.node_port.filter(|port| *port != 0) {
            let at = path.child("nodePort");
            // Whether it is in the range of node ports is known where they are given.
            if kind == "ClusterIP" {
                let detail = "may not be used when `type` is 'ClusterIP'";
                errors.push(FieldError::forbidden(&at, detail));
            }
            if seen_node_ports.contains(&(protocol, node_port)) {
                errors.push(FieldError::duplicate(&at, node_port));
            }
            seen_node_ports.push((protocol, node_port));
        }
        if seen.contains(&(protocol, port.port)) {
            errors.push(FieldError::duplicate(
                &path,
                json!({"protocol": protocol, "port": port.port}),
            ));
        }
        seen.push((protocol, port.port));
    }
}

fn affinity(spec: &ServiceSpec, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let affinity = spec.session_affinity.as_deref().unwrap_or_default();
    let at = path.child("sessionAffinity");
    if affinity.is_empty() {
        errors.push(FieldError::required(&at, ""));
    } else if !AFFINITIES.contains(&affinity) {
        errors.push(FieldError::not_supported(&at, affinity, AFFINITIES));
    }
    let config = spec.session_affinity_config.as_ref();
    if affinity == "None" && config.is_some() {
        let detail = "must not be set when session affinity is None";
        errors.push(FieldError::forbidden(&path.child("sessionAffinityConfig"), detail));
        return;
    }
    let seconds = config.and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
    if let Some(seconds) = seconds.filter(|seconds| *seconds <= 0 || *seconds > MAX_AFFINITY_SECONDS) {
        let config = path.child("sessionAffinityConfig");
        let client = config.child("clientIP");
        let detail = format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}");
        errors.push(FieldError::invalid(&client.child("timeoutSeconds"), seconds, detail));
    }
}

pub(super) fn service_update(new: &Service, old: &Service) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let (Some(is), Some(was)) = (&new.spec, &old.spec) {
        let path = Path::new("spec");
        if service_type(was) != "ExternalName" && service_type(is) != "ExternalName" {
            unchanged(is, was, &path, &mut errors);
        }
        let balanced = |spec: &ServiceSpec| service_type(spec) == "LoadBalancer";
        if balanced(was) && balanced(is) && was.load_balancer_class != is.load_balancer_class {
            let at = path.child("loadBalancerClass");
            errors.push(FieldError::invalid(
                &at,
                &is.load_balancer_class,
                "may not change once set",
            ));
        }
        if needs_health_check(was)
            && needs_health_check(is)
            && was.health_check_node_port.unwrap_or_default() != is.health_check_node_port.unwrap_or_default()
        {
            let at = path.child("healthCheckNodePort");
            errors.push(FieldError::forbidden(&at, "field is immutable"));
        }
    }
    errors.extend(service(new));
    errors
}

/// The address and family that a Service has been given are its own for good.
fn unchanged(is: &ServiceSpec, was: &ServiceSpec, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if is_headless(is) && is_headless(was) {
        return;
    }
    let (ips, before) = (is.cluster_ips.as_deref(), was.cluster_ips.as_deref());
    let (ips, before) = (ips.unwrap_or_default(), before.unwrap_or_default());
    let list = path.child("clusterIPs");
    match (ips.first(), before.first()) {
        (None, Some(_)) => {
            let detail = "primary clusterIP can not be unset";
            errors.push(FieldError::invalid(&list.index(0), ips, detail));
        }
        (Some(ip), Some(old)) if ip != old => {
            errors.push(FieldError::invalid(&list.index(0), ips, "may not change once set"));
        }
        _ => {}
    }
    let families = (is.ip_families.as_deref(), was.ip_families.as_deref());
    let (families, before) = (families.0.unwrap_or_default(), families.1.unwrap_or_default());
    if is_headless(is) == is_headless(was)
        && !families.is_empty()
        && families.first() != before.first()
        && !before.is_empty()
    {
        let at = path.child("ipFamilies");
        errors.push(FieldError::invalid(&at.index(0), families, "may not change once set"));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::kinds::service::RESOURCE;
    use crate::{FieldValidation, Format};

    fn errors(spec: serde_json::Value) -> Vec<String> {
        let body = json!({"metadata": {"name": "web"}, "spec": spec}).to_string();
        let mut object = RESOURCE
            .strategy
            .decode(body.as_bytes(), Format::Json, FieldValidation::Strict)
            .unwrap()
            .object;
        RESOURCE.strategy.default(&mut *object);
        RESOURCE
            .strategy
            .validate_create(&*object)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn messages() {
        let none: &[&str] = &[];
        for (spec, want) in [
            (json!({"ports": [{"port": 80}]}), none),
            (json!({"clusterIP": "None"}), none),
            (json!({}), &["spec.ports: Required value"][..]),
            (
                json!({"ports": [{"port": 0}]}),
                &[
                    "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                    "spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
                ],
            ),
            (
                json!({"ports": [{"port": 80}, {"port": 80}]}),
                &[
                    "spec.ports[0].name: Required value",
                    "spec.ports[1].name: Required value",
                    r#"spec.ports[1]: Duplicate value: {"port":80,"protocol":"TCP"}"#,
                ],
            ),
            (
                json!({"ports": [{"port": 80, "protocol": "HTTP"}]}),
                &[r#"spec.ports[0].protocol: Unsupported value: "HTTP": supported values: "SCTP", "TCP", "UDP""#],
            ),
            (
                json!({"type": "Foo", "ports": [{"port": 80}]}),
                &[
                    r#"spec.type: Unsupported value: "Foo": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort""#,
                ],
            ),
            (json!({"type": "ExternalName"}), &["spec.externalName: Required value"]),
            (
                json!({"ports": [{"port": 80, "nodePort": 30000}]}),
                &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
            ),
            (
                json!({"type": "ExternalName", "externalName": "a.b", "clusterIP": "10.96.0.5", "ipFamilyPolicy": "SingleStack",
                    "ports": [{"port": 80, "nodePort": 30000}]}),
                &[
                    "spec.clusterIPs: Forbidden: may not be set for ExternalName services",
                    "spec.ipFamilyPolicy: Forbidden: may not be set for ExternalName services",
                ],
            ),
            (
                json!({"type": "LoadBalancer", "ports": [{"port": 10250}]}),
                &[
                    "spec.ports[0]: Invalid value: 10250: may not expose port 10250 externally since it is used by kubelet",
                ],
            ),
            (
                json!({"type": "NodePort", "ports": [{"name": "a", "port": 80, "nodePort": 30000}, {"name": "b", "port": 81, "nodePort": 30000}]}),
                &["spec.ports[1].nodePort: Duplicate value: 30000"],
            ),
            (
                json!({"ports": [{"port": 80}], "loadBalancerSourceRanges": ["10.0.0.0/33"], "loadBalancerClass": "a b",
                    "allocateLoadBalancerNodePorts": true, "healthCheckNodePort": 30000, "externalTrafficPolicy": "Local",
                    "internalTrafficPolicy": "Far", "trafficDistribution": "PreferFar"}),
                &[
                    "spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
                    "spec.allocateLoadBalancerNodePorts: Forbidden: may only be used when `type` is 'LoadBalancer'",
                    "spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'",
                    r#"spec.LoadBalancerSourceRanges[0]: Invalid value: "10.0.0.0/33": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"#,
                    r#"spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible services"#,
                    "spec.healthCheckNodePort: Invalid value: 30000: may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
                    r#"spec.internalTrafficPolicy: Unsupported value: "Far": supported values: "Cluster", "Local""#,
                    r#"spec.trafficDistribution: Unsupported value: "PreferFar": supported values: "PreferClose", "PreferSameNode", "PreferSameZone""#,
                ],
            ),
            (
                json!({"ports": [{"port": 80}], "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.6"], "ipFamilies": ["IPv6", "IPv6", "IPX"],
                    "ipFamilyPolicy": "Any"}),
                &[
                    r#"spec.clusterIPs: Invalid value: ["10.96.0.6"]: first value must match `clusterIP`"#,
                    r#"spec.ipFamilies[1]: Duplicate value: "IPv6""#,
                    r#"spec.ipFamilies[2]: Unsupported value: "IPX": supported values: "IPv4", "IPv6""#,
                    r#"spec.ipFamilyPolicy: Unsupported value: "Any": supported values: "PreferDualStack", "RequireDualStack", "SingleStack""#,
                    r#"spec.clusterIPs[0]: Invalid value: "10.96.0.6": expected an IPv6 value as indicated by `ipFamilies[0]`"#,
                ],
            ),
            (
                json!({"ports": [{"port": 80}], "clusterIPs": ["10.96.0.6", "10.96.0.7"]}),
                &[
                    r#"spec.clusterIPs: Invalid value: ["10.96.0.6","10.96.0.7"]: must be empty when `clusterIP` is not specified"#,
                    r#"spec.clusterIPs: Invalid value: ["10.96.0.6","10.96.0.7"]: may specify no more than one IP for each IP family"#,
                ],
            ),
        ] {
            assert_eq!(errors(spec.clone()), want, "{spec}");
        }
    }
}
