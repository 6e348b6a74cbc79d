//! Services of every kind, as v1.36 has them: what they are given, where they lead and how they are named; and clients in pods, which find the API by its
//! Service.

use std::collections::BTreeSet;

use serde_json::Value;
use tests::{Cluster, NODE_IP, Options, eventually, run};

/// Two pods that answer over HTTP, one that asks, and Services in front of them.
const KINDS: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: localhost/web:1
        ports: [{name: http, containerPort: 8090}]
        readinessProbe: {exec: {command: [test, '!', -e, /tmp/broken]}, periodSeconds: 1, failureThreshold: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: 'localhost/clients:1', command: [sleep, 12h]}]
---
apiVersion: v1
kind: Service
metadata: {name: several}
spec:
  selector: {app: web}
  ports:
  - {name: http, port: 80, targetPort: http}
  - {name: alt, port: 8080, targetPort: 8090}
---
apiVersion: v1
kind: Service
metadata: {name: outer}
spec:
  selector: {app: web}
  externalIPs: [203.0.113.9]
  ports: [{port: 80, targetPort: 8090}]
---
apiVersion: v1
kind: Service
metadata: {name: balanced}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
---
apiVersion: v1
kind: Service
metadata: {name: sticky}
spec:
  type: NodePort
  sessionAffinity: ClientIP
  sessionAffinityConfig: {clientIP: {timeoutSeconds: 3600}}
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
---
apiVersion: v1
kind: Service
metadata: {name: far}
spec: {type: ExternalName, externalName: several.default.svc.cluster.local}
";

/// Pods with names of their own, of which the second is never ready, and two headless Services: one publishes it all the same.
const NAMED: &str = "
apiVersion: v1
kind: Pod
metadata: {name: one, labels: {app: named}}
spec:
  hostname: first
  subdomain: set
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: 'localhost/clients:1', command: [sleep, 12h]}]
---
apiVersion: v1
kind: Pod
metadata: {name: two, labels: {app: named}}
spec:
  hostname: second
  subdomain: all
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: 'localhost/clients:1', command: [sleep, 12h], readinessProbe: {exec: {command: ['false']}}}]
---
apiVersion: v1
kind: Service
metadata: {name: set}
spec: {clusterIP: None, selector: {app: named}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: all}
spec: {clusterIP: None, publishNotReadyAddresses: true, selector: {app: named}, ports: [{name: http, port: 80}]}
";

/// Answers each packet with the pod's name.
const ECHO: &str = "
import socket
here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
here.bind(('', 5353))
while True:
    _, sender = here.recvfrom(100)
    here.sendto(socket.gethostname().encode(), sender)
";

/// Asks from one and the same port of its own.
const ASK: &str = "
import socket, sys
there = (sys.argv[1], int(sys.argv[2]))
here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
here.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
here.bind(('', 40053))
here.settimeout(2)
here.sendto(b'who', there)
print(here.recv(100).decode())
";

#[test]
fn every_kind_of_service_leads_to_its_pods() {
    let mut cluster = Cluster::with(Options {
        images: &["web", "clients"],
        ..Options::default()
    });
    let applied = cluster.kubectl_with(&["apply", "-f", "-"], KINDS);
    assert!(
        applied
            .stderr
            .contains("Warning: spec.externalIPs is deprecated and may no longer be implemented in some clusters"),
        "{applied}"
    );
    applied.ok();
    cluster.create(NAMED);
    let rolled = cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    assert_eq!(rolled.code, 0, "{rolled}\n{}", cluster.log());
    for pod in ["client", "one"] {
        cluster.wait_ready(pod);
    }
    ports_and_addresses(&cluster);
    a_load_balancer_asks_the_node(&cluster);
    names(&cluster);
    packets_without_connections(&cluster);
    clients_stay_with_their_pods(&mut cluster);
    let log = cluster.log();
    assert!(!log.contains("hickory_server"), "questions are not logged: {log}");
}

fn service(cluster: &Cluster, name: &str, jsonpath: &str) -> String {
    let path = format!("jsonpath={jsonpath}");
    cluster.kubectl(&["get", "service", name, "-o", &path]).ok()
}

