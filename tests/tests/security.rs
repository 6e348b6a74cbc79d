//! Who containers are, what they may do, and what they share: security contexts, namespaces, names, on real containers.

use std::fs;
use std::path::Path;
use std::process::Command;

use tests::{Cluster, Options, layered, run, variant};

/// A pod with a container `c` that sleeps: the flow YAML of its spec, of its container beside that, and of what its metadata has.
fn pod(name: &str, spec: &str, own: &str) -> String {
    let spec = if spec.is_empty() {
        String::new()
    } else {
        format!("{spec}, ")
    };
    let own = if own.is_empty() {
        String::new()
    } else {
        format!(", {own}")
    };
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 1, {spec}containers: [{{name: c, image: 'localhost/busybox:1', command: [sleep, '1000']{own}}}]}}}}\n---\n"
    )
}

fn with_context(name: &str, context: &str) -> String {
    pod(name, "", &format!("securityContext: {{{context}}}"))
}

/// A tar file of plain files.
fn layer(files: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        archive
            .append_data(&mut header, path, text.as_bytes())
            .expect("a file in memory");
    }
    archive.into_inner().expect("an archive in memory")
}

/// A line of /proc/self/status of a process in a container, without its name.
fn status(cluster: &Cluster, pod: &str, name: &str) -> String {
    let text = cluster.exec(pod, "cat /proc/self/status");
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.unwrap_or_else(|| panic!("{name} in {text}")).trim().to_owned()
}

/// The capabilities of a process that has these, as the kernel shows them.
fn capabilities(numbers: &[u32]) -> String {
    format!("{:016x}", numbers.iter().fold(0u64, |set, number| set | 1 << number))
}

/// What a command in a container says on its standard error as it fails.
fn refused(cluster: &Cluster, pod: &str, script: &str) -> String {
    cluster.kubectl(&["exec", pod, "--", "sh", "-c", script]).fails()
}

const ACCOUNTS: [(&str, &str); 2] = [
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\ndefault-user:x:1000:1000::/home:/bin/sh\n",
    ),
    (
        "etc/group",
        "root:x:0:\ndefault-user:x:1000:\ngroup-in-image:x:50000:default-user\n",
    ),
];

