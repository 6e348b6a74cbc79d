//! Updates of pods, whole and by their parts.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::super::{ephemeral_containers, resize, update, update_status};
use super::{one, pod, shown, with};

const ONLY: &str = "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n";

#[test]
fn the_spec() {
    let toleration = json!({"key": "a", "operator": "Exists", "effect": "NoExecute"});
    let longer = json!({"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5});
    let gated = |more: Value| {
        let mut spec = with(more);
        spec["schedulingGates"] = json!([{"name": "g"}]);
        spec
    };
    let changed = format!("{ONLY}- spec.hostname: \"a\"\n+ spec.hostname: \"b\"\n");
    let command = format!("{ONLY}+ spec.containers[0].command: [\"sh\"]\n");
    let selector = format!("{ONLY}+ spec.nodeSelector: {{\"a\":\"b\"}}\n");
    let cases: Vec<(Value, Value, Vec<&str>)> = vec![
        (with(json!({})), with(json!({})), vec![]),
        (one(json!({"image": "a"})), one(json!({"image": "b"})), vec![]),
        (
            with(json!({"activeDeadlineSeconds": 9})),
            with(json!({"activeDeadlineSeconds": 5})),
            vec![],
        ),
        (
            with(json!({"activeDeadlineSeconds": 5})),
            with(json!({"activeDeadlineSeconds": 9})),
            vec!["spec.activeDeadlineSeconds: Invalid value: 9: must be less than or equal to previous value"],
        ),
        (with(json!({})), with(json!({"tolerations": [toleration]})), vec![]),
        (
            with(json!({"tolerations": [toleration]})),
            with(json!({"tolerations": [longer]})),
            vec![],
        ),
        (
            with(json!({"tolerations": [toleration]})),
            with(json!({})),
            vec!["spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"],
        ),
        (
            with(json!({"hostname": "a"})),
            with(json!({"hostname": "b"})),
            vec![&changed],
        ),
        (one(json!({})), one(json!({"command": ["sh"]})), vec![&command]),
        (
            with(json!({})),
            json!({"containers": [{"name": "c", "image": "i"}, {"name": "d", "image": "i"}]}),
            vec!["spec.containers: Forbidden: pod updates may not add or remove containers"],
        ),
        (
            with(json!({})),
            with(json!({"nodeSelector": {"a": "b"}})),
            vec![&selector],
        ),
        (gated(json!({})), gated(json!({"nodeSelector": {"a": "b"}})), vec![]),
        (
            gated(json!({"nodeSelector": {"a": "b"}})),
            gated(json!({"nodeSelector": {"a": "c"}})),
            vec![
                r#"spec.nodeSelector: Invalid value: {"a":"c"}: only additions to spec.nodeSelector are allowed (no mutations or deletions)"#,
            ],
        ),
        (gated(json!({})), with(json!({})), vec![]),
        (
            with(json!({})),
            gated(json!({})),
            vec![
                "spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'g'",
            ],
        ),
        (
            with(json!({"terminationGracePeriodSeconds": -1})),
            with(json!({"terminationGracePeriodSeconds": 1})),
            vec![],
        ),
    ];
    for (old, new, want) in cases {
        assert_eq!(
            shown(&update(&pod(new.clone()), &pod(old.clone()))),
            want,
            "{old} -> {new}"
        );
    }
}

fn with_status(policy: &str, status: Value) -> Pod {
    let mut pod = pod(with(json!({"restartPolicy": policy})));
    pod.status = serde_json::from_value(status).unwrap_or_else(|error| panic!("a fixture: {error}"));
    pod
}

#[test]
fn the_status() {
    let state = |state: Value| json!({"containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state}]});
    let ended = |code: i32| state(json!({"terminated": {"exitCode": code}}));
    let back = "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state";
    for (policy, old, new, want) in [
        ("Never", ended(1), state(json!({"running": {}})), vec![back]),
        ("OnFailure", ended(1), state(json!({"running": {}})), vec![]),
        ("OnFailure", ended(0), state(json!({"running": {}})), vec![back]),
        ("Always", ended(0), state(json!({"running": {}})), vec![]),
        ("Never", ended(1), ended(1), vec![]),
        (
            "Always",
            json!({"qosClass": "BestEffort"}),
            json!({"qosClass": "Burstable"}),
            vec![r#"status.qosClass: Invalid value: "Burstable": field is immutable"#],
        ),
        (
            "Always",
            json!({}),
            json!({"podIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]}),
            vec![
                r#"status.podIPs: Invalid value: [{"ip":"10.0.0.1"},{"ip":"10.0.0.2"}]: may specify no more than one IP for each IP family"#,
            ],
        ),
        (
            "Always",
            json!({}),
            json!({"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}),
            vec![],
        ),
        (
            "Always",
            json!({}),
            json!({"hostIP": "10.0.0.1", "hostIPs": [{"ip": "10.0.0.2"}]}),
            vec![r#"status.hostIPs[0].ip: Invalid value: "10.0.0.2": must be equal to `hostIP`"#],
        ),
    ] {
        let got = shown(&update_status(
            &with_status(policy, new.clone()),
            &with_status(policy, old.clone()),
        ));
        assert_eq!(got, want, "{policy}: {old} -> {new}");
    }
    let rules = json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]);
    let asks = |status: Value| {
        let mut pod = with_status("Never", status);
        let containers = pod
            .spec
            .as_mut()
            .map(|spec| spec.containers.iter_mut())
            .into_iter()
            .flatten();
        for container in containers {
            container.restart_policy_rules = serde_json::from_value(rules.clone()).ok();
        }
        pod
    };
    let got = shown(&update_status(&asks(state(json!({"running": {}}))), &asks(ended(0))));
    assert_eq!(got, Vec::<String>::new(), "one container may start them all anew");
}

#[test]
fn debugging_containers() {
    let debug = |containers: Value| pod(with(json!({"ephemeralContainers": containers})));
    let sh = json!({"name": "sh", "image": "busybox", "targetContainerName": "c"});
    let cases: Vec<(Value, Value, Vec<String>)> = vec![
        (json!([]), json!([sh]), vec![]),
        (
            json!([sh]),
            json!([]),
            vec![
                "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"sh\" may not be removed\n"
                    .to_owned(),
            ],
        ),
        (
            json!([]),
            json!([{"name": "c", "image": "i", "ports": [{"containerPort": 1, "protocol": "TCP"}], "targetContainerName": "x"}]),
            vec![
                r#"spec.ephemeralContainers[0].name: Duplicate value: "c""#.to_owned(),
                r#"spec.ephemeralContainers[0].targetContainerName: Not found: "x""#.to_owned(),
                "spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container".to_owned(),
            ],
        ),
    ];
    for (old, new, want) in cases {
        let got = shown(&ephemeral_containers(&debug(new.clone()), &debug(old.clone())));
        assert_eq!(got, want, "{old} -> {new}");
    }
    let mut mirror = debug(json!([]));
    mirror.metadata.annotations = Some([("kubernetes.io/config.mirror".to_owned(), "x".to_owned())].into());
    assert_eq!(
        shown(&ephemeral_containers(&debug(json!([sh])), &mirror)),
        ["[]: Forbidden: static pods do not support ephemeral containers"]
    );
}

#[test]
fn resizing() {
    let asks = |requests: Value| pod(one(json!({"resources": {"requests": requests}})));
    for (old, new, want) in [
        (json!({"cpu": "1"}), json!({"cpu": "2"}), vec![]),
        (
            json!({"cpu": "1", "memory": "1Gi"}),
            json!({"cpu": "1"}),
            vec!["spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"],
        ),
        (
            json!({}),
            json!({"cpu": "1"}),
            vec![r#"spec: Invalid value: "Burstable": Pod QOS Class may not change as a result of resizing"#],
        ),
        (
            json!({"cpu": "1", "ephemeral-storage": "1Gi"}),
            json!({"cpu": "1", "ephemeral-storage": "2Gi"}),
            vec!["spec: Forbidden: only cpu and memory resources are mutable"],
        ),
    ] {
        assert_eq!(
            shown(&resize(&asks(new.clone()), &asks(old.clone()))),
            want,
            "{old} -> {new}"
        );
    }
}

#[test]
fn resizing_what_is_not_a_plain_container() {
    let container = |name: &str, cpu: &str| {
        let policy = name.ends_with('!').then_some("RestartContainer");
        let policy = policy.map(|policy| json!([{"resourceName": "cpu", "restartPolicy": policy}]));
        json!({
            "name": name.trim_end_matches('!'), "image": "i",
            "resources": {"requests": {"cpu": cpu}}, "resizePolicy": policy,
        })
    };
    let of = |containers: Value, inits: Value| json!({"containers": containers, "initContainers": inits});
    let plain = container("c", "1");
    let whole = |resources: Value| with(json!({"resources": resources}));
    let changed_policy = json!({
        "name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}},
        "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"}],
    });
    let mutable = "spec: Forbidden: only cpu and memory resources are mutable";
    for (old, new, want) in [
        (
            of(json!([plain]), json!([container("i", "1")])),
            of(json!([plain]), json!([container("i", "2")])),
            vec![],
        ),
        (
            of(json!([plain]), json!([])),
            of(json!([changed_policy]), json!([])),
            vec![mutable],
        ),
        (
            of(json!([plain, container("d", "1")]), json!([])),
            of(json!([container("d", "1"), plain]), json!([])),
            vec![
                "spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize",
                "spec.containers[1].name: Forbidden: containers may not be renamed or reordered on resize",
            ],
        ),
        (
            of(json!([plain]), json!([container("i!", "1")])),
            of(json!([plain]), json!([container("i!", "2")])),
            vec![
                "spec.initContainers[0]: Forbidden: non-sidecar init containers with a resize policy of RestartContainer cannot be resized",
            ],
        ),
        (
            of(json!([plain]), json!([])),
            of(json!([plain]), json!([container("i", "1")])),
            vec!["spec.initContainers: Forbidden: initContainers may not be added or removed on resize"],
        ),
        (
            whole(json!({"requests": {"cpu": "1"}})),
            whole(json!({"requests": {"cpu": "2", "memory": "1Gi"}})),
            vec![],
        ),
        (
            whole(json!({"requests": {"cpu": "1", "memory": "1Gi"}})),
            whole(json!({"requests": {"cpu": "1"}})),
            vec!["spec.resources.requests: Forbidden: pod-level resource requests cannot be removed"],
        ),
        (
            whole(json!({"requests": {"cpu": "1"}})),
            of(
                json!([json!({"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}}})]),
                json!([]),
            ),
            vec!["spec.resources: Forbidden: pod-level resources cannot be removed"],
        ),
    ] {
        assert_eq!(
            shown(&resize(&pod(new.clone()), &pod(old.clone()))),
            want,
            "{old} -> {new}"
        );
    }
    let blind = |cpu: &str| {
        let mut pod = pod(of(json!([container("c", cpu)]), json!([])));
        pod.status = serde_json::from_value(json!({"containerStatuses": [
            {"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}}},
        ]}))
        .unwrap_or_else(|error| panic!("a fixture: {error}"));
        pod
    };
    assert_eq!(
        shown(&resize(&blind("2"), &blind("1"))),
        ["spec: Forbidden: Pod running on node without support for resize"]
    );
}
