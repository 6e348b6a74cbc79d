//! What a Service asks of the data path: which addresses and ports lead to which endpoints. No I/O.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
};

use k8s_openapi::api::{
    core::v1::{Service, ServicePort, ServiceSpec},
    discovery::v1::{Endpoint, EndpointSlice},
};

use crate::{Protocol, picture::Observed};

/// Services with this label are somebody else's to carry out.
const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";

/// The time that a client stays with its endpoint, unless the Service says another.
const AFFINITY_SECONDS: u32 = 10_800;

/// Where packets come to that are for a Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Frontend {
    /// Every address of the node when it is unspecified: a node port.
    pub(super) address: Ipv4Addr,
    pub(super) protocol: Protocol,
    pub(super) port: u16,
}

impl Frontend {
    /// The node port of that number, by whatever address of the node it was come to.
    pub(super) fn as_node_port(self) -> Frontend {
        Frontend {
            address: Ipv4Addr::UNSPECIFIED,
            ..self
        }
    }
}

/// What becomes of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// They go to one of the endpoints.
    Spread {
        endpoints: BTreeSet<SocketAddrV4>,
        /// For how many seconds a client stays with its endpoint.
        affinity: Option<u32>,
    },
    /// They are refused at once: there is no endpoint anywhere.
    Refused,
    /// They are dropped: there are endpoints, but none on this node, and the Service wants no other.
    Dropped,
}

/// All that one Service asks for.
pub(super) type Wanted = BTreeMap<Frontend, Fate>;

/// What a Service asks of the node of that name.
pub(super) fn wanted(observed: &Observed, node: &str) -> Wanted {
    let mut wanted = Wanted::default();
    let Observed { service, slices } = observed;
    let labels = service.metadata.labels.as_ref();
    let Some(spec) = &service.spec else { return wanted };
    if labels.is_some_and(|labels| labels.contains_key(OTHER_PROXY)) || spec.type_.as_deref() == Some("ExternalName") {
        return wanted;
    }
    let external: BTreeSet<Ipv4Addr> = external_addresses(service, spec).collect();
    let affinity = affinity(spec);
    for port in spec.ports.iter().flatten() {
        let (Some(protocol), Ok(number)) = (protocol(port.protocol.as_deref()), u16::try_from(port.port)) else {
            continue;
        };
        let everywhere = Choice::new(slices, port, None);
        let here = Choice::new(slices, port, Some(node));
        let fate = |policy: &Option<String>| {
            let local = policy.as_deref() == Some("Local");
            let endpoints = if local { &here } else { &everywhere }.best();
            match endpoints {
                Some(endpoints) => Fate::Spread {
                    endpoints: endpoints.clone(),
                    affinity,
                },
                None if local && everywhere.best().is_some() => Fate::Dropped,
                None => Fate::Refused,
            }
        };
        let mut add = |address, port, fate| {
            let frontend = Frontend {
                address,
                protocol,
                port,
            };
            wanted.insert(frontend, fate);
        };
        for address in cluster_addresses(spec) {
            add(address, number, fate(&spec.internal_traffic_policy));
        }
        for address in &external {
            add(*address, number, fate(&spec.external_traffic_policy));
        }
        if let Some(node_port) = port
            .node_port
            .and_then(|port| u16::try_from(port).ok())
            .filter(|p| *p != 0)
        {
            add(Ipv4Addr::UNSPECIFIED, node_port, fate(&spec.external_traffic_policy));
        }
    }
    wanted
}

/// Where a load balancer asks whether this node has endpoints of the Service, and how many it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HealthCheck {
    pub(super) port: u16,
    pub(super) endpoints: usize,
}

/// The check that a Service wants of the node of that name.
pub(super) fn health_check(observed: &Observed, node: &str) -> Option<HealthCheck> {
    let spec = observed.service.spec.as_ref()?;
    let wants =
        spec.type_.as_deref() == Some("LoadBalancer") && spec.external_traffic_policy.as_deref() == Some("Local");
    let port = spec.health_check_node_port.filter(|_| wants)?;
    let port = u16::try_from(port).ok().filter(|port| *port != 0)?;
    let here = spec
        .ports
        .iter()
        .flatten()
        .map(|port| Choice::new(&observed.slices, port, Some(node)));
    // A pod is one endpoint, however many ports it has.
    let addresses: BTreeSet<Ipv4Addr> = here
        .flat_map(|choice| choice.ready.into_iter().map(|endpoint| *endpoint.ip()))
        .collect();
    Some(HealthCheck {
        port,
        endpoints: addresses.len(),
    })
}

/// None for a headless Service.
fn cluster_addresses(spec: &ServiceSpec) -> impl Iterator<Item = Ipv4Addr> {
    spec.cluster_ips
        .iter()
        .flatten()
        .chain(spec.cluster_ip.iter().filter(|_| spec.cluster_ips.is_none()))
        .filter_map(|address| address.parse().ok())
}

