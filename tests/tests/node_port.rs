//! The node's HTTPS port as tools use it: who may ask, what the node, its pods and containers use, what is counted; and logs that are rotated.

use std::fs;
use std::process::Command;

use serde_json::Value;
use tests::{Cluster, NODE_IP, Options, Output, eventually, run};

const CONFIGURATION: &str = "containerLogMaxSize: 100Ki
containerLogMaxFiles: 3
containerLogMonitorInterval: 3s
";

const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: busy}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: localhost/busybox:1
    command: [sh, -c, 'head -c 2000000 /dev/zero > /cache/f; head -c 3000000 /dev/zero > /own; while :; do :; done']
    resources: {limits: {cpu: 200m, memory: 64Mi}}
    livenessProbe: {exec: {command: ['true']}, periodSeconds: 1}
    volumeMounts: [{name: cache, mountPath: /cache}]
  volumes: [{name: cache, emptyDir: {}}]
---
apiVersion: v1
kind: Pod
metadata: {name: loud}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: c, image: 'localhost/busybox:1', command: [sh, -c, 'echo 0; until [ -e /go ]; do sleep 0.1; done; i=0; while :; do i=$((i+1)); echo $i; head -c 150000 /dev/zero | tr \"\\0\" x; echo; sleep 1; done']}
";

fn cluster() -> Cluster {
    Cluster::with(Options {
        images: &["busybox"],
        kubelet: Some(CONFIGURATION),
        ..Options::default()
    })
}

/// What the API server's proxy to the node answers.
fn raw(cluster: &Cluster, path: &str) -> String {
    cluster
        .kubectl(&["get", "--raw", &format!("/api/v1/nodes/node/proxy{path}")])
        .ok()
}

/// The port itself, asked by curl: the status and the text.
fn ask(cluster: &Cluster, path: &str, arguments: &[&str]) -> (String, String) {
    let url = format!("https://{NODE_IP}:10250{path}");
    let mut curl: Command = cluster.netns.command("curl");
    curl.args(["-s", "-k", "-m", "20", "-w", "\n%{http_code}"])
        .args(arguments)
        .arg(url);
    let Output { stdout, .. } = run(&mut curl, "");
    let (text, status) = stdout.rsplit_once('\n').unwrap_or_default();
    (status.to_owned(), text.to_owned())
}

