//! Volumes that cannot be had: what is said of them, and that mending the cause is enough; and volumes that others would like to be a way
//! to what is not theirs.

use tests::{Cluster, Options, eventually, run, sleeper as pod};

fn cluster() -> Cluster {
    Cluster::with(Options {
        images: &["busybox"],
        ..Options::default()
    })
}

#[test]
fn a_volume_that_cannot_be_had_is_waited_for() {
    let cluster = cluster();
    let scratch = tempfile::tempdir().expect("a directory");
    let at = |name: &str| scratch.path().join(name).display().to_string();
    cluster.create(&pod(
        "missing",
        "{name: v, mountPath: /v}",
        "{name: v, configMap: {name: missing}}",
        "",
    ));
    cluster.create(&pod(
        "key",
        "{name: v, mountPath: /v}",
        "{name: v, configMap: {name: other, items: [{key: k, path: p}]}}",
        "",
    ));
    cluster.create("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: other}\ndata: {x: other}\n");
    cluster.create(&pod("env", "", "", "").replace(
        "    command:",
        "    env: [{name: X, valueFrom: {secretKeyRef: {name: late, key: x}}}]\n    command:",
    ));
    let types = [
        ("Directory", "a directory"),
        ("File", "a file"),
        ("Socket", "a socket file"),
        ("CharDevice", "a character device"),
        ("BlockDevice", "a block device"),
    ];
    for (kind, _) in types {
        let volume = format!("{{name: v, hostPath: {{path: {}, type: {kind}}}}}", at(kind));
        cluster.create(&pod(&kind.to_lowercase(), "{name: v, mountPath: /v}", &volume, ""));
    }
    cluster.until_warning(
        "missing",
        "FailedMount",
        "MountVolume.SetUp failed for volume \"v\" : configmap \"missing\" not found",
    );
    cluster.until_warning(
        "key",
        "FailedMount",
        "MountVolume.SetUp failed for volume \"v\" : references non-existent config key: k",
    );
    for (kind, what) in types {
        let words = format!(
            "MountVolume.SetUp failed for volume \"v\" : hostPath type check failed: {} is not {what}",
            at(kind)
        );
        cluster.until_warning(&kind.to_lowercase(), "FailedMount", &words);
    }
    cluster.until_warning("env", "Failed", "Error: secret \"late\" not found");
    // There is no NFS client here: mount(8) says so, and the pod that asks is the only one that waits.
    let nfs = "{name: v, nfs: {server: 127.0.0.1, path: /exports, readOnly: true}}";
    cluster.create(&pod("nfs", "{name: v, mountPath: /v}", nfs, ""));
    cluster.until_warning(
        "nfs",
        "FailedMount",
        "MountVolume.SetUp failed for volume \"v\" : mount failed: exit status 32",
    );
    let said = cluster.events("nfs");
    for words in [
        "Mounting command: mount",
        "Mounting arguments: -t nfs -o ro 127.0.0.1:/exports ",
        "Output: mount: ",
    ] {
        assert!(said.contains(words), "{words} in {said}");
    }

    // Mended, each runs without being made anew.
    cluster.create("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: missing}\ndata: {k: v}\n");
    cluster.create("apiVersion: v1\nkind: Secret\nmetadata: {name: late}\nstringData: {x: here}\n");
    cluster
        .kubectl(&["patch", "configmap", "other", "-p", "{\"data\": {\"k\": \"v\"}}"])
        .ok();
    std::fs::create_dir(at("Directory")).expect("a directory");
    std::fs::write(at("File"), "text").expect("a file");
    let _socket = std::os::unix::net::UnixListener::bind(at("Socket")).expect("a socket");
    // The devices of /dev/null and of no disk at all.
    for (at, kind, numbers) in [
        (at("CharDevice"), "c", ["1", "3"]),
        (at("BlockDevice"), "b", ["7", "77"]),
    ] {
        run(std::process::Command::new("mknod").args([&at, kind]).args(numbers), "").ok();
    }
    let uids = |pods: &[&str]| {
        pods.iter()
            .map(|pod| cluster.field(pod, "{.metadata.uid}"))
            .collect::<Vec<_>>()
    };
    let waited = [
        "missing",
        "key",
        "env",
        "directory",
        "file",
        "socket",
        "chardevice",
        "blockdevice",
    ];
    let before = uids(&waited);
    for pod in waited {
        cluster.wait_ready(pod);
    }
    assert_eq!(uids(&waited), before, "the same pods that waited");
    assert_eq!(
        cluster.exec("chardevice", "echo x > /v; stat -c '%F %t %T' /v"),
        "character special file 1 3\n"
    );
    assert_eq!(
        cluster.exec("blockdevice", "stat -c '%F %t %T' /v"),
        "block special file 7 4d\n"
    );
    assert_eq!(cluster.exec("file", "cat /v"), "text");

    let volumes = format!(
        "{{name: d, hostPath: {{path: {}, type: DirectoryOrCreate}}}}, {{name: f, hostPath: {{path: {}, type: FileOrCreate}}}}, {{name: c, hostPath: {{path: /dev/null, type: CharDevice}}}}",
        at("made/dir"),
        at("made-file"),
    );
    cluster.create(&pod(
        "makes",
        "{name: d, mountPath: /d}, {name: f, mountPath: /f}, {name: c, mountPath: /c}",
        &volumes,
        "",
    ));
    cluster.wait_ready("makes");
    cluster.exec("makes", "echo 1 > /d/x && echo 2 > /f && echo 3 > /c");
    assert_eq!(
        std::fs::read_to_string(at("made/dir/x")).expect("what the pod wrote"),
        "1\n"
    );
    assert_eq!(
        std::fs::read_to_string(at("made-file")).expect("what the pod wrote"),
        "2\n"
    );
    eventually("a pod with nothing to wait for is gone at once", || {
        (cluster
            .kubectl(&["delete", "pod", "nfs", "--ignore-not-found", "--timeout=20s"])
            .code
            == 0)
            .then_some(())
    });
}

