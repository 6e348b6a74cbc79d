//! The bundled kubectl beside upstream's: the same commands, the same words, the same exit codes.

use std::cell::RefCell;
use std::fs;
use std::process::Command;

use tests::{Cluster, Output, Terminal, eventually, run};

const TWO_CONTAINERS: &str = include_str!("../../examples/two-containers.yaml");

/// One file with several kinds.
const SEVERAL: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, labels: {tier: back}}
data: {colour: green, 'file.txt': \"two\\nlines\\n\"}
---
apiVersion: v1
kind: Secret
metadata: {name: hidden}
stringData: {password: s3cret}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: two-containers}, ports: [{name: http, port: 80}]}
";

/// Exit code, standard output, standard error.
type Said = (i32, String, String);

/// What a command said; the number of an exec is its own each time.
fn said(output: Output) -> Said {
    let stderr = match output.stderr.split_once("failed to start exec \"") {
        Some((before, after)) => format!("{before}{}", after.trim_start_matches(|c: char| c.is_ascii_digit())),
        None => output.stderr,
    };
    (output.code, output.stdout, stderr)
}

/// Both programs on one cluster.
struct Both {
    cluster: Cluster,
    /// All of them are told at the end, not only the first.
    differences: RefCell<Vec<String>>,
}

impl Both {
    fn own(&self) -> Command {
        let mut command = self.cluster.netns.command(tests::podium());
        command
            .arg("kubectl")
            .env("KUBECONFIG", self.cluster.kubeconfig())
            .env("HOME", self.cluster.dir());
        command
    }

    fn upstreams(&self) -> Command {
        self.cluster.kubectl_command()
    }

    fn compare(&self, args: &[&str], input: &str, ours: &Said, theirs: &Said) {
        if ours != theirs {
            self.differences.borrow_mut().push(format!(
                "kubectl {} <<<{input:?}\n--- own, exit code {}\n{}{}--- upstream's, exit code {}\n{}{}",
                args.join(" "),
                ours.0,
                ours.1,
                ours.2,
                theirs.0,
                theirs.1,
                theirs.2
            ));
        }
    }

    /// Compares what both say to a command that changes nothing. Ours must say what upstream's says just before or just
    /// after: an age that moves on between them is no difference.
    fn same(&self, args: &[&str], input: &str) {
        let mut theirs = said(run(self.upstreams().args(args), input));
        let mut ours = said(run(self.own().args(args), input));
        for _ in 0..5 {
            if ours == theirs {
                return;
            }
            let after = said(run(self.upstreams().args(args), input));
            if after == theirs {
                break;
            }
            theirs = after;
            if ours != theirs {
                ours = said(run(self.own().args(args), input));
            }
        }
        self.compare(args, input, &ours, &theirs);
    }

    /// Compares what both say to commands that change something, each in a namespace of its own.
    fn same_changes(&self, steps: &[(&[&str], &str)]) {
        for namespace in ["own-side", "upstream"] {
            self.cluster.kubectl(&["create", "namespace", namespace]).ok();
        }
        for (args, input) in steps {
            let ours = run(self.own().args(["-n", "own-side"]).args(*args), input);
            let theirs = run(self.upstreams().args(["-n", "upstream"]).args(*args), input);
            let plain = |(code, stdout, stderr): Said| {
                let plain = |text: String| text.replace("own-side", "NAMESPACE").replace("upstream", "NAMESPACE");
                (code, plain(stdout), plain(stderr))
            };
            self.compare(args, input, &plain(said(ours)), &plain(said(theirs)));
        }
    }
}

