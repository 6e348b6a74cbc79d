//! What users get wrong, and what they are told.

use tests::{Cluster, Mount, Options, Registry, eventually, image, run};

#[test]
fn manifests_are_refused_in_upstreams_words() {
    let cluster = Cluster::with(Options::default());
    let refused = |manifest: &str| cluster.kubectl_with(&["create", "-f", "-"], manifest).fails();
    let cases = [
        (
            "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: c, imagee: x}]}}",
            "Error from server (BadRequest): error when creating \"STDIN\": Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: unknown field \"spec.containers[0].imagee\"\n",
        ),
        (
            "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{image: x}]}}",
            "The Pod \"a\" is invalid: spec.containers[0].name: Required value\n",
        ),
        (
            "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: []}}",
            "The Pod \"a\" is invalid: spec.containers: Required value\n",
        ),
        (
            "{apiVersion: v1, kind: Pod, metadata: {}, spec: {containers: [{name: c, image: x}]}}",
            "The Pod \"\" is invalid: metadata.name: Required value: name or generateName is required\n",
        ),
        (
            "{apiVersion: v1, kind: Podd, metadata: {name: a}}",
            "error: resource mapping not found for name: \"a\" namespace: \"\" from \"STDIN\": no matches for kind \"Podd\" in version \"v1\"\nensure CRDs are installed first\n",
        ),
        (
            "{apiVersion: v9, kind: Pod, metadata: {name: a}}",
            "error: resource mapping not found for name: \"a\" namespace: \"\" from \"STDIN\": no matches for kind \"Pod\" in version \"v9\"\nensure CRDs are installed first\n",
        ),
        (
            "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: nowhere}, spec: {containers: [{name: c, image: x}]}}",
            "Error from server (NotFound): error when creating \"STDIN\": namespaces \"nowhere\" not found\n",
        ),
    ];
    for (manifest, expected) in cases {
        assert_eq!(refused(manifest), expected, "for {manifest}");
    }
    let wrong_type = refused(
        "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: c, image: x, ports: [{containerPort: eighty}]}]}}",
    );
    assert_eq!(
        wrong_type,
        "Error from server (BadRequest): error when creating \"STDIN\": Pod in version \"v1\" cannot be handled as a Pod: json: cannot unmarshal string into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32\n"
    );
    let bad_name =
        refused("{apiVersion: v1, kind: Pod, metadata: {name: Not_Valid}, spec: {containers: [{name: c, image: x}]}}");
    assert!(
        bad_name
            .contains("metadata.name: Invalid value: \"Not_Valid\": a lowercase RFC 1123 subdomain must consist of"),
        "{bad_name}"
    );
    patches_that_cannot_be_are_refused(&cluster);
}

