//! Probes on real containers: what each kind asks, what events say of it, what follows, and that none of it runs away.

use std::fs::{self, File};
use std::process::Stdio;

use tests::{Cluster, Netns, Options, eventually};

fn cluster() -> Cluster {
    Cluster::with(Options {
        images: &["busybox", "web"],
        ..Options::default()
    })
}

/// A pod of one container of the web program, with whatever else its spec and its container have.
fn web(name: &str, pod: &str, container: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  {pod}
  containers:
  - name: web
    image: localhost/web:1
    ports: [{{name: http, containerPort: 8090}}]
    {container}
"
    )
}

#[track_caller]
fn until_event(cluster: &Cluster, pod: &str, reason: &str, words: &str) {
    let is_it = |line: &str| line.split_whitespace().nth(1) == Some(reason) && line.contains(words);
    eventually(&format!("an event {reason} {words:?} of {pod}"), || {
        cluster.events(pod).lines().any(is_it).then_some(())
    });
}

#[track_caller]
fn restarts(cluster: &Cluster, pod: &str) -> u32 {
    let count = cluster.field(pod, "{.status.containerStatuses[0].restartCount}");
    count.parse().unwrap_or(0)
}

#[track_caller]
fn exec(cluster: &Cluster, pod: &str, script: &str) -> String {
    cluster.kubectl(&["exec", pod, "--", "bash", "-c", script]).ok()
}

/// Ends the program in a pod, and with it perhaps the command that does so.
fn end(cluster: &Cluster, pod: &str, script: &str) {
    cluster.kubectl(&["exec", pod, "--", "bash", "-c", script]);
}

/// A time of the API in seconds.
#[track_caller]
fn seconds(time: &str) -> i64 {
    let date = tests::run(std::process::Command::new("date").args(["+%s", "-d", time]), "").ok();
    date.trim().parse().expect("seconds")
}

const LAST: &str = "{.status.containerStatuses[0].lastState.terminated";

