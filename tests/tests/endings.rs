//! How pods end, how a server's death does not end them, and how reset leaves nothing.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use tests::{Cluster, eventually, run};

const TWO_CONTAINERS: &str = include_str!("../../examples/two-containers.yaml");

/// Traces of a pod on the machine: mounts, cgroups and processes that carry its uid, links of the node.
fn traces(cluster: &Cluster, uid: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    let dir = cluster.dir().to_string_lossy().into_owned();
    found.extend(
        mounts
            .lines()
            .filter(|line| line.contains(uid) || line.contains(&dir))
            .map(|line| format!("mount {line}")),
    );
    let cgroups = run(
        Command::new("find").args(["/sys/fs/cgroup", "-type", "d", "-name", &format!("*{uid}*")]),
        "",
    )
    .stdout;
    found.extend(cgroups.lines().map(|line| format!("cgroup {line}")));
    let links = cluster.netns.ip(&["-o", "link"]);
    found.extend(
        links
            .lines()
            .filter(|line| !line.contains(" lo:") && !line.contains(" eth0@"))
            .map(|line| format!("link {line}")),
    );
    let volumes = run(
        Command::new("find")
            .arg(cluster.dir())
            .args(["-name", &format!("*{uid}*")]),
        "",
    )
    .stdout;
    found.extend(
        volumes
            .lines()
            .filter(|line| !line.contains("/pods/default_"))
            .map(|line| format!("file {line}")),
    );
    found
}

#[test]
fn delete_waits_for_the_grace_period_and_takes_everything_with_it() {
    let cluster = Cluster::start();
    cluster.create(
        "{apiVersion: v1, kind: Pod, metadata: {name: polite}, spec: {containers: [{name: main, image: 'localhost/busybox:1', \
         volumeMounts: [{name: cache, mountPath: /cache}], \
         command: [sh, -c, 'trap \"echo bye > /cache/bye; exit 0\" TERM; sleep 12h & wait']}], volumes: [{name: cache, emptyDir: {}}]}}",
    );
    cluster.create(
        "{apiVersion: v1, kind: Pod, metadata: {name: stubborn}, spec: {terminationGracePeriodSeconds: 2, containers: \
         [{name: main, image: 'localhost/busybox:1', command: [sh, -c, 'trap \"\" TERM; while true; do sleep 1; done']}]}}",
    );
    cluster.wait_ready("polite");
    cluster.wait_ready("stubborn");
    let uids = [
        cluster.field("polite", "{.metadata.uid}"),
        cluster.field("stubborn", "{.metadata.uid}"),
    ];
    assert!(
        !traces(&cluster, &uids[0]).is_empty(),
        "a running pod has traces, or this test sees none"
    );

    assert_eq!(
        cluster.kubectl(&["delete", "pod", "polite"]).ok(),
        "pod \"polite\" deleted from default namespace\n"
    );
    let start = Instant::now();
    cluster.kubectl(&["delete", "pod", "stubborn"]).ok();
    assert!(
        start.elapsed() >= Duration::from_secs(2),
        "SIGKILL came before the grace period was over: {:?}",
        start.elapsed()
    );
    assert_eq!(cluster.kubectl(&["get", "pods", "-o", "name"]).ok(), "");
    eventually("no trace of the pods is left", || {
        uids.iter().all(|uid| traces(&cluster, uid).is_empty()).then_some(())
    });
}

#[test]
fn a_forced_delete_does_not_wait() {
    let cluster = Cluster::start();
    cluster.create(
        "{apiVersion: v1, kind: Pod, metadata: {name: stubborn}, spec: {terminationGracePeriodSeconds: 3600, containers: \
         [{name: main, image: 'localhost/busybox:1', command: [sh, -c, 'trap \"\" TERM; while true; do sleep 1; done']}]}}",
    );
    cluster.wait_ready("stubborn");
    let uid = cluster.field("stubborn", "{.metadata.uid}");
    let output = cluster.kubectl(&["delete", "pod", "stubborn", "--force", "--grace-period=0"]);
    assert!(output.stderr.contains("Immediate deletion does not wait"), "{output}");
    output.ok();
    assert_eq!(cluster.kubectl(&["get", "pods", "-o", "name"]).ok(), "");
    eventually("no trace of the pod is left", || {
        traces(&cluster, &uid).is_empty().then_some(())
    });
}

