//! Pods on a real kernel, in network namespaces that end with the test.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use std::{io::ErrorKind, time::Instant};

use network::Protocol::{Tcp, Udp};
use support::*;

#[test]
fn pods_reach_each_other_the_node_and_the_world() {
    node(async |outside| {
        let links = outside.links().await;
        let (a, b) = (Space::new(), Space::new());
        let ip_a = links.attach(&pod("a", &a, vec![])).await.unwrap()[0];
        let ip_b = links.attach(&pod("b", &b, vec![])).await.unwrap()[0];
        assert_eq!(
            (ip_a.to_string(), ip_b.to_string()),
            ("10.244.0.1".into(), "10.244.0.2".into())
        );

        let in_b = listen(&b, 80);
        let _stream = a.connect((ip_b, 80).into()).unwrap();
        assert_eq!(visitor(&in_b), ip_a, "pods see each other's own addresses");
        let _stream = connect((ip_b, 80).into()).unwrap();
        assert_eq!(visitor(&in_b), NODE, "the node comes from its own address");

        let in_node = std::net::TcpListener::bind("0.0.0.0:6443").unwrap();
        let _stream = a.connect((NODE, 6443).into()).unwrap();
        assert_eq!(visitor(&in_node), ip_a);
        let _stream = a
            .run(|| connect((LOCALHOST, 81).into()))
            .expect_err("nobody listens, but lo is up");

        let in_outside = listen(&outside.space, 443);
        let _stream = a.connect((OUTSIDE, 443).into()).unwrap();
        assert_eq!(visitor(&in_outside), NODE, "what leaves the cluster is masqueraded");
    });
}

#[test]
fn a_pods_end_is_as_drawn() {
    node(async |outside| {
        let links = outside.links().await;
        let a = Space::new();
        links.attach(&pod("a", &a, vec![])).await.unwrap();
        let link = a.sh("ip -o link show dev eth0");
        assert!(link.contains("mtu 1400") && link.contains("LOWER_UP"), "{link}");
        assert!(link.contains("02:00:0a:f4:00:01"), "{link}");
        assert!(a.sh("ip -o address show dev eth0").contains("inet 10.244.0.1/32 "));
        assert_eq!(
            a.sh("ip route").split_whitespace().collect::<Vec<_>>().join(" "),
            "default via 169.254.1.1 dev eth0 proto static 169.254.1.1 dev eth0 proto 80 scope link"
        );
        assert!(
            a.sh("ip neighbour")
                .contains("169.254.1.1 dev eth0 lladdr ee:ee:ee:ee:ee:ee PERMANENT")
        );
        let node_end = sh("ip -o link show dev pod0af40001");
        assert!(
            node_end.contains("mtu 1400") && node_end.contains("alias podium default/a"),
            "{node_end}"
        );
        assert!(sh("ip route").contains("10.244.0.1 dev pod0af40001 proto 80 scope link src 192.0.2.1"));
        assert_eq!(sh("cat /proc/sys/net/ipv4/conf/pod0af40001/route_localnet"), "0\n");
    });
}

