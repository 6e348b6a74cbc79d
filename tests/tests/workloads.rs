//! Deployments, ReplicaSets, and what becomes of objects when their owners go.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tests::{Cluster, Options, eventually};

fn cluster() -> Cluster {
    Cluster::with(Options {
        images: &["busybox"],
        ..Options::default()
    })
}

/// A Deployment whose containers obey SIGTERM.
fn deployment(name: &str, replicas: u32, more: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
{more}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      containers:
      - name: main
        image: localhost/busybox:1
        command: [sh, -c, \"trap 'exit 0' TERM; sleep 100000 & wait\"]
"
    )
}

fn get(cluster: &Cluster, what: &[&str]) -> Value {
    let output = cluster.kubectl(&[&["get", "-o", "json"], what].concat()).ok();
    serde_json::from_str(&output).expect("kubectl prints JSON")
}

/// The objects that kubectl lists, by name.
fn names(cluster: &Cluster, what: &[&str]) -> BTreeSet<String> {
    let output = cluster.kubectl(&[&["get", "-o", "name"], what].concat()).ok();
    output.lines().map(str::to_owned).collect()
}

#[track_caller]
fn rolled_out(cluster: &Cluster, name: &str) {
    let output = cluster.kubectl(&["rollout", "status", "deployment", name, "--timeout=90s"]);
    if output.code != 0 {
        let all = cluster.kubectl(&["get", "deployments,replicasets,pods,events", "-o", "wide"]);
        panic!("{output}\n{all}\n{}", cluster.log());
    }
    let last = output.stdout.lines().last().unwrap_or_default();
    assert_eq!(last, format!("deployment \"{name}\" successfully rolled out"));
}

