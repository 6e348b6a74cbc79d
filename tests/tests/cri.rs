//! CRI from both ends: the built-in runtime's socket, asked by a client of other people's as crictl and critest ask it, and the kubelet on
//! top of other people's runtime.

use std::collections::BTreeMap;

use serde_json::Value;
use tests::{Cluster, Containerd, Options, Registry, image, run, target, variant};

const TWO_CONTAINERS: &str = include_str!("../../examples/two-containers.yaml");

#[test]
fn the_cri_socket_answers_what_crictl_asks() {
    let cluster = Cluster::start();
    cluster.create(TWO_CONTAINERS);
    cluster.wait_ready("two-containers");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cri_client.py");
    let mut python = cluster.netns.command("python3");
    python
        .arg(script)
        .arg(cluster.run_dir().join("podium.sock"))
        .env("PYTHONPATH", target().join("tools/cri"));
    let answers: Value = serde_json::from_str(&run(&mut python, "").ok()).expect("JSON");

    assert_eq!(answers["version"]["runtimeName"], "podium");
    assert_eq!(answers["version"]["runtimeApiVersion"], "v1");
    for condition in answers["info"]["status"]["conditions"].as_array().expect("conditions") {
        assert_eq!(condition["status"], true, "{condition}");
    }
    let uid = cluster.field("two-containers", "{.metadata.uid}");
    let pods = answers["pods"].as_array().expect("pods");
    assert_eq!(pods.len(), 1, "{pods:?}");
    assert_eq!(pods[0]["metadata"]["name"], "two-containers");
    assert_eq!(pods[0]["metadata"]["uid"], *uid);
    assert_eq!(pods[0]["state"], "SANDBOX_READY");
    assert_eq!(
        answers["inspectp"]["status"]["network"]["ip"],
        *cluster.field("two-containers", "{.status.podIP}")
    );

    let containers = answers["ps"].as_array().expect("containers");
    let mut names: Vec<_> = containers.iter().map(|one| one["metadata"]["name"].as_str()).collect();
    names.sort();
    assert_eq!(names, [Some("busybox"), Some("nginx")]);
    for container in containers {
        assert_eq!(container["state"], "CONTAINER_RUNNING", "{container}");
        assert_eq!(container["podSandboxId"], pods[0]["id"], "{container}");
    }
    assert_eq!(answers["inspect"]["status"]["metadata"]["name"], "busybox");
    assert_eq!(
        answers["exec"],
        serde_json::json!({"code": 3, "stdout": "out\n", "stderr": "err\n"})
    );
    let url = answers["execUrl"].as_str().expect("a URL");
    assert!(url.starts_with("http://127.0.0.1:"), "{url}");
    assert_eq!(answers["logs"]["there"], true, "{}", answers["logs"]);
    assert_eq!(answers["missing"], "NOT_FOUND");

    let stats = answers["stats"].as_array().expect("stats");
    assert_eq!(stats.len(), 2);
    for one in stats {
        let number = |pointer: &str| {
            let number = one.pointer(pointer).and_then(Value::as_str);
            number.and_then(|number| number.parse::<u64>().ok()).unwrap_or(0)
        };
        assert!(number("/cpu/usageCoreNanoSeconds/value") > 0, "{one}");
        assert!(number("/memory/workingSetBytes/value") > 0, "{one}");
    }
    assert_eq!(answers["statsp"].as_array().map(Vec::len), Some(1));

    // What verbose answers have more, and the metrics.
    let details: Value =
        serde_json::from_str(answers["inspect"]["info"]["info"].as_str().expect("details")).expect("JSON");
    let pid = details["pid"].as_i64().expect("a process");
    let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("the process runs");
    assert!(line.starts_with("sleep\0"), "{line:?}");
    assert_eq!(
        details["runtimeSpec"]["process"]["args"],
        serde_json::json!(["sleep", "12h"])
    );
    assert!(
        answers["inspectp"]["info"]["info"]
            .as_str()
            .is_some_and(|info| info.contains("\"netns\""))
    );
    assert!(
        answers["info"]["info"]["config"]
            .as_str()
            .is_some_and(|info| info.contains("cgroupfs"))
    );
    let described = answers["descriptors"].as_array().expect("descriptors");
    let pod = &answers["metrics"][0];
    assert_eq!(pod["podSandboxId"], pods[0]["id"]);
    let of_containers = pod["containerMetrics"].as_array().expect("metrics of containers");
    assert_eq!(of_containers.len(), 2);
    for metric in of_containers
        .iter()
        .chain([pod])
        .flat_map(|one| one["metrics"].as_array().expect("metrics"))
    {
        let described = described
            .iter()
            .find(|one| one["name"] == metric["name"])
            .unwrap_or(&Value::Null);
        assert_eq!(
            described["labelKeys"].as_array().map(Vec::len),
            metric["labelValues"].as_array().map(Vec::len),
            "{metric}"
        );
    }
    // What came by the images directory is pinned: no kubelet's garbage collection takes it.
    let images = answers["images"].as_array().expect("images");
    assert_eq!(images.len(), 2);
    for image in images {
        assert_eq!(image["pinned"], true, "{image}");
        assert!(
            image["repoTags"][0]
                .as_str()
                .is_some_and(|tag| tag.starts_with("localhost/")),
            "{image}"
        );
    }
    let used = answers["imagefsinfo"]["imageFilesystems"][0]["usedBytes"]["value"].as_str();
    assert!(used.is_some_and(|used| used != "0"), "{}", answers["imagefsinfo"]);
}

