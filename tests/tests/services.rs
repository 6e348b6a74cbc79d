//! Services and names, as users have them: one file with a Deployment and a Service in front of it.

use std::collections::BTreeSet;
use std::process::Stdio;

use tests::{Cluster, Options, eventually, run};

const WEB: &str = include_str!("../../examples/web.yaml");

/// The node's address and port of the example.
const NODE_PORT: &str = "http://192.0.2.10:30090/";

/// So many requests leave none of ten pods out but once in a million times.
const ENOUGH: usize = 150;

/// A pod that asks the others: with busybox, and with what asks glibc for names.
const CLIENT: &str = "{apiVersion: v1, kind: Pod, metadata: {name: client, namespace: demo}, spec: {terminationGracePeriodSeconds: 0, \
    containers: [{name: busybox, image: 'localhost/busybox:1', command: [sleep, 12h]}, \
    {name: glibc, image: 'localhost/web:1', command: [sleep, 12h]}]}}";

fn cluster() -> Cluster {
    let cluster = Cluster::with(Options {
        images: &["web", "web-2", "busybox"],
        ..Options::default()
    });
    cluster.kubectl_with(&["apply", "-f", "-"], WEB).ok();
    cluster.create(CLIENT);
    rolled_out(&cluster);
    k(
        &cluster,
        &["wait", "--for=condition=Ready", "pod/client", "--timeout=60s"],
    );
    cluster
}

fn k(cluster: &Cluster, args: &[&str]) -> String {
    let all: Vec<&str> = ["-n", "demo"].iter().chain(args).copied().collect();
    cluster.kubectl(&all).ok()
}

fn rolled_out(cluster: &Cluster) {
    let args = ["-n", "demo", "rollout", "status", "deployment/web", "--timeout=120s"];
    let rolled = cluster.kubectl(&args);
    if rolled.code != 0 {
        let pods = cluster.kubectl(&["-n", "demo", "describe", "pods"]);
        panic!("{rolled}\n{pods}\n{}", cluster.log());
    }
}

/// The pods that answered so many requests, each `web VERSION on POD`.
fn pods(answers: &str, requests: usize) -> BTreeSet<String> {
    let answers: Vec<&str> = answers.lines().collect();
    assert_eq!(answers.len(), requests, "every request is answered: {answers:?}");
    let pod = |line: &&str| line.rsplit(' ').next().unwrap_or_default().to_owned();
    answers.iter().map(pod).collect()
}

fn from_outside(cluster: &Cluster, requests: usize) -> BTreeSet<String> {
    let ask = format!("for i in $(seq {requests}); do curl -sS -m 5 {NODE_PORT}; done");
    pods(
        &run(cluster.outside().command("sh").args(["-c", &ask]), "").ok(),
        requests,
    )
}

/// By bash, which asks glibc for names.
fn from_pod(cluster: &Cluster, host: &str, requests: usize) -> BTreeSet<String> {
    let request = format!("exec 3<>/dev/tcp/{host}/80; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; tail -n 1 <&3");
    let ask = format!("for i in $(seq {requests}); do {request}; done");
    pods(
        &k(cluster, &["exec", "client", "-c", "glibc", "--", "bash", "-c", &ask]),
        requests,
    )
}

/// The pods that are ready by the Service's slices.
fn ready(cluster: &Cluster) -> BTreeSet<String> {
    let path = "{range .items[*].endpoints[?(@.conditions.ready==true)]}{.targetRef.name}{'\\n'}{end}";
    let args = ["get", "endpointslices", "-l", "kubernetes.io/service-name=site", "-o"];
    let slices = k(cluster, &[&args[..], &[&format!("jsonpath={path}")]].concat());
    slices.lines().map(str::to_owned).collect()
}

