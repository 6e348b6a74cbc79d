//! Validation of Services.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;

use super::{HEADLESS, is_headless, service_type};
use crate::field::{FieldError, Path};
use crate::meta::{names, validate_labels};

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const AFFINITIES: &[&str] = &["ClientIP", "None"];
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const POLICIES: &[&str] = &["Cluster", "Local"];

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
    for (index, ip) in spec.cluster_ips.iter().flatten().enumerate() {
        if ip != HEADLESS && ip.parse::<IpAddr>().is_err() {
            let list = path.child("clusterIPs");
            errors.push(FieldError::invalid(
                &list.index(index),
                ip,
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ));
        }
    }
    for (index, ip) in spec.external_ips.iter().flatten().enumerate() {
        let list = path.child("externalIPs");
        external_ip(ip, &list.index(index), &mut errors);
    }
    if !TYPES.contains(&kind) {
        errors.push(FieldError::not_supported(&path.child("type"), kind, TYPES));
    }
    for (field, policy) in [
        ("externalTrafficPolicy", &spec.external_traffic_policy),
        ("internalTrafficPolicy", &spec.internal_traffic_policy),
    ] {
        if let Some(policy) = policy
            .as_deref()
            .filter(|policy| !policy.is_empty() && !POLICIES.contains(policy))
        {
            errors.push(FieldError::not_supported(&path.child(field), policy, POLICIES));
        }
    }
    let outside = matches!(kind, "NodePort" | "LoadBalancer");
    if !outside
        && spec.external_ips.iter().flatten().next().is_none()
        && let Some(policy) = spec
            .external_traffic_policy
            .as_deref()
            .filter(|policy| !policy.is_empty())
    {
        let detail = "may only be set for externally-accessible services";
        errors.push(FieldError::invalid(
            &path.child("externalTrafficPolicy"),
            policy,
            detail,
        ));
    }
    errors
}

fn by_type(spec: &ServiceSpec, kind: &str, headless: bool, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let ips = path.child("clusterIPs");
    match kind {
        "NodePort" | "LoadBalancer" if headless => {
            let detail = format!("may not be set to 'None' for {kind} services");
            errors.push(FieldError::invalid(&ips.index(0), HEADLESS, detail));
        }
        "ExternalName" => {
            let addressed = spec.cluster_ips.iter().flatten().next().is_some()
                || spec.cluster_ip.as_deref().is_some_and(|ip| !ip.is_empty());
            if addressed {
                errors.push(FieldError::forbidden(
                    &ips,
                    "may not be set when `type` is 'ExternalName'",
                ));
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
            if matches!(kind, "ClusterIP" | "ExternalName") {
                errors.push(FieldError::forbidden(
                    &at,
                    format!("may not be used when `type` is '{kind}'"),
                ));
            } else {
                errors.extend(
                    names::port_number(node_port)
                        .into_iter()
                        .map(|m| FieldError::invalid(&at, node_port, m)),
                );
            }
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
    let seconds = config.and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
    if let Some(seconds) = seconds.filter(|seconds| *seconds <= 0 || *seconds > MAX_AFFINITY_SECONDS) {
        let config = path.child("sessionAffinityConfig");
        let client = config.child("clientIP");
        let detail = format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}");
        errors.push(FieldError::invalid(&client.child("timeoutSeconds"), seconds, detail));
    }
}

fn external_ip(ip: &str, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let Ok(address) = ip.parse::<IpAddr>() else {
        errors.push(FieldError::invalid(
            path,
            ip,
            "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ));
        return;
    };
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let link_local_multicast = match address {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    };
    for (bad, detail) in [
        (
            address.is_unspecified(),
            "may not be unspecified (0.0.0.0 or ::)".to_owned(),
        ),
        (
            address.is_loopback(),
            "may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned(),
        ),
        (
            link_local,
            "may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned(),
        ),
        (
            link_local_multicast,
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned(),
        ),
    ] {
        if bad {
            errors.push(FieldError::invalid(path, ip, detail));
        }
    }
}

pub(super) fn service_update(new: &Service, old: &Service) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let (Some(new), Some(old)) = (&new.spec, &old.spec)
        && service_type(old) != "ExternalName"
        && service_type(new) != "ExternalName"
    {
        let was = old.cluster_ip.as_deref().unwrap_or_default();
        let is = new.cluster_ip.as_deref().unwrap_or_default();
        if !was.is_empty() && was != is {
            let path = Path::new("spec");
            let list = path.child("clusterIPs");
            let ips = new.cluster_ips.clone().unwrap_or_else(|| vec![is.to_owned()]);
            errors.push(FieldError::invalid(&list.index(0), ips, "may not change once set"));
        }
    }
    errors.extend(service(new));
    errors
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
        ] {
            assert_eq!(errors(spec.clone()), want, "{spec}");
        }
    }
}
