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

/// Whether the kernel limits huge pages of control groups.
fn limits_pages() -> bool {
    match unified() {
        true => fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").is_ok_and(|all| all.contains("hugetlb")),
        false => Path::new("/sys/fs/cgroup/hugetlb").exists(),
    }
}

/// Pods of RuntimeClasses: what admission puts in and refuses, and where they go.
fn classes(cluster: &Cluster) {
    cluster.create(
        "apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: with-overhead}
handler: runc
overhead: {podFixed: {memory: 16Mi, cpu: 100m}}
scheduling: {nodeSelector: {runs: classes}, tolerations: [{key: classes, operator: Exists}]}
---
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: odd}
handler: kata
",
    );
    let pod = |name: &str, class: &str, more: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{runtimeClassName: {class}{more}, terminationGracePeriodSeconds: 1, \
             containers: [{{name: c, image: 'localhost/busybox:1', command: [sleep, 12h], resources: {{limits: {{cpu: 500m, memory: 64Mi}}}}}}]}}}}"
        )
    };
    let refused = |pod: &str| cluster.kubectl_with(&["create", "-f", "-"], pod).fails();
    let said = refused(&pod("a", "none", ""));
    assert!(said.contains("pod rejected: RuntimeClass \"none\" not found"), "{said}");
    let said = refused(&pod("a", "with-overhead", ", overhead: {memory: 1Mi}"));
    assert!(
        said.contains("Pod's Overhead doesn't match RuntimeClass's defined Overhead"),
        "{said}"
    );
    let said = refused(&pod("a", "with-overhead", ", nodeSelector: {runs: others}"));
    assert!(said.contains("conflict: "), "{said}");

    cluster.create(&pod("odd", "odd", ""));
    cluster.create(&pod("classed", "with-overhead", ""));
    assert_eq!(
        cluster.field(
            "classed",
            "{.spec.overhead} {.spec.nodeSelector.runs} {.spec.tolerations[?(@.key==\"classes\")].operator}"
        ),
        "{\"cpu\":\"100m\",\"memory\":\"16Mi\"} classes Exists"
    );
    cluster.until_event("classed", "didn't match Pod's node affinity/selector");
    cluster.kubectl(&["label", "node", "node", "runs=classes"]).ok();
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

    // Huge pages are limited where the machine has the controller, and refused where not.
    cluster.create(
        "{apiVersion: v1, kind: Pod, metadata: {name: huge}, spec: {nodeName: node, terminationGracePeriodSeconds: 1, containers: [{name: c, \
         image: 'localhost/busybox:1', command: [sleep, 12h], resources: {limits: {hugepages-2Mi: 4Mi, memory: 32Mi}}}]}}",
    );
    classes(&cluster);

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

    if limits_pages() {
        cluster.wait_ready("huge");
        let uid = cluster.field("huge", "{.metadata.uid}");
        let file = match unified() {
            true => "hugetlb.2MB.max",
            false => "hugetlb.2MB.limit_in_bytes",
        };
        for below in [String::new(), container("huge")] {
            let directory = cgroup("hugetlb", "burstable", &uid).join(below);
            assert_eq!(number(&directory.join(file)), 4 << 20, "{}", directory.display());
        }
    } else {
        cluster.until_event("huge", "the machine has no hugetlb cgroup controller");
    }

    // The pod of a class has its own limit and what the class adds; its container has its own.
    cluster.wait_ready("classed");
    let classed = cluster.field("classed", "{.metadata.uid}");
    assert_eq!(limits("", &classed, ""), (80 << 20, 60_000));
    assert_eq!(limits("", &classed, &container("classed")), (64 << 20, 50_000));
    cluster.until_event(
        "odd",
        "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to get sandbox runtime: no runtime for \"kata\" is configured",
    );

    cluster.kubectl(&["delete", "pod", "--all"]).ok();
    for (class, uid) in [
        ("", guaranteed),
        ("", &classed),
        ("burstable", burstable),
        ("besteffort", best),
    ] {
        let left = cgroup("memory", class, uid);
        eventually(&format!("{} is gone", left.display()), || {
            (!left.exists()).then_some(())
        });
    }
}
