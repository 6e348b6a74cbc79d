//! The CRI socket, asked by a client of other people's as crictl asks it.

use serde_json::Value;
use tests::{Cluster, run, target};

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
