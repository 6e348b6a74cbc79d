//! Getting into a pod: exec, attach, logs, cp, port-forward, and what describe and events tell of it.

use std::fs;

use tests::{Cluster, Terminal, eventually, run};

const TWO_CONTAINERS: &str = include_str!("../../examples/two-containers.yaml");

const CHATTY: &str = "
apiVersion: v1
kind: Pod
metadata: {name: chatty}
spec:
  containers:
  - name: main
    image: localhost/busybox:1
    command: [sh, -c, 'i=0; while [ $i -lt 20 ]; do i=$((i+1)); echo line $i; done; echo problem >&2; trap \"exit 3\" TERM; while read line; do echo got $line; done; sleep 12h & wait']
    stdin: true
";

#[test]
fn exec_runs_commands_and_passes_their_exit_codes_on() {
    let cluster = Cluster::start();
    cluster.create(TWO_CONTAINERS);
    cluster.wait_ready("two-containers");
    for websockets in ["true", "false"] {
        let exec = |args: &[&str], input: &str| {
            let mut command = cluster.kubectl_command();
            command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets);
            command.args(["exec", "two-containers", "-c", "busybox"]).args(args);
            run(&mut command, input)
        };
        assert_eq!(exec(&["--", "echo", "hello"], "").ok(), "hello\n");
        let failed = exec(&["--", "sh", "-c", "echo out; echo err >&2; exit 3"], "");
        assert_eq!((failed.code, failed.stdout.as_str()), (3, "out\n"), "{failed}");
        assert_eq!(failed.stderr, "err\ncommand terminated with exit code 3\n");
        assert_eq!(
            exec(&["-i", "--", "cat"], "through and back\n").ok(),
            "through and back\n"
        );
        let big = "0123456789abcdef".repeat(200_000);
        assert_eq!(exec(&["-i", "--", "wc", "-c"], &big).ok().trim(), big.len().to_string());
        let missing = exec(&["--", "no-such-program"], "");
        assert!(
            missing.code != 0 && missing.stderr.contains("executable file not found in $PATH"),
            "{missing}"
        );
    }
    let wrong = cluster
        .kubectl(&["exec", "two-containers", "-c", "nobody", "--", "true"])
        .fails();
    assert!(
        wrong.contains("container nobody is not valid for pod two-containers"),
        "{wrong}"
    );
}

#[test]
fn exec_gives_a_terminal_that_resizes() {
    let cluster = Cluster::start();
    cluster.create(TWO_CONTAINERS);
    cluster.wait_ready("two-containers");
    let mut command = cluster.kubectl_command();
    command.args(["exec", "-it", "two-containers", "-c", "busybox", "--", "sh"]);
    let mut terminal = Terminal::start(command, 30, 100);
    terminal.send("tty; echo is-$((40+2))\n");
    let seen = terminal.expect("is-42");
    assert!(seen.contains("/dev/pts/0"), "{seen}");
    terminal.send("stty size\n");
    terminal.expect("30 100");
    terminal.resize(41, 123);
    // The new size travels beside the typing: ask until it has arrived.
    terminal.send("until [ \"$(stty size)\" = '41 123' ]; do :; done; echo resized-$((40+2))\n");
    terminal.expect("resized-42");
    terminal.send("exit 7\n");
    assert_eq!(terminal.wait(), 7);
}

#[test]
fn logs_are_whole_and_can_be_asked_for_in_parts() {
    let cluster = Cluster::start();
    cluster.create(CHATTY);
    cluster.wait_ready("chatty");
    let logs = |args: &[&str]| cluster.kubectl(&[&["logs", "chatty"], args].concat()).ok();
    eventually("all is logged", || logs(&[]).contains("problem").then_some(()));
    let all: Vec<_> = (1..=20).map(|n| format!("line {n}\n")).collect();
    assert!(logs(&[]).starts_with(&all.concat()));
    assert_eq!(logs(&["--tail", "1"]).lines().count(), 1);
    assert_eq!(logs(&["--tail", "0"]), "");
    let stamped = logs(&["--timestamps", "--tail=2"]);
    for line in stamped.lines() {
        let (time, _) = line.split_once(' ').expect("a time and a line");
        assert!(
            time.starts_with("20") && time.contains('T') && time.ends_with('Z'),
            "{stamped}"
        );
    }
    assert!(logs(&["--since", "1h"]).contains("line 1\n"));
    assert_eq!(logs(&["--since-time", "2100-01-01T00:00:00Z"]), "");
    assert_eq!(logs(&["--limit-bytes", "6"]), "line 1");
    let previous = cluster.kubectl(&["logs", "chatty", "--previous"]).fails();
    assert!(
        previous.contains("previous terminated container \"main\" in pod \"chatty\" not found"),
        "{previous}"
    );

    // A follower sees what comes later: here through attach, which writes to the same container.
    let mut command = cluster.kubectl_command();
    command.args(["logs", "-f", "chatty", "--tail=1"]);
    let mut follower = Terminal::start(command, 24, 80);
    let mut command = cluster.kubectl_command();
    command.args(["attach", "-i", "chatty"]);
    let mut attached = Terminal::start(command, 24, 80);
    attached.send("something\n");
    attached.expect("got something");
    follower.expect("got something");
    cluster
        .kubectl(&["delete", "pod", "chatty", "--now", "--wait=false"])
        .ok();
    // The log ends with the container, and so does the follower.
    follower.wait();
    drop(attached);
}

