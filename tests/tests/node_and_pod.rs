//! The node, and the pod of two containers: created, listed, printed in every form, sharing a network and a folder.

use tests::{Cluster, eventually, run};

const TWO_CONTAINERS: &str = include_str!("../../examples/two-containers.yaml");

#[test]
fn node_is_ready_and_says_what_it_is() {
    let cluster = Cluster::with(tests::Options::default());
    let table = cluster.kubectl(&["get", "nodes", "-o", "wide"]).ok();
    let (header, row) = table.split_once('\n').expect("a header and a row");
    let columns: Vec<_> = header
        .split("  ")
        .map(str::trim)
        .filter(|column| !column.is_empty())
        .collect();
    assert_eq!(
        columns,
        [
            "NAME",
            "STATUS",
            "ROLES",
            "AGE",
            "VERSION",
            "INTERNAL-IP",
            "EXTERNAL-IP",
            "OS-IMAGE",
            "KERNEL-VERSION",
            "CONTAINER-RUNTIME"
        ]
    );
    let cells: Vec<_> = row.split_whitespace().collect();
    assert_eq!(cells[..2], ["node", "Ready"]);
    assert!(cells[4].starts_with("v1.36."), "{row}");
    assert!(row.contains("192.0.2.10"), "{row}");
    let release = std::fs::read_to_string("/etc/os-release").expect("os-release");
    let name = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .expect("a pretty name")
        .trim_matches('"');
    assert!(row.contains(name), "{row}");
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("osrelease");
    assert!(row.contains(kernel.trim()), "{row}");
    assert!(row.contains("podium://"), "{row}");

    let version = cluster.kubectl(&["version"]).ok();
    assert!(version.contains("Server Version: v1.36."), "{version}");
    let namespaces = cluster.kubectl(&["get", "namespaces", "-o", "name"]).ok();
    assert_eq!(
        namespaces,
        "namespace/default\nnamespace/kube-node-lease\nnamespace/kube-public\nnamespace/kube-system\n"
    );
    let described = cluster.kubectl(&["describe", "node", "node"]).ok();
    for line in [
        "kubelet is posting ready status",
        "PodCIDR:",
        "Allocatable:",
        "Non-terminated Pods:",
    ] {
        assert!(described.contains(line), "{line:?} is not in\n{described}");
    }
}