fn events(cluster: &Cluster, about: &str, reason: &str) -> Vec<String> {
    let field = format!("involvedObject.name={about},reason={reason}");
    let all = get(cluster, &["events", "--field-selector", &field]);
    let messages = all["items"].as_array().expect("a list").iter();
    messages
        .filter_map(|event| event["message"].as_str())
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_deployment_is_created_scaled_rolled_out_and_back() {
    let cluster = cluster();
    let kubectl = |args: &[&str]| cluster.kubectl(args).ok();
    assert_eq!(
        kubectl(&[
            "create",
            "deployment",
            "web",
            "--image=localhost/busybox:1",
            "--replicas=3",
            "--port=8080",
            "--",
            "sh",
            "-c",
            "trap 'exit 0' TERM; sleep 100000 & wait",
        ]),
        "deployment.apps/web created\n"
    );
    rolled_out(&cluster, "web");

    let set = get(&cluster, &["replicasets", "-l", "app=web"])["items"][0].clone();
    let hash = set["metadata"]["labels"]["pod-template-hash"]
        .as_str()
        .expect("a hash")
        .to_owned();
    let set_name = format!("web-{hash}");
    assert_eq!(set["metadata"]["name"], set_name);
    assert_eq!(
        set["metadata"]["annotations"],
        json!({
            "deployment.kubernetes.io/desired-replicas": "3",
            "deployment.kubernetes.io/max-replicas": "4",
            "deployment.kubernetes.io/revision": "1",
        })
    );
    let pods = get(&cluster, &["pods", "-l", "app=web"])["items"].clone();
    let pods = pods.as_array().expect("a list");
    assert_eq!(pods.len(), 3);
    for pod in pods {
        let meta = &pod["metadata"];
        assert_eq!(meta["generateName"], format!("{set_name}-"));
        let name = meta["name"].as_str().expect("a name");
        assert_eq!(name.len(), set_name.len() + 6, "{name}");
        assert_eq!(
            meta["ownerReferences"],
            json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": set_name, "uid": set["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true}])
        );
        let told = events(&cluster, &set_name, "SuccessfulCreate");
        assert!(told.contains(&format!("Created pod: {name}")), "{told:?}");
    }
    assert_eq!(
        events(&cluster, "web", "ScalingReplicaSet"),
        [format!("Scaled up replica set {set_name} from 0 to 3")]
    );

    let fields = |text: String| -> Vec<Vec<String>> {
        text.lines()
            .map(|line| line.split_whitespace().map(str::to_owned).collect())
            .collect()
    };
    let wide = fields(kubectl(&["get", "deployments", "-o", "wide"]));
    assert_eq!(
        wide[0],
        [
            "NAME",
            "READY",
            "UP-TO-DATE",
            "AVAILABLE",
            "AGE",
            "CONTAINERS",
            "IMAGES",
            "SELECTOR"
        ]
    );
    assert_eq!(wide[1][..4], ["web", "3/3", "3", "3"]);
    assert_eq!(wide[1][5..], ["busybox", "localhost/busybox:1", "app=web"]);
    let wide = fields(kubectl(&["get", "rs", "-o", "wide"]));
    assert_eq!(
        wide[0],
        [
            "NAME",
            "DESIRED",
            "CURRENT",
            "READY",
            "AGE",
            "CONTAINERS",
            "IMAGES",
            "SELECTOR"
        ]
    );
    assert_eq!(wide[1][..4], [&*set_name, "3", "3", "3"]);
    assert_eq!(wide[1][7], format!("app=web,pod-template-hash={hash}"));
    let described = kubectl(&["describe", "deployment", "web"]);
    for part in [
        "Replicas:               3 desired | 3 updated | 3 total | 3 available | 0 unavailable",
        "RollingUpdateStrategy:  25% max unavailable, 25% max surge",
        "Available      True    MinimumReplicasAvailable",
        "Progressing    True    NewReplicaSetAvailable",
        &format!("NewReplicaSet:   {set_name} (3/3 replicas created)"),
    ] {
        assert!(described.contains(part), "{part} is not in\n{described}");
    }
    let status = get(&cluster, &["deployment", "web"])["status"].clone();
    let message = |kind: &str| {
        let conditions = status["conditions"].as_array().expect("a list").iter();
        let mut found = conditions.filter(|condition| condition["type"] == kind);
        found.next().map(|condition| condition["message"].clone())
    };
    assert_eq!(
        message("Progressing"),
        Some(json!(format!("ReplicaSet \"{set_name}\" has successfully progressed.")))
    );
    assert_eq!(
        message("Available"),
        Some(json!("Deployment has minimum availability."))
    );
    assert_eq!(status["terminatingReplicas"], 0);

    // scale
    assert_eq!(
        kubectl(&["scale", "deployment/web", "--replicas=5"]),
        "deployment.apps/web scaled\n"
    );
    rolled_out(&cluster, "web");
    let scale: Value = serde_json::from_str(&kubectl(&[
        "get",
        "--raw",
        "/apis/apps/v1/namespaces/default/deployments/web/scale",
    ]))
    .expect("JSON");
    assert_eq!(
        (&scale["kind"], &scale["apiVersion"]),
        (&json!("Scale"), &json!("autoscaling/v1"))
    );
    assert_eq!(
        (&scale["spec"], &scale["status"]),
        (&json!({"replicas": 5}), &json!({"replicas": 5, "selector": "app=web"}))
    );
    kubectl(&["scale", "deployment/web", "--replicas=2", "--current-replicas=5"]);
    let wrong = cluster
        .kubectl(&["scale", "deployment/web", "--replicas=2", "--current-replicas=5"])
        .fails();
    assert!(wrong.contains("Expected replicas to be 5, was 2"), "{wrong}");
    eventually("three pods go", || {
        (names(&cluster, &["pods", "-l", "app=web"]).len() == 2).then_some(())
    });
    assert_eq!(
        events(&cluster, "web", "ScalingReplicaSet").last(),
        Some(&format!("Scaled down replica set {set_name} from 5 to 2"))
    );

    // set, history, undo
    assert_eq!(
        kubectl(&["set", "env", "deployment/web", "A=1"]),
        "deployment.apps/web env updated\n"
    );
    rolled_out(&cluster, "web");
    kubectl(&["annotate", "deployment", "web", "kubernetes.io/change-cause=second"]);
    let history = |name: &str| {
        let text = kubectl(&["rollout", "history", name]);
        fields(text)
            .split_off(2)
            .into_iter()
            .filter(|line| !line.is_empty())
            .collect::<Vec<_>>()
    };
    eventually("the cause is copied", || {
        (history("deployment/web") == [vec!["1", "<none>"], vec!["2", "second"]]).then_some(())
    });
    let second = kubectl(&["rollout", "history", "deployment/web", "--revision=2"]);
    assert!(second.contains("A:\t1"), "{second}");
    assert_eq!(
        kubectl(&["rollout", "undo", "deployment/web"]),
        "deployment.apps/web rolled back\n"
    );
    rolled_out(&cluster, "web");
    eventually("the first is the third", || {
        (history("deployment/web") == [vec!["2", "second"], vec!["3", "<none>"]]).then_some(())
    });
    let names_now = names(&cluster, &["pods", "-l", &format!("pod-template-hash={hash}")]);
    assert_eq!(names_now.len(), 2);

    // pause, resume, restart
    assert_eq!(
        kubectl(&["rollout", "pause", "deployment/web"]),
        "deployment.apps/web paused\n"
    );
    kubectl(&["set", "env", "deployment/web", "A=2"]);
    kubectl(&[
        "wait",
        "deployment/web",
        "--for=jsonpath={.status.conditions[?(@.type==\"Progressing\")].reason}=DeploymentPaused",
    ]);
    assert_eq!(names(&cluster, &["pods", "-l", "app=web"]), names_now);
    assert_eq!(
        kubectl(&["rollout", "resume", "deployment/web"]),
        "deployment.apps/web resumed\n"
    );
    rolled_out(&cluster, "web");
    assert_eq!(
        kubectl(&["rollout", "restart", "deployment/web"]),
        "deployment.apps/web restarted\n"
    );
    rolled_out(&cluster, "web");
    assert_eq!(
        kubectl(&["wait", "deployment/web", "--for=condition=Available"]),
        "deployment.apps/web condition met\n"
    );

    // An image that cannot be had: the old pods stay, the deadline passes, and undo mends it.
    kubectl(&[
        "patch",
        "deployment",
        "web",
        "-p",
        "{\"spec\":{\"progressDeadlineSeconds\":2}}",
    ]);
    kubectl(&["set", "image", "deployment/web", "busybox=localhost/nothing:1"]);
    let stuck = cluster.kubectl(&["rollout", "status", "deployment/web"]).fails();
    assert!(
        stuck.contains("deployment \"web\" exceeded its progress deadline"),
        "{stuck}"
    );
    assert_eq!(get(&cluster, &["deployment", "web"])["status"]["availableReplicas"], 2);
    kubectl(&["rollout", "undo", "deployment/web"]);
    rolled_out(&cluster, "web");

    // A pod that strays is replaced; one that comes back is one too many.
    let pods = names(&cluster, &["pods", "-l", "app=web"]);
    let strayed = pods.first().expect("a pod");
    kubectl(&["label", "--overwrite", strayed, "app=other"]);
    eventually("another takes its place", || {
        (names(&cluster, &["pods", "-l", "app=web"]).len() == 2).then_some(())
    });
    eventually("the strayed one has no owner", || {
        get(&cluster, &[strayed])["metadata"]["ownerReferences"]
            .is_null()
            .then_some(())
    });
    kubectl(&["label", "--overwrite", strayed, "app=web"]);
    eventually("two are left", || {
        let pods = get(&cluster, &["pods"])["items"].clone();
        let mut owned = pods
            .as_array()?
            .iter()
            .filter(|pod| !pod["metadata"]["ownerReferences"].is_null());
        (pods.as_array()?.len() == 2 && owned.by_ref().count() == 2).then_some(())
    });

    // Recreation: no old pod beside a new one.
    kubectl(&[
        "patch",
        "deployment",
        "web",
        "-p",
        "{\"spec\":{\"progressDeadlineSeconds\":600,\"strategy\":{\"$retainKeys\":[\"type\"],\"type\":\"Recreate\"}}}",
    ]);
    kubectl(&["set", "env", "deployment/web", "A=3"]);
    rolled_out(&cluster, "web");
    eventually("only new pods are there", || {
        (names(&cluster, &["pods"]).len() == 2).then_some(())
    });
    kubectl(&["delete", "deployment", "web"]);
    eventually("all went with it", || {
        names(&cluster, &["deployments,replicasets,pods"])
            .is_empty()
            .then_some(())
    });
}

