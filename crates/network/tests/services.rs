//! Services on a real kernel, in network namespaces that end with the test.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::{IpAddr, SocketAddr, TcpListener},
    sync::Arc,
    time::{Duration, Instant},
};

use network::services::{Observed, Proxy};
use serde_json::{Value, json};
use support::*;

const CLUSTER_IP: &str = "10.96.0.5";

/// A Service with one slice of endpoints: address, node, and whether it is ready, terminating or neither.
fn service(spec: Value, endpoints: &[(IpAddr, &str, &str)]) -> Option<Observed> {
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|(address, node, state)| {
            json!({"addresses": [address], "nodeName": node, "conditions":
                {"ready": *state == "ready", "serving": *state != "waiting", "terminating": *state == "leaving"}})
        })
        .collect();
    let ports: Vec<Value> = spec["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|port| json!({"name": port["name"], "protocol": port["protocol"], "port": port["targetPort"]}))
        .collect();
    let slice = json!({"metadata": {"name": "s"}, "addressType": "IPv4", "endpoints": endpoints, "ports": ports});
    Some(Observed {
        service: Arc::new(serde_json::from_value(json!({"metadata": {"name": "s"}, "spec": spec})).unwrap()),
        slices: vec![Arc::new(serde_json::from_value(slice).unwrap())],
    })
}

