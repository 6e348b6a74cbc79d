//! Rollouts that get stuck, go back or replace everything at once, and ReplicaSets with and without a Deployment.

use std::fs::File;
use std::process::{Child, Stdio};

use serde_json::{Value, json};
use tests::{Cluster, Options, eventually};

const OBEDIENT: &str = "trap 'exit 0' TERM; sleep 100000 & wait";

/// The hash of a template, by which a set and its pods are told apart.
const HASH: &str = "pod-template-hash";

fn manifest(kind: &str, name: &str, spec: Value) -> String {
    let labels = json!({"app": name});
    let container = json!({"name": "main", "image": "localhost/busybox:1", "command": ["sh", "-c", OBEDIENT]});
    let mut object = json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": {
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
    }});
    for (field, value) in spec.as_object().expect("fields") {
        object["spec"][field] = value.clone();
    }
    object.to_string()
}

fn items(cluster: &Cluster, kind: &str) -> Vec<Value> {
    let listed = cluster.kubectl(&["get", kind, "-o", "json"]).ok();
    let listed: Value = serde_json::from_str(&listed).expect("kubectl prints JSON");
    listed["items"].as_array().cloned().unwrap_or_default()
}

fn rolled_out(cluster: &Cluster) {
    let status = cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=90s"]);
    assert_eq!(status.code, 0, "{status}\n{}", cluster.log());
}

/// Revision and size of each set, by revision.
fn sets(cluster: &Cluster) -> Vec<(String, i64)> {
    let of = |set: &Value| {
        let revision = set["metadata"]["annotations"]["deployment.kubernetes.io/revision"].as_str();
        (
            revision.unwrap_or_default().to_owned(),
            set["spec"]["replicas"].as_i64().unwrap_or(-1),
        )
    };
    let mut sets: Vec<_> = items(cluster, "replicasets").iter().map(of).collect();
    sets.sort();
    sets
}

fn until_sets(cluster: &Cluster, what: &str, expected: &[(&str, i64)]) {
    let expected: Vec<(String, i64)> = expected
        .iter()
        .map(|(name, size)| ((*name).to_owned(), *size))
        .collect();
    eventually(&format!("{what}: {expected:?}"), || {
        (sets(cluster) == expected).then_some(())
    });
}

/// What becomes of pods, one line a change, until it is dropped.
struct Watch(Child);

impl Watch {
    fn start(cluster: &Cluster, to: &std::path::Path) -> Self {
        let columns = format!(
            "custom-columns=E:.type,N:.object.metadata.name,H:.object.metadata.labels.{HASH},P:.object.status.phase"
        );
        let file = File::create(to).expect("the watch's file");
        let mut kubectl = cluster.kubectl_command();
        kubectl.args(["get", "pods", "--watch", "--output-watch-events", "-o", &columns]);
        let child = kubectl.stdout(file).stderr(Stdio::null()).spawn();
        Self(child.expect("the watch starts"))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_rollout_gets_stuck_goes_back_and_starts_anew() {
    let cluster = Cluster::with(Options {
        images: &["busybox"],
        ..Options::default()
    });
    let kubectl = |args: &[&str]| cluster.kubectl(args).ok();
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 2, "maxUnavailable": 0}});
    cluster.create(&manifest(
        "Deployment",
        "web",
        json!({"replicas": 4, "strategy": strategy}),
    ));
    rolled_out(&cluster);
    for value in ["A=1", "A=2"] {
        kubectl(&["set", "env", "deployment/web", value]);
        rolled_out(&cluster);
    }
    until_sets(&cluster, "all are kept", &[("1", 0), ("2", 0), ("3", 4)]);

    // Back to one that is not the last: it is the fourth now.
    kubectl(&["rollout", "undo", "deployment/web", "--to-revision=1"]);
    rolled_out(&cluster);
    until_sets(&cluster, "back", &[("2", 0), ("3", 0), ("4", 4)]);
    let pods = items(&cluster, "pods");
    let is_running = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
    let with_env = |pod: &Value| !pod["spec"]["containers"][0]["env"].is_null();
    assert!(!pods.iter().filter(is_running).any(with_env), "{pods:?}");
    let wrong = cluster
        .kubectl(&["rollout", "undo", "deployment/web", "--to-revision=9"])
        .fails();
    assert!(
        wrong.contains("unable to find specified revision 9 in history"),
        "{wrong}"
    );

    // A shorter history: of the old sets the newest stays.
    kubectl(&[
        "patch",
        "deployment",
        "web",
        "-p",
        "{\"spec\":{\"revisionHistoryLimit\":1}}",
    ]);
    until_sets(&cluster, "one old set is kept", &[("3", 0), ("4", 4)]);

    // Stuck, and then scaled: both sets get their share, and the old ones still serve.
    kubectl(&["set", "image", "deployment/web", "main=localhost/nothing:1"]);
    until_sets(&cluster, "stuck", &[("3", 0), ("4", 4), ("5", 2)]);
    kubectl(&["scale", "deployment", "web", "--replicas=8"]);
    until_sets(&cluster, "in proportion", &[("3", 0), ("4", 7), ("5", 3)]);
    kubectl(&[
        "wait",
        "deployment/web",
        "--for=jsonpath={.status.availableReplicas}=7",
        "--timeout=60s",
    ]);
    kubectl(&["rollout", "undo", "deployment/web"]);
    rolled_out(&cluster);
    until_sets(&cluster, "mended", &[("5", 0), ("6", 8)]);

    // All at once: no new pod comes while an old one may still be at work.
    kubectl(&["scale", "deployment", "web", "--replicas=3"]);
    eventually("five pods go", || (items(&cluster, "pods").len() == 3).then_some(()));
    let old: Vec<Value> = items(&cluster, "pods")
        .iter()
        .map(|pod| pod["metadata"]["labels"][HASH].clone())
        .collect();
    let old = old[0].as_str().expect("a hash").to_owned();
    let seen = cluster.dir().join("watched");
    let watch = Watch::start(&cluster, &seen);
    let changes = || std::fs::read_to_string(&seen).unwrap_or_default();
    eventually("the watch sees the three", || {
        (changes().matches("ADDED").count() == 3).then_some(())
    });
    let recreate = "{\"spec\":{\"strategy\":{\"$retainKeys\":[\"type\"],\"type\":\"Recreate\"}}}";
    kubectl(&["patch", "deployment", "web", "-p", recreate]);
    kubectl(&["set", "env", "deployment/web", "A=3"]);
    rolled_out(&cluster);
    eventually("the watch sees the six", || {
        (changes().matches("ADDED").count() == 6).then_some(())
    });
    eventually("the watch sees the old ones go", || {
        (changes().matches("DELETED").count() == 3).then_some(())
    });
    drop(watch);
    let changes = changes();
    let changes: Vec<Vec<&str>> = changes.lines().map(|line| line.split_whitespace().collect()).collect();
    let first_new = changes
        .iter()
        .position(|change| change[0] == "ADDED" && change[2] != old);
    let first_new = first_new.expect("a new pod comes");
    let ends = |change: &&Vec<&str>| change[0] == "DELETED" || ["Succeeded", "Failed"].contains(&change[3]);
    let mut ended: Vec<&str> = changes[..first_new]
        .iter()
        .filter(ends)
        .map(|change| change[1])
        .collect();
    ended.sort_unstable();
    ended.dedup();
    assert_eq!(ended.len(), 3, "{changes:?}");
}

