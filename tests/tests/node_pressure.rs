//! Nodes that run short: which pods go and which stay, what the node says of itself and to the scheduler, and what it no longer takes.

use std::fs;

use tests::{Cluster, Mount, Options, Registry, eventually, image};

/// The server starts anew with another configuration; pods do not notice.
fn restart(cluster: &mut Cluster, fields: &str) {
    cluster.kill_server();
    cluster.configure_kubelet(fields);
    cluster.start_server();
}

/// A condition of the node: its status and reason.
fn condition(cluster: &Cluster, kind: &str) -> String {
    let of_it = format!("{{.status.conditions[?(@.type==\"{kind}\")]");
    let path = format!("jsonpath={of_it}.status}} {of_it}.reason}}");
    cluster.kubectl(&["get", "node", "node", "-o", &path]).ok()
}

fn until_condition(cluster: &Cluster, kind: &str, expected: &str) {
    eventually(&format!("{kind} is {expected}"), || {
        (condition(cluster, kind) == expected).then_some(())
    });
}

/// The keys of the node's taints.
fn taints(cluster: &Cluster) -> String {
    cluster
        .kubectl(&["get", "node", "node", "-o", "jsonpath={.spec.taints[*].key}"])
        .ok()
}

fn until_taints(cluster: &Cluster, expected: &str) {
    eventually(&format!("the taints are {expected:?}"), || {
        (taints(cluster) == expected).then_some(())
    });
}

/// A pod of one container, which runs a script; `more` are further fields of the spec, `fields` of the container.
fn pod(name: &str, script: &str, more: &str, fields: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 1{more}, containers: [{{name: c, \
         image: 'localhost/busybox:1', command: [sh, -c, '{script}']{fields}}}]}}}}\n---\n"
    )
}

/// How many more processes and threads this machine can have.
fn free_process_numbers() -> u64 {
    let number = |path: &str| {
        let text = fs::read_to_string(path).expect("what the kernel says");
        text.trim().parse::<u64>().expect("a number")
    };
    let most = number("/proc/sys/kernel/pid_max").min(number("/proc/sys/kernel/threads-max"));
    let load = fs::read_to_string("/proc/loadavg").expect("what the kernel says");
    let now = load.split(' ').nth(3).and_then(|ratio| ratio.split_once('/'));
    most - now.expect("running and all").1.parse::<u64>().expect("a number")
}

const FAILED: &str = "{.status.phase} {.status.reason}";
const DISRUPTED: &str = "{.status.conditions[?(@.type==\"DisruptionTarget\")].reason}: {.status.conditions[?(@.type==\"DisruptionTarget\")].message}";

