//! What changes of a pod after it was made: gates that open, containers put in to look around, resources resized in place. And the
//! generations by which one sees who has noticed.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tests::{Cluster, Terminal, eventually, podium, run};

/// A pod of one busybox that sleeps, with `more` of its spec and `own` of its container, as JSON without the braces.
fn sleeper(name: &str, more: &str, own: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 1, {more} containers: \
         [{{name: main, image: 'localhost/busybox:1', command: [sleep, 12h], {own}}}]}}}}"
    )
}

/// One column of `kubectl get pod -o wide`.
fn column(cluster: &Cluster, pod: &str, title: &str) -> String {
    let table = cluster.kubectl(&["get", "pod", pod, "-o", "wide"]).ok();
    let (head, row) = table.split_once('\n').expect("a title and a row");
    let from = head.find(title).unwrap_or_else(|| panic!("no {title} in {head}"));
    let rest = row.get(from..).unwrap_or_default();
    rest.split("  ").next().unwrap_or_default().trim().to_owned()
}

fn condition(cluster: &Cluster, pod: &str, kind: &str, field: &str) -> String {
    cluster.field(pod, &format!("{{.status.conditions[?(@.type==\"{kind}\")].{field}}}"))
}

fn events(cluster: &Cluster, pod: &str) -> String {
    cluster
        .kubectl(&[
            "get",
            "events",
            "--field-selector",
            &format!("involvedObject.name={pod}"),
            "-o",
            "jsonpath={range .items[*]}{.type} {.reason} {.message}{\"\\n\"}{end}",
        ])
        .ok()
}

