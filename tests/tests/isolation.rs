//! What a bad program can and cannot do to its node and to other pods.

use std::process::Command;

use tests::{Cluster, Options, eventually, run};

/// A pod from the flow YAML of its spec.
fn pod(name: &str, spec: &str) -> String {
    format!("{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{{spec}}}}}\n---\n")
}

/// A container that runs a script.
fn script(name: &str, script: &str) -> String {
    let script = script.replace('\'', "''");
    format!("{{name: {name}, image: 'localhost/busybox:1', command: [sh, -c, '{script}']}}")
}

#[test]
fn a_bad_program_harms_nobody_else() {
    let cluster = Cluster::with(Options {
        images: &["busybox"],
        flags: vec!["--pod-max-pids=40".into()],
        log: Some("info,kubelet::pods=debug"),
    });
    let pods = [
        pod(
            "talks",
            &format!(
                "restartPolicy: Never, containers: [{}]",
                script("c", "head -c 10485760 /dev/zero | tr '\\0' x; echo; echo after")
            ),
        ),
        pod(
            "forks",
            &format!(
                "terminationGracePeriodSeconds: 1, containers: [{}]",
                script("c", "f() { f & f & wait; }; while :; do (f); done 2> /dev/null")
            ),
        ),
        pod(
            "ignores",
            &format!(
                "terminationGracePeriodSeconds: 1, containers: [{}]",
                script("c", "trap '' TERM INT HUP QUIT; while :; do sleep 0.2; done")
            ),
        ),
    ];
    cluster.create(&pods.concat());
    eventually("the talker is done", || {
        (cluster.field("talks", "{.status.phase}") == "Succeeded").then_some(())
    });
    let log = cluster.kubectl(&["logs", "talks"]).ok();
    let (line, rest) = log.split_once('\n').expect("a line");
    assert!(
        line.len() == 10 << 20 && line.bytes().all(|byte| byte == b'x'),
        "{} bytes",
        line.len()
    );
    assert_eq!(rest, "after\n");
    assert_eq!(cluster.kubectl(&["logs", "talks", "--tail=1"]).ok(), "after\n");

    cluster.wait_ready("forks");
    let path = format!("*/pod{}/pids.current", cluster.field("forks", "{.metadata.uid}"));
    eventually("the limit is reached", || {
        let mut find = Command::new("find");
        find.args(["/sys/fs/cgroup", "-path", &path, "-exec", "cat", "{}", "+"]);
        let most: u32 = run(&mut find, "").stdout.trim().parse().ok()?;
        assert!(most <= 40, "{most} processes");
        (most >= 35).then_some(())
    });
    cluster.create(&pod(
        "good",
        &format!("containers: [{}]", script("c", "exec sleep 1000")),
    ));
    cluster.wait_ready("good");
    cluster.kubectl(&["exec", "good", "--", "true"]).ok();
    cluster.wait_ready("ignores");
    cluster
        .kubectl(&["delete", "pod", "forks", "ignores", "--timeout=60s"])
        .ok();
    assert_eq!(
        cluster.field("good", "{.status.containerStatuses[0].restartCount}"),
        "0"
    );

    // What concerns one pod wakes that pod's worker only.
    cluster.create(&pod(
        "idle",
        &format!("containers: [{}]", script("c", "exec sleep 1000")),
    ));
    cluster.wait_ready("idle");
    let looks = |pod: &str| {
        let look = format!("looks pod={pod}_default(");
        cluster.log().lines().filter(|line| line.contains(&look)).count()
    };
    const CHANGES: usize = 12;
    let (idle, good) = (looks("idle"), looks("good"));
    for n in 0..CHANGES {
        cluster
            .kubectl(&["annotate", "pod", "good", "--overwrite", &format!("n={n}")])
            .ok();
    }
    eventually("each change is looked at", || {
        (looks("good") >= good + CHANGES).then_some(())
    });
    // Every minute all workers look, lest the runtime has not told them something.
    assert!(looks("idle") < idle + CHANGES / 2, "{} looks", looks("idle") - idle);
}
