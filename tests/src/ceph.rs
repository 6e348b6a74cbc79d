//! A real Ceph cluster with a file system, on the loopback of a test's network namespace: a monitor, an OSD in memory, an MDS.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::Netns;
use crate::command::run;
use crate::netns::inside;

/// Where the monitor is.
pub const MONITOR: &str = "127.0.0.1:6789";
const FSID: &str = "11111111-2222-3333-4444-555555555555";
const OSD: &str = "99999999-2222-3333-4444-555555555555";
const MONITOR_ADDRESSES: &str = "[v2:127.0.0.1:3300,v1:127.0.0.1:6789]";

/// Tells the monitor what there is to be, says so, and waits until there is. The `ceph` program would take a start of a second for each.
const ADMINISTRATION: &str = r#"
import json, rados, sys, time
cluster = rados.Rados(conffile=sys.argv[1], name="client.admin")
cluster.connect()
def tell(**command):
    code, said, why = cluster.mon_command(json.dumps(command), b"")
    if code != 0:
        sys.exit(f"{command}: {code} {why}")
    return said
tell(prefix="osd new", uuid=sys.argv[2], id=0)
for pool in ["metadata", "data"]:
    tell(prefix="osd pool create", pool=pool, pg_num=1)
tell(prefix="fs new", fs_name="cephfs", metadata="metadata", data="data")
print("told", flush=True)
while b"up:active" not in tell(prefix="mds stat"):
    time.sleep(0.05)
"#;

/// The cluster; its daemons end when it is dropped.
pub struct Ceph {
    netns: PathBuf,
    dir: PathBuf,
    daemons: Vec<Child>,
}

impl Ceph {
    /// Keys and configuration, and nobody who answers yet.
    pub fn prepare(netns: &Netns, dir: &Path) -> Self {
        for part in ["run", "log", "mon", "osd", "mds"] {
            fs::create_dir_all(dir.join(part)).expect("a directory for Ceph");
        }
        let at = dir.display();
        let configuration = format!(
            "[global]\nfsid = {FSID}\nmon host = {MONITOR_ADDRESSES}\nauth cluster required = cephx\nauth service required = cephx\n\
             auth client required = cephx\nosd pool default size = 1\nosd pool default min size = 1\nmon allow pool size one = true\n\
             osd crush chooseleaf type = 0\npublic addr = 127.0.0.1\ncluster addr = 127.0.0.1\nrun dir = {at}/run\n\
             log file = {at}/log/$name.log\nadmin socket = {at}/run/$name.asok\nmon cluster log file = {at}/log/cluster.log\n\
             mon data = {at}/mon\nosd data = {at}/osd\nmds data = {at}/mds\nosd objectstore = memstore\n\
             memstore device bytes = 268435456\nmon client hunt interval = 0.5\nosd erasure code plugins =\ncrush location = root=default host=a\nkeyring = {at}/keyring\n"
        );
        fs::write(dir.join("conf"), configuration).expect("Ceph's configuration");
        let ceph = Self {
            netns: netns.path(),
            dir: dir.to_owned(),
            daemons: Vec::new(),
        };
        fs::write(ceph.keyring(), "").expect("the keyring");
        let keys: [(&str, &[(&str, &str)]); 5] = [
            ("mon.", &[("mon", "allow *")]),
            (
                "client.admin",
                &[
                    ("mon", "allow *"),
                    ("osd", "allow *"),
                    ("mds", "allow *"),
                    ("mgr", "allow *"),
                ],
            ),
            (
                "client.web",
                &[("mon", "allow r"), ("osd", "allow rw"), ("mds", "allow rw")],
            ),
            ("osd.0", &[("mon", "allow profile osd"), ("osd", "allow *")]),
            (
                "mds.a",
                &[("mon", "allow profile mds"), ("osd", "allow *"), ("mds", "allow *")],
            ),
        ];
        for (name, capabilities) in keys {
            let mut command = Command::new("ceph-authtool");
            command.arg(ceph.keyring()).args(["--gen-key", "-n", name]);
            for (of, may) in capabilities {
                command.args(["--cap", of, may]);
            }
            run(&mut command, "").ok();
        }
        ceph
    }

    /// Everyone's keys.
    pub fn keyring(&self) -> PathBuf {
        self.dir.join("keyring")
    }

    /// The key of the administrator.
    pub fn key(&self) -> String {
        self.key_of("client.admin")
    }

    /// Somebody's key; `client.web` is a user who may read and write files and nothing else.
    pub fn key_of(&self, name: &str) -> String {
        let mut command = Command::new("ceph-authtool");
        command.arg(self.keyring()).args(["-p", "-n", name]);
        run(&mut command, "").ok().trim().to_owned()
    }

    /// A program of Ceph's.
    fn command(&self, program: &str) -> Command {
        let mut command = inside(&self.netns, program);
        command.arg("-c").arg(self.dir.join("conf"));
        command
    }

    fn daemon(&mut self, program: &str, id: &str) {
        let log = File::create(self.dir.join(format!("log/{program}.out"))).expect("a log");
        let mut command = self.command(program);
        command.args(["-i", id, "-f"]).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("the log's handle")).stderr(log);
        self.daemons.push(command.spawn().expect("a daemon of Ceph starts"));
    }

    /// Starts the daemons; when it returns, the file system can be mounted.
    pub fn start(&mut self) {
        let map = self.dir.join("monmap");
        let mut command = Command::new("monmaptool");
        command
            .args(["--create", "--addv", "a", MONITOR_ADDRESSES, "--fsid", FSID])
            .arg(&map);
        run(&mut command, "").ok();
        let mut command = self.command("ceph-mon");
        command
            .args(["--mkfs", "-i", "a", "--monmap"])
            .arg(&map)
            .arg("--keyring")
            .arg(self.keyring());
        run(&mut command, "").ok();
        let mut command = self.command("ceph-osd");
        command.args(["-i", "0", "--mkfs", "--osd-uuid", OSD, "--no-mon-config"]);
        run(&mut command, "").ok();
        self.daemon("ceph-mon", "a");
        let mut command = inside(&self.netns, "/usr/bin/python3");
        command.args(["-c", ADMINISTRATION]).arg(self.dir.join("conf")).arg(OSD);
        let mut administration = command.stdout(Stdio::piped()).spawn().expect("python3 starts");
        let mut said = BufReader::new(administration.stdout.take().expect("its output"));
        let mut line = String::new();
        said.read_line(&mut line).expect("what the administration says");
        assert_eq!(line, "told\n");
        self.daemon("ceph-osd", "0");
        self.daemon("ceph-mds", "a");
        let ended = administration.wait().expect("the administration ends");
        assert!(ended.success(), "{ended}");
    }
}

impl Drop for Ceph {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for program in ["ceph-mon", "ceph-osd", "ceph-mds"] {
                let said = fs::read_to_string(self.dir.join(format!("log/{program}.out"))).unwrap_or_default();
                let ended: Vec<_> = self.daemons.iter_mut().map(|daemon| daemon.try_wait()).collect();
                eprintln!("--- {program}\n{said}\n{ended:?}");
            }
        }
        for daemon in &mut self.daemons {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}
