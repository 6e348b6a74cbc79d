//! The EndpointSlices of a Service with a selector.
//!
//! Pods whose ports have the same numbers share slices of at most a hundred. An endpoint stays in the slice it is in,
//! new ones go where there is room, and a slice that would go is used for one that would come. A Service without any
//! pod has one slice without endpoints.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::index::Observed;
use super::{Change, MANAGED_BY, SERVICE_NAME, TRIGGER_TIME, pods};

/// Who manages these slices.
const CONTROLLER: &str = "endpointslice-controller.k8s.io";

/// As many endpoints a slice has at most.
const MOST: usize = 100;

/// Decides what becomes of a Service's slices.
pub fn reconcile(observed: Observed<'_>) -> Vec<Change> {
    let own: Vec<&Arc<EndpointSlice>> = observed
        .slices
        .iter()
        .copied()
        .filter(|slice| label(&slice.metadata, MANAGED_BY) == Some(CONTROLLER))
        .collect();
    let Some(service) = observed.service else {
        return own.into_iter().cloned().map(Change::Delete).collect();
    };
    let spec = service.spec.clone().unwrap_or_default();
    // Without a selector the endpoints are somebody else's to write.
    if spec.selector.as_ref().is_none_or(BTreeMap::is_empty) || spec.type_.as_deref() == Some("ExternalName") {
        return Vec::new();
    }
    let template = Template {
        labels: labels(service),
        trigger_time: pods::last_change(service, &observed.pods),
        service,
    };
    let mut groups = groups(service, &observed.pods, observed.zones);
    if groups.is_empty() {
        groups.push((Vec::new(), Vec::new()));
    }
    place(&template, groups, &own)
}

fn label<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(key).map(String::as_str)
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = pods::labels_of(service);
    labels.insert(SERVICE_NAME.into(), service.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY.into(), CONTROLLER.into());
    labels
}

/// The Service's endpoints by the numbers of their ports, in the order of the pods.
fn groups(
    service: &Service,
    pods: &[&Pod],
    zones: &HashMap<String, String>,
) -> Vec<(Vec<EndpointPort>, Vec<Endpoint>)> {
    let mut groups: Vec<(Vec<EndpointPort>, Vec<Endpoint>)> = Vec::new();
    for pod in pods.iter().filter(|pod| pods::is_candidate(pod)) {
        let Some(endpoint) = endpoint(service, pod, zones) else {
            continue;
        };
        let ports = ports(service, pod);
        match groups.iter_mut().find(|(of_group, _)| *of_group == ports) {
            Some((_, endpoints)) => endpoints.push(endpoint),
            None => groups.push((ports, vec![endpoint])),
        }
    }
    groups
}

fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    let found = ports.into_iter().flatten().filter_map(|port| {
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(pods::target(port, pod)?),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
            app_protocol: port.app_protocol.clone(),
        })
    });
    found.collect()
}

fn endpoint(service: &Service, pod: &Pod, zones: &HashMap<String, String>) -> Option<Endpoint> {
    let address = pods::ip(pod)?.to_owned();
    let serving = api::pod::is_ready(pod);
    let terminating = pods::is_leaving(pod);
    let spec = service.spec.as_ref();
    let always = spec.and_then(|spec| spec.publish_not_ready_addresses).unwrap_or(false);
    let node_name = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    Some(Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(always || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: pods::hostname(service, pod),
        zone: node_name.as_ref().and_then(|node| zones.get(node)).cloned(),
        node_name,
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..Default::default()
        }),
        ..Default::default()
    })
}

/// What all slices of the Service have in common.
struct Template<'a> {
    service: &'a Service,
    labels: BTreeMap<String, String>,
    trigger_time: Option<String>,
}

