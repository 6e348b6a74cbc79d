//! Names that are not the cluster's, by a resolver outside of the node.

use std::fs::File;
use std::process::{Child, Command, Stdio};

use tests::{Cluster, Options, eventually, run};

/// A resolver that knows `example.org` and what is below it, and writes down what it is asked.
const RESOLVER: &str = "
import socket
here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
here.bind(('192.0.2.1', 53))
print('listening', flush=True)
while True:
    asked, sender = here.recvfrom(512)
    labels, at = [], 12
    while asked[at]:
        labels.append(asked[at + 1:at + 1 + asked[at]].decode().lower())
        at += 1 + asked[at]
    name, kind = '.'.join(labels), asked[at + 2]
    print(name, kind, flush=True)
    known = name == 'example.org' or name.endswith('.example.org')
    found = known and kind == 1
    counts = bytes([0, 1, 0, 1 if found else 0, 0, 0, 0, 0])
    answer = asked[:2] + bytes([0x81, 0x80 if known else 0x83]) + counts + asked[12:at + 5]
    if found:
        answer += bytes([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 198, 51, 100, 7])
    here.sendto(answer, sender)
";

struct Resolver(Child);

impl Resolver {
    fn start(mut python: Command, log: &std::path::Path) -> Self {
        let log = File::create(log).expect("the resolver's log");
        python.args(["-c", RESOLVER]).stdin(Stdio::null()).stdout(log);
        Self(python.spawn().expect("the resolver starts"))
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Services whose names stand for others, and one whose name somebody else has.
const SERVICES: &str = "
{apiVersion: v1, kind: Service, metadata: {name: mail}, spec: {type: ExternalName, externalName: mail.example.org}}
---
{apiVersion: v1, kind: Service, metadata: {name: post}, spec: {type: ExternalName, externalName: mail.default.svc.cluster.local}}
---
{apiVersion: v1, kind: Service, metadata: {name: example, namespace: org}, spec: {clusterIP: 10.96.7.7, ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: other, namespace: org}, spec: {clusterIP: 10.96.7.8, ports: [{port: 80}]}}
";

#[test]
fn others_names_come_from_the_resolver_that_the_node_is_told_of() {
    let mut cluster = Cluster::prepare(Options {
        images: &["busybox"],
        kubelet: Some(""),
        ..Options::default()
    });
    let (log, resolv_conf) = (cluster.dir().join("asked"), cluster.dir().join("resolv.conf"));
    std::fs::write(&resolv_conf, "nameserver 192.0.2.1\n").expect("resolv.conf");
    cluster.configure_kubelet(&format!("resolvConf: {}", resolv_conf.display()));
    let _resolver = Resolver::start(cluster.outside().command("python3"), &log);
    let log = || std::fs::read_to_string(&log).unwrap_or_default();
    eventually("the resolver listens", || log().contains("listening").then_some(()));
    cluster.start_server();
    let asked = |what: &str| log().lines().filter(|line| *line == what).count();

    let pod = |name: &str, policy: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 0, dnsPolicy: {policy}, \
            containers: [{{name: main, image: 'localhost/busybox:1', command: [sleep, 12h]}}]}}}}"
        )
    };
    cluster.create(&pod("client", "ClusterFirst"));
    cluster.create(&pod("plain", "Default"));
    cluster.kubectl(&["create", "namespace", "org"]).ok();
    cluster.create(SERVICES);
    cluster.wait_ready("client");
    cluster.wait_ready("plain");
    let look_up = |name: &str| cluster.exec("client", &format!("nslookup -type=a {name} 2>&1; true"));

    for _ in 0..2 {
        let found = look_up("www.example.org.");
        assert!(found.contains("Address: 198.51.100.7"), "{found}");
    }
    assert_eq!(
        asked("www.example.org 1"),
        1,
        "what is known is not asked for again: {}",
        log()
    );
    let missing = look_up("nobody.example.net.");
    assert!(missing.contains("NXDOMAIN"), "{missing}");

    // A name that stands for another, which may stand for one outside.
    for name in ["mail", "post"] {
        let found = look_up(&format!("{name}.default.svc.cluster.local."));
        assert!(
            found.contains("canonical name = mail.example.org") && found.contains("Address: 198.51.100.7"),
            "{name}: {found}"
        );
    }
    assert_eq!(asked("mail.example.org 1"), 1, "{}", log());

    // Names outside of the cluster's domain are others' first, also where a namespace is called like theirs.
    for (name, address) in [
        ("example.org.", "198.51.100.7"),
        ("other.org.", "10.96.7.8"),
        ("example.org.svc.cluster.local.", "10.96.7.7"),
        ("kubernetes.default", "10.96.0.1"),
    ] {
        let found = look_up(name);
        assert!(found.contains(&format!("Address: {address}")), "{name}: {found}");
    }
    assert_eq!(cluster.exec("plain", "cat /etc/resolv.conf"), "nameserver 192.0.2.1\n");

    // Without an answer from there the cluster's own names are still known.
    run(
        cluster
            .netns
            .command("ip")
            .args(["route", "add", "unreachable", "192.0.2.1/32"]),
        "",
    )
    .ok();
    let found = look_up("web.example.org.");
    assert!(found.contains("SERVFAIL"), "{found}");
    let found = look_up("kubernetes.default");
    assert!(found.contains("Address: 10.96.0.1"), "{found}");
}