#[test]
fn the_web_program_is_kept_alive() {
    let cluster = cluster();
    let listing = "livenessProbe: {exec: {command: [ls, /usr/local/bin/web]}, periodSeconds: 1, failureThreshold: 2}";
    let asking = "livenessProbe: {httpGet: {path: /login, port: http}, periodSeconds: 1, failureThreshold: 2}
    readinessProbe: {tcpSocket: {port: 8090}, periodSeconds: 1}";
    let late = "args: [web, --start-after, '6']
    livenessProbe: {tcpSocket: {port: 8090}, periodSeconds: 1, failureThreshold: 2}
    readinessProbe: {tcpSocket: {port: 8090}, periodSeconds: 1}";
    let starts = "startupProbe: {tcpSocket: {port: 8090}, periodSeconds: 1, failureThreshold: 60}";
    cluster.create(&web("listed", "", listing));
    cluster.create(&web("asked", "", asking));
    cluster.create(&web("killed", "shareProcessNamespace: true", asking));
    cluster.create(&web("late", "", late));
    cluster.create(&web("late-with-startup", "", &format!("{late}\n    {starts}")));
    cluster.create(&web(
        "never-up",
        "",
        "args: [web, --start-after, '600']\n    startupProbe: {tcpSocket: {port: 8090}, periodSeconds: 1, failureThreshold: 2}",
    ));
    // A first process that is deaf to SIGTERM: it is the probe's grace period, and not the pod's ten minutes, that ends it.
    cluster.create(&web(
        "condemned",
        "restartPolicy: Never\n  terminationGracePeriodSeconds: 600",
        "command: [sleep, '1000']
    livenessProbe: {exec: {command: ['false']}, periodSeconds: 1, failureThreshold: 1, terminationGracePeriodSeconds: 1}",
    ));
    cluster.create(&web(
        "on-and-off",
        "",
        "readinessProbe: {exec: {command: [test, -e, /tmp/ready]}, periodSeconds: 1, successThreshold: 2, failureThreshold: 1}",
    ));

    cluster.create(&web(
        "patient",
        "",
        "readinessProbe: {tcpSocket: {port: 8090}, initialDelaySeconds: 4, periodSeconds: 1}",
    ));

    // The executable is taken away, and comes back with the next instance.
    cluster.wait_ready("listed");
    exec(&cluster, "listed", "rm /usr/local/bin/web");
    until_event(
        &cluster,
        "listed",
        "Unhealthy",
        "Liveness probe failed: ls: cannot access '/usr/local/bin/web': No such file or directory",
    );
    until_event(
        &cluster,
        "listed",
        "Killing",
        "Container web failed liveness probe, will be restarted",
    );
    cluster.until("listed", "{.status.containerStatuses[0].restartCount}", "1");
    cluster.wait_ready("listed");
    exec(&cluster, "listed", "ls /usr/local/bin/web");

    // The template is taken away: the program says 500, and why in its log.
    cluster.wait_ready("asked");
    exec(&cluster, "asked", "rm /srv/web/login.html");
    until_event(
        &cluster,
        "asked",
        "Unhealthy",
        "Liveness probe failed: HTTP probe failed with statuscode: 500",
    );
    cluster.until("asked", "{.status.containerStatuses[0].restartCount}", "1");
    let log = cluster.kubectl(&["logs", "asked", "--previous"]).ok();
    for words in [
        "GET /login 200 kube-probe/1.36",
        "GET /login 500 kube-probe/1.36",
        "error: /srv/web/login.html: No such file or directory (os error 2)\nstack backtrace:\n",
        "web::pages::Site::login",
    ] {
        assert!(log.contains(words), "{words:?} in the log:\n{log}");
    }

    // A container's first process cannot be killed from inside; from a process namespace that it is not the first of, it can.
    cluster.wait_ready("asked");
    exec(&cluster, "asked", "kill -9 1");
    exec(&cluster, "asked", "ps -p 1 -o comm= | grep -x web");
    assert_eq!(restarts(&cluster, "asked"), 1);
    end(&cluster, "asked", "kill 1");
    cluster.until("asked", "{.status.containerStatuses[0].restartCount}", "2");
    assert_eq!(
        cluster.field("asked", &format!("{LAST}.exitCode}} {LAST}.reason}}")),
        "0 Completed"
    );
    cluster.wait_ready("killed");
    end(&cluster, "killed", "kill -9 $(pgrep -x web)");
    cluster.until("killed", "{.status.containerStatuses[0].restartCount}", "1");
    assert_eq!(
        cluster.field("killed", &format!("{LAST}.exitCode}} {LAST}.reason}}")),
        "137 Error"
    );

    // A start that is slower than liveness allows never comes to its end without a startup probe, and does with one.
    let ip = cluster.field("late", "{.status.podIP}");
    until_event(
        &cluster,
        "late",
        "Unhealthy",
        &format!("Liveness probe failed: dial tcp {ip}:8090: connect: connection refused"),
    );
    until_event(
        &cluster,
        "late",
        "Unhealthy",
        &format!("Readiness probe failed: dial tcp {ip}:8090: connect: connection refused"),
    );
    until_event(
        &cluster,
        "late",
        "BackOff",
        "Back-off restarting failed container web in pod late_default(",
    );
    assert_ne!(restarts(&cluster, "late"), 0);
    cluster.wait_ready("late-with-startup");
    assert_eq!(restarts(&cluster, "late-with-startup"), 0);
    let told = cluster.events("late-with-startup");
    assert!(told.contains("Startup probe failed: dial tcp "), "{told}");
    for held_off in ["Liveness probe failed", "Readiness probe failed"] {
        assert!(!told.contains(held_off), "{told}");
    }
    until_event(
        &cluster,
        "never-up",
        "Killing",
        "Container web failed startup probe, will be restarted",
    );
    assert_eq!(
        cluster.field("never-up", "{.status.containerStatuses[0].ready}"),
        "false"
    );

    cluster.until("condemned", "{.status.phase}", "Failed");
    until_event(&cluster, "condemned", "Killing", "Container web failed liveness probe");
    assert!(!cluster.events("condemned").contains("will be restarted"));
    let ended = "{.status.containerStatuses[0].state.terminated";
    assert_eq!(
        cluster.field("condemned", &format!("{ended}.exitCode}} {ended}.reason}}")),
        "137 Error"
    );

    // Ready is given, taken and given back, and nothing is restarted for it.
    let ready = "{.status.conditions[?(@.type=='Ready')].status}";
    until_event(&cluster, "on-and-off", "Unhealthy", "Readiness probe failed:");
    assert_eq!(cluster.field("on-and-off", ready), "False");
    exec(&cluster, "on-and-off", "touch /tmp/ready");
    cluster.until("on-and-off", ready, "True");
    exec(&cluster, "on-and-off", "rm /tmp/ready");
    cluster.until("on-and-off", ready, "False");
    let columns = cluster.kubectl(&["get", "pod", "on-and-off", "--no-headers"]).ok();
    assert!(
        columns.split_whitespace().skip(1).take(3).eq(["0/1", "Running", "0"]),
        "{columns}"
    );
    exec(&cluster, "on-and-off", "touch /tmp/ready");
    cluster.until("on-and-off", ready, "True");

    // Asked at once, it would have been ready long before.
    cluster.wait_ready("patient");
    let times = "{.status.containerStatuses[0].state.running.startedAt} {.status.conditions[?(@.type=='Ready')].lastTransitionTime}";
    let times = cluster.field("patient", times);
    let (started, turned) = times.split_once(' ').expect("two times");
    assert!(seconds(turned) - seconds(started) >= 4, "{times}");

    // One line for an event that comes again and again.
    let counted =
        |line: &str| line.contains("Startup probe failed: dial tcp") && line.contains(" (x") && line.contains(" over ");
    eventually("describe counts an event", || {
        let described = cluster.kubectl(&["describe", "pod", "never-up"]).ok();
        described.lines().any(counted).then_some(())
    });
}

