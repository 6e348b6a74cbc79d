//! Node ports: who has them, and what is said to who can not.

use http::Method;
use serde_json::{Value, json};

use crate::cluster::Cluster;

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn node_ports_are_of_one_service() {
    let cluster = Cluster::new().await;
    let create = async |name: &str, spec: Value| cluster.post(SERVICES, &service(name, spec)).await;
    let refused = async |spec: Value, message: &str| {
        let answer = create("other", spec).await;
        assert!(answer.message().ends_with(message), "{}", answer.message());
    };
    // One port number of two protocols has one node port.
    let ports = json!([{"name": "tcp", "port": 53}, {"name": "udp", "port": 53, "protocol": "UDP"}, {"name": "web", "port": 80}]);
    let made = create("dns", json!({"type": "NodePort", "ports": ports})).await.json();
    let node_ports: Vec<i64> = made["spec"]["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|port| port["nodePort"].as_i64().unwrap())
        .collect();
    assert_eq!(node_ports[0], node_ports[1], "{made}");
    assert_ne!(node_ports[0], node_ports[2], "{made}");
    assert!(node_ports.iter().all(|port| (30086..32768).contains(port)), "{made}");
    // It is no other Service's, whatever the protocol; nor may a Service have one twice.
    for protocol in ["TCP", "UDP"] {
        refused(
            json!({"type": "NodePort", "ports": [{"port": 1, "protocol": protocol, "nodePort": node_ports[2]}]}),
            &format!(
                "spec.ports[0].nodePort: Invalid value: {}: provided port is already allocated",
                node_ports[2]
            ),
        )
        .await;
    }
    refused(
        json!({"type": "NodePort", "ports": [{"name": "a", "port": 1, "nodePort": 30001}, {"name": "b", "port": 2, "nodePort": 30001}]}),
        "spec.ports[1].nodePort: Duplicate value: 30001",
    )
    .await;

    // Those of a load balancer that wants none are given on request, and to no other Service.
    let wanted = json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [
        {"name": "a", "port": 80}, {"name": "b", "port": 81, "nodePort": 30002}]});
    let made = create("few", wanted).await.json();
    assert_eq!(made["spec"]["ports"][0].get("nodePort"), None, "{made}");
    refused(
        json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 30002}]}),
        "provided port is already allocated",
    )
    .await;
}

#[tokio::test]
async fn load_balancers_have_a_port_to_ask_at() {
    let cluster = Cluster::new().await;
    let local = |more: Value| {
        let mut spec = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"port": 80}]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    let made = cluster.post(SERVICES, &service("a", local(json!({})))).await.json();
    let port = made["spec"]["healthCheckNodePort"].as_i64().unwrap();
    assert_ne!(made["spec"]["ports"][0]["nodePort"].as_i64(), Some(port));
    let refused = cluster
        .post(SERVICES, &service("b", local(json!({"healthCheckNodePort": port}))))
        .await;
    assert_eq!(
        (refused.code, refused.message()),
        (
            500,
            format!(
                "Internal error occurred: failed to allocate requested HealthCheck NodePort {port}: provided port is already allocated"
            )
        )
    );
    // It is kept while it is needed, and free when it is not.
    let path = format!("{SERVICES}/a");
    let kept = cluster.put(&path, &service("a", local(json!({})))).await.json();
    assert_eq!(kept["spec"]["healthCheckNodePort"], port);
    let policy = json!({"spec": {"externalTrafficPolicy": "Cluster"}});
    let changed = cluster.patch(&path, "merge-patch", &policy).await.json();
    assert_eq!(changed["spec"].get("healthCheckNodePort"), None, "{changed}");
    let made = cluster
        .post(SERVICES, &service("b", local(json!({"healthCheckNodePort": port}))))
        .await;
    assert_eq!(made.code, 201, "{}", made.message());
}

#[tokio::test]
async fn a_kind_that_is_going_says_so_to_everyone() {
    let cluster = Cluster::new().await;
    let said = r#"299 - "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice""#;
    let endpoints = "/api/v1/namespaces/default/endpoints";
    let told = |headers: &http::HeaderMap| -> Vec<String> {
        let all = headers.get_all("warning").iter();
        all.map(|value| value.to_str().unwrap().to_owned()).collect()
    };
    let made = cluster.post(endpoints, &json!({"metadata": {"name": "e"}})).await;
    assert_eq!(told(&made.headers), [said]);
    for path in [
        endpoints.to_owned(),
        format!("{endpoints}/e"),
        format!("{endpoints}?watch=1"),
    ] {
        let response = cluster.open(Method::GET, &path, &[], apiserver::Body::empty()).await;
        assert_eq!(told(response.headers()), [said], "{path}");
    }
    let slices = cluster
        .get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices")
        .await;
    assert!(told(&slices.headers).is_empty());
}

#[tokio::test]
async fn what_the_server_stands_for_comes_back() {
    let cluster = Cluster::new().await;
    let endpoints = "/api/v1/namespaces/default/endpoints/kubernetes";
    let slice = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
    let service = format!("{SERVICES}/kubernetes");
    let lease = "/api/v1/namespaces/kube-node-lease";
    let uid = async |path: &str| cluster.get(path).await.json()["metadata"]["uid"].clone();
    let mut before = Vec::new();
    for path in [endpoints, slice, &service, lease] {
        before.push((path, uid(path).await));
        assert_eq!(cluster.delete(path, &json!({})).await.code, 200, "{path}");
    }
    let mut last = cluster.get(lease).await.json();
    last["spec"]["finalizers"] = json!([]);
    assert_eq!(cluster.put(&format!("{lease}/finalize"), &last).await.code, 200);
    for (path, uid) in before {
        eventually(&cluster, path, |object| {
            object["metadata"]["uid"].is_string() && object["metadata"]["uid"] != uid
        })
        .await;
    }
    let made = cluster.get(&service).await.json();
    assert_eq!(made["spec"]["clusterIP"], "10.96.0.1", "{made}");

    // Who points it elsewhere is put right.
    let elsewhere =
        json!({"subsets": [{"addresses": [{"ip": "192.0.2.99"}], "ports": [{"name": "https", "port": 1}]}]});
    assert_eq!(cluster.patch(endpoints, "merge-patch", &elsewhere).await.code, 200);
    eventually(&cluster, endpoints, |object| {
        object["subsets"][0]["addresses"][0]["ip"] == "192.0.2.1"
    })
    .await;
}

async fn eventually(cluster: &Cluster, path: &str, holds: impl Fn(&Value) -> bool) {
    let mut last = Value::Null;
    for _ in 0..1000 {
        last = cluster.get(path).await.json();
        if holds(&last) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{path} stays {last}");
}
