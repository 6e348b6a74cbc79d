//! Decisions over fixtures of nodes and pods.
#![allow(clippy::unwrap_used, reason = "the fixtures are constants")]

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;

/// A ready node with 2 CPUs, 4 GiB and room for 3 pods, changed by `more`.
fn node(name: &str, more: Value) -> Value {
    let mut node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {},
        "status": {
            "allocatable": {"cpu": "2", "memory": "4Gi", "pods": "3"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    merge(&mut node, more);
    node
}

fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more,
    }
}

fn pod(name: &str, more: Value) -> Pod {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    });
    merge(&mut pod, more);
    serde_json::from_value(pod).unwrap()
}

fn asks(cpu: &str) -> Value {
    json!({"spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}]}})
}

fn snapshot(nodes: Vec<Value>, placed: Vec<(Pod, &str)>) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for node in nodes {
        snapshot.set_node(Arc::new(serde_json::from_value(node).unwrap()));
    }
    for (pod, node) in placed {
        snapshot.place(Arc::new(pod), node);
    }
    snapshot
}

fn message(pod: &Pod, snapshot: &Snapshot) -> String {
    decide(pod, snapshot, 0).unwrap_err().message
}

#[test]
fn one_node_that_suits() {
    let snapshot = snapshot(vec![node("n", json!({}))], vec![]);
    assert_eq!(decide(&pod("p", asks("1")), &snapshot, 0).unwrap().node, "n");
}

#[test]
fn why_not_in_upstreams_words() {
    let no_help =
        "no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.";
    let no_victims = "no new claims to deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.";
    let plain = || node("n", json!({}));
    let cases = [
        (
            "more than there is",
            plain(),
            vec![],
            asks("3"),
            "1 Insufficient cpu",
            no_help,
        ),
        (
            "more than is left",
            plain(),
            vec![(pod("a", asks("1500m")), "n")],
            asks("1"),
            "1 Insufficient cpu",
            no_victims,
        ),
        (
            "no room",
            node("n", json!({"status": {"allocatable": {"pods": "1"}}})),
            vec![(pod("a", json!({})), "n")],
            json!({}),
            "1 Too many pods",
            no_victims,
        ),
        (
            "what no node has",
            plain(),
            vec![],
            json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"example.com/gpu": "1"}}}]}}),
            "1 Insufficient example.com/gpu",
            no_help,
        ),
        (
            "several things at once",
            plain(),
            vec![],
            json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "3", "memory": "5Gi"}}}]}}),
            "1 Insufficient cpu, 1 Insufficient memory",
            no_help,
        ),
        (
            "a taint",
            node("n", json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}})),
            vec![],
            json!({}),
            "1 node(s) had untolerated taint(s)",
            no_help,
        ),
        (
            "not ready",
            node(
                "n",
                json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}),
            ),
            vec![],
            json!({}),
            "1 node(s) had untolerated taint(s)",
            no_help,
        ),
        (
            "cordoned",
            node("n", json!({"spec": {"unschedulable": true}})),
            vec![],
            json!({}),
            "1 node(s) were unschedulable",
            no_help,
        ),
        (
            "a selector",
            plain(),
            vec![],
            json!({"spec": {"nodeSelector": {"disk": "ssd"}}}),
            "1 node(s) didn't match Pod's node affinity/selector",
            no_help,
        ),
        (
            "a port",
            plain(),
            vec![(
                pod(
                    "a",
                    json!({"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]}}),
                ),
                "n",
            )],
            json!({"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]}}),
            "1 node(s) didn't have free ports for the requested pod ports",
            no_victims,
        ),
        (
            "preemption is not wanted",
            plain(),
            vec![],
            json!({"spec": {"nodeSelector": {"disk": "ssd"}, "preemptionPolicy": "Never"}}),
            "1 node(s) didn't match Pod's node affinity/selector",
            "no new claims to deallocate, preemption: not eligible due to preemptionPolicy=Never.",
        ),
        (
            "a claim",
            plain(),
            vec![],
            json!({"spec": {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}}),
            "persistentvolumeclaim \"data\" not found",
            no_help,
        ),
    ];
    for (what, node, placed, more, why, preemption) in cases {
        let snapshot = snapshot(vec![node], placed);
        let want = format!("0/1 nodes are available: {why}. {preemption}");
        assert_eq!(message(&pod("p", more), &snapshot), want, "{what}");
    }
}

#[test]
fn reasons_are_counted() {
    let taint = json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}});
    let snapshot = snapshot(
        vec![node("a", taint.clone()), node("b", taint), node("c", json!({}))],
        vec![(pod("x", asks("2")), "c")],
    );
    assert_eq!(
        message(&pod("p", asks("1")), &snapshot),
        "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s). no new claims to deallocate, preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, 2 Preemption is not helpful for scheduling."
    );
}

