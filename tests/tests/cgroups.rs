//! What pods ask for reaches the kernel: requests, limits and classes as control groups, on hierarchies of version 1 and of version 2. The lane
//! of `cargo xtask test` with a virtual machine runs this where there is version 2 alone.

use std::fs;
use std::path::{Path, PathBuf};

use tests::{Cluster, Options, eventually};

/// Whether this machine has the one hierarchy of version 2.
fn unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// A pod's cgroup in the hierarchy of a controller.
fn cgroup(controller: &str, class: &str, uid: &str) -> PathBuf {
    let root = Path::new("/sys/fs/cgroup");
    let root = if unified() {
        root.to_owned()
    } else {
        root.join(controller)
    };
    root.join("kubepods").join(class).join(format!("pod{uid}"))
}

#[track_caller]
fn number(path: &Path) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let first = text.split_whitespace().next().unwrap_or_default();
    first
        .parse()
        .unwrap_or_else(|error| panic!("{}: {text:?}: {error}", path.display()))
}

/// (memory limit in bytes, microseconds of CPU in 100 ms), as the kernel has them.
#[track_caller]
fn limits(class: &str, uid: &str, below: &str) -> (u64, u64) {
    let (memory, cpu) = (
        cgroup("memory", class, uid).join(below),
        cgroup("cpu", class, uid).join(below),
    );
    match unified() {
        true => (number(&memory.join("memory.max")), number(&cpu.join("cpu.max"))),
        false => (
            number(&memory.join("memory.limit_in_bytes")),
            number(&cpu.join("cpu.cfs_quota_us")),
        ),
    }
}

fn weight(class: &str, uid: &str) -> u64 {
    let file = if unified() { "cpu.weight" } else { "cpu.shares" };
    number(&cgroup("cpu", class, uid).join(file))
}

#[test]
fn requests_and_limits_reach_the_kernel() {
    let cluster = Cluster::with(Options {
        images: &["busybox"],
        ..Options::default()
    });
    let pod = |name: &str, resources: &str| {
        cluster.create(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 1, containers: [{{name: c, \
             image: 'localhost/busybox:1', command: [sleep, 12h], resources: {resources}}}]}}}}"
        ));
    };
    pod("guaranteed", "{limits: {cpu: 500m, memory: 64Mi}}");
    pod(
        "burstable",
        "{requests: {cpu: 250m, memory: 16Mi}, limits: {memory: 32Mi, cpu: '1'}}",
    );
    pod("best", "{}");
    cluster.create(
        "{apiVersion: v1, kind: Pod, metadata: {name: hungry}, spec: {restartPolicy: Never, containers: [{name: c, image: 'localhost/busybox:1', \
         command: [tail, /dev/zero], resources: {limits: {memory: 16Mi}}}]}}",
    );

    let mut uids = Vec::new();
    for name in ["guaranteed", "burstable", "best"] {
        cluster.wait_ready(name);
        uids.push(cluster.field(name, "{.metadata.uid}"));
    }
    let container = |name: &str| {
        let id = cluster.field(name, "{.status.containerStatuses[0].containerID}");
        id.trim_start_matches("podium://").to_owned()
    };
    let (guaranteed, burstable, best) = (&uids[0], &uids[1], &uids[2]);
    for below in [String::new(), container("guaranteed")] {
        assert_eq!(limits("", guaranteed, &below), (64 << 20, 50_000), "guaranteed {below}");
    }
    for below in [String::new(), container("burstable")] {
        assert_eq!(
            limits("burstable", burstable, &below),
            (32 << 20, 100_000),
            "burstable {below}"
        );
    }
    let weights = [
        weight("", guaranteed),
        weight("burstable", burstable),
        weight("besteffort", best),
    ];
    assert!(weights[0] > weights[1] && weights[1] > weights[2], "{weights:?}");

    // Programs size themselves by what they read of their own limit.
    let own = match unified() {
        true => "/sys/fs/cgroup/memory.max",
        false => "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    };
    let read = cluster.kubectl(&["exec", "guaranteed", "--", "cat", own]).ok();
    assert_eq!(read, format!("{}\n", 64 << 20));

    eventually("the container that takes too much memory is killed for it", || {
        let ended = "{.status.containerStatuses[0].state.terminated";
        (cluster.field("hungry", &format!("{ended}.reason}} {ended}.exitCode}}")) == "OOMKilled 137").then_some(())
    });

    cluster.kubectl(&["delete", "pod", "--all"]).ok();
    for (class, uid) in [("", guaranteed), ("burstable", burstable), ("besteffort", best)] {
        let left = cgroup("memory", class, uid);
        eventually(&format!("{} is gone", left.display()), || {
            (!left.exists()).then_some(())
        });
    }
}
