//! What the node makes of pods: restarts, init containers and sidecars, what keeps containers from starting, volumes, probes, hooks, and the
//! ways in which a pod ends.

use tests::{Cluster, Options, Terminal, eventually};

fn cluster() -> Cluster {
    Cluster::with(Options {
        images: &["busybox"],
        ..Options::default()
    })
}

fn pod(name: &str, spec: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{a: b}}}}\nspec:\n{spec}")
}

#[test]
fn containers_restart_and_jobs_end() {
    let cluster = cluster();
    // Every state there was, in order, however late one looks.
    let mut watch = cluster.kubectl_command();
    let c = ".status.containerStatuses[0]";
    let last = format!("{c}.lastState.terminated");
    let said = format!(
        "jsonpath={{.metadata.name}} {{.status.phase}} {{{c}.state.waiting.message}} after {{{last}.exitCode}} {{{last}.reason}} {{{last}.message}};"
    );
    watch.args(["get", "pods", "--watch", "-o", &said]);
    let mut watch = Terminal::start(watch, 24, 400);
    cluster.create(&pod(
        "fails",
        "  containers:\n  - name: c\n    image: localhost/busybox:1\n    command: [sh, -c, 'echo said; printf words > /dev/termination-log; exit 3']\n",
    ));
    cluster.create(&pod(
        "job",
        "  restartPolicy: Never\n  initContainers:\n  - {name: first, image: 'localhost/busybox:1', command: [sh, -c, 'echo one > /m/f'], volumeMounts: [{name: m, mountPath: /m}]}\n  - {name: side, image: 'localhost/busybox:1', restartPolicy: Always, command: [sh, -c, 'trap \"exit 0\" TERM; while :; do sleep 0.1; done']}\n  containers:\n  - {name: main, image: 'localhost/busybox:1', command: [cat, /m/f], volumeMounts: [{name: m, mountPath: /m}]}\n  volumes: [{name: m, emptyDir: {medium: Memory, sizeLimit: 1Mi}}]\n",
    ));

    cluster.until("job", "{.status.phase}", "Succeeded");
    assert_eq!(cluster.kubectl(&["logs", "job", "-c", "main"]).ok(), "one\n");
    cluster.until(
        "job",
        "{.status.initContainerStatuses[*].state.terminated.reason}",
        "Completed Completed",
    );

    let full_name = format!("fails_default({})", cluster.field("fails", "{.metadata.uid}"));
    let back_off = |delay: &str| {
        format!("fails Running back-off {delay} restarting failed container=c pod={full_name} after 3 Error words;")
    };
    let before = watch.expect(&back_off("10s"));
    assert_eq!(
        before.matches("back-off ").count(),
        1,
        "the first restart is at once: {before}"
    );
    let between = watch.expect(&back_off("20s")).replace(&back_off("10s"), "");
    assert_eq!(between.matches("back-off ").count(), 1, "{between}");
    cluster.until_event("fails", "Back-off restarting failed container c in pod fails_default(");
    assert_eq!(cluster.kubectl(&["logs", "fails", "--previous"]).ok(), "said\n");
}