#[test]
fn pod_of_two_containers_shares_network_and_folder() {
    let cluster = Cluster::start();
    let k = |args: &[&str]| cluster.kubectl(args).ok();
    assert_eq!(cluster.create(TWO_CONTAINERS), "pod/two-containers created\n");
    let again = cluster.kubectl_with(&["create", "-f", "-"], TWO_CONTAINERS).fails();
    assert_eq!(
        again,
        "Error from server (AlreadyExists): error when creating \"STDIN\": pods \"two-containers\" already exists\n"
    );
    cluster.wait_ready("two-containers");

    let table = k(&["get", "pods"]);
    let row: Vec<_> = table.lines().nth(1).expect("a row").split_whitespace().collect();
    assert_eq!(row[..4], ["two-containers", "2/2", "Running", "0"], "{table}");
    let wide = k(&["get", "pods", "-o", "wide"]);
    let ip = cluster.field("two-containers", "{.status.podIP}");
    assert!(
        ip.starts_with("10.244.") && wide.contains(&ip) && wide.contains(" node "),
        "{wide}"
    );

    // Every form of output.
    assert_eq!(
        k(&[
            "get",
            "pod",
            "two-containers",
            "-o",
            "jsonpath={.spec.containers[*].name}"
        ]),
        "nginx busybox"
    );
    let json: serde_json::Value =
        serde_json::from_str(&k(&["get", "pod", "two-containers", "-o", "json"])).expect("JSON");
    assert_eq!(json["kind"], "Pod");
    assert_eq!(json["status"]["qosClass"], "BestEffort");
    assert_eq!(json["status"]["hostIP"], "192.0.2.10");
    assert_eq!(json["spec"]["volumes"][0]["emptyDir"]["sizeLimit"], "64Mi");
    assert_eq!(json["spec"]["terminationGracePeriodSeconds"], 30);
    let yaml = k(&["get", "pod", "two-containers", "-o", "yaml"]);
    assert!(yaml.starts_with("apiVersion: v1\nkind: Pod\n"), "{yaml}");
    assert!(k(&["get", "pods", "-A"]).contains("default "), "-A");
    assert!(k(&["get", "pods", "-l", "app=two-containers"]).contains("two-containers"));
    assert_eq!(k(&["get", "pods", "-l", "app=other", "-o", "name"]), "");
    assert_eq!(
        k(&["get", "pods", "--field-selector", "status.phase=Running", "-o", "name"]),
        "pod/two-containers\n"
    );
    assert_eq!(
        k(&["get", "pods", "--field-selector", "spec.nodeName=nowhere", "-o", "name"]),
        ""
    );
    assert!(k(&["get", "pods", "--sort-by", ".metadata.name"]).contains("two-containers"));
    let explained = k(&["explain", "pod.spec.containers"]);
    assert!(explained.contains("FIELD: containers <[]Container>"), "{explained}");
    assert!(explained.contains("imagePullPolicy"), "{explained}");

    // One network.
    let page = k(&[
        "exec",
        "two-containers",
        "-c",
        "busybox",
        "--",
        "wget",
        "-qO-",
        "http://127.0.0.1",
    ]);
    assert!(page.contains("Welcome to nginx!"), "{page}");
    // One folder, both ways.
    k(&[
        "exec",
        "two-containers",
        "-c",
        "busybox",
        "--",
        "sh",
        "-c",
        "echo shared > /cache/file.html",
    ]);
    let served = k(&[
        "exec",
        "two-containers",
        "-c",
        "busybox",
        "--",
        "wget",
        "-qO-",
        "http://127.0.0.1/cache/file.html",
    ]);
    assert_eq!(served, "shared\n");

    // The pod's address answers from the node and from another pod.
    let from_node = run(
        cluster
            .netns
            .command("curl")
            .args(["-s", "-m", "5", &format!("http://{ip}/")]),
        "",
    )
    .ok();
    assert!(from_node.contains("Welcome to nginx!"));
    cluster.create(
        "{apiVersion: v1, kind: Pod, metadata: {name: other}, spec: {containers: [{name: main, image: 'localhost/busybox:1', command: [sleep, 12h]}]}}",
    );
    cluster.wait_ready("other");
    let from_pod = k(&["exec", "other", "--", "wget", "-qO-", &format!("http://{ip}/")]);
    assert!(from_pod.contains("Welcome to nginx!"));
}

#[test]
fn a_watch_sees_the_pod_come_up() {
    let cluster = Cluster::start();
    let mut watch = cluster.kubectl_command();
    watch.args(["get", "pods", "-w", "--output-watch-events", "--no-headers"]);
    let mut watch = tests::Terminal::start(watch, 24, 200);
    // The list of nothing says so before the watch begins.
    cluster.create(TWO_CONTAINERS);
    let seen = watch.expect("2/2");
    assert!(seen.contains("ADDED"), "{seen}");
    assert!(seen.contains("Pending"), "{seen}");
    assert!(seen.contains("ContainerCreating"), "{seen}");
    assert!(seen.contains("Running") || watch.expect("Running").contains("Running"));
    watch.send("\x03");
    watch.wait();
}

#[test]
fn ps_lists_the_containers_and_their_pause() {
    let cluster = Cluster::start();
    cluster.create(TWO_CONTAINERS);
    cluster.wait_ready("two-containers");
    let uid = cluster.field("two-containers", "{.metadata.uid}");
    let listed = eventually("podium ps lists three containers", || {
        let listed = cluster.podium(&["ps", "-a"]).ok();
        (listed.matches(&uid).count() == 3).then_some(listed)
    });
    for name in ["nginx", "busybox", "POD"] {
        let full = format!("k8s_{name}_two-containers_default_{uid}_0");
        assert!(listed.contains(&full), "{full} is not in\n{listed}");
    }
}