#[test]
fn probes_ask_in_every_way() {
    let cluster = cluster();
    let http = |path: &str| format!("httpGet: {{path: '{path}', port: 8090}}");
    // What is asked, and what the event says if that does not make the asker ready, or not without a word.
    /// Its name, its probe, and the event that the probe leads to, if any: reason and words.
    type Asker = (&'static str, String, Option<(&'static str, &'static str)>);
    let askers: Vec<Asker> = vec![
        (
            "page",
            "httpGet: {path: /healthz, port: 8090, httpHeaders: [{name: X-A, value: b}]}".into(),
            None,
        ),
        (
            "own-agent",
            "httpGet: {path: /status/204, port: 8090, httpHeaders: [{name: User-Agent, value: me/1}]}".into(),
            None,
        ),
        (
            "host",
            "httpGet: {path: /healthz, port: 8090, host: 127.0.0.1}".into(),
            Some((
                "Unhealthy",
                "Readiness probe failed: Get \"http://127.0.0.1:8090/healthz\": dial tcp 127.0.0.1:8090: connect: connection refused",
            )),
        ),
        (
            "tls",
            "httpGet: {path: /healthz, port: 8443, scheme: HTTPS}".into(),
            None,
        ),
        (
            "no-tls",
            "httpGet: {path: /healthz, port: 8090, scheme: HTTPS}".into(),
            Some(("Unhealthy", "http: server gave HTTP response to HTTPS client")),
        ),
        (
            "error",
            http("/status/503"),
            Some((
                "Unhealthy",
                "Readiness probe failed: HTTP probe failed with statuscode: 503",
            )),
        ),
        ("hops", http("/redirects/9"), None),
        (
            "loop",
            http("/loop"),
            Some((
                "Unhealthy",
                "Readiness probe failed: Get \"/loop\": stopped after 10 redirects",
            )),
        ),
        (
            "away",
            http("/redirect?http://192.0.2.77/"),
            Some((
                "ProbeWarning",
                "Readiness probe warning: Probe terminated redirects, Response body:",
            )),
        ),
        ("endless", http("/endless"), None),
        (
            "hang",
            http("/hang"),
            Some((
                "Unhealthy",
                "/hang\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
            )),
        ),
        (
            "no-port",
            "httpGet: {port: nope}".into(),
            Some((
                "Unhealthy",
                "Readiness probe errored and resulted in unknown state: strconv.Atoi: parsing \"nope\": invalid syntax",
            )),
        ),
        ("tcp", "tcpSocket: {port: 8443}".into(), None),
        ("grpc", "grpc: {port: 9090}".into(), None),
        (
            "grpc-down",
            "grpc: {port: 9090, service: down}".into(),
            Some((
                "Unhealthy",
                "Readiness probe failed: service unhealthy (responded with \"NOT_SERVING\")",
            )),
        ),
        (
            "grpc-none",
            "grpc: {port: 9090, service: none}".into(),
            Some((
                "Unhealthy",
                "Readiness probe failed: error: health rpc probe failed: rpc error: code = NotFound desc = ",
            )),
        ),
        (
            "grpc-closed",
            "grpc: {port: 9999}".into(),
            Some(("Unhealthy", ":9999\" within 1s: context deadline exceeded")),
        ),
        (
            "sleeps",
            "exec: {command: [sleep, '1000']}, timeoutSeconds: 2".into(),
            Some((
                "Unhealthy",
                "Readiness probe failed: command timed out: \"sleep 1000\" timed out after 2s",
            )),
        ),
        (
            "shouts",
            "exec: {command: ['yes']}".into(),
            Some((
                "Unhealthy",
                "Readiness probe failed: command timed out: \"yes\" timed out after 1s",
            )),
        ),
        (
            "absent",
            "exec: {command: [/nope]}".into(),
            Some((
                "Unhealthy",
                "Readiness probe errored and resulted in unknown state: rpc error: code = Unknown desc = failed to exec in container: ",
            )),
        ),
        (
            "expands",
            "exec: {command: [test, '$(GREETING)', '=', hello]}".into(),
            None,
        ),
    ];
    // Each asker is a container beside one that is asked, as probes go to the pod's own address. Few to a pod: of one pod only so many
    // events are written at once.
    const PER_POD: usize = 3;
    for (pod, askers) in askers.chunks(PER_POD).enumerate() {
        let mut manifest = format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: asked-{pod}}}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
  - {{name: web, image: 'localhost/web:1', restartPolicy: Always, args: [web, --tls-port, '8443', --grpc-port, '9090'], startupProbe: {{tcpSocket: {{port: 8090}}, periodSeconds: 1, failureThreshold: 60}}}}
  containers:
"
        );
        for (name, probe, _) in askers {
            manifest += &format!(
                "  - {{name: {name}, image: 'localhost/busybox:1', command: [sleep, '1000'], env: [{{name: GREETING, value: hello}}], readinessProbe: {{{probe}, periodSeconds: 5, failureThreshold: 1}}}}\n"
            );
        }
        cluster.create(&manifest);
    }
    // A sidecar is part of the pod's readiness.
    cluster.create(
        "apiVersion: v1
kind: Pod
metadata: {name: sidecar}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
  - {name: side, image: 'localhost/web:1', restartPolicy: Always, readinessProbe: {exec: {command: [test, -e, /tmp/ready]}, periodSeconds: 1}, startupProbe: {httpGet: {port: 8090}, periodSeconds: 1}}
  containers:
  - {name: main, image: 'localhost/busybox:1', command: [sleep, '1000']}
",
    );

    for (index, (name, _, event)) in askers.iter().enumerate() {
        let pod = format!("asked-{}", index / PER_POD);
        if let Some((reason, words)) = event {
            until_event(&cluster, &pod, reason, words);
        }
        let ready = format!("{{.status.containerStatuses[?(@.name=='{name}')].ready}}");
        let succeeds = event.is_none_or(|(reason, _)| reason == "ProbeWarning");
        cluster.until(&pod, &ready, if succeeds { "true" } else { "false" });
    }
    let log = cluster.kubectl(&["logs", "asked-0", "-c", "web"]).ok();
    for line in ["GET /healthz 200 kube-probe/1.36", "GET /status/204 204 me/1"] {
        assert!(log.lines().any(|logged| logged == line), "{line:?} in the log:\n{log}");
    }
    // What a probe started and could not wait for is gone.
    let sleeper = askers
        .iter()
        .position(|(name, ..)| *name == "sleeps")
        .unwrap_or_default()
        / PER_POD;
    let asleep = cluster
        .kubectl(&[
            "exec",
            &format!("asked-{sleeper}"),
            "-c",
            "sleeps",
            "--",
            "sh",
            "-c",
            "pidof sleep | wc -w",
        ])
        .ok();
    assert!(asleep.trim().parse::<u32>().is_ok_and(|count| count <= 2), "{asleep}");

    let ready = "{.status.conditions[?(@.type=='Ready')].status}";
    cluster.until("sidecar", "{.status.containerStatuses[0].ready}", "true");
    assert_eq!(cluster.field("sidecar", ready), "False");
    assert_eq!(
        cluster.field("sidecar", "{.status.conditions[?(@.type=='Ready')].message}"),
        "containers with unready status: [side]"
    );
    cluster
        .kubectl(&["exec", "sidecar", "-c", "side", "--", "touch", "/tmp/ready"])
        .ok();
    cluster.until("sidecar", ready, "True");

    probes_are_validated(&cluster);
}

