//! The binary's own commands: image, check, version; and the node's ports and networks that a pod may ask for.

use std::fs;

use tests::{Cluster, Netns, Options, eventually, image, run};

#[test]
fn images_come_and_go() {
    let cluster = Cluster::with(Options::default());
    assert_eq!(
        cluster.podium(&["image", "ls"]).ok().lines().count(),
        1,
        "only a header"
    );
    let archive = image("busybox");
    let imported = cluster.podium(&["image", "import", &archive.to_string_lossy()]).ok();
    assert!(imported.contains("localhost/busybox:1"), "{imported}");
    assert!(cluster.podium(&["image", "ls"]).ok().contains("localhost/busybox:1"));
    cluster.create(
        "{apiVersion: v1, kind: Pod, metadata: {name: main}, spec: {containers: [{name: main, image: 'localhost/busybox:1', command: [sleep, 12h]}]}}",
    );
    cluster.wait_ready("main");
    cluster.kubectl(&["delete", "pod", "main", "--now"]).ok();
    cluster.podium(&["image", "rm", "localhost/busybox:1"]).ok();
    assert!(!cluster.podium(&["image", "ls"]).ok().contains("localhost/busybox:1"));
    let missing = cluster.podium(&["image", "import", "/nowhere/archive.tar"]).fails();
    assert!(missing.contains("/nowhere/archive.tar"), "{missing}");
}

#[test]
fn check_and_version_say_what_is_here() {
    let cluster = Cluster::prepare(Options::default());
    let checked = run(cluster.netns.command(tests::podium()).arg("check"), "");
    for what in ["kernel", "cgroups", "overlayfs", "inotify", "network"] {
        assert!(checked.stdout.contains(what), "{what} is not in\n{checked}");
    }
    let version = run(cluster.netns.command(tests::podium()).arg("version"), "").ok();
    assert!(version.starts_with("podium ") && version.contains("v1.36"), "{version}");
}