#[test]
fn the_bundled_kubectl_says_what_upstreams_says() {
    let both = Both {
        cluster: Cluster::start(),
        differences: RefCell::default(),
    };
    let cluster = &both.cluster;
    let created = run(both.own().args(["create", "-f", "-"]), TWO_CONTAINERS).ok();
    assert_eq!(created, "pod/two-containers created\n");
    // The proxy to the world outside is none to the cluster.
    let mut beside = both.own();
    beside.env("HTTPS_PROXY", "http://127.0.0.1:9");
    assert_eq!(
        run(beside.args(["get", "pods", "-o", "name"]), "").ok(),
        "pod/two-containers\n"
    );
    cluster.create(SEVERAL);
    cluster.create("{apiVersion: v1, kind: Pod, metadata: {name: unplaced, labels: {app: none}}, spec: {nodeSelector: {no: where}, containers: [{name: main, image: 'localhost/busybox:1'}]}}");
    cluster.wait_ready("two-containers");
    eventually("all events are there", || {
        let described = cluster.kubectl(&["describe", "pods"]).ok();
        (described.matches("Container started").count() == 2 && described.contains("FailedScheduling")).then_some(())
    });

    // One word a column: no argument here holds a space but those that are given apart.
    for line in [
        "get pods",
        "get pods --no-headers",
        "get po,cm,secrets,svc",
        "get pods -o wide",
        "get pods --show-labels",
        "get pods -L app,none",
        "get pods -A",
        "get pods -A -o wide",
        "get pods -A -o name",
        "get pod/two-containers cm/settings",
        "get pod two-containers unplaced",
        "get pod two-containers -o name",
        "get pod two-containers -o json",
        "get pod two-containers -o yaml",
        "get pod two-containers -o yaml --show-managed-fields",
        "get pods -o json",
        "get pods -o yaml",
        "get pods,cm -o name",
        "get pods,cm -o yaml",
        "get pods -l app=two-containers",
        "get pods -l app!=two-containers -o name",
        "get pods -l app=nobody",
        "get pods -l app=nobody -n kube-system",
        "get pods --field-selector status.phase=Pending -o name",
        "get pods --field-selector spec.nodeName=node,status.phase=Running",
        "get pods --sort-by .metadata.name",
        "get pods --sort-by {.status.phase} -o name",
        "get pods -o jsonpath={.items[*].metadata.name}",
        "get pods -o jsonpath={.items[*].status['phase','qosClass']}",
        "get pods -o jsonpath={.items[?(@.status.phase==\"Running\")].metadata.name}",
        "get pods -o jsonpath={.items[0].spec.containers[-1:].name}",
        "get pods -o custom-columns=N:.metadata.name,I:.spec.containers[*].image,X:.none",
        "get pods -o custom-columns=N:.metadata.name --no-headers",
        "get nodes",
        "get nodes -o wide",
        "get nodes -o name",
        "get node node -o yaml",
        "get namespaces",
        "get ns default -o json",
        "get configmaps -o wide",
        "get cm settings -o yaml",
        "get secret hidden -o json",
        "get services -A",
        "get serviceaccounts -A",
        "get leases -A -o name",
        "get priorityclasses",
        "get endpointslices -A -o name",
        "get events -o name",
        "get events",
        "get events --field-selector involvedObject.name=unplaced -o custom-columns=R:.reason,M:.message",
        "get all",
        "get --raw /version",
        "get --raw /readyz",
        "describe pod two-containers",
        "describe pod/unplaced",
        "describe pods -l app=two-containers",
        "describe pod two-containers --show-events=false",
        "describe node node",
        "describe nodes",
        "describe pod two",
        "logs two-containers -c nginx --tail=2",
        "logs two-containers nginx --tail=1 --timestamps",
        "logs two-containers",
        "logs two-containers --all-containers --prefix",
        "logs pod/two-containers -c nginx --since=1h --limit-bytes=20",
        "logs two-containers -c nginx --since-time=2100-01-01T00:00:00Z",
        "logs -l app=two-containers -c nginx --tail=1 --prefix",
        "exec two-containers -c busybox -- cat /etc/hosts",
        "exec pod/two-containers -c busybox -- sh -c exit\u{a0}5",
        "exec two-containers -c busybox -- no-such-program",
        "api-resources",
        "api-resources -o name",
        "api-resources -o wide",
        "api-resources --namespaced=false --no-headers",
        "api-resources --api-group= --verbs=list,watch -o name",
        "cluster-info",
        "config current-context",
        "config view",
        // What goes wrong.
        "get pod nobody",
        "get pod nobody two-containers",
        "get pod nobody --ignore-not-found",
        "get nothings",
        "get pods.v9.none",
        "get pod/two-containers pods",
        "get pods -o jsonpath={.items[*",
        "get pods -l app=(",
        "get pods --field-selector spec.none=x",
        "get pods --field-selector spec",
        "get",
        "get pods -n nowhere",
        "get --raw /nowhere",
        "describe pod nobody",
        "describe nothings",
        "logs nobody",
        "logs two-containers -c nobody",
        "logs two-containers --previous -c nginx",
        "logs unplaced",
        "logs two-containers --since=soon",
        "exec nobody -- true",
        "exec two-containers -c nobody -- true",
        "exec two-containers",
        "exec unplaced -- true",
        "delete pod nobody",
        "delete pod",
        "delete nothings x",
        "delete pod nobody --ignore-not-found",
        "delete pod two-containers --dry-run=server",
        "delete pod two-containers --dry-run=client",
        "delete pods --all --dry-run=server",
        "delete pod two-containers --dry-run=client -o name",
        "create",
        "create -f /nowhere.yaml",
        "apply -f /nowhere.yaml",
        "apply",
    ] {
        let args: Vec<_> = line.split(' ').map(|word| word.replace('\u{a0}', " ")).collect();
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        both.same(&args, "");
    }
    both.same(
        &[
            "get",
            "pod",
            "two-containers",
            "-o",
            "jsonpath={range .spec.containers[*]}{.name}{\"\\t\"}{.image}{\"\\n\"}{end}",
        ],
        "",
    );
    let bad = [
        "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: c, imagee: x}]}}",
        "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{image: x}], restartPolicy: Sometimes}}",
        "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: c, image: x, ports: [{containerPort: eighty}]}]}}",
        "{apiVersion: v1, kind: Pod, metadata: {}, spec: {containers: [{name: c, image: x}]}}",
        "{apiVersion: v1, kind: Pod, metadata: {name: Not_Valid}, spec: {containers: [{name: c, image: x}]}}",
        "{apiVersion: v1, kind: Podd, metadata: {name: a}}",
        "{apiVersion: v9, kind: Pod, metadata: {name: a}}",
        "{kind: Pod, metadata: {name: a}}",
        "{apiVersion: v1, metadata: {name: a}}",
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: nowhere}}",
        "not a manifest",
        "a: [",
        "",
        TWO_CONTAINERS,
    ];
    for input in bad {
        both.same(&["create", "-f", "-"], input);
        both.same(&["create", "-f", "-", "--dry-run=server", "-o", "name"], input);
        both.same(&["apply", "-f", "-", "--dry-run=server"], input);
    }
    for args in [
        &["create", "-f", "-", "--dry-run=client"][..],
        &["create", "-f", "-", "--dry-run=client", "-o", "yaml"],
        &["apply", "-f", "-", "--dry-run=client"],
    ] {
        both.same(args, TWO_CONTAINERS);
        both.same(args, SEVERAL);
    }

    let dir = cluster.dir().join("manifests");
    fs::create_dir(&dir).expect("a directory");
    fs::write(dir.join("several.yaml"), SEVERAL).expect("a manifest");
    let dir = dir.to_string_lossy().into_owned();
    let changed = SEVERAL.replace("green", "blue");
    let unplaced = "{apiVersion: v1, kind: Pod, metadata: {name: unplaced}, spec: {nodeSelector: {no: where}, containers: [{name: main, image: 'localhost/busybox:1'}]}}";
    let generated = "{apiVersion: v1, kind: ConfigMap, metadata: {generateName: made-}}";
    both.same_changes(&[
        (&["create", "-f", &dir], ""),
        (&["create", "-f", &dir], ""),
        (&["apply", "-f", "-"], SEVERAL),
        (&["apply", "-f", "-"], SEVERAL),
        (&["apply", "-f", "-"], &changed),
        (&["get", "cm", "settings", "-o", "jsonpath={.data.colour}"], ""),
        (&["create", "-f", "-", "-o", "name"], unplaced),
        (&["apply", "-f", "-"], generated),
        (&["delete", "pod", "unplaced", "--grace-period=0", "--force"], ""),
        (
            &["delete", "-f", "-", "-o", "name"],
            "{apiVersion: v1, kind: Secret, metadata: {name: hidden}}",
        ),
        (&["delete", "-f", &dir], ""),
        (&["delete", "cm", "--all"], ""),
        (&["delete", "cm", "--all"], ""),
        // By name: the authority's ConfigMap has just been made anew, and its age is read at two moments.
        (&["get", "cm,secrets,svc", "-o", "name"], ""),
    ]);

    let differences = both.differences.take();
    assert!(
        differences.is_empty(),
        "{} differences\n\n{}",
        differences.len(),
        differences.join("\n\n")
    );

    watches_see_the_same(&both);

    let deleted = run(both.own().args(["delete", "pod", "two-containers", "--now"]), "").ok();
    assert_eq!(deleted, "pod \"two-containers\" deleted from default namespace\n");
    assert_eq!(
        cluster
            .kubectl(&["get", "pods", "-l", "app=two-containers", "-o", "name"])
            .ok(),
        ""
    );
}

