//! The last steps of a process before it becomes the container's program.
//!
//! libcontainer calls a [`Launcher`] inside the container, as the container's user: first to see whether the program
//! can be run, then to run it. The words of its errors are those that users know from other runtimes.

use std::ffi::CString;
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use caps::{CapSet, Capability, CapsHashSet};
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use oci_spec::runtime::{Capabilities, LinuxCapabilities, Process, Spec};

use super::filter::Filter;
use super::protocol::Confinement;

/// Runs a container's program.
#[derive(Clone, Debug)]
pub(super) struct Launcher {
    filter: Option<Filter>,
    borrowed: Vec<Capability>,
    /// The container's own process, or a command in it.
    init: bool,
    entry: Option<Entry>,
}

/// The way of a command into the users of its pod. libcontainer does not take a command there: it gives the command all of root's powers
/// instead, and here they are left behind.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The shim's descriptor of the user namespace, which its children have under the same number.
    pub(super) namespace: RawFd,
    /// What the command is to be in it.
    pub(super) process: Process,
}

impl Entry {
    fn enter(&self) -> Result<(), String> {
        let failed = |what: &str, err: nix::Error| format!("{what}: {}", describe(err));
        // SAFETY: the shim holds the descriptor for as long as its pod lives, and its child has all that it had.
        let namespace = unsafe { BorrowedFd::borrow_raw(self.namespace) };
        setns(namespace, CloneFlags::CLONE_NEWUSER).map_err(|err| failed("enter the pod's user namespace", err))?;
        let wanted = |set: fn(&LinuxCapabilities) -> &Option<Capabilities>| -> Result<CapsHashSet, String> {
            let names = self.process.capabilities().as_ref().and_then(|sets| set(sets).clone());
            names.iter().flatten().map(capability).collect()
        };
        let (bounding, effective, permitted) = (
            wanted(LinuxCapabilities::bounding)?,
            wanted(LinuxCapabilities::effective)?,
            wanted(LinuxCapabilities::permitted)?,
        );
        let refused = |err: caps::errors::CapsError| format!("set capabilities: {err}");
        for other in caps::read(None, CapSet::Bounding)
            .map_err(refused)?
            .difference(&bounding)
        {
            caps::drop(None, CapSet::Bounding, *other).map_err(refused)?;
        }
        let user = self.process.user();
        let groups: Vec<Gid> = user
            .additional_gids()
            .iter()
            .flatten()
            .map(|gid| Gid::from_raw(*gid))
            .collect();
        let (uid, gid) = (Uid::from_raw(user.uid()), Gid::from_raw(user.gid()));
        setgroups(&groups).map_err(|err| failed("set groups", err))?;
        setresgid(gid, gid, gid).map_err(|err| failed("set the group", err))?;
        nix::sys::prctl::set_keepcaps(true).map_err(|err| failed("keep capabilities", err))?;
        setresuid(uid, uid, uid).map_err(|err| failed("set the user", err))?;
        nix::sys::prctl::set_keepcaps(false).map_err(|err| failed("keep capabilities", err))?;
        caps::set(None, CapSet::Effective, &effective).map_err(refused)?;
        caps::set(None, CapSet::Permitted, &permitted).map_err(refused)
    }
}

/// The same capability of another library.
fn capability(of: &oci_spec::runtime::Capability) -> Result<Capability, String> {
    let name = of.to_string();
    let name = match name.starts_with("CAP_") {
        true => name,
        false => format!("CAP_{name}"),
    };
    name.parse().map_err(|_| format!("capability {name:?} is not known"))
}

impl Launcher {
    /// `entry` is for a command in a pod with users of its own.
    pub(super) fn new(confinement: &Confinement, init: bool, entry: Option<Entry>) -> Result<Self, String> {
        let capability = |name: &String| name.parse().map_err(|_| format!("capability {name:?} is not known"));
        Ok(Self {
            filter: confinement.seccomp.as_ref().map(Filter::of),
            borrowed: confinement.borrowed.iter().map(capability).collect::<Result<_, _>>()?,
            init,
            entry,
        })
    }

    /// Loads the filter and gives up what that took.
    fn confine(&self) -> Result<(), String> {
        if let Some(filter) = &self.filter {
            filter.load()?;
        }
        for &capability in &self.borrowed {
            caps::drop(None, CapSet::Bounding, capability).map_err(|err| format!("drop {capability}: {err}"))?;
        }
        if !self.borrowed.is_empty() {
            for set in [CapSet::Effective, CapSet::Permitted] {
                let kept: CapsHashSet = caps::read(None, set)
                    .map_err(|err| format!("read capabilities: {err}"))?
                    .into_iter()
                    .filter(|capability| !self.borrowed.contains(capability))
                    .collect();
                caps::set(None, set, &kept).map_err(|err| format!("set capabilities: {err}"))?;
            }
        }
        Ok(())
    }

    fn run(&self, spec: &Spec) -> String {
        let path = match program(spec) {
            Ok(path) => path,
            Err(reason) => return reason,
        };
        // Before the filter, which need not let it.
        let labelled = label(spec).and_then(|()| self.entry.as_ref().map_or(Ok(()), Entry::enter));
        match labelled.and_then(|()| self.confine()) {
            Ok(()) => format!("exec {}: {}", path.display(), describe(execute(spec, &path))),
            Err(reason) => reason,
        }
    }
}

