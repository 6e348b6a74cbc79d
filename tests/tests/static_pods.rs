//! Pods from files and from a web server, which the node runs by itself, and what the API shows of them.

use std::fs;
use std::path::Path;
use std::process::Child;

use tests::{Cluster, NODE_IP, Options, eventually};

fn manifest(name: &str, says: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{from: file}}}}\nspec:\n  hostNetwork: true\n  terminationGracePeriodSeconds: 1\n  containers:\n  - {{name: c, image: 'localhost/busybox:1', imagePullPolicy: Never, command: [sh, -c, 'echo {says}; sleep 1000']}}\n"
    )
}

fn cluster(directory: &Path, more: &[&str]) -> Cluster {
    let mut flags = vec!["--pod-manifest-path".to_owned(), directory.display().to_string()];
    flags.extend(more.iter().map(ToString::to_string));
    Cluster::with(Options {
        images: &["busybox"],
        flags,
        ..Options::default()
    })
}

#[track_caller]
fn until_log(cluster: &Cluster, pod: &str, log: &str) {
    eventually(&format!("{pod} says {log:?}"), || {
        (cluster.kubectl(&["logs", pod]).stdout == log).then_some(())
    });
}

#[track_caller]
fn until_gone(cluster: &Cluster, pod: &str) {
    eventually(&format!("{pod} is gone"), || {
        (cluster.kubectl(&["get", "pod", pod]).code != 0).then_some(())
    });
}