#[test]
fn pods_outlive_a_killed_server() {
    let mut cluster = Cluster::start();
    cluster.create(TWO_CONTAINERS);
    cluster.wait_ready("two-containers");
    let before = cluster.field("two-containers", "{.status.containerStatuses[*].containerID} {.status.containerStatuses[*].state.running.startedAt} {.status.podIP}");
    for n in 0..20 {
        cluster
            .kubectl(&["create", "configmap", &format!("kept-{n}"), "--from-literal=n=1"])
            .ok();
    }
    cluster.kill_server();
    let ip = before.split_whitespace().last().expect("an address");
    let page = run(
        cluster
            .netns
            .command("curl")
            .args(["-s", "-m", "5", &format!("http://{ip}/")]),
        "",
    )
    .ok();
    assert!(
        page.contains("Welcome to nginx!"),
        "the pod answers while no server runs"
    );

    cluster.start_server();
    cluster.wait_ready("two-containers");
    let kept = cluster.kubectl(&["get", "configmaps", "-o", "name"]).ok();
    assert_eq!(
        kept.lines().filter(|line| line.starts_with("configmap/kept-")).count(),
        20,
        "{kept}"
    );
    let exec = cluster
        .kubectl(&[
            "exec",
            "two-containers",
            "-c",
            "busybox",
            "--",
            "wget",
            "-qO-",
            "http://127.0.0.1",
        ])
        .ok();
    assert!(exec.contains("Welcome to nginx!"));
    let logs = cluster.kubectl(&["logs", "two-containers", "-c", "nginx"]).ok();
    assert!(logs.contains("GET / HTTP/1.1"), "{logs}");
    let after = cluster.field("two-containers", "{.status.containerStatuses[*].containerID} {.status.containerStatuses[*].state.running.startedAt} {.status.podIP}");
    assert_eq!(after, before);
    assert_eq!(
        cluster.field("two-containers", "{.status.containerStatuses[*].restartCount}"),
        "0 0"
    );
    cluster.kubectl(&["delete", "pod", "two-containers", "--now"]).ok();
}

#[test]
fn reset_leaves_nothing() {
    let mut cluster = Cluster::start();
    cluster.create(TWO_CONTAINERS);
    cluster.wait_ready("two-containers");
    let uid = cluster.field("two-containers", "{.metadata.uid}");
    let logs = cluster.pod_logs_dir();
    let pods_with_logs = || fs::read_dir(&logs).expect("the directory of logs").count();
    assert_eq!(pods_with_logs(), 1);
    let refused = cluster.reset().fails();
    assert!(
        refused.contains("is used by another Podium process"),
        "reset refuses while the server runs: {refused}"
    );
    cluster.kill_server();
    cluster.reset().ok();
    assert_eq!(traces(&cluster, &uid), Vec::<String>::new());
    assert_eq!(pods_with_logs(), 0);
    let dir = cluster.dir().to_string_lossy().into_owned();
    let processes = run(Command::new("pgrep").args(["-af", &dir]), "").stdout;
    assert_eq!(processes, "");
    assert_eq!(run(cluster.netns.command("nft").args(["list", "tables"]), "").ok(), "");
    assert_eq!(
        cluster
            .netns
            .ip(&["route", "show", "table", "main"])
            .lines()
            .filter(|line| !line.contains("192.0.2.0/24"))
            .count(),
        0
    );
    assert!(
        !cluster.data_dir().exists() && !cluster.run_dir().exists(),
        "the directories are gone"
    );
    cluster.reset().ok();
}
