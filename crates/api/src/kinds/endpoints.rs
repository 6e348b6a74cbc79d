//! Endpoints: the addresses behind a Service, as one list. EndpointSlice took its place.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, Endpoints};
use serde_json::Value;

use crate::catalogue::{ALL_VERBS, Resource};
use crate::field::{FieldError, Path};
use crate::kinds::addresses;
use crate::meta::names;
use crate::strategy::{Typed, TypedStrategy};
use crate::table::{AGE, Column, NAME, age_cell, name_cell};

const SCHEMA: &str = "io.k8s.api.core.v1.Endpoints";

/// `endpoints`
pub static RESOURCE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "Endpoints",
    list_kind: "EndpointsList",
    plural: "endpoints",
    singular: "endpoints",
    short_names: &["ep"],
    categories: &[],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[],
    storage: "endpoints",
    schema: SCHEMA,
    strategy: &Typed::new(AllEndpoints, SCHEMA),
};

struct AllEndpoints;

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

fn validate(endpoints: &Endpoints) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let subsets = Path::new("subsets");
    for (index, subset) in endpoints.subsets.iter().flatten().enumerate() {
        let path = subsets.index(index);
        let ready = subset.addresses.as_deref().unwrap_or_default();
        let not_ready = subset.not_ready_addresses.as_deref().unwrap_or_default();
        if ready.is_empty() && not_ready.is_empty() {
            errors.push(FieldError::required(
                &path,
                "must specify `addresses` or `notReadyAddresses`",
            ));
        }
        for (field, addresses) in [("addresses", ready), ("notReadyAddresses", not_ready)] {
            let list = path.child(field);
            for (index, entry) in addresses.iter().enumerate() {
                address(entry, &list.index(index), &mut errors);
            }
        }
        let ports = subset.ports.as_deref().unwrap_or_default();
        let list = path.child("ports");
        for (index, entry) in ports.iter().enumerate() {
            port(entry, ports.len() > 1, &list.index(index), &mut errors);
        }
    }
    errors
}

fn address(address: &EndpointAddress, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let at = path.child("hostname");
    if let Some(hostname) = address.hostname.as_deref().filter(|hostname| !hostname.is_empty()) {
        let wrong = names::dns1123_label(hostname).into_iter();
        errors.extend(wrong.map(|m| FieldError::invalid(&at, hostname, m)));
    }
    let at = path.child("nodeName");
    if let Some(node) = &address.node_name {
        let wrong = names::dns1123_subdomain(node).into_iter();
        errors.extend(wrong.map(|m| FieldError::invalid(&at, node, m)));
    }
    addresses::reachable(&address.ip, &path.child("ip"), errors);
}

fn port(port: &EndpointPort, needs_name: bool, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let at = path.child("name");
    match port.name.as_deref().unwrap_or_default() {
        "" if needs_name => errors.push(FieldError::required(&at, "")),
        "" => {}
        name => {
            let wrong = names::dns1123_label(name).into_iter();
            errors.extend(wrong.map(|m| FieldError::invalid(&at, name, m)));
        }
    }
    let at = path.child("port");
    let wrong = names::port_number(port.port).into_iter();
    errors.extend(wrong.map(|m| FieldError::invalid(&at, port.port, m)));
    let at = path.child("protocol");
    match port.protocol.as_deref().unwrap_or_default() {
        "" => errors.push(FieldError::required(&at, "")),
        protocol if !PROTOCOLS.contains(&protocol) => {
            errors.push(FieldError::not_supported(&at, protocol, PROTOCOLS));
        }
        _ => {}
    }
    let at = path.child("appProtocol");
    if let Some(protocol) = &port.app_protocol {
        let wrong = names::qualified_name(protocol).into_iter();
        errors.extend(wrong.map(|m| FieldError::invalid(&at, protocol, m)));
    }
}

/// The first three addresses with their ports, and how many more there are.
fn summary(endpoints: &Endpoints) -> String {
    const SHOWN: usize = 3;
    let mut shown = Vec::with_capacity(SHOWN);
    let mut count = 0;
    for subset in endpoints.subsets.iter().flatten() {
        let addresses = || subset.addresses.iter().flatten();
        let ports = subset.ports.as_deref().unwrap_or_default();
        if ports.is_empty() {
            // Headless Services may have none.
            for address in addresses() {
                if shown.len() < SHOWN {
                    shown.push(address.ip.clone());
                }
                count += 1;
            }
        }
        for port in ports {
            for address in addresses() {
                if shown.len() < SHOWN {
                    shown.push(join(&address.ip, port.port));
                }
                count += 1;
            }
        }
    }
    match count {
        0 if endpoints.subsets.as_ref().is_none_or(Vec::is_empty) => "<none>".to_owned(),
        count if count > SHOWN => format!("{} + {} more...", shown.join(","), count - SHOWN),
        _ => shown.join(","),
    }
}