fn spec(more: Value) -> Value {
    let mut spec = json!({"type": "NodePort", "clusterIP": CLUSTER_IP, "clusterIPs": [CLUSTER_IP], "ports": [
        {"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8090, "nodePort": 30080},
        {"name": "dns", "protocol": "UDP", "port": 53, "targetPort": 5353, "nodePort": 30053},
    ]});
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    spec
}

fn update(proxy: &mut Proxy, observed: Option<Observed>) {
    proxy.update([(&Arc::from("default/s"), observed)]).unwrap();
}

fn at(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

/// How many of so many connections come to each listener.
fn spread(
    from: impl Fn() -> std::io::Result<std::net::TcpStream>,
    listeners: &[&TcpListener],
    count: usize,
) -> Vec<usize> {
    for listener in listeners {
        listener.set_nonblocking(true).unwrap();
    }
    let mut came = vec![0; listeners.len()];
    for _ in 0..count {
        let _stream = from().unwrap();
        let found = listeners.iter().position(|listener| listener.accept().is_ok());
        came[found.expect("the connection is one listener's")] += 1;
    }
    came
}

#[test]
fn a_service_spreads_over_its_endpoints_from_everywhere() {
    node(async |outside| {
        let links = outside.links().await;
        let mut proxy = outside.proxy();
        let (a, b, c) = (Space::new(), Space::new(), Space::new());
        let ip_a = links.attach(&pod("a", &a, vec![])).await.unwrap()[0];
        let ip_b = links.attach(&pod("b", &b, vec![])).await.unwrap()[0];
        let ip_c = links.attach(&pod("c", &c, vec![])).await.unwrap()[0];
        update(
            &mut proxy,
            service(
                spec(json!({"externalIPs": ["203.0.113.9"]})),
                &[(ip_a, "here", "ready"), (ip_b, "here", "ready")],
            ),
        );
        outside.space.sh("ip route add 203.0.113.0/24 via 192.0.2.1");

        let (in_a, in_b) = (listen(&a, 8090), listen(&b, 8090));
        let both = [&in_a, &in_b];
        for (who, came) in [
            ("a pod", spread(|| c.connect(at("10.96.0.5:80")), &both, 40)),
            ("the node", spread(|| connect(at("10.96.0.5:80")), &both, 40)),
            (
                "the node by its own port",
                spread(|| connect(at("192.0.2.1:30080")), &both, 40),
            ),
            (
                "outside",
                spread(|| outside.space.connect(at("192.0.2.1:30080")), &both, 40),
            ),
            (
                "outside by the external address",
                spread(|| outside.space.connect(at("203.0.113.9:80")), &both, 40),
            ),
        ] {
            // That one of two gets fewer than 5 of 40 by chance happens once in ten million times.
            assert!(came.iter().all(|count| *count >= 5), "{who}: {came:?}");
        }
        sh("nft list ruleset >/dev/null && nft -j list ruleset >/dev/null");

        // One endpoint: who comes is seen as he is, but for a pod that comes to itself.
        update(&mut proxy, service(spec(json!({})), &[(ip_a, "here", "ready")]));
        in_a.set_nonblocking(false).unwrap();
        let _stream = c.connect(at("10.96.0.5:80")).unwrap();
        assert_eq!(visitor(&in_a), ip_c);
        let _stream = outside.space.connect(at("192.0.2.1:30080")).unwrap();
        assert_eq!(visitor(&in_a), OUTSIDE);
        let _stream = connect(at("10.96.0.5:80")).unwrap();
        assert_eq!(visitor(&in_a), NODE);
        let _stream = a.connect(at("10.96.0.5:80")).unwrap();
        assert_eq!(visitor(&in_a), NODE, "a pod that comes to itself");

        // An endpoint that is no pod: the node itself, and another machine, which must answer by way of the node.
        let in_node = TcpListener::bind("192.0.2.1:8090").unwrap();
        update(&mut proxy, service(spec(json!({})), &[(NODE, "here", "ready")]));
        let _stream = c.connect(at("10.96.0.5:80")).unwrap();
        assert_eq!(visitor(&in_node), ip_c);
        let _stream = connect(at("10.96.0.5:80")).unwrap();
        assert_eq!(visitor(&in_node), NODE);
        let in_outside = listen(&outside.space, 8090);
        update(&mut proxy, service(spec(json!({})), &[(OUTSIDE, "", "ready")]));
        let _stream = c.connect(at("10.96.0.5:80")).unwrap();
        assert_eq!(visitor(&in_outside), NODE);
        let _stream = outside.space.connect(at("192.0.2.1:30080")).unwrap();
        assert_eq!(visitor(&in_outside), NODE);
    });
}

#[test]
fn without_endpoints_a_service_refuses_at_once() {
    node(async |outside| {
        let links = outside.links().await;
        let mut proxy = outside.proxy();
        let c = Space::new();
        links.attach(&pod("c", &c, vec![])).await.unwrap();
        let local = json!({"externalTrafficPolicy": "Local"});
        let elsewhere: IpAddr = "10.244.9.9".parse().unwrap();
        update(&mut proxy, service(spec(json!({})), &[]));
        let refused =
            |error: std::io::Error, who: &str| assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{who}");
        for to in ["10.96.0.5:80", "192.0.2.1:30080", "10.96.0.5:8081"] {
            let to = at(to);
            refused(connect_in_vain(to), "the node");
            refused(c.run(move || connect_in_vain(to)), "a pod");
        }
        refused(outside.space.run(|| connect_in_vain(at("192.0.2.1:30080"))), "outside");
        let client = c.run(udp);
        client.connect(at("10.96.0.5:53")).unwrap();
        client.send(b"question").unwrap();
        assert_eq!(
            client.recv(&mut [0; 8]).unwrap_err().kind(),
            ErrorKind::ConnectionRefused
        );

        // An address that the node has itself is served by the node, as that of the DNS server is.
        sh("ip address add 10.96.0.5/32 dev lo scope host");
        let in_node = TcpListener::bind("10.96.0.5:80").unwrap();
        c.connect(at("10.96.0.5:80")).unwrap();
        connect(at("10.96.0.5:80")).unwrap();
        drop(in_node);
        sh("ip address delete 10.96.0.5/32 dev lo");

        // There are endpoints, but not here.
        update(&mut proxy, service(spec(local), &[(elsewhere, "there", "ready")]));
        let silent = outside.space.run(|| connect_in_vain(at("192.0.2.1:30080")));
        assert!(
            matches!(silent.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock),
            "{silent}"
        );

        // So is an address that is nobody's.
        update(&mut proxy, None);
        refused(connect_in_vain(at("10.96.0.5:80")), "the node");
    });
}

#[test]
fn a_client_stays_with_its_endpoint_while_it_is_there() {
    node(async |outside| {
        let links = outside.links().await;
        let mut proxy = outside.proxy();
        let spaces: Vec<Space> = (0..6).map(|_| Space::new()).collect();
        let mut listeners = BTreeMap::new();
        let (servers, clients) = spaces.split_at(3);
        for (n, space) in servers.iter().enumerate() {
            let ip = links.attach(&pod(&format!("s{n}"), space, vec![])).await.unwrap()[0];
            listeners.insert(ip, listen(space, 8090));
        }
        for (n, space) in clients.iter().enumerate() {
            links.attach(&pod(&format!("c{n}"), space, vec![])).await.unwrap();
        }
        let sticky = |seconds: u32| {
            spec(
                json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}}}),
            )
        };
        let all: Vec<IpAddr> = listeners.keys().copied().collect();
        let ready = |ips: &[IpAddr]| ips.iter().map(|ip| (*ip, "here", "ready")).collect::<Vec<_>>();
        update(&mut proxy, service(sticky(3600), &ready(&all)));
        sh("nft list ruleset >/dev/null");
        let by_ip: Vec<&TcpListener> = listeners.values().collect();
        let favourite = |client: &Space, to: &'static str| {
            let came = spread(|| client.connect(at(to)), &by_ip, 12);
            let at = came.iter().position(|count| *count == 12);
            at.unwrap_or_else(|| panic!("one client, one endpoint: {came:?}"))
        };
        for client in clients {
            let first = favourite(client, "10.96.0.5:80");
            assert_eq!(favourite(client, "10.96.0.5:80"), first);
            // Its endpoint goes: another one takes its place, and is kept when the first is back.
            let left: Vec<IpAddr> = all.iter().filter(|ip| **ip != all[first]).copied().collect();
            update(&mut proxy, service(sticky(3600), &ready(&left)));
            let second = favourite(client, "10.96.0.5:80");
            assert_ne!(first, second);
            update(&mut proxy, service(sticky(3600), &ready(&all)));
            assert_eq!(favourite(client, "10.96.0.5:80"), second);
        }
        favourite(&outside.space, "192.0.2.1:30080");
        let known = sh("nft list map ip podium-services affinity");
        assert!(known.contains("timeout 1h"), "{known}");

        // A server after this one remembers whom it knew, but for those whose endpoint is there no more.
        let favourites: Vec<usize> = clients.iter().map(|client| favourite(client, "10.96.0.5:80")).collect();
        let known = sh("nft list map ip podium-services affinity");
        drop(proxy);
        let mut proxy = outside.proxy();
        update(&mut proxy, service(sticky(3600), &ready(&all)));
        let remembered = sh("nft list map ip podium-services affinity");
        assert!(remembered.contains("timeout 1h expires"), "{remembered}");
        let clients_of = |listing: &str| listing.matches("expires").count();
        assert_eq!(clients_of(&remembered), clients_of(&known), "{known}\n{remembered}");
        for (client, first) in clients.iter().zip(&favourites) {
            assert_eq!(favourite(client, "10.96.0.5:80"), *first);
        }
        drop(proxy);
        let mut proxy = outside.proxy();
        let left: Vec<IpAddr> = all.iter().filter(|ip| **ip != all[favourites[0]]).copied().collect();
        update(&mut proxy, service(sticky(3600), &ready(&left)));
        let remembered = sh("nft list map ip podium-services affinity");
        assert!(
            !remembered.contains(&format!(": {} .", all[favourites[0]])),
            "{remembered}"
        );
        drop(proxy);
        let mut proxy = outside.proxy();
        update(&mut proxy, service(spec(json!({})), &ready(&left)));
        let remembered = sh("nft list map ip podium-services affinity");
        assert_eq!(
            clients_of(&remembered),
            0,
            "nobody is to be remembered any more: {remembered}"
        );
    });
}

