//! What is particular to pods.

use serde_json::{Value, json};

use crate::cluster::Cluster;

const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "x"}]},
    })
}

fn binding(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": {"kind": "Node", "name": "one"}})
}

#[tokio::test]
async fn admission_adds_what_every_pod_has() {
    let cluster = Cluster::new().await;
    let created = cluster.post(PODS, &pod("p")).await;
    assert_eq!(created.code, 201, "{}", created.message());
    let spec = &created.json()["spec"];
    assert_eq!(spec["serviceAccountName"], "default");
    assert_eq!(
        (&spec["priority"], &spec["preemptionPolicy"]),
        (&json!(0), &json!("PreemptLowerPriority"))
    );
    let tolerated: Vec<&Value> = spec["tolerations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| &t["key"])
        .collect();
    assert_eq!(
        tolerated,
        ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]
    );
    let mut critical = pod("c");
    critical["spec"]["priorityClassName"] = json!("system-node-critical");
    assert_eq!(
        cluster.post(PODS, &critical).await.json()["spec"]["priority"],
        2_000_001_000
    );
    let mut unknown = pod("u");
    unknown["spec"]["priorityClassName"] = json!("nope");
    let refused = cluster.post(PODS, &unknown).await;
    assert_eq!(
        refused.message(),
        "pods \"u\" is forbidden: no PriorityClass with name nope was found"
    );
    unknown["spec"] = json!({"runtimeClassName": "nope", "containers": [{"name": "a", "image": "x"}]});
    let refused = cluster.post(PODS, &unknown).await;
    assert_eq!(
        refused.message(),
        "pods \"u\" is forbidden: pod rejected: RuntimeClass \"nope\" not found"
    );
}

#[tokio::test]
async fn a_pod_is_bound_once_and_goes_when_its_kubelet_says_so() {
    let cluster = Cluster::new().await;
    cluster.post(PODS, &pod("p")).await;
    let path = format!("{PODS}/p");
    let bound = cluster.post(&format!("{path}/binding"), &binding("p")).await;
    assert_eq!((bound.code, bound.json()["status"].as_str()), (201, Some("Success")));
    let found = cluster.get(&path).await.json();
    assert_eq!(found["spec"]["nodeName"], "one");
    assert_eq!(found["status"]["conditions"][0]["type"], "PodScheduled");
    let twice = cluster.post(&format!("{path}/binding"), &binding("p")).await;
    assert_eq!(twice.code, 409);
    let on_node = cluster
        .get("/api/v1/pods?fieldSelector=spec.nodeName%3Done")
        .await
        .json();
    assert_eq!(on_node["items"].as_array().unwrap().len(), 1);

    let deleted = cluster.delete(&path, &json!({})).await.json();
    assert_eq!(deleted["metadata"]["deletionGracePeriodSeconds"], 30);
    let again = cluster.delete(&path, &json!({})).await.json();
    assert_eq!(
        again["metadata"]["resourceVersion"],
        deleted["metadata"]["resourceVersion"]
    );
    let shorter = cluster.delete(&path, &json!({"gracePeriodSeconds": 5})).await.json();
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    assert_eq!(cluster.get(&path).await.code, 200);
    let gone = cluster.delete(&path, &json!({"gracePeriodSeconds": 0})).await;
    assert_eq!((gone.code, gone.json()["kind"].as_str()), (200, Some("Pod")));
    assert_eq!(cluster.get(&path).await.code, 404);
}

#[tokio::test]
async fn a_pod_without_a_node_goes_at_once() {
    let cluster = Cluster::new().await;
    cluster.post(PODS, &pod("p")).await;
    assert_eq!(cluster.delete(&format!("{PODS}/p"), &json!({})).await.code, 200);
    assert_eq!(cluster.get(&format!("{PODS}/p")).await.code, 404);
    cluster.post(PODS, &pod("q")).await;
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "q"}});
    let evicted = cluster.post(&format!("{PODS}/q/eviction"), &eviction).await;
    assert_eq!(evicted.code, 201, "{}", evicted.message());
    assert_eq!(cluster.get(&format!("{PODS}/q")).await.code, 404);
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let cluster = Cluster::new().await;
    cluster.post(PODS, &pod("p")).await;
    let path = format!("{PODS}/p");
    let running = json!({"status": {"phase": "Running"}, "metadata": {"labels": {"k": "v"}}});
    let patched = cluster
        .patch(&format!("{path}/status"), "strategic-merge-patch", &running)
        .await
        .json();
    assert_eq!(patched["status"]["phase"], "Running");
    let ignored = cluster
        .patch(&path, "strategic-merge-patch", &json!({"status": {"phase": "Failed"}}))
        .await
        .json();
    assert_eq!(ignored["status"]["phase"], "Running");
}

#[tokio::test]
async fn sessions_are_refused_before_they_begin() {
    let cluster = Cluster::new().await;
    cluster.post(PODS, &pod("p")).await;
    for (rest, message) in [
        (
            "p/log",
            "a container name must be specified for pod p, choose one of: [a b]",
        ),
        ("p/log?container=x", "container x is not valid for pod p"),
        ("p/exec?container=a&command=ls", "pod p does not have a host assigned"),
        ("p/portforward", "pod p does not have a host assigned"),
        ("q/log", "pods \"q\" not found"),
    ] {
        assert_eq!(
            cluster.get(&format!("{PODS}/{rest}")).await.message(),
            message,
            "{rest}"
        );
    }
    let nothing_yet = cluster.get(&format!("{PODS}/p/log?container=a")).await;
    assert_eq!((nothing_yet.code, nothing_yet.bytes.len()), (200, 0));
    cluster.post(&format!("{PODS}/p/binding"), &binding("p")).await;
    assert_eq!(
        cluster.get(&format!("{PODS}/p/log?container=a")).await.message(),
        "nodes \"one\" not found"
    );
}

#[tokio::test]
async fn one_priority_class_at_most_is_the_default() {
    let cluster = Cluster::new().await;
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    let class = |name: &str| json!({"metadata": {"name": name}, "value": 7, "globalDefault": true});
    assert_eq!(cluster.post(classes, &class("a")).await.code, 201);
    let second = cluster.post(classes, &class("b")).await;
    assert_eq!(second.code, 403);
    assert!(
        second
            .message()
            .contains("PriorityClass a is already marked as default"),
        "{}",
        second.message()
    );
    assert_eq!(
        cluster.post(PODS, &pod("p")).await.json()["spec"]["priorityClassName"],
        "a"
    );
}