/// What kubectl says of a patch that makes no object of its kind.
fn patches_that_cannot_be_are_refused(cluster: &Cluster) {
    cluster.create("{apiVersion: v1, kind: ConfigMap, metadata: {name: patched}, data: {a: b}}");
    let refused = |args: &[&str]| {
        cluster
            .kubectl(&[&["patch", "configmap", "patched"], args].concat())
            .fails()
    };
    for (args, expected) in [
        (
            &["-p", r#"{"metadata":{"labels":{"a":1}}}"#][..],
            "The request is invalid: patch: Invalid value: \"map[metadata:map[labels:map[a:1]]]\": cannot convert int64 to string\n",
        ),
        (
            &["-p", r#"{"immutable":"yes"}"#],
            "The request is invalid: patch: Invalid value: \"map[immutable:yes]\": unrecognized type: bool\n",
        ),
        (
            &["--type=merge", "-p", r#"{"metadata":{"name":"other"}}"#],
            "Error from server (BadRequest): the name of the object (other) does not match the name on the URL (patched)\n",
        ),
    ] {
        assert_eq!(refused(args), expected, "for {args:?}");
    }
    let merged = refused(&["--type=merge", "-p", r#"{"data":{"a":1}}"#]);
    assert!(
        merged.starts_with("The request is invalid: patch: Invalid value: \"{")
            && merged.ends_with(": json: cannot unmarshal number into Go struct field ConfigMap.data of type string\n"),
        "{merged}"
    );
}

#[test]
fn images_that_cannot_be_had_say_why() {
    let cluster = Cluster::with(Options::default());
    let registry = Registry::start(&cluster.netns, 5000, false);
    let pod = |name: &str, image: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{containers: [{{name: main, image: '{image}', command: [sleep, 12h]}}]}}}}"
        )
    };
    let reason = |name: &str| cluster.field(name, "{.status.containerStatuses[0].state.waiting.reason}");

    cluster.create(&pod("invalid", "UPPER/Case:1"));
    eventually("InvalidImageName", || {
        (reason("invalid") == "InvalidImageName").then_some(())
    });

    cluster.create(&pod("missing", "127.0.0.1:5000/missing:1"));
    eventually("ErrImagePull or ImagePullBackOff", || {
        ["ErrImagePull", "ImagePullBackOff"]
            .contains(&reason("missing").as_str())
            .then_some(())
    });
    eventually("ImagePullBackOff", || {
        (reason("missing") == "ImagePullBackOff").then_some(())
    });
    let events = cluster.kubectl(&["describe", "pod", "missing"]).ok();
    assert!(
        events.contains("Failed to pull image \"127.0.0.1:5000/missing:1\""),
        "{events}"
    );
    assert!(
        events.contains("not found"),
        "the registry's answer is in the event:\n{events}"
    );

    registry.push(&cluster.netns, &image("busybox"), "busybox", "1");
    cluster.create(&pod("pulled", "127.0.0.1:5000/busybox:1"));
    cluster.wait_ready("pulled");
    let events = cluster.kubectl(&["describe", "pod", "pulled"]).ok();
    assert!(
        events.contains("Successfully pulled image \"127.0.0.1:5000/busybox:1\""),
        "{events}"
    );

    registry.push(&cluster.netns, &image("nginx"), "nginx", "1");
    registry.tamper();
    cluster.create(&pod("tampered", "127.0.0.1:5000/nginx:1"));
    eventually("ErrImagePull", || {
        ["ErrImagePull", "ImagePullBackOff"]
            .contains(&reason("tampered").as_str())
            .then_some(())
    });
    let message = cluster.kubectl(&["describe", "pod", "tampered"]).ok();
    assert!(message.contains("digest"), "{message}");
}

#[test]
fn a_registry_with_a_password_wants_the_pull_secret() {
    let cluster = Cluster::with(Options::default());
    let registry = Registry::start(&cluster.netns, 5001, true);
    registry.push(&cluster.netns, &image("busybox"), "private/busybox", "1");
    let pod = |name: &str, more: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{containers: [{{name: main, image: '127.0.0.1:5001/private/busybox:1', command: [sleep, 12h]}}]{more}}}}}"
        )
    };
    cluster.create(&pod("without", ""));
    let reason = |name: &str| cluster.field(name, "{.status.containerStatuses[0].state.waiting.reason}");
    eventually("the pull fails", || {
        ["ErrImagePull", "ImagePullBackOff"]
            .contains(&reason("without").as_str())
            .then_some(())
    });
    let denied = "pull access denied, repository does not exist or may require authorization: authorization failed: ";
    cluster.until_event("without", &format!("{denied}no basic auth credentials"));
    let secret = |name: &str, password: &str| {
        let password = format!("--docker-password={password}");
        let login = ["--docker-server=127.0.0.1:5001", "--docker-username=user", &password];
        cluster
            .kubectl(&[&["create", "secret", "docker-registry", name][..], &login].concat())
            .ok();
    };
    secret("pull", "secret");
    secret("wrong", "guessed");
    cluster.create(&pod("with", ", imagePullSecrets: [{name: pull}]"));
    cluster.create(&pod("mistaken", ", imagePullSecrets: [{name: wrong}]"));
    cluster.create(&pod("lost", ", imagePullSecrets: [{name: none}]"));
    cluster.wait_ready("with");
    cluster.until_event(
        "mistaken",
        &format!("{denied}unexpected status from GET request to http://127.0.0.1:5001/"),
    );
    cluster.until_event("mistaken", ": 401 Unauthorized");
    cluster.until_event(
        "lost",
        "Unable to retrieve some image pull secrets (none); attempting to pull the image may not succeed.",
    );
    // What one pod has pulled with its password is not for others that have none: on the node it stands as if it were not there.
    let with_policy = |name: &str, policy: &str, more: &str| {
        pod(name, more).replace("command:", &format!("imagePullPolicy: {policy}, command:"))
    };
    cluster.create(&with_policy("borrows", "IfNotPresent", ""));
    cluster.create(&with_policy("takes", "Never", ""));
    cluster.until_event("borrows", &format!("{denied}no basic auth credentials"));
    cluster.until_event(
        "takes",
        "Container image \"127.0.0.1:5001/private/busybox:1\" is not present with pull policy of Never",
    );
    cluster.create(&with_policy("shares", "Never", ", imagePullSecrets: [{name: pull}]"));
    cluster.wait_ready("shares");
    // The right password mends it.
    cluster.kubectl(&["delete", "secret", "wrong"]).ok();
    secret("wrong", "secret");
    cluster.wait_ready("mistaken");
}

