//! What is behind Services: pods that are going, Endpoints that somebody wrote, and what can not be written.

use serde_json::{Value, json};
use tests::{Cluster, Options, eventually, run};

#[test]
fn endpoints_follow_pods_services_and_those_who_write_them() {
    let mut cluster = Cluster::with(Options {
        images: &["web"],
        ..Options::default()
    });
    cluster.create(
        "{apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {terminationGracePeriodSeconds: 1, \
         containers: [{name: main, image: 'localhost/web:1'}]}}",
    );
    a_leaving_pod_answers_when_there_is_no_other(&cluster);
    cluster.wait_ready("web");
    endpoints_are_written_by_hand(&cluster);
    what_cannot_be_written_is_told(&cluster);
    cluster.kill_server();
    cluster.start_server();
    left_over_endpoints_go(&cluster);
}

fn address_of(cluster: &Cluster, service: &str) -> String {
    let args = ["get", "service", service, "-o", "jsonpath={.spec.clusterIP}"];
    cluster.kubectl(&args).ok()
}

/// The slices of a Service.
fn slices(cluster: &Cluster, service: &str) -> Vec<Value> {
    let selector = format!("kubernetes.io/service-name={service}");
    let slices = cluster.kubectl(&["get", "endpointslices", "-l", &selector, "-o", "json"]);
    let slices: Value = serde_json::from_str(&slices.ok()).expect("kubectl prints JSON");
    slices["items"].as_array().cloned().unwrap_or_default()
}

/// What curl ends with when it is refused a connection; one that is not answered would be another code.
const REFUSED: i32 = 7;

/// What is answered on the node itself.
fn on_node(cluster: &Cluster, address: &str) -> tests::Output {
    let mut curl = cluster.netns.command("curl");
    run(curl.args(["-sS", "-m", "5", &format!("http://{address}/")]), "")
}

/// A pod that goes when the test lets it go.
fn a_leaving_pod_answers_when_there_is_no_other(cluster: &Cluster) {
    let gate = cluster.dir().join("gate");
    std::fs::create_dir(&gate).expect("the gate");
    let wait = ["sh", "-c", "until [ -e /gate/open ]; do sleep 0.1; done"];
    let container = json!({"name": "main", "image": "localhost/web:1",
        "volumeMounts": [{"name": "gate", "mountPath": "/gate"}], "lifecycle": {"preStop": {"exec": {"command": wait}}}});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "last", "labels": {"app": "last"}},
        "spec": {"terminationGracePeriodSeconds": 300, "containers": [container],
            "volumes": [{"name": "gate", "hostPath": {"path": gate}}]}});
    cluster.create(&pod.to_string());
    cluster.create(
        "{apiVersion: v1, kind: Service, metadata: {name: last}, spec: {selector: {app: last}, ports: [{port: 80, targetPort: 8090}]}}",
    );
    cluster.wait_ready("last");
    let address = address_of(cluster, "last");
    let conditions = |ready: bool, terminating: bool| {
        eventually(&format!("ready {ready}, terminating {terminating}"), || {
            let wanted = json!({"ready": ready, "serving": true, "terminating": terminating});
            let slices = slices(cluster, "last");
            (slices.len() == 1 && slices[0]["endpoints"][0]["conditions"] == wanted).then_some(())
        });
    };
    conditions(true, false);
    eventually("it answers", || (on_node(cluster, &address).code == 0).then_some(()));
    cluster.kubectl(&["delete", "pod", "last", "--wait=false"]).ok();
    conditions(false, true);
    let endpoints = cluster.kubectl(&["get", "endpoints", "last", "-o", "jsonpath={.subsets}"]);
    assert_eq!(
        endpoints.stdout, "",
        "those who read Endpoints do not know of leaving pods"
    );
    // So many requests outlast the moment until the node has heard of it.
    for _ in 0..50 {
        assert_eq!(on_node(cluster, &address).ok(), "web 1 on last\n");
    }
    std::fs::write(gate.join("open"), "").expect("the gate opens");
    cluster
        .kubectl(&["wait", "--for=delete", "pod/last", "--timeout=60s"])
        .ok();
    eventually("nobody is left, which is said at once", || {
        (on_node(cluster, &address).code == REFUSED).then_some(())
    });
    cluster.kubectl(&["delete", "service", "last"]).ok();
}

