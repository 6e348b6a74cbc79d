//! A node tuned by a KubeletConfiguration: what it keeps from pods, and what it gives those that say nothing.

use tests::{Cluster, Options, sleeper};

/// A resource of the node's capacity or allocatable, in thousandths.
fn of_node(cluster: &Cluster, list: &str, resource: &str) -> i64 {
    let path = format!("jsonpath={{.status.{list}.{resource}}}");
    let text = cluster.kubectl(&["get", "node", "node", "-o", &path]).ok();
    let digits = text.trim_end_matches(char::is_alphabetic);
    let unit = match &text[digits.len()..] {
        "m" => 1,
        "" => 1000,
        "Ki" => 1000 << 10,
        "Mi" => 1000 << 20,
        "Gi" => 1000 << 30,
        other => panic!("{resource} {text:?}: {other:?} is no unit that is expected"),
    };
    digits.parse::<i64>().expect("a number") * unit
}

const CONFIGURATION: &str = "evictionHard: {memory.available: 100Mi}
kubeReserved: {cpu: 100m, memory: 64Mi}
systemReserved: {cpu: 50m, ephemeral-storage: 1Gi}
seccompDefault: true
allowedUnsafeSysctls: ['kernel.msg*']";

#[test]
fn a_node_keeps_and_gives_what_its_configuration_says() {
    let cluster = Cluster::with(Options {
        images: &["busybox"],
        kubelet: Some(CONFIGURATION),
        ..Options::default()
    });
    for (resource, kept) in [
        ("cpu", 150),
        ("memory", (164 << 20) * 1000),
        ("ephemeral-storage", (1 << 30) * 1000),
    ] {
        let [whole, left] = ["capacity", "allocatable"].map(|list| of_node(&cluster, list, resource));
        assert_eq!(whole - left, kept, "{resource}");
    }

    let context = |fields: &str| format!("  securityContext: {{{fields}}}\n");
    // More than is left, less than there is.
    let cpus = of_node(&cluster, "capacity", "cpu") - 100;
    let request = format!("    resources: {{requests: {{cpu: {cpus}m}}}}\n    command:");
    let pods = [
        sleeper(
            "silent",
            "",
            "",
            &context("sysctls: [{name: kernel.msgmax, value: '16384'}]"),
        ),
        sleeper("free", "", "", &context("seccompProfile: {type: Unconfined}")),
        sleeper("large", "", "", "  nodeName: node\n").replace("    command:", &request),
    ];
    cluster.create(&pods.join("---\n"));
    for (pod, mode) in [("silent", 2), ("free", 0)] {
        cluster.wait_ready(pod);
        let said = cluster.exec(pod, "grep Seccomp: /proc/self/status");
        assert_eq!(said, format!("Seccomp:\t{mode}\n"), "{pod}");
    }
    assert_eq!(cluster.exec("silent", "cat /proc/sys/kernel/msgmax"), "16384\n");
    cluster.until("large", "{.status.reason}", "OutOfcpu");
}
