//! EndpointSlice: some of the addresses behind a Service.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::Value;

use crate::catalogue::{ALL_VERBS, Resource};
use crate::field::{FieldError, Path};
use crate::kinds::addresses::{self, NO_ADDRESS};
use crate::meta::{self, names};
use crate::strategy::{Typed, TypedStrategy};
use crate::table::{AGE, Column, NAME, age_cell, name_cell};

const SCHEMA: &str = "io.k8s.api.discovery.v1.EndpointSlice";

/// `endpointslices.discovery.k8s.io`
pub static RESOURCE: Resource = Resource {
    group: "discovery.k8s.io",
    version: "v1",
    kind: "EndpointSlice",
    list_kind: "EndpointSliceList",
    plural: "endpointslices",
    singular: "endpointslice",
    short_names: &[],
    categories: &[],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[],
    storage: "endpointslices",
    schema: SCHEMA,
    strategy: &Typed::new(EndpointSlices, SCHEMA),
};

struct EndpointSlices;

const ADDRESS_TYPES: &[&str] = &["FQDN", "IPv4", "IPv6"];
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;

fn validate(slice: &EndpointSlice) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let kind = slice.address_type.as_str();
    if kind.is_empty() {
        errors.push(FieldError::required(&Path::new("addressType"), ""));
    } else if !ADDRESS_TYPES.contains(&kind) {
        errors.push(FieldError::not_supported(
            &Path::new("addressType"),
            kind,
            ADDRESS_TYPES,
        ));
    }
    validate_endpoints(slice, &mut errors);
    validate_ports(slice, &mut errors);
    errors
}

fn validate_endpoints(slice: &EndpointSlice, errors: &mut Vec<FieldError>) {
    let path = Path::new("endpoints");
    let endpoints = slice.endpoints.as_deref().unwrap_or_default();
    if endpoints.len() > MAX_ENDPOINTS {
        errors.push(FieldError::too_many(&path, endpoints.len(), MAX_ENDPOINTS));
        return;
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        let path = path.index(index);
        let list = path.child("addresses");
        if endpoint.addresses.is_empty() {
            errors.push(FieldError::required(&list, "must contain at least 1 address"));
        } else if endpoint.addresses.len() > MAX_ADDRESSES {
            errors.push(FieldError::too_many(&list, endpoint.addresses.len(), MAX_ADDRESSES));
        }
        for (index, address) in endpoint.addresses.iter().enumerate() {
            let at = list.index(index);
            let detail = match (slice.address_type.as_str(), address.parse::<IpAddr>()) {
                ("IPv4" | "IPv6", Err(_)) => NO_ADDRESS,
                ("IPv4", Ok(IpAddr::V6(_))) => "must be a valid IPv4 address",
                ("IPv6", Ok(IpAddr::V4(_))) => "must be a valid IPv6 address",
                ("IPv4" | "IPv6", Ok(_)) => {
                    addresses::reachable(address, &at, errors);
                    continue;
                }
                ("FQDN", _) => {
                    errors.extend(
                        names::dns1123_subdomain(address)
                            .into_iter()
                            .map(|m| FieldError::invalid(&at, address, m)),
                    );
                    continue;
                }
                _ => continue,
            };
            errors.push(FieldError::invalid(&at, address, detail));
        }
        if let Some(node) = &endpoint.node_name {
            let at = path.child("nodeName");
            let wrong = names::dns1123_subdomain(node).into_iter();
            errors.extend(wrong.map(|m| FieldError::invalid(&at, node, m)));
        }
        if let Some(hostname) = &endpoint.hostname {
            let at = path.child("hostname");
            errors.extend(
                names::dns1123_label(hostname)
                    .into_iter()
                    .map(|m| FieldError::invalid(&at, hostname, m)),
            );
        }
    }
}

fn validate_ports(slice: &EndpointSlice, errors: &mut Vec<FieldError>) {
    let path = Path::new("ports");
    let ports = slice.ports.as_deref().unwrap_or_default();
    if ports.len() > MAX_PORTS {
        errors.push(FieldError::too_many(&path, ports.len(), MAX_PORTS));
        return;
    }
    let mut seen = Vec::with_capacity(ports.len());
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = port.name.as_deref().unwrap_or_default();
        if !name.is_empty() {
            let at = path.child("name");
            errors.extend(
                names::dns1123_label(name)
                    .into_iter()
                    .map(|m| FieldError::invalid(&at, name, m)),
            );
        }
        if seen.contains(&name) {
            errors.push(FieldError::duplicate(&path.child("name"), name));
        }
        seen.push(name);
        let protocol = port.protocol.as_deref().unwrap_or_default();
        if protocol.is_empty() {
            errors.push(FieldError::required(&path.child("protocol"), ""));
        } else if !PROTOCOLS.contains(&protocol) {
            errors.push(FieldError::not_supported(&path.child("protocol"), protocol, PROTOCOLS));
        }
        if let Some(protocol) = &port.app_protocol {
            let at = path.child("appProtocol");
            let wrong = names::qualified_name(protocol).into_iter();
            errors.extend(wrong.map(|m| FieldError::invalid(&at, protocol, m)));
        }
    }
}

/// The first three, and how many more there are.
fn listed(items: &[String]) -> String {
    const SHOWN: usize = 3;
    match items.len() {
        0 => "<unset>".to_owned(),
        count if count > SHOWN => format!("{} + {} more...", items[..SHOWN].join(","), count - SHOWN),
        _ => items.join(","),
    }
}

impl TypedStrategy for EndpointSlices {
    type Object = EndpointSlice;

    fn default(&self, slice: &mut EndpointSlice) {
        for port in slice.ports.iter_mut().flatten() {
            port.name.get_or_insert_with(String::new);
            port.protocol.get_or_insert_with(|| "TCP".into());
        }
    }