#[test]
fn host_ports_lead_to_the_pod_from_everywhere() {
    node(async |outside| {
        let links = outside.links().await;
        let (a, b) = (Space::new(), Space::new());
        let ports = vec![
            port(Tcp, 8080, 80, None),
            port(Tcp, 8081, 80, Some(NODE)),
            port(Udp, 8053, 53, None),
        ];
        let ip_a = links.attach(&pod("a", &a, ports)).await.unwrap()[0];
        let ip_b = links.attach(&pod("b", &b, vec![])).await.unwrap()[0];
        let in_a = listen(&a, 80);

        let _stream = outside.space.connect((NODE, 8080).into()).unwrap();
        assert_eq!(visitor(&in_a), OUTSIDE, "who comes from outside is seen as he is");
        let _stream = connect((NODE, 8080).into()).unwrap();
        assert_eq!(visitor(&in_a), NODE, "from the node to its own address");
        let _stream = connect((LOCALHOST, 8080).into()).unwrap();
        assert_eq!(visitor(&in_a), NODE, "from the node to 127.0.0.1");
        let _stream = b.connect((NODE, 8080).into()).unwrap();
        assert_eq!(visitor(&in_a), ip_b, "from another pod");
        let _stream = a.connect((NODE, 8080).into()).unwrap();
        assert_eq!(visitor(&in_a), NODE, "from the pod itself");

        let _stream = connect((NODE, 8081).into()).unwrap();
        assert_eq!(visitor(&in_a), NODE);
        assert_eq!(
            connect((LOCALHOST, 8081).into()).unwrap_err().kind(),
            ErrorKind::ConnectionRefused
        );

        let in_a = a.run(|| udp_at(53));
        let client = outside.space.run(udp);
        client.connect((NODE, 8053)).unwrap();
        client.send(b"question").unwrap();
        let mut bytes = [0; 16];
        let (length, from) = in_a.recv_from(&mut bytes).unwrap();
        assert_eq!((&bytes[..length], from.ip()), (&b"question"[..], OUTSIDE));
        in_a.send_to(b"answer", from).unwrap();
        let length = client.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], b"answer");

        let taken = links
            .attach(&pod("c", &b, vec![port(Tcp, 8080, 1, None)]))
            .await
            .unwrap_err();
        assert_eq!(taken.to_string(), "host port 8080/tcp is taken by pod default/a");

        links.detach("sandbox-of-a").await.unwrap();
        assert_eq!(
            connect((NODE, 8080).into()).unwrap_err().kind(),
            ErrorKind::ConnectionRefused
        );
        let gone = connect_in_vain((ip_a, 80).into());
        assert!(
            matches!(gone.kind(), ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable),
            "{gone}"
        );
    });
}

#[test]
fn a_pod_with_host_ports_does_not_reach_the_nodes_loopback() {
    node(async |outside| {
        let links = outside.links().await;
        let a = Space::new();
        links
            .attach(&pod("a", &a, vec![port(Tcp, 8080, 80, None)]))
            .await
            .unwrap();
        let _secret = std::net::TcpListener::bind("127.0.0.1:9999").unwrap();
        // What a hostile pod with the right to do so would set up to send such packets at all.
        a.sh("ip address delete 127.0.0.1/8 dev lo; ip route delete local 127.0.0.0/8 dev lo table local || true");
        a.sh("echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet");
        a.sh("ip route add 127.0.0.0/8 via 169.254.1.1 dev eth0 onlink");
        let refused = a.run(|| connect_in_vain((LOCALHOST, 9999).into()));
        assert!(
            matches!(refused.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock),
            "{refused}"
        );
        assert!(sh("nft list chain inet podium input").contains("127.0.0.0/8"));
    });
}

#[test]
fn what_is_not_assigned_never_leaves_the_machine() {
    node(async |outside| {
        let links = outside.links().await;
        outside.proxy().update([]).unwrap();
        let a = Space::new();
        links.attach(&pod("a", &a, vec![])).await.unwrap();
        outside.space.sh(
            "nft add table ip seen && nft 'add chain ip seen coming { type filter hook prerouting priority 0; }' && \
             nft 'add rule ip seen coming ip daddr { 10.96.0.0/12, 10.244.0.0/16 } counter'",
        );
        let unreachable = |kind| matches!(kind, ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable);
        for (address, is_expected) in [
            (
                "10.96.0.1",
                &(|kind| kind == ErrorKind::ConnectionRefused) as &(dyn Fn(ErrorKind) -> bool + Sync),
            ),
            ("10.111.255.254", &|kind| kind == ErrorKind::ConnectionRefused),
            ("10.244.0.99", &unreachable),
            ("10.244.7.7", &unreachable),
        ] {
            let to = format!("{address}:80").parse().unwrap();
            let error = connect_in_vain(to);
            assert!(is_expected(error.kind()), "{address}: {error}");
            // The kernel tells a pod so too, but not more often than it likes.
            let error = a.run(move || connect_in_vain(to));
            assert!(
                is_expected(error.kind()) || error.kind() == ErrorKind::TimedOut,
                "{address}: {error}"
            );
        }
        let seen = outside.space.sh("nft list chain ip seen coming");
        assert!(seen.contains("counter packets 0 "), "{seen}");
    });
}