#[test]
fn a_full_disk_is_freed_by_who_filled_it_and_of_unused_images() {
    let mut cluster = Cluster::prepare(Options {
        images: &["busybox"],
        kubelet: Some("evictionHard: {nodefs.available: 40%}"),
        ..Options::default()
    });
    // The node's disk is a small one, that this machine's stays empty.
    let disk = Mount::memory("size=64m,nr_inodes=4000", cluster.data_dir().join("kubelet"));
    cluster.start_server();
    assert_eq!(condition(&cluster, "DiskPressure"), "False KubeletHasNoDiskPressure");

    let registry = Registry::start(&cluster.netns, 5000, false);
    registry.push(&cluster.netns, &image("nginx"), "unused", "1");
    registry.push(&cluster.netns, &image("web"), "used", "1");
    let reference = |name: &str| format!("{}/{name}:1", registry.address);
    cluster.podium(&["image", "pull", &reference("unused")]).ok();
    cluster.create(&pod("keeper", "sleep 1000", "", ""));
    cluster.create(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: user}}, spec: {{containers: [{{name: c, image: '{}'}}]}}}}",
        reference("used")
    ));
    cluster.wait_ready("keeper");
    cluster.wait_ready("user");
    cluster.create(&pod(
        "hog",
        "head -c 50000000 /dev/zero > /cache/f; sleep 1000",
        ", volumes: [{name: cache, emptyDir: {}}]",
        ", volumeMounts: [{name: cache, mountPath: /cache}]",
    ));
    cluster.until("hog", FAILED, "Failed Evicted");
    let message = cluster.field("hog", "{.status.message}");
    assert!(
        message
            .starts_with("The node was low on resource: ephemeral-storage. Threshold quantity: 26843545, available: "),
        "{message}"
    );
    let disrupted = cluster.field("hog", DISRUPTED);
    assert_eq!(disrupted, format!("TerminationByKubelet: {message}"));
    cluster.until_warning("hog", "Evicted", "The node was low on resource: ephemeral-storage.");
    cluster.until_warning(
        "node",
        "EvictionThresholdMet",
        "Attempting to reclaim ephemeral-storage",
    );
    cluster.until_told(
        "node",
        "Normal",
        "NodeHasDiskPressure",
        "Node node status is now: NodeHasDiskPressure",
    );
    // What it had filled is free again, though its object is still there to be read.
    let volumes = cluster
        .data_dir()
        .join("kubelet/pods")
        .join(cluster.field("hog", "{.metadata.uid}"))
        .join("volumes");
    eventually("the evicted pod's volumes are gone", || {
        (!volumes.exists()).then_some(())
    });
    let left = cluster.podium(&["ps", "-a"]).ok();
    assert!(!left.contains("k8s_c_hog_"), "{left}");

    // The condition stands for a while; meanwhile nothing new is taken.
    until_condition(&cluster, "DiskPressure", "True KubeletHasDiskPressure");
    until_taints(&cluster, "node.kubernetes.io/disk-pressure");
    cluster.create(&pod("forced", "sleep 1000", ", nodeName: node", ""));
    cluster.until("forced", FAILED, "Failed Evicted");
    assert_eq!(
        cluster.field("forced", "{.status.message}"),
        "Pod was rejected: The node had condition: [DiskPressure]. "
    );
    cluster.create(&pod("waits", "sleep 1000", "", ""));
    cluster.until_warning("waits", "FailedScheduling", "had untolerated taint");
    for name in ["keeper", "user"] {
        assert_eq!(cluster.field(name, "{.status.phase}"), "Running", "{name}");
    }
    let metrics = cluster
        .kubectl(&["get", "--raw", "/api/v1/nodes/node/proxy/metrics"])
        .ok();
    assert!(
        metrics.contains("kubelet_evictions{eviction_signal=\"nodefs.available\"} 1\n"),
        "{metrics}"
    );

    // No pressure, and a disk that is too full for unused images: pinned ones and those in use stay.
    let fields = "evictionHard: {nodefs.available: 40%}\nimageGCHighThresholdPercent: 1\nimageGCLowThresholdPercent: 0\nimageMinimumGCAge: 0s";
    restart(&mut cluster, fields);
    until_condition(&cluster, "DiskPressure", "False KubeletHasNoDiskPressure");
    until_taints(&cluster, "");
    cluster.wait_ready("waits");
    let images = eventually("the unused image is removed", || {
        let images = cluster.podium(&["image", "ls"]).ok();
        (!images.contains("/unused")).then_some(images)
    });
    assert!(
        images.contains("/used") && images.contains("localhost/busybox"),
        "{images}"
    );
    cluster.until_warning(
        "node",
        "FreeDiskSpaceFailed",
        "Failed to garbage collect required amount of images. Attempted to free ",
    );

    // Files of no size take what a file system has few of.
    restart(&mut cluster, "evictionHard: {nodefs.inodesFree: 2000}");
    cluster.create(&pod(
        "litters",
        "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); : > /cache/$i; done; sleep 1000",
        ", volumes: [{name: cache, emptyDir: {}}]",
        ", volumeMounts: [{name: cache, mountPath: /cache}]",
    ));
    cluster.until("litters", FAILED, "Failed Evicted");
    let message = cluster.field("litters", "{.status.message}");
    let low = "The node was low on resource: inodes. Threshold quantity: 2k, available: ";
    assert!(message.starts_with(low), "{message}");
    cluster.until_warning("litters", "Evicted", low);
    cluster.until_warning("node", "EvictionThresholdMet", "Attempting to reclaim inodes");
    for name in ["keeper", "user", "waits"] {
        assert_eq!(cluster.field(name, "{.status.phase}"), "Running", "{name}");
    }
    drop(disk);
}