/// What is answered outside of the node.
fn outside(cluster: &Cluster, more: &[&str], url: &str) -> tests::Output {
    let mut curl = cluster.outside().command("curl");
    run(curl.args(["-sS", "-m", "5"]).args(more).arg(url), "")
}

fn ports_and_addresses(cluster: &Cluster) {
    for url in ["http://several/", "http://several:8080/", "http://far.default:8080/"] {
        let fetch = format!("import urllib.request; print(urllib.request.urlopen('{url}', timeout=5).read().decode())");
        let page = cluster.kubectl(&["exec", "client", "--", "python3", "-c", &fetch]).ok();
        assert!(page.starts_with("web 1 on web-"), "{url}: {page}");
    }
    // By way of the API server, which knows ports by their numbers and by their names.
    let proxied = |name: &str| {
        cluster.kubectl(&[
            "get",
            "--raw",
            &format!("/api/v1/namespaces/default/services/{name}/proxy/"),
        ])
    };
    for name in [
        "several:80",
        "several:8080",
        "several:alt",
        "http:several:http",
        "outer",
    ] {
        let page = proxied(name).ok();
        assert!(page.starts_with("web 1 on web-"), "{name}: {page}");
    }
    for (name, message) in [
        ("several:81", "no service port 81 found for service \"several\""),
        ("several:other", "no endpoints available for service \"several:other\""),
        ("nobody:80", "services \"nobody\" not found"),
    ] {
        let refused = proxied(name).fails();
        assert!(refused.contains(message), "{refused}");
    }
    cluster
        .outside()
        .ip(&["route", "add", "203.0.113.9/32", "via", NODE_IP]);
    let page = outside(cluster, &[], "http://203.0.113.9/").ok();
    assert!(page.starts_with("web 1 on web-"), "{page}");
    let table = cluster.kubectl(&["get", "services", "outer", "balanced", "far"]).ok();
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((rows[1][1], rows[1][3]), ("ClusterIP", "203.0.113.9"), "{table}");
    assert_eq!((rows[2][1], rows[2][3]), ("LoadBalancer", "<pending>"), "{table}");
    assert_eq!(
        (rows[3][1], rows[3][3]),
        ("ExternalName", "several.default.svc.cluster.local"),
        "{table}"
    );

    // What is given is kept, and what others have can not be had.
    let port = service(cluster, "balanced", "{.spec.healthCheckNodePort}");
    for (patch, message) in [
        (
            "{\"spec\":{\"clusterIP\":\"10.96.0.77\"}}".to_owned(),
            "The Service \"several\" is invalid: spec.clusterIPs[0]: Invalid value: [\"10.96.0.77\"]: may not change once set",
        ),
        (
            "{\"spec\":{\"ports\":[{\"port\":80,\"nodePort\":30000}]}}".to_owned(),
            "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
        ),
        (
            format!(
                "{{\"spec\":{{\"type\":\"LoadBalancer\",\"externalTrafficPolicy\":\"Local\",\"healthCheckNodePort\":{port}}}}}"
            ),
            "provided port is already allocated",
        ),
    ] {
        let refused = cluster.kubectl(&["patch", "service", "several", "-p", &patch]).fails();
        assert!(refused.contains(message), "{refused}");
    }
}

/// How many endpoints the node says it has, and with which code.
fn health(cluster: &Cluster) -> (String, Value) {
    let port = service(cluster, "balanced", "{.spec.healthCheckNodePort}");
    let url = format!("http://{NODE_IP}:{port}/");
    let answer = outside(cluster, &["-w", "\n%{http_code}"], &url).ok();
    let (body, code) = answer.rsplit_once('\n').expect("a body and a code");
    let body: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"));
    assert_eq!(body["service"]["name"], "balanced");
    (code.to_owned(), body["localEndpoints"].clone())
}