#[test]
fn an_internal_policy_keeps_pods_to_their_own_node() {
    node(async |outside| {
        let links = outside.links().await;
        let mut proxy = outside.proxy();
        let (a, b, c) = (Space::new(), Space::new(), Space::new());
        let ip_a = links.attach(&pod("a", &a, vec![])).await.unwrap()[0];
        let ip_b = links.attach(&pod("b", &b, vec![])).await.unwrap()[0];
        links.attach(&pod("c", &c, vec![])).await.unwrap();
        let (in_a, in_b) = (listen(&a, 8090), listen(&b, 8090));
        let both = [&in_a, &in_b];
        let local = || spec(json!({"internalTrafficPolicy": "Local"}));
        let (here, there) = ((ip_a, "here", "ready"), (ip_b, "there", "ready"));

        update(&mut proxy, service(local(), &[here, there]));
        for (who, came) in [
            ("a pod", spread(|| c.connect(at("10.96.0.5:80")), &both, 20)),
            ("the node", spread(|| connect(at("10.96.0.5:80")), &both, 20)),
        ] {
            assert_eq!(came, [20, 0], "{who}");
        }
        // Who comes from outside is not meant.
        let came = spread(|| outside.space.connect(at("192.0.2.1:30080")), &both, 40);
        assert!(came.iter().all(|count| *count >= 5), "{came:?}");

        // The only one is there: nobody answers here, and nobody refuses, as it may come back.
        update(&mut proxy, service(local(), &[there]));
        let silent = c.run(|| connect_in_vain(at("10.96.0.5:80")));
        assert!(
            matches!(silent.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock),
            "{silent}"
        );
        assert_eq!(
            spread(|| outside.space.connect(at("192.0.2.1:30080")), &both, 5),
            [0, 5]
        );
    });
}