#[test]
fn short_memory_takes_pods_in_their_order() {
    let manifests = tempfile::tempdir().expect("a directory");
    let mut cluster = Cluster::with(Options {
        images: &["busybox"],
        flags: vec!["--pod-manifest-path".into(), manifests.path().display().to_string()],
        kubelet: Some("evictionHard: {}"),
        ..Options::default()
    });
    let manifest = "apiVersion: v1\nkind: Pod\nmetadata: {name: static}\nspec:\n  containers:\n  - {name: c, image: 'localhost/busybox:1', command: [sleep, '1000']}\n";
    fs::write(manifests.path().join("static.yaml"), manifest).expect("a manifest");
    // A shell that holds so much in a variable.
    let holds = "x=$(head -c 20000000 /dev/zero | tr \"\\0\" x); sleep 1000".replace('\'', "''");
    cluster.create("{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: high}, value: 1000}");
    cluster.create(&pod("above-low", &holds, "", ""));
    cluster.create(&pod("above-high", &holds, ", priorityClassName: high", ""));
    cluster.create(&pod(
        "within",
        "sleep 1000",
        "",
        ", resources: {requests: {memory: 200Mi}}",
    ));
    cluster.create(&pod(
        "critical",
        &holds,
        ", priorityClassName: system-node-critical",
        "",
    ));
    for name in ["above-low", "above-high", "within", "critical", "static-node"] {
        eventually("the mirror is there", || {
            (cluster.kubectl(&["get", "pod", name]).code == 0).then_some(())
        });
        cluster.wait_ready(name);
    }

    // More than any machine has: every look takes one pod, until there is none that may go.
    restart(&mut cluster, "evictionHard: {memory.available: 900Gi}");
    for name in ["above-low", "above-high", "within"] {
        cluster.until(name, FAILED, "Failed Evicted");
        cluster.until_warning(name, "Evicted", "The node was low on resource: memory. ");
    }
    let log = cluster.log();
    let evicted: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("evicting pod="))
        .filter_map(|line| line.split("pod=").nth(1)?.split('_').next())
        .collect();
    assert_eq!(evicted, ["above-low", "above-high", "within"]);
    let message = cluster.field("above-low", "{.status.message}");
    assert!(
        message.starts_with("The node was low on resource: memory. Threshold quantity: 900Gi, available: ")
            && message.contains(". Container c was using ")
            && message.ends_with(", request is 0, has larger consumption of memory. "),
        "{message}"
    );
    let message = cluster.field("within", "{.status.message}");
    assert!(!message.contains("larger consumption"), "{message}");
    until_condition(&cluster, "MemoryPressure", "True KubeletHasInsufficientMemory");
    until_taints(&cluster, "node.kubernetes.io/memory-pressure");
    cluster.create(&pod("best", "sleep 1000", ", nodeName: node", ""));
    cluster.until(
        "best",
        "{.status.message}",
        "Pod was rejected: The node had condition: [MemoryPressure]. ",
    );
    for name in ["critical", "static-node"] {
        assert_eq!(
            cluster.field(name, "{.status.phase} {.status.containerStatuses[0].restartCount}"),
            "Running 0",
            "{name}"
        );
    }

    // A soft threshold waits, and gives the pod time to end.
    restart(&mut cluster, "evictionHard: {}");
    until_condition(&cluster, "MemoryPressure", "False KubeletHasSufficientMemory");
    until_taints(&cluster, "");
    let last = "trap \"sleep 4; exit 0\" TERM; while :; do sleep 0.1; done";
    cluster.create(&pod("soft", last, "", "").replace(
        "terminationGracePeriodSeconds: 1,",
        "terminationGracePeriodSeconds: 30,",
    ));
    cluster.wait_ready("soft");
    restart(
        &mut cluster,
        "evictionHard: {}\nevictionSoft: {memory.available: 900Gi}\nevictionSoftGracePeriod: {memory.available: 2s}\nevictionMaxPodGracePeriod: 20",
    );
    cluster.until("soft", FAILED, "Failed Evicted");
    // One that is ended at once has two seconds.
    let code = "{.status.containerStatuses[0].state.terminated.exitCode}";
    assert_eq!(cluster.field("soft", code), "0");

    // Process numbers run out by who takes many.
    let free = free_process_numbers();
    restart(
        &mut cluster,
        &format!("evictionHard: {{pid.available: {}}}", free - 400),
    );
    until_condition(&cluster, "MemoryPressure", "False KubeletHasSufficientMemory");
    until_taints(&cluster, "");
    cluster.create(&pod("quiet", "sleep 1000", "", ""));
    cluster.wait_ready("quiet");
    let many = "i=0; while [ $i -lt 900 ]; do i=$((i+1)); sleep 1000 & done; wait";
    cluster.create(&pod("forks", many, "", ""));
    cluster.until("forks", FAILED, "Failed Evicted");
    let message = cluster.field("forks", "{.status.message}");
    let low = "The node was low on resource: pids. Threshold quantity: ";
    assert!(message.starts_with(low), "{message}");
    cluster.until_warning("forks", "Evicted", low);
    until_condition(&cluster, "PIDPressure", "True KubeletHasInsufficientPID");
    assert_eq!(cluster.field("quiet", "{.status.phase}"), "Running");
    cluster.kubectl(&["delete", "pod", "quiet", "--timeout=30s"]).ok();

    // When they are short and no pod may go, the node says so.
    restart(&mut cluster, "evictionHard: {pid.available: 99.99%}");
    until_condition(&cluster, "PIDPressure", "True KubeletHasInsufficientPID");
    until_condition(&cluster, "MemoryPressure", "False KubeletHasSufficientMemory");
    until_taints(&cluster, "node.kubernetes.io/pid-pressure");
    cluster.until_warning("node", "EvictionThresholdMet", "Attempting to reclaim pids");
    assert_eq!(cluster.field("critical", "{.status.phase}"), "Running");
}

