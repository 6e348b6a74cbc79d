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

#[track_caller]
fn weight(cgroup: &Path) -> u64 {
    let file = if unified() { "cpu.weight" } else { "cpu.shares" };
    number(&cgroup.join(file))
}

/// The cgroup of a class, or that of all pods.
fn class_cgroup(controller: &str, class: &str) -> PathBuf {
    let mut path = cgroup(controller, class, "");
    path.pop();
    path
}

/// The weight that a kubelet gives for thousandths of a CPU.
fn weight_for(millis: u64) -> u64 {
    let shares = (millis * 1024 / 1000).clamp(2, 262_144);
    if unified() {
        1 + (shares - 2) * 9999 / 262_142
    } else {
        shares
    }
}

fn sleeper(name: &str, resources: &str, more: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 1, containers: [{{name: c, \
         image: 'localhost/busybox:1', command: [sleep, 12h], resources: {resources}}}]{more}}}}}"
    )
}

/// Classes are weighed by what their pods ask for together. Other tests' nodes may be on this machine, and the class has the weight of the node
/// whose pods changed last: a further pod makes that this one.
fn classes_are_weighed(cluster: &Cluster, burstable_millis: u64) {
    let weighed = (0..5).any(|turn| {
        let name = format!("more-{turn}");
        cluster.create(&sleeper(&name, "{requests: {cpu: 100m}}", ""));
        cluster.wait_ready(&name);
        let with = weight(&class_cgroup("cpu", "burstable"));
        cluster.kubectl(&["delete", "pod", &name]).ok();
        let without = weight(&class_cgroup("cpu", "burstable"));
        let seen = (with, without);
        let wanted = (weight_for(burstable_millis + 100), weight_for(burstable_millis));
        eprintln!("burstable weighs {seen:?}, wanted {wanted:?}");
        seen == wanted
    });
    assert!(weighed, "the class of Burstable pods has another weight each time");
    assert_eq!(weight(&class_cgroup("cpu", "besteffort")), weight_for(0));
    let field = |name: &str| {
        let path = format!("jsonpath={{.status.capacity.{name}}}");
        cluster.kubectl(&["get", "node", "node", "-o", &path]).ok()
    };
    let cpus: u64 = field("cpu").parse().expect("whole CPUs");
    assert_eq!(weight(&class_cgroup("cpu", "")), weight_for(cpus * 1000));
    let file = if unified() {
        "memory.max"
    } else {
        "memory.limit_in_bytes"
    };
    assert_eq!(
        number(&class_cgroup("memory", "").join(file)),
        memory_total(),
        "the node's memory is {}",
        field("memory")
    );
}

/// Bytes that this machine has.
fn memory_total() -> u64 {
    let meminfo = fs::read_to_string("/proc/meminfo").expect("/proc/meminfo");
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.expect("a total") * 1024
}

/// The out-of-memory scores of the processes in a cgroup.
fn oom_scores(cgroup: &Path) -> Vec<i64> {
    let processes = fs::read_to_string(cgroup.join("cgroup.procs"));
    let processes = processes.unwrap_or_else(|error| panic!("{}: {error}", cgroup.display()));
    let score = |pid: &str| {
        let score = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).ok()?;
        score.trim().parse().ok()
    };
    processes.lines().filter_map(score).collect()
}

/// What comes of asking for an out-of-memory score: without CAP_SYS_RESOURCE nobody makes its children harder to kill than it is itself.
fn oom_score_for(wish: i64) -> i64 {
    const CAP_SYS_RESOURCE: u32 = 24;
    let status = fs::read_to_string("/proc/self/status").expect("/proc/self/status");
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = u64::from_str_radix(effective.expect("capabilities").trim(), 16).expect("a mask");
    let own = fs::read_to_string("/proc/self/oom_score_adj").expect("a score");
    let own: i64 = own.trim().parse().expect("a score");
    if effective & (1 << CAP_SYS_RESOURCE) == 0 {
        wish.max(own)
    } else {
        wish
    }
}