    fn prepare_create(&self, slice: &mut EndpointSlice) {
        slice.metadata.generation = Some(1);
    }

    fn validate_create(&self, slice: &EndpointSlice) -> Vec<FieldError> {
        validate(slice)
    }

    fn prepare_update(&self, _subresource: Option<&str>, new: &mut EndpointSlice, old: &EndpointSlice) {
        let changed = new.endpoints != old.endpoints
            || new.ports != old.ports
            || new.address_type != old.address_type
            || new.metadata.labels != old.metadata.labels
            || new.metadata.annotations != old.metadata.annotations;
        meta::bump_generation(&mut new.metadata, &old.metadata, changed);
    }

    fn validate_update(&self, _subresource: Option<&str>, new: &EndpointSlice, old: &EndpointSlice) -> Vec<FieldError> {
        let mut errors = validate(new);
        if new.address_type != old.address_type {
            errors.push(FieldError::invalid(
                &Path::new("addressType"),
                &new.address_type,
                "field is immutable",
            ));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::new(
                "AddressType",
                "string",
                "addressType specifies the type of address carried by this EndpointSlice. All addresses in this slice must be the same type. This field is immutable after creation. The following address types are currently supported: * IPv4: Represents an IPv4 Address. * IPv6: Represents an IPv6 Address. * FQDN: Represents a Fully Qualified Domain Name. (Deprecated) The EndpointSlice controller only generates, and kube-proxy only processes, slices of addressType \"IPv4\" and \"IPv6\". No semantics are defined for the \"FQDN\" type.",
            ),
            Column::new(
                "Ports",
                "string",
                "ports specifies the list of network ports exposed by each endpoint in this slice. Each port must have a unique name. Each slice may include a maximum of 100 ports. Services always have at least 1 port, so EndpointSlices generated by the EndpointSlice controller will likewise always have at least 1 port. EndpointSlices used for other purposes may have an empty ports list.",
            ),
            Column::new(
                "Endpoints",
                "string",
                "endpoints is a list of unique endpoints in this slice. Each slice may include a maximum of 1000 endpoints.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn row(&self, slice: &EndpointSlice, now: Timestamp) -> Vec<Value> {
        // Without a number a port stands for all; its name is shown if it has one.
        let ports: Vec<String> = slice
            .ports
            .iter()
            .flatten()
            .map(|port| match (port.port, &port.name) {
                (Some(number), _) => number.to_string(),
                (None, Some(name)) => name.clone(),
                (None, None) => "*".to_owned(),
            })
            .collect();
        let addresses: Vec<String> = slice
            .endpoints
            .iter()
            .flatten()
            .flat_map(|endpoint| endpoint.addresses.iter().cloned())
            .collect();
        vec![
            name_cell(&slice.metadata),
            slice.address_type.as_str().into(),
            listed(&ports).into(),
            listed(&addresses).into(),
            age_cell(&slice.metadata, now),
        ]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{cells, created, updated};

    #[test]
    fn what_is_wrong_is_named() {
        for (slice, want) in [
            (json!({"addressType": ""}), "addressType: Required value"),
            (
                json!({"addressType": "IP"}),
                r#"addressType: Unsupported value: "IP": supported values: "FQDN", "IPv4", "IPv6""#,
            ),
            (
                json!({"addressType": "IPv4", "endpoints": [{"addresses": []}]}),
                "endpoints[0].addresses: Required value: must contain at least 1 address",
            ),
            (
                json!({"addressType": "IPv4", "endpoints": [{"addresses": ["fd00::1"]}]}),
                r#"endpoints[0].addresses[0]: Invalid value: "fd00::1": must be a valid IPv4 address"#,
            ),
            (
                json!({"addressType": "IPv4", "endpoints": [{"addresses": ["169.254.169.254"]}]}),
                r#"endpoints[0].addresses[0]: Invalid value: "169.254.169.254": may not be in the link-local range (169.254.0.0/16, fe80::/10)"#,
            ),
            (
                json!({"addressType": "IPv6", "endpoints": [{"addresses": ["::1"]}]}),
                r#"endpoints[0].addresses[0]: Invalid value: "::1": may not be in the loopback range (127.0.0.0/8, ::1/128)"#,
            ),
            (
                json!({"addressType": "IPv4", "ports": [{"port": 80, "appProtocol": "/b"}]}),
                r#"ports[0].appProtocol: Invalid value: "/b": prefix part must be non-empty"#,
            ),
            (
                json!({"addressType": "IPv4", "ports": [{}, {}]}),
                r#"ports[1].name: Duplicate value: """#,
            ),
        ] {
            let error = created(&RESOURCE, slice).unwrap_err();
            assert_eq!(
                error,
                format!("EndpointSlice.discovery.k8s.io \"a\" is invalid: {want}")
            );
        }
    }

    #[test]
    fn the_generation_counts_changes() {
        let old = json!({"addressType": "IPv4"});
        let generation = |new| updated(&RESOURCE, None, old.clone(), new).unwrap()["metadata"]["generation"].clone();
        assert_eq!(generation(old.clone()), 1);
        assert_eq!(generation(json!({"addressType": "IPv4", "ports": [{"port": 80}]})), 2);
    }

    #[test]
    fn rows() {
        let slice = json!({"addressType": "IPv4", "ports": [{"port": 80}], "endpoints": [{"addresses": ["10.0.0.1"]}]});
        assert_eq!(
            cells(&RESOURCE, slice),
            ["a", "IPv4", "80", "10.0.0.1", "60s"].map(|cell| json!(cell))
        );
        assert_eq!(
            cells(&RESOURCE, json!({"addressType": "IPv4"}))[2..4],
            [json!("<unset>"), json!("<unset>")]
        );
    }
}
