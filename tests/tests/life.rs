//! How pods live and die, on real containers: what `kubectl get pods` shows in each state and what mends it, restarts by policy and rule with
//! their back-off, hooks, and the order in which a pod ends.

use std::fs::{self, File};
use std::process::{Child, Stdio};
use std::thread;

use serde_json::Value;
use tests::{Cluster, Options, eventually, variant};

const BUSYBOX: &str = "image: 'localhost/busybox:1'";

fn cluster(flags: &[&str]) -> Cluster {
    Cluster::with(Options {
        images: &["busybox"],
        flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
        log: Some("info,kubelet::pods=debug"),
        ..Options::default()
    })
}

/// A pod from the flow YAML of its spec.
fn pod(name: &str, spec: &str) -> String {
    format!("{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{{spec}}}}}\n---\n")
}

/// A container that runs a script.
fn script(name: &str, script: &str, more: &str) -> String {
    let script = script.replace('\'', "''");
    format!("{{name: {name}, {BUSYBOX}, command: [sh, -c, '{script}']{more}}}")
}

#[track_caller]
fn until_event(cluster: &Cluster, pod: &str, kind: &str, reason: &str, message: &str) {
    cluster.until_told(pod, kind, reason, message);
}

#[track_caller]
fn object(cluster: &Cluster, pod: &str) -> Value {
    let json = cluster.kubectl(&["get", "pod", pod, "-o", "json"]).ok();
    serde_json::from_str(&json).expect("JSON of kubectl")
}

/// `kubectl get pods --watch` from now on.
struct Shown<'a> {
    cluster: &'a Cluster,
    kubectl: Child,
}

impl<'a> Shown<'a> {
    fn start(cluster: &'a Cluster) -> Self {
        let file = File::create(cluster.dir().join("shown")).expect("a file for what is shown");
        let kubectl = cluster
            .kubectl_command()
            .args(["get", "pods", "--watch", "--no-headers"])
            .stdout(file)
            .stderr(Stdio::null())
            .spawn()
            .expect("kubectl starts");
        Self { cluster, kubectl }
    }

    /// The lines of a pod: READY, STATUS and RESTARTS.
    fn lines(&self, pod: &str) -> Vec<(String, String, String)> {
        let text = fs::read_to_string(self.cluster.dir().join("shown")).unwrap_or_default();
        let line = |line: &str| match line.split_whitespace().collect::<Vec<_>>()[..] {
            [name, ready, status, ref restarts @ ..] if name == pod => {
                Some((ready.to_owned(), status.to_owned(), restarts.join(" ")))
            }
            _ => None,
        };
        text.lines().filter_map(line).collect()
    }

    /// Waits until a pod has been shown with these words under STATUS, in this order, others between them or not.
    #[track_caller]
    fn until(&self, pod: &str, statuses: &[&str]) {
        eventually(&format!("{pod} is shown as {statuses:?}"), || {
            let mut wanted = statuses.iter().peekable();
            for (_, status, _) in self.lines(pod) {
                wanted.next_if(|wanted| **wanted == status);
            }
            wanted.peek().is_none().then_some(())
        });
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!(
                "--- shown\n{}",
                fs::read_to_string(self.cluster.dir().join("shown")).unwrap_or_default()
            );
        }
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}