#[test]
fn nothing_leads_out_of_a_volume() {
    let cluster = cluster();
    let scratch = tempfile::tempdir().expect("a directory");
    let host = scratch.path().join("host");
    std::fs::create_dir(&host).expect("a directory");
    std::fs::write(scratch.path().join("secret"), "the node's").expect("a file");
    let host = host.display().to_string();

    // A pod puts links into its volume, and another asks for what is behind them.
    let shared = format!("{{name: v, hostPath: {{path: {host}}}}}");
    cluster.create(&pod("puts", "{name: v, mountPath: /v}", &shared, ""));
    cluster.wait_ready("puts");
    cluster.exec("puts",
        "cd /v && ln -s ../secret out && ln -s / root && ln -s /etc absolute && mkdir real && ln -s real inside && echo mine > real/f",
    );
    for (name, part) in [
        ("out", "out"),
        ("root", "root/etc/passwd"),
        ("absolute", "absolute/hostname"),
        ("made", "root/made"),
    ] {
        cluster.create(&pod(
            &format!("leaves-{name}"),
            &format!("{{name: v, mountPath: /x, subPath: {part}}}"),
            &shared,
            "",
        ));
        cluster.until_warning(
            &format!("leaves-{name}"),
            "Failed",
            "Error: failed to prepare subPath for volumeMount \"v\" of container \"c\"",
        );
    }
    assert!(!std::path::Path::new("/made").exists());
    cluster.create(&pod(
        "stays",
        "{name: v, mountPath: /x, subPath: inside/f}",
        &shared,
        "",
    ));
    cluster.wait_ready("stays");
    assert_eq!(cluster.exec("stays", "cat /x"), "mine\n");

    // subPathExpr is no way around.
    let expression = pod(
        "expression",
        "{name: v, mountPath: /x, subPathExpr: '$(WHERE)'}",
        &shared,
        "",
    )
    .replace(
        "    command:",
        "    env: [{name: WHERE, value: '../secret'}]\n    command:",
    );
    cluster.create(&expression);
    cluster.until_warning(
        "expression",
        "Failed",
        "Error: unable to provision SubPath `../secret`: must not contain '..'",
    );
    let cannot = [
        (
            "absolute",
            "value: /etc",
            "Error: error SubPath `/etc` must not be an absolute path",
        ),
        ("unknown", "value: '$(NOBODY)'", "Error: missing value for \"OTHER\""),
    ];
    for (name, value, words) in cannot {
        let expression = expression
            .replace("name: expression", &format!("name: {name}"))
            .replace("value: '../secret'", value);
        let expression = match name {
            "unknown" => expression.replace("$(WHERE)", "$(OTHER)"),
            _ => expression,
        };
        cluster.create(&expression);
        cluster.until_warning(name, "Failed", words);
        assert_eq!(
            cluster.field(name, "{.status.containerStatuses[0].state.waiting.reason}"),
            "CreateContainerConfigError"
        );
    }
    let good = pod(
        "named",
        "{name: v, mountPath: /x, subPathExpr: 'of/$(NAME)'}",
        &shared,
        "",
    )
    .replace(
        "    command:",
        "    env: [{name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]\n    command:",
    );
    cluster.create(&good);
    cluster.wait_ready("named");
    cluster.exec("named", "echo 1 > /x/f");
    assert_eq!(cluster.exec("puts", "cat /v/of/named/f"), "1\n");

    // What the API server refuses.
    let refused = |manifest: &str| cluster.kubectl_with(&["create", "-f", "-"], manifest).fails();
    let cases = [
        (
            pod(
                "a",
                "{name: v, mountPath: /x, subPath: ../up}",
                "{name: v, emptyDir: {}}",
                "",
            ),
            "spec.containers[0].volumeMounts.subPath: Invalid value: \"../up\": must not contain '..'",
        ),
        (
            pod(
                "a",
                "",
                &format!("{{name: v, hostPath: {{path: {host}/../secret}}}}"),
                "",
            ),
            "must not contain '..'",
        ),
        (
            pod(
                "a",
                "",
                "{name: v, configMap: {name: m, items: [{key: k, path: ../../x}]}}",
                "",
            ),
            "spec.volumes[0].configMap.items[0].path: Invalid value: \"../../x\": must not contain '..'",
        ),
        (
            pod(
                "a",
                "",
                "{name: v, downwardAPI: {items: [{path: /abs, fieldRef: {fieldPath: metadata.name}}]}}",
                "",
            ),
            "must be a relative path",
        ),
        (
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: m}, data: {'../up': x}}".to_owned(),
            "data[../up]: Invalid value: \"../up\"",
        ),
        (
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: m}, data: {'..data': x}}".to_owned(),
            "data[..data]: Invalid value: \"..data\"",
        ),
        (
            "{apiVersion: v1, kind: Secret, metadata: {name: m}, stringData: {'a/b': x}}".to_owned(),
            "data[a/b]: Invalid value: \"a/b\"",
        ),
    ];
    for (manifest, expected) in cases {
        let said = refused(&manifest);
        assert!(said.contains(expected), "{expected}\n{said}");
    }

    // A pod that ends takes along what is its own, and nothing of what it had mounted.
    cluster.kubectl(&["delete", "pod", "--all", "--timeout=60s"]).ok();
    assert_eq!(
        std::fs::read_to_string(format!("{host}/real/f")).expect("what pods wrote"),
        "mine\n"
    );
    let left = std::fs::read_dir(cluster.data_dir().join("kubelet/pods"))
        .expect("the pods' directories")
        .count();
    assert_eq!(left, 0);
}