fn a_load_balancer_asks_the_node(cluster: &Cluster) {
    assert_eq!(health(cluster), ("200".to_owned(), 2.into()));
    let described = cluster.kubectl(&["describe", "service", "balanced"]).ok();
    assert!(described.contains("HealthCheck NodePort:"), "{described}");
    let url = format!(
        "http://{NODE_IP}:{}/",
        service(cluster, "balanced", "{.spec.ports[0].nodePort}")
    );
    assert!(outside(cluster, &[], &url).ok().starts_with("web 1 on web-"));

    let pods = cluster.kubectl(&["get", "pods", "-l", "app=web", "-o", "name"]).ok();
    let each = |script: &str| {
        for pod in pods.lines() {
            cluster.kubectl(&["exec", pod, "--", "sh", "-c", script]).ok();
        }
    };
    each("touch /tmp/broken");
    eventually("the node says that it has no endpoint", || {
        (health(cluster) == ("503".to_owned(), 0.into())).then_some(())
    });
    eventually("nobody answers", || {
        (outside(cluster, &[], &url).code != 0).then_some(())
    });
    each("rm /tmp/broken");
    eventually("both are back", || {
        (health(cluster) == ("200".to_owned(), 2.into())).then_some(())
    });
}

fn names(cluster: &Cluster) {
    let look_up = |arguments: &str| cluster.exec("client", &format!("nslookup {arguments} 2>&1; true"));
    let address = cluster.field("one", "{.status.podIP}");
    let unready = cluster.field("two", "{.status.podIP}");
    for (arguments, expected) in [
        ("first.set.default.svc.cluster.local", address.clone()),
        ("set", address.clone()),
        ("second.all.default.svc.cluster.local", unready.clone()),
        (
            "-type=srv _http._tcp.set.default.svc.cluster.local",
            "0 100 80 first.set.default.svc.cluster.local".into(),
        ),
        (&address, "name = first.set.default.svc.cluster.local".into()),
        ("far", "canonical name = several.default.svc.cluster.local".into()),
        ("second.set.default.svc.cluster.local.", "NXDOMAIN".into()),
    ] {
        let said = look_up(arguments);
        assert!(said.contains(&expected), "{arguments}: {expected} is not in\n{said}");
    }
    let found = cluster.exec("client", "getent ahostsv4 first.set");
    assert!(found.starts_with(&address), "{found}");
    let set = look_up("set");
    assert!(!set.contains(&unready), "{set}");

    // More addresses than a packet takes: who asks by TCP then gets all of them, and who does not gets some.
    let endpoints: Vec<Value> = (1..=60)
        .map(|last| serde_json::json!({"addresses": [format!("198.51.100.{last}")]}))
        .collect();
    let labels = serde_json::json!({"kubernetes.io/service-name": "many"});
    let slice = serde_json::json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "many-1", "labels": labels},
        "addressType": "IPv4", "ports": [{"port": 80}], "endpoints": endpoints});
    cluster.create(
        "{apiVersion: v1, kind: Service, metadata: {name: many}, spec: {clusterIP: None, ports: [{port: 80}]}}",
    );
    cluster.create(&slice.to_string());
    let count = |script: &str| {
        cluster
            .exec("client", &format!("{script} | sort -u | wc -l"))
            .trim()
            .parse::<u32>()
    };
    eventually("all addresses are named", || {
        (count("getent ahostsv4 many | cut -d ' ' -f 1") == Ok(60)).then_some(())
    });
    let some = count("look-up-musl many");
    assert!(some.as_ref().is_ok_and(|some| *some >= 20), "{some:?}");
    // A pod with a subdomain calls itself by its full name.
    let hostname = cluster.exec("one", "hostname -f");
    assert_eq!(hostname.trim(), "first.set.default.svc.cluster.local");
}

