//! Volumes on real containers: what is in them, how they change, who may reach them, and what is said when they cannot be had.

use std::process::Command;
use std::time::{Duration, Instant};

use tests::{Cluster, Options, eventually, run, sleeper as pod, variant};

fn cluster() -> Cluster {
    Cluster::with(Options {
        images: &["busybox"],
        ..Options::default()
    })
}

/// A mount of the machine's, gone when dropped.
struct Mount(String);

impl Mount {
    fn new(args: &[&str], at: &str) -> Self {
        run(Command::new("mount").args(args), "").ok();
        Self(at.to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l", &self.0]).status();
    }
}

#[track_caller]
fn replace(cluster: &Cluster, manifest: &str) {
    cluster.kubectl_with(&["replace", "-f", "-"], manifest).ok();
}

/// Reads a file in a container until it says something, and gives how long that took since `since`.
#[track_caller]
fn until_file(cluster: &Cluster, pod: &str, file: &str, expected: &str, since: Instant) -> Duration {
    // One command in the container waits, so that no start of kubectl is measured.
    let script = format!(
        "i=0; while [ \"$(cat {file} 2>/dev/null)\" != '{expected}' ]; do i=$((i+1)); [ $i = 3000 ] && exit 1; sleep 0.02; done"
    );
    let output = cluster.kubectl(&["exec", pod, "--", "sh", "-c", &script]);
    assert_eq!(output.code, 0, "{file} of {pod} never says {expected:?}: {output}");
    since.elapsed()
}

#[test]
fn data_reaches_running_containers() {
    let mut cluster = cluster();
    cluster.create("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: map}\ndata: {k: one, gone: soon}\n");
    cluster.create("apiVersion: v1\nkind: Secret\nmetadata: {name: secret}\nstringData: {s: hidden}\n");
    cluster.create("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: fixed}\nimmutable: true\ndata: {k: fixed}\n");
    cluster.create(&pod(
        "all",
        "{name: map, mountPath: /map}, {name: map, mountPath: /sub, subPath: k}, {name: secret, mountPath: /secret}, {name: down, mountPath: /down}, {name: all, mountPath: /all}, {name: later, mountPath: /later}, {name: fixed, mountPath: /fixed}",
        "{name: map, configMap: {name: map, defaultMode: 0440}}, {name: secret, secret: {secretName: secret, items: [{key: s, path: deep/s, mode: 0400}]}}, {name: down, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}, {path: cpu, resourceFieldRef: {containerName: c, resource: limits.memory, divisor: 1Mi}}]}}, {name: all, projected: {sources: [{configMap: {name: map, items: [{key: k, path: m}]}}, {secret: {name: secret}}, {downwardAPI: {items: [{path: color, fieldRef: {fieldPath: \"metadata.labels['color']\"}}]}}, {serviceAccountToken: {path: token, audience: vault, expirationSeconds: 600}}]}}, {name: later, configMap: {name: later, optional: true}}, {name: fixed, configMap: {name: fixed}}",
        "",
    ));
    cluster.wait_ready("all");
    assert_eq!(
        cluster.exec(
            "all",
            "cat /map/k /sub /secret/deep/s /all/m /all/s /all/color /fixed/k; ls /later"
        ),
        "oneonehiddenonehiddenredfixed"
    );
    assert_eq!(
        cluster.exec("all", "stat -L -c %a /map/k /secret/deep/s /all/token"),
        "440\n400\n644\n"
    );
    assert_ne!(
        cluster.kubectl(&["exec", "all", "--", "touch", "/map/x"]).code,
        0,
        "volumes of data are read-only"
    );
    // The token is one, for whom it was asked for.
    let token = cluster.exec(
        "all",
        "cut -d. -f2 /all/token | tr '_-' '/+' | sed 's/$/==/' | base64 -d 2>/dev/null; true",
    );
    for part in [
        "\"aud\":[\"vault\"]",
        "system:serviceaccount:default:default",
        "\"pod\":{",
    ] {
        assert!(token.contains(part), "{part} in {token}");
    }

    let begin = Instant::now();
    replace(
        &cluster,
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: map}\ndata: {k: two, new: here}\n",
    );
    let mut took = vec![until_file(&cluster, "all", "/map/k", "two", begin)];
    assert_eq!(
        cluster.exec(
            "all",
            "cat /map/new; ls -A /map | grep -v '^\\.\\.' | tr '\\n' ' '; cat /sub"
        ),
        "herek new one",
        "all at once, and a subPath stays as it was"
    );
    took.push(until_file(&cluster, "all", "/all/m", "two", begin));
    let begin = Instant::now();
    replace(
        &cluster,
        "apiVersion: v1\nkind: Secret\nmetadata: {name: secret}\nstringData: {s: changed}\n",
    );
    took.push(until_file(&cluster, "all", "/secret/deep/s", "changed", begin));
    let begin = Instant::now();
    cluster
        .kubectl(&["label", "pod", "all", "color=blue", "--overwrite"])
        .ok();
    took.push(until_file(&cluster, "all", "/down/labels", "color=\"blue\"", begin));
    took.push(until_file(&cluster, "all", "/all/color", "blue", begin));
    let begin = Instant::now();
    cluster.create("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: later}\ndata: {x: came}\n");
    took.push(until_file(&cluster, "all", "/later/x", "came", begin));
    eprintln!("from before kubectl to the container: {took:?}");