#[test]
fn manifests_are_applied_changed_and_refused() {
    let cluster = cluster();
    let kubectl = |args: &[&str]| cluster.kubectl(args).ok();
    let manifest = deployment(
        "web",
        2,
        "  strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}",
    );
    let apply = |manifest: &str| cluster.kubectl_with(&["apply", "-f", "-"], manifest).ok();
    assert_eq!(apply(&manifest), "deployment.apps/web created\n");
    assert_eq!(apply(&manifest), "deployment.apps/web unchanged\n");
    rolled_out(&cluster, "web");
    let changed = manifest
        .replace("replicas: 2", "replicas: 3")
        .replace("- name: main", "- name: main\n        env: [{name: B, value: x}]");
    let diff = cluster.kubectl_with(&["diff", "-f", "-"], &changed);
    assert!(
        diff.code == 1 && diff.stdout.contains("+  replicas: 3") && diff.stdout.contains("+        - name: B"),
        "{diff}"
    );
    assert_eq!(apply(&changed), "deployment.apps/web configured\n");
    rolled_out(&cluster, "web");
    let found = get(&cluster, &["deployment", "web"]);
    assert!(found["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"].is_string());
    // What is taken out of the manifest is taken out of the object; what others wrote stays.
    kubectl(&["label", "deployment", "web", "team=blue"]);
    assert_eq!(apply(&manifest), "deployment.apps/web configured\n");
    rolled_out(&cluster, "web");
    let found = get(&cluster, &["deployment", "web"]);
    assert!(
        found["spec"]["template"]["spec"]["containers"][0].get("env").is_none(),
        "{found}"
    );
    assert_eq!(found["metadata"]["labels"], json!({"app": "web", "team": "blue"}));

    // edit and replace
    let mut edit = cluster.kubectl_command();
    edit.args(["edit", "deployment", "web"])
        .env("KUBE_EDITOR", "sed -i s/team:.blue/team:\\ red/");
    assert_eq!(tests::run(&mut edit, "").ok(), "deployment.apps/web edited\n");
    assert_eq!(
        get(&cluster, &["deployment", "web"])["metadata"]["labels"]["team"],
        "red"
    );
    let replaced = cluster.kubectl_with(&["replace", "-f", "-"], &manifest).ok();
    assert_eq!(replaced, "deployment.apps/web replaced\n");
    assert_eq!(
        get(&cluster, &["deployment", "web"])["metadata"]["labels"],
        json!({"app": "web"})
    );
    assert_eq!(
        kubectl(&["expose", "deployment", "web", "--port=80", "--target-port=8080"]),
        "service/web exposed\n"
    );
    assert_eq!(
        get(&cluster, &["service", "web"])["spec"]["selector"],
        json!({"app": "web"})
    );
    assert_eq!(
        kubectl(&[
            "run",
            "once",
            "--image=localhost/busybox:1",
            "--restart=Never",
            "--",
            "true"
        ]),
        "pod/once created\n"
    );

    // What is refused leaves what is there as it was.
    let before = get(&cluster, &["deployment", "web"])["metadata"]["generation"].clone();
    for (wrong, message) in [
        (
            manifest.replace("matchLabels: {app: web}", "matchLabels: {app: other}"),
            "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
        ),
        (
            manifest.replace("{app: web}", "{app: other}"),
            "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"other\"}}: field is immutable",
        ),
        (
            manifest.replace("image: localhost/busybox:1", "image: ''"),
            "spec.template.spec.containers[0].image: Required value",
        ),
        (
            manifest.replace("replicas: 2", "replicas: -2"),
            "spec.replicas: Invalid value: -2: must be greater than or equal to 0",
        ),
        (
            manifest.replace("maxSurge: 1", "maxSurge: 0"),
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
        ),
    ] {
        let refused = cluster.kubectl_with(&["apply", "-f", "-"], &wrong).fails();
        assert!(
            refused.contains("The Deployment \"web\" is invalid") && refused.contains(message),
            "{refused}"
        );
    }
    let refused = cluster
        .kubectl(&["scale", "deployment", "web", "--replicas=-1"])
        .fails();
    assert!(
        refused.contains("The --replicas=COUNT flag is required, and COUNT must be greater than or equal to 0"),
        "{refused}"
    );
    assert_eq!(get(&cluster, &["deployment", "web"])["metadata"]["generation"], before);

    // Pods that are refused: the set says so, and goes on when they no longer are.
    let priority =
        deployment("late", 2, "").replace("      containers:", "      priorityClassName: soon\n      containers:");
    apply(&priority);
    let failed = eventually("the failure is a condition", || {
        let status = get(&cluster, &["deployment", "late"])["status"].clone();
        let conditions = status["conditions"].as_array()?.clone();
        conditions
            .into_iter()
            .find(|condition| condition["type"] == "ReplicaFailure")
    });
    assert_eq!(failed["reason"], "FailedCreate");
    let message = failed["message"].as_str().expect("a text");
    assert!(
        message.ends_with("is forbidden: no PriorityClass with name soon was found"),
        "{message}"
    );
    kubectl(&["create", "priorityclass", "soon", "--value=1"]);
    rolled_out(&cluster, "late");
}