#[test]
fn ten_replicas_are_reached_by_port_address_and_name() {
    let mut cluster = cluster();
    let all = ready(&cluster);
    assert_eq!(all.len(), 10, "{all:?}");

    assert_eq!(from_outside(&cluster, ENOUGH), all, "by the node's port");
    let address = k(
        &cluster,
        &["get", "service", "site", "-o", "jsonpath={.spec.clusterIP}"],
    );
    for host in [&address, "site", "site.demo.svc.cluster.local"] {
        assert_eq!(from_pod(&cluster, host, ENOUGH), all, "{host}");
    }
    let by_node = format!("for i in $(seq {ENOUGH}); do curl -sS -m 5 http://{address}/; done");
    let by_node = run(cluster.netns.command("sh").args(["-c", &by_node]), "").ok();
    assert_eq!(pods(&by_node, ENOUGH), all, "from the node itself");

    names(&cluster);
    columns_and_variables(&cluster, &address);
    refusals(&cluster, &address);

    // A pod that says it is not ready gets nothing, until it is again.
    let broken = all.first().expect("a pod").clone();
    k(&cluster, &["exec", &broken, "--", "touch", "/tmp/broken"]);
    eventually("the broken pod is taken out", || {
        (!ready(&cluster).contains(&broken)).then_some(())
    });
    let others: BTreeSet<String> = all.iter().filter(|pod| **pod != broken).cloned().collect();
    assert_eq!(from_outside(&cluster, ENOUGH), others);
    k(&cluster, &["exec", &broken, "--", "rm", "/tmp/broken"]);
    eventually("the mended pod is back", || (ready(&cluster) == all).then_some(()));
    eventually("and is asked", || (from_outside(&cluster, ENOUGH) == all).then_some(()));

    // Services go on without the server, and after it.
    cluster.kill_server();
    assert_eq!(from_outside(&cluster, ENOUGH), all, "without a server");
    cluster.start_server();
    assert_eq!(from_outside(&cluster, ENOUGH), all, "with a new one");
    assert_eq!(
        k(
            &cluster,
            &["get", "service", "site", "-o", "jsonpath={.spec.clusterIP}"]
        ),
        address
    );
    refusals(&cluster, &address);

    k(&cluster, &["delete", "service", "site"]);
    eventually("nothing is left of the Service", || {
        let left = k(&cluster, &["get", "endpoints,endpointslices", "-o", "name"]);
        left.is_empty().then_some(())
    });
    let gone = run(
        cluster.outside().command("curl").args(["-sS", "-m", "5", NODE_PORT]),
        "",
    )
    .fails();
    assert!(gone.contains("refused") || gone.contains("Failed to connect"), "{gone}");
}

/// Names from a pod: by glibc's resolver, by busybox' own, and what there is no name for.
fn names(cluster: &Cluster) {
    let glibc = |script: &str| k(cluster, &["exec", "client", "-c", "glibc", "--", "bash", "-c", script]);
    let exec = |script: &str| k(cluster, &["exec", "client", "-c", "busybox", "--", "sh", "-c", script]);
    let resolv_conf = exec("cat /etc/resolv.conf");
    assert!(resolv_conf.contains("nameserver 10.96.0.10\n"), "{resolv_conf}");
    assert!(
        resolv_conf.contains("search demo.svc.cluster.local svc.cluster.local cluster.local"),
        "{resolv_conf}"
    );
    // bash asks glibc, with search domains.
    let page = glibc("exec 3<>/dev/tcp/site.demo/80; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3");
    assert!(page.contains("web 1 on web-"), "{page}");
    glibc("exec 3<>/dev/tcp/kubernetes.default/443");
    for name in ["kubernetes.default", "kubernetes.default.svc.cluster.local"] {
        let found = exec(&format!("nslookup {name}"));
        assert!(found.contains("Address: 10.96.0.1"), "{found}");
    }
    let found = exec("nslookup -type=srv _http._tcp.site.demo.svc.cluster.local");
    assert!(found.contains("80 site.demo.svc.cluster.local"), "{found}");
    let found = exec("nslookup 10.96.0.10");
    assert!(found.contains("kube-dns.kube-system.svc.cluster.local"), "{found}");
    let missing = exec("nslookup nobody.demo.svc.cluster.local; true");
    assert!(missing.contains("NXDOMAIN"), "{missing}");
    // There is no resolver to ask in this namespace: that is said and not waited for.
    let outside = exec("time nslookup example.org; true");
    assert!(
        outside.contains("SERVFAIL") || outside.contains("can't resolve"),
        "{outside}"
    );
}