/// Huge pages of 2 MiB that the machine has while this lives.
struct Pages {
    before: String,
    total: u64,
}

const PAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";

impl Pages {
    /// So many more than there are; nothing where the kernel has none to give.
    fn reserve(more: u64) -> Option<Self> {
        let file = Path::new(PAGES).join("nr_hugepages");
        let before = fs::read_to_string(&file).ok()?.trim().to_owned();
        let total = before.parse::<u64>().ok()? + more;
        let pages = Self { before, total };
        fs::write(&file, total.to_string()).ok()?;
        (number(&file) == total).then_some(pages)
    }

    fn free() -> u64 {
        number(&Path::new(PAGES).join("free_hugepages"))
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let _ = fs::write(Path::new(PAGES).join("nr_hugepages"), &self.before);
    }
}

/// Pods with huge pages: one that has what the node has, and what has no room beside it.
fn huge_pages(cluster: &Cluster, pages: &Pages) {
    let node = |list: &str| {
        let path = format!("jsonpath={{.status.{list}.hugepages-2Mi}}");
        cluster.kubectl(&["get", "node", "node", "-o", &path]).ok()
    };
    let listed = format!("{}Mi", pages.total * 2);
    assert_eq!((node("capacity"), node("allocatable")), (listed.clone(), listed));

    cluster.wait_ready("huge");
    let mounts = cluster.exec("huge", "grep ' /pages ' /proc/mounts");
    assert!(
        mounts.contains(" hugetlbfs ") && mounts.contains("pagesize=2M"),
        "{mounts}"
    );
    let before = Pages::free();
    cluster.exec("huge", "fallocate -l 4194304 /pages/file");
    assert_eq!(Pages::free(), before - 2, "the file is in huge pages");

    if limits_pages() {
        let uid = cluster.field("huge", "{.metadata.uid}");
        let file = match unified() {
            true => "hugetlb.2MB.max",
            false => "hugetlb.2MB.limit_in_bytes",
        };
        let container = cluster.field("huge", "{.status.containerStatuses[0].containerID}");
        for below in ["", container.trim_start_matches("podium://")] {
            let directory = cgroup("hugetlb", "burstable", &uid).join(below);
            assert_eq!(number(&directory.join(file)), 4 << 20, "{}", directory.display());
        }
    } else {
        cluster.until_event(
            "huge",
            "limits of huge pages have no effect: the host has no hugetlb cgroup controller",
        );
    }

    let bytes = pages.total * (2 << 20);
    let words = format!("hugepages-2Mi, requested: {bytes}, used: 4194304, capacity: {bytes}");
    let all = format!("{{limits: {{hugepages-2Mi: '{bytes}', memory: 32Mi}}}}");
    cluster.create(&sleeper("no-pages", &all, ", nodeName: node"));
    refused(cluster, "no-pages", "OutOfhugepages-2Mi", &words);
}