fn endpoints_are_written_by_hand(cluster: &Cluster) {
    let pod = cluster.field("web", "{.status.podIP}");
    let endpoints = |name: &str, ip: &str| {
        let subset = json!({"addresses": [{"ip": ip}], "ports": [{"port": 8090}]});
        json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": name}, "subsets": [subset]}).to_string()
    };
    let refused = cluster.kubectl_with(&["create", "-f", "-"], &endpoints("hand", "127.0.0.1"));
    let refused = refused.fails();
    assert!(
        refused.contains("subsets[0].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range"),
        "{refused}"
    );
    // They may come before their Service, or without one.
    cluster.create(&endpoints("hand", &pod));
    cluster.create(&endpoints("alone", &pod));
    let hand = "{apiVersion: v1, kind: Service, metadata: {name: hand}, spec: {ports: [{port: 80, targetPort: 8090}]}}";
    cluster.create(hand);
    let address = address_of(cluster, "hand");
    let mirrored = || {
        let slice = eventually("they are mirrored", || slices(cluster, "hand").pop());
        assert_eq!(
            slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"],
            "endpointslicemirroring-controller.k8s.io"
        );
        assert_eq!(slice["endpoints"][0]["addresses"], json!([pod]));
        eventually("requests arrive", || {
            on_node(cluster, &address)
                .stdout
                .starts_with("web 1 on web")
                .then_some(())
        });
    };
    mirrored();
    // They name no pod, so that the API server itself goes nowhere on their word.
    let proxied = cluster.kubectl(&["get", "--raw", "/api/v1/namespaces/default/services/hand/proxy/"]);
    let proxied = proxied.fails();
    assert!(
        proxied.contains("no endpoints available for service \"hand\""),
        "{proxied}"
    );
    cluster.kubectl(&["delete", "endpoints", "hand"]).ok();
    eventually("the slice goes with them", || {
        slices(cluster, "hand").is_empty().then_some(())
    });
    eventually("and then nobody answers", || {
        (on_node(cluster, &address).code == REFUSED).then_some(())
    });
    cluster.create(&endpoints("hand", &pod));
    mirrored();
    cluster.kubectl(&["delete", "service", "hand"]).ok();
    eventually("all goes with the Service", || {
        let endpoints = cluster.kubectl(&["get", "endpoints", "hand", "--ignore-not-found", "-o", "name"]);
        (endpoints.ok().is_empty() && slices(cluster, "hand").is_empty()).then_some(())
    });
    cluster.kubectl(&["get", "endpoints", "alone"]).ok();
    // What has this annotation is somebody's lock.
    cluster.create(
        "{apiVersion: v1, kind: Endpoints, metadata: {name: lock, annotations: {control-plane.alpha.kubernetes.io/leader: '{}'}}}",
    );
}

/// Endpoints that have no Service when a server starts: it may have gone while none ran.
fn left_over_endpoints_go(cluster: &Cluster) {
    eventually("those without a Service go", || {
        let left = cluster.kubectl(&["get", "endpoints", "alone", "--ignore-not-found", "-o", "name"]);
        left.ok().is_empty().then_some(())
    });
    cluster.kubectl(&["get", "endpoints", "lock", "kubernetes"]).ok();
}

/// A pod with an address that no endpoint may have, as a kubelet of somebody's own may report it.
fn what_cannot_be_written_is_told(cluster: &Cluster) {
    cluster.create(
        "{apiVersion: v1, kind: Pod, metadata: {name: odd, labels: {app: odd}}, spec: {schedulerName: nobody, \
         containers: [{name: main, image: 'localhost/web:1'}]}}",
    );
    let status = "{\"status\":{\"podIP\":\"127.0.0.1\",\"podIPs\":[{\"ip\":\"127.0.0.1\"}]}}";
    cluster
        .kubectl(&["patch", "pod", "odd", "--subresource=status", "-p", status])
        .ok();
    cluster.create(
        "{apiVersion: v1, kind: Service, metadata: {name: odd}, spec: {selector: {app: odd}, ports: [{port: 80}]}}",
    );
    for (reason, message) in [
        (
            "FailedToUpdateEndpointSlices",
            "Error updating Endpoint Slices for Service default/odd: EndpointSlice.discovery.k8s.io",
        ),
        (
            "FailedToCreateEndpoint",
            "Failed to create endpoint for service default/odd: Endpoints \"odd\" is invalid",
        ),
    ] {
        cluster.until_event("odd", message);
        assert!(cluster.events("odd").contains(reason), "{}", cluster.events("odd"));
    }
    cluster.kubectl(&["delete", "service,pod", "odd"]).ok();
}
