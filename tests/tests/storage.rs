//! Storage that outlives pods: claims and the volumes that they are bound to, a file system of a real Ceph cluster, and what an NFS server
//! exports.

use std::os::unix::fs::MetadataExt;
use std::process::Command;

use tests::ceph::{Ceph, MONITOR};
use tests::nfs::Nfs;
use tests::{Cluster, Loop, NODE_IP, Options, eventually, kernel_has, run, sleeper as pod};

fn prepare() -> Cluster {
    Cluster::prepare(Options {
        images: &["busybox"],
        ..Options::default()
    })
}

fn cluster() -> Cluster {
    let mut cluster = prepare();
    cluster.start_server();
    cluster
}

/// What is mounted in the directories of the cluster's pods, as the kernel tells it.
fn mounts(cluster: &Cluster) -> String {
    let pods = cluster.data_dir().join("kubelet/pods").display().to_string();
    let all = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let lines: Vec<&str> = all.lines().filter(|line| line.contains(&pods)).collect();
    lines.join("\n")
}

#[test]
fn claims_are_bound_and_mounted() {
    let cluster = cluster();
    let scratch = tempfile::tempdir().expect("a directory");
    let at = |name: &str| scratch.path().join(name).display().to_string();
    std::fs::create_dir(at("local")).expect("a directory");
    let claim = |name: &str, size: &str, class: &str| {
        format!(
            "{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: {name}}}, spec: {{accessModes: [ReadWriteOnce], storageClassName: '{class}', resources: {{requests: {{storage: {size}}}}}}}}}"
        )
    };
    let volume = |name: &str, size: &str, class: &str, source: &str| {
        format!(
            "{{apiVersion: v1, kind: PersistentVolume, metadata: {{name: {name}}}, spec: {{accessModes: [ReadWriteOnce], storageClassName: '{class}', capacity: {{storage: {size}}}, {source}}}}}"
        )
    };
    let mounted = |name: &str, claim: &str| {
        pod(
            name,
            "{name: v, mountPath: /v}",
            &format!("{{name: v, persistentVolumeClaim: {{claimName: {claim}}}}}"),
            "  securityContext: {fsGroup: 77}\n",
        )
    };
    let claim_field = |name: &str, path: &str| {
        cluster
            .kubectl(&["get", "pvc", name, "-o", &format!("jsonpath={path}")])
            .ok()
    };
    let volume_field = |name: &str, path: &str| {
        cluster
            .kubectl(&["get", "pv", name, "-o", &format!("jsonpath={path}")])
            .ok()
    };

    // The claim comes first, the pod waits for it, and the volume that suits best is taken.
    cluster.create(&claim("data", "1Gi", ""));
    cluster.create(&mounted("writer", "data"));
    cluster.until_warning(
        "writer",
        "FailedScheduling",
        "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.",
    );
    let host = |name: &str| format!("hostPath: {{path: {}}}", at(name));
    cluster.create(&volume("large", "10Gi", "", &host("large")));
    cluster.create(&volume("small", "1Mi", "", &host("small")));
    eventually("bound", || {
        (claim_field("data", "{.status.phase} {.spec.volumeName} {.status.capacity.storage}") == "Bound large 10Gi")
            .then_some(())
    });
    eventually("both say so", || {
        (volume_field("large", "{.status.phase} {.spec.claimRef.name}") == "Bound data").then_some(())
    });
    eventually("free", || {
        (volume_field("small", "{.status.phase}") == "Available").then_some(())
    });
    cluster.wait_ready("writer");
    cluster.exec("writer", "echo kept > /v/f");
    let table = cluster.kubectl(&["get", "pv,pvc"]).ok();
    for words in [
        "RWO",
        "Retain",
        "Bound",
        "default/data",
        "10Gi",
        "STORAGECLASS",
        "<unset>",
    ] {
        assert!(table.contains(words), "{words} in\n{table}");
    }

    // Claims stay while pods use them, and the data stays when all of them are gone.
    cluster.kubectl(&["delete", "pvc", "data", "--wait=false"]).ok();
    let columns = cluster.kubectl(&["get", "pvc", "data"]).ok();
    assert!(columns.contains("Terminating"), "{columns}");
    assert_eq!(cluster.exec("writer", "cat /v/f"), "kept\n");
    cluster.kubectl(&["delete", "pod", "writer", "--timeout=30s"]).ok();
    eventually("the claim is gone", || {
        (cluster.kubectl(&["get", "pvc", "data"]).code != 0).then_some(())
    });
    eventually("the volume is released", || {
        (volume_field("large", "{.status.phase}") == "Released").then_some(())
    });
    assert_eq!(std::fs::read_to_string(at("large/f")).expect("the data"), "kept\n");
    cluster.kubectl(&["delete", "pv", "large", "--timeout=30s"]).ok();

    // A class that waits: the volume is chosen with the node, and a volume of another node is none.
    cluster.create("{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: local}, provisioner: kubernetes.io/no-provisioner, volumeBindingMode: WaitForFirstConsumer}");
    let local = |node: &str| {
        format!(
            "local: {{path: {}}}, nodeAffinity: {{required: {{nodeSelectorTerms: [{{matchExpressions: [{{key: kubernetes.io/hostname, operator: In, values: [{node}]}}]}}]}}}}",
            at("local")
        )
    };
    cluster.create(&volume("elsewhere", "1Gi", "local", &local("other")));
    cluster.create(&claim("late", "1Gi", "local"));
    cluster.create(&mounted("first", "late"));
    cluster.until_warning(
        "first",
        "FailedScheduling",
        "1 node(s) didn't find available persistent volumes to bind.",
    );
    cluster.until_told(
        "late",
        "Normal",
        "WaitForFirstConsumer",
        "waiting for first consumer to be created before binding",
    );
    cluster.create(&volume("here", "1Gi", "local", &local("node")));
    cluster.wait_ready("first");
    assert_eq!(claim_field("late", "{.spec.volumeName}"), "here");
    assert_eq!(cluster.exec("first", "stat -c '%a %g' /v"), "2775 77\n");
    // What has another group within stays as it is when the root is the pod's group's already, if the pod says so.
    std::fs::write(at("outside"), "nobody's").expect("a file");
    cluster.exec(
        "first",
        &format!(
            "touch /v/others && chgrp 5 /v/others; ln -s {} /v/out; ln -s ../outside /v/up",
            at("outside")
        ),
    );
    cluster.kubectl(&["delete", "pod", "first", "--timeout=30s"]).ok();
    for (name, policy, group) in [("patient", "OnRootMismatch", "5\n"), ("thorough", "Always", "77\n")] {
        let policy = format!("fsGroup: 77, fsGroupChangePolicy: {policy}");
        cluster.create(&mounted(name, "late").replace("fsGroup: 77", &policy));
        cluster.wait_ready(name);
        assert_eq!(cluster.exec(name, "stat -c %g /v/others"), group, "{name}");
        cluster.kubectl(&["delete", "pod", name, "--timeout=30s"]).ok();
    }
    let outside = std::fs::metadata(at("outside")).expect("the file");
    assert_eq!(
        (outside.gid(), outside.mode() & 0o777),
        (0, 0o644),
        "links lead the group nowhere"
    );

    // A claim that comes with its pod.
    let carried = "{name: v, ephemeral: {volumeClaimTemplate: {metadata: {labels: {made: for-it}}, spec: {accessModes: [ReadWriteOnce], storageClassName: '', resources: {requests: {storage: 1Mi}}}}}}";
    cluster.create(&pod("carries", "{name: v, mountPath: /v}", carried, ""));
    cluster.wait_ready("carries");
    assert_eq!(
        claim_field(
            "carries-v",
            "{.spec.volumeName} {.metadata.labels.made} {.metadata.ownerReferences[0].name}"
        ),
        "small for-it carries"
    );

    cluster.create(&mounted("nobody", "nothing"));
    cluster.until_warning(
        "nobody",
        "FailedScheduling",
        "0/1 nodes are available: persistentvolumeclaim \"nothing\" not found.",
    );
    let refused = cluster
        .kubectl_with(&["create", "-f", "-"], &volume("bad", "1Gi", "", "local: {path: /x}"))
        .fails();
    assert!(
        refused.contains("spec.nodeAffinity: Required value: Local volume requires node affinity"),
        "{refused}"
    );
}

