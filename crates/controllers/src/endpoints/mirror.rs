//! The slices of Endpoints that somebody wrote for a Service without a selector.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::index::Observed;
use super::{Change, LEADER, MANAGED_BY, SERVICE_NAME, TRIGGER_TIME};

/// Who manages these slices.
const CONTROLLER: &str = "endpointslicemirroring-controller.k8s.io";

/// Endpoints with this label are not mirrored: their writer writes slices too.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// As many addresses of a subset are mirrored.
const MOST: usize = 1000;

/// Decides what becomes of the slices of hand-written Endpoints.
pub fn reconcile(observed: Observed<'_>, endpoints: Option<&Endpoints>) -> Vec<Change> {
    let mut own: Vec<&Arc<EndpointSlice>> = observed
        .slices
        .iter()
        .copied()
        .filter(|slice| label(&slice.metadata, MANAGED_BY) == Some(CONTROLLER))
        .collect();
    let spec = observed.service.and_then(|service| service.spec.as_ref());
    let selects = spec.is_none_or(|spec| spec.selector.as_ref().is_some_and(|selector| !selector.is_empty()));
    let wanted = match endpoints.filter(|endpoints| !selects && is_mirrored(&endpoints.metadata)) {
        Some(endpoints) => slices(endpoints),
        None => Vec::new(),
    };
    let mut changes = Vec::new();
    let mut missing = Vec::new();
    for slice in wanted {
        let same_ports =
            |known: &&Arc<EndpointSlice>| known.ports == slice.ports && known.address_type == slice.address_type;
        let Some(at) = own.iter().position(same_ports) else {
            missing.push(slice);
            continue;
        };
        let known = own.remove(at);
        if known.endpoints != slice.endpoints || known.metadata.labels != slice.metadata.labels {
            changes.push(update(known, slice));
        }
    }
    for slice in missing {
        // What would go is used for what would come; the type of its addresses can not change.
        match own.iter().position(|known| known.address_type == slice.address_type) {
            Some(at) => changes.push(update(own.remove(at), slice)),
            None => changes.push(Change::Create(slice)),
        }
    }
    changes.extend(own.into_iter().cloned().map(Change::Delete));
    changes
}

fn update(known: &EndpointSlice, slice: EndpointSlice) -> Change {
    let mut new = known.clone();
    new.metadata.labels = slice.metadata.labels;
    new.metadata.annotations = slice.metadata.annotations;
    new.endpoints = slice.endpoints;
    new.ports = slice.ports;
    Change::Update(new)
}

fn label<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(key).map(String::as_str)
}

fn is_mirrored(meta: &ObjectMeta) -> bool {
    let locked = meta.annotations.as_ref().is_some_and(|all| all.contains_key(LEADER));
    label(meta, SKIP) != Some("true") && !locked
}

/// One slice for each subset and family of addresses.
fn slices(endpoints: &Endpoints) -> Vec<EndpointSlice> {
    let meta = &endpoints.metadata;
    let name = meta.name.clone().unwrap_or_default();
    let mut labels = meta.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.into(), name.clone());
    labels.insert(MANAGED_BY.into(), CONTROLLER.into());
    let mut annotations = meta.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| key != LAST_APPLIED && key != TRIGGER_TIME);
    let mut slices: Vec<EndpointSlice> = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        let mut families: BTreeMap<&str, Vec<Endpoint>> = BTreeMap::new();
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let waiting = subset
            .not_ready_addresses
            .iter()
            .flatten()
            .map(|address| (address, false));
        for (address, ready) in ready.chain(waiting).take(MOST) {
            let family = match address.ip.parse() {
                Ok(IpAddr::V4(_)) => "IPv4",
                Ok(IpAddr::V6(_)) => "IPv6",
                Err(_) => continue,
            };
            families.entry(family).or_default().push(endpoint(address, ready));
        }
        for (family, endpoints) in families {
            slices.push(EndpointSlice {
                metadata: ObjectMeta {
                    generate_name: Some(format!("{name}-")),
                    namespace: meta.namespace.clone(),
                    labels: Some(labels.clone()),
                    annotations: (!annotations.is_empty()).then(|| annotations.clone()),
                    owner_references: Some(vec![OwnerReference {
                        api_version: "v1".into(),
                        kind: "Endpoints".into(),
                        name: name.clone(),
                        uid: meta.uid.clone().unwrap_or_default(),
                        controller: Some(true),
                        block_owner_deletion: Some(true),
                    }]),
                    ..Default::default()
                },
                address_type: family.into(),
                endpoints: Some(endpoints),
                ports: Some(ports(subset)),
            });
        }
    }
    slices
}

fn ports(subset: &EndpointSubset) -> Vec<EndpointPort> {
    let ports = subset.ports.iter().flatten().map(|port| EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
        app_protocol: port.app_protocol.clone(),
    });
    ports.collect()
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: None,
            terminating: None,
        }),
        hostname: address.hostname.clone().filter(|name| !name.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Default::default()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::endpoints::testing::{World, service};

    fn endpoints(meta: Value) -> Endpoints {
        let mut value = json!({"metadata": {"name": "web", "namespace": "n", "uid": "e", "annotations": {LAST_APPLIED: "{}"}},
            "subsets": [{"addresses": [{"ip": "192.0.2.7"}], "notReadyAddresses": [{"ip": "192.0.2.8"}],
                "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}]});
        for (key, part) in meta.as_object().unwrap() {
            value["metadata"][key] = part.clone();
        }
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_is_written_by_hand_is_mirrored() {
        let mut world = World::new(service(json!({"selector": null})));
        let mut written = endpoints(json!({}));
        let changes = world.step(|observed| reconcile(observed, Some(&written)));
        let [Change::Create(slice)] = &changes[..] else {
            panic!("{changes:?}")
        };
        let value = serde_json::to_value(slice).unwrap();
        assert_eq!(
            value["metadata"]["labels"],
            json!({SERVICE_NAME: "web", MANAGED_BY: CONTROLLER})
        );
        assert_eq!(value["metadata"].get("annotations"), None);
        assert_eq!(value["metadata"]["ownerReferences"][0]["kind"], "Endpoints");
        assert_eq!(
            value["endpoints"],
            json!([{"addresses": ["192.0.2.7"], "conditions": {"ready": true}},
                {"addresses": ["192.0.2.8"], "conditions": {"ready": false}}])
        );
        assert!(world.step(|observed| reconcile(observed, Some(&written))).is_empty());

        written.subsets.as_mut().unwrap()[0].ports.as_mut().unwrap()[0].port = 81;
        let changes = world.step(|observed| reconcile(observed, Some(&written)));
        assert!(matches!(&changes[..], [Change::Update(_)]), "{changes:?}");
        let changes = world.step(|observed| reconcile(observed, None));
        assert!(matches!(&changes[..], [Change::Delete(_)]), "{changes:?}");
    }

    #[test]
    fn some_are_not() {
        for (selector, meta) in [
            (json!({"app": "web"}), json!({})),
            (Value::Null, json!({"labels": {SKIP: "true"}})),
            (Value::Null, json!({"annotations": {LEADER: "{}"}})),
        ] {
            let mut world = World::new(service(json!({"selector": selector})));
            let changes = world.step(|observed| reconcile(observed, Some(&endpoints(meta.clone()))));
            assert!(changes.is_empty(), "{selector} {meta}: {changes:?}");
        }
        let mut world = World::new(service(json!({})));
        world.service = None;
        assert!(
            world
                .step(|observed| reconcile(observed, Some(&endpoints(json!({})))))
                .is_empty()
        );
    }
}
