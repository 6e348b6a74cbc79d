//! Network namespaces that a test makes and removes.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::command::run;

/// A named network namespace, gone when dropped.
pub struct Netns {
    /// Its name, as `ip netns` lists it.
    pub name: String,
}

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A command that runs in the namespace with that file. `nsenter` and not `ip netns exec`, which would hide /sys/fs/cgroup.
pub(crate) fn inside(netns: &Path, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", netns.display())).arg("--").arg(program);
    command
}

impl Netns {
    /// A new namespace with its loopback up.
    ///
    /// # Panics
    /// When the kernel refuses one.
    pub fn new(role: &str) -> Self {
        let name = format!(
            "pt-{role}-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        run(Command::new("ip").args(["netns", "add", &name]), "").ok();
        let netns = Self { name };
        netns.ip(&["link", "set", "lo", "up"]);
        netns
    }

    /// Its file, for setns(2).
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// A command that runs inside.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        inside(&self.path(), program)
    }

    /// `ip …` inside.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn ip(&self, args: &[&str]) -> String {
        run(Command::new("ip").args(["-n", &self.name]).args(args), "").ok()
    }

    /// Joins two namespaces with a veth pair, `eth0` in each, under the given addresses.
    pub fn join(&self, address: &str, other: &Netns, other_address: &str) {
        self.ip(&[
            "link",
            "add",
            "eth0",
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            &other.name,
        ]);
        for (netns, address) in [(self, address), (other, other_address)] {
            netns.ip(&["address", "add", address, "dev", "eth0"]);
            netns.ip(&["link", "set", "eth0", "up"]);
        }
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}