/// A device of the node is a container's under the name that the pod gives it, and only to read where the pod says so.
#[test]
fn claims_of_devices_are_devices_in_containers() {
    let cluster = cluster();
    let scratch = tempfile::tempdir().expect("a directory");
    let at = |name: &str| scratch.path().join(name).display().to_string();
    let disk = Loop::new(&scratch.path().join("disk"), 1 << 20);
    for (name, mode) in [("block", "Block"), ("files", "Filesystem")] {
        cluster.create(&format!(
            "{{apiVersion: v1, kind: PersistentVolume, metadata: {{name: {name}}}, spec: {{accessModes: [ReadWriteOnce], volumeMode: {mode}, storageClassName: '', capacity: {{storage: 1Mi}}, \
             claimRef: {{namespace: default, name: {name}}}, local: {{path: {}}}, \
             nodeAffinity: {{required: {{nodeSelectorTerms: [{{matchExpressions: [{{key: kubernetes.io/hostname, operator: In, values: [node]}}]}}]}}}}}}}}\n---\n\
             {{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: {name}}}, spec: {{accessModes: [ReadWriteOnce], volumeMode: {mode}, storageClassName: '', volumeName: {name}, resources: {{requests: {{storage: 1Mi}}}}}}}}",
            at("device")
        ));
    }
    let claims = |name: &str, claim: &str, uses: &str, more: &str| {
        let volume = format!("{{name: v, persistentVolumeClaim: {{claimName: {claim}{more}}}}}");
        let device = format!("    {uses}\n    volumeMounts:");
        cluster.create(&pod(name, "", &volume, "").replace("    volumeMounts:", &device));
    };
    let device = "volumeDevices: [{name: v, devicePath: /dev/of-its-own}]";
    claims("writes", "block", device, "");
    claims("reads", "block", device, ", readOnly: true");

    // Nothing is there, then something that is no device; the device itself is enough.
    let failed = "MapVolume.MapBlockVolume failed for volume \"block\" : ";
    let missing = format!("{failed}stat {}: No such file or directory", at("device"));
    cluster.until_warning("writes", "FailedMapVolume", &missing);
    std::fs::write(at("device"), "a file").expect("a file");
    let wrong = format!("{failed}{} is not a block device", at("device"));
    cluster.until_warning("writes", "FailedMapVolume", &wrong);
    std::fs::remove_file(at("device")).expect("the file goes");
    std::os::unix::fs::symlink(disk.path(), at("device")).expect("a link");
    for name in ["writes", "reads"] {
        cluster.wait_ready(name);
        assert_eq!(
            cluster.exec(
                name,
                "test -b /dev/of-its-own && cut -d' ' -f2 /proc/mounts | grep of-its-own || echo a device"
            ),
            "a device\n"
        );
    }
    cluster.exec(
        "writes",
        "echo from a pod | dd of=/dev/of-its-own conv=fsync 2> /dev/null",
    );
    let read = "dd if=/dev/of-its-own bs=512 count=1 2> /dev/null | head -n 1";
    assert_eq!(cluster.exec("reads", read), "from a pod\n");
    let on_node = run(Command::new("head").args(["-n", "1", disk.path()]), "").ok();
    assert_eq!(on_node, "from a pod\n");
    let denied = cluster
        .kubectl(&["exec", "reads", "--", "sh", "-c", "echo x > /dev/of-its-own"])
        .fails();
    assert!(denied.contains("Operation not permitted"), "{denied}");

    // A device is not mounted, and a file system is no device.
    for (name, claim, uses, words) in [
        (
            "misused",
            "block",
            "env: []",
            "volume v has volumeMode Block, but is specified in volumeMounts",
        ),
        (
            "no-device",
            "files",
            device,
            "volume v has volumeMode Filesystem, but is specified in volumeDevices",
        ),
    ] {
        let volume = format!("{{name: v, persistentVolumeClaim: {{claimName: {claim}}}}}");
        let mounts = if uses == device { "" } else { "{name: v, mountPath: /v}" };
        let uses = format!("    {uses}\n    volumeMounts:");
        cluster.create(&pod(name, mounts, &volume, "").replace("    volumeMounts:", &uses));
        let said = format!("MountVolume.SetUp failed for volume \"v\" : error processing PVC default/{claim}: {words}");
        cluster.until_warning(name, "FailedMount", &said);
    }
    cluster.kubectl(&["delete", "pod", "--all", "--timeout=60s"]).ok();
}