/// Wrong probes are refused with upstream's words.
fn probes_are_validated(cluster: &Cluster) {
    let path = "spec.containers[0]";
    for (container, said) in [
        (
            "livenessProbe: {}",
            "{path}.livenessProbe: Required value: must specify a handler type",
        ),
        (
            "livenessProbe: {exec: {command: [a]}, tcpSocket: {port: 1}}",
            "{path}.livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
        ),
        (
            "livenessProbe: {exec: {}}",
            "{path}.livenessProbe.exec.command: Required value",
        ),
        (
            "livenessProbe: {tcpSocket: {port: 1}, successThreshold: 2}",
            "{path}.livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ),
        (
            "startupProbe: {tcpSocket: {port: 1}, successThreshold: 2}",
            "{path}.startupProbe.successThreshold: Invalid value: 2: must be 1",
        ),
        (
            "readinessProbe: {tcpSocket: {port: 1}, terminationGracePeriodSeconds: 5}",
            "{path}.readinessProbe.terminationGracePeriodSeconds: Invalid value: 5: must not be set for readinessProbes",
        ),
        (
            "livenessProbe: {tcpSocket: {port: 1}, terminationGracePeriodSeconds: 0}",
            "{path}.livenessProbe.terminationGracePeriodSeconds: Invalid value: 0: must be greater than 0",
        ),
        (
            "readinessProbe: {tcpSocket: {port: 1}, periodSeconds: -1}",
            "{path}.readinessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            "readinessProbe: {tcpSocket: {port: 70000}}",
            "{path}.readinessProbe.tcpSocket.port: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            "readinessProbe: {httpGet: {port: 1, scheme: FTP}}",
            "{path}.readinessProbe.httpGet.scheme: Unsupported value: \"FTP\": supported values: \"HTTP\", \"HTTPS\"",
        ),
        (
            "readinessProbe: {httpGet: {port: 1, httpHeaders: [{name: 'a b', value: c}]}}",
            "{path}.readinessProbe.httpGet.httpHeaders: Invalid value: \"a b\": a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')",
        ),
        (
            "readinessProbe: {grpc: {port: 0}}",
            "{path}.readinessProbe.grpc.port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
    ] {
        let manifest = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: wrong}}, spec: {{containers: [{{name: c, image: x, {container}}}]}}}}"
        );
        let refused = cluster.kubectl_with(&["create", "-f", "-"], &manifest).fails();
        assert_eq!(
            refused,
            format!("The Pod \"wrong\" is invalid: {}\n", said.replace("{path}", path)),
            "for {container}"
        );
    }
    let manifest = "{apiVersion: v1, kind: Pod, metadata: {name: wrong}, spec: {initContainers: [{name: i, image: x, lifecycle: {preStop: {exec: {command: [a]}}}, livenessProbe: {tcpSocket: {port: 1}}, readinessProbe: {tcpSocket: {port: 1}}, startupProbe: {tcpSocket: {port: 1}}}], containers: [{name: c, image: x}]}}";
    let refused = cluster.kubectl_with(&["create", "-f", "-"], manifest).fails();
    for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        let said = format!(
            "spec.initContainers[0].{field}: Forbidden: may not be set for init containers without restartPolicy=Always"
        );
        assert!(refused.contains(&said), "{refused}");
    }
}