#[test]
fn a_server_that_cannot_start_says_so_in_one_line() {
    let mut cluster = Cluster::prepare(Options::default());
    // What the harness gives comes first; clap takes a flag once, so a test gives what it needs through the file.
    let start = |cluster: &Cluster, settings: &str| {
        let file = cluster.dir().join("settings.yaml");
        std::fs::write(&file, settings).expect("a settings file");
        let mut command = cluster.netns.command(tests::podium());
        let output = run(
            command
                .args(["server", "--node-ip", "192.0.2.10", "--config"])
                .arg(file)
                .env("RUST_LOG", "error"),
            "",
        );
        assert_ne!(output.code, 0, "{output}");
        assert_eq!(output.stderr.trim().lines().count(), 1, "{output}");
        output.stderr
    };
    let dirs = |data: &std::path::Path, run: &std::path::Path| {
        format!(
            "data-dir: {}\nrun-dir: {}\npod-logs-dir: {}\n",
            data.display(),
            run.display(),
            data.join("pods").display()
        )
    };
    let other = cluster.dir().join("other");
    let refused = start(&cluster, &(dirs(&other, &other) + "cluster-cidr: nonsense\n"));
    assert!(refused.contains("--cluster-cidr"), "{refused}");
    let refused = start(&cluster, "data-dri: /nowhere\n");
    assert!(
        refused.contains("data-dri") && refused.contains("settings.yaml"),
        "{refused}"
    );
    // Others' rules that eat pods' packets keep nothing from starting; the server says which they are and what helps.
    let rules = "table inet foreign { chain through { type filter hook forward priority 0; policy drop; }; }";
    run(cluster.netns.command("nft").args(["-f", "-"]), rules).ok();
    cluster.start_server();
    eventually("the server names the foreign rules", || {
        let told = "nftables, chain inet foreign through, drops traffic from and to pods; nft insert rule inet foreign through";
        cluster.log().contains(told).then_some(())
    });
    let refused = start(
        &cluster,
        &(dirs(&cluster.data_dir(), &cluster.run_dir()) + "https-listen-port: 7443\n"),
    );
    assert!(
        refused.contains(&*cluster.data_dir().to_string_lossy()),
        "the directory is in use: {refused}"
    );
    let refused = start(&cluster, &dirs(&other, &other));
    assert!(refused.contains("6443"), "the port is in use: {refused}");
    // Both ports are taken by others than a server.
    let free = "https-listen-port: 7443\n";
    let refused = start(&cluster, &(dirs(&other, &other) + free));
    assert!(refused.contains("10250"), "the kubelet's port is in use: {refused}");

    // A file system that holds no overlay: here an overlay itself.
    let below = cluster.dir().join("below");
    for part in ["lower", "upper", "work", "merged"] {
        std::fs::create_dir_all(below.join(part)).expect("a directory");
    }
    let options = format!(
        "lowerdir={0}/lower,upperdir={0}/upper,workdir={0}/work",
        below.display()
    );
    let merged = Mount::new(&["-t", "overlay", "-o", &options, "overlay"], below.join("merged"));
    let refused = start(&cluster, &(dirs(merged.at(), &other) + free));
    assert!(
        refused.contains("overlayfs") && refused.contains("--data-dir") && refused.contains("ext4"),
        "what is wrong and what helps: {refused}"
    );
    assert_eq!(
        std::fs::read_dir(merged.at()).expect("the directory").count(),
        0,
        "nothing half-done is left"
    );
    drop(merged);

    // A file that is not an image stops nothing: it is named in the log.
    let corrupt = cluster.dir().join("corrupt.tar");
    std::fs::write(&corrupt, b"not an archive").expect("a file");
    let refused = cluster.podium(&["image", "import", &corrupt.to_string_lossy()]).fails();
    assert!(
        refused.contains("corrupt.tar") && refused.trim().lines().count() == 1,
        "{refused}"
    );
    let wrong = cluster.dir().join("wrong-digest.tar");
    with_a_changed_layer(&image("busybox"), &wrong);
    let refused = cluster.podium(&["image", "import", &wrong.to_string_lossy()]).fails();
    assert!(
        refused.contains("wrong-digest.tar") && refused.contains("digest") && refused.trim().lines().count() == 1,
        "{refused}"
    );
    assert_eq!(
        cluster.podium(&["image", "ls"]).ok().lines().count(),
        1,
        "nothing of either is there"
    );
}