#[test]
fn a_replica_set_lives_with_and_without_a_deployment() {
    let cluster = Cluster::with(Options {
        images: &["busybox"],
        ..Options::default()
    });
    let kubectl = |args: &[&str]| cluster.kubectl(args).ok();
    let names = |kind: &str| -> Vec<String> {
        let names = items(&cluster, kind);
        names
            .iter()
            .filter_map(|object| object["metadata"]["name"].as_str().map(str::to_owned))
            .collect()
    };
    let ready = |name: &str, count: u32| {
        let ready = format!("--for=jsonpath={{.status.readyReplicas}}={count}");
        kubectl(&["wait", &format!("replicaset/{name}"), &ready, "--timeout=60s"]);
    };

    // By itself.
    cluster.create(&manifest("ReplicaSet", "solo", json!({"replicas": 2})));
    ready("solo", 2);
    assert_eq!(
        kubectl(&["scale", "rs/solo", "--replicas=3"]),
        "replicaset.apps/solo scaled\n"
    );
    ready("solo", 3);
    let pods = names("pods");
    assert!(
        pods.len() == 3 && pods.iter().all(|pod| pod.starts_with("solo-")),
        "{pods:?}"
    );
    kubectl(&["delete", "pod", &pods[0]]);
    eventually("another takes its place", || {
        let now = names("pods");
        (now.len() == 3 && !now.contains(&pods[0])).then_some(())
    });
    kubectl(&["delete", "rs", "solo"]);
    eventually("its pods go with it", || names("pods").is_empty().then_some(()));

    // A Deployment goes without its set, and the next one of its kind takes that over as it is.
    let deployment = manifest("Deployment", "web", json!({"replicas": 2}));
    cluster.create(&deployment);
    rolled_out(&cluster);
    let (set, mut before) = (items(&cluster, "replicasets").remove(0), names("pods"));
    before.sort();
    kubectl(&["delete", "deployment", "web", "--cascade=orphan"]);
    let orphan = items(&cluster, "replicasets").remove(0);
    assert_eq!(orphan["metadata"]["uid"], set["metadata"]["uid"]);
    assert!(orphan["metadata"]["ownerReferences"].is_null(), "{orphan}");
    cluster.create(&deployment);
    rolled_out(&cluster);
    let uid = items(&cluster, "deployments").remove(0)["metadata"]["uid"].clone();
    let adopted = items(&cluster, "replicasets");
    assert_eq!(adopted.len(), 1, "{adopted:?}");
    assert_eq!(adopted[0]["metadata"]["uid"], set["metadata"]["uid"]);
    assert_eq!(adopted[0]["metadata"]["ownerReferences"][0]["uid"], uid);
    let mut after = names("pods");
    after.sort();
    assert_eq!(before, after, "no pod is another");

    // It goes last, when nothing is left of what it owned.
    kubectl(&["delete", "deployment", "web", "--cascade=foreground", "--timeout=60s"]);
    assert_eq!((names("replicasets"), names("pods")), (vec![], vec![]));
}