#[test]
fn gates_open_and_generations_count() {
    let cluster = Cluster::start();
    cluster.create(&sleeper(
        "gated",
        "schedulingGates: [{name: example.com/quota}, {name: example.com/check}], readinessGates: [{conditionType: example.com/lb}],",
        "",
    ));
    assert_eq!(column(&cluster, "gated", "STATUS"), "SchedulingGated");
    assert_eq!(column(&cluster, "gated", "READINESS GATES"), "0/1");
    let scheduled = |field: &str| condition(&cluster, "gated", "PodScheduled", field);
    assert_eq!(scheduled("status"), "False");
    assert_eq!(scheduled("reason"), "SchedulingGated");
    assert_eq!(
        scheduled("message"),
        "Scheduling is blocked due to non-empty scheduling gates"
    );
    assert_eq!(cluster.field("gated", "{.metadata.generation}"), "1");

    let patch = |patch: &str| cluster.kubectl(&["patch", "pod", "gated", "--type=merge", "-p", patch]);
    let refused = patch(
        r#"{"spec":{"schedulingGates":[{"name":"example.com/quota"},{"name":"example.com/check"},{"name":"example.com/more"}]}}"#,
    )
    .fails();
    assert!(
        refused.contains("spec.schedulingGates[2].name: Forbidden: only deletion is allowed, but found new scheduling gate 'example.com/more'"),
        "{refused}"
    );
    patch(r#"{"spec":{"nodeSelector":{"kubernetes.io/hostname":"node"}}}"#).ok();
    let refused = patch(r#"{"spec":{"nodeSelector":{"kubernetes.io/hostname":"other"}}}"#).fails();
    assert!(
        refused.contains("only additions to spec.nodeSelector are allowed"),
        "{refused}"
    );
    patch(r#"{"spec":{"schedulingGates":[{"name":"example.com/check"}]}}"#).ok();
    assert_eq!(column(&cluster, "gated", "STATUS"), "SchedulingGated");
    patch(r#"{"spec":{"schedulingGates":null}}"#).ok();
    let refused = patch(r#"{"spec":{"schedulingGates":[{"name":"example.com/check"}]}}"#).fails();
    assert!(refused.contains("found new scheduling gate"), "{refused}");

    // It runs, and is not ready before somebody says so.
    cluster
        .kubectl(&["wait", "--for=condition=ContainersReady", "pod/gated", "--timeout=60s"])
        .ok();
    let ready = |field: &str| condition(&cluster, "gated", "Ready", field);
    assert_eq!(ready("status"), "False");
    assert_eq!(ready("reason"), "ReadinessGatesNotReady");
    assert_eq!(
        ready("message"),
        "corresponding condition of pod readiness gate \"example.com/lb\" does not exist."
    );
    let say = |status: &str| {
        let patch = format!(r#"{{"status":{{"conditions":[{{"type":"example.com/lb","status":"{status}"}}]}}}}"#);
        cluster
            .kubectl(&["patch", "pod", "gated", "--subresource=status", "-p", &patch])
            .ok();
    };
    say("False");
    eventually("the gate is heard", || {
        (ready("message") == "the status of pod readiness gate \"example.com/lb\" is not \"True\", but False")
            .then_some(())
    });
    say("True");
    cluster.wait_ready("gated");
    assert_eq!(column(&cluster, "gated", "READINESS GATES"), "1/1");

    // Each change of the spec is counted, and the kubelet tells which one it has seen.
    assert_eq!(cluster.field("gated", "{.metadata.generation}"), "4");
    patch(r#"{"metadata":{"labels":{"a":"b"}}}"#).ok();
    assert_eq!(cluster.field("gated", "{.metadata.generation}"), "4");
    patch(r#"{"spec":{"activeDeadlineSeconds":3600}}"#).ok();
    eventually("the kubelet has seen the fifth generation", || {
        let seen = cluster.field("gated", "{.metadata.generation} {.status.observedGeneration} {.status.conditions[?(@.type!=\"example.com/lb\")].observedGeneration}");
        (seen == "5 5 5 5 5 5 5").then_some(())
    });
}

#[test]
fn ephemeral_containers_look_around() {
    let cluster = Cluster::start();
    cluster.create(&sleeper("plain", "", ""));
    cluster.wait_ready("plain");

    // Beside a container, in its processes.
    let mut command = cluster.kubectl_command();
    command.args([
        "debug",
        "-it",
        "plain",
        "--image=localhost/busybox:1",
        "--target=main",
        "--container=look",
        "--profile=general",
        "--",
        "sh",
    ]);
    let mut terminal = Terminal::start(command, 30, 100);
    terminal.send("ps; echo seen-$((40+2))\n");
    let seen = terminal.expect("seen-42");
    assert!(seen.contains("sleep 12h"), "{seen}");
    let status = |name: &str, field: &str| {
        cluster.field(
            "plain",
            &format!("{{.status.ephemeralContainerStatuses[?(@.name==\"{name}\")].{field}}}"),
        )
    };
    assert!(status("look", "state.running.startedAt").starts_with("20"));
    assert_eq!(status("look", "ready"), "false");
    let inside = cluster.kubectl(&["exec", "plain", "-c", "look", "--", "ps"]).ok();
    assert!(inside.contains("sleep 12h"), "{inside}");
    terminal.send("exit 3\n");
    terminal.wait();
    eventually("it is over and stays so", || {
        (status("look", "state.terminated.exitCode") == "3").then_some(())
    });
    assert_eq!(status("look", "restartCount"), "0");
    let described = cluster.kubectl(&["describe", "pod", "plain"]).ok();
    for part in [
        "Ephemeral Containers:",
        "  look:",
        "Exit Code:    3",
        "Container started",
    ] {
        assert!(described.contains(part), "{part} in {described}");
    }
    assert_eq!(column(&cluster, "plain", "READY"), "1/1");

    // Without a target it sees only itself, and its log is read like any other.
    cluster
        .kubectl(&[
            "debug",
            "plain",
            "--image=localhost/busybox:1",
            "--container=alone",
            "--",
            "sh",
            "-c",
            "ps; exec sleep 1h",
        ])
        .ok();
    eventually("its log is there", || {
        let log = cluster.kubectl(&["logs", "plain", "-c", "alone"]);
        (log.code == 0 && log.stdout.contains("ps") && log.stdout.contains("PID") && !log.stdout.contains("12h"))
            .then_some(())
    });
    let fields = events(&cluster, "plain");
    assert!(fields.contains("Normal Started Container started"), "{fields}");
    assert_eq!(cluster.field("plain", "{.metadata.generation}"), "3");

    // With all rights, where a profile asks for that.
    cluster
        .kubectl(&[
            "debug",
            "plain",
            "--image=localhost/busybox:1",
            "--container=root",
            "--profile=sysadmin",
            "--",
            "sh",
            "-c",
            "mount -t tmpfs none /tmp && echo mounted; sleep 12h",
        ])
        .ok();
    eventually("it may mount", || {
        let log = cluster.kubectl(&["logs", "plain", "-c", "root"]);
        (log.code == 0 && log.stdout.contains("mounted")).then_some(())
    });

    // Neither removed nor changed, and nothing but a container.
    let put = |patch: &str| {
        cluster.kubectl(&[
            "patch",
            "pod",
            "plain",
            "--subresource=ephemeralcontainers",
            "--type=json",
            "-p",
            patch,
        ])
    };
    let refused = put(r#"[{"op":"remove","path":"/spec/ephemeralContainers/0"}]"#).fails();
    assert!(
        refused.contains("existing ephemeral containers \"look\" may not be removed"),
        "{refused}"
    );
    let refused = put(r#"[{"op":"replace","path":"/spec/ephemeralContainers/0/image","value":"other"}]"#).fails();
    assert!(
        refused.contains("existing ephemeral containers \"look\" may not be changed"),
        "{refused}"
    );
    let refused = put(
        r#"[{"op":"add","path":"/spec/ephemeralContainers/-","value":{"name":"bad","image":"i","targetContainerName":"nobody","ports":[{"containerPort":80}],"livenessProbe":{"tcpSocket":{"port":80}},"lifecycle":{},"resources":{"limits":{"cpu":"1"}}}}]"#,
    )
    .fails();
    for part in [
        "spec.ephemeralContainers[3].targetContainerName: Not found: \"nobody\"",
        "spec.ephemeralContainers[3].ports: Forbidden: cannot be set for an Ephemeral Container",
        "spec.ephemeralContainers[3].resources: Forbidden: cannot be set for an Ephemeral Container",
        "spec.ephemeralContainers[3].livenessProbe: Forbidden: cannot be set for an Ephemeral Container",
        "spec.ephemeralContainers[3].lifecycle: Forbidden: cannot be set for an Ephemeral Container",
    ] {
        assert!(refused.contains(part), "{part} in {refused}");
    }

    // A copy of the pod, with a container more that shares its processes.
    cluster
        .kubectl(&[
            "debug",
            "plain",
            "--image=localhost/busybox:1",
            "--container=look",
            "--copy-to=copy",
            "--share-processes",
            "--",
            "sleep",
            "12h",
        ])
        .ok();
    cluster.wait_ready("copy");
    let inside = cluster.kubectl(&["exec", "copy", "-c", "look", "--", "ps"]).ok();
    assert_eq!(inside.matches("sleep 12h").count(), 2, "{inside}");

    // The node itself.
    let output = cluster.kubectl(&[
        "debug",
        "node/node",
        "--image=localhost/busybox:1",
        "--",
        "sh",
        "-c",
        "ls /host; ps -o args; ip -4 addr; sleep 12h",
    ]);
    let said = format!("{}{}", output.stdout, output.stderr);
    output.ok();
    let pod = said
        .split_whitespace()
        .find(|word| word.starts_with("node-debugger-"))
        .unwrap_or_else(|| panic!("no pod in {said}"))
        .to_owned();
    cluster.wait_ready(&pod);
    eventually("it shows the node", || {
        let log = cluster.kubectl(&["logs", &pod]);
        let all = ["proc", "podium server", tests::NODE_IP];
        (log.code == 0 && all.iter().all(|part| log.stdout.contains(part))).then_some(())
    });
    cluster
        .kubectl(&["delete", "pod", &pod, "plain", "copy", "--wait=true"])
        .ok();
}

/// Where the kernel keeps a cgroup, found by a part of its name.
fn cgroup(name: &str, file: &str) -> Option<String> {
    let found = run(
        Command::new("find").args(["/sys/fs/cgroup", "-type", "d", "-name", &format!("*{name}*")]),
        "",
    )
    .stdout;
    let mut files = found.lines().map(|directory| PathBuf::from(directory).join(file));
    files
        .find_map(|file| fs::read_to_string(file).ok())
        .map(|text| text.trim().to_owned())
}

/// The CPU limit in thousandths and the memory limit in bytes that the kernel enforces, on either version.
fn limits(name: &str) -> (i64, i64) {
    let quota = cgroup(name, "cpu.cfs_quota_us")
        .or_else(|| Some(cgroup(name, "cpu.max")?.split(' ').next()?.to_owned()))
        .unwrap_or_else(|| panic!("no CPU limit of {name}"));
    let memory = cgroup(name, "memory.limit_in_bytes")
        .or_else(|| cgroup(name, "memory.max"))
        .unwrap_or_else(|| panic!("no memory limit of {name}"));
    let number = |text: &str| text.parse::<i64>().unwrap_or(-1);
    (number(&quota) / 100, number(&memory))
}

const MIB: i64 = 1 << 20;

#[test]
fn pods_are_resized_in_place() {
    let mut cluster = Cluster::start();
    let resources = |cpu: &str, memory: &str| {
        format!("resources: {{limits: {{cpu: {cpu}, memory: {memory}}}, requests: {{cpu: {cpu}, memory: {memory}}}}}")
    };
    cluster.create(&sleeper("whole", "", &resources("200m", "64Mi")));
    cluster.create(&sleeper(
        "restarts",
        "",
        &format!(
            "resizePolicy: [{{resourceName: memory, restartPolicy: RestartContainer}}], {}",
            resources("100m", "32Mi")
        ),
    ));
    cluster.create(&sleeper(
        "shared",
        "resources: {requests: {cpu: 100m, memory: 64Mi}, limits: {cpu: 200m, memory: 128Mi}},",
        "",
    ));
    cluster.create(&sleeper("plain", "", "resources: {requests: {cpu: 100m}}"));
    for pod in ["whole", "restarts", "shared", "plain"] {
        cluster.wait_ready(pod);
    }
    let id = |pod: &str| id_of(&cluster, pod);
    let uid = |pod: &str| cluster.field(pod, "{.metadata.uid}");
    let restarts = |pod: &str| restarts_of(&cluster, pod);
    let resize = |pod: &str, patch: &str| {
        let patch = format!(r#"{{"spec":{{"containers":[{{"name":"main","resources":{patch}}}]}}}}"#);
        cluster.kubectl(&["patch", "pod", pod, "--subresource", "resize", "-p", &patch])
    };
    let both = |cpu: &str, memory: &str| {
        let list = format!(r#"{{"cpu":"{cpu}","memory":"{memory}"}}"#);
        format!(r#"{{"requests":{list},"limits":{list}}}"#)
    };
    let settled = |pod: &str, cpu: &str, memory: &str| {
        eventually("the resize is told as done", || {
            let told = cluster.field(
                pod,
                "{.status.containerStatuses[0].resources.limits.cpu} {.status.containerStatuses[0].resources.limits.memory} \
                 {.status.containerStatuses[0].allocatedResources.cpu} {.status.conditions[?(@.type==\"PodResizeInProgress\")].status}",
            );
            (told.trim() == format!("{cpu} {memory} {cpu}")).then_some(())
        });
    };

    // Without a restart, in the container and in its pod.
    let first = id("whole");
    assert_eq!(limits(&first), (200, 64 * MIB));
    resize("whole", &both("300m", "96Mi")).ok();
    settled("whole", "300m", "96Mi");
    assert_eq!(limits(&first), (300, 96 * MIB));
    assert_eq!(limits(&uid("whole")).1, 96 * MIB);
    assert_eq!((id("whole"), restarts("whole")), (first.clone(), "0".to_owned()));
    assert_eq!(
        cluster.field("whole", "{.metadata.generation} {.status.observedGeneration}"),
        "2 2"
    );
    let summary = r#"{"containers":[{"name":"main","resources":{"limits":{"cpu":"300m","memory":"96Mi"},"requests":{"cpu":"300m","memory":"96Mi"}}}],"generation":2}"#;
    eventually("the events tell of it", || {
        let events = events(&cluster, "whole");
        let all = [
            format!("Normal ResizeStarted Pod resize started: {summary}"),
            format!("Normal ResizeCompleted Pod resize completed: {summary}"),
        ];
        all.iter().all(|event| events.contains(event.as_str())).then_some(())
    });
    // And back, as kubectl edit would: the whole object.
    eventually("it is replaced as it is", || {
        let whole = cluster.kubectl(&["get", "pod", "whole", "-o", "json"]).ok();
        let smaller = whole.replace("300m", "250m").replace("96Mi", "80Mi");
        let replaced = cluster.kubectl_with(&["replace", "--subresource=resize", "-f", "-"], &smaller);
        // The kubelet may have written its status in between.
        (replaced.code == 0 || !replaced.stderr.contains("the object has been modified")).then(|| replaced.ok())
    });
    settled("whole", "250m", "80Mi");
    assert_eq!(limits(&first), (250, 80 * MIB));
    assert_eq!(limits(&uid("whole")).1, 80 * MIB);

    // CPU without, memory with a restart.
    resize("restarts", &both("150m", "32Mi")).ok();
    settled("restarts", "150m", "32Mi");
    assert_eq!(restarts("restarts"), "0");
    resize("restarts", &both("150m", "48Mi")).ok();
    settled("restarts", "150m", "48Mi");
    assert_eq!(restarts("restarts"), "1");
    assert_eq!(limits(&id("restarts")), (150, 48 * MIB));
    eventually("the event tells why", || {
        events(&cluster, "restarts")
            .contains("Normal Killing Container main resize requires restart")
            .then_some(())
    });

    // A sidecar, and an init container that still works; neither starts anew.
    cluster.create(
        "{apiVersion: v1, kind: Pod, metadata: {name: beside}, spec: {terminationGracePeriodSeconds: 1, initContainers: [\
         {name: side, image: 'localhost/busybox:1', restartPolicy: Always, command: [sleep, 12h], resources: {limits: {memory: 32Mi}}}, \
         {name: first, image: 'localhost/busybox:1', command: [sh, -c, 'until [ -e /tmp/go ]; do sleep 1; done'], resources: {limits: {memory: 32Mi}}}], \
         containers: [{name: main, image: 'localhost/busybox:1', command: [sleep, 12h]}]}}",
    );
    let of_init = |field: &str| cluster.field("beside", &format!("{{.status.initContainerStatuses[*].{field}}}"));
    eventually("both init containers run", || {
        (of_init("state.running.startedAt").split(' ').count() == 2).then_some(())
    });
    let ids = of_init("containerID").replace("podium://", "");
    let patch = r#"{"spec":{"initContainers":[{"name":"side","resources":{"limits":{"memory":"48Mi"}}},{"name":"first","resources":{"limits":{"memory":"64Mi"}}}]}}"#;
    cluster
        .kubectl(&["patch", "pod", "beside", "--subresource", "resize", "-p", patch])
        .ok();
    eventually("both are resized", || {
        (of_init("resources.limits.memory") == "48Mi 64Mi").then_some(())
    });
    let memory: Vec<i64> = ids.split(' ').map(|id| limits(id).1).collect();
    assert_eq!(memory, [48 * MIB, 64 * MIB]);
    cluster
        .kubectl(&["exec", "beside", "-c", "first", "--", "touch", "/tmp/go"])
        .ok();
    cluster.wait_ready("beside");
    assert_eq!(of_init("restartCount"), "0 0");

    // One that dies of too little memory lives with more.
    cluster.create(
        "{apiVersion: v1, kind: Pod, metadata: {name: starved}, spec: {terminationGracePeriodSeconds: 1, containers: [{name: main, \
         image: 'localhost/busybox:1', command: [sh, -ec, 'dd if=/dev/zero of=/dev/shm/full bs=1M count=40; sleep 12h'], \
         resources: {limits: {memory: 16Mi}}}]}}",
    );
    eventually("it dies again and again", || {
        let waits = cluster.field("starved", "{.status.containerStatuses[0].state.waiting.reason}");
        (waits == "CrashLoopBackOff").then_some(())
    });
    resize(
        "starved",
        r#"{"requests":{"memory":"64Mi"},"limits":{"memory":"64Mi"}}"#,
    )
    .ok();
    cluster.wait_ready("starved");
    assert_eq!(limits(&id("starved")).1, 64 * MIB);
    assert_eq!(limits(&uid("starved")).1, 64 * MIB);
    cluster
        .kubectl(&["delete", "pod", "starved", "beside", "--wait=false"])
        .ok();

    // What may not be.
    for (pod, patch, why) in [
        (
            "whole",
            r#"{"requests":{"cpu":"100m"}}"#,
            "spec: Invalid value: \"Guaranteed\": Pod QOS Class may not change as a result of resizing",
        ),
        (
            "plain",
            r#"{"requests":{"cpu":null}}"#,
            "resource requests cannot be removed",
        ),
        (
            "plain",
            r#"{"requests":{"ephemeral-storage":"1Gi"}}"#,
            "spec: Forbidden: only cpu and memory resources are mutable",
        ),
        (
            "plain",
            r#"{"limits":{"cpu":"50m"}}"#,
            "spec.containers[0].resources.requests: Invalid value: \"100m\": must be less than or equal to cpu limit of 50m",
        ),
    ] {
        let refused = resize(pod, patch).fails();
        assert!(refused.contains(why), "{why} in {refused}");
    }
    let refused = cluster
        .kubectl(&[
            "patch",
            "pod",
            "plain",
            "-p",
            r#"{"spec":{"containers":[{"name":"main","resources":{"requests":{"cpu":"200m"}}}]}}"#,
        ])
        .fails();
    assert!(
        refused.contains("pod updates may not change fields other than"),
        "{refused}"
    );

    // Never, and not now.
    let pending = |field: &str| condition(&cluster, "plain", "PodResizePending", field);
    resize("plain", r#"{"requests":{"cpu":"1000"}}"#).ok();
    eventually("there is no such node", || {
        (pending("reason") == "Infeasible").then_some(())
    });
    let capacity = cluster
        .kubectl(&["get", "node", "node", "-o", "jsonpath={.status.allocatable.cpu}"])
        .ok();
    let capacity = capacity.parse::<i64>().expect("whole CPUs") * 1000;
    assert_eq!(
        pending("message"),
        format!("Node didn't have enough capacity: cpu, requested: 1000000, capacity: {capacity}")
    );
    assert_eq!(
        cluster.field("plain", "{.status.containerStatuses[0].allocatedResources.cpu}"),
        "100m"
    );
    cluster.create(&sleeper(
        "greedy",
        "",
        &format!("resources: {{requests: {{cpu: {}m}}}}", capacity - 1000),
    ));
    cluster.wait_ready("greedy");
    resize("plain", r#"{"requests":{"cpu":"900m"}}"#).ok();
    eventually("there is no room", || (pending("reason") == "Deferred").then_some(()));
    let used = capacity - 1000 + 250 + 150 + 100;
    assert_eq!(
        pending("message"),
        format!("Node didn't have enough resource: cpu, requested: 900, used: {used}, capacity: {capacity}")
    );
    assert_eq!(pending("observedGeneration"), "3");
    let described = cluster.kubectl(&["describe", "pod", "plain"]).ok();
    assert!(described.contains("PodResizePending"), "{described}");
    // What waits is as good as taken, for the scheduler.
    cluster.create(&sleeper("late", "", "resources: {requests: {cpu: 600m}}"));
    cluster
        .kubectl(&[
            "wait",
            "--for=condition=PodScheduled=False",
            "pod/late",
            "--timeout=60s",
        ])
        .ok();
    assert!(condition(&cluster, "late", "PodScheduled", "message").contains("Insufficient cpu"));
    // A server that was killed knows what was granted and what was not.
    cluster.kill_server();
    cluster.start_server();
    let allocated = || cluster.field("plain", "{.status.containerStatuses[0].allocatedResources.cpu}");
    assert_eq!(allocated(), "100m");
    cluster.kubectl(&["delete", "pod", "greedy"]).ok();
    eventually("there is room", || (allocated() == "900m").then_some(()));
    eventually("nothing is pending", || {
        condition(&cluster, "plain", "PodResizePending", "status")
            .is_empty()
            .then_some(())
    });
    eventually("the events tell of all of it", || {
        let events = events(&cluster, "plain");
        [
            "Warning ResizeInfeasible Pod resize Infeasible: {",
            "Warning ResizeDeferred Pod resize Deferred: {",
            "Normal ResizeCompleted",
        ]
        .iter()
        .all(|event| events.contains(event))
        .then_some(())
    });
    cluster.kubectl(&["delete", "pod", "plain"]).ok();
    cluster.wait_ready("late");

    // Of the pod as a whole: its containers have no limit of their own.
    let first = id_of(&cluster, "shared");
    assert_eq!(cluster.field("shared", "{.status.qosClass}"), "Burstable");
    assert_eq!(limits(&first), (200, 128 * MIB));
    assert_eq!(limits(&cluster.field("shared", "{.metadata.uid}")), limits(&first));
    cluster
        .kubectl(&[
            "patch",
            "pod",
            "shared",
            "--subresource",
            "resize",
            "-p",
            r#"{"spec":{"resources":{"requests":{"cpu":"150m"},"limits":{"cpu":"300m","memory":"160Mi"}}}}"#,
        ])
        .ok();
    eventually("the pod is resized", || {
        let told = cluster.field(
            "shared",
            "{.status.resources.limits.cpu} {.status.resources.limits.memory} {.status.allocatedResources.cpu}",
        );
        (told == "300m 160Mi 150m").then_some(())
    });
    assert_eq!(limits(&first), (300, 160 * MIB));
    assert_eq!(limits(&cluster.field("shared", "{.metadata.uid}")), limits(&first));
    assert_eq!(id_of(&cluster, "shared"), first);

    // Both kubectls show it alike.
    let describe = ["describe", "pod", "shared", "--show-events=false"];
    let upstream = cluster.kubectl(&describe).ok();
    assert!(
        upstream.contains("Resources:\n  Limits:\n    cpu:     300m\n    memory:  160Mi\n"),
        "{upstream}"
    );
    let mut own = cluster.netns.command(podium());
    own.arg("kubectl")
        .args(describe)
        .env("KUBECONFIG", cluster.kubeconfig());
    assert_eq!(run(&mut own, "").ok(), upstream);

    // Memory that is in use is not taken away.
    let fill = [
        "exec",
        "shared",
        "--",
        "dd",
        "if=/dev/zero",
        "of=/dev/shm/full",
        "bs=1M",
        "count=40",
    ];
    cluster.kubectl(&fill).ok();
    cluster
        .kubectl(&[
            "patch",
            "pod",
            "shared",
            "--subresource",
            "resize",
            "-p",
            r#"{"spec":{"resources":{"requests":{"memory":"16Mi"},"limits":{"memory":"16Mi"}}}}"#,
        ])
        .ok();
    let progress = |field: &str| condition(&cluster, "shared", "PodResizeInProgress", field);
    eventually("it says why not", || (progress("reason") == "Error").then_some(()));
    let message = progress("message");
    assert!(
        message.starts_with(
            "cannot decrease memory limits: [attempting to set pod memory limit (16777216) below current usage ("
        ) && message.contains("attempting to set container \"main\" memory limit (16777216) below current usage ("),
        "{message}"
    );
    assert_eq!(limits(&first), (300, 160 * MIB));
    cluster.kubectl(&["exec", "shared", "--", "rm", "/dev/shm/full"]).ok();
    eventually("it is taken as soon as it is free", || {
        (cluster.field("shared", "{.status.resources.limits.memory}") == "16Mi").then_some(())
    });
    assert_eq!(limits(&first), (300, 16 * MIB));
    assert_eq!(restarts_of(&cluster, "shared"), "0");
}

fn id_of(cluster: &Cluster, pod: &str) -> String {
    let id = cluster.field(pod, "{.status.containerStatuses[0].containerID}");
    id.replace("podium://", "")
}

fn restarts_of(cluster: &Cluster, pod: &str) -> String {
    cluster.field(pod, "{.status.containerStatuses[0].restartCount}")
}