fn packets_without_connections(cluster: &Cluster) {
    for (pod, app) in [("udp-1", "udp"), ("udp-2", "none")] {
        let container =
            serde_json::json!({"name": "main", "image": "localhost/clients:1", "command": ["python3", "-c", ECHO]});
        let pod = serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod, "labels": {"app": app}},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]}});
        cluster.create(&pod.to_string());
    }
    cluster.create(
        "{apiVersion: v1, kind: Service, metadata: {name: echo}, spec: {type: NodePort, selector: {app: udp}, \
         ports: [{name: tcp, port: 53, targetPort: 5353}, {name: udp, port: 53, protocol: UDP, targetPort: 5353}]}}",
    );
    for pod in ["udp-1", "udp-2"] {
        cluster.wait_ready(pod);
    }
    let port = service(cluster, "echo", "{.spec.ports[1].nodePort}");
    assert_eq!(
        service(cluster, "echo", "{.spec.ports[0].nodePort}"),
        port,
        "one port number, one node port"
    );
    let ask = || {
        let mut python = cluster.outside().command("python3");
        run(python.args(["-c", ASK, NODE_IP, &port]), "").stdout
    };
    eventually("the first pod answers", || (ask() == "udp-1\n").then_some(()));
    // The kernel would lead the same two ports to the pod that they were led to, for as long as it is asked.
    cluster.kubectl(&["label", "--overwrite", "pod/udp-1", "app=none"]).ok();
    cluster.kubectl(&["label", "--overwrite", "pod/udp-2", "app=udp"]).ok();
    eventually("the second pod answers", || (ask() == "udp-2\n").then_some(()));
}

fn clients_stay_with_their_pods(cluster: &mut Cluster) {
    let url = format!(
        "http://{NODE_IP}:{}/",
        service(cluster, "sticky", "{.spec.ports[0].nodePort}")
    );
    let clients: Vec<String> = (11..31).map(|last| format!("192.0.2.{last}")).collect();
    for client in &clients {
        cluster
            .outside()
            .ip(&["address", "add", &format!("{client}/24"), "dev", "eth0"]);
    }
    let pods = |cluster: &Cluster| -> Vec<String> {
        let ask = |client: &String| outside(cluster, &["--interface", client], &url).ok();
        clients.iter().map(ask).collect()
    };
    let first = pods(cluster);
    let several: BTreeSet<&String> = first.iter().collect();
    assert_eq!(
        several.len(),
        2,
        "that twenty choose the same of two happens once in 500,000 times"
    );
    assert_eq!(pods(cluster), first);
    let ready_since = |cluster: &Cluster| {
        let path = "jsonpath={.items[*].status.conditions[?(@.type==\"Ready\")].lastTransitionTime}";
        cluster.kubectl(&["get", "pods", "-l", "app=web", "-o", path]).ok()
    };
    // The handles of the tables: that of one that is made anew is another.
    let table = |cluster: &Cluster| run(cluster.netns.command("nft").args(["-j", "list", "tables"]), "").ok();
    let (since, before) = (ready_since(cluster), table(cluster));
    cluster.kill_server();
    cluster.start_server();
    eventually("the new server has made its own table", || {
        (table(cluster) != before).then_some(())
    });
    assert_eq!(pods(cluster), first, "a restart forgets nobody");
    assert_eq!(ready_since(cluster), since, "what was ready stays so");
}

/// The official Python client: lists, watches, makes a Deployment and runs a command in a pod.
const PYTHON: &str = r#"
import sys
from kubernetes import client, config, watch
from kubernetes.stream import stream

config.load_incluster_config()
core, apps = client.CoreV1Api(), client.AppsV1Api()
print("version", client.VersionApi().get_code().git_version)
pods = core.list_namespaced_pod("shop")
print("listed", *sorted(pod.metadata.name for pod in pods.items), flush=True)
version = pods.metadata.resource_version
for event in watch.Watch().stream(core.list_namespaced_pod, "shop", resource_version=version, timeout_seconds=120):
    pod = event["object"]
    if pod.metadata.name == sys.argv[1] and pod.status.phase == "Running":
        print("saw", pod.metadata.name, "run")
        break
labels = {"app": "made"}
container = client.V1Container(name="main", image="localhost/clients:1", command=["sleep", "12h"])
template = client.V1PodTemplateSpec(
    metadata=client.V1ObjectMeta(labels=labels),
    spec=client.V1PodSpec(containers=[container], termination_grace_period_seconds=0))
apps.create_namespaced_deployment("shop", client.V1Deployment(
    metadata=client.V1ObjectMeta(name="made"),
    spec=client.V1DeploymentSpec(replicas=1, selector=client.V1LabelSelector(match_labels=labels), template=template)))