/// A ConfigMap with owners, each a name and a uid.
fn owned(name: &str, owners: &[(&str, &str, bool)], finalizers: &[&str]) -> String {
    let owners: Vec<_> = owners
        .iter()
        .map(|(name, uid, block)| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid, "blockOwnerDeletion": block}))
        .collect();
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "ownerReferences": owners, "finalizers": finalizers}}).to_string()
}

#[test]
fn dependents_go_with_their_owners() {
    let cluster = Cluster::with(Options::default());
    let kubectl = |args: &[&str]| cluster.kubectl(args).ok();
    let uid = |name: &str| kubectl(&["get", "configmap", name, "-o", "jsonpath={.metadata.uid}"]);
    let is_gone = |name: &str| cluster.kubectl(&["get", "configmap", name]).code != 0;
    let all_gone = |names: &[&str]| {
        eventually(&format!("{names:?} are gone"), || {
            names.iter().all(|name| is_gone(name)).then_some(())
        });
    };
    let make = |name: &str, owners: &[&str], finalizers: &[&str]| {
        let owners: Vec<_> = owners.iter().map(|owner| (*owner, uid(owner), true)).collect();
        let owners: Vec<_> = owners
            .iter()
            .map(|(name, uid, block)| (*name, uid.as_str(), *block))
            .collect();
        cluster.create(&owned(name, &owners, finalizers));
    };

    // Background: gone at once, and what it owned after it, down to the last.
    make("a", &[], &[]);
    make("b", &["a"], &[]);
    make("c", &["b"], &[]);
    make("keeper", &[], &[]);
    make("kept", &["a", "keeper"], &[]);
    kubectl(&["delete", "configmap", "a"]);
    all_gone(&["b", "c"]);
    let kept = eventually("the reference to the owner that went is gone", || {
        let owners = get(&cluster, &["configmap", "kept"])["metadata"]["ownerReferences"].clone();
        (owners.as_array()?.len() == 1).then_some(owners)
    });
    assert_eq!(kept[0]["name"], "keeper");

    // Orphans.
    kubectl(&["delete", "configmap", "keeper", "--cascade=orphan"]);
    assert!(get(&cluster, &["configmap", "kept"])["metadata"]["ownerReferences"].is_null());

    // Foreground: the owner waits for what blocks it, and says so.
    make("d", &[], &[]);
    make("e", &["d"], &["example.com/hold"]);
    make("f", &["d"], &[]);
    kubectl(&["delete", "configmap", "d", "--cascade=foreground", "--wait=false"]);
    all_gone(&["f"]);
    eventually("the held one is going", || {
        get(&cluster, &["configmap", "e"])["metadata"]["deletionTimestamp"]
            .is_string()
            .then_some(())
    });
    let waiting = get(&cluster, &["configmap", "d"])["metadata"].clone();
    assert_eq!(waiting["finalizers"], json!(["foregroundDeletion"]));
    kubectl(&[
        "patch",
        "configmap",
        "e",
        "--type=merge",
        "-p",
        "{\"metadata\":{\"finalizers\":null}}",
    ]);
    all_gone(&["d", "e"]);

    // A cycle: each waits for the other, and both go.
    make("g", &[], &[]);
    make("h", &["g"], &[]);
    let owner = json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "h", "uid": uid("h"), "blockOwnerDeletion": true}]}});
    kubectl(&["patch", "configmap", "g", "-p", &owner.to_string()]);
    kubectl(&["delete", "configmap", "g", "--cascade=foreground", "--timeout=30s"]);
    all_gone(&["g", "h"]);

    // An owner that never was, by its uid or by its name.
    cluster.create(&owned("i", &[("nobody", "0", false)], &[]));
    cluster.create(&owned("j", &[("kept", "0", false)], &[]));
    all_gone(&["i", "j"]);
    // One of a kind that nobody knows may well be there.
    let unknown = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "k", "ownerReferences": [{"apiVersion": "example.com/v1", "kind": "Thing", "name": "t", "uid": "0"}]}});
    cluster.create(&unknown.to_string());

    // One in another namespace is none.
    kubectl(&["create", "namespace", "other"]);
    let far = owned("far", &[("kept", &uid("kept"), false)], &[]);
    cluster.kubectl_with(&["create", "-n", "other", "-f", "-"], &far).ok();
    eventually("it is gone", || {
        (cluster.kubectl(&["get", "-n", "other", "configmap", "far"]).code != 0).then_some(())
    });
    eventually("the author is told why", || {
        let told = kubectl(&["get", "events", "-n", "other", "-o", "jsonpath={.items[*].message}"]);
        told.contains("does not exist in namespace \"other\"").then_some(())
    });
    assert!(!is_gone("k"));

    // A finalizer that nobody removes holds its namespace, which says so, and nothing else.
    let held = owned("held", &[], &["example.com/hold"]);
    cluster.kubectl_with(&["create", "-n", "other", "-f", "-"], &held).ok();
    kubectl(&["delete", "namespace", "other", "--wait=false"]);
    eventually("the namespace says what it waits for", || {
        let message = kubectl(&[
            "get",
            "namespace",
            "other",
            "-o",
            "jsonpath={.status.conditions[?(@.type==\"NamespaceFinalizersRemaining\")].message}",
        ]);
        (message == "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances")
            .then_some(())
    });
    kubectl(&[
        "patch",
        "-n",
        "other",
        "configmap",
        "held",
        "--type=merge",
        "-p",
        "{\"metadata\":{\"finalizers\":null}}",
    ]);
    kubectl(&["wait", "--for=delete", "namespace/other", "--timeout=30s"]);
}