#[test]
fn containers_are_and_may_what_their_pods_say() {
    let mut cluster = Cluster::prepare(Options {
        images: &["busybox"],
        flags: vec!["--allowed-unsafe-sysctls=kernel.msg*".into()],
        ..Options::default()
    });
    let images = cluster.data_dir().join("images");
    layered(&images, "busybox", "localhost/accounts:1", layer(&ACCOUNTS));
    variant(&images, "busybox", "localhost/named:1", |config| {
        config["User"] = "www-data".into();
    });
    cluster.start_server();
    let profiles = cluster.data_dir().join("kubelet/seccomp/profiles");
    fs::create_dir_all(&profiles).expect("a directory");
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["chmod", "fchmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO"}]}"#;
    fs::write(profiles.join("no-chmod.json"), profile).expect("a profile");

    let accounts = |name: &str, policy: &str| {
        let spec = format!(
            "securityContext: {{runAsUser: 1000, supplementalGroups: [4000], fsGroup: 5000, supplementalGroupsPolicy: {policy}}}"
        );
        pod(name, &spec, "").replace("localhost/busybox:1", "localhost/accounts:1")
    };
    let sysctl = |name: &str, sysctl: &str, value: &str| {
        let spec = format!("securityContext: {{sysctls: [{{name: {sysctl}, value: '{value}'}}]}}");
        pod(name, &spec, "")
    };
    let pods = [
        pod("plain", "", ""),
        accounts("merged", "Merge"),
        accounts("strict", "Strict"),
        pod(
            "grouped",
            "securityContext: {runAsUser: 7, runAsGroup: 8}",
            "securityContext: {runAsUser: 9}",
        ),
        with_context("few", "capabilities: {drop: [ALL], add: [NET_ADMIN, CAP_CHOWN]}"),
        with_context("fewer", "capabilities: {drop: [NET_RAW, MKNOD]}"),
        with_context("privileged", "privileged: true"),
        pod(
            "read-only",
            "volumes: [{name: v, emptyDir: {}}]",
            "securityContext: {readOnlyRootFilesystem: true}, volumeMounts: [{name: v, mountPath: /v}]",
        ),
        with_context("gains-nothing", "allowPrivilegeEscalation: false, runAsUser: 7"),
        pod(
            "default-filter",
            "securityContext: {seccompProfile: {type: RuntimeDefault}}",
            "",
        ),
        pod(
            "no-filter",
            "securityContext: {seccompProfile: {type: RuntimeDefault}}",
            "securityContext: {seccompProfile: {type: Unconfined}}",
        ),
        with_context(
            "own-filter",
            "seccompProfile: {type: Localhost, localhostProfile: profiles/no-chmod.json}",
        ),
        with_context(
            "lost-filter",
            "seccompProfile: {type: Localhost, localhostProfile: profiles/later.json}",
        ),
        sysctl("safe", "net.ipv4.ip_local_port_range", "40000 40100"),
        sysctl("allowed", "kernel.msgmax", "16384"),
        sysctl("forbidden", "kernel.shmmax", "16384"),
        pod(
            "labelled",
            "securityContext: {seLinuxOptions: {level: 's0:c1,c2'}, appArmorProfile: {type: RuntimeDefault}}",
            "",
        ),
        with_context(
            "profiled",
            "appArmorProfile: {type: Localhost, localhostProfile: nowhere}",
        ),
        pod("named", "securityContext: {runAsNonRoot: true}", "").replace("localhost/busybox:1", "localhost/named:1"),
        pod("root", "securityContext: {runAsNonRoot: true, runAsUser: 0}", ""),
    ];
    cluster.create(&pods.concat());

    // Users and groups, and what the status says of them.
    for (name, groups, listed) in [
        ("merged", "1000 4000 5000 50000\n", "[1000,50000,4000,5000]"),
        ("strict", "1000 4000 5000\n", "[1000,4000,5000]"),
    ] {
        cluster.wait_ready(name);
        assert_eq!(cluster.exec(name, "id -G"), groups);
        let user = cluster.field(name, "{.status.containerStatuses[0].user.linux}");
        assert_eq!(
            user,
            format!("{{\"gid\":1000,\"supplementalGroups\":{listed},\"uid\":1000}}")
        );
    }
    cluster.wait_ready("grouped");
    assert_eq!(cluster.exec("grouped", "id -u; id -g"), "9\n8\n");
    let message = "{.status.containerStatuses[0].state.waiting.message}";
    for (name, words) in [
        (
            "named",
            "container has runAsNonRoot and image has non-numeric user (www-data), cannot verify user is non-root (pod: \"named_default(",
        ),
        (
            "root",
            "container's runAsUser breaks non-root policy (pod: \"root_default(",
        ),
    ] {
        cluster.until(
            name,
            "{.status.containerStatuses[0].state.waiting.reason}",
            "CreateContainerConfigError",
        );
        let said = cluster.field(name, message);
        assert!(said.starts_with(words) && said.ends_with(", container: c)"), "{said}");
        cluster.until_warning(name, "Failed", &format!("Error: {words}"));
    }

    // Powers.
    let (chown, setpcap, net_admin, net_raw, mknod) = (0, 8, 12, 13, 27);
    for name in ["plain", "few", "fewer", "privileged", "gains-nothing"] {
        cluster.wait_ready(name);
    }
    let few = capabilities(&[chown, net_admin]);
    assert_eq!(
        [status(&cluster, "few", "CapEff"), status(&cluster, "few", "CapBnd")],
        [few.clone(), few]
    );
    cluster.exec("few", "ip link set lo mtu 1400");
    let set = |name: &str| u64::from_str_radix(&status(&cluster, name, "CapBnd"), 16).expect("a number");
    let has = |name: &str, capability: u32| set(name) & 1 << capability != 0;
    assert!(has("plain", net_raw) && has("plain", setpcap) && !has("plain", net_admin));
    assert!(!has("fewer", net_raw) && !has("fewer", mknod) && has("fewer", setpcap));
    let denied = refused(&cluster, "plain", "ip link set lo mtu 1400");
    assert!(denied.contains("Operation not permitted"), "{denied}");
    let own = fs::read_to_string("/proc/self/status").expect("our own status");
    let own = own.lines().find_map(|line| line.strip_prefix("CapBnd:")).map(str::trim);
    assert_eq!(Some(status(&cluster, "privileged", "CapEff").as_str()), own);
    cluster.exec(
        "privileged",
        "mkdir -p /mnt && mount -t tmpfs none /mnt && test -c /dev/kmsg && test -w /proc/sys/kernel/panic",
    );
    let denied = refused(&cluster, "plain", "mkdir -p /mnt; mount -t tmpfs none /mnt");
    assert!(
        denied.contains("permission denied") || denied.contains("Operation not permitted"),
        "{denied}"
    );
    assert!(refused(&cluster, "plain", "echo 1 > /proc/sys/kernel/panic").contains("Read-only file system"));
    let masked = cluster.exec(
        "plain",
        "for f in /proc/kcore /proc/keys /proc/timer_list; do test -e $f && wc -c < $f; done; true",
    );
    assert!(
        !masked.is_empty() && masked.lines().all(|bytes| bytes == "0"),
        "{masked}"
    );
    assert_eq!(status(&cluster, "gains-nothing", "NoNewPrivs"), "1");
    assert_eq!(status(&cluster, "gains-nothing", "CapEff"), capabilities(&[]));
    assert_eq!(status(&cluster, "plain", "NoNewPrivs"), "0");
    cluster.wait_ready("read-only");
    assert!(refused(&cluster, "read-only", "touch /x").contains("Read-only file system"));
    cluster.exec("read-only", "touch /v/x");

    // System calls.
    for (name, mode) in [
        ("plain", "0"),
        ("default-filter", "2"),
        ("no-filter", "0"),
        ("own-filter", "2"),
    ] {
        cluster.wait_ready(name);
        assert_eq!(status(&cluster, name, "Seccomp"), mode, "{name}");
    }
    assert!(refused(&cluster, "default-filter", "unshare -U true").contains("Operation not permitted"));
    cluster.exec("no-filter", "unshare -U true");
    assert!(refused(&cluster, "own-filter", "touch /x && chmod 700 /x").contains("Operation not permitted"));
    cluster.exec("plain", "touch /x && chmod 700 /x");
    cluster.until(
        "lost-filter",
        "{.status.containerStatuses[0].state.waiting.reason}",
        "CreateContainerError",
    );
    let later = profiles.join("later.json");
    assert!(
        cluster
            .field("lost-filter", message)
            .contains(&later.display().to_string())
    );
    fs::write(later, profile).expect("a profile");
    cluster.wait_ready("lost-filter");

    // Kernel parameters.
    cluster.wait_ready("safe");
    assert_eq!(
        cluster.exec("safe", "cat /proc/sys/net/ipv4/ip_local_port_range"),
        "40000\t40100\n"
    );
    cluster.wait_ready("allowed");
    assert_eq!(cluster.exec("allowed", "cat /proc/sys/kernel/msgmax"), "16384\n");
    assert_ne!(cluster.exec("plain", "cat /proc/sys/kernel/msgmax"), "16384\n");
    cluster.until(
        "forbidden",
        "{.status.phase} {.status.reason}",
        "Failed SysctlForbidden",
    );
    assert_eq!(
        cluster.field("forbidden", "{.status.message}"),
        "Pod was rejected: forbidden sysctl: \"kernel.shmmax\" not allowlisted"
    );
    cluster.until_warning(
        "forbidden",
        "SysctlForbidden",
        "forbidden sysctl: \"kernel.shmmax\" not allowlisted",
    );
    let row = cluster.kubectl(&["get", "pod", "forbidden", "--no-headers"]).ok();
    assert_eq!(row.split_whitespace().nth(2), Some("SysctlForbidden"), "{row}");

    // What this kernel may not have is accepted, and told.
    cluster.wait_ready("labelled");
    let app_armor = fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|on| on.starts_with('Y'));
    if !Path::new("/sys/fs/selinux/enforce").exists() {
        cluster.until_event(
            "labelled",
            "seLinuxOptions has no effect: SELinux is not enabled on the host",
        );
    }
    if !app_armor {
        cluster.until_event(
            "labelled",
            "appArmorProfile has no effect: AppArmor is not enabled on the host",
        );
        cluster.until("profiled", "{.status.phase} {.status.reason}", "Failed AppArmor");
        assert_eq!(
            cluster.field("profiled", "{.status.message}"),
            "Pod was rejected: Cannot enforce AppArmor: AppArmor is not enabled on the host"
        );
    }
}