#[test]
fn every_status_is_shown_and_what_is_mended_runs() {
    let cluster = cluster(&[]);
    let import = |reference: &str, user: &str| {
        let archive = variant(cluster.dir(), "busybox", reference, |config| {
            config["User"] = user.into()
        });
        cluster.podium(&["image", "import", &archive.to_string_lossy()]).ok();
    };
    import("localhost/ghost:1", "ghost");
    let shown = Shown::start(&cluster);
    let sleeps = script("c", "sleep 1000", "");
    let inits =
        |policy: &str, init: &str| format!("restartPolicy: {policy}, initContainers: [{init}], containers: [{sleeps}]");
    let fails = script("i", "exit 1", "");
    let references = format!("containers: [{{name: c, {BUSYBOX}, command: [sleep, '1000'], ");
    let pods = [
        pod("runs", &format!("containers: [{sleeps}]")),
        pod("inits", &inits("Always", &script("i", "sleep 1", ""))),
        pod("init-fails", &inits("Never", &fails)),
        pod("init-crashes", &inits("Always", &fails)),
        pod("init-retries", &inits("OnFailure", &fails)),
        pod(
            "init-has-no-image",
            &inits("Always", "{name: i, image: 'localhost:1/none:2'}"),
        ),
        pod(
            "completes",
            &format!("restartPolicy: Never, containers: [{}]", script("c", "true", "")),
        ),
        pod(
            "fails",
            &format!("restartPolicy: Never, containers: [{}]", script("c", "exit 3", "")),
        ),
        pod("crashes", &format!("containers: [{}]", script("c", "exit 3", ""))),
        pod(
            "has-no-image",
            "containers: [{name: c, image: 'localhost:1/none:1', command: [sleep, '1000']}]",
        ),
        pod(
            "misnamed",
            "containers: [{name: c, image: 'Wrong/Name', imagePullPolicy: IfNotPresent, command: [sleep, '1000']}]",
        ),
        pod(
            "refers",
            &format!("{references} env: [{{name: X, valueFrom: {{configMapKeyRef: {{name: late, key: k}}}}}}]}}]"),
        ),
        pod(
            "has-no-user",
            "containers: [{name: c, image: 'localhost/ghost:1', command: [sleep, '1000']}]",
        ),
        pod(
            "has-no-program",
            &format!(
                "volumes: [{{name: v, emptyDir: {{}}}}], containers: [{{name: c, {BUSYBOX}, command: [/v/sleep, '1000'], \
                 volumeMounts: [{{name: v, mountPath: /v}}]}}, {}]",
                script(
                    "d",
                    "until test -e /v/go; do sleep 0.1; done; cp /bin/busybox /v/sleep; sleep 1000",
                    ", volumeMounts: [{name: v, mountPath: /v}]"
                ),
            ),
        ),
        pod(
            "eats",
            &format!(
                "restartPolicy: Never, containers: [{}]",
                script(
                    "c",
                    "x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done",
                    ", resources: {limits: {memory: 24Mi}}"
                ),
            ),
        ),
        pod(
            "half-done",
            &format!(
                "restartPolicy: Never, containers: [{}, {}]",
                script("a", "true", ""),
                script("b", "sleep 1000", "")
            ),
        ),
        pod(
            "unhooked",
            &format!(
                "containers: [{}]",
                script(
                    "c",
                    "sleep 1000",
                    ", lifecycle: {postStart: {exec: {command: ['false']}}}"
                )
            ),
        ),
        pod(
            "stubborn",
            &format!(
                "terminationGracePeriodSeconds: 600, containers: [{}]",
                script("c", "trap '' TERM; while :; do sleep 0.2; done", "")
            ),
        ),
    ];
    cluster.create(&pods.concat());

    shown.until("runs", &["Pending", "ContainerCreating", "Running"]);
    shown.until("inits", &["Init:0/1", "PodInitializing", "Running"]);
    shown.until("init-fails", &["Init:Error"]);
    cluster.until("init-fails", "{.status.phase}", "Failed");
    for name in ["init-crashes", "init-retries"] {
        shown.until(name, &["Init:Error", "Init:CrashLoopBackOff"]);
        assert_eq!(cluster.field(name, "{.status.phase}"), "Pending");
    }
    shown.until("init-has-no-image", &["Init:ErrImagePull", "Init:ImagePullBackOff"]);
    shown.until("completes", &["Completed"]);
    cluster.until("completes", "{.status.phase}", "Succeeded");
    shown.until("fails", &["Error"]);
    let ended = "{.status.containerStatuses[0].state.terminated.exitCode} {.status.containerStatuses[0].state.terminated.reason} {.status.phase}";
    assert_eq!(cluster.field("fails", ended), "3 Error Failed");
    shown.until("crashes", &["Error", "CrashLoopBackOff"]);
    shown.until("eats", &["OOMKilled"]);
    assert_eq!(cluster.field("eats", ended), "137 OOMKilled Failed");
    shown.until("half-done", &["NotReady"]);
    let (ready, ..) = shown.lines("half-done").pop().expect("a line");
    assert_eq!(ready, "1/2");
    shown.until("unhooked", &["PostStartHookError"]);
    shown.until("misnamed", &["InvalidImageName"]);
    shown.until("has-no-image", &["ErrImagePull", "ImagePullBackOff"]);
    shown.until("refers", &["CreateContainerConfigError"]);
    shown.until("has-no-user", &["CreateContainerError"]);
    let waiting = "{.status.containerStatuses[0].state.waiting.message}";
    assert_eq!(
        cluster.field("has-no-user", waiting),
        "failed to generate container spec: unable to find user ghost: no matching entries in passwd file"
    );
    shown.until("has-no-program", &["RunContainerError", "CrashLoopBackOff"]);
    let last = "{.status.containerStatuses[0].lastState.terminated";
    assert_eq!(
        cluster.field("has-no-program", &format!("{last}.exitCode}} {last}.reason}}")),
        "128 StartError"
    );
    let message = cluster.field("has-no-program", &format!("{last}.message}}"));
    assert!(
        message.starts_with("failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: error during container init: exec: \"/v/sleep\": stat /v/sleep: no such file or directory"),
        "{message}"
    );

    // What keeps each from running is mended, and none is made anew.
    let uid = |pod: &str| cluster.field(pod, "{.metadata.uid}");
    let broken = [
        "has-no-image",
        "misnamed",
        "refers",
        "has-no-user",
        "has-no-program",
        "init-has-no-image",
    ];
    let uids = broken.map(uid);
    import("localhost:1/none:1", "");
    import("localhost:1/none:2", "");
    import("localhost/ghost:1", "");
    cluster
        .kubectl(&["create", "configmap", "late", "--from-literal=k=v"])
        .ok();
    cluster
        .kubectl(&["set", "image", "pod/misnamed", "c=localhost/busybox:1"])
        .ok();
    cluster
        .kubectl(&["exec", "has-no-program", "-c", "d", "--", "touch", "/v/go"])
        .ok();
    for name in ["has-no-image", "misnamed", "refers", "has-no-user", "has-no-program"] {
        cluster.wait_ready(name);
    }
    // An init container without a command of its own has the image's shell, which ends at the end of its input.
    cluster.wait_ready("init-has-no-image");
    assert_eq!(broken.map(uid), uids);

    cluster.wait_ready("stubborn");
    cluster.kubectl(&["delete", "pod", "stubborn", "--wait=false"]).ok();
    shown.until("stubborn", &["Running", "Terminating"]);
    let (ready, ..) = shown.lines("stubborn").pop().expect("a line");
    assert_eq!(ready, "1/1", "it is ready until it ends");
    cluster.kubectl(&["delete", "pod", "stubborn", "--grace-period=1"]).ok();
    let restarts = shown.lines("crashes").pop().expect("a line").2;
    let (count, ago) = restarts.split_once(' ').expect("RESTARTS with the last one's time");
    assert!(
        count.parse::<u32>().is_ok_and(|count| count > 0) && ago.starts_with('(') && ago.contains("s ago) "),
        "{restarts}"
    );
}

