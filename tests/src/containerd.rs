//! A containerd of a test's own, with Debian's runc and CNI plugins, in the node's network namespace.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::command::{eventually, run};
use crate::{Netns, Output, target};

/// It runs until it is dropped, and so do its containers.
pub struct Containerd {
    dir: PathBuf,
    netns: PathBuf,
    server: Child,
}

impl Containerd {
    /// Where one in this directory listens, which is to be known before it runs.
    pub fn socket(dir: &Path) -> PathBuf {
        dir.join("containerd.sock")
    }

    /// Starts one. `pause` is the image of its sandboxes, `pods` the range of their addresses.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(netns: &Netns, dir: &Path, pause: &str, pods: &str) -> Self {
        let tree = target().join("tools/containerd");
        let (at, tree_at) = (dir.display(), tree.display());
        for part in ["root", "state", "runc", "cni"] {
            fs::create_dir_all(dir.join(part)).expect("a directory for containerd");
        }
        let configuration = format!(
            "version = 2\nroot = '{at}/root'\nstate = '{at}/state'\n[grpc]\naddress = '{}'\n[ttrpc]\naddress = '{at}/ttrpc.sock'\n\
             [plugins.'io.containerd.grpc.v1.cri']\nsandbox_image = '{pause}'\nrestrict_oom_score_adj = true\ndisable_apparmor = true\n\
             [plugins.'io.containerd.grpc.v1.cri'.cni]\nbin_dir = '{tree_at}/usr/lib/cni'\nconf_dir = '{at}/cni'\n\
             [plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc]\nruntime_type = 'io.containerd.runc.v2'\n\
             [plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc.options]\nBinaryName = '{tree_at}/usr/sbin/runc'\nRoot = '{at}/runc'\n",
            Self::socket(dir).display()
        );
        fs::write(dir.join("config.toml"), configuration).expect("containerd's configuration");
        let network = format!(
            "{{\"cniVersion\": \"0.4.0\", \"name\": \"pods\", \"plugins\": [{{\"type\": \"ptp\", \"ipam\": {{\"type\": \"host-local\", \
             \"dataDir\": \"{at}/addresses\", \"ranges\": [[{{\"subnet\": \"{pods}\"}}]], \"routes\": [{{\"dst\": \"0.0.0.0/0\"}}]}}}}, \
             {{\"type\": \"portmap\", \"capabilities\": {{\"portMappings\": true}}}}]}}"
        );
        fs::write(dir.join("cni/10-pods.conflist"), network).expect("the pods' network");
        let log = File::create(dir.join("log")).expect("containerd's log");
        let mut path = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect::<Vec<_>>();
        path.extend([
            tree.join("usr/bin"),
            tree.join("usr/sbin"),
            "/usr/sbin".into(),
            "/sbin".into(),
        ]);
        let server = netns
            .command(tree.join("usr/bin/containerd"))
            .arg("--config")
            .arg(dir.join("config.toml"))
            .env("PATH", std::env::join_paths(path).expect("a PATH"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log's handle"))
            .stderr(log)
            .spawn()
            .expect("containerd starts");
        let containerd = Self {
            dir: dir.to_owned(),
            netns: netns.path(),
            server,
        };
        eventually("containerd answers", || {
            (containerd.ctr(&["version"]).code == 0).then_some(())
        });
        containerd
    }

    /// `ctr …` where CRI keeps its own.
    pub fn ctr(&self, args: &[&str]) -> Output {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.netns.display()))
            .arg("--")
            .arg(target().join("tools/containerd/usr/bin/ctr"))
            .arg("--address")
            .arg(Self::socket(&self.dir))
            .args(["--namespace", "k8s.io"])
            .args(args);
        run(&mut command, "")
    }

    /// Imports an archive.
    ///
    /// # Panics
    /// When it is not taken.
    pub fn import(&self, archive: &Path) {
        self.ctr(&["images", "import", &archive.to_string_lossy()]).ok();
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- containerd's log\n{}", self.log());
        }
        // What a failed test left: its shims outlive it.
        for task in self.ctr(&["tasks", "list", "--quiet"]).stdout.split_whitespace() {
            self.ctr(&["tasks", "delete", "--force", task]);
        }
        let _ = self.server.kill();
        let _ = self.server.wait();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let below = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        for mount in below.filter(|mount| Path::new(mount).starts_with(&self.dir)) {
            let _ = Command::new("umount").args(["-l", mount]).status();
        }
    }
}