#[test]
fn logs_of_a_restarted_container_can_still_be_read() {
    let cluster = Cluster::start();
    cluster.create(
        "{apiVersion: v1, kind: Pod, metadata: {name: again}, spec: {containers: [{name: main, image: 'localhost/busybox:1', \
         command: [sh, -c, 'echo run at $(cat /proc/sys/kernel/random/uuid); sleep 1; exit 1']}]}}",
    );
    eventually("the container has restarted", || {
        (cluster.field("again", "{.status.containerStatuses[0].restartCount}") != "0").then_some(())
    });
    let previous = cluster.kubectl(&["logs", "again", "--previous"]).ok();
    let current = eventually("the second run logs", || {
        let output = cluster.kubectl(&["logs", "again"]);
        (output.code == 0 && !output.stdout.is_empty()).then_some(output.stdout)
    });
    assert!(previous.starts_with("run at ") && current.starts_with("run at "));
    assert_ne!(previous, current);
}

#[test]
fn files_are_copied_in_and_out() {
    let cluster = Cluster::start();
    cluster.create(TWO_CONTAINERS);
    cluster.wait_ready("two-containers");
    let (to, back) = (cluster.dir().join("to"), cluster.dir().join("back"));
    let content: Vec<u8> = (0..3_000_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    fs::write(&to, &content).expect("a file");
    let (to, back_name) = (to.to_string_lossy().into_owned(), back.to_string_lossy().into_owned());
    cluster
        .kubectl(&["cp", &to, "two-containers:/cache/file", "-c", "busybox"])
        .ok();
    cluster
        .kubectl(&["cp", "two-containers:/cache/file", &back_name, "-c", "busybox"])
        .ok();
    assert!(fs::read(back).expect("the copy") == content, "the copy differs");

    // A folder with folders, an empty file and a link, there and back.
    let folder = cluster.dir().join("folder");
    fs::create_dir_all(folder.join("deep/er")).expect("folders");
    fs::write(folder.join("deep/er/file"), "words\n").expect("a file");
    fs::write(folder.join("empty"), "").expect("a file");
    let again = cluster.dir().join("again");
    let (folder, again) = (
        folder.to_string_lossy().into_owned(),
        again.to_string_lossy().into_owned(),
    );
    cluster
        .kubectl(&["cp", &folder, "two-containers:/cache/folder", "-c", "busybox"])
        .ok();
    let found = cluster
        .kubectl(&[
            "exec",
            "two-containers",
            "-c",
            "busybox",
            "--",
            "cat",
            "/cache/folder/deep/er/file",
        ])
        .ok();
    assert_eq!(found, "words\n");
    cluster
        .kubectl(&["cp", "two-containers:/cache/folder", &again, "-c", "busybox"])
        .ok();
    assert_eq!(
        run(std::process::Command::new("diff").args(["-r", &folder, &again]), "").ok(),
        ""
    );
    // kubectl ends well all the same; what tar said is in its output.
    let missing = cluster.kubectl(&["cp", "two-containers:/cache/nothing", &again, "-c", "busybox"]);
    assert!(missing.stdout.contains("No such file or directory"), "{missing}");
}

#[test]
fn attach_gives_the_terminal_of_the_first_process() {
    let cluster = Cluster::start();
    cluster.create(
        "{apiVersion: v1, kind: Pod, metadata: {name: shell}, spec: {containers: [{name: main, image: 'localhost/busybox:1', command: [sh], stdin: true, tty: true}]}}",
    );
    for websockets in ["true", "false"] {
        cluster.wait_ready("shell");
        let mut command = cluster.kubectl_command();
        command
            .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets)
            .args(["attach", "-it", "shell"]);
        let mut terminal = Terminal::start(command, 33, 99);
        terminal.send("tty; echo is-$((40+2))\n");
        let seen = terminal.expect("is-42");
        assert!(seen.contains("/dev/pts/0"), "{seen}");
        terminal.resize(41, 123);
        terminal.send("until [ \"$(stty size)\" = '41 123' ]; do :; done; echo resized-$((40+2))\n");
        terminal.expect("resized-42");
        // The first process ends, and with it what is attached; the container comes again.
        terminal.send("exit\n");
        assert_eq!(terminal.wait(), 0);
        eventually("the container is started again", || {
            let restarts = cluster.field("shell", "{.status.containerStatuses[0].restartCount}");
            (restarts == if websockets == "true" { "1" } else { "2" }).then_some(())
        });
    }
}

