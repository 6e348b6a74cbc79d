//! Volumes on real containers: what is in them, how they change, and who may write how much.

use std::process::Command;
use std::time::Duration;

use tests::{Cluster, Mount, Options, eventually, promised, run, sleeper as pod, variant};

fn cluster() -> Cluster {
    Cluster::with(Options {
        images: &["busybox"],
        ..Options::default()
    })
}

#[track_caller]
fn replace(cluster: &Cluster, manifest: &str) {
    cluster.kubectl_with(&["replace", "-f", "-"], manifest).ok();
}

/// Waits until a file in a container says something.
#[track_caller]
fn until_file(cluster: &Cluster, pod: &str, file: &str, expected: &str) {
    let script = format!(
        "i=0; while [ \"$(cat {file} 2>/dev/null)\" != '{expected}' ]; do i=$((i+1)); [ $i = 3000 ] && exit 1; sleep 0.02; done"
    );
    let output = cluster.kubectl(&["exec", pod, "--", "sh", "-c", &script]);
    assert_eq!(output.code, 0, "{file} of {pod} never says {expected:?}: {output}");
}

/// The seconds that the kernel has run, which containers read too.
fn uptime() -> f64 {
    let text = std::fs::read_to_string("/proc/uptime").expect("what the kernel says");
    let seconds = text.split(' ').next().and_then(|seconds| seconds.parse().ok());
    seconds.expect("seconds")
}

/// A pod that logs when each of its volumes' files has changed: the uptime, two keys of a ConfigMap that belong together, a Secret, a
/// projection of the first, a label, and what comes late.
fn watcher() -> String {
    let looks = "last=; while :; do two=$(cd /two/..data && a=$(cat a) && b=$(cat b) && echo $a=$b); \
                 now=\"$two $(cat /secret/s) $(cat /all/a) $(cat /down/color) $(cat /later/x 2>/dev/null)\"; \
                 [ \"$now\" = \"$last\" ] || { read up rest < /proc/uptime; echo \"$up $now\"; last=\"$now\"; }; sleep 0.02; done";
    pod(
        "watches",
        "{name: two, mountPath: /two}, {name: secret, mountPath: /secret}, {name: all, mountPath: /all}, {name: down, mountPath: /down}, {name: later, mountPath: /later}",
        "{name: two, configMap: {name: two}}, {name: secret, secret: {secretName: seen}}, {name: all, projected: {sources: [{configMap: {name: two}}]}}, {name: down, downwardAPI: {items: [{path: color, fieldRef: {fieldPath: \"metadata.labels['color']\"}}]}}, {name: later, configMap: {name: late, optional: true}}",
        "",
    )
    .replace("[sleep, '1000']", &format!("[sh, -c, '{looks}']"))
}

/// Each kind of data is in the files of a running container two seconds after it was written at the latest, and never by halves.
fn data_comes_soon_and_whole(cluster: &Cluster) {
    let two =
        |n: u32| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: two}}\ndata: {{a: a{n}, b: a{n}}}\n---\n");
    let secret = |text: &str| {
        format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: seen}}\nstringData: {{s: {text}}}\n---\n")
    };
    cluster.create(&(two(0) + &secret("hidden") + &watcher()));
    cluster.wait_ready("watches");
    let log = || cluster.kubectl(&["logs", "watches"]).ok();
    let soon = |what: &str, column: usize, expected: &str| {
        let written = uptime();
        let seen = eventually(&format!("{what} is {expected:?} in the container"), || {
            let log = log();
            let mut lines = log.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            let line = lines.find(|line| line.get(column).copied() == Some(expected))?;
            line[0].parse::<f64>().ok()
        });
        let took = seen - written;
        eprintln!("{what}: {took:.2} s after kubectl had ended");
        let most = promised(Duration::from_secs(2)).as_secs_f64();
        assert!(took < most, "{what} took {took} s and not {most} s at most");
    };
    soon("the pod", 1, "a0=a0");
    replace(cluster, &two(1));
    soon("a ConfigMap", 1, "a1=a1");
    soon("its projection", 3, "a1");
    replace(cluster, &secret("changed"));
    soon("a Secret", 2, "changed");
    let color = ["label", "pod", "watches", "color=blue", "--overwrite"];
    cluster.kubectl(&color).ok();
    soon("a label", 4, "blue");
    cluster.create("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: late}\ndata: {x: came}\n");
    soon("what was not there", 5, "came");

    // One after the other, faster than any reader.
    let many: String = (2..=21).map(two).collect();
    replace(cluster, &many);
    soon("the last of many", 1, "a21=a21");
    let log = log();
    let versions: Vec<(&str, &str)> = log
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1)?.split_once('='))
        .collect();
    assert!(
        versions.len() > 2 && versions.iter().all(|(a, b)| a == b),
        "never a key of one version and one of another:\n{log}"
    );
    cluster.kubectl(&["delete", "pod", "watches", "--timeout=30s"]).ok();
}