/// Both watch a pod come and go.
fn watches_see_the_same(both: &Both) {
    let columns = "jsonpath={.type} {.object.metadata.name} {.object.status.phase} {.object.metadata.deletionGracePeriodSeconds};";
    let args = [
        "get",
        "pods",
        "-n",
        "default",
        "-w",
        "--output-watch-events",
        "-l",
        "app=watched",
        "-o",
        columns,
    ];
    let watch = |mut command: Command| {
        command.args(args);
        Terminal::start(command, 24, 200)
    };
    both.cluster.create("{apiVersion: v1, kind: Pod, metadata: {name: anchor, labels: {app: watched}}, spec: {nodeSelector: {no: where}, containers: [{name: main, image: 'localhost/busybox:1'}]}}");
    let mut watches = [watch(both.own()), watch(both.upstreams())];
    for watch in &mut watches {
        watch.expect("anchor");
    }
    both.cluster.create("{apiVersion: v1, kind: Pod, metadata: {name: watched, labels: {app: watched}}, spec: {terminationGracePeriodSeconds: 1, containers: [{name: main, image: 'localhost/busybox:1', command: [sleep, 12h]}]}}");
    both.cluster.wait_ready("watched");
    both.cluster.kubectl(&["delete", "pod", "watched"]).ok();
    let seen: Vec<_> = watches
        .iter_mut()
        .map(|watch| watch.expect("DELETED") + &watch.expect(";"))
        .collect();
    assert_eq!(seen[0], seen[1]);
    assert!(seen[0].contains("ADDED") && seen[0].contains("Running"), "{}", seen[0]);
    for mut watch in watches {
        watch.send("\x03");
        watch.wait();
    }
}