#[test]
fn a_killed_server_goes_on_where_it_was() {
    let mut cluster = cluster();
    cluster.kubectl(&["create", "namespace", "shop"]).ok();
    let in_shop = |cluster: &Cluster, args: &[&str]| cluster.kubectl(&[&["-n", "shop"], args].concat());
    let manifest = deployment(
        "web",
        4,
        "  strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 1}}",
    );
    cluster
        .kubectl_with(&["apply", "-n", "shop", "-f", "-"], &manifest)
        .ok();
    in_shop(&cluster, &["rollout", "status", "deployment/web", "--timeout=90s"]).ok();

    in_shop(&cluster, &["set", "env", "deployment/web", "A=1"]).ok();
    eventually("the rollout is under way", || {
        let updated = in_shop(
            &cluster,
            &["get", "deployment", "web", "-o", "jsonpath={.status.updatedReplicas}"],
        );
        matches!(&*updated.stdout, "1" | "2" | "3").then_some(())
    });
    cluster.kill_server();
    cluster.start_server();
    in_shop(&cluster, &["rollout", "status", "deployment/web", "--timeout=90s"]).ok();
    eventually("only new pods are left", || {
        let pods = in_shop(
            &cluster,
            &[
                "get",
                "pods",
                "-o",
                "jsonpath={.items[*].spec.containers[0].env[0].value}",
            ],
        );
        (pods.stdout == "1 1 1 1").then_some(())
    });

    // A namespace, in the middle of its deletion: one pod goes when the test lets it go, and what is no pod is there for
    // as long as it.
    let gate = cluster.dir().join("gate");
    std::fs::create_dir(&gate).expect("the gate");
    let wait = ["sh", "-c", "until [ -e /gate/open ]; do sleep 0.1; done"];
    let container = json!({"name": "main", "image": "localhost/busybox:1", "command": ["sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"],
        "volumeMounts": [{"name": "gate", "mountPath": "/gate"}], "lifecycle": {"preStop": {"exec": {"command": wait}}}});
    let slow = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "slow", "namespace": "shop"}, "spec": {
        "terminationGracePeriodSeconds": 300, "containers": [container], "volumes": [{"name": "gate", "hostPath": {"path": gate}}]}});
    cluster.create(&slow.to_string());
    in_shop(&cluster, &["create", "configmap", "kept"]).ok();
    in_shop(
        &cluster,
        &["wait", "--for=condition=Ready", "pod/slow", "--timeout=60s"],
    )
    .ok();
    in_shop(&cluster, &["delete", "namespace", "shop", "--wait=false"]).ok();
    let in_the_middle = |cluster: &Cluster| {
        eventually("only the slow pod is waited for", || {
            let path =
                "jsonpath={.status.phase} {.status.conditions[?(@.type==\"NamespaceContentRemaining\")].message}";
            let told = in_shop(cluster, &["get", "namespace", "shop", "-o", path]).ok();
            (told == "Terminating Some resources are remaining: pods. has 1 resource instances").then_some(())
        });
        let path = "jsonpath={.metadata.name} {.metadata.deletionTimestamp} {.status.phase}";
        let pod = in_shop(cluster, &["get", "pod", "slow", "-o", path]).ok();
        assert!(pod.starts_with("slow 20") && pod.ends_with(" Running"), "{pod}");
        let others = [
            "get",
            "configmap/kept",
            "deployment/web",
            "serviceaccount/default",
            "-o",
            "name",
        ];
        let others = in_shop(cluster, &others).ok();
        assert_eq!(others, "configmap/kept\ndeployment.apps/web\nserviceaccount/default\n");
    };
    in_the_middle(&cluster);
    cluster.kill_server();
    cluster.start_server();
    in_the_middle(&cluster);
    std::fs::write(gate.join("open"), "").expect("the gate opens");
    let gone = cluster.kubectl(&["wait", "--for=delete", "namespace/shop", "--timeout=60s"]);
    assert_eq!(gone.code, 0, "{gone}\n{}", cluster.log());
    eventually("no container is left", || {
        (cluster.podium(&["ps"]).ok().lines().count() == 1).then_some(())
    });
}