#[test]
fn what_keeps_a_container_from_starting_is_said() {
    let cluster = cluster();
    let containers = [
        ("pulled", "localhost:1/none:1", "IfNotPresent"),
        ("never", "localhost/none:1", "Never"),
        ("wrong", "Wrong/Name", "IfNotPresent"),
    ];
    let list: String = containers
        .iter()
        .map(|(name, image, policy)| format!("  - {{name: {name}, image: '{image}', imagePullPolicy: {policy}}}\n"))
        .collect();
    cluster.create(&pod("images", &format!("  containers:\n{list}")));
    let refers = "env: [{name: X, valueFrom: {configMapKeyRef: {name: settings, key: x}}}]";
    let list =
        format!("  - {{name: c, image: 'localhost/busybox:1', command: [sh, -c, 'echo $X; sleep 1000'], {refers}}}\n");
    cluster.create(&pod("refers", &format!("  containers:\n{list}")));
    cluster.create(&pod(
        "root",
        "  securityContext: {runAsNonRoot: true}\n  containers:\n  - {name: c, image: 'localhost/busybox:1'}\n",
    ));

    // A volume that cannot stand where it is wanted: a directory on a file.
    let accounts = cluster.dir().join("accounts");
    std::fs::create_dir(&accounts).expect("a directory");
    let covers = format!(
        "  containers:\n  - {{name: c, image: 'localhost/busybox:1', command: [sleep, '1000'], volumeMounts: [{{name: v, mountPath: /etc/passwd}}]}}\n  volumes: [{{name: v, hostPath: {{path: {}}}}}]\n",
        accounts.display()
    );
    cluster.create(&pod("covers", &covers));

    let reason = |index: usize| format!("{{.status.containerStatuses[{index}].state.waiting.reason}}");
    cluster.until("images", &reason(0), "ErrImageNeverPull");
    cluster.until("images", &reason(1), "ImagePullBackOff");
    cluster.until("images", &reason(2), "InvalidImageName");
    for words in [
        "Pulling image \"localhost:1/none:1\"",
        "Failed to pull image \"localhost:1/none:1\": ",
        "Error: ErrImagePull",
        "Back-off pulling image \"localhost:1/none:1\"",
        "Container image \"localhost/none:1\" is not present with pull policy of Never",
        "couldn't parse image name \"Wrong/Name\": invalid reference format: repository name (Wrong/Name) must be lowercase",
    ] {
        cluster.until_event("images", words);
    }

    let cannot = format!(
        "Error: failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: error during container init: error mounting \"{}\" to rootfs at \"/etc/passwd\": not a directory",
        accounts.display()
    );
    cluster.until_warning("covers", "Failed", &cannot);

    cluster.until("refers", &reason(0), "CreateContainerConfigError");
    let message = "{.status.containerStatuses[0].state.waiting.message}";
    assert_eq!(cluster.field("refers", message), "configmap \"settings\" not found");
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {x: found}\n";
    cluster.create(map);
    cluster.wait_ready("refers");
    eventually("the container says what it was given", || {
        (cluster.kubectl(&["logs", "refers"]).stdout == "found\n").then_some(())
    });

    // That one ran while the other could not; a file in the directory's place is all that it needs.
    let uid = cluster.field("covers", "{.metadata.uid}");
    assert_eq!(cluster.field("covers", "{.status.containerStatuses[0].ready}"), "false");
    std::fs::remove_dir(&accounts).expect("the directory goes");
    std::fs::write(&accounts, "root:x:0:0:of the volume:/:/bin/sh\n").expect("a file");
    cluster.wait_ready("covers");
    assert_eq!(cluster.field("covers", "{.metadata.uid}"), uid);
    let read = cluster.exec("covers", "cat /etc/passwd");
    assert_eq!(read, "root:x:0:0:of the volume:/:/bin/sh\n");

    cluster.until("root", &reason(0), "CreateContainerConfigError");
    let said = cluster.field("root", message);
    assert!(
        said.starts_with("container has runAsNonRoot and image will run as root (pod: \"root_default("),
        "{said}"
    );
}

