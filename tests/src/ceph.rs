//! A real Ceph cluster with a file system, on the loopback of a test's network namespace: a monitor, an OSD in memory, an MDS.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::command::{eventually, run};
use crate::{Netns, Output};

/// Where the monitor is.
pub const MONITOR: &str = "127.0.0.1:6789";
const FSID: &str = "11111111-2222-3333-4444-555555555555";
const OSD: &str = "99999999-2222-3333-4444-555555555555";
const MONITOR_ADDRESSES: &str = "[v2:127.0.0.1:3300,v1:127.0.0.1:6789]";

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
             memstore device bytes = 268435456\nkeyring = {at}/keyring\n"
        );
        fs::write(dir.join("conf"), configuration).expect("Ceph's configuration");
        let ceph = Self {
            netns: netns.path(),
            dir: dir.to_owned(),
            daemons: Vec::new(),
        };
        fs::write(ceph.keyring(), "").expect("the keyring");
        let keys: [(&str, &[(&str, &str)]); 4] = [
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
        let mut command = Command::new("ceph-authtool");
        command.arg(self.keyring()).args(["-p", "-n", "client.admin"]);
        run(&mut command, "").ok().trim().to_owned()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.netns.display()))
            .arg("--")
            .arg(program);
        command.arg("-c").arg(self.dir.join("conf"));
        command
    }

    fn ceph(&self, args: &[&str]) -> Output {
        run(self.command("ceph").args(["--connect-timeout", "10"]).args(args), "")
    }

    /// Asks until it is done: the command line waits longer and longer for a monitor that is only starting. Done again, it changes nothing.
    fn until_done(&self, args: &[&str]) {
        eventually(&format!("ceph {}", args.join(" ")), || {
            (self.ceph(args).code == 0).then_some(())
        });
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
        self.daemon("ceph-mon", "a");
        self.until_done(&["osd", "new", OSD, "0"]);
        run(
            self.command("ceph-osd").args(["-i", "0", "--mkfs", "--osd-uuid", OSD]),
            "",
        )
        .ok();
        self.daemon("ceph-osd", "0");
        self.daemon("ceph-mds", "a");
        self.until_done(&["osd", "pool", "create", "metadata", "1"]);
        self.until_done(&["osd", "pool", "create", "data", "1"]);
        self.until_done(&["fs", "new", "cephfs", "metadata", "data"]);
        eventually("the MDS serves the file system", || {
            self.ceph(&["mds", "stat"]).stdout.contains("up:active").then_some(())
        });
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