impl Executor for Launcher {
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        program(spec)
            .map(drop)
            .map_err(ExecutorValidationError::ArgValidationError)
    }

    // The environment is handed to the program as the spec has it, in its order.
    fn setup_envs(&self, _: std::collections::HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let failure = self.run(spec);
        if self.init {
            // Nobody listens any more: what a user sees is the container's log.
            eprintln!("{failure}");
            // SAFETY: ends the process without running what its parent had registered.
            unsafe { libc::_exit(255) }
        }
        Err(ExecutorError::Other(failure))
    }
}

/// Has the program run under the SELinux label of its specification, which libcontainer only keeps.
fn label(spec: &Spec) -> Result<(), String> {
    const NEXT: &str = "/proc/thread-self/attr/exec";
    match spec
        .process()
        .as_ref()
        .and_then(|process| process.selinux_label().as_ref())
    {
        Some(label) => std::fs::write(NEXT, label).map_err(|err| format!("set the label {label:?} in {NEXT}: {err}")),
        None => Ok(()),
    }
}

fn arguments(spec: &Spec) -> (&[String], &[String]) {
    let process = spec.process().as_ref();
    (
        process
            .and_then(|process| process.args().as_deref())
            .unwrap_or_default(),
        process.and_then(|process| process.env().as_deref()).unwrap_or_default(),
    )
}

/// Replaces this process by the program; returns only when the kernel refuses.
fn execute(spec: &Spec, path: &Path) -> nix::Error {
    let (args, env) = arguments(spec);
    let strings = |list: &[String]| -> Result<Vec<CString>, nix::Error> {
        list.iter()
            .map(|text| CString::new(text.as_str()).map_err(|_| nix::Error::EINVAL))
            .collect()
    };
    let path = match CString::new(path.as_os_str().as_encoded_bytes()) {
        Ok(path) => path,
        Err(_) => return nix::Error::EINVAL,
    };
    let (args, env) = match (strings(args), strings(env)) {
        (Ok(args), Ok(env)) => (args, env),
        (Err(err), _) | (_, Err(err)) => return err,
    };
    // The shim blocks and ignores signals; its containers start with none of that.
    reset_dispositions();
    if let Err(err) = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None) {
        return err;
    }
    match nix::unistd::execve(&path, &args, &env) {
        Err(err) => err,
    }
}

/// Gives every signal its default meaning, the two that the C library keeps for itself included: it refuses to.
fn reset_dispositions() {
    /// The kernel's action on a signal, without the C library's translation: all zero is the default.
    type Action = [u64; 4];
    const SET_BYTES: usize = 8;
    let default: Action = [0; 4];
    for signal in 1..=64 {
        // SAFETY: the kernel reads an action no longer than `default`; numbers that cannot be set are refused.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<Action>(),
                SET_BYTES,
            )
        };
    }
}

/// The program's path, searched for as a shell would.
fn program(spec: &Spec) -> Result<PathBuf, String> {
    let (args, env) = arguments(spec);
    let name = args.first().map(String::as_str).unwrap_or_default();
    let path = env
        .iter()
        .find_map(|entry| entry.strip_prefix("PATH="))
        .unwrap_or_default();
    search(name, path)
}

fn search(name: &str, path: &str) -> Result<PathBuf, String> {
    if name.contains('/') {
        return match executable(Path::new(name)) {
            Ok(()) => Ok(PathBuf::from(name)),
            Err(reason) => Err(format!("exec: {name:?}: {reason}")),
        };
    }
    path.split(':')
        .map(|dir| Path::new(if dir.is_empty() { "." } else { dir }).join(name))
        .find(|candidate| !name.is_empty() && executable(candidate).is_ok())
        .ok_or_else(|| format!("exec: {name:?}: executable file not found in $PATH"))
}

fn executable(path: &Path) -> Result<(), String> {
    let metadata = std::fs::metadata(path).map_err(|err| {
        let errno = nix::Error::from_raw(err.raw_os_error().unwrap_or_default());
        format!("stat {}: {}", path.display(), describe(errno))
    })?;
    if metadata.is_dir() {
        return Err(describe(nix::Error::EISDIR));
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(describe(nix::Error::EACCES));
    }
    Ok(())
}

/// The kernel's words for an error, as other runtimes write them.
fn describe(errno: nix::Error) -> String {
    match errno {
        nix::Error::ENOENT => "no such file or directory".into(),
        nix::Error::EACCES => "permission denied".into(),
        nix::Error::EPERM => "operation not permitted".into(),
        nix::Error::ENOEXEC => "exec format error".into(),
        nix::Error::EISDIR => "is a directory".into(),
        nix::Error::ENOTDIR => "not a directory".into(),
        nix::Error::E2BIG => "argument list too long".into(),
        other => other.desc().to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed call fails the test

    use super::*;

    #[test]
    fn programs_are_found_or_the_reason_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, mode: u32| {
            let path = dir.path().join(name);
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path.display().to_string()
        };
        let (runs, plain) = (file("runs", 0o755), file("plain", 0o644));
        let here = dir.path().display().to_string();
        let path = format!("/nonexistent:{here}");
        let cases = [
            (runs.as_str(), Ok(runs.clone())),
            ("runs", Ok(runs.clone())),
            (
                "plain",
                Err("exec: \"plain\": executable file not found in $PATH".to_owned()),
            ),
            ("", Err("exec: \"\": executable file not found in $PATH".to_owned())),
            (plain.as_str(), Err(format!("exec: {plain:?}: permission denied"))),
            (here.as_str(), Err(format!("exec: {here:?}: is a directory"))),
            (
                "/no/such",
                Err("exec: \"/no/such\": stat /no/such: no such file or directory".to_owned()),
            ),
        ];
        for (name, expected) in cases {
            assert_eq!(search(name, &path), expected.map(PathBuf::from), "{name}");
        }
    }
}