#[test]
fn the_port_tells_of_the_node_to_those_who_may_ask() {
    let mut cluster = cluster();
    cluster.create(PODS);
    cluster.wait_ready("busy");
    cluster.wait_ready("loud");

    // Somebody follows a log from its first line on.
    let followed = cluster.dir().join("followed");
    let mut follower = cluster
        .kubectl_command()
        .args(["logs", "-f", "loud"])
        .stdout(fs::File::create(&followed).expect("a file for the log"))
        .spawn()
        .expect("kubectl starts");
    let numbers = |text: &str| -> Vec<u32> { text.lines().filter_map(|line| line.parse().ok()).collect() };
    let read = || numbers(&fs::read_to_string(&followed).expect("what was followed"));
    eventually("the first line is followed", || (read() == [0]).then_some(()));
    cluster.exec("loud", "touch /go");

    // What is used, as `kubectl top`'s sources tell it.
    let summary: Value = eventually("the summary has all of the pod", || {
        let summary: Value = serde_json::from_str(&raw(&cluster, "/stats/summary")).expect("a summary");
        let pods = summary["pods"].as_array().cloned().unwrap_or_default();
        let busy = pods.iter().find(|pod| pod["podRef"]["name"] == "busy").cloned()?;
        let container = &busy["containers"][0];
        let written = container["rootfs"]["usedBytes"].as_u64()? >= 3_000_000
            && busy["volume"].as_array()?.iter().any(|volume| {
                volume["name"] == "cache" && volume["usedBytes"].as_u64().is_some_and(|used| used >= 2_000_000)
            });
        (written && container["cpu"]["usageNanoCores"].as_u64()? > 20_000_000).then_some(summary)
    });
    let node = &summary["node"];
    assert_eq!(node["nodeName"], "node");
    for part in [
        &node["cpu"]["usageCoreNanoSeconds"],
        &node["cpu"]["usageNanoCores"],
        &node["memory"]["workingSetBytes"],
        &node["memory"]["availableBytes"],
        &node["fs"]["capacityBytes"],
        &node["runtime"]["imageFs"]["usedBytes"],
        &node["rlimit"]["curproc"],
    ] {
        assert!(part.as_u64().is_some_and(|number| number > 0), "{part} in {node}");
    }
    let pods = summary["pods"].as_array().expect("pods");
    let busy = pods
        .iter()
        .find(|pod| pod["podRef"]["name"] == "busy")
        .expect("the pod");
    assert_eq!(busy["podRef"]["uid"], cluster.field("busy", "{.metadata.uid}"));
    let container = &busy["containers"][0];
    // A fifth of a processor is all that it may have.
    let rate = container["cpu"]["usageNanoCores"].as_u64().expect("a rate");
    assert!(rate < 600_000_000, "{rate}");
    let memory = container["memory"]["workingSetBytes"].as_u64().expect("its memory");
    let left = container["memory"]["availableBytes"]
        .as_u64()
        .expect("what its limit leaves");
    assert!(memory > 0 && memory + left <= 64 << 20, "{memory} {left}");
    for part in [
        &busy["ephemeral-storage"]["usedBytes"],
        &busy["process_stats"]["process_count"],
        &busy["memory"]["usageBytes"],
    ] {
        assert!(part.as_u64().is_some_and(|number| number > 0), "{part} in {busy}");
    }
    assert_eq!(busy["network"]["name"], "eth0", "{busy}");
    let shallow: Value =
        serde_json::from_str(&raw(&cluster, "/stats/summary?only_cpu_and_memory=true")).expect("a summary");
    assert!(
        shallow["pods"][0].get("volume").is_none() && shallow["pods"][0].get("cpu").is_some(),
        "{shallow}"
    );

    // Metrics.
    let named = "namespace=\"default\",pod=\"busy\"";
    for (path, lines) in [
        (
            "/metrics/resource",
            vec![
                format!("container_cpu_usage_seconds_total{{container=\"c\",{named}}} "),
                format!("container_memory_working_set_bytes{{container=\"c\",{named}}} "),
                format!("pod_cpu_usage_seconds_total{{{named}}} "),
                "node_memory_working_set_bytes ".into(),
                "resource_scrape_error 0".into(),
            ],
        ),
        (
            "/metrics/cadvisor",
            vec![
                "machine_cpu_cores ".into(),
                "container_memory_working_set_bytes{container=\"c\",id=\"/kubepods/".into(),
            ],
        ),
        (
            "/metrics",
            vec![
                "kubelet_running_pods 2".into(),
                "kubelet_node_name{node=\"node\"} 1".into(),
                "kubelet_running_containers{container_state=\"running\"} 2".into(),
                "process_resident_memory_bytes ".into(),
            ],
        ),
    ] {
        let text = raw(&cluster, path);
        for line in lines {
            assert!(
                text.lines().any(|found| found.starts_with(&line)),
                "{line} is not in {path}:\n{text}"
            );
        }
    }
    let containers = raw(&cluster, "/metrics/cadvisor");
    for (name, value) in [
        ("container_spec_cpu_quota", "20000"),
        ("container_spec_memory_limit_bytes", "67108864"),
    ] {
        let of_it = containers
            .lines()
            .find(|line| line.starts_with(name) && line.contains("container=\"c\"") && line.contains("pod=\"busy\""));
        assert!(
            of_it.is_some_and(|line| line.ends_with(&format!(" {value}"))),
            "{name}: {of_it:?}"
        );
    }
    assert!(
        containers.contains("container_network_receive_bytes_total{container=\"\",id=\"/kubepods"),
        "{containers}"
    );
    eventually("the probe is counted", || {
        let probes = raw(&cluster, "/metrics/probes");
        let uid = cluster.field("busy", "{.metadata.uid}");
        let line = format!(
            "prober_probe_total{{container=\"c\",{named},pod_uid=\"{uid}\",probe_type=\"Liveness\",result=\"successful\"}}"
        );
        probes.contains(&line).then_some(())
    });
    let configuration: Value = serde_json::from_str(&raw(&cluster, "/configz")).expect("a configuration");
    let configuration = &configuration["kubeletconfig"];
    assert_eq!(configuration["containerLogMaxSize"], "100Ki");
    assert_eq!(configuration["evictionHard"]["memory.available"], "100Mi");
    assert_eq!(configuration["evictionPressureTransitionPeriod"], "5m0s");
    assert_eq!(raw(&cluster, "/healthz"), "ok");
    let running: Value = serde_json::from_str(&raw(&cluster, "/runningpods/")).expect("a list");
    assert_eq!(running["items"].as_array().map(Vec::len), Some(2));
    let pods: Value = serde_json::from_str(&raw(&cluster, "/pods")).expect("a list");
    assert!(pods["items"].as_array().is_some_and(|pods| {
        pods.iter()
            .any(|pod| pod["metadata"]["name"] == "busy" && pod["status"]["phase"] == "Running")
    }));

    // Who asks.
    let token = cluster.kubectl(&["create", "token", "default"]).ok();
    let bearer = format!("Authorization: Bearer {}", token.trim());
    let pki = cluster.data_dir().join("pki");
    let certificate =
        |name: &str| [format!("{name}.crt"), format!("{name}.key")].map(|file| pki.join(file).display().to_string());
    let admin = certificate("admin");
    let admin = ["--cert", &admin[0], "--key", &admin[1]];
    assert_eq!(ask(&cluster, "/pods", &[]), ("401".into(), "Unauthorized".into()));
    assert_eq!(
        ask(&cluster, "/metrics/resource", &["-H", "Authorization: Bearer nonsense"]).0,
        "401"
    );
    assert_eq!(ask(&cluster, "/metrics/resource", &["-H", &bearer]).0, "200");
    assert_eq!(ask(&cluster, "/healthz", &admin), ("200".into(), "ok".into()));

    // The node's own logs, and nothing beyond them.
    let logs = tempfile::Builder::new()
        .prefix("podium-test-")
        .tempdir_in("/var/log")
        .expect("a directory among the logs");
    fs::write(logs.path().join("a.log"), "a line\n").expect("a log");
    std::os::unix::fs::symlink("/etc/passwd", logs.path().join("link")).expect("a link");
    let name = logs
        .path()
        .file_name()
        .expect("its name")
        .to_string_lossy()
        .into_owned();
    let listed = raw(&cluster, "/logs/");
    assert!(
        listed.contains(&format!("<a href=\"{name}/\">{name}/</a>\n")),
        "{listed}"
    );
    let listed = raw(&cluster, &format!("/logs/{name}/"));
    assert!(
        listed.contains("<pre>\n<a href=\"a.log\">a.log</a>\n<a href=\"link\">link</a>\n</pre>"),
        "{listed}"
    );
    assert_eq!(raw(&cluster, &format!("/logs/{name}/a.log")), "a line\n");
    for (path, said) in [
        ("link", ("403", "403 Forbidden\n")),
        ("none", ("404", "404 page not found\n")),
    ] {
        let (status, text) = ask(&cluster, &format!("/logs/{name}/{path}"), &admin);
        assert_eq!((status.as_str(), text.as_str()), said);
    }

    // Logs stay small, and those who read them notice nothing.
    let uid = cluster.field("loud", "{.metadata.uid}");
    let directory = cluster.pod_logs_dir().join(format!("default_loud_{uid}/c"));
    let names = eventually("the log is rotated more than once", || {
        let entries = fs::read_dir(&directory).expect("the logs").flatten();
        let mut names: Vec<String> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        (names.len() == 3 && names[1].ends_with(".gz")).then_some(names)
    });
    assert!(names[0] == "0.log" && names[2].starts_with("0.log.20"), "{names:?}");
    // Nothing is lost and nothing comes twice, in the packed file and on from there, and for who follows past both rotations.
    let told = |text: &str| -> Vec<u32> {
        let full = text
            .lines()
            .filter_map(|line| line.split_once(" stdout F "))
            .map(|(_, line)| line);
        full.filter_map(|line| line.parse().ok()).collect()
    };
    let kept = eventually("the kept logs are read between two rotations", || {
        let list = || {
            let entries = fs::read_dir(&directory).expect("the logs").flatten();
            let mut names: Vec<_> = entries
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect();
            names.sort();
            names
        };
        let names = list();
        let packed = names.iter().find(|name| name.ends_with(".gz"))?;
        let plain = names
            .iter()
            .find(|name| name.starts_with("0.log.20") && !name.ends_with(".gz"))?;
        let unpacked = run(Command::new("zcat").arg(directory.join(packed)), "");
        let plain = fs::read_to_string(directory.join(plain)).ok()?;
        (unpacked.code == 0 && list() == names).then(|| (told(&unpacked.stdout), told(&plain)))
    });
    assert!(!kept.0.is_empty() && !kept.1.is_empty(), "{kept:?}");
    let kept = [kept.0, kept.1].concat();
    assert!(kept.windows(2).all(|pair| pair[1] == pair[0] + 1), "{kept:?}");
    let last = *kept.last().expect("a number");
    let seen = eventually("who follows is past what was rotated", || {
        let seen = read();
        (seen.last() > Some(&last)).then_some(seen)
    });
    let _ = follower.kill();
    let _ = follower.wait();
    assert!(seen.iter().copied().eq(0..=last.max(seen.len() as u32 - 1)), "{seen:?}");
    // Right after a rotation the newest file is empty, which is what upstream shows then too.
    eventually("the newest lines are read", || {
        let last = cluster.kubectl(&["logs", "loud", "--tail=2"]).ok();
        (last.lines().count() == 2).then_some(())
    });

    // Strangers are told what they may not, where they are let in.
    cluster.kill_server();
    let strangers = "authentication: {anonymous: {enabled: true}}\nenableSystemLogHandler: false\n";
    cluster.configure_kubelet(&format!("{CONFIGURATION}{strangers}"));
    cluster.start_server();
    for (path, subresources) in [
        ("/pods", "pods proxy"),
        ("/metrics/resource", "metrics"),
        ("/exec/default/busy/c", "proxy"),
    ] {
        let why =
            format!("Forbidden (user=system:anonymous, verb=get, resource=nodes, subresource(s)=[{subresources}])\n");
        assert_eq!(ask(&cluster, path, &[]), ("403".into(), why));
    }
    assert_eq!(
        ask(&cluster, "/pods", &["-H", "Authorization: Bearer nonsense"]).0,
        "401"
    );
    assert_eq!(ask(&cluster, "/pods", &["-H", &bearer]).0, "200");
    let closed = ("405".into(), "logs endpoint is disabled.\n".into());
    assert_eq!(ask(&cluster, "/logs/", &["-H", &bearer]), closed);
}

#[test]
fn a_kubelet_configuration_that_is_wrong_is_refused() {
    let cluster = Cluster::prepare(Options {
        kubelet: Some(""),
        ..Options::default()
    });
    for (field, said) in [
        ("cgroupDriver: systemd", "unknown field `cgroupDriver`"),
        (
            "evictionHard: {memory.free: 1Gi}",
            "evictionHard: unknown eviction signal \"memory.free\"",
        ),
        (
            "imageGCLowThresholdPercent: 90",
            "imageGCLowThresholdPercent (--image-gc-low-threshold) 90 must be less than",
        ),
    ] {
        cluster.configure_kubelet(field);
        let refused = run(&mut cluster.server_command(), "").fails();
        assert!(refused.contains("kubelet.yaml") && refused.contains(said), "{refused}");
    }
}