#[test]
fn pods_have_a_token_of_their_account_while_they_live() {
    let cluster = cluster();
    let pod = |name: &str, more: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{{more}terminationGracePeriodSeconds: 1, containers: [{{name: c, image: 'localhost/busybox:1', command: [sleep, '1000']}}]}}}}"
        )
    };
    let refused = cluster.kubectl_with(&["create", "-f", "-"], &pod("late", "serviceAccountName: nobody, "));
    let refused = refused.fails();
    assert!(
        refused.contains("pods \"late\" is forbidden: error looking up service account default/nobody: serviceaccount \"nobody\" not found"),
        "{refused}"
    );
    cluster.create(&pod("client", ""));
    cluster.create(&pod("bare", "automountServiceAccountToken: false, "));
    cluster.wait_ready("client");
    assert!(get(&cluster, &["pod", "bare"])["spec"].get("volumes").is_none());

    let read = |file: &str| {
        let path = format!("/var/run/secrets/kubernetes.io/serviceaccount/{file}");
        cluster.kubectl(&["exec", "client", "--", "cat", &path]).ok()
    };
    assert_eq!(read("namespace"), "default");
    let authority = cluster.dir().join("ca.crt");
    std::fs::write(&authority, read("ca.crt")).expect("the authority");
    let token = read("token");
    let as_pod = |args: &[&str]| {
        let mut command = cluster.netns.command(tests::target().join("tools/kubectl"));
        let server = format!("--server=https://{}:6443", tests::NODE_IP);
        command
            .env("HOME", cluster.dir())
            .env("KUBECONFIG", "/dev/null")
            .arg(server)
            .arg(format!("--certificate-authority={}", authority.display()))
            .arg(format!("--token={token}"))
            .args(args);
        tests::run(&mut command, "")
    };
    assert!(as_pod(&["get", "pods", "-o", "name"]).ok().contains("pod/client"));
    let whoami: Value = serde_json::from_str(&as_pod(&["auth", "whoami", "-o", "json"]).ok()).expect("JSON");
    let user = &whoami["status"]["userInfo"];
    assert_eq!(user["username"], "system:serviceaccount:default:default");
    assert_eq!(
        user["extra"]["authentication.kubernetes.io/pod-name"],
        json!(["client"])
    );
    assert_eq!(user["extra"]["authentication.kubernetes.io/node-name"], json!(["node"]));

    // The administrator sees what somebody else would.
    let acting = |who: &str, args: &[&str]| cluster.kubectl(&[&["--as", who][..], args].concat());
    let default = acting(
        "system:serviceaccount:default:default",
        &["auth", "whoami", "-o", "json"],
    )
    .ok();
    let default: Value = serde_json::from_str(&default).expect("JSON");
    let expected = json!({
        "username": "system:serviceaccount:default:default",
        "groups": ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"],
    });
    assert_eq!(default["status"]["userInfo"], expected);
    let refused = acting("system:anonymous", &["get", "pods"]).fails();
    assert_eq!(
        refused,
        "Error from server (Forbidden): pods is forbidden: User \"system:anonymous\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"\n"
    );

    cluster.kubectl(&["delete", "pod", "client"]).ok();
    let refused = as_pod(&["get", "pods"]).fails();
    assert!(refused.contains("You must be logged in to the server"), "{refused}");
}