for event in watch.Watch().stream(apps.list_namespaced_deployment, "shop", timeout_seconds=120):
    if event["object"].status.ready_replicas == 1:
        break
apps.patch_namespaced_deployment_scale("made", "shop", {"spec": {"replicas": 0}})
print("scaled to", apps.read_namespaced_deployment_scale("made", "shop").spec.replicas or 0)
said = stream(core.connect_get_namespaced_pod_exec, sys.argv[1], "shop", command=["echo", "hello"], stdout=True, stderr=True)
print("exec said", said.strip())
apps.delete_namespaced_deployment("made", "shop")
try:
    core.read_namespaced_pod("nobody", "shop")
except client.ApiException as error:
    print("refused with", error.status, error.reason)
"#;

#[test]
fn clients_in_pods_find_the_api() {
    let cluster = Cluster::with(Options {
        images: &["clients"],
        ..Options::default()
    });
    let k = |args: &[&str]| cluster.kubectl(&[&["-n", "shop"], args].concat()).ok();
    k(&["create", "namespace", "shop"]);
    let pod = |name: &str, command: &[&str]| {
        let container = serde_json::json!({"name": "main", "image": "localhost/clients:1", "command": command});
        let pod = serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "shop"},
            "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [container]}});
        cluster.create(&pod.to_string());
    };
    pod("python", &["python3", "-c", PYTHON, "late"]);
    pod("rust", &["kube-client", "late"]);
    pod("client", &["sleep", "12h"]);
    let failed = |name: &str| {
        let described = k(&["describe", "pod", name]);
        let logs = cluster.kubectl(&["-n", "shop", "logs", name]);
        panic!("{logs}\n{described}\n{}", cluster.log())
    };
    for name in ["python", "rust"] {
        eventually(&format!("{name} has listed the pods"), || {
            let logs = cluster.kubectl(&["-n", "shop", "logs", name]);
            if k(&["get", "pod", name, "-o", "jsonpath={.status.phase}"]) == "Failed" {
                failed(name)
            }
            (logs.stdout.contains("listed") && logs.stdout.contains(name)).then_some(())
        });
    }
    k(&["wait", "--for=condition=Ready", "pod/client", "--timeout=60s"]);
    names_of_the_api(&k);
    pod("late", &["sleep", "12h"]);
    for (name, expected) in [
        (
            "rust",
            &["asking https://10.96.0.1/", "version v1.36", "saw late run"][..],
        ),
        (
            "python",
            &[
                "version v1.36",
                "saw late run",
                "scaled to 0",
                "exec said hello",
                "refused with 404 Not Found",
            ],
        ),
    ] {
        let phase = eventually(&format!("{name} ends"), || {
            let phase = k(&["get", "pod", name, "-o", "jsonpath={.status.phase}"]);
            matches!(&*phase, "Succeeded" | "Failed").then_some(phase)
        });
        if phase == "Failed" {
            failed(name);
        }
        let said = k(&["logs", name]);
        for part in expected {
            assert!(said.contains(part), "{name}: {part} is not in\n{said}");
        }
    }
}

/// By glibc, by musl, and by busybox' own way of asking.
fn names_of_the_api(k: &dyn Fn(&[&str]) -> String) {
    for script in [
        "nslookup kubernetes.default",
        "getent ahostsv4 kubernetes.default",
        "python3 -c 'import socket; print(socket.gethostbyname(\"kubernetes.default\"))'",
        "look-up-musl kubernetes.default",
        "look-up-musl kubernetes.default.svc.cluster.local",
        "look-up-musl kubernetes.default.svc.cluster.local.",
    ] {
        let said = k(&["exec", "client", "--", "sh", "-c", script]);
        let is_it = |line: &str| line.split_whitespace().any(|word| word == "10.96.0.1");
        assert!(said.lines().any(is_it), "{script}\n{said}");
    }
    for script in ["look-up-musl nobody.default", "getent ahostsv4 nobody.default"] {
        let said = k(&[
            "exec",
            "client",
            "--",
            "sh",
            "-c",
            &format!("{script} 2>&1 || echo refused"),
        ]);
        assert!(said.contains("refused"), "{script}\n{said}");
    }
}