impl Template<'_> {
    fn new_slice(&self, ports: &[EndpointPort], endpoints: Vec<Endpoint>) -> EndpointSlice {
        let meta = &self.service.metadata;
        // The API server puts five letters after it, and a name has no more than 253.
        let mut prefix = meta.name.clone().unwrap_or_default();
        prefix.push('-');
        let mut slice = EndpointSlice {
            metadata: ObjectMeta {
                generate_name: Some(prefix),
                namespace: meta.namespace.clone(),
                owner_references: Some(vec![OwnerReference {
                    api_version: "v1".into(),
                    kind: "Service".into(),
                    name: meta.name.clone().unwrap_or_default(),
                    uid: meta.uid.clone().unwrap_or_default(),
                    controller: Some(true),
                    block_owner_deletion: Some(true),
                }]),
                ..Default::default()
            },
            address_type: "IPv4".into(),
            ..Default::default()
        };
        self.fill(&mut slice, ports, endpoints);
        slice
    }

    fn fill(&self, slice: &mut EndpointSlice, ports: &[EndpointPort], endpoints: Vec<Endpoint>) {
        slice.metadata.labels = Some(self.labels.clone());
        if let Some(time) = &self.trigger_time {
            let annotations = slice.metadata.annotations.get_or_insert_default();
            annotations.insert(TRIGGER_TIME.into(), time.clone());
        }
        slice.ports = Some(ports.to_vec());
        slice.endpoints = Some(endpoints);
    }
}

/// Puts endpoints into slices, changing as few as possible.
fn place(
    template: &Template<'_>,
    groups: Vec<(Vec<EndpointPort>, Vec<Endpoint>)>,
    own: &[&Arc<EndpointSlice>],
) -> Vec<Change> {
    let mut unused: Vec<&Arc<EndpointSlice>> = own.to_vec();
    let mut kept: Vec<(&Arc<EndpointSlice>, Vec<EndpointPort>, Vec<Endpoint>)> = Vec::new();
    let mut fresh: Vec<(Vec<EndpointPort>, Vec<Endpoint>)> = Vec::new();
    for (ports, endpoints) in groups {
        let mine: Vec<&Arc<EndpointSlice>> = unused
            .extract_if(.., |slice| slice.ports.as_deref().unwrap_or_default() == ports)
            .collect();
        let mut order: Vec<String> = endpoints.iter().map(identity).collect();
        let mut wanted: HashMap<String, Endpoint> = order.iter().cloned().zip(endpoints).collect();
        let start = kept.len();
        for slice in mine {
            let staying = slice
                .endpoints
                .iter()
                .flatten()
                .filter_map(|endpoint| wanted.remove(&identity(endpoint)));
            kept.push((slice, ports.clone(), staying.collect()));
        }
        order.retain(|identity| wanted.contains_key(identity));
        let mut coming = order.iter().filter_map(|identity| wanted.remove(identity)).peekable();
        // Fullest first, so that slices that empty can go.
        kept[start..].sort_by_key(|(_, _, endpoints)| std::cmp::Reverse(endpoints.len()));
        for (_, _, endpoints) in &mut kept[start..] {
            while endpoints.len() < MOST {
                let Some(endpoint) = coming.next() else { break };
                endpoints.push(endpoint);
            }
        }
        while coming.peek().is_some() {
            fresh.push((ports.clone(), coming.by_ref().take(MOST).collect()));
        }
        // What is empty goes, but for the one slice of a Service without pods.
        let placeholder = ports.is_empty() && order.is_empty() && wanted.is_empty();
        let mut at = start;
        while at < kept.len() {
            let empty = kept[at].2.is_empty();
            if empty && !(placeholder && kept.len() == start + 1) {
                unused.push(kept.remove(at).0);
            } else {
                at += 1;
            }
        }
        if placeholder && kept.len() == start && fresh.is_empty() {
            fresh.push((ports, Vec::new()));
        }
    }
    let mut changes = Vec::new();
    for (slice, ports, endpoints) in kept {
        let same = slice.endpoints.as_deref().unwrap_or_default() == endpoints
            && slice.metadata.labels.as_ref() == Some(&template.labels);
        if !same {
            changes.push(update(template, slice, &ports, endpoints));
        }
    }
    for (ports, endpoints) in fresh {
        changes.push(match unused.pop() {
            Some(slice) => update(template, slice, &ports, endpoints),
            None => Change::Create(template.new_slice(&ports, endpoints)),
        });
    }
    changes.extend(unused.into_iter().cloned().map(Change::Delete));
    changes
}