    // What it refers to goes: the files stay, and it is said; it comes back with other words.
    cluster.kubectl(&["delete", "configmap", "map"]).ok();
    cluster.until_event(
        "all",
        "MountVolume.SetUp failed for volume \"map\" : configmap \"map\" not found",
    );
    assert_eq!(cluster.exec("all", "cat /map/k"), "two");
    cluster.create("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: map}\ndata: {k: three}\n");
    until_file(&cluster, "all", "/map/k", "three", Instant::now());

    // A new server follows the objects of the pods that it finds.
    cluster.kill_server();
    cluster.start_server();
    replace(
        &cluster,
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: map}\ndata: {k: four}\n",
    );
    until_file(&cluster, "all", "/map/k", "four", Instant::now());
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
    cluster.until_event(
        "missing",
        "MountVolume.SetUp failed for volume \"v\" : configmap \"missing\" not found",
    );
    cluster.until_event(
        "key",
        "MountVolume.SetUp failed for volume \"v\" : references non-existent config key: k",
    );
    for (kind, what) in types {
        let words = format!(
            "MountVolume.SetUp failed for volume \"v\" : hostPath type check failed: {} is not {what}",
            at(kind)
        );
        cluster.until_event(&kind.to_lowercase(), &words);
    }
    cluster.until_event("env", "Error: secret \"late\" not found");
    // There is no NFS client here: mount(8) says so, and the pod that asks is the only one that waits.
    let nfs = "{name: v, nfs: {server: 127.0.0.1, path: /exports, readOnly: true}}";
    cluster.create(&pod("nfs", "{name: v, mountPath: /v}", nfs, ""));
    cluster.until_event(
        "nfs",
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
    for pod in ["missing", "key", "env", "directory", "file", "socket"] {
        cluster.wait_ready(pod);
    }
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
    eventually("pods with nothing to wait for are gone at once", || {
        (cluster
            .kubectl(&[
                "delete",
                "pod",
                "chardevice",
                "blockdevice",
                "--ignore-not-found",
                "--timeout=20s",
            ])
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
        cluster.until_event(
            &format!("leaves-{name}"),
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
    cluster.until_event(
        "expression",
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
        cluster.until_event(name, words);
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

#[test]
fn kinds_of_directories() {
    let mut cluster = Cluster::prepare(Options {
        images: &["busybox"],
        ..Options::default()
    });
    variant(
        &cluster.data_dir().join("images"),
        "busybox",
        "localhost/declares:1",
        |config| {
            config["Volumes"] = serde_json::json!({"/etc": {}, "/fresh/dir": {}, "/disk": {}});
        },
    );
    cluster.start_server();
    let scratch = tempfile::tempdir().expect("a directory");
    let at = |name: &str| scratch.path().join(name).display().to_string();
    std::fs::create_dir(at("shared")).expect("a directory");
    let _shared = Mount::new(&["--bind", &at("shared"), &at("shared")], &at("shared"));
    run(Command::new("mount").args(["--make-shared", &at("shared")]), "").ok();
    let volumes = format!(
        "{{name: disk, emptyDir: {{}}}}, {{name: memory, emptyDir: {{medium: Memory, sizeLimit: 2Mi}}}}, {{name: host, hostPath: {{path: {}}}}}, {{name: image, image: {{reference: 'localhost/busybox:1', pullPolicy: Never}}}}",
        at("shared")
    );
    let mounts = "{name: disk, mountPath: /disk}, {name: memory, mountPath: /memory}, {name: host, mountPath: /ro, readOnly: true, recursiveReadOnly: IfPossible}, {name: host, mountPath: /rw, mountPropagation: HostToContainer}, {name: image, mountPath: /image}, {name: image, mountPath: /etc-of-image, subPath: etc}";
    let more = "  securityContext: {fsGroup: 77, runAsUser: 5, runAsGroup: 6}\n";
    cluster.create(&pod("all", mounts, &volumes, more));
    cluster.wait_ready("all");
    let said = cluster.exec(
        "all",
        "id -G; stat -c '%a %g' /disk /memory; echo 1 > /disk/f; stat -c '%u %g' /disk/f",
    );
    assert_eq!(said, "6 77\n2777 77\n2777 77\n5 77\n");
    let full = cluster.exec(
        "all",
        "head -c 3000000 /dev/zero > /memory/f || stat -c %s /memory/f; rm /memory/f",
    );
    assert!(full.trim().parse::<u64>().is_ok_and(|size| size <= 2 << 20), "{full}");
    std::fs::write(at("shared/f"), "from the node").expect("a file");
    assert_eq!(cluster.exec("all", "cat /ro/f /rw/f"), "from the nodefrom the node");
    let refused = cluster.kubectl(&["exec", "all", "--", "touch", "/ro/x"]);
    assert!(refused.stderr.contains("Read-only file system"), "{refused}");
    assert_eq!(
        cluster.exec("all", "ls /image/usr/bin/busybox; grep -c root /etc-of-image/passwd"),
        "/image/usr/bin/busybox\n1\n"
    );
    let refused = cluster.kubectl(&["exec", "all", "--", "touch", "/image/x"]);
    assert!(refused.stderr.contains("Read-only file system"), "{refused}");
    let refused = cluster.kubectl(&["exec", "all", "--", "/image/usr/bin/busybox", "true"]);
    assert!(refused.stderr.to_lowercase().contains("permission denied"), "{refused}");

    // What is mounted below a read-only volume is writable unless it was asked for; what a container mounts reaches the node when that was.
    std::fs::create_dir_all(at("shared/below")).expect("a directory");
    let below = Mount::new(
        &["-t", "tmpfs", "-o", "mode=1777", "below", &at("shared/below")],
        &at("shared/below"),
    );
    std::fs::create_dir(at("shared/both")).expect("a directory");
    let host = format!("{{name: host, hostPath: {{path: {}}}}}", at("shared"));
    let deep = "{name: host, mountPath: /ro, readOnly: true}, {name: host, mountPath: /deep, readOnly: true, recursiveReadOnly: Enabled}, {name: host, mountPath: /both, mountPropagation: Bidirectional}";
    let reaching = pod("reaches", deep, &host, "");
    let said = cluster.kubectl_with(&["create", "-f", "-"], &reaching).fails();
    assert!(
        said.contains("volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers"),
        "{said}"
    );
    cluster.create(&reaching.replace("    command:", "    securityContext: {privileged: true}\n    command:"));
    cluster.wait_ready("reaches");
    cluster.exec("reaches", "touch /ro/below/f");
    for path in ["/ro/f", "/deep/f", "/deep/below/f"] {
        let refused = cluster.kubectl(&["exec", "reaches", "--", "touch", path]);
        assert!(refused.stderr.contains("Read-only file system"), "{path}: {refused}");
    }
    let modes = "{.status.containerStatuses[0].volumeMounts[*].recursiveReadOnly}";
    assert_eq!(cluster.field("reaches", modes), "Disabled Enabled Disabled");
    cluster.exec(
        "reaches",
        "mount -t tmpfs inner /both/both && echo inner > /both/both/f",
    );
    assert_eq!(
        std::fs::read_to_string(at("shared/both/f")).ok().as_deref(),
        Some("inner\n")
    );
    drop(Mount(at("shared/both")));
    cluster.kubectl(&["delete", "pod", "reaches", "--timeout=30s"]).ok();
    drop(below);

    // What is mounted on the node later is seen where the pod asked for it.
    std::fs::create_dir(at("shared/later")).expect("a directory");
    let later = Mount::new(&["-t", "tmpfs", "later", &at("shared/later")], &at("shared/later"));
    std::fs::write(at("shared/later/f"), "later").expect("a file");
    assert_eq!(cluster.exec("all", "cat /rw/later/f"), "later");
    drop(later);

    // What an image declares is the container's own, with what the image has there, unless the pod has something there itself.
    let declares = |name: &str, more: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{{more}terminationGracePeriodSeconds: 0, volumes: [{{name: disk, emptyDir: {{}}}}], \
             containers: [{{name: main, image: 'localhost/declares:1', command: [sh, -c, 'until [ -e /fresh/dir/end ]; do sleep 0.1; done'], \
             securityContext: {{readOnlyRootFilesystem: true}}, volumeMounts: [{{name: disk, mountPath: /disk}}]}}]}}}}\n---\n"
        )
    };
    let kept = || -> Vec<_> {
        let containers = std::fs::read_dir(cluster.data_dir().join("containers")).expect("containers");
        let volumes =
            containers.flat_map(|container| std::fs::read_dir(container.expect("one").path().join("volumes")));
        volumes.flatten().collect()
    };
    cluster.create(&(declares("declares", "") + &declares("of-its-own", "hostUsers: false, ")));
    for name in ["declares", "of-its-own"] {
        cluster.wait_ready(name);
        assert_eq!(
            cluster.exec(
                name,
                "grep -c ^root /etc/passwd; grep -c $(hostname) /etc/hosts; stat -c '%a %u %g' /fresh/dir /etc/passwd; touch /etc/x /fresh/dir/x /disk/x"
            ),
            "1\n1\n755 0 0\n644 0 0\n"
        );
        let refused = cluster.kubectl(&["exec", name, "--", "touch", "/fresh/x"]);
        assert!(refused.stderr.contains("Read-only file system"), "{refused}");
    }
    assert_eq!(kept().len(), 4, "two of each");
    let _ = cluster.kubectl(&["exec", "declares", "--", "touch", "/fresh/dir/end"]);
    cluster.until(
        "declares",
        "{.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}",
        "1 true",
    );
    assert_eq!(
        cluster
            .exec("declares", "ls -A /fresh/dir; ls /etc | grep ^x; ls /disk")
            .trim(),
        "x",
        "only what the pod's volume keeps"
    );
    cluster
        .kubectl(&["delete", "pod", "declares", "of-its-own", "--timeout=30s"])
        .ok();
    eventually("they go with their containers", || kept().is_empty().then_some(()));

    let missing = "{name: image, image: {reference: 'localhost/none:1', pullPolicy: Never}}";
    cluster.create(&pod("missing", "{name: image, mountPath: /image}", missing, ""));
    cluster.until_event(
        "missing",
        "Container image \"localhost/none:1\" is not present with pull policy of Never",
    );
}

#[test]
fn pods_that_write_too_much_are_evicted() {
    let cluster = cluster();
    let container = |name: &str, to: &str, limit: &str, mounts: &str| {
        format!(
            "  - {{name: {name}, image: 'localhost/busybox:1', command: [sh, -c, 'head -c 3000000 /dev/zero > {to}; sleep 1000'], resources: {{limits: {{ephemeral-storage: {limit}}}}}, volumeMounts: [{mounts}]}}\n"
        )
    };
    let make = |name: &str, containers: &str| {
        cluster.create(&format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  volumes: [{{name: v, emptyDir: {{}}}}]\n  containers:\n{containers}"));
    };
    make(
        "layer",
        &(container("c", "/f", "1Mi", "") + &container("d", "/dev/null", "50Mi", "")),
    );
    make("volume", &container("c", "/v/f", "1Mi", "{name: v, mountPath: /v}"));
    make("fits", &container("c", "/f", "50Mi", ""));
    let ended = |name: &str, message: &str| {
        eventually("evicted", || {
            (cluster.field(name, "{.status.phase} {.status.reason}") == "Failed Evicted").then_some(())
        });
        assert_eq!(cluster.field(name, "{.status.message}"), message);
    };
    ended(
        "layer",
        "Container c exceeded its local ephemeral storage limit \"1Mi\". ",
    );
    ended(
        "volume",
        "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ",
    );
    assert_eq!(cluster.field("fits", "{.status.phase}"), "Running");
}