/// For how long the affinity map still remembers the only client that it knows; none when it knows nobody.
fn remembered() -> Option<Duration> {
    let listing: Value = serde_json::from_str(&sh("nft -j list map ip podium-services affinity")).unwrap();
    let objects = listing["nftables"].as_array().unwrap().iter();
    let elements = objects.filter_map(|object| object["map"]["elem"].as_array()).flatten();
    // An element is a pair of key and value.
    let times: Vec<u64> = elements
        .filter_map(|pair| pair[0]["elem"]["expires"].as_u64())
        .collect();
    assert!(times.len() <= 1, "{listing}");
    times.first().map(|seconds| Duration::from_secs(*seconds))
}

#[test]
fn a_client_is_forgotten_when_it_has_been_away_for_so_long() {
    node(async |outside| {
        let links = outside.links().await;
        let mut proxy = outside.proxy();
        let (a, c) = (Space::new(), Space::new());
        let ip_a = links.attach(&pod("a", &a, vec![])).await.unwrap()[0];
        links.attach(&pod("c", &c, vec![])).await.unwrap();
        let _in_a = listen(&a, 8090);
        const SECONDS: u64 = 4;
        let sticky = spec(
            json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": SECONDS}}}),
        );
        update(&mut proxy, service(sticky, &[(ip_a, "here", "ready")]));
        assert_eq!(remembered(), None);
        let patience = Instant::now() + Duration::from_secs(60);
        let until = |holds: &dyn Fn(Option<Duration>) -> bool| {
            while !holds(remembered()) {
                assert!(Instant::now() < patience, "{:?}", remembered());
            }
        };

        c.connect(at("10.96.0.5:80")).unwrap();
        assert!(remembered().is_some());
        let nearly_over = Duration::from_secs(SECONDS / 2);
        until(&|left| left.is_some_and(|left| left < nearly_over));
        // Each connection begins the time anew.
        c.connect(at("10.96.0.5:80")).unwrap();
        let left = remembered();
        assert!(left.is_some_and(|left| left >= nearly_over), "{left:?}");
        until(&|left| left.is_none());
        c.connect(at("10.96.0.5:80")).unwrap();
        assert!(remembered().is_some());
    });
}