#[test]
fn no_nodes() {
    let refusal = decide(&pod("p", json!({})), &Snapshot::default(), 0).unwrap_err();
    assert_eq!(refusal.message, "no nodes available to schedule pods");
    assert!(
        refusal
            .filters
            .iter()
            .any(|filter| filter.is_helped_by(crate::Event::Node))
    );
}

#[test]
fn tolerations() {
    let tainted = || {
        node(
            "n",
            json!({"spec": {"taints": [{"key": "a", "value": "1", "effect": "NoSchedule"}]}}),
        )
    };
    for (toleration, fits) in [
        (
            json!({"key": "a", "operator": "Equal", "value": "1", "effect": "NoSchedule"}),
            true,
        ),
        (json!({"key": "a", "value": "1"}), true),
        (json!({"key": "a", "operator": "Exists"}), true),
        (json!({"operator": "Exists"}), true),
        (json!({"key": "a", "value": "2"}), false),
        (json!({"key": "b", "operator": "Exists"}), false),
        (json!({"key": "a", "operator": "Exists", "effect": "NoExecute"}), false),
    ] {
        let pod = pod("p", json!({"spec": {"tolerations": [toleration]}}));
        assert_eq!(
            decide(&pod, &snapshot(vec![tainted()], vec![]), 0).is_ok(),
            fits,
            "{toleration}"
        );
    }
}

#[test]
fn node_affinity() {
    let labelled = || node("n", json!({"metadata": {"labels": {"disk": "ssd", "cores": "8"}}}));
    let require = |term: Value| json!({"spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}}});
    let label = |key: &str, operator: &str, values: &[&str]| {
        require(json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]}))
    };
    for (more, fits) in [
        (label("disk", "In", &["ssd", "nvme"]), true),
        (label("disk", "NotIn", &["ssd"]), false),
        (label("gpu", "NotIn", &["x"]), true),
        (label("disk", "Exists", &[]), true),
        (label("gpu", "DoesNotExist", &[]), true),
        (label("cores", "Gt", &["4"]), true),
        (label("cores", "Lt", &["4"]), false),
        (label("disk", "Gt", &["4"]), false),
        (
            require(json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]})),
            true,
        ),
        (
            require(json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["m"]}]})),
            false,
        ),
        (require(json!({})), false),
    ] {
        let snapshot = snapshot(vec![labelled()], vec![]);
        assert_eq!(decide(&pod("p", more.clone()), &snapshot, 0).is_ok(), fits, "{more}");
    }
}