#[test]
fn restarts_follow_policies_rules_and_back_off() {
    let cluster = cluster(&[]);
    let rules = |action: &str, operator: &str, code: i32| {
        format!(
            ", restartPolicy: Never, restartPolicyRules: [{{action: {action}, exitCodes: {{operator: {operator}, values: [{code}]}}}}]"
        )
    };
    let volume = ", volumeMounts: [{name: v, mountPath: /v}]";
    let once = |code: i32| {
        format!("echo x >> /v/$HOSTNAME-$0; test $(wc -l < /v/$HOSTNAME-$0) -gt 1 || exit {code}; sleep 1000")
    };
    let own =
        |name: &str, script_: &str, more: &str| script(name, &script_.replace("$0", name), &format!("{more}{volume}"));
    let never = |containers: &[String]| {
        format!(
            "restartPolicy: Never, volumes: [{{name: v, emptyDir: {{}}}}], containers: [{}]",
            containers.join(", ")
        )
    };
    let pods = [
        pod(
            "crashes",
            &format!("containers: [{}]", script("c", "echo said; exit 3", "")),
        ),
        pod(
            "mixed",
            &never(&[
                own("always", &once(0), ", restartPolicy: Always"),
                own("onfailure", &once(4), ", restartPolicy: OnFailure"),
                own("done", "true", ", restartPolicy: OnFailure"),
                own("in", &once(42), &rules("Restart", "In", 42)),
                own("notin", &once(7), &rules("Restart", "NotIn", 42)),
                own("other", "exit 43", &rules("Restart", "In", 42)),
            ]),
        ),
        pod(
            "retries",
            &format!(
                "volumes: [{{name: v, emptyDir: {{}}}}], initContainers: [{}, {}], containers: [{}]",
                own("first", &once(1).replace("sleep 1000", "true"), ""),
                own("side", "exec sleep 1000", ", restartPolicy: Always"),
                own("c", "sleep 1000", ""),
            ),
        ),
        pod(
            "beside",
            &format!(
                "restartPolicy: Never, volumes: [{{name: v, emptyDir: {{}}}}], initContainers: [{}, {}], containers: [{}]",
                own(
                    "side",
                    "sleep 1; touch /v/up; until test -e /v/die; do sleep 0.1; done; rm /v/die; exit 7",
                    ", restartPolicy: Always, startupProbe: {exec: {command: [test, '-e', /v/up]}, periodSeconds: 1, failureThreshold: 60}",
                ),
                own("check", "test -e /v/up", ""),
                own("c", "exec sleep 1000", ""),
            ),
        ),
        pod(
            "anew",
            &format!(
                "restartPolicy: Never, volumes: [{{name: v, emptyDir: {{}}}}], initContainers: [{}, {}], containers: [{}, {}]",
                own("init", "echo x >> /v/init", ""),
                own("side", "exec sleep 1000", ", restartPolicy: Always"),
                own("a", &once(42), &rules("RestartAllContainers", "In", 42)),
                own("b", "echo x >> /v/b; exec sleep 1000", ""),
            ),
        ),
        pod(
            "words",
            &format!(
                "restartPolicy: Never, containers: [{}, {}, {}]",
                script(
                    "file",
                    "seq 1 3000 > /tmp/words; exit 1",
                    ", terminationMessagePath: /tmp/words"
                ),
                script(
                    "log",
                    "seq 1 200; printf end; exit 1",
                    ", terminationMessagePolicy: FallbackToLogsOnError"
                ),
                script("good", "echo fine", ", terminationMessagePolicy: FallbackToLogsOnError"),
            ),
        ),
    ];
    cluster.create(&pods.concat());
    // The first restart is at once; the second waits for 10 s from the end of the first, the third for 20 s.
    let uid = cluster.field("crashes", "{.metadata.uid}");
    let waiting = "{.status.containerStatuses[0].state.waiting.message}";
    let back_off = |time: &str| format!("back-off {time} restarting failed container=c pod=crashes_default({uid})");
    cluster.until("crashes", waiting, &back_off("10s"));
    assert_eq!(
        cluster.field("crashes", "{.status.containerStatuses[0].restartCount}"),
        "1"
    );
    until_event(
        &cluster,
        "crashes",
        "Warning",
        "BackOff",
        &format!("Back-off restarting failed container c in pod crashes_default({uid})"),
    );
    cluster.until("crashes", waiting, &back_off("20s"));
    assert_eq!(
        cluster.field("crashes", "{.status.containerStatuses[0].restartCount}"),
        "2"
    );
    assert_eq!(cluster.field("crashes", "{.status.phase}"), "Running");
    assert_eq!(cluster.kubectl(&["logs", "crashes", "--previous"]).ok(), "said\n");

    let restarts = |pod: &str, list: &str| {
        let object = object(&cluster, pod);
        let statuses = object["status"][list].as_array().cloned().unwrap_or_default();
        let one = |status: &Value| {
            let state = status["state"]
                .as_object()
                .and_then(|state| state.keys().next().cloned());
            format!(
                "{}={}{}",
                status["name"].as_str().unwrap_or_default(),
                state.unwrap_or_default(),
                status["restartCount"]
            )
        };
        statuses.iter().map(one).collect::<Vec<_>>().join(" ")
    };
    eventually("each container has restarted as it wants", || {
        let wanted = "always=running1 done=terminated0 in=running1 notin=running1 onfailure=running1 other=terminated0";
        (restarts("mixed", "containerStatuses") == wanted).then_some(())
    });
    assert_eq!(cluster.field("mixed", "{.status.phase}"), "Running");

    cluster.wait_ready("retries");
    assert_eq!(
        restarts("retries", "initContainerStatuses"),
        "first=terminated1 side=running0"
    );
    cluster.kubectl(&["exec", "retries", "-c", "c", "--", "true"]).ok();

    // What follows a sidecar waits until that has started; its own end is nobody else's.
    cluster.wait_ready("beside");
    cluster
        .kubectl(&["exec", "beside", "-c", "c", "--", "touch", "/v/die"])
        .ok();
    eventually("the sidecar is restarted", || {
        (restarts("beside", "initContainerStatuses") == "side=running1 check=terminated0").then_some(())
    });
    assert_eq!(restarts("beside", "containerStatuses"), "c=running0");
    assert_eq!(
        cluster.field(
            "beside",
            "{.status.initContainerStatuses[0].lastState.terminated.exitCode} {.status.phase}"
        ),
        "7 Running"
    );
    cluster.wait_ready("beside");

    eventually("all containers have started anew", || {
        let apps = restarts("anew", "containerStatuses") == "a=running1 b=running1";
        (apps && restarts("anew", "initContainerStatuses") == "init=terminated1 side=running1").then_some(())
    });
    cluster.wait_ready("anew");
    let files = cluster
        .kubectl(&["exec", "anew", "-c", "b", "--", "cat", "/v/init", "/v/b"])
        .ok();
    assert_eq!(
        files, "x\nx\nx\nx\n",
        "the volume stayed, and the init container ran twice"
    );
    let anew = object(&cluster, "anew");
    for list in ["initContainerStatuses", "containerStatuses"] {
        for status in anew["status"][list].as_array().expect("statuses") {
            let ended = &status["lastState"]["terminated"];
            assert_eq!(ended["reason"], "RestartingAllContainers", "{status}");
            assert_eq!(ended["exitCode"], 137, "{status}");
        }
    }
    let condition = |kind: &str| {
        let conditions = anew["status"]["conditions"].as_array().expect("conditions");
        conditions
            .iter()
            .find(|one| one["type"] == kind)
            .cloned()
            .unwrap_or_default()
    };
    assert_eq!(condition("AllContainersRestarting")["status"], "False");
    assert_eq!(condition("Initialized")["status"], "True");

    cluster.until("words", "{.status.phase}", "Failed");
    let words = object(&cluster, "words");
    let message = |name: &str| {
        let statuses = words["status"]["containerStatuses"].as_array().expect("statuses");
        let status = statuses.iter().find(|status| status["name"] == name).expect("a status");
        status["state"]["terminated"]["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    // Three containers share 12 KiB; a file gives its last 4096 bytes.
    let file = message("file");
    assert!(file.len() == 4096 && file.ends_with("\n2999\n3000\n"), "{file}");
    let log: String = (122..=200).map(|n| format!("{n}\n")).chain(["end\n".into()]).collect();
    assert_eq!(message("log"), log, "the last 80 lines");
    assert_eq!(message("good"), "", "an error is what logs explain");
}

#[test]
fn hooks_run_and_a_pod_ends_in_order() {
    let cluster = cluster(&[]);
    let notes = cluster.dir().join("notes");
    fs::create_dir_all(&notes).expect("a directory for notes");
    let volumes = format!("volumes: [{{name: v, hostPath: {{path: {}}}}}]", notes.display());
    let mounted = ", volumeMounts: [{name: v, mountPath: /v}]";
    // Says when it is told to end, takes its time, and ends.
    let ends = |file: &str, name: &str, signal: &str| {
        format!(
            "trap 'echo {name} >> /v/{file}; sleep 0.3; echo {name}-gone >> /v/{file}; exit 0' {signal}; while :; do sleep 0.05; done"
        )
    };
    let pre =
        |file: &str, name: &str| format!("preStop: {{exec: {{command: [sh, -c, 'echo pre-{name} >> /v/{file}']}}}}");
    let pods = [
        pod(
            "ordered",
            &format!(
                "{volumes}, initContainers: [{}, {}], containers: [{}]",
                script(
                    "s1",
                    &ends("ordered", "s1", "TERM"),
                    &format!(
                        ", restartPolicy: Always, lifecycle: {{{}}}{mounted}",
                        pre("ordered", "s1")
                    )
                ),
                script(
                    "s2",
                    &ends("ordered", "s2", "TERM"),
                    &format!(", restartPolicy: Always{mounted}")
                ),
                script(
                    "a",
                    &ends("ordered", "a", "TERM"),
                    &format!(", lifecycle: {{{}}}{mounted}", pre("ordered", "a"))
                ),
            ),
        ),
        pod(
            "job",
            &format!(
                "restartPolicy: Never, {volumes}, initContainers: [{}], containers: [{}]",
                script(
                    "s",
                    &ends("job", "s", "TERM"),
                    &format!(", restartPolicy: Always, lifecycle: {{{}}}{mounted}", pre("job", "s"))
                ),
                script("a", "sleep 1", ""),
            ),
        ),
        pod(
            "asked",
            &format!(
                "{volumes}, containers: [{}]",
                script(
                    "c",
                    "mkdir -p /www/cgi-bin; printf '#!/bin/sh\\necho $REQUEST_METHOD $HTTP_X_WHY >> /v/asked; echo; exit 1' > /www/cgi-bin/bye; chmod +x /www/cgi-bin/bye; exec httpd -f -p 8080 -h /www",
                    &format!(
                        ", readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}, ports: [{{name: web, containerPort: 8080}}], lifecycle: {{preStop: {{httpGet: {{port: web, path: /cgi-bin/bye, httpHeaders: [{{name: X-Why, value: end}}]}}}}}}{mounted}"
                    ),
                ),
            ),
        ),
        pod(
            "signalled",
            &format!(
                "os: {{name: linux}}, {volumes}, containers: [{}]",
                script(
                    "c",
                    &ends("signalled", "c", "USR1"),
                    &format!(", lifecycle: {{stopSignal: SIGUSR1}}{mounted}")
                ),
            ),
        ),
        pod(
            "slow",
            &format!(
                "terminationGracePeriodSeconds: 2, {volumes}, containers: [{}]",
                script(
                    "c",
                    "trap 'echo term >> /v/slow' TERM; while :; do sleep 0.05; done",
                    &format!(", lifecycle: {{preStop: {{sleep: {{seconds: 2}}}}}}{mounted}")
                ),
            ),
        ),
        pod(
            "bad-stop",
            &format!(
                "containers: [{}]",
                script(
                    "c",
                    "trap 'exit 0' TERM; while :; do sleep 0.05; done",
                    ", lifecycle: {preStop: {exec: {command: [sh, -c, 'echo secret >&2; exit 5']}}}"
                )
            ),
        ),
        pod(
            "bad-start",
            &format!(
                "containers: [{}]",
                script(
                    "c",
                    "exec sleep 1000",
                    ", lifecycle: {postStart: {exec: {command: [sh, -c, 'echo secret >&2; exit 5']}}}"
                )
            ),
        ),
        pod(
            "loud-start",
            &format!(
                "containers: [{}]",
                script(
                    "c",
                    "exec sleep 1000",
                    ", lifecycle: {postStart: {exec: {command: [sh, -c, 'yes | head -c 4000000; exit 5']}}}"
                )
            ),
        ),
        pod(
            "unasked",
            &format!(
                "containers: [{}]",
                script(
                    "c",
                    "exec sleep 1000",
                    ", lifecycle: {postStart: {httpGet: {port: 9, path: /x}}}"
                )
            ),
        ),
        pod(
            "unserved",
            &format!(
                "containers: [{}]",
                script(
                    "c",
                    "exec sleep 1000",
                    ", lifecycle: {postStart: {tcpSocket: {port: 9}}}"
                )
            ),
        ),
        pod(
            "late",
            &format!(
                "{volumes}, containers: [{}]",
                script(
                    "c",
                    &ends("late", "c", "TERM"),
                    &format!(", lifecycle: {{{}}}{mounted}", pre("late", "c"))
                )
            ),
        ),
    ];
    cluster.create(&pods.concat());
    let note = |name: &str| fs::read_to_string(notes.join(name)).unwrap_or_default();

    for name in ["ordered", "asked", "signalled", "slow", "bad-stop"] {
        cluster.wait_ready(name);
    }
    assert_eq!(
        cluster.field("signalled", "{.status.containerStatuses[0].stopSignal}"),
        "SIGUSR1"
    );
    cluster
        .kubectl(&["delete", "pod", "ordered", "asked", "signalled", "slow", "bad-stop"])
        .ok();
    let ordered = note("ordered");
    let mut hooks: Vec<&str> = ordered.lines().filter(|line| line.starts_with("pre-")).collect();
    hooks.sort_unstable();
    assert_eq!(hooks, ["pre-a", "pre-s1"], "{ordered}");
    let stops: Vec<&str> = ordered.lines().filter(|line| !line.starts_with("pre-")).collect();
    assert_eq!(stops, ["a", "a-gone", "s2", "s2-gone", "s1", "s1-gone"], "{ordered}");
    let before = ordered
        .split_once("a-gone")
        .map(|(before, _)| before)
        .unwrap_or_default();
    assert!(
        before.contains("pre-s1"),
        "a sidecar's hook does not wait for its turn: {ordered}"
    );
    assert_eq!(note("asked"), "GET end\n");
    assert_eq!(note("signalled"), "c\nc-gone\n");
    // The hook has used up the grace period, and the least that a container gets is left.
    assert_eq!(note("slow"), "term\n");
    until_event(
        &cluster,
        "bad-stop",
        "Warning",
        "FailedPreStopHook",
        "PreStopHook failed",
    );
    assert!(!cluster.events("bad-stop").contains("secret"));

    cluster.until("job", "{.status.phase}", "Succeeded");
    assert_eq!(note("job"), "pre-s\ns\ns-gone\n");
    assert_eq!(
        cluster.field("job", "{.status.conditions[?(@.type=='Ready')].reason}"),
        "PodCompleted"
    );

    let waiting = "{.status.containerStatuses[0].state.waiting";
    let uid = |pod: &str| cluster.field(pod, "{.metadata.uid}");
    for (name, said) in [
        (
            "bad-start",
            format!(
                "Exec lifecycle hook ([sh -c echo secret >&2; exit 5]) for Container \"c\" in Pod \"bad-start_default({})\" failed - error: command 'sh -c echo secret >&2; exit 5' exited with 5: secret\n, message: \"secret\\n\"",
                uid("bad-start")
            ),
        ),
        (
            // Its status is one that the API server takes, however much the hook says.
            "loud-start",
            format!(
                "Exec lifecycle hook ([sh -c yes | head -c 4000000; exit 5]) for Container \"c\" in Pod \"loud-start_default({})\" failed - error: command 'sh -c yes | head -c 4000000; exit 5' exited with 5: , message: \"y\\ny\\n",
                uid("loud-start")
            ),
        ),
        (
            "unasked",
            format!(
                "HTTP lifecycle hook (/x) for Container \"c\" in Pod \"unasked_default({})\" failed - error: Get \"http://",
                uid("unasked")
            ),
        ),
        ("unserved", "Cannot run handler: invalid handler: ".to_owned()),
    ] {
        until_event(&cluster, name, "Warning", "FailedPostStartHook", "PostStartHook failed");
        until_event(&cluster, name, "Normal", "Killing", "FailedPostStartHook");
        let told = eventually(&format!("PostStartHookError of {name}"), || {
            let told = cluster.field(name, &format!("{waiting}.reason}} {waiting}.message}}"));
            told.strip_prefix("PostStartHookError ").map(str::to_owned)
        });
        assert!(told.starts_with(&said), "{told}");
        assert!(!cluster.events(name).contains("secret"));
    }

    cluster.wait_ready("late");
    let deadline = r#"{"spec": {"activeDeadlineSeconds": 1}}"#;
    cluster.kubectl(&["patch", "pod", "late", "-p", deadline]).ok();
    cluster.until("late", "{.status.phase} {.status.reason}", "Failed DeadlineExceeded");
    assert_eq!(note("late"), "pre-c\nc\nc-gone\n", "it had its hook and its time");
}
