//! What a bad program can and cannot do to its node and to other pods.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use tests::{Cluster, Options, Registry, eventually, image, layered, run};

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
        ..Options::default()
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

/// A tar file of entries that no archiver would write: the names are taken as they are.
struct Hostile(tar::Builder<Vec<u8>>);

impl Hostile {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn entry(mut self, kind: tar::EntryType, name: &str, link: &str, device: (u32, u32), content: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o666);
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        if kind.is_block_special() || kind.is_character_special() {
            header.set_device_major(device.0).expect("a device's number");
            header.set_device_minor(device.1).expect("a device's number");
        }
        header.set_cksum();
        self.0.append(&header, content).expect("an entry in memory");
        self
    }

    fn file(self, name: &str, content: &str) -> Self {
        self.entry(tar::EntryType::Regular, name, "", (0, 0), content.as_bytes())
    }

    fn finish(self) -> Vec<u8> {
        self.0.into_inner().expect("an archive in memory")
    }
}

#[test]
fn images_lead_to_nothing_of_the_node() {
    use tar::EntryType::{Block, Char, Link, Symlink};
    let mut cluster = Cluster::prepare(Options {
        images: &["busybox"],
        ..Options::default()
    });
    let scratch = tempfile::tempdir().expect("a directory");
    let outside = scratch.path().join("outside");
    let out = outside.display().to_string();
    std::fs::create_dir(&outside).expect("a directory");
    let disk = std::fs::metadata("/").expect("the root").dev();
    let disk = (nix::sys::stat::major(disk), nix::sys::stat::minor(disk));
    let disk = disk
        .0
        .try_into()
        .ok()
        .zip(disk.1.try_into().ok())
        .expect("a device's number");
    let layer = Hostile::new()
        .entry(Block, "disk", "", disk, b"")
        .entry(Char, "memory", "", (1, 1), b"")
        .entry(Symlink, "up", "../../../../../../../../../../..", (0, 0), b"")
        .file(&format!("up{out}/by-link"), "hostile")
        .entry(Symlink, "absolute", &out, (0, 0), b"")
        .file("absolute/by-absolute-link", "hostile")
        .entry(Symlink, "etc/passwd", &format!("{out}/passwd"), (0, 0), b"")
        .entry(Symlink, "etc/group", &format!("{out}/group"), (0, 0), b"")
        .finish();
    layered(
        &cluster.data_dir().join("images"),
        "busybox",
        "localhost/hostile:1",
        layer,
    );
    cluster.start_server();

    // Devices of an image are none, for root as well; links in it end at its own root.
    let manifest = pod("hostile", &format!("containers: [{}]", script("c", "exec sleep 1000")));
    cluster.create(&manifest.replace("localhost/busybox:1", "localhost/hostile:1"));
    cluster.wait_ready("hostile");
    for device in ["/disk", "/memory"] {
        let said = cluster
            .kubectl(&[
                "exec",
                "hostile",
                "--",
                "dd",
                &format!("if={device}"),
                "of=/dev/null",
                "bs=1",
                "count=1",
            ])
            .fails();
        assert!(
            ["Operation not permitted", "Permission denied"]
                .iter()
                .any(|words| said.contains(words)),
            "{device}: {said}"
        );
    }
    let made = "mknod /own b 8 0 && dd if=/own of=/dev/null bs=1 count=1";
    let said = cluster.kubectl(&["exec", "hostile", "--", "sh", "-c", made]).fails();
    assert!(
        said.contains("Operation not permitted") || said.contains("Permission denied"),
        "{said}"
    );
    assert_eq!(
        cluster.exec("hostile", &format!("cat {out}/by-link {out}/by-absolute-link")),
        "hostilehostile"
    );
    assert_eq!(std::fs::read_dir(&outside).expect("the directory").count(), 0);
    links_lead_containers_nowhere(&cluster, &outside);

    // Archives that name what is outside of them are refused, with one line that says which and why.
    let before = content(&outside);
    let registry = Registry::start(&cluster.netns, 5000, false);
    let layers = [
        (
            "climbs",
            Hostile::new().file("../../../../../../climbed", "hostile"),
            "leads out of the layer",
        ),
        (
            "hides",
            Hostile::new().file("a/../../../climbed", "hostile"),
            "leads out of the layer",
        ),
        (
            "links",
            Hostile::new().entry(Link, "passwd", &format!("{out}/secret"), (0, 0), b""),
            "a hard link to a file that the layer does not have",
        ),
        (
            "deletes",
            Hostile::new().file("a/.wh...", ""),
            "a whiteout without a name",
        ),
    ];
    for (name, layer, words) in layers {
        let archive = layered(
            scratch.path(),
            "busybox",
            &format!("localhost/{name}:1"),
            layer.finish(),
        );
        // So they are when a registry has them.
        registry.push(&cluster.netns, &archive, name, "1");
        let pulls = pod(name, &format!("containers: [{}]", script("c", "exec sleep 1000")));
        cluster.create(&pulls.replace("localhost/busybox:1", &format!("{}/{name}:1", registry.address)));
        cluster.until_warning(name, "Failed", words);
        let said = cluster.podium(&["image", "import", &archive.to_string_lossy()]).fails();
        assert!(
            said.contains(words) && said.contains(name) && said.trim().lines().count() == 1,
            "{said}"
        );
        assert!(!cluster.podium(&["image", "ls"]).ok().contains(name));
    }
    let whole = std::fs::read(image("busybox")).expect("an archive");
    let climbing = Hostile::new()
        .file("../../climbed", "hostile")
        .file("/climbed", "hostile")
        .finish();
    // Behind its own entries an archive may have others; these are put before them.
    let joined = [&climbing[..climbing.len() - 1024], &whole].concat();
    let archive = scratch.path().join("joined.tar");
    std::fs::write(&archive, joined).expect("an archive");
    let _ = cluster.podium(&["image", "import", &archive.to_string_lossy()]);
    for climbed in [
        "/climbed".into(),
        scratch.path().join("climbed"),
        cluster.data_dir().join("climbed"),
        cluster.dir().join("climbed"),
    ] {
        assert!(!Path::new(&climbed).exists(), "{}", climbed.display());
    }
    assert_eq!(content(&outside), before);
}