#[test]
fn a_restart_changes_nothing_and_what_is_left_over_goes() {
    node(async |outside| {
        let (a, b) = (Space::new(), Space::new());
        let links = outside.links().await;
        let ip_a = links
            .attach(&pod("a", &a, vec![port(Tcp, 8080, 80, None)]))
            .await
            .unwrap()[0];
        links
            .attach(&pod("b", &b, vec![port(Tcp, 8081, 80, None)]))
            .await
            .unwrap();
        let in_a = listen(&a, 80);
        let lasting = connect((ip_a, 80).into()).unwrap();
        visitor(&in_a);
        drop(links);

        // A link of ours without an owner, and somebody else's that only looks like it.
        sh("ip link add pod0af400ff type veth peer name stray && ip link set pod0af400ff alias 'podium default/c'");
        sh("ip link add podman0 type veth peer name other");

        let links = outside.links().await;
        let _stream = connect((NODE, 8080).into()).unwrap();
        assert_eq!(visitor(&in_a), NODE, "host ports are there again");
        links.reconcile(&["sandbox-of-a".into()]).await.unwrap();
        let left = sh("ip -o link | cut -d: -f2 | cut -d@ -f1 | sort | xargs");
        assert_eq!(
            left, "lo other pod0af40001 podman0 up0\n",
            "neither b's link nor the stray"
        );
        assert_eq!(
            connect((NODE, 8081).into()).unwrap_err().kind(),
            ErrorKind::ConnectionRefused
        );
        assert!(lasting.take_error().unwrap().is_none());

        let c = Space::new();
        let ip_c = links.attach(&pod("c", &c, vec![])).await.unwrap()[0];
        assert_eq!(ip_c.to_string(), "10.244.0.3", "the freed 10.244.0.2 comes last");
        links.detach("sandbox-of-a").await.unwrap();
        links.detach("sandbox-of-a").await.unwrap();
        links.detach("never-seen").await.unwrap();
    });
}

#[test]
fn an_attachment_that_fails_leaves_nothing() {
    node(async |outside| {
        let links = outside.links().await;
        let before = state();
        let a = Space::new();
        let mut missing = pod("x", &a, vec![]);
        missing.netns = "/does/not/exist".into();
        let error = links.attach(&missing).await.unwrap_err().to_string();
        assert_eq!(error, "opening /does/not/exist: No such file or directory (os error 2)");
        // Its eth0 is there already, so the pair can not be made.
        a.sh("ip link add eth0 type veth peer name other");
        let error = links
            .attach(&pod("a", &a, vec![port(Tcp, 8080, 80, None)]))
            .await
            .unwrap_err()
            .to_string();
        assert_eq!(error, "adding link pod0af40001: File exists (os error 17)");
        assert_eq!(state(), before);

        // A sandbox whose namespace is gone, and with it the link.
        let b = Space::new();
        links.attach(&pod("b", &b, vec![])).await.unwrap();
        b.sh("ip link delete eth0");
        links.detach("sandbox-of-b").await.unwrap();
        // And one that is attached twice.
        let first = links.attach(&pod("b", &b, vec![])).await.unwrap();
        let second = links.attach(&pod("b", &b, vec![])).await.unwrap();
        assert_ne!(first, second);
        links.detach("sandbox-of-b").await.unwrap();
        assert_eq!(state(), before);
    });
}

#[test]
fn teardown_leaves_the_machine_as_it_was() {
    node(async |outside| {
        sh("nft add table inet other && ip route add 198.51.100.0/24 via 192.0.2.2");
        let before = state();
        network::teardown().await.unwrap();
        assert_eq!(state(), before, "with nothing to take away");
        let a = Space::new();
        let links = outside.links().await;
        links
            .attach(&pod("a", &a, vec![port(Tcp, 8080, 80, None)]))
            .await
            .unwrap();
        drop(links);
        assert_ne!(state(), before);
        network::teardown().await.unwrap();
        assert_eq!(state(), before);
        assert!(!a.sh("ip -o link").contains("eth0"));
    });
}