#[test]
fn files_make_pods_and_mirrors_show_them() {
    let scratch = tempfile::tempdir().expect("a directory");
    // It comes later, as on a machine where nobody made it.
    let directory = scratch.path().join("etc/manifests");
    let mut cluster = cluster(&directory, &[]);
    fs::create_dir_all(&directory).expect("the manifests' directory");
    let put = |name: &str, text: &str| fs::write(directory.join(name), text).expect("a manifest");
    put("web.yaml", &manifest("web", "one"));
    put(".hidden.yaml", &manifest("hidden", "no"));
    put("broken.yaml", "kind: Pod\nspec: [");
    put(
        "two.yaml",
        &format!("{}---\n{}", manifest("first", "1"), manifest("second", "2")),
    );
    let json = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "json"}, "spec": {"hostNetwork": true, "containers":
        [{"name": "c", "image": "localhost/busybox:1", "imagePullPolicy": "Never", "command": ["sleep", "1000"]}]}}"#;
    put("j.json", json);
    put(
        "refers.yaml",
        &manifest("refers", "x").replace("  hostNetwork", "  serviceAccountName: x\n  hostNetwork"),
    );
    for pod in ["web-node", "first-node", "second-node", "json-node"] {
        eventually("the mirror is there", || {
            (cluster.kubectl(&["get", "pod", pod]).code == 0).then_some(())
        });
        cluster.wait_ready(pod);
    }
    until_log(&cluster, "web-node", "one\n");
    assert_eq!(cluster.kubectl(&["exec", "web-node", "--", "echo", "in"]).ok(), "in\n");

    // What a mirror says of itself.
    let annotation = |pod: &str, name: &str| {
        cluster.field(
            pod,
            &format!("{{.metadata.annotations.kubernetes\\.io/config\\.{name}}}"),
        )
    };
    let hash = annotation("web-node", "hash");
    assert_eq!(hash.len(), 32, "{hash}");
    assert_eq!(annotation("web-node", "mirror"), hash);
    assert_eq!(annotation("web-node", "source"), "file");
    assert!(annotation("web-node", "seen").starts_with("20"));
    let owner =
        "{.metadata.ownerReferences[0].kind}/{.metadata.ownerReferences[0].name} {.spec.nodeName} {.status.qosClass}";
    assert_eq!(cluster.field("web-node", owner), "Node/node node BestEffort");
    let node = cluster
        .kubectl(&["get", "node", "node", "-o", "jsonpath={.metadata.uid}"])
        .ok();
    assert_eq!(cluster.field("web-node", "{.metadata.ownerReferences[0].uid}"), node);
    let described = cluster.kubectl(&["describe", "pod", "web-node"]).ok();
    assert!(
        described.contains("Container started"),
        "events are those of the static pod:\n{described}"
    );
    let events = eventually("the broken files are named", || {
        let events = cluster
            .kubectl(&["get", "events", "-A", "--field-selector", "reason=InvalidStaticPod"])
            .ok();
        (events.contains("broken.yaml") && events.contains("static pods may not reference serviceaccounts"))
            .then_some(events)
    });
    assert!(!events.contains("hidden"), "{events}");
    assert_ne!(cluster.kubectl(&["get", "pod", "hidden-node"]).code, 0);

    // A mirror that is deleted comes back, and its pod does not notice.
    let container = "{.status.containerStatuses[0].containerID}";
    let (uid, id) = (
        cluster.field("web-node", "{.metadata.uid}"),
        cluster.field("web-node", container),
    );
    // kubectl would wait for ever when another one is there before it looks.
    cluster.kubectl(&["delete", "pod", "web-node", "--wait=false"]).ok();
    eventually("another mirror of the same container", || {
        let output = cluster.kubectl(&[
            "get",
            "pod",
            "web-node",
            "-o",
            &format!("jsonpath={{.metadata.uid}} {container}"),
        ]);
        let other = output
            .stdout
            .split_once(' ')
            .is_some_and(|(other, same)| other != uid && same == id);
        other.then_some(())
    });
    cluster.wait_ready("web-node");

    // A changed manifest is another pod, and a broken change is none.
    put("web.yaml", &manifest("web", "two"));
    until_log(&cluster, "web-node", "two\n");
    let second = annotation("web-node", "hash");
    assert_ne!(second, hash);
    put("web.yaml", "spec: [");
    put("two.yaml", &manifest("first", "1"));
    until_gone(&cluster, "second-node");
    assert_eq!(annotation("web-node", "hash"), second);
    fs::remove_file(directory.join("web.yaml")).expect("remove a manifest");
    until_gone(&cluster, "web-node");
    let left = cluster.podium(&["ps"]).ok();
    assert!(!left.contains("web-node") && left.contains("first-node"), "{left}");

    // The containers outlive the server, which finds them again, and misses what went meanwhile.
    let id = cluster.field("first-node", container);
    cluster.kill_server();
    fs::remove_file(directory.join("j.json")).expect("remove a manifest");
    put("late.yaml", &manifest("late", "late"));
    cluster.start_server();
    until_gone(&cluster, "json-node");
    until_log(&cluster, "late-node", "late\n");
    cluster.wait_ready("first-node");
    assert_eq!(cluster.field("first-node", container), id);
    // What fails is started again.
    put("fails.yaml", &manifest("fails", "no").replace("sleep 1000", "exit 3"));
    eventually("the container is started again", || {
        (cluster
            .kubectl(&[
                "get",
                "pod",
                "fails-node",
                "-o",
                "jsonpath={.status.containerStatuses[0].restartCount}",
            ])
            .stdout
            == "2")
            .then_some(())
    });
}

#[test]
fn a_url_makes_pods() {
    let scratch = tempfile::tempdir().expect("a directory");
    let served = scratch.path().join("served");
    fs::create_dir(&served).expect("a directory to serve");
    fs::write(served.join("pods.yaml"), manifest("remote", "far")).expect("a manifest");
    let url = format!("http://{NODE_IP}:8089/pods.yaml");
    let cluster = cluster(
        &scratch.path().join("none"),
        &["--manifest-url", &url, "--http-check-frequency", "1"],
    );
    // Nobody answers yet, which stops nothing.
    let mut server = cluster.netns.command("python3");
    server.args(["-m", "http.server", "8089", "--directory"]).arg(&served);
    let mut server = server
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("a web server");
    until_log(&cluster, "remote-node", "far\n");
    assert_eq!(
        cluster.field("remote-node", "{.metadata.annotations.kubernetes\\.io/config\\.source}"),
        "http"
    );
    fs::write(served.join("pods.yaml"), manifest("remote", "near")).expect("a manifest");
    until_log(&cluster, "remote-node", "near\n");
    // What cannot be read leaves all as it is; what is no longer there goes.
    fs::remove_file(served.join("pods.yaml")).expect("remove a manifest");
    eventually("it is said", || {
        cluster.log().contains("could not read pods from").then_some(())
    });
    assert_eq!(cluster.kubectl(&["logs", "remote-node"]).ok(), "near\n");
    fs::write(served.join("pods.yaml"), manifest("other", "other")).expect("a manifest");
    until_gone(&cluster, "remote-node");
    until_log(&cluster, "other-node", "other\n");
    let _ = server.kill();
    let _ = server.wait();
}