#[test]
fn pods_share_what_they_ask_for_and_have_their_names() {
    let cluster = Cluster::with(Options {
        images: &["busybox"],
        ..Options::default()
    });
    let pods = [
        pod("own", "", ""),
        pod("host-pid", "hostPID: true", ""),
        pod("host-ipc", "hostIPC: true", ""),
        pod("host-network", "hostNetwork: true", ""),
        pod("host-network-cluster-first", "hostNetwork: true, dnsPolicy: ClusterFirstWithHostNet", ""),
        "{apiVersion: v1, kind: Pod, metadata: {name: shared}, spec: {shareProcessNamespace: true, containers: [{name: c, image: 'localhost/busybox:1', command: [sleep, '1000']}, {name: d, image: 'localhost/busybox:1', command: [sleep, '2000']}]}}\n---\n".into(),
        pod(
            "named",
            "hostname: h, subdomain: s, setHostnameAsFQDN: true, hostAliases: [{ip: 192.0.2.7, hostnames: [files, files.example]}]",
            "",
        ),
        pod("short", "hostname: h, subdomain: s", ""),
        pod("node-dns", "dnsPolicy: Default", ""),
        pod(
            "own-dns",
            "dnsPolicy: None, dnsConfig: {nameservers: [192.0.2.53], searches: [example.org], options: [{name: ndots, value: '3'}, {name: edns0}]}",
            "",
        ),
        pod(
            "more-dns",
            "dnsConfig: {nameservers: [192.0.2.53], searches: [example.org], options: [{name: ndots, value: '2'}]}",
            "",
        ),
        "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {clusterIP: None, publishNotReadyAddresses: true, selector: {in: s}, ports: [{port: 80}]}}\n".into(),
    ];
    cluster.create(&pods.concat());
    for name in [
        "own",
        "host-pid",
        "host-ipc",
        "host-network",
        "host-network-cluster-first",
        "shared",
        "named",
        "short",
        "node-dns",
        "own-dns",
        "more-dns",
    ] {
        cluster.wait_ready(name);
    }

    // Namespaces: the kernel's own names for them.
    let of_pod = |pod: &str, kind: &str| {
        cluster
            .exec(pod, &format!("readlink /proc/self/ns/{kind}"))
            .trim()
            .to_owned()
    };
    let of_host = |kind: &str| {
        let link = fs::read_link(format!("/proc/self/ns/{kind}")).expect("our namespace");
        link.display().to_string()
    };
    let node_network = run(cluster.netns.command("readlink").arg("/proc/self/ns/net"), "").ok();
    for kind in ["pid", "ipc", "uts", "mnt"] {
        assert_ne!(of_pod("own", kind), of_host(kind), "{kind}");
    }
    assert_ne!(of_pod("own", "net"), node_network.trim());
    assert_eq!(of_pod("host-pid", "pid"), of_host("pid"));
    assert_ne!(of_pod("host-pid", "ipc"), of_host("ipc"));
    assert_eq!(of_pod("host-ipc", "ipc"), of_host("ipc"));
    assert_ne!(of_pod("host-ipc", "pid"), of_host("pid"));
    assert_eq!(of_pod("host-network", "net"), node_network.trim());
    assert_eq!(
        cluster.field("host-network", "{.status.podIP}"),
        cluster.field("host-network", "{.status.hostIP}")
    );
    let processes = cluster.kubectl(&["exec", "shared", "-c", "d", "--", "ps"]).ok();
    for process in ["/pause", "sleep 1000", "sleep 2000"] {
        assert!(processes.contains(process), "{process} in {processes}");
    }
    assert_eq!(cluster.exec("own", "cat /proc/1/comm"), "sleep\n");

    // Names.
    let fqdn = "h.s.default.svc.cluster.local";
    assert_eq!(cluster.exec("named", "hostname"), format!("{fqdn}\n"));
    assert_eq!(cluster.exec("short", "hostname; cat /etc/hostname"), "h\nh\n");
    assert_eq!(cluster.exec("own", "hostname"), "own\n");
    let hosts = cluster.exec("named", "cat /etc/hosts");
    let address = cluster.field("named", "{.status.podIP}");
    assert!(
        hosts.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"),
        "{hosts}"
    );
    assert!(
        hosts.ends_with(&format!(
            "{address}\t{fqdn}\th\n\n# Entries added by HostAliases.\n192.0.2.7\tfiles\tfiles.example\n"
        )),
        "{hosts}"
    );
    assert!(
        cluster
            .exec("host-network", "cat /etc/hosts")
            .starts_with("# Kubernetes-managed hosts file (host network).\n")
    );

    // Who is asked about names.
    let cluster_first = "search default.svc.cluster.local svc.cluster.local cluster.local";
    let node = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let node: Vec<&str> = node
        .lines()
        .filter_map(|line| line.strip_prefix("nameserver "))
        .map(str::trim)
        .collect();
    let of = |pod: &str| cluster.exec(pod, "cat /etc/resolv.conf");
    for name in ["own", "host-network-cluster-first"] {
        let text = of(name);
        assert!(
            text.starts_with(cluster_first)
                && text.contains("\nnameserver 10.96.0.10\n")
                && text.ends_with("options ndots:5\n"),
            "{name}: {text}"
        );
    }
    for name in ["node-dns", "host-network"] {
        let text = of(name);
        let servers: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("nameserver "))
            .collect();
        assert_eq!(servers, node[..node.len().min(3)], "{name}: {text}");
        assert!(!text.contains("cluster.local"), "{name}: {text}");
    }
    assert_eq!(
        of("own-dns"),
        "search example.org\nnameserver 192.0.2.53\noptions ndots:3 edns0\n"
    );
    let text = of("more-dns");
    assert!(
        text.starts_with(cluster_first) && text.contains(" example.org\n"),
        "{text}"
    );
    assert!(
        text.contains("\nnameserver 10.96.0.10\nnameserver 192.0.2.53\n") && text.ends_with("options ndots:2\n"),
        "{text}"
    );
}

