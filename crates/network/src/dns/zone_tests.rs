//! The names of a small cluster.
#![allow(clippy::unwrap_used, reason = "the cases are well-formed")]
use client::Change;
use serde_json::{Value, json};

use super::*;

fn zone() -> Zone {
    let ranges = ["10.244.0.0/16", "10.96.0.0/12"].map(|range| range.parse().unwrap());
    let mut zone = Zone::new(
        Name::from_ascii("cluster.local.").unwrap(),
        Ipv4Addr::new(10, 96, 0, 10),
        ranges,
    );
    zone.namespace("default", true);
    let mut add = |name: &str, spec: Value, endpoints: Value| {
        let service = serde_json::from_value(json!({"metadata": {"namespace": "default", "name": name}, "spec": spec}));
        let slice = serde_json::from_value(json!({
            "metadata": {"namespace": "default", "name": format!("{name}-1"), "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{"name": "http", "port": 8090, "protocol": "TCP"}],
        }));
        let (object, previous) = (Arc::new(service.unwrap()), None);
        let named = zone.picture().service(Change::Applied { object, previous }).unwrap();
        let (object, previous) = (Arc::new(slice.unwrap()), None);
        zone.picture().slice(Change::Applied { object, previous });
        zone.refresh(&named);
    };
    let ports = json!([{"name": "http", "port": 80, "protocol": "TCP"}]);
    add(
        "web",
        json!({"clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"], "ports": ports}),
        json!([{"addresses": ["10.244.0.9"]}]),
    );
    add(
        "set",
        json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": ports}),
        json!([
            {"addresses": ["10.244.0.1"], "hostname": "first"},
            {"addresses": ["10.244.0.2"], "conditions": {"ready": true}},
            {"addresses": ["10.244.0.3"], "conditions": {"ready": false}},
        ]),
    );
    add("none", json!({"clusterIP": "None", "clusterIPs": ["None"]}), json!([]));
    add(
        "far",
        json!({"type": "ExternalName", "externalName": "example.org"}),
        json!([]),
    );
    for (name, target) in [
        ("alias", "web.default.svc.cluster.local"),
        ("second", "alias.default.svc.cluster.local"),
        ("outer", "far.default.svc.cluster.local"),
        ("short", "web.default"),
        ("broken", "gone.default.svc.cluster.local"),
        ("ring", "ring.default.svc.cluster.local"),
    ] {
        add(name, json!({"type": "ExternalName", "externalName": target}), json!([]));
    }
    zone
}

fn ask(zone: &Zone, kind: RecordType, name: &str) -> String {
    shown(zone.answer(&Name::from_ascii(name).unwrap(), kind))
}

fn shown(answer: Answer) -> String {
    let show = |records: &[Record]| {
        let shown: Vec<String> = records.iter().map(|record| record.data.to_string()).collect();
        shown.join(", ")
    };
    match answer {
        Answer::Found { answers, additionals } if additionals.is_empty() => show(&answers),
        Answer::Found { answers, additionals } => format!("{} + {}", show(&answers), show(&additionals)),
        Answer::Alias(record, _) => format!("-> {}", record.data),
        Answer::ElsewhereOr(own) => match *own {
            Answer::Found { answers, .. } => format!("Elsewhere or {}", show(&answers)),
            other => format!("Elsewhere or {other:?}"),
        },
        other => format!("{other:?}"),
    }
}