fn external_addresses<'a>(service: &'a Service, spec: &'a ServiceSpec) -> impl Iterator<Item = Ipv4Addr> + 'a {
    let own = spec.external_ips.iter().flatten();
    // Until the ranges that clients may come from are held to, an address that has some is not served at all.
    let open = spec.load_balancer_source_ranges.as_ref().is_none_or(Vec::is_empty);
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let balanced = status
        .filter(|_| open && spec.type_.as_deref() == Some("LoadBalancer"))
        .and_then(|status| status.ingress.as_ref())
        .into_iter()
        .flatten()
        .filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"))
        .filter_map(|ingress| ingress.ip.as_ref());
    own.chain(balanced).filter_map(|address| address.parse().ok())
}

fn affinity(spec: &ServiceSpec) -> Option<u32> {
    let config = || {
        let client = spec.session_affinity_config.as_ref()?.client_ip.as_ref()?;
        u32::try_from(client.timeout_seconds?).ok()
    };
    (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| config().unwrap_or(AFFINITY_SECONDS))
}

fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name {
        None | Some("" | "TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(_) => None,
    }
}

/// The endpoints of one port that could be used.
struct Choice {
    ready: BTreeSet<SocketAddrV4>,
    /// On their way out, but still at work: better than none.
    leaving: BTreeSet<SocketAddrV4>,
}

impl Choice {
    /// Those of one node, or of all.
    fn new(slices: &[Arc<EndpointSlice>], port: &ServicePort, node: Option<&str>) -> Choice {
        let mut choice = Choice {
            ready: BTreeSet::new(),
            leaving: BTreeSet::new(),
        };
        let name = |name: &Option<String>| name.clone().unwrap_or_default();
        for slice in slices.iter().filter(|slice| slice.address_type == "IPv4") {
            let found = slice.ports.iter().flatten().find(|at| {
                name(&at.name) == name(&port.name)
                    && protocol(at.protocol.as_deref()) == protocol(port.protocol.as_deref())
            });
            let Some(number) = found.and_then(|port| u16::try_from(port.port?).ok()) else {
                continue;
            };
            for endpoint in slice.endpoints.iter().flatten() {
                if node.is_some() && endpoint.node_name.as_deref() != node {
                    continue;
                }
                // All addresses of an endpoint are the same endpoint: the first is as good as any.
                let Some(Ok(address)) = endpoint.addresses.first().map(|address| address.parse()) else {
                    continue;
                };
                match state(endpoint) {
                    State::Ready => choice.ready.insert(SocketAddrV4::new(address, number)),
                    State::Leaving => choice.leaving.insert(SocketAddrV4::new(address, number)),
                    State::Unusable => false,
                };
            }
        }
        choice
    }

    fn best(&self) -> Option<&BTreeSet<SocketAddrV4>> {
        [&self.ready, &self.leaving].into_iter().find(|some| !some.is_empty())
    }
}

enum State {
    Ready,
    Leaving,
    Unusable,
}