#[test]
fn what_is_missing_is_told() {
    node(async |outside| {
        let settings = network::Settings {
            run_dir: outside.run_dir.clone(),
            cluster_cidr: "10.244.0.0/16".into(),
            service_cidr: "10.96.0.0/12".into(),
            node_ip: None,
        };
        let links = network::Links::open(settings.clone()).await.unwrap();
        let a = Space::new();
        let error = links.attach(&pod("a", &a, vec![])).await.unwrap_err();
        assert_eq!(error.to_string(), "the node has no podCIDR yet");
        assert_eq!(links.ready().unwrap_err().to_string(), "the node has no podCIDR yet");
        assert!(
            links
                .set_pod_cidr("fd00::/64")
                .unwrap_err()
                .to_string()
                .contains("not a range of IPv4")
        );
        links.set_pod_cidr("10.244.0.8/31").unwrap();
        links.ready().unwrap();
        links.attach(&pod("a", &a, vec![])).await.unwrap();

        for (cluster_cidr, expected) in [
            (
                "10.244.0.0",
                "\"10.244.0.0\" is not a range of addresses such as 10.244.0.0/24",
            ),
            (
                "fd00::/48",
                "fd00::/48 is not a range of IPv4 addresses, the only ones that pods and Services get",
            ),
        ] {
            let settings = network::Settings {
                cluster_cidr: cluster_cidr.into(),
                ..settings.clone()
            };
            assert_eq!(
                network::Links::open(settings).await.err().unwrap().to_string(),
                expected
            );
        }
    });
}

#[test]
fn a_firewall_is_found_and_its_remedy_helps() {
    node(async |outside| {
        let links = outside.links().await;
        let (a, b) = (Space::new(), Space::new());
        links.attach(&pod("a", &a, vec![])).await.unwrap();
        let ip_b = links.attach(&pod("b", &b, vec![])).await.unwrap()[0];
        let _in_b = listen(&b, 80);
        let look =
            async || network::check::findings(&network::check::observe("10.244.0.0/16", "10.96.0.0/12").await.unwrap());
        assert_eq!(look().await, []);

        sh(
            "nft add table inet wall && nft 'add chain inet wall passing { type filter hook forward priority 0; policy drop; }'",
        );
        let to_b = (ip_b, 80).into();
        a.run(move || connect_in_vain(to_b));
        let [finding] = &look().await[..] else {
            panic!("one finding")
        };
        assert_eq!(
            finding.problem,
            "nftables, chain inet wall passing, drops traffic from and to pods"
        );
        sh(&finding.remedy);
        assert_eq!(look().await, []);
        a.connect(to_b).unwrap();
    });
}

#[test]
#[ignore = "prints figures; run it with --ignored --nocapture"]
fn how_long_a_link_takes() {
    node(async |outside| {
        let links = outside.links().await;
        let spaces: Vec<Space> = (0..50).map(|_| Space::new()).collect();
        let begun = Instant::now();
        for (n, space) in spaces.iter().enumerate() {
            links.attach(&pod(&n.to_string(), space, vec![])).await.unwrap();
        }
        println!("attach: {:.2?} each", begun.elapsed() / 50);
        let begun = Instant::now();
        for n in 0..50 {
            links.detach(&format!("sandbox-of-{n}")).await.unwrap();
        }
        println!("detach: {:.2?} each", begun.elapsed() / 50);
    });
}

/// Everything in the node's namespace that Podium could have touched.
fn state() -> String {
    let links = sh("ip -o link | sed 's/ .*LINK//' | cut -d: -f2");
    links + &sh("ip route") + &sh("ip neighbour show nud permanent") + &sh("nft -s list ruleset")
}