#[test]
fn volumes_probes_and_hooks() {
    let cluster = cluster();
    cluster.create("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: map}\ndata: {k: v}\n");
    cluster.create("apiVersion: v1\nkind: Secret\nmetadata: {name: secret}\nstringData: {s: hidden}\n");
    // An emulated machine is slow: a command takes seconds there, and who tells of a pod too often is not heard any more.
    cluster.create(&pod(
        "all",
        "  securityContext: {fsGroup: 77, runAsUser: 5}
  containers:
  - name: c
    image: localhost/busybox:1
    command: [sleep, '1000']
    volumeMounts:
    - {name: map, mountPath: /map}
    - {name: empty, mountPath: /map/within}
    - {name: secret, mountPath: /secret, readOnly: true}
    - {name: down, mountPath: /down}
    - {name: all, mountPath: /all}
    - {name: empty, mountPath: /part, subPath: x/y}
    - {name: empty, mountPath: /whole}
    readinessProbe: {exec: {command: [test, -e, /whole/ready]}, periodSeconds: 5, timeoutSeconds: 20}
    livenessProbe: {exec: {command: [test, '!', -e, /whole/dead]}, periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 1}
    lifecycle:
      postStart: {exec: {command: [touch, /whole/hooked]}}
  terminationGracePeriodSeconds: 1
  volumes:
  - {name: map, configMap: {name: map, items: [{key: k, path: deep/k}]}}
  - {name: secret, secret: {secretName: secret, defaultMode: 0400}}
  - {name: down, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
  - {name: all, projected: {sources: [{configMap: {name: map}}, {secret: {name: secret}}]}}
  - {name: empty, emptyDir: {}}
",
    ));
    cluster.until("all", "{.status.containerStatuses[0].started}", "true");
    let exec = |script: &str| cluster.kubectl(&["exec", "all", "--", "sh", "-c", script]);
    assert_eq!(
        exec("cat /map/deep/k /secret/s /down/labels /all/k /all/s").ok(),
        "vhiddena=\"b\"vhidden"
    );
    assert_eq!(
        exec("stat -L -c '%a %g' /secret/s; id -u; id -G").ok(),
        "440 77\n5\n0 77\n"
    );
    exec("echo 1 > /part/f && grep -q 1 /whole/x/y/f && test -e /whole/hooked").ok();
    assert_ne!(exec("touch /secret/x").code, 0);
    exec("touch /map/within/x && test -e /whole/x").ok();

    assert_eq!(cluster.field("all", "{.status.containerStatuses[0].ready}"), "false");
    cluster.until_event("all", "Readiness probe failed:");
    exec("touch /whole/ready").ok();
    cluster.wait_ready("all");

    // The volume outlives the container, and so would its death.
    exec("touch /whole/dead && rm /whole/ready").ok();
    cluster.until_event("all", "Container c failed liveness probe, will be restarted");
    eventually("the container is started again", || {
        (cluster.field("all", "{.status.containerStatuses[0].restartCount}") != "0").then_some(())
    });
}

#[test]
fn pods_end_when_they_must() {
    let cluster = cluster();
    let sleeps = "{name: c, image: 'localhost/busybox:1', command: [sleep, '1000']";
    cluster.create(&pod(
        "late",
        &format!("  activeDeadlineSeconds: 2\n  terminationGracePeriodSeconds: 1\n  containers:\n  - {sleeps}}}\n"),
    ));
    cluster.create(&pod(
        "stuck",
        "  activeDeadlineSeconds: 2\n  containers:\n  - {name: c, image: 'localhost:1/none:1'}\n",
    ));
    cluster.create(&pod(
        "large",
        "  terminationGracePeriodSeconds: 1\n  containers:\n  - {name: c, image: 'localhost/busybox:1', command: [sh, -c, 'head -c 3000000 /dev/zero > /cache/f; sleep 1000'], volumeMounts: [{name: cache, mountPath: /cache}]}\n  volumes: [{name: cache, emptyDir: {sizeLimit: 1Mi}}]\n",
    ));
    cluster.create(&pod(
        "stubborn",
        "  terminationGracePeriodSeconds: 600\n  containers:\n  - {name: c, image: 'localhost/busybox:1', command: [sh, -c, 'trap \"\" TERM; while :; do sleep 1; done']}\n",
    ));

    cluster.until("late", "{.status.phase} {.status.reason}", "Failed DeadlineExceeded");
    assert_eq!(
        cluster.field("late", "{.status.message}"),
        "Pod was active on the node longer than the specified deadline"
    );

    // What never ran is over too.
    cluster.until("stuck", "{.status.phase} {.status.reason}", "Failed DeadlineExceeded");
    let row = cluster.kubectl(&["get", "pod", "stuck", "--no-headers"]).ok();
    assert_eq!(row.split_whitespace().nth(2), Some("ContainerStatusUnknown"), "{row}");

    cluster.wait_ready("stubborn");
    cluster.kubectl(&["delete", "pod", "stubborn", "--wait=false"]).ok();
    cluster.until_event("stubborn", "Stopping container c");
    // A shorter grace period reaches a container that is already told to end.
    cluster
        .kubectl(&["delete", "pod", "stubborn", "--grace-period=1", "--timeout=30s"])
        .ok();

    cluster.until("large", "{.status.phase} {.status.reason}", "Failed Evicted");
    assert_eq!(
        cluster.field("large", "{.status.message}"),
        "Usage of EmptyDir volume \"cache\" exceeds the limit \"1Mi\". "
    );
}