#[test]
fn the_built_in_runtime_does_what_cri_asks() {
    let cluster = Cluster::start();
    let registry = Registry::start(&cluster.netns, 5000, false);
    registry.push(&cluster.netns, &image("web"), "web", "1");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cri_suite.py");
    let mut python = cluster.netns.command("python3");
    python
        .arg(script)
        .arg(cluster.run_dir().join("podium.sock"))
        .arg(format!("{}/web:1", registry.address))
        .arg("localhost/nginx:1")
        .env("PYTHONPATH", target().join("tools/cri"));
    let answers: BTreeMap<String, String> = serde_json::from_str(&run(&mut python, "").ok()).expect("JSON");
    assert!(answers.len() > 10, "{answers:?}");
    let failed: Vec<_> = answers.iter().filter(|(_, said)| *said != "ok").collect();
    for (name, said) in &failed {
        eprintln!("{name}:\n{said}");
    }
    assert!(failed.is_empty(), "{} checks of {} failed", failed.len(), answers.len());
}

#[test]
fn containerd_runs_the_pod_of_two_containers() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = Containerd::socket(dir.path());
    // Declared before the cluster to be dropped after it: a server that still runs would make its pods again.
    let containerd;
    let mut cluster = Cluster::prepare(Options {
        flags: vec![format!("--container-runtime-endpoint={}", socket.display())],
        ..Options::default()
    });
    let pause = variant(dir.path(), "busybox", "localhost/pause:1", |config| {
        config["Cmd"] = serde_json::json!(["sleep", "2147483647"]);
    });
    containerd = Containerd::start(&cluster.netns, dir.path(), "localhost/pause:1", "10.244.0.0/24");
    for archive in [pause, image("nginx"), image("busybox")] {
        containerd.import(&archive);
    }
    cluster.start_server();
    let version = cluster
        .kubectl(&[
            "get",
            "node",
            "node",
            "-o",
            "jsonpath={.status.nodeInfo.containerRuntimeVersion}",
        ])
        .ok();
    assert!(version.starts_with("containerd://1.6."), "{version}");

    cluster.create(TWO_CONTAINERS);
    cluster.wait_ready("two-containers");
    let ip = cluster.field("two-containers", "{.status.podIP}");
    assert!(ip.starts_with("10.244.0."), "{ip}");
    let ids = cluster.field("two-containers", "{.status.containerStatuses[*].containerID}");
    assert!(ids.split(' ').all(|id| id.starts_with("containerd://")), "{ids}");
    // One network, one folder; streams, logs, names and ends pass through the other runtime's server.
    let page = cluster
        .kubectl(&[
            "exec",
            "two-containers",
            "-c",
            "busybox",
            "--",
            "wget",
            "-qO-",
            "http://127.0.0.1/",
        ])
        .ok();
    assert!(page.contains("Welcome to nginx!"), "{page}");
    let exec = |container: &str, script: &str| {
        cluster.kubectl(&["exec", "two-containers", "-c", container, "--", "sh", "-c", script])
    };
    exec("busybox", "echo shared > /cache/f").ok();
    let page = exec("busybox", "wget -qO- http://127.0.0.1/cache/f; hostname; exit 3");
    assert_eq!(
        (page.code, page.stdout.as_str()),
        (3, "shared\ntwo-containers\n"),
        "{page}"
    );
    let log = cluster.kubectl(&["logs", "two-containers", "-c", "nginx"]).ok();
    assert!(log.contains("GET /cache/f"), "{log}");
    // Services lead to its pods and its pods to Services, by name; a pod that is behind the Service reaches itself.
    let expose = [
        "expose",
        "pod",
        "two-containers",
        "--name=web",
        "--port=8080",
        "--target-port=80",
    ];
    cluster.kubectl(&expose).ok();
    let client = "{apiVersion: v1, kind: Pod, metadata: {name: client}, spec: {terminationGracePeriodSeconds: 0, containers: [{name: main, image: 'localhost/busybox:1', command: [sleep, 12h]}]}}";
    cluster.create(client);
    cluster.wait_ready("client");
    let asks = |pod: &str, container: &str, url: &str| {
        tests::eventually(&format!("{pod} gets {url}"), || {
            let args = ["exec", pod, "-c", container, "--", "wget", "-qO-", url];
            let page = cluster.kubectl(&args);
            page.stdout.contains("Welcome to nginx!").then_some(())
        });
    };
    asks("client", "main", "http://web:8080/");
    asks("client", "main", "http://web.default.svc.cluster.local:8080/");
    asks("two-containers", "busybox", "http://web:8080/");
    let looked_up = cluster.kubectl(&[
        "exec",
        "client",
        "--",
        "nslookup",
        "kubernetes.default.svc.cluster.local",
    ]);
    assert!(looked_up.ok().contains("10.96.0.1"));
    cluster.kubectl(&["delete", "pod", "client", "--timeout=60s"]).ok();
    // A new server finds them, and a container that ends is started again.
    let restarts = || {
        cluster.field(
            "two-containers",
            "{.status.containerStatuses[?(@.name==\"nginx\")].restartCount}",
        )
    };
    assert_eq!(restarts(), "0");
    exec("busybox", "true").ok();
    let task = ids.split("containerd://").nth(2).unwrap_or_default().trim().to_owned();
    containerd.ctr(&["tasks", "kill", "--signal", "SIGKILL", &task]).ok();
    tests::eventually("nginx is started again", || (restarts() == "1").then_some(()));
    cluster.wait_ready("two-containers");
    cluster
        .kubectl(&["delete", "pod", "two-containers", "--timeout=60s"])
        .ok();
    assert_eq!(
        containerd.ctr(&["tasks", "list", "--quiet"]).ok(),
        "",
        "nothing runs any more"
    );
}