/// A process that the test ends, come what may.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The process whose command line is this.
fn process(command: &[&str]) -> Option<i32> {
    let wanted: Vec<u8> = command
        .iter()
        .flat_map(|word| [word.as_bytes(), b"\0"].concat())
        .collect();
    let numbers = fs::read_dir("/proc").expect("processes").flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers
        .into_iter()
        .find(|number| fs::read(format!("/proc/{number}/cmdline")).is_ok_and(|line| line == wanted))
}

#[test]
fn pods_run_without_an_api_server() {
    let mut cluster = Cluster::prepare(Options {
        images: &["busybox"],
        flags: vec!["--disable-agent".into()],
        ..Options::default()
    });
    let scratch = tempfile::tempdir().expect("a directory");
    let manifests = scratch.path().join("manifests");
    fs::create_dir(&manifests).expect("a directory");
    // A number that no other process sleeps for.
    let seconds = format!("{}", 1_000_000 + std::process::id());
    let put = |name: &str| {
        let text = manifest(name, "x")
            .replace(
                "echo x; sleep 1000",
                &format!("echo {name} >> /notes/started; exec sleep {seconds}"),
            )
            .replace(
                "  containers:",
                &format!(
                    "  volumes: [{{name: notes, hostPath: {{path: {}}}}}]\n  containers:",
                    scratch.path().display()
                ),
            )
            .replace("command:", "volumeMounts: [{name: notes, mountPath: /notes}], command:");
        fs::write(manifests.join(format!("{name}.yaml")), text).expect("a manifest");
    };
    let started = || fs::read_to_string(scratch.path().join("started")).unwrap_or_default();
    let until_started = |expected: &str| {
        eventually(&format!("{expected:?} were started"), || {
            (started() == expected).then_some(())
        });
    };
    // The authority is made, and nobody answers any more.
    cluster.start_api();
    cluster.kill_server();
    put("first");
    let log = fs::File::create(cluster.dir().join("kubelet.log")).expect("a log");
    let mut kubelet = cluster.netns.command(env!("CARGO_BIN_EXE_kubelet-alone"));
    kubelet
        .arg(cluster.dir())
        .arg(&manifests)
        .arg(format!("https://{NODE_IP}:6443"))
        .stderr(log);
    let kubelet = Running(kubelet.spawn().expect("the kubelet starts"));
    until_started("first\n");
    let sleeps = eventually("its process runs", || process(&["sleep", &seconds]));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(sleeps), nix::sys::signal::Signal::SIGKILL)
        .expect("it is killed");
    until_started("first\nfirst\n");
    put("second");
    until_started("first\nfirst\nsecond\n");
    fs::remove_file(manifests.join("second.yaml")).expect("remove a manifest");
    eventually("the second is gone", || {
        (!cluster.podium(&["ps"]).ok().contains("second-node")).then_some(())
    });
    assert_ne!(cluster.kubectl(&["get", "--raw", "/readyz"]).code, 0, "nobody answers");

    // The API comes, with it the node and the mirror of what has run all the time.
    cluster.start_server();
    eventually("the mirror is there", || {
        (cluster.kubectl(&["get", "pod", "first-node"]).code == 0).then_some(())
    });
    cluster.wait_ready("first-node");
    let ended =
        "{.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].lastState.terminated.exitCode}";
    assert_eq!(cluster.field("first-node", ended), "1 137");
    assert_ne!(cluster.kubectl(&["get", "pod", "second-node"]).code, 0);
    assert_eq!(started(), "first\nfirst\nsecond\n");

    // It goes again, which nobody on the node minds.
    cluster.kill_server();
    put("third");
    until_started("first\nfirst\nsecond\nthird\n");
    drop(kubelet);
}