/// The user and group of a process of a pod, as its node sees them, by the pod's cgroup.
fn seen_by_the_node(cluster: &Cluster, pod: &str, command: &str) -> Option<(u32, u32)> {
    use std::os::unix::fs::MetadataExt;
    let pattern = format!("*pod{}/*/cgroup.procs", cluster.field(pod, "{.metadata.uid}"));
    let mut find = Command::new("find");
    find.args(["/sys/fs/cgroup", "-path", &pattern, "-exec", "cat", "{}", "+"]);
    let found = run(&mut find, "").stdout;
    let process = found.lines().find(|process| {
        fs::read_to_string(format!("/proc/{process}/cmdline"))
            .is_ok_and(|line| line.replace('\0', " ").contains(command))
    })?;
    let metadata = fs::metadata(format!("/proc/{process}")).ok()?;
    Some((metadata.uid(), metadata.gid()))
}

/// The first of the node's ids that are a pod's.
fn first(cluster: &Cluster, pod: &str) -> u32 {
    let map = cluster.exec(pod, "cat /proc/self/uid_map /proc/self/gid_map");
    let numbers: Vec<u32> = map.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert_eq!(
        [&numbers[..1], &numbers[2..4], &numbers[5..]].concat(),
        [0, 65536, 0, 65536],
        "{map}"
    );
    assert_eq!(numbers[1], numbers[4], "{map}");
    numbers[1]
}

