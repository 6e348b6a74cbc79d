//! A pod's own users: the namespace that they live in, and the pod's other namespaces, which are theirs.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork, pipe2, read, write};

use super::protocol::Users;

/// The user namespace of a pod, as its shim holds it.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) namespace: OwnedFd,
    pub(super) users: Users,
}

/// Makes a user namespace and moves this process into new namespaces that belong to it, but not into itself.
pub(super) fn enter(users: Users, namespaces: CloneFlags) -> io::Result<Held> {
    let (ready, tell_ready) = pipe2(OFlag::O_CLOEXEC)?;
    let (done, tell_done) = pipe2(OFlag::O_CLOEXEC)?;
    // SAFETY: this process has one thread.
    let child = match unsafe { fork() }? {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            drop((ready, tell_done));
            let made = unshare(namespaces | CloneFlags::CLONE_NEWUSER);
            let _ = write(&tell_ready, &[made.err().map_or(0, |errno| errno as u8)]);
            let _ = read(&done, &mut [0]);
            // SAFETY: ends the process without running what its parent had registered.
            unsafe { libc::_exit(0) }
        }
    };
    drop((tell_ready, done));
    let held = take(&ready, child.as_raw(), users, namespaces);
    drop(tell_done);
    let _ = waitpid(child, None);
    held
}

fn take(ready: &OwnedFd, child: i32, users: Users, namespaces: CloneFlags) -> io::Result<Held> {
    let mut answer = [0];
    if read(ready, &mut answer)? == 0 {
        return Err(io::Error::other("the process that was to make them ended"));
    }
    if answer[0] != 0 {
        return Err(io::Error::from_raw_os_error(i32::from(answer[0])));
    }
    fs::write(
        format!("/proc/{child}/uid_map"),
        format!("0 {} {}\n", users.uid, users.uids),
    )?;
    fs::write(
        format!("/proc/{child}/gid_map"),
        format!("0 {} {}\n", users.gid, users.gids),
    )?;
    let namespace = OwnedFd::from(fs::File::open(format!("/proc/{child}/ns/user"))?);
    for (flag, name) in [
        (CloneFlags::CLONE_NEWNET, "net"),
        (CloneFlags::CLONE_NEWIPC, "ipc"),
        (CloneFlags::CLONE_NEWUTS, "uts"),
    ] {
        if namespaces.contains(flag) {
            setns(fs::File::open(format!("/proc/{child}/ns/{name}"))?, flag)?;
        }
    }
    Ok(Held { namespace, users })
}