#[test]
fn three_replicas_wait_for_their_database() {
    const DATABASE: &str = "198.51.100.7";
    let cluster = cluster();
    // A host of its own beyond the node's uplink. It is wired and has no address yet.
    let database = Netns::new("db");
    let router = cluster.outside();
    database.ip(&[
        "link",
        "add",
        "db0",
        "type",
        "veth",
        "peer",
        "name",
        "db0",
        "netns",
        &router.name,
    ]);
    router.ip(&["address", "add", "198.51.100.1/24", "dev", "db0"]);
    router.ip(&["link", "set", "db0", "up"]);
    database.ip(&["link", "set", "db0", "up"]);
    tests::run(router.command("sysctl").args(["-qw", "net.ipv4.ip_forward=1"]), "").ok();
    cluster
        .netns
        .ip(&["route", "add", "198.51.100.0/24", "via", "192.0.2.1"]);

    let seen = cluster.dir().join("seen");
    let mut watch = cluster
        .kubectl_command()
        .args(["get", "pods", "-l", "app=web", "--watch", "--no-headers"])
        .stdin(Stdio::null())
        .stdout(File::create(&seen).expect("a file for what the watch shows"))
        .spawn()
        .expect("kubectl starts");
    for replica in 0..3 {
        cluster.create(&format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: web-{replica}, labels: {{app: web}}}}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
  - {{name: database, image: 'localhost/busybox:1', command: [ping, -c, '1', -W, '1', {DATABASE}]}}
  containers:
  - {{name: web, image: 'localhost/web:1', readinessProbe: {{httpGet: {{path: /login, port: 8090}}, periodSeconds: 1}}}}
"
        ));
    }
    let shown = |pod: &str, status: &str| {
        let lines = fs::read_to_string(&seen).unwrap_or_default();
        lines.lines().any(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some(pod) && words.next() == Some("0/1") && words.next() == Some(status)
        })
    };
    for replica in 0..3 {
        let pod = format!("web-{replica}");
        for status in ["Init:0/1", "Init:Error", "Init:CrashLoopBackOff"] {
            eventually(&format!("{pod} shows {status}"), || shown(&pod, status).then_some(()));
        }
        assert_eq!(cluster.field(&pod, "{.status.phase}"), "Pending");
        let waits = "{.status.containerStatuses[0].state.waiting.reason}";
        assert_eq!(cluster.field(&pod, waits), "PodInitializing");
    }

    database.ip(&["address", "add", &format!("{DATABASE}/24"), "dev", "db0"]);
    database.ip(&["route", "add", "default", "via", "198.51.100.1"]);
    for replica in 0..3 {
        cluster.wait_ready(&format!("web-{replica}"));
    }
    let rows = cluster.kubectl(&["get", "pods", "-l", "app=web", "--no-headers"]).ok();
    assert_eq!(rows.lines().count(), 3, "{rows}");
    for row in rows.lines() {
        assert!(
            row.split_whitespace().skip(1).take(3).eq(["1/1", "Running", "0"]),
            "{rows}"
        );
    }
    watch.kill().expect("end the watch");
    watch.wait().expect("reap the watch");
}