fn columns_and_variables(cluster: &Cluster, address: &str) {
    let table = k(cluster, &["get", "services", "site"]);
    let row: Vec<&str> = table.lines().nth(1).unwrap_or_default().split_whitespace().collect();
    assert_eq!(
        row[..5],
        ["site", "NodePort", address, "<none>", "80:30090/TCP"],
        "{table}"
    );
    let described = k(cluster, &["describe", "service", "site"]);
    let endpoints = described.lines().find(|line| line.starts_with("Endpoints:"));
    assert!(
        endpoints.is_some_and(|line| line.contains(":8090,") && line.contains(" + 7 more...")),
        "{described}"
    );
    let system = cluster
        .kubectl(&["-n", "kube-system", "get", "service", "kube-dns"])
        .ok();
    assert!(
        system.contains("10.96.0.10") && system.contains("53/UDP,53/TCP"),
        "{system}"
    );
    let kubernetes = cluster.kubectl(&["get", "endpointslices", "kubernetes"]).ok();
    assert!(kubernetes.contains("192.0.2.10"), "{kubernetes}");
    // Started after the Service was there.
    let pod = ready(cluster).pop_first().expect("a pod");
    let env = k(cluster, &["exec", &pod, "--", "env"]);
    for line in ["KUBERNETES_SERVICE_HOST=10.96.0.1", "KUBERNETES_SERVICE_PORT=443"] {
        assert!(env.contains(line), "{line} is not in\n{env}");
    }
    cluster.create("{apiVersion: v1, kind: Pod, metadata: {name: later, namespace: demo}, spec: {restartPolicy: Never, containers: [{name: main, image: 'localhost/web:1', command: [env]}]}}");
    k(
        cluster,
        &[
            "wait",
            "--for=jsonpath={.status.phase}=Succeeded",
            "pod/later",
            "--timeout=60s",
        ],
    );
    let env = k(cluster, &["logs", "later"]);
    for line in [
        format!("SITE_SERVICE_HOST={address}"),
        "SITE_SERVICE_PORT=80".into(),
        "SITE_SERVICE_PORT_HTTP=80".into(),
        format!("SITE_PORT=tcp://{address}:80"),
        format!("SITE_PORT_80_TCP_ADDR={address}"),
    ] {
        assert!(env.contains(&line), "{line} is not in\n{env}");
    }
    k(cluster, &["delete", "pod", "later"]);
}

/// What is taken stays taken, before and after a restart.
fn refusals(cluster: &Cluster, address: &str) {
    let refused = |spec: &str| {
        let service =
            format!("{{apiVersion: v1, kind: Service, metadata: {{name: other, namespace: demo}}, spec: {spec}}}");
        cluster.kubectl_with(&["create", "-f", "-"], &service).fails()
    };
    let port = refused("{type: NodePort, ports: [{port: 80, nodePort: 30090}]}");
    let message = "spec.ports[0].nodePort: Invalid value: 30090: provided port is already allocated";
    assert!(port.contains(message), "{port}");
    let port = refused("{type: NodePort, ports: [{port: 80, nodePort: 80}]}");
    let message = "provided port is not in the valid range. The range of valid ports is 30000-32767";
    assert!(port.contains(message), "{port}");
    let taken = refused(&format!("{{clusterIP: {address}, ports: [{{port: 80}}]}}"));
    assert!(taken.contains("provided IP is already allocated"), "{taken}");
}