fn join(ip: &str, port: i32) -> String {
    if ip.contains(':') {
        format!("[{ip}]:{port}")
    } else {
        format!("{ip}:{port}")
    }
}

impl TypedStrategy for AllEndpoints {
    type Object = Endpoints;

    fn default(&self, endpoints: &mut Endpoints) {
        for port in endpoints
            .subsets
            .iter_mut()
            .flatten()
            .flat_map(|subset| subset.ports.iter_mut().flatten())
        {
            port.protocol.get_or_insert_with(|| "TCP".into());
        }
    }

    fn validate_create(&self, endpoints: &Endpoints) -> Vec<FieldError> {
        validate(endpoints)
    }

    fn validate_update(&self, _subresource: Option<&str>, new: &Endpoints, _old: &Endpoints) -> Vec<FieldError> {
        validate(new)
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn deprecation(&self) -> Option<&'static str> {
        Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::new(
                "Endpoints",
                "string",
                "The set of all endpoints is the union of all subsets. Addresses are placed into subsets according to the IPs they share. A single address with multiple ports, some of which are ready and some of which are not (because they come from different containers) will result in the address being displayed in different subsets for the different ports. No address will appear in both Addresses and NotReadyAddresses in the same subset. Sets of addresses and ports that comprise a service.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn row(&self, endpoints: &Endpoints, now: Timestamp) -> Vec<Value> {
        vec![
            name_cell(&endpoints.metadata),
            summary(endpoints).into(),
            age_cell(&endpoints.metadata, now),
        ]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{cells, created};

    #[test]
    fn rows_show_three_addresses() {
        let subsets = |addresses: &[&str]| {
            let addresses: Vec<_> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
            json!({"subsets": [{"addresses": addresses, "ports": [{"port": 80}]}]})
        };
        for (object, want) in [
            (json!({}), "<none>"),
            (subsets(&["10.0.0.1"]), "10.0.0.1:80"),
            (subsets(&["fd00::1"]), "[fd00::1]:80"),
            (
                subsets(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"]),
                "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 2 more...",
            ),
        ] {
            assert_eq!(cells(&RESOURCE, object)[1], want);
        }
    }

    #[test]
    fn what_is_wrong_with_an_address_or_a_port_is_named() {
        let address = |address: serde_json::Value| json!({"subsets": [{"addresses": [address]}]});
        let port = |port: serde_json::Value| json!({"subsets": [{"notReadyAddresses": [{"ip": "10.0.0.1"}], "ports": [port]}]});
        for (endpoints, want) in [
            (
                address(json!({"ip": "127.0.0.1"})),
                r#"addresses[0].ip: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)"#,
            ),
            (
                address(json!({"ip": "10.0.0.1", "nodeName": ".node"})),
                r#"addresses[0].nodeName: Invalid value: ".node": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"#,
            ),
            (
                address(json!({"ip": "10.0.0.1", "hostname": "a.b"})),
                r#"addresses[0].hostname: Invalid value: "a.b": must not contain dots"#,
            ),
            (
                port(json!({"port": 80, "protocol": "ICMP"})),
                r#"ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP""#,
            ),
            (
                port(json!({"port": 0})),
                "ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            ),
            (
                port(json!({"port": 80, "appProtocol": "/b"})),
                r#"ports[0].appProtocol: Invalid value: "/b": prefix part must be non-empty"#,
            ),
        ] {
            let error = created(&RESOURCE, endpoints).unwrap_err();
            let want = format!("subsets[0].{want}");
            assert!(error.contains(&want), "{want} is not in {error}");
        }
    }

    #[test]
    fn addresses_are_checked() {
        let error = created(&RESOURCE, json!({"subsets": [{"addresses": [{"ip": "x"}]}, {}]})).unwrap_err();
        assert_eq!(
            error,
            r#"Endpoints "a" is invalid: [subsets[0].addresses[0].ip: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff), subsets[1]: Required value: must specify `addresses` or `notReadyAddresses`]"#
        );
    }
}