#[test]
fn a_pod_may_have_users_of_its_own() {
    let mut cluster = Cluster::prepare(Options {
        images: &["busybox"],
        ..Options::default()
    });
    cluster.start_server();
    let scratch = tempfile::tempdir().expect("a directory");
    let host = scratch.path().join("host");
    fs::create_dir(&host).expect("a directory");
    fs::write(host.join("roots"), "root's").expect("a file");
    let host_path = host.display();
    cluster.create("{apiVersion: v1, kind: ConfigMap, metadata: {name: map}, data: {k: v}}");
    let volumes = format!(
        "volumes: [{{name: e, emptyDir: {{}}}}, {{name: m, emptyDir: {{medium: Memory}}}}, {{name: c, configMap: {{name: map, defaultMode: 0400}}}}, {{name: h, hostPath: {{path: {host_path}}}}}, {{name: i, image: {{reference: 'localhost/busybox:1', pullPolicy: Never}}}}]"
    );
    let mounts = "volumeMounts: [{name: e, mountPath: /e}, {name: e, mountPath: /part, subPath: part}, {name: m, mountPath: /m}, {name: c, mountPath: /c}, {name: h, mountPath: /h}, {name: i, mountPath: /i}]";
    let pods = [
        pod("root", &format!("hostUsers: false, {volumes}"), mounts),
        pod(
            "user",
            &format!("hostUsers: false, securityContext: {{runAsUser: 1000, runAsGroup: 1001, fsGroup: 77, seccompProfile: {{type: RuntimeDefault}}}}, {volumes}"),
            &format!("{mounts}, securityContext: {{allowPrivilegeEscalation: false, capabilities: {{drop: [ALL]}}}}"),
        ),
        pod("privileged", "hostUsers: false", "securityContext: {privileged: true}"),
        pod("unmasked", "hostUsers: false, hostname: u", "securityContext: {procMount: Unmasked}"),
        "{apiVersion: v1, kind: Pod, metadata: {name: shares}, spec: {hostUsers: false, shareProcessNamespace: true, containers: [{name: c, image: 'localhost/busybox:1', command: [sleep, '1000']}, {name: d, image: 'localhost/busybox:1', command: [sleep, '2000']}]}}\n---\n".into(),
        pod("ordinary", "", ""),
    ];
    cluster.create(&pods.concat());
    for name in ["root", "user", "privileged", "unmasked", "shares", "ordinary"] {
        cluster.wait_ready(name);
    }

    // Each has a range of its own, and root in it is nobody on the node. Commands are in it like the first process.
    let namespace = |process: &str| cluster.exec("root", &format!("readlink /proc/{process}/ns/user"));
    assert_eq!(namespace("self"), namespace("1"));
    let mut ranges: Vec<u32> = ["root", "user", "privileged", "unmasked", "shares"]
        .map(|pod| first(&cluster, pod))
        .into();
    assert_eq!(
        seen_by_the_node(&cluster, "root", "sleep 1000"),
        Some((ranges[0], ranges[0]))
    );
    assert_eq!(
        seen_by_the_node(&cluster, "user", "sleep 1000"),
        Some((ranges[1] + 1000, ranges[1] + 1001))
    );
    assert_eq!(seen_by_the_node(&cluster, "ordinary", "sleep 1000"), Some((0, 0)));
    ranges.sort_unstable();
    assert!(
        ranges[0] >= 65536 && ranges.iter().all(|first| first % 65536 == 0),
        "{ranges:?}"
    );
    ranges.dedup();
    assert_eq!(ranges.len(), 5, "{ranges:?}");
    assert_eq!(
        cluster.exec(
            "root",
            "id -u; stat -c '%u %g' /usr/bin/busybox /etc/passwd /etc/hostname /etc/hosts /etc/resolv.conf"
        ),
        "0\n0 0\n0 0\n0 0\n0 0\n0 0\n"
    );

    // Files are as if the users were the node's: on disk are the numbers that the pod sees.
    cluster.exec("root", "for d in /e /part /m /h; do touch $d/f && chown 5:6 $d/f || exit 1; done; echo x > /etc/x; cat /h/roots; echo y >> /h/roots");
    assert_eq!(
        cluster.exec(
            "root",
            "stat -c '%u %g' /e/f /part/f /m/f /h/f /h/roots; stat -L -c '%u %a' /c/k; cat /e/part/f"
        ),
        "5 6\n5 6\n5 6\n5 6\n0 0\n0 400\n"
    );
    {
        use std::os::unix::fs::MetadataExt;
        let made = fs::metadata(host.join("f")).expect("what the pod made");
        assert_eq!((made.uid(), made.gid()), (5, 6));
    }
    assert_eq!(fs::read_to_string(host.join("roots")).expect("the file"), "root'sy\n");
    assert_eq!(
        cluster.exec(
            "root",
            "stat -c %u /i/usr/bin/busybox; cat /i/etc/passwd | head -n 1 | cut -d: -f1"
        ),
        "0\nroot\n"
    );
    assert_eq!(
        cluster.exec("user", "id -u; id -G; touch /e/f; stat -c '%u %g' /e/f; cat /c/k"),
        "1000\n1001 77\n1000 77\nv"
    );
    assert!(refused(&cluster, "user", "touch /h/g").contains("Permission denied"));

    // Powers are good for what is the pod's, and for nothing of the node's.
    assert!(refused(&cluster, "root", "mkdir -p /mnt; mount -t tmpfs none /mnt").contains("denied"));
    cluster.exec(
        "privileged",
        "mkdir -p /mnt && mount -t tmpfs none /mnt && mkdir /mnt/d && hostname other && ip link set lo mtu 1400",
    );
    assert!(refused(&cluster, "privileged", "echo 1 > /proc/sys/kernel/panic").contains("Permission denied"));
    let said = refused(&cluster, "privileged", "head -c 1 /dev/kmsg");
    assert!(
        said.contains("Permission denied") || said.contains("Operation not permitted"),
        "{said}"
    );
    let masks = |pod: &str| cluster.exec(pod, "grep -c ' /proc/' /proc/self/mountinfo; true");
    assert_eq!(masks("unmasked"), "0\n");
    assert_ne!(masks("root"), "0\n");
    assert_eq!(cluster.exec("unmasked", "hostname"), "u\n");
    let processes = cluster.kubectl(&["exec", "shares", "-c", "d", "--", "ps"]).ok();
    assert!(
        processes.contains("sleep 1000") && processes.contains("/pause"),
        "{processes}"
    );
    let not_unmasked = with_context("bad", "procMount: Unmasked");
    let said = cluster.kubectl_with(&["create", "-f", "-"], &not_unmasked).fails();
    assert!(said.contains("`hostUsers` must be false to use `Unmasked`"), "{said}");

    // They talk to others, are looked into, and outlive their server.
    let address = cluster.field("ordinary", "{.status.podIP}");
    cluster.exec("root", &format!("ping -c 1 -W 5 {address}"));
    let terminal = cluster.kubectl(&["exec", "root", "--", "sh", "-c", "echo said >&2; exit 3"]);
    assert_eq!(
        (terminal.code, terminal.stderr.starts_with("said\n")),
        (3, true),
        "{terminal}"
    );
    cluster.kill_server();
    cluster.start_server();
    assert_eq!(cluster.exec("user", "id -u"), "1000\n");
    cluster.create(&pod("later", "hostUsers: false", ""));
    cluster.wait_ready("later");
    assert!(!ranges.contains(&first(&cluster, "later")));

    // Where such a pod is, is forgotten with it.
    cluster.kubectl(&["delete", "pod", "--all", "--timeout=60s"]).ok();
    assert_eq!(fs::read_to_string(host.join("roots")).expect("the file"), "root'sy\n");
    cluster.create(&pod("again", "hostUsers: false", ""));
    cluster.wait_ready("again");
    assert_eq!(first(&cluster, "again"), 65536);
}