/// The files of a directory, with their modes, owners and texts.
fn content(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("the directory").flatten();
    let mut all: Vec<String> = entries
        .map(|entry| {
            let metadata = entry.metadata().expect("its metadata");
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            format!(
                "{:?} {:o} {} {} {text}",
                entry.file_name(),
                metadata.mode(),
                metadata.uid(),
                metadata.gid()
            )
        })
        .collect();
    all.sort();
    all
}

/// Pods of an image whose links name what is outside, and of volumes that have such links in them, get none of it and leave it as it is.
fn links_lead_containers_nowhere(cluster: &Cluster, outside: &Path) {
    let out = outside.display().to_string();
    for (name, text) in [
        ("secret", "KEY='the node'\n"),
        ("passwd", "root:x:0:0::/:/bin/sh\nvictim:x:1000:4242::/:/bin/sh\n"),
        ("group", "root:x:0:\nnodes:x:4343:victim\n"),
    ] {
        std::fs::write(outside.join(name), text).expect("a file");
    }
    let before = content(outside);
    let hostile = |name: &str, script_: &str, container: &str, spec: &str| {
        let container = script("c", script_)
            .replace("localhost/busybox:1", "localhost/hostile:1")
            .replace("]}", &format!("]{container}}}"));
        pod(
            name,
            &format!("terminationGracePeriodSeconds: 1, containers: [{container}]{spec}"),
        )
    };
    let sleeps = "exec sleep 1000";
    let empty = ", volumes: [{name: v, emptyDir: {}}]";
    let writes = "mkdir /v/real && ln -s /absolute/secret /v/secret && ln -s ../../../../../../../../..$OUT/secret /v/up && echo ready > /v/real/f";
    let first =
        script("first", &writes.replace("$OUT", &out)).replace("]}", "], volumeMounts: [{name: v, mountPath: /v}]}");
    let from_file = |name: &str, path: &str| {
        hostile(
            name,
            "exec sleep 1000",
            &format!(", env: [{{name: KEY, valueFrom: {{fileKeyRef: {{volumeName: v, path: {path}, key: KEY}}}}}}]"),
            &format!("{empty}, initContainers: [{first}]"),
        )
    };
    let pods = [
        hostile(
            "mounts",
            sleeps,
            ", volumeMounts: [{name: v, mountPath: /absolute/mounted}, {name: v, mountPath: /up$OUT/climbed}]",
            empty,
        )
        .replace("$OUT", &out),
        hostile("works", sleeps, ", workingDir: /absolute/work", ""),
        hostile(
            "named",
            sleeps,
            "",
            ", securityContext: {runAsUser: 1000, supplementalGroupsPolicy: Merge}",
        ),
        hostile(
            "image",
            sleeps,
            ", volumeMounts: [{name: i, mountPath: /i, subPath: absolute}]",
            ", volumes: [{name: i, image: {reference: 'localhost/hostile:1', pullPolicy: Never}}]",
        ),
        from_file("link", "secret"),
        from_file("climb", "up"),
        hostile(
            "grouped",
            sleeps,
            ", volumeMounts: [{name: v, mountPath: /absolute}]",
            &format!("{empty}, securityContext: {{fsGroup: 4444}}"),
        ),
    ];
    cluster.create(&pods.concat());
    for name in ["mounts", "works", "named", "grouped"] {
        cluster.wait_ready(name);
    }
    cluster.exec(
        "mounts",
        &format!("echo x > /absolute/mounted/f && grep x {out}/climbed/f && ! test -e {out}/secret"),
    );
    cluster.exec(
        "works",
        &format!("touch f && test -e {out}/work/f && test $(readlink /proc/1/cwd) = {out}/work"),
    );
    cluster.exec("grouped", "touch /absolute/f");
    assert_eq!(
        cluster.exec("named", "id -g; id -G"),
        "0\n0\n",
        "the image's accounts are not the node's"
    );
    for name in ["link", "climb"] {
        cluster.until_warning(name, "Failed", "Error: couldn't parse env file");
    }
    let refused = "Error: failed to find path \"absolute\" in image \"localhost/hostile:1\" to mount it at \"/i\"";
    cluster.until_warning("image", "Failed", refused);
    assert_eq!(content(outside), before);
    cluster.kubectl(&["delete", "pod", "--all", "--timeout=60s"]).ok();
    assert_eq!(content(outside), before);
}
