//! A container as its shim holds it, and the end of one.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use super::logs::LogFile;
use super::output::Output;
use super::protocol::{Confinement, ContainerState, Exit, Failure};
use crate::host;

/// A container that was started, until the server forgets it.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) id: String,
    pub(super) pid: i32,
    pub(super) started_at: i64,
    pub(super) exit: Option<Exit>,
    pub(super) bundle: PathBuf,
    pub(super) root: PathBuf,
    pub(super) cgroup: PathBuf,
    pub(super) log: Option<LogFile>,
    pub(super) outputs: Vec<Output>,
    /// The writing end of the process's input, or its terminal's master.
    pub(super) input: Option<OwnedFd>,
    pub(super) tty: bool,
    pub(super) stdin: bool,
    pub(super) stdin_once: bool,
    pub(super) confinement: Confinement,
}

impl Container {
    pub(super) fn state(&self) -> ContainerState {
        ContainerState {
            id: self.id.clone(),
            pid: self.pid,
            started_at: self.started_at,
            exit: self.exit,
        }
    }

    /// Sends a signal to the container's own process or to all of its processes.
    pub(super) fn kill(&self, signal: i32, all: bool) -> Result<(), Failure> {
        if self.exit.is_some() {
            return Ok(());
        }
        let pids = if all {
            host::cgroup_processes(&self.cgroup)
        } else {
            Vec::new()
        };
        for pid in pids.into_iter().chain([self.pid]) {
            send(pid, signal).map_err(|err| Failure::other(format!("signal {signal} to process {pid}: {err}")))?;
        }
        Ok(())
    }

    /// Notes the end of the container's own process and takes away what the kernel keeps of the container.
    pub(super) fn ended(&mut self, code: i32, at: i64) -> Exit {
        let exit = Exit {
            code,
            at,
            oom_killed: oom_kills(&self.cgroup) > 0,
        };
        self.exit = Some(exit);
        self.input = None;
        exit
    }

    /// Ends what outlived the container's own process, and removes its cgroup.
    ///
    /// libcontainer's own deletion finds out anew what is known here, a hundred files long, while the server waits.
    /// Its notes go with the container's directory.
    pub(super) fn clean_up(&self) {
        // In a PID namespace that is shared the others do not end with the first.
        for pid in host::cgroup_processes(&self.cgroup) {
            let _ = send(pid, Signal::SIGKILL as i32);
        }
        // What cannot be removed now is removed with the container or the sandbox.
        host::remove_cgroup(&self.cgroup);
    }
}

/// A signal by number, real-time ones too; a process that has gone is no error.
pub(super) fn send(pid: i32, signal: i32) -> nix::Result<()> {
    // SAFETY: sending a signal touches no memory of this process.
    match nix::errno::Errno::result(unsafe { libc::kill(pid, signal) }) {
        Ok(_) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// How many processes of a cgroup the kernel has killed for want of memory.
fn oom_kills(cgroup: &Path) -> u64 {
    let name = if host::unified() {
        "memory.events"
    } else {
        "memory.oom_control"
    };
    let events = fs::read_to_string(host::cgroup_dir("memory", cgroup).join(name)).unwrap_or_default();
    events
        .lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == "oom_kill")
        .and_then(|(_, count)| count.trim().parse().ok())
        .unwrap_or(0)
}