#[test]
fn a_rollout_under_load_loses_no_request() {
    let cluster = cluster();
    // The loads end with this file, and with its directory when the test fails.
    let go = cluster.dir().join("go");
    std::fs::write(&go, "").expect("the loads may go on");
    let (while_going, reached) = (format!("while [ -e {} ]", go.display()), cluster.outside());
    let load = |script: &str| {
        let mut sh = reached.command("sh");
        sh.args(["-c", script]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let load = sh.spawn().expect("the load starts");
        // Answers are read while they come: a pipe holds only so many.
        std::thread::spawn(move || load.wait_with_output().expect("the load ends"))
    };
    // Several clients at a time. Some make a connection for each request, some ask several times on one that they keep;
    // when that was closed between two requests they make another, as HTTP wants it.
    let single = format!("{while_going}; do curl -sS -m 10 {NODE_PORT}; done");
    let kept = format!("{while_going}; do curl -sS -m 10 --fail-early '{NODE_PORT}?[1-100]'; done");
    let loads: Vec<_> = [&single, &single, &kept, &kept].map(|script| load(script)).into();
    k(&cluster, &["set", "image", "deployment/web", "web=localhost/web:2"]);
    rolled_out(&cluster);
    eventually("only new pods are ready", || {
        (ready(&cluster).len() == 10).then_some(())
    });
    let answer = run(
        cluster.outside().command("curl").args(["-sS", "-m", "5", NODE_PORT]),
        "",
    )
    .ok();
    assert!(answer.starts_with("web 2 on "), "{answer}");
    std::fs::remove_file(&go).expect("the loads are told to stop");
    for load in loads {
        let said = load.join().expect("the load's thread");
        let (answers, errors) = (
            String::from_utf8_lossy(&said.stdout),
            String::from_utf8_lossy(&said.stderr),
        );
        assert!(errors.is_empty(), "of {} requests: {errors}", answers.lines().count());
        let seen: BTreeSet<&str> = answers.lines().map(|line| line.get(..5).unwrap_or(line)).collect();
        assert_eq!(
            seen,
            BTreeSet::from(["web 1", "web 2"]),
            "each load went on through the rollout"
        );
    }

    // The first comes back, and nothing is left when the namespace goes.
    assert_eq!(
        k(&cluster, &["rollout", "undo", "deployment/web"]),
        "deployment.apps/web rolled back\n"
    );
    rolled_out(&cluster);
    let ask = || {
        run(
            cluster.outside().command("curl").args(["-sS", "-m", "5", NODE_PORT]),
            "",
        )
        .stdout
    };
    eventually("only the first's pods are asked", || {
        (0..20).all(|_| ask().starts_with("web 1 on ")).then_some(())
    });
    let address = k(
        &cluster,
        &["get", "service", "site", "-o", "jsonpath={.spec.clusterIP}"],
    );
    assert!(rules(&cluster).contains(&address));
    cluster.kubectl(&["delete", "namespace", "demo", "--timeout=90s"]).ok();
    nothing_is_left(&cluster, &address);
}

/// What the node does with packets to Services.
fn rules(cluster: &Cluster) -> String {
    let mut nft = cluster.netns.command("nft");
    run(nft.args(["-n", "list", "table", "ip", "podium-services"]), "").ok()
}

/// Nothing is left of the namespace, and another of its name can have all that it had.
fn nothing_is_left(cluster: &Cluster, address: &str) {
    let kinds = ["api-resources", "--namespaced", "--verbs=list", "-o", "name"];
    let kinds = cluster.kubectl(&kinds).ok();
    let kinds: Vec<&str> = kinds.lines().collect();
    for kind in ["pods", "configmaps", "leases.coordination.k8s.io", "replicasets.apps"] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
    let left = cluster
        .kubectl(&["get", &kinds.join(","), "-n", "demo", "-o", "name"])
        .ok();
    assert!(left.is_empty(), "{left}");
    eventually("no container is left", || {
        (cluster.podium(&["ps"]).ok().lines().count() == 1).then_some(())
    });
    eventually("no rule is left", || {
        let rules = rules(cluster);
        (!rules.contains("30090") && !rules.contains(address)).then_some(())
    });

    cluster.kubectl(&["create", "namespace", "demo"]).ok();
    let service = format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: again, namespace: demo}}, \
         spec: {{type: NodePort, clusterIP: {address}, ports: [{{port: 80, nodePort: 30090}}]}}}}"
    );
    cluster.create(&service);
    // What each namespace has comes back when somebody deletes it.
    for object in ["serviceaccount/default", "configmap/kube-root-ca.crt"] {
        k(cluster, &["wait", "--for=create", object, "--timeout=30s"]);
        let uid = || {
            let args = ["-n", "demo", "get", object, "-o", "jsonpath={.metadata.uid}"];
            cluster.kubectl(&args).stdout
        };
        let before = uid();
        k(cluster, &["delete", object]);
        eventually("it is back", || {
            let now = uid();
            (!now.is_empty() && now != before).then_some(())
        });
    }
}