#[test]
fn udp_follows_its_service() {
    node(async |outside| {
        let links = outside.links().await;
        let mut proxy = outside.proxy();
        let (a, b, c) = (Space::new(), Space::new(), Space::new());
        let ip_a = links.attach(&pod("a", &a, vec![])).await.unwrap()[0];
        let ip_b = links.attach(&pod("b", &b, vec![])).await.unwrap()[0];
        links.attach(&pod("c", &c, vec![])).await.unwrap();
        let (in_a, in_b) = (a.run(|| udp_at(5353)), b.run(|| udp_at(5353)));
        let client = c.run(udp);
        let node_client = outside.space.run(udp);
        client.connect(at("10.96.0.5:53")).unwrap();
        node_client.connect(at("192.0.2.1:30053")).unwrap();
        let ask = |server: &std::net::UdpSocket, client: &std::net::UdpSocket| {
            client.send(b"question").unwrap();
            let mut bytes = [0; 16];
            let (length, from) = server
                .recv_from(&mut bytes)
                .expect("the question comes to the endpoint");
            server.send_to(&bytes[..length], from).unwrap();
            assert_eq!(
                client.recv(&mut bytes).unwrap(),
                8,
                "and the answer back, from the Service's address"
            );
        };
        update(&mut proxy, service(spec(json!({})), &[(ip_a, "here", "ready")]));
        ask(&in_a, &client);
        ask(&in_a, &node_client);
        // The same client from the same port: its flow is not the old one any more.
        update(&mut proxy, service(spec(json!({})), &[(ip_b, "here", "ready")]));
        ask(&in_b, &client);
        ask(&in_b, &node_client);
        // One more endpoint leaves flows where they are.
        update(
            &mut proxy,
            service(spec(json!({})), &[(ip_a, "here", "ready"), (ip_b, "here", "ready")]),
        );
        ask(&in_b, &client);
    });
}

#[test]
fn the_table_is_made_anew_when_somebody_took_it_away() {
    node(async |outside| {
        let links = outside.links().await;
        let mut proxy = outside.proxy();
        let a = Space::new();
        let ip_a = links.attach(&pod("a", &a, vec![])).await.unwrap()[0];
        let in_a = listen(&a, 8090);
        update(&mut proxy, service(spec(json!({})), &[]));
        sh("nft delete table ip podium-services");
        update(&mut proxy, service(spec(json!({})), &[(ip_a, "here", "ready")]));
        let _stream = connect(at("10.96.0.5:80")).unwrap_or_else(|error| {
            panic!(
                "{error}\n{}\n{}",
                sh("nft list ruleset"),
                sh("cat /proc/net/nf_conntrack; ip route")
            )
        });
        assert_eq!(visitor(&in_a), NODE);

        // Another server after this one: what was there serves until it knows better.
        drop(proxy);
        let _stream = connect(at("10.96.0.5:80")).unwrap();
        let mut proxy = outside.proxy();
        let _stream = connect(at("10.96.0.5:80")).unwrap();
        update(&mut proxy, None);
        assert!(connect(at("10.96.0.5:80")).is_err());
        links.detach("sandbox-of-a").await.unwrap();
        network::teardown().await.unwrap();
        assert!(!sh("nft list tables").contains("podium"));
    });
}

/// One change among 5,000 Services.
#[test]
#[ignore = "prints figures; run it with --ignored --nocapture"]
fn how_long_a_change_takes() {
    node(async |outside| {
        let _links = outside.links().await;
        for count in [10_u32, 5000] {
            let mut proxy = outside.proxy();
            let named = |n: u32, endpoints: u32| {
                let ip = std::net::Ipv4Addr::from_bits(0x0a60_0100 + n).to_string();
                let spec = json!({"clusterIP": ip, "clusterIPs": [ip], "ports": [
                    {"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8090}]});
                let address = |e: u32| IpAddr::from(std::net::Ipv4Addr::from_bits(0x0af4_0000 + (n * 10 + e) % 65_000));
                let endpoints: Vec<_> = (0..endpoints).map(|e| (address(e), "here", "ready")).collect();
                (Arc::<str>::from(format!("n/s{n}")), service(spec, &endpoints))
            };
            let all: Vec<_> = (0..count).map(|n| named(n, 10)).collect();
            let begun = Instant::now();
            proxy
                .update(all.iter().map(|(name, observed)| (name, observed.clone())))
                .unwrap();
            println!("{count} Services of 10 endpoints at once: {:.2?}", begun.elapsed());
            let mut took: Vec<Duration> = (0..200)
                .map(|n| {
                    let (name, observed) = named(n % count, 9 + n / count.min(200) % 2);
                    let begun = Instant::now();
                    proxy.update([(&name, observed)]).unwrap();
                    begun.elapsed()
                })
                .collect();
            took.sort();
            println!("one change among {count}: p50 {:.2?}, p99 {:.2?}", took[100], took[198]);
        }
    });
}