#[test]
fn logs_are_cut_by_the_time_of_their_lines() {
    let cluster = Cluster::start();
    cluster.create(TWO_CONTAINERS);
    cluster.wait_ready("two-containers");
    // The node's file with lines of known times: a test need not wait until a line is old.
    let uid = cluster.field("two-containers", "{.metadata.uid}");
    let file = format!("default_two-containers_{uid}/busybox/0.log");
    let stamp = |ago: &str| {
        let format = "+%Y-%m-%dT%H:%M:%S.000000000Z";
        let date = std::process::Command::new("date")
            .args(["-u", "-d", ago, format])
            .output();
        String::from_utf8(date.expect("date").stdout)
            .expect("a time")
            .trim()
            .to_owned()
    };
    let (oldest, older, newest) = (stamp("2 hours ago"), stamp("5 minutes ago"), stamp("now"));
    let lines = format!("{oldest} stdout F first\n{older} stderr F second\n{newest} stdout F third\n");
    fs::write(cluster.pod_logs_dir().join(file), lines).expect("the log");
    let logs = |arg: &str| cluster.kubectl(&["logs", "two-containers", "-c", "busybox", arg]).ok();
    assert_eq!(logs("--since=24h"), "first\nsecond\nthird\n");
    assert_eq!(logs("--since=3600s"), "second\nthird\n");
    assert_eq!(logs("--since=3m30s"), "third\n");
    assert_eq!(logs(&format!("--since-time={older}")), "second\nthird\n");
    assert_eq!(logs(&format!("--since-time={newest}")), "third\n");
    assert_eq!(logs("--since-time=2100-01-01T00:00:00Z"), "");
    let stamped = logs("--timestamps");
    assert_eq!(
        stamped.lines().next(),
        Some(format!("{oldest} first").as_str()),
        "{stamped}"
    );
    let wrong = cluster
        .kubectl(&["logs", "two-containers", "-c", "busybox", "--since-time=yesterday"])
        .fails();
    assert!(wrong.contains("yesterday"), "{wrong}");
}

#[test]
fn port_forward_reaches_the_pod() {
    let cluster = Cluster::start();
    cluster.create(TWO_CONTAINERS);
    cluster.wait_ready("two-containers");
    for websockets in ["true", "false"] {
        let mut command = cluster.kubectl_command();
        command
            .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets)
            .args(["port-forward", "two-containers", "18080:80"]);
        let mut forward = Terminal::start(command, 24, 80);
        forward.expect("Forwarding from 127.0.0.1:18080 -> 80");
        for _ in 0..5 {
            let page = run(
                cluster
                    .netns
                    .command("curl")
                    .args(["-s", "-m", "5", "http://127.0.0.1:18080/"]),
                "",
            )
            .ok();
            assert!(page.contains("Welcome to nginx!"), "{page}");
        }
        forward.send("\x03");
        forward.wait();
    }
}

#[test]
fn describe_and_events_tell_the_pods_story() {
    let cluster = Cluster::start();
    cluster.create(TWO_CONTAINERS);
    cluster.wait_ready("two-containers");
    let described = eventually("all events are there", || {
        let described = cluster.kubectl(&["describe", "pod", "two-containers"]).ok();
        (described.matches("Started").count() >= 2).then_some(described)
    });
    for text in [
        "Successfully assigned default/two-containers to node",
        "Container image \"localhost/nginx:1\" already present on machine",
        "Container created",
        "Container started",
        "EmptyDir (a temporary directory that shares a pod's lifetime)",
    ] {
        assert!(described.contains(text), "{text:?} is not in\n{described}");
    }
    let events = cluster
        .kubectl(&["get", "events", "--sort-by", ".metadata.creationTimestamp"])
        .ok();
    for reason in ["Scheduled", "Pulled", "Created", "Started"] {
        assert!(events.contains(reason), "{reason} is not in\n{events}");
    }
    assert!(events.contains("pod/two-containers"), "{events}");
}