fn update(template: &Template<'_>, slice: &EndpointSlice, ports: &[EndpointPort], endpoints: Vec<Endpoint>) -> Change {
    let mut new = slice.clone();
    template.fill(&mut new, ports, endpoints);
    Change::Update(new)
}

/// The pod, at its address.
fn identity(endpoint: &Endpoint) -> String {
    let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.as_deref());
    format!("{} {}", uid.unwrap_or_default(), endpoint.addresses.join(" "))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::endpoints::testing::{World, pod, service};

    fn endpoints(slice: &EndpointSlice) -> Vec<String> {
        let shown = |endpoint: &Endpoint| {
            let conditions = endpoint.conditions.as_ref().unwrap();
            let flag = |flag: Option<bool>, letter| if flag.unwrap() { letter } else { '-' };
            let flags: String = [
                flag(conditions.ready, 'r'),
                flag(conditions.serving, 's'),
                flag(conditions.terminating, 't'),
            ]
            .iter()
            .collect();
            format!("{} {flags}", endpoint.addresses[0])
        };
        slice.endpoints.iter().flatten().map(shown).collect()
    }

    #[test]
    fn a_slice_is_as_upstream_makes_it() {
        let mut world = World::new(service(
            json!({"ports": [{"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}]}),
        ));
        world.zones.insert("node".into(), "attic".into());
        world.pods.push(pod(1, json!({})));
        let changes = world.step(reconcile);
        let [Change::Create(slice)] = &changes[..] else {
            panic!("{changes:?}")
        };
        let value = serde_json::to_value(slice).unwrap();
        assert_eq!(
            value["metadata"],
            json!({
                "generateName": "web-", "namespace": "n",
                "annotations": {TRIGGER_TIME: "2026-01-02T00:00:00Z"},
                "labels": {"app": "web", SERVICE_NAME: "web", MANAGED_BY: CONTROLLER},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": "web", "uid": "u",
                    "controller": true, "blockOwnerDeletion": true}],
            })
        );
        assert_eq!(
            value["ports"],
            json!([{"name": "http", "port": 8090, "protocol": "TCP"}])
        );
        assert_eq!(
            value["endpoints"],
            json!([{"addresses": ["10.244.0.1"], "nodeName": "node", "zone": "attic",
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "targetRef": {"kind": "Pod", "namespace": "n", "name": "web-1", "uid": "p1"}}])
        );
        assert!(world.step(reconcile).is_empty(), "nothing more is to do");
    }

    #[test]
    fn conditions_follow_the_pod() {
        let leaving = json!({"metadata": {"deletionTimestamp": "2026-01-03T00:00:00Z"}});
        let unready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
        let ended = json!({"status": {"phase": "Failed"}});
        let pods = [pod(1, json!({})), pod(2, leaving), pod(3, unready), pod(4, ended)];
        for (spec, expected) in [
            (json!({}), ["10.244.0.1 rs-", "10.244.0.2 -st", "10.244.0.3 ---"]),
            (
                json!({"publishNotReadyAddresses": true}),
                ["10.244.0.1 rs-", "10.244.0.2 rst", "10.244.0.3 r--"],
            ),
        ] {
            let mut world = World::new(service(spec));
            world.pods.extend(pods.clone());
            world.step(reconcile);
            assert_eq!(endpoints(&world.slices[0]), expected);
        }
    }

    #[test]
    fn endpoints_stay_where_they_are_and_slices_hold_a_hundred() {
        let mut world = World::new(service(json!({})));
        world.pods.extend((1..=150).map(|n| pod(n, json!({}))));
        assert_eq!(world.step(reconcile).len(), 2);
        let sizes = |world: &World| {
            let mut sizes: Vec<usize> = world.slices.iter().map(|slice| endpoints(slice).len()).collect();
            sizes.sort_unstable();
            sizes
        };
        assert_eq!(sizes(&world), [50, 100]);
        world.pods.remove(0);
        let changes = world.step(reconcile);
        assert!(
            matches!(&changes[..], [Change::Update(_)]),
            "only its slice: {changes:?}"
        );
        world.pods.push(pod(151, json!({})));
        assert_eq!(world.step(reconcile).len(), 1, "there is room in one");
        assert_eq!(sizes(&world), [50, 100]);
        world.pods.truncate(10);
        world.step(reconcile);
        assert_eq!(sizes(&world), [10]);
        world.pods.clear();
        let changes = world.step(reconcile);
        assert!(matches!(&changes[..], [Change::Update(_)]), "recycled: {changes:?}");
        assert_eq!(world.slices.len(), 1);
        assert_eq!(world.slices[0].ports.as_deref(), Some(&[][..]));
        assert!(world.step(reconcile).is_empty());
    }

    #[test]
    fn pods_with_other_port_numbers_have_other_slices() {
        let mut world = World::new(service(json!({"ports": [{"port": 80, "targetPort": "web"}]})));
        let other = json!({"spec": {"containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 9000}]}]}});
        world.pods.extend([pod(1, json!({})), pod(2, other), pod(3, json!({}))]);
        assert_eq!(world.step(reconcile).len(), 2);
        let numbers: Vec<(i32, usize)> = world
            .slices
            .iter()
            .map(|slice| (slice.ports.as_ref().unwrap()[0].port.unwrap(), endpoints(slice).len()))
            .collect();
        assert!(
            numbers.contains(&(8090, 2)) && numbers.contains(&(9000, 1)),
            "{numbers:?}"
        );
    }

    #[test]
    fn headless_services_name_their_pods() {
        let mut world = World::new(service(json!({"clusterIP": "None", "ports": null})));
        let named = json!({"spec": {"hostname": "first", "subdomain": "web"}});
        let elsewhere = json!({"spec": {"hostname": "second", "subdomain": "other"}});
        world.pods.extend([pod(1, named), pod(2, elsewhere)]);
        world.step(reconcile);
        let slice = &world.slices[0];
        assert_eq!(label(&slice.metadata, super::super::HEADLESS), Some(""));
        let names: Vec<Option<&str>> = slice
            .endpoints
            .as_ref()
            .unwrap()
            .iter()
            .map(|endpoint| endpoint.hostname.as_deref())
            .collect();
        assert_eq!(names, [Some("first"), None]);
        assert_eq!(slice.ports.as_deref(), Some(&[][..]));
    }

    #[test]
    fn what_is_not_the_controllers_stays() {
        let without: Value = json!({"selector": null});
        let mut world = World::new(service(without));
        world.pods.push(pod(1, json!({})));
        assert!(world.step(reconcile).is_empty());

        let mut world = World::new(service(json!({})));
        world.pods.push(pod(1, json!({})));
        world.step(reconcile);
        let foreign: EndpointSlice =
            serde_json::from_value(json!({"metadata": {"name": "mine", "namespace": "n"}, "addressType": "IPv4"}))
                .unwrap();
        world.slices.push(Arc::new(foreign));
        assert!(world.step(reconcile).is_empty());
        world.service = None;
        let changes = world.step(reconcile);
        assert!(matches!(&changes[..], [Change::Delete(_)]), "{changes:?}");
        assert_eq!(world.slices.len(), 1);
    }
}