#[test]
fn near_and_far() {
    let term =
        |app: &str| json!([{"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": app}}}]);
    let near = |app: &str| json!({"spec": {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term(app)}}}});
    let far = |app: &str| json!({"spec": {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term(app)}}}});
    let labelled = |app: &str, mut more: Value| {
        merge(&mut more, json!({"metadata": {"labels": {"app": app}}}));
        more
    };
    let both = || vec![node("a", json!({})), node("b", json!({}))];
    let one = || vec![node("a", json!({}))];
    let cache = || (pod("cache", labelled("cache", json!({}))), "b");
    let shy = || (pod("shy", labelled("shy", far("web"))), "a");

    assert_eq!(
        decide(&pod("p", near("cache")), &snapshot(both(), vec![cache()]), 0)
            .unwrap()
            .node,
        "b"
    );
    assert_eq!(
        decide(&pod("p", far("cache")), &snapshot(both(), vec![cache()]), 0)
            .unwrap()
            .node,
        "a"
    );
    let web = pod("p", labelled("web", json!({})));
    assert_eq!(decide(&web, &snapshot(both(), vec![shy()]), 0).unwrap().node, "b");
    assert!(
        message(&web, &snapshot(one(), vec![shy()]))
            .contains("1 node(s) didn't satisfy existing pods anti-affinity rules.")
    );
    assert!(
        message(&pod("p", near("cache")), &snapshot(one(), vec![]))
            .contains("1 node(s) didn't match pod affinity rules.")
    );
    // The first of a group that wants to be together has nobody to be near to.
    assert_eq!(
        decide(&pod("p", labelled("cache", near("cache"))), &snapshot(one(), vec![]), 0)
            .unwrap()
            .node,
        "a"
    );
}

#[test]
fn spread() {
    let zone = |name: &str, zone: &str| node(name, json!({"metadata": {"labels": {"zone": zone}}}));
    let more = json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}}]},
    });
    let web = |name: &str| pod(name, more.clone());
    let zones = || vec![zone("a", "1"), zone("b", "2")];
    assert_eq!(
        decide(&web("p"), &snapshot(zones(), vec![(web("x"), "a")]), 0)
            .unwrap()
            .node,
        "b"
    );
    let full = snapshot(
        vec![
            zone("a", "1"),
            node(
                "b",
                json!({"metadata": {"labels": {"zone": "2"}}, "status": {"allocatable": {"pods": "0"}}}),
            ),
        ],
        vec![(web("x"), "a")],
    );
    assert!(message(&web("p"), &full).contains("1 node(s) didn't match pod topology spread constraints"));
    let unlabelled = snapshot(vec![node("a", json!({}))], vec![]);
    assert!(message(&web("p"), &unlabelled).contains("(missing required label)"));
}

#[test]
fn the_best_of_several() {
    let both = || vec![node("a", json!({})), node("b", json!({}))];
    // The emptier one.
    assert_eq!(
        decide(
            &pod("p", asks("100m")),
            &snapshot(both(), vec![(pod("x", asks("1")), "a")]),
            0
        )
        .unwrap()
        .node,
        "b"
    );
    // The one without a taint that is rather not had.
    let soft = json!({"spec": {"taints": [{"key": "a", "effect": "PreferNoSchedule"}]}});
    let tainted = snapshot(vec![node("a", soft), node("b", json!({}))], vec![]);
    assert_eq!(decide(&pod("p", json!({})), &tainted, 0).unwrap().node, "b");
    // The one that is wished for.
    let wish = json!({"spec": {"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 1, "preference": {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["b"]}]}},
    ]}}}});
    assert_eq!(decide(&pod("p", wish), &snapshot(both(), vec![]), 0).unwrap().node, "b");
    // The one that has the image.
    let image = json!({"status": {"images": [{"names": ["i:latest"], "sizeBytes": 900_000_000}]}});
    let holder = snapshot(vec![node("a", json!({})), node("b", image)], vec![]);
    assert_eq!(decide(&pod("p", json!({})), &holder, 0).unwrap().node, "b");
    // Equals take turns.
    let equal = snapshot(both(), vec![]);
    let turns: Vec<String> = (0..4)
        .map(|turn| decide(&pod("p", json!({})), &equal, turn).unwrap().node)
        .collect();
    assert_eq!(turns, ["a", "b", "a", "b"]);
}