#[test]
fn data_reaches_running_containers() {
    let mut cluster = cluster();
    cluster.create("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: map}\ndata: {k: one, gone: soon}\n");
    cluster.create("apiVersion: v1\nkind: Secret\nmetadata: {name: secret}\nstringData: {s: hidden}\n");
    cluster.create("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: fixed}\nimmutable: true\ndata: {k: fixed}\n");
    cluster.create(&pod(
        "all",
        "{name: map, mountPath: /map}, {name: map, mountPath: /sub, subPath: k}, {name: secret, mountPath: /secret}, {name: down, mountPath: /down}, {name: all, mountPath: /all}, {name: later, mountPath: /later}, {name: fixed, mountPath: /fixed}, {name: none, mountPath: /none}, {name: some, mountPath: /some}",
        "{name: map, configMap: {name: map, defaultMode: 0440}}, {name: secret, secret: {secretName: secret, items: [{key: s, path: deep/s, mode: 0400}]}}, {name: down, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}, {path: cpu, resourceFieldRef: {containerName: c, resource: limits.memory, divisor: 1Mi}}]}}, {name: all, projected: {sources: [{configMap: {name: map, items: [{key: k, path: m}]}}, {secret: {name: secret}}, {downwardAPI: {items: [{path: color, fieldRef: {fieldPath: \"metadata.labels['color']\"}}]}}, {serviceAccountToken: {path: token, audience: vault, expirationSeconds: 600}}]}}, {name: later, configMap: {name: later, optional: true}}, {name: fixed, configMap: {name: fixed}}, {name: none, secret: {secretName: none, optional: true, items: [{key: s, path: s}]}}, {name: some, projected: {defaultMode: 0400, sources: [{secret: {name: none, optional: true}}, {configMap: {name: none, optional: true}}, {secret: {name: secret, optional: true, items: [{key: s, path: s, mode: 0440}, {key: missing, path: missing}]}}, {configMap: {name: map, items: [{key: k, path: k}]}}]}}",
        "",
    ));
    cluster.wait_ready("all");
    assert_eq!(
        cluster.exec(
            "all",
            "cat /map/k /sub /secret/deep/s /all/m /all/s /all/color /fixed/k; ls /later /none | grep -v :; ls /some"
        ),
        "oneonehiddenonehiddenredfixed\nk\ns\n"
    );
    assert_eq!(
        cluster.exec("all", "stat -L -c %a /map/k /secret/deep/s /all/token /some/k /some/s"),
        "440\n400\n644\n400\n440\n"
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

    data_comes_soon_and_whole(&cluster);
    replace(
        &cluster,
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: map}\ndata: {k: two, new: here}\n",
    );
    until_file(&cluster, "all", "/map/k", "two");
    assert_eq!(
        cluster.exec(
            "all",
            "cat /map/new; ls -A /map | grep -v '^\\.\\.' | tr '\\n' ' '; cat /sub"
        ),
        "herek new one",
        "all at once, and a subPath stays as it was"
    );
    until_file(&cluster, "all", "/all/m", "two");
    replace(
        &cluster,
        "apiVersion: v1\nkind: Secret\nmetadata: {name: secret}\nstringData: {s: changed}\n",
    );
    until_file(&cluster, "all", "/secret/deep/s", "changed");
    cluster
        .kubectl(&["label", "pod", "all", "color=blue", "--overwrite"])
        .ok();
    until_file(&cluster, "all", "/down/labels", "color=\"blue\"");
    until_file(&cluster, "all", "/all/color", "blue");
    cluster.create("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: later}\ndata: {x: came}\n");
    until_file(&cluster, "all", "/later/x", "came");

    // What it refers to goes: the files stay, and it is said; it comes back with other words.
    cluster.kubectl(&["delete", "configmap", "map"]).ok();
    cluster.until_warning(
        "all",
        "FailedMount",
        "MountVolume.SetUp failed for volume \"map\" : configmap \"map\" not found",
    );
    assert_eq!(cluster.exec("all", "cat /map/k"), "two");
    cluster.create("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: map}\ndata: {k: three}\n");
    until_file(&cluster, "all", "/map/k", "three");

    // A new server follows the objects of the pods that it finds.
    cluster.kill_server();
    cluster.start_server();
    replace(
        &cluster,
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: map}\ndata: {k: four}\n",
    );
    until_file(&cluster, "all", "/map/k", "four");
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
    let _shared = Mount::new(&["--bind", &at("shared")], at("shared"));
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
    let below = Mount::memory("mode=1777", at("shared/below"));
    std::fs::create_dir(at("shared/both")).expect("a directory");
    let host = format!("{{name: host, hostPath: {{path: {}}}}}", at("shared"));
    let deep = "{name: host, mountPath: /ro, readOnly: true}, {name: host, mountPath: /deep, readOnly: true, recursiveReadOnly: Enabled}, {name: host, mountPath: /both, mountPropagation: Bidirectional}, {name: host, mountPath: /own}, {name: host, mountPath: /from, mountPropagation: HostToContainer}";
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
        "mount -t tmpfs inner /both/both && echo inner > /both/both/f; for at in own from; do mkdir /own/of-$at; mount -t tmpfs inner /$at/of-$at && echo inner > /$at/of-$at/f; done",
    );
    assert_eq!(
        cluster.exec("reaches", "cat /from/both/f; ls /own/both /deep/both"),
        "inner\n/deep/both:\n\n/own/both:\n"
    );
    for mounted in ["of-own", "of-from"] {
        let seen = std::fs::read_dir(at(&format!("shared/{mounted}")))
            .expect("a directory")
            .count();
        assert_eq!(seen, 0, "{mounted} is the container's alone");
    }
    assert_eq!(
        std::fs::read_to_string(at("shared/both/f")).ok().as_deref(),
        Some("inner\n")
    );
    drop(Mount::there(at("shared/both")));
    cluster.kubectl(&["delete", "pod", "reaches", "--timeout=30s"]).ok();
    drop(below);

    // What is mounted on the node later is seen where the pod asked for it.
    let later = Mount::memory("mode=755", at("shared/later"));
    std::fs::write(at("shared/later/f"), "later").expect("a file");
    assert_eq!(cluster.exec("all", "cat /rw/later/f"), "later");
    assert_eq!(cluster.exec("all", "ls /ro/later"), "", "and only there");
    assert_eq!(
        cluster.field(
            "all",
            "{.status.containerStatuses[0].volumeMounts[?(@.mountPath=='/ro')].recursiveReadOnly}"
        ),
        "Enabled",
        "if possible, and it is"
    );
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
    cluster.until_warning(
        "missing",
        "ErrImageNeverPull",
        "Container image \"localhost/none:1\" is not present with pull policy of Never",
    );
    let archive = variant(cluster.dir(), "busybox", "localhost/none:1", |_| {});
    cluster.podium(&["image", "import", &archive.to_string_lossy()]).ok();
    cluster.wait_ready("missing");
    assert_eq!(cluster.exec("missing", "ls -d /image/etc"), "/image/etc\n");
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
        cluster.until_warning(name, "Evicted", message.trim_end());
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