/// Rules of other people's that drop what is forwarded and what comes in.
const FOREIGN_RULES: &str = "
table inet foreign {
    chain through { type filter hook forward priority 0; policy drop; }
    chain inwards { type filter hook input priority 0; policy accept; iifname \"lo\" accept; counter drop; }
}
";

#[test]
fn check_finds_foreign_rules_and_its_remedy_helps() {
    let netns = Netns::new("check");
    let nft = |input: &str| run(netns.command("nft").args(["-f", "-"]), input).ok();
    let check = || run(netns.command(tests::podium()).arg("check"), "").stdout;
    netns.ip(&["link", "set", "lo", "up"]);
    run(netns.command("sysctl").args(["-q", "-w", "net.ipv4.ip_forward=1"]), "").ok();
    assert!(check().contains("nothing eats pods' packets"), "{}", check());

    nft(FOREIGN_RULES);
    let found = check();
    for problem in [
        "warning  network: nftables, chain inet foreign through, drops traffic from and to pods",
        "warning  network: nftables, chain inet foreign inwards, drops traffic from pods to this machine",
    ] {
        assert!(found.contains(problem), "{problem:?} is not in\n{found}");
    }
    let remedies = found
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nft "))
        .map(|rest| format!("nft {rest}"));
    for remedy in remedies {
        run(netns.command("sh").args(["-c", &remedy]), "").ok();
    }
    assert!(check().contains("nothing eats pods' packets"), "{}", check());

    run(netns.command("sysctl").args(["-q", "-w", "net.ipv4.ip_forward=0"]), "").ok();
    let found = check();
    assert!(
        found.contains("net.ipv4.ip_forward is 0") && found.contains("sysctl -w net.ipv4.ip_forward=1"),
        "{found}"
    );
}

#[test]
fn host_ports_and_the_hosts_network_reach_a_pod_from_outside() {
    let cluster = Cluster::start();
    cluster.create(
        "{apiVersion: v1, kind: Pod, metadata: {name: ported}, spec: {containers: [{name: main, image: 'localhost/nginx:1', ports: [{containerPort: 80, hostPort: 8080}]}]}}",
    );
    cluster.create(
        "{apiVersion: v1, kind: Pod, metadata: {name: hosted}, spec: {hostNetwork: true, containers: [{name: main, image: 'localhost/nginx:1'}]}}",
    );
    cluster.wait_ready("ported");
    cluster.wait_ready("hosted");
    assert_eq!(cluster.field("hosted", "{.status.podIP}"), "192.0.2.10");
    for port in ["8080", "80"] {
        let url = format!("http://192.0.2.10:{port}/");
        let page = eventually("nginx answers from outside", || {
            let output = run(cluster.outside().command("curl").args(["-s", "-m", "5", &url]), "");
            (output.code == 0).then_some(output.stdout)
        });
        assert!(page.contains("Welcome to nginx!"), "{page}");
    }
    cluster.kubectl(&["delete", "pod", "ported", "--now"]).ok();
    let gone = run(
        cluster
            .outside()
            .command("curl")
            .args(["-s", "-m", "5", "http://192.0.2.10:8080/"]),
        "",
    );
    assert_ne!(gone.code, 0, "the host port went with its pod: {gone}");
}

#[test]
fn a_pods_configuration_reaches_its_containers() {
    let cluster = Cluster::start();
    cluster
        .kubectl(&[
            "create",
            "configmap",
            "settings",
            "--from-literal=colour=green",
            "--from-literal=file.txt=from a file",
        ])
        .ok();
    cluster
        .kubectl(&[
            "create",
            "secret",
            "generic",
            "hidden",
            "--from-literal=password=s3cret",
        ])
        .ok();
    cluster.create(
        "
apiVersion: v1
kind: Pod
metadata: {name: configured, labels: {tier: back}}
spec:
  initContainers:
  - {name: first, image: 'localhost/busybox:1', workingDir: /opt/not/there, command: [sh, -c, 'echo prepared in $(pwd) > /shared/state'], volumeMounts: [{name: shared, mountPath: /shared}]}
  containers:
  - name: main
    image: localhost/busybox:1
    command: [sleep, 12h]
    workingDir: /fast/work
    env:
    - {name: COLOUR, valueFrom: {configMapKeyRef: {name: settings, key: colour}}}
    - {name: PASSWORD, valueFrom: {secretKeyRef: {name: hidden, key: password}}}
    - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: GREETING, value: 'hello $(POD)'}
    resources: {limits: {memory: 64Mi, cpu: 500m}}
    volumeMounts:
    - {name: shared, mountPath: /shared}
    - {name: settings, mountPath: /settings}
    - {name: fast, mountPath: /fast}
  volumes:
  - {name: shared, emptyDir: {}}
  - {name: settings, configMap: {name: settings}}
  - {name: fast, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
",
    );
    cluster.wait_ready("configured");
    let sh = |script: &str| {
        cluster
            .kubectl(&["exec", "configured", "-c", "main", "--", "sh", "-c", script])
            .ok()
    };
    assert_eq!(
        sh("echo $COLOUR $PASSWORD $GREETING"),
        "green s3cret hello configured\n"
    );
    assert_eq!(
        sh("cat /shared/state /settings/file.txt"),
        "prepared in /opt/not/there\nfrom a file"
    );
    assert_eq!(sh("pwd"), "/fast/work\n", "a directory that is not there is made");
    assert!(sh("mount | grep ' /fast '").contains("tmpfs"));
    assert_eq!(sh("hostname"), "configured\n");
    assert_eq!(
        cluster.field("configured", "{.status.qosClass}"),
        "Burstable",
        "its init container has no limits"
    );
    let uid = cluster.field("configured", "{.metadata.uid}");
    let limits = run(
        std::process::Command::new("find").args([
            "/sys/fs/cgroup",
            "-path",
            &format!("*pod{uid}/*"),
            "(",
            "-name",
            "memory.limit_in_bytes",
            "-o",
            "-name",
            "memory.max",
            ")",
        ]),
        "",
    )
    .stdout;
    assert!(
        limits
            .lines()
            .any(|file| fs::read_to_string(file).is_ok_and(|limit| limit.trim() == (64 << 20).to_string())),
        "no cgroup of the pod is limited to 64 MiB: {limits}"
    );
}

#[test]
fn a_deleted_namespace_takes_its_pods_along() {
    let cluster = Cluster::start();
    cluster.kubectl(&["create", "namespace", "short"]).ok();
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: main, namespace: short}, spec: {terminationGracePeriodSeconds: 1, containers: [{name: main, image: 'localhost/busybox:1', command: [sleep, 12h]}]}}";
    cluster.create(pod);
    cluster
        .kubectl(&[
            "wait",
            "--for=condition=Ready",
            "pod/main",
            "-n",
            "short",
            "--timeout=60s",
        ])
        .ok();
    // What has a finalizer holds the namespace until it has none, and is told.
    cluster.create(
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: held, namespace: short, finalizers: [example.com/hold]}}",
    );
    cluster.kubectl(&["delete", "namespace", "short", "--wait=false"]).ok();
    let conditions = "jsonpath={range .status.conditions[?(@.status==\"True\")]}{.reason}: {.message}\n{end}";
    eventually("only the ConfigMap is left", || {
        let told = cluster.kubectl(&["get", "namespace", "short", "-o", conditions]).ok();
        let expected = "SomeResourcesRemain: Some resources are remaining: configmaps. has 1 resource instances\n\
             SomeFinalizersRemain: Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances\n";
        (told == expected).then_some(())
    });
    let free = [
        "patch",
        "cm",
        "held",
        "-n",
        "short",
        "-p",
        "{\"metadata\": {\"finalizers\": null}}",
    ];
    cluster.kubectl(&free).ok();
    cluster
        .kubectl(&["wait", "--for=delete", "namespace/short", "--timeout=60s"])
        .ok();
    let gone = cluster.kubectl(&["get", "pods", "-n", "short", "-o", "name"]).ok();
    assert_eq!(gone, "");
    assert!(
        cluster
            .kubectl_with(&["create", "-f", "-"], pod)
            .fails()
            .contains("namespaces \"short\" not found")
    );
}
