//! The Endpoints of a Service with a selector: all its pods in one object, for those who do not read slices yet.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::index::Observed;
use super::{LEADER, TRIGGER_TIME, pods};

/// Says who wrote Endpoints.
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpoint-controller";

/// Says that there are more endpoints than one object takes.
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MOST: usize = 1000;

/// What is done.
#[derive(Debug, PartialEq)]
pub enum Change {
    Create(Endpoints),
    Update(Endpoints),
    Delete(ObjectMeta),
}

/// Whether Endpoints that are there at the start are to be looked at though no Service may be there for them: it may
/// have gone while nobody looked. Those that are somebody's lock never have one.
pub fn may_be_left_over(endpoints: &Endpoints) -> bool {
    let annotations = endpoints.metadata.annotations.as_ref();
    !annotations.is_some_and(|annotations| annotations.contains_key(LEADER))
}

/// Decides what becomes of a Service's Endpoints. They go with it, whoever wrote them.
pub fn reconcile(observed: Observed<'_>, known: Option<&Endpoints>) -> Option<Change> {
    let Some(service) = observed.service else {
        return Some(Change::Delete(known?.metadata.clone()));
    };
    let spec = service.spec.as_ref()?;
    if spec.selector.as_ref().is_none_or(BTreeMap::is_empty) || spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let mut labels = pods::labels_of(service);
    labels.insert(MANAGED_BY.into(), CONTROLLER.into());
    let (subsets, over) = subsets(service, &observed.pods);
    let subsets = (!subsets.is_empty()).then_some(subsets);
    if let Some(known) = known {
        let none = |subsets: &Option<Vec<EndpointSubset>>| subsets.clone().unwrap_or_default();
        let marked = known
            .metadata
            .annotations
            .as_ref()
            .is_some_and(|all| all.contains_key(OVER_CAPACITY));
        if none(&known.subsets) == none(&subsets) && known.metadata.labels.as_ref() == Some(&labels) && marked == over {
            return None;
        }
    }
    let mut new = known.cloned().unwrap_or_else(|| Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            ..Default::default()
        },
        ..Default::default()
    });
    new.metadata.labels = Some(labels);
    let annotations = new.metadata.annotations.get_or_insert_default();
    if let Some(time) = pods::last_change(service, &observed.pods) {
        annotations.insert(TRIGGER_TIME.into(), time);
    }
    match over {
        true => annotations.insert(OVER_CAPACITY.into(), "truncated".into()),
        false => annotations.remove(OVER_CAPACITY),
    };
    new.subsets = subsets;
    Some(match known {
        Some(_) => Change::Update(new),
        None => Change::Create(new),
    })
}

/// Addresses by the numbers of their ports, and whether there were too many.
fn subsets(service: &Service, pods: &[&Pod]) -> (Vec<EndpointSubset>, bool) {
    let spec = service.spec.as_ref();
    let always = spec.and_then(|spec| spec.publish_not_ready_addresses).unwrap_or(false);
    let has_ports = spec.is_some_and(|spec| spec.ports.iter().flatten().next().is_some());
    let mut subsets: Vec<EndpointSubset> = Vec::new();
    let candidates: Vec<&&Pod> = pods
        .iter()
        .filter(|pod| pods::is_candidate(pod) && (always || !pods::is_leaving(pod)))
        .collect();
    let over = candidates.len() > MOST;
    // Ready ones first: they are what is kept when there are too many.
    let (ready, waiting): (Vec<&Pod>, Vec<&Pod>) = candidates
        .into_iter()
        .copied()
        .partition(|pod| always || api::pod::is_ready(pod));
    let ready = ready.into_iter().map(|pod| (pod, true));
    for (pod, ready) in ready.chain(waiting.into_iter().map(|pod| (pod, false))).take(MOST) {
        let Some(address) = address(service, pod) else { continue };
        let ports = ports(service, pod);
        // A pod without any of the ports is no endpoint; a Service without ports has pods all the same.
        if ports.is_empty() && has_ports {
            continue;
        }
        let ports = (!ports.is_empty()).then_some(ports);
        let at = subsets
            .iter()
            .position(|subset| subset.ports == ports)
            .unwrap_or_else(|| {
                subsets.push(EndpointSubset {
                    ports,
                    ..Default::default()
                });
                subsets.len() - 1
            });
        let subset = &mut subsets[at];
        let list = if ready {
            &mut subset.addresses
        } else {
            &mut subset.not_ready_addresses
        };
        list.get_or_insert_default().push(address);
    }
    for subset in &mut subsets {
        for list in [&mut subset.addresses, &mut subset.not_ready_addresses]
            .into_iter()
            .flatten()
        {
            list.sort_by(|one, other| one.ip.cmp(&other.ip));
        }
    }
    (subsets, over)
}

fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    let found = ports.into_iter().flatten().filter_map(|port| {
        Some(EndpointPort {
            name: port.name.clone().filter(|name| !name.is_empty()),
            port: pods::target(port, pod)?,
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
            app_protocol: port.app_protocol.clone(),
        })
    });
    found.collect()
}

fn address(service: &Service, pod: &Pod) -> Option<EndpointAddress> {
    Some(EndpointAddress {
        ip: pods::ip(pod)?.to_owned(),
        hostname: pods::hostname(service, pod),
        node_name: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..Default::default()
        }),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::endpoints::testing::{World, pod, service};

    #[test]
    fn endpoints_are_as_upstream_makes_them() {
        let mut world = World::new(service(json!({})));
        let unready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
        let leaving = json!({"metadata": {"deletionTimestamp": "2026-01-03T00:00:00Z"}});
        world
            .pods
            .extend([pod(2, json!({})), pod(1, json!({})), pod(3, unready), pod(4, leaving)]);
        let Some(Change::Create(made)) = world.observe(|observed| reconcile(observed, None)) else {
            panic!("nothing made")
        };
        let value = serde_json::to_value(&made).unwrap();
        assert_eq!(
            value["metadata"]["labels"],
            json!({"app": "web", MANAGED_BY: CONTROLLER})
        );
        let subset = &value["subsets"][0];
        let ips = |list: &str| {
            let list = subset[list].as_array().unwrap();
            list.iter().map(|address| address["ip"].clone()).collect::<Vec<_>>()
        };
        assert_eq!(ips("addresses"), ["10.244.0.1", "10.244.0.2"]);
        assert_eq!(ips("notReadyAddresses"), ["10.244.0.3"]);
        assert_eq!(subset["ports"], json!([{"port": 8090, "protocol": "TCP"}]));
        assert_eq!(subset["addresses"][0]["targetRef"]["name"], "web-1");
        assert_eq!(world.observe(|observed| reconcile(observed, Some(&made))), None);

        world.pods.clear();
        let Some(Change::Update(made)) = world.observe(|observed| reconcile(observed, Some(&made))) else {
            panic!("nothing changed")
        };
        assert_eq!(made.subsets, None);
        world.service = None;
        let gone = world.observe(|observed| reconcile(observed, Some(&made)));
        assert_eq!(gone, Some(Change::Delete(made.metadata)));
    }

    #[test]
    fn a_service_without_ports_has_pods_all_the_same() {
        let mut world = World::new(service(json!({"clusterIP": "None", "ports": null})));
        world.pods.push(pod(1, json!({})));
        let Some(Change::Create(made)) = world.observe(|observed| reconcile(observed, None)) else {
            panic!("nothing made")
        };
        assert_eq!(made.subsets.as_ref().unwrap()[0].ports, None);
        assert_eq!(made.metadata.labels.unwrap()[super::super::HEADLESS], "");
    }

    #[test]
    fn what_somebody_wrote_stays_until_its_service_goes() {
        let hand_written: Endpoints =
            serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "n"}})).unwrap();
        let mut world = World::new(service(json!({"selector": null})));
        assert_eq!(world.observe(|observed| reconcile(observed, Some(&hand_written))), None);
        world.service = None;
        let gone = world.observe(|observed| reconcile(observed, Some(&hand_written)));
        assert_eq!(gone, Some(Change::Delete(hand_written.metadata.clone())));
        assert_eq!(world.observe(|observed| reconcile(observed, None)), None);

        assert!(may_be_left_over(&hand_written));
        let mut lock = hand_written;
        lock.metadata
            .annotations
            .get_or_insert_default()
            .insert(LEADER.into(), "{}".into());
        assert!(!may_be_left_over(&lock));
    }
}