fn state(endpoint: &Endpoint) -> State {
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
    let serving = conditions.and_then(|conditions| conditions.serving).unwrap_or(ready);
    let terminating = conditions
        .and_then(|conditions| conditions.terminating)
        .unwrap_or(false);
    match (ready, serving && terminating) {
        (true, _) => State::Ready,
        (false, true) => State::Leaving,
        (false, false) => State::Unusable,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "the cases are well-formed")]
    use serde_json::{Value, json};

    use super::*;

    fn endpoint(address: &str, node: &str, ready: bool, terminating: bool) -> Value {
        json!({"addresses": [address], "nodeName": node,
            "conditions": {"ready": ready, "serving": ready || terminating, "terminating": terminating}})
    }

    fn observed(spec: Value, endpoints: Value) -> Observed {
        let slice = json!({"addressType": "IPv4", "metadata": {"name": "s"}, "endpoints": endpoints,
            "ports": [{"name": "http", "port": 8090, "protocol": "TCP"}]});
        Observed {
            service: Arc::new(
                serde_json::from_value(json!({"metadata": {"name": "s"}, "spec": spec,
                "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}]}}}))
                .unwrap(),
            ),
            slices: vec![Arc::new(serde_json::from_value(slice).unwrap())],
        }
    }

    /// Each frontend and its fate as one line.
    fn lines(spec: Value, endpoints: Value) -> Vec<String> {
        let wanted = wanted(&observed(spec, endpoints), "here");
        wanted
            .iter()
            .map(
                |(
                    Frontend {
                        address,
                        protocol,
                        port,
                    },
                    fate,
                )| {
                    let fate = match fate {
                        Fate::Spread { endpoints, affinity } => {
                            let endpoints: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
                            let sticky = affinity.map(|seconds| format!(" for {seconds} s")).unwrap_or_default();
                            format!("{}{sticky}", endpoints.join(" "))
                        }
                        other => format!("{other:?}"),
                    };
                    format!("{address}:{port}/{} {fate}", protocol.name())
                },
            )
            .collect()
    }

    fn node_port(more: Value) -> Value {
        let mut spec = json!({"type": "NodePort", "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"],
            "ports": [{"name": "http", "port": 80, "nodePort": 30080, "protocol": "TCP"}]});
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        spec
    }

    #[test]
    fn frontends_lead_to_endpoints() {
        let two = json!([
            endpoint("10.244.0.1", "here", true, false),
            endpoint("10.244.1.1", "there", true, false)
        ]);
        let there = json!([endpoint("10.244.1.1", "there", true, false)]);
        let both = "10.244.0.1:8090 10.244.1.1:8090";
        for (more, endpoints, expected) in [
            (
                json!({}),
                &two,
                vec![format!("0.0.0.0:30080/tcp {both}"), format!("10.96.0.5:80/tcp {both}")],
            ),
            (
                json!({"externalTrafficPolicy": "Local"}),
                &two,
                vec![
                    "0.0.0.0:30080/tcp 10.244.0.1:8090".into(),
                    format!("10.96.0.5:80/tcp {both}"),
                ],
            ),
            (
                json!({"externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local"}),
                &there,
                vec!["0.0.0.0:30080/tcp Dropped".into(), "10.96.0.5:80/tcp Dropped".into()],
            ),
            (
                json!({"internalTrafficPolicy": "Local"}),
                &json!([]),
                vec!["0.0.0.0:30080/tcp Refused".into(), "10.96.0.5:80/tcp Refused".into()],
            ),
            (
                json!({"type": "LoadBalancer", "externalIPs": ["203.0.113.9"], "sessionAffinity": "ClientIP",
                    "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}}),
                &there,
                ["0.0.0.0:30080", "10.96.0.5:80", "203.0.113.7:80", "203.0.113.9:80"]
                    .map(|at| format!("{at}/tcp 10.244.1.1:8090 for 60 s"))
                    .to_vec(),
            ),
            (
                json!({"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/8"]}),
                &there,
                vec![
                    "0.0.0.0:30080/tcp 10.244.1.1:8090".into(),
                    "10.96.0.5:80/tcp 10.244.1.1:8090".into(),
                ],
            ),
        ] {
            assert_eq!(lines(node_port(more.clone()), endpoints.clone()), expected, "{more}");
        }
    }

    #[test]
    fn load_balancers_are_told_how_many_endpoints_are_here() {
        let balanced = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 32000, "ports": [
            {"name": "http", "port": 80, "protocol": "TCP"}, {"name": "http", "port": 81, "protocol": "TCP"}]});
        for (more, expected) in [
            (
                json!({}),
                Some(HealthCheck {
                    port: 32000,
                    endpoints: 1,
                }),
            ),
            (json!({"externalTrafficPolicy": "Cluster"}), None),
            (json!({"type": "NodePort"}), None),
        ] {
            let mut spec = balanced.clone();
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let endpoints = json!([
                endpoint("10.244.0.1", "here", true, false),
                endpoint("10.244.0.2", "here", false, true),
                endpoint("10.244.1.1", "there", true, false)
            ]);
            assert_eq!(health_check(&observed(spec, endpoints), "here"), expected, "{more}");
        }
    }

    #[test]
    fn who_leaves_serves_only_when_nobody_else_does() {
        let leaving = endpoint("10.244.0.1", "here", false, true);
        let ready = endpoint("10.244.0.2", "here", true, false);
        let waiting = endpoint("10.244.0.3", "here", false, false);
        for (endpoints, expected) in [
            (json!([leaving, ready, waiting]), "10.244.0.2:8090"),
            (json!([leaving, waiting]), "10.244.0.1:8090"),
            (json!([waiting]), "Refused"),
        ] {
            let line = &lines(node_port(json!({})), endpoints)[1];
            assert_eq!(line, &format!("10.96.0.5:80/tcp {expected}"));
        }
    }

    #[test]
    fn some_services_ask_for_nothing() {
        for spec in [
            json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": [{"port": 80}]}),
            json!({"type": "ExternalName", "externalName": "a.b"}),
        ] {
            assert!(lines(spec, json!([])).is_empty());
        }
        let observed = Observed {
            service: Arc::new(
                serde_json::from_value(json!({"metadata": {"labels": {OTHER_PROXY: "x"}},
                "spec": node_port(json!({}))}))
                .unwrap(),
            ),
            slices: vec![],
        };
        assert_eq!(wanted(&observed, "here"), Wanted::default());
    }
}