#[test]
fn archives_that_are_no_images_hold_up_nothing() {
    let mut cluster = Cluster::prepare(Options {
        images: &["busybox"],
        ..Options::default()
    });
    let images = cluster.data_dir().join("images");
    std::fs::write(images.join("corrupt.tar"), b"not an archive").expect("a file");
    with_a_changed_layer(&image("nginx"), &images.join("wrong-digest.tar"));
    cluster.start_server();
    eventually("both are told of", || {
        let log = cluster.log();
        (log.contains("corrupt.tar") && log.contains("wrong-digest.tar")).then_some(())
    });
    let listed = cluster.podium(&["image", "ls"]).ok();
    assert!(listed.contains("busybox") && !listed.contains("nginx"), "{listed}");
    cluster.create(
        "{apiVersion: v1, kind: Pod, metadata: {name: main}, spec: {containers: [{name: main, image: 'localhost/busybox:1', command: [sleep, 12h]}]}}",
    );
    cluster.wait_ready("main");
}

#[test]
fn a_full_disk_is_told_and_nothing_is_half_done() {
    let mut cluster = Cluster::prepare(Options {
        // Where the kubelet happens to look while the disk is full, the node takes no pod for five minutes.
        kubelet: Some("evictionHard: {}"),
        ..Options::default()
    });
    let disk = Mount::memory("size=64m", cluster.data_dir());
    let filler = disk.at().join("filler");
    let fill = || {
        let output = run(
            std::process::Command::new("dd").args(["if=/dev/zero", "bs=64k", &format!("of={}", filler.display())]),
            "",
        );
        assert!(output.stderr.contains("No space left on device"), "{output}");
    };

    fill();
    let refused = run(cluster.server_command().env("RUST_LOG", "error"), "");
    assert_ne!(refused.code, 0, "{refused}");
    assert_eq!(refused.stderr.trim().lines().count(), 1, "{refused}");
    assert!(refused.stderr.contains("No space left on device"), "{refused}");

    std::fs::remove_file(&filler).expect("the filler goes");
    cluster.start_server();
    cluster
        .podium(&["image", "import", &image("busybox").to_string_lossy()])
        .ok();
    fill();
    // A small write may still find its place in the store's file; a large one does not.
    let large = format!("--from-literal=large={}", "x".repeat(60_000));
    let refused = (0..100)
        .map(|n| cluster.kubectl(&["create", "configmap", &format!("map-{n}"), &large]))
        .find(|output| output.code != 0)
        .expect("a full disk refuses writes");
    assert!(refused.stderr.contains("No space left on device"), "{refused}");
    assert_eq!(refused.stderr.trim().lines().count(), 1, "{refused}");
    let refused = cluster
        .podium(&["image", "import", &image("nginx").to_string_lossy()])
        .fails();
    assert!(
        refused.contains("No space left on device") && refused.trim().lines().count() == 1,
        "{refused}"
    );
    assert!(!cluster.podium(&["image", "ls"]).ok().contains("nginx"));

    std::fs::remove_file(&filler).expect("the filler goes");
    eventually("there is room again", || {
        let output = cluster.kubectl(&["create", "configmap", "later", &large]);
        (output.code == 0 || output.stderr.contains("AlreadyExists")).then_some(())
    });
    cluster
        .podium(&["image", "import", &image("nginx").to_string_lossy()])
        .ok();
    cluster.create(
        "{apiVersion: v1, kind: Pod, metadata: {name: main}, spec: {containers: [{name: main, image: 'localhost/nginx:1'}]}}",
    );
    cluster.wait_ready("main");
    cluster.kubectl(&["delete", "pod", "main", "--now"]).ok();
    cluster.kill_server();
    // The directory itself is a mount and cannot go; all in it does, and the mount with it.
    let _ = cluster.reset();
}