#[test]
fn names_of_the_specification() {
    use RecordType::{A, AAAA, PTR, SRV, TXT};
    let zone = zone();
    for (kind, name, expected) in [
        (A, "web.default.svc.cluster.local.", "10.96.0.5"),
        (A, "WEB.Default.svc.cluster.local.", "10.96.0.5"),
        (AAAA, "web.default.svc.cluster.local.", "Nothing"),
        (A, "10-244-0-9.web.default.svc.cluster.local.", "10.244.0.9"),
        (
            SRV,
            "_http._tcp.web.default.svc.cluster.local.",
            "0 100 80 web.default.svc.cluster.local. + 10.96.0.5",
        ),
        (A, "_http._tcp.web.default.svc.cluster.local.", "Nothing"),
        (SRV, "_http._udp.web.default.svc.cluster.local.", "NoName"),
        (SRV, "_https._tcp.web.default.svc.cluster.local.", "NoName"),
        (A, "set.default.svc.cluster.local.", "10.244.0.1, 10.244.0.2"),
        (A, "first.set.default.svc.cluster.local.", "10.244.0.1"),
        (A, "10-244-0-2.set.default.svc.cluster.local.", "10.244.0.2"),
        (A, "10-244-0-3.set.default.svc.cluster.local.", "NoName"),
        (
            SRV,
            "_http._tcp.set.default.svc.cluster.local.",
            "0 50 8090 first.set.default.svc.cluster.local., 0 50 8090 10-244-0-2.set.default.svc.cluster.local. \
             + 10.244.0.2, 10.244.0.1",
        ),
        (A, "none.default.svc.cluster.local.", "NoName"),
        (A, "far.default.svc.cluster.local.", "-> example.org."),
        (A, "10-244-7-7.default.pod.cluster.local.", "10.244.7.7"),
        (A, "10-244-7-7.nowhere.pod.cluster.local.", "NoName"),
        (A, "10-244-7.default.pod.cluster.local.", "NoName"),
        (A, "default.svc.cluster.local.", "Nothing"),
        (A, "svc.cluster.local.", "Nothing"),
        (A, "cluster.local.", "Nothing"),
        (A, "nowhere.svc.cluster.local.", "NoName"),
        (A, "gone.default.svc.cluster.local.", "NoName"),
        (A, "web.nowhere.svc.cluster.local.", "NoName"),
        (A, "a.b.c.web.default.svc.cluster.local.", "NoName"),
        (A, "example.org.cluster.local.", "NoName"),
        (TXT, "dns-version.cluster.local.", "1.1.0"),
        (A, "ns.dns.cluster.local.", "10.96.0.10"),
        (PTR, "5.0.96.10.in-addr.arpa.", "web.default.svc.cluster.local."),
        (PTR, "1.0.244.10.in-addr.arpa.", "first.set.default.svc.cluster.local."),
        (PTR, "9.0.244.10.in-addr.arpa.", "NoName"),
        (PTR, "6.0.96.10.in-addr.arpa.", "NoName"),
        (PTR, "1.2.0.192.in-addr.arpa.", "Elsewhere"),
        (A, "example.org.", "Elsewhere"),
        (A, "web.default.", "Elsewhere or 10.96.0.5"),
        (A, "web.default.svc.", "Elsewhere or 10.96.0.5"),
        (AAAA, "web.default.", "Elsewhere or Nothing"),
        (A, "gone.default.", "Elsewhere"),
        (A, "xcluster.local.", "Elsewhere"),
    ] {
        assert_eq!(ask(&zone, kind, name), expected, "{kind} {name}");
    }
}

#[test]
fn names_that_stand_for_names_are_followed() {
    use RecordType::{A, CNAME};
    let zone = zone();
    for (kind, name, aliases, last, expected) in [
        (A, "web", 0, "web.default.svc.cluster.local.", "10.96.0.5"),
        (A, "alias", 1, "web.default.svc.cluster.local.", "10.96.0.5"),
        (A, "second", 2, "web.default.svc.cluster.local.", "10.96.0.5"),
        (CNAME, "second", 1, "alias.default.svc.cluster.local.", "Nothing"),
        (A, "outer", 2, "example.org.", "Elsewhere"),
        (A, "short", 1, "web.default.", "Elsewhere or 10.96.0.5"),
        (A, "broken", 1, "gone.default.svc.cluster.local.", "NoName"),
        (
            A,
            "ring",
            8,
            "ring.default.svc.cluster.local.",
            "-> ring.default.svc.cluster.local.",
        ),
    ] {
        let question = Name::from_ascii(format!("{name}.default.svc.cluster.local.")).unwrap();
        let followed = zone.follow(&question, kind);
        assert_eq!(
            (followed.aliases.len(), followed.name.to_string().as_str()),
            (aliases, last),
            "{kind} {name}"
        );
        assert_eq!(shown(followed.answer), expected, "{kind} {name}");
    }
}

#[test]
fn what_is_gone_is_not_named() {
    let mut zone = zone();
    let service: Service =
        serde_json::from_value(json!({"metadata": {"namespace": "default", "name": "web"}})).unwrap();
    let named = zone.picture().service(Change::Deleted(Arc::new(service))).unwrap();
    zone.refresh(&named);
    assert_eq!(ask(&zone, RecordType::A, "web.default.svc.cluster.local."), "NoName");
    assert_eq!(ask(&zone, RecordType::PTR, "5.0.96.10.in-addr.arpa."), "NoName");
    let authority = zone.authority().unwrap();
    assert_eq!(authority.name.to_string(), "cluster.local.");
}