#[test]
fn pods_share_a_ceph_file_system() {
    let mut cluster = cluster();
    let scratch = tempfile::tempdir().expect("a directory");
    let mut ceph = Ceph::prepare(&cluster.netns, scratch.path());
    let secret = format!(
        "{{apiVersion: v1, kind: Secret, metadata: {{name: ceph}}, stringData: {{key: '{}'}}}}",
        ceph.key()
    );
    cluster.create(&secret);
    let by_secret = |more: &str| {
        format!("{{name: v, cephfs: {{monitors: ['{MONITOR}'], user: admin, secretRef: {{name: ceph}}{more}}}}}")
    };
    let by_file = format!(
        "{{name: v, cephfs: {{monitors: ['{MONITOR}'], secretFile: {}}}}}",
        ceph.keyring().display()
    );

    // Nobody answers: the pod says so and waits, and no other pod does. One that no longer wants to wait goes.
    cluster.create(&pod("a", "{name: v, mountPath: /v}", &by_secret(""), ""));
    cluster.create(&pod("gives-up", "{name: v, mountPath: /v}", &by_secret(""), ""));
    cluster.create(&pod("other", "", "", ""));
    cluster.wait_ready("other");
    cluster.kubectl(&["delete", "pod", "gives-up", "--timeout=20s"]).ok();
    cluster.until_warning(
        "a",
        "FailedMount",
        "MountVolume.SetUp failed for volume \"v\" : CephFS: ",
    );
    ceph.start();
    cluster.wait_ready("a");
    let kind = if kernel_has("ceph") {
        " - ceph "
    } else {
        " - fuse.ceph-fuse "
    };
    assert!(mounts(&cluster).contains(kind), "{}", mounts(&cluster));

    cluster.create(&pod("b", "{name: v, mountPath: /v}", &by_file, ""));
    cluster.create(&pod(
        "reads",
        "{name: v, mountPath: /v}",
        &by_secret(", readOnly: true"),
        "",
    ));
    cluster.exec("a", "mkdir /v/sub && echo from-a > /v/sub/f");
    cluster.create(&pod("part", "{name: v, mountPath: /v}", &by_secret(", path: /sub"), ""));
    for name in ["b", "reads", "part"] {
        cluster.wait_ready(name);
    }
    // Not by `cat`: it copies with sendfile, by which a kernel whose client learns of a file's new length too late gives its text twice.
    assert_eq!(cluster.exec("b", "head /v/sub/f; echo from-b > /v/g"), "from-a\n");
    assert_eq!(cluster.exec("a", "head /v/g"), "from-b\n");
    assert_eq!(cluster.exec("part", "head /v/f"), "from-a\n");
    assert_eq!(cluster.exec("reads", "head /v/g"), "from-b\n");
    let refused = cluster.kubectl(&["exec", "reads", "--", "touch", "/v/x"]);
    assert!(refused.stderr.contains("Read-only file system"), "{refused}");

    let missing = format!("{{name: v, cephfs: {{monitors: ['{MONITOR}'], secretFile: /nowhere/keyring}}}}");
    cluster.create(&pod("no-key", "{name: v, mountPath: /v}", &missing, ""));
    cluster.until_warning(
        "no-key",
        "FailedMount",
        "MountVolume.SetUp failed for volume \"v\" : read secretFile /nowhere/keyring: ",
    );

    // Another user than the administrator, whose key is alone in a file of the node, or in a Secret of another namespace than the pod's.
    let bare = scratch.path().join("web.secret");
    std::fs::write(&bare, ceph.key_of("client.web") + "\n").expect("a key");
    let by_bare_key = format!(
        "{{name: v, cephfs: {{monitors: ['{MONITOR}'], user: web, secretFile: {}}}}}",
        bare.display()
    );
    cluster.create(&pod("web", "{name: v, mountPath: /v}", &by_bare_key, ""));
    let secret = |key: &str| {
        format!(
            "{{apiVersion: v1, kind: Secret, metadata: {{name: web, namespace: keys}}, stringData: {{key: '{key}'}}}}"
        )
    };
    cluster.kubectl(&["create", "namespace", "keys"]).ok();
    // The key is another's at first.
    cluster.create(&secret(&ceph.key_of("osd.0")));
    cluster.create(&format!(
        "{{apiVersion: v1, kind: PersistentVolume, metadata: {{name: shared}}, spec: {{accessModes: [ReadWriteMany], storageClassName: '', capacity: {{storage: 1Gi}}, claimRef: {{namespace: default, name: shared}}, cephfs: {{monitors: ['{MONITOR}'], user: web, path: /sub, secretRef: {{name: web, namespace: keys}}}}}}}}\n---\n\
         {{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: shared}}, spec: {{accessModes: [ReadWriteMany], storageClassName: '', volumeName: shared, resources: {{requests: {{storage: 1Gi}}}}}}}}"
    ));
    let claimed = "{name: v, persistentVolumeClaim: {claimName: shared}}";
    cluster.create(&pod("claims", "{name: v, mountPath: /v}", claimed, ""));
    cluster.until_warning(
        "claims",
        "FailedMount",
        "MountVolume.SetUp failed for volume \"shared\" : CephFS: ",
    );
    cluster
        .kubectl_with(&["replace", "-f", "-"], &secret(&ceph.key_of("client.web")))
        .ok();
    cluster.wait_ready("web");
    cluster.wait_ready("claims");
    assert_eq!(cluster.exec("web", "head /v/sub/f; echo of-web > /v/sub/h"), "from-a\n");
    assert_eq!(cluster.exec("claims", "head /v/h"), "of-web\n");

    // The server goes and comes back; whoever has the file system mounted does not notice.
    cluster.kill_server();
    cluster.start_server();
    assert_eq!(
        cluster.exec("a", "head /v/g; echo again > /v/g; head /v/g"),
        "from-b\nagain\n"
    );

    // Data stays when the pods go, and nothing else does.
    cluster.kubectl(&["delete", "pod", "--all", "--timeout=60s"]).ok();
    assert_eq!(mounts(&cluster), "");
    cluster.create(&pod("after", "{name: v, mountPath: /v}", &by_secret(""), ""));
    cluster.wait_ready("after");
    assert_eq!(cluster.exec("after", "head -q /v/sub/f /v/g"), "from-a\nagain\n");
    cluster.kubectl(&["delete", "pod", "after", "--timeout=60s"]).ok();
}