#[test]
fn a_critical_pod_takes_the_place_of_others() {
    let cluster = Cluster::with(Options {
        images: &["busybox"],
        ..Options::default()
    });
    let cpus = cluster
        .kubectl(&["get", "node", "node", "-o", "jsonpath={.status.allocatable.cpu}"])
        .ok();
    let millis = cpus.parse::<u64>().expect("whole CPUs") * 1000;
    let asks = |cpu: u64| format!(", resources: {{requests: {{cpu: {cpu}m}}}}");
    cluster.create(&pod("large", "sleep 1000", "", &asks(millis - 400)));
    cluster.create(&pod("small", "sleep 1000", "", &asks(300)));
    cluster.create(&pod("none", "sleep 1000", "", ""));
    for name in ["large", "small", "none"] {
        cluster.wait_ready(name);
    }
    // Past the scheduler, which would have others go itself.
    let urgent = ", nodeName: node, priorityClassName: system-node-critical";
    cluster.create(&pod("urgent", "sleep 1000", urgent, &asks(350)));
    cluster.wait_ready("urgent");
    cluster.until(
        "small",
        "{.status.phase} {.status.reason} {.status.message}",
        "Failed Preempting Preempted in order to admit critical pod",
    );
    let condition = "{.status.conditions[?(@.type==\"DisruptionTarget\")]";
    assert_eq!(
        cluster.field("small", &format!("{condition}.status}} {condition}.reason}}")),
        "True TerminationByKubelet"
    );
    cluster.until_event("small", "Preempted in order to admit critical pod");
    for name in ["large", "none", "urgent"] {
        assert_eq!(cluster.field(name, "{.status.phase}"), "Running", "{name}");
    }
    // Other critical pods stay.
    cluster.create(&pod("too-much", "sleep 1000", urgent, &asks(millis)));
    cluster.until("too-much", FAILED, "Failed UnexpectedAdmissionError");
    assert_eq!(
        cluster.field("too-much", "{.status.message}"),
        "Pod was rejected: Unexpected error while attempting to recover from admission failure: preemption: error finding a set of pods to \
         preempt: no set of running pods found to reclaim resources: [(res: cpu, q: 350), ]"
    );
}