fn refused(cluster: &Cluster, name: &str, reason: &str, words: &str) {
    cluster.until(name, "{.status.phase} {.status.reason}", &format!("Failed {reason}"));
    let message = cluster.field(name, "{.status.message}");
    let words = format!("Pod was rejected: Node didn't have enough resource: {words}");
    assert!(message.starts_with(&words), "{message}");
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
    let pages = Pages::reserve(2);
    let cluster = Cluster::with(Options {
        images: &["busybox"],
        ..Options::default()
    });
    let pod = |name: &str, resources: &str| {
        cluster.create(&sleeper(name, resources, ""));
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

    pod("large", "{requests: {memory: 256Mi}}");
    cluster.create(
        "{apiVersion: v1, kind: Pod, metadata: {name: huge}, spec: {terminationGracePeriodSeconds: 1, containers: [{name: c, \
         image: 'localhost/busybox:1', command: [sleep, 12h], resources: {limits: {hugepages-2Mi: 4Mi, memory: 32Mi}}, \
         volumeMounts: [{name: pages, mountPath: /pages}]}], volumes: [{name: pages, emptyDir: {medium: HugePages-2Mi}}]}}",
    );
    // What a node has from devices is told of it by others.
    let gpu = "{\"capacity\": {\"example.com/gpu\": \"1\"}, \"allocatable\": {\"example.com/gpu\": \"1\"}}";
    let patch = format!("{{\"status\": {gpu}}}");
    cluster
        .kubectl(&[
            "patch",
            "node",
            "node",
            "--subresource=status",
            "--type=merge",
            "-p",
            &patch,
        ])
        .ok();
    classes(&cluster);

    let mut uids = Vec::new();
    for name in ["guaranteed", "burstable", "best", "large"] {
        cluster.wait_ready(name);
        uids.push(cluster.field(name, "{.metadata.uid}"));
    }
    let container = |name: &str| {
        let id = cluster.field(name, "{.status.containerStatuses[0].containerID}");
        id.trim_start_matches("podium://").to_owned()
    };
    let (guaranteed, burstable, best, large) = (&uids[0], &uids[1], &uids[2], &uids[3]);
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
    // Runtimes have a conversion of their own for version 2: what containers weigh against others of their pod.
    let capacity = i64::try_from(memory_total()).expect("bytes");
    for (name, class, uid, millis, of_container, score) in [
        ("guaranteed", "", guaranteed, 500, [512, 59], -997),
        (
            "burstable",
            "burstable",
            burstable,
            250,
            [256, 35],
            1000 - (16 << 20) * 1000 / capacity,
        ),
        ("best", "besteffort", best, 0, [2, 1], 1000),
        (
            "large",
            "burstable",
            large,
            0,
            [2, 1],
            1000 - (256 << 20) * 1000 / capacity,
        ),
    ] {
        let pod = cgroup("cpu", class, uid);
        let id = container(name);
        assert_eq!(weight(&pod), weight_for(millis), "{name}");
        assert_eq!(
            weight(&pod.join(&id)),
            of_container[usize::from(unified())],
            "{name}'s container"
        );
        // Only those who asked for nothing have the highest score.
        let score = if name == "best" { score } else { score.min(999) };
        assert_eq!(oom_scores(&pod.join(&id)), [oom_score_for(score)], "{name}");
        let mut others: Vec<PathBuf> = fs::read_dir(&pod)
            .expect("the pod's cgroup")
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.is_dir() && !path.ends_with(&id))
            .collect();
        let pause = others.pop().expect("the pause process has a cgroup");
        assert!(others.is_empty(), "{others:?}");
        assert_eq!(weight(&pause), weight_for(0), "{name}'s pause process");
        assert_eq!(oom_scores(&pause), [oom_score_for(-998)], "{name}'s pause process");
    }
    classes_are_weighed(&cluster, 250);

    for (name, resource, asked, words) in [
        (
            "no-disk",
            "ephemeral-storage",
            "1Pi",
            "ephemeral-storage, requested: 1125899906842624, used: 0, capacity: ",
        ),
        (
            "no-gpu",
            "example.com/gpu",
            "2",
            "example.com/gpu, requested: 2, used: 0, capacity: 1",
        ),
    ] {
        cluster.create(&sleeper(
            name,
            &format!("{{limits: {{{resource}: '{asked}'}}}}"),
            ", nodeName: node",
        ));
        refused(&cluster, name, &format!("OutOf{resource}"), words);
    }
    cluster.create(&sleeper(
        "gpu",
        "{limits: {example.com/gpu: '1', example.com/of-the-cluster: '5'}}",
        ", nodeName: node",
    ));
    cluster.wait_ready("gpu");

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

    match &pages {
        Some(pages) => huge_pages(&cluster, pages),
        // Nobody has what the node has not.
        None => cluster.until_event("huge", "Insufficient hugepages-2Mi"),
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