#[test]
fn pods_share_what_an_nfs_server_exports() {
    if !Nfs::possible() {
        eprintln!("no NFS here: the kernel has no server or no client, or mount.nfs is not installed");
        return;
    }
    let mut cluster = prepare();
    let scratch = tempfile::tempdir().expect("a directory");
    let export = scratch.path().join("export");
    std::fs::create_dir_all(export.join("shared")).expect("what is exported");
    let nfs = Nfs::start(&cluster.netns, NODE_IP, &export, scratch.path());
    cluster.start_server();

    let inline = |more: &str| format!("{{name: v, nfs: {{server: {NODE_IP}, path: /shared{more}}}}}");
    let by_claim = |name: &str, server: &str, path: &str, options: &str| {
        cluster.create(&format!(
            "{{apiVersion: v1, kind: PersistentVolume, metadata: {{name: {name}}}, spec: {{accessModes: [ReadWriteMany], storageClassName: '', capacity: {{storage: 1Gi}}, claimRef: {{namespace: default, name: {name}}}, mountOptions: [{options}], nfs: {{server: {server}, path: {path}}}}}}}"
        ));
        cluster.create(&format!(
            "{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: {name}}}, spec: {{accessModes: [ReadWriteMany], storageClassName: '', volumeName: {name}, resources: {{requests: {{storage: 1Gi}}}}}}}}"
        ));
        let volume = format!("{{name: v, persistentVolumeClaim: {{claimName: {name}}}}}");
        cluster.create(&pod(name, "{name: v, mountPath: /v}", &volume, ""));
    };

    // Two write it, one of them through a claim and with the options of its volume, and one only reads.
    cluster.create(&pod("a", "{name: v, mountPath: /v}", &inline(""), ""));
    by_claim("b", NODE_IP, "/shared", "nfsvers=4.1");
    cluster.create(&pod(
        "reads",
        "{name: v, mountPath: /v}",
        &inline(", readOnly: true"),
        "",
    ));
    by_claim("wrong", NODE_IP, "/nothing", "nfsvers=4.2");
    by_claim("dead", "192.0.2.1", "/shared", "nfsvers=4.2, retry=0");
    for name in ["a", "b", "reads"] {
        cluster.wait_ready(name);
    }
    cluster.exec("a", "echo from-a > /v/f");
    assert_eq!(cluster.exec("b", "cat /v/f; echo from-b > /v/g"), "from-a\n");
    assert_eq!(cluster.exec("a", "cat /v/g"), "from-b\n");
    assert_eq!(cluster.exec("reads", "cat /v/g"), "from-b\n");
    let refused = cluster.kubectl(&["exec", "reads", "--", "touch", "/v/x"]);
    assert!(refused.stderr.contains("Read-only file system"), "{refused}");
    let mounted = mounts(&cluster);
    for (options, many) in [("vers=4.1", 1), ("vers=4.2", 2)] {
        let with = |line: &&str| line.contains(&format!(" - nfs4 {NODE_IP}:/shared ")) && line.contains(options);
        assert_eq!(mounted.lines().filter(with).count(), many, "{mounted}");
    }

    // What cannot be mounted is told in mount's own words, as upstream does.
    for (name, arguments, why) in [
        (
            "wrong",
            format!("-t nfs -o nfsvers=4.2 {NODE_IP}:/nothing /"),
            "reason given by server: No such file or directory",
        ),
        (
            "dead",
            "-t nfs -o nfsvers=4.2,retry=0 192.0.2.1:/shared /".into(),
            "Output: mount.nfs: Connection refused",
        ),
    ] {
        let failed = "MountVolume.SetUp failed for volume";
        cluster.until_warning(
            name,
            "FailedMount",
            &format!("{failed} \"{name}\" : mount failed: exit status 32"),
        );
        let events = cluster.events(name);
        assert!(
            events.contains(&format!("Mounting arguments: {arguments}")) && events.contains(why),
            "{events}"
        );
    }

    // Data stays when the pods go.
    cluster
        .kubectl(&["delete", "pod", "b", "reads", "wrong", "dead", "--timeout=60s"])
        .ok();
    let mounted = mounts(&cluster);
    assert_eq!(mounted.matches(" - nfs4 ").count(), 1, "{mounted}");
    assert_eq!(cluster.exec("a", "cat /v/f /v/g"), "from-a\nfrom-b\n");

    // The server dies. The node still tells what its pods use, and the pod can go.
    nfs.stop();
    let summary = cluster
        .kubectl(&[
            "get",
            "--raw",
            "/api/v1/nodes/node/proxy/stats/summary",
            "--request-timeout=30s",
        ])
        .ok();
    assert!(summary.contains("\"name\":\"a\""), "{summary}");
    cluster.exec("a", "cat /v/new > /dev/null 2>&1 &");
    cluster.kubectl(&["delete", "pod", "a", "--timeout=60s"]).ok();
    assert_eq!(mounts(&cluster), "");
    nfs.resume();
    eventually("the kernel has let go of the server", || {
        (!nfs.clients().contains("v4 ")).then_some(())
    });
}