/// Copies an archive with a byte of its largest file changed, so that its digest does not fit any more.
fn with_a_changed_layer(archive: &std::path::Path, to: &std::path::Path) {
    let work = tempfile::tempdir().expect("a directory");
    let script = "tar -xf \"$0\" -C \"$1\" && cd \"$1\" && layer=$(ls -S blobs/sha256/* | head -n 1) && \
                  printf X | dd of=\"$layer\" bs=1 seek=5000 conv=notrunc status=none && tar -cf \"$2\" *";
    let mut sh = std::process::Command::new("sh");
    run(sh.args(["-c", script]).arg(archive).arg(work.path()).arg(to), "").ok();
}

#[test]
fn a_pod_that_fits_nowhere_says_why() {
    let mut cluster = Cluster::start();
    cluster.create(
        "{apiVersion: v1, kind: Pod, metadata: {name: greedy}, spec: {containers: [{name: main, image: 'localhost/busybox:1', resources: {requests: {cpu: '1000'}}}]}}",
    );
    let message = eventually("PodScheduled is False", || {
        let message = cluster.field("greedy", "{.status.conditions[?(@.type=='PodScheduled')].message}");
        (!message.is_empty()).then_some(message)
    });
    assert_eq!(
        message,
        "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    );
    let events = eventually("FailedScheduling", || {
        let events = cluster.kubectl(&["describe", "pod", "greedy"]).ok();
        events.contains("FailedScheduling").then_some(events)
    });
    assert!(
        events.contains("0/1 nodes are available: 1 Insufficient cpu."),
        "{events}"
    );
    a_node_is_drained_and_comes_back(&cluster);
    a_deleted_node_comes_back(&cluster);

    cluster.create(
        "{apiVersion: v1, kind: Pod, metadata: {name: picky}, spec: {nodeSelector: {disk: fast}, containers: [{name: main, image: 'localhost/busybox:1', command: [sleep, 12h]}]}}",
    );
    eventually("it does not match", || {
        cluster
            .field("picky", "{.status.conditions[?(@.type=='PodScheduled')].message}")
            .contains("didn't match Pod's node affinity/selector")
            .then_some(())
    });
    cluster.kubectl(&["label", "node", "node", "disk=fast"]).ok();
    cluster.wait_ready("picky");

    cluster.create(
        "{apiVersion: v1, kind: Pod, metadata: {name: first}, spec: {nodeName: node, nodeSelector: {disk: fast}, containers: [{name: main, image: 'localhost/busybox:1', command: [sleep, 12h], ports: [{containerPort: 80, hostPort: 8099}]}]}}",
    );
    cluster.wait_ready("first");

    // What somebody puts on the node past the scheduler is refused by the node itself.
    let cpu = cluster
        .kubectl(&["get", "node", "node", "-o", "jsonpath={.status.allocatable.cpu}"])
        .ok();
    let cpu: u32 = cpu.parse().expect("whole CPUs");
    let greedy = format!("Node didn't have enough resource: cpu, requested: 1000000, used: 0, capacity: {cpu}000");
    let other_os = "Failed to admit pod as the OS field doesn't match node OS";
    for (name, spec, reason, message) in [
        (
            "put",
            "resources: {requests: {cpu: '1000'}}}]",
            "OutOfcpu",
            greedy.as_str(),
        ),
        ("panes", "}], os: {name: windows}", "PodOSNotSupported", other_os),
        (
            "elsewhere",
            "}], nodeSelector: {disk: slow}",
            "NodeAffinity",
            "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
        ),
        (
            "second",
            "ports: [{containerPort: 80, hostPort: 8099}]}]",
            "NodePorts",
            "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
        ),
        (
            "driven-off",
            "}]",
            "TaintToleration",
            "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate",
        ),
    ] {
        if reason == "TaintToleration" {
            cluster.kubectl(&["taint", "node", "node", "closed=yes:NoExecute"]).ok();
        }
        cluster.create(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{nodeName: node, containers: [{{name: main, image: 'localhost/busybox:1', {spec}}}}}"
        ));
        cluster.until(name, "{.status.phase} {.status.reason}", &format!("Failed {reason}"));
        assert_eq!(
            cluster.field(name, "{.status.message}"),
            format!("Pod was rejected: {message}")
        );
        cluster.until_event(name, message);
        let row = cluster.kubectl(&["get", "pod", name, "--no-headers"]).ok();
        assert!(row.split_whitespace().skip(1).take(3).eq(["0/1", reason, "0"]), "{row}");
        assert_eq!(cluster.field(name, "{.status.containerStatuses}"), "");
    }
    // Those that are there already stay, also past a new kubelet.
    cluster.kill_server();
    cluster.start_server();
    for pod in ["first", "picky"] {
        cluster.wait_ready(pod);
        assert_eq!(cluster.field(pod, "{.status.containerStatuses[0].restartCount}"), "0");
    }
}