/// A profile that is loaded until it is dropped.
struct Profile(String);

impl Profile {
    fn load(name: &str) -> Self {
        let text = format!(
            "profile {name} flags=(attach_disconnected,mediate_deleted) {{ file, network, capability, signal, }}\n"
        );
        run(Command::new("apparmor_parser").arg("--replace"), &text).ok();
        Self(text)
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        let _ = run(Command::new("apparmor_parser").arg("--remove"), &self.0);
    }
}

#[test]
fn app_armor_profiles_are_what_containers_run_under() {
    if !tests::has_app_armor() {
        return;
    }
    let cluster = Cluster::with(Options {
        images: &["busybox"],
        ..Options::default()
    });
    let _own = Profile::load("podium-test-own");
    let container = |name: &str, profile: &str| {
        format!(
            "{{name: {name}, image: 'localhost/busybox:1', command: [sleep, '1000'], securityContext: {{appArmorProfile: {{{profile}}}, \
             capabilities: {{add: [SYS_ADMIN]}}}}}}"
        )
    };
    let containers = [
        container("default", "type: RuntimeDefault"),
        container("none", "type: Unconfined"),
        container("own", "type: Localhost, localhostProfile: podium-test-own"),
    ];
    let pod = |name: &str, containers: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 1, containers: [{containers}]}}}}\n---\n"
        )
    };
    let lost = container("c", "type: Localhost, localhostProfile: podium-test-lost");
    cluster.create(&(pod("confined", &containers.join(", ")) + &pod("lost", &lost)));

    cluster.wait_ready("confined");
    let mounts = "mkdir /m && mount -t tmpfs none /m 2>/dev/null && echo mounts || echo does not";
    for (container, profile, mounted) in [
        ("default", "podium-default (enforce)", "does not"),
        ("none", "unconfined", "mounts"),
        ("own", "podium-test-own (enforce)", "does not"),
    ] {
        let script = format!("cat /proc/1/attr/current /proc/self/attr/current; {mounts}");
        let said = cluster
            .kubectl(&["exec", "confined", "-c", container, "--", "sh", "-c", &script])
            .ok();
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            words(&said),
            words(&format!("{profile} {profile} {mounted}")),
            "{container}: {said}"
        );
    }

    cluster.until(
        "lost",
        "{.status.containerStatuses[0].state.waiting.reason}",
        "CreateContainerError",
    );
    let said = cluster.field("lost", "{.status.containerStatuses[0].state.waiting.message}");
    assert!(said.ends_with("apparmor profile not found podium-test-lost"), "{said}");
    let _lost = Profile::load("podium-test-lost");
    cluster.wait_ready("lost");
}