/// `kubectl drain` empties the node, and nothing comes to it before `kubectl uncordon`.
fn a_node_is_drained_and_comes_back(cluster: &Cluster) {
    cluster.create(
        "{apiVersion: v1, kind: Pod, metadata: {name: moved}, spec: {containers: [{name: main, image: 'localhost/busybox:1', command: [sleep, 12h]}]}}",
    );
    cluster.wait_ready("moved");
    let refused = cluster.kubectl(&["drain", "node"]).fails();
    assert!(
        refused.contains("cannot delete Pods that declare no controller (use --force to override): default/moved"),
        "{refused}"
    );
    cluster.until_event("node", "Node node status is now: NodeNotSchedulable");
    let row = cluster.kubectl(&["get", "node", "node", "--no-headers"]).ok();
    assert_eq!(row.split_whitespace().nth(1), Some("Ready,SchedulingDisabled"), "{row}");
    let drained = cluster
        .kubectl(&["drain", "node", "--force", "--grace-period=1", "--timeout=60s"])
        .ok();
    assert!(drained.ends_with("pod/moved evicted\nnode/node drained\n"), "{drained}");
    let gone = cluster.kubectl(&["get", "pod", "moved"]).fails();
    assert_eq!(gone, "Error from server (NotFound): pods \"moved\" not found\n");

    cluster.create(
        "{apiVersion: v1, kind: Pod, metadata: {name: late}, spec: {containers: [{name: main, image: 'localhost/busybox:1', command: [sleep, 12h]}]}}",
    );
    cluster.until(
        "late",
        "{.status.conditions[?(@.type=='PodScheduled')].message}",
        "0/1 nodes are available: 1 node(s) were unschedulable. no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.",
    );
    cluster.kubectl(&["uncordon", "node"]).ok();
    cluster.wait_ready("late");
    cluster.until_event("node", "Node node status is now: NodeSchedulable");
}

/// Who deletes the node gets it back, its Lease too, and its pods go on.
fn a_deleted_node_comes_back(cluster: &Cluster) {
    let of_node = |field: &str| {
        let path = format!("jsonpath={field}");
        cluster.kubectl(&["get", "nodes", "-o", &path]).ok()
    };
    let before = of_node("{.items[*].metadata.uid}");
    cluster.kubectl(&["delete", "node", "node"]).ok();
    let uid = eventually("another node is ready", || {
        let ready = of_node("{.items[*].metadata.uid} {.items[*].status.conditions[?(@.type=='Ready')].status}");
        let (uid, status) = ready.split_once(' ')?;
        (uid != before && status == "True").then(|| uid.to_owned())
    });
    eventually("its Lease is renewed", || {
        let path = "jsonpath={.items[?(@.metadata.name=='node')].metadata.ownerReferences[0].uid}";
        let owner = cluster
            .kubectl(&["get", "leases", "-n", "kube-node-lease", "-o", path])
            .ok();
        (owner == uid).then_some(())
    });
    assert_eq!(
        cluster.field("late", "{.status.phase} {.status.containerStatuses[0].restartCount}"),
        "Running 0"
    );
}
