//! A pod's own users, and what must be mounted for containers that are theirs.
//!
//! A process of a user namespace can neither mount the image's layers as its own users' nor reach what the node keeps from others. So the
//! shim, which is the node's root, does it beforehand, in a mount namespace that it makes for one start and leaves again: what is in it is
//! copied into the container's, and goes with that.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork, pipe2, read, write};

use super::protocol::{Failure, Stage, Staging, Users};

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

/// Runs `create` where everything is mounted that a container needs and cannot mount itself.
pub(super) fn staged<T>(
    staging: &Staging,
    bundle: &Path,
    held: &Held,
    create: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let other = |what: &str, err: io::Error| Failure::other(format!("{what}: {err}"));
    let home = fs::File::open("/proc/self/ns/mnt").map_err(|err| other("open the mount namespace", err))?;
    unshare(CloneFlags::CLONE_NEWNS).map_err(|err| other("make a mount namespace", err.into()))?;
    let created = stage(staging, bundle, held).and_then(|()| create());
    // In any other namespace the shim would keep file systems of the node busy.
    setns(home, CloneFlags::CLONE_NEWNS).map_err(|err| other("go back to the node's mounts", err.into()))?;
    created
}

fn stage(staging: &Staging, bundle: &Path, held: &Held) -> Result<(), Failure> {
    let failed = |what: String| move |err: io::Error| Failure::other(format!("{what}: {err}"));
    let nothing = None::<&str>;
    mount(nothing, "/", nothing, MsFlags::MS_SLAVE | MsFlags::MS_REC, nothing)
        .map_err(|err| failed("make mounts the namespace's own".into())(err.into()))?;
    let tree = |source: &Path, mapped: bool| -> Result<OwnedFd, Failure> {
        let tree = open_tree(source).map_err(failed(format!("open {}", source.display())))?;
        if mapped {
            map_users(&tree, &held.namespace).map_err(failed(format!(
                "map the users of {} (its file system may not be able to)",
                source.display()
            )))?;
        }
        Ok(tree)
    };
    // All is opened by its name before the way to the bundle is covered.
    let layers = match &staging.layers {
        Some((source, target)) => Some((tree(source, true)?, target)),
        None => None,
    };
    let mut trees = Vec::new();
    for staged in &staging.mounts {
        trees.push(match &staged.what {
            Stage::Tree { source, mapped } => Some(tree(source, *mapped)?),
            Stage::Overlay { .. } => None,
        });
    }
    clear_the_way(bundle).map_err(failed(format!("make {} reachable", bundle.display())))?;
    std::env::set_current_dir(bundle).map_err(failed(format!("enter {}", bundle.display())))?;
    if let Some((tree, target)) = layers {
        fs::create_dir_all(target)
            .and_then(|()| move_mount(&tree, target))
            .map_err(failed("mount the layers".into()))?;
    }
    for (staged, tree) in staging.mounts.iter().zip(trees) {
        let target = &staged.target;
        let mounted = match (&staged.what, tree) {
            (Stage::Overlay { options }, _) => overlay(options, target),
            (Stage::Tree { .. }, Some(tree)) => place_for(&tree, target).and_then(|()| move_mount(&tree, target)),
            (Stage::Tree { .. }, None) => Ok(()),
        };
        mounted.map_err(failed(format!("mount at {} of the bundle", target.display())))?;
    }
    Ok(())
}

fn overlay(options: &[String], target: &Path) -> io::Result<()> {
    fs::create_dir_all(target)?;
    let mut flags = MsFlags::empty();
    let mut data = Vec::new();
    for option in options {
        match option.as_str() {
            "ro" => flags |= MsFlags::MS_RDONLY,
            "nosuid" => flags |= MsFlags::MS_NOSUID,
            "nodev" => flags |= MsFlags::MS_NODEV,
            "noexec" => flags |= MsFlags::MS_NOEXEC,
            own => data.push(own),
        }
    }
    let data = data.join(",");
    Ok(mount(
        Some("overlay"),
        target,
        Some("overlay"),
        flags,
        Some(data.as_str()),
    )?)
}

/// A file or a directory for a tree to be mounted at.
fn place_for(tree: &OwnedFd, target: &Path) -> io::Result<()> {
    let is_directory = fs::metadata(format!("/proc/self/fd/{}", tree.as_raw_fd()))?.is_dir();
    if is_directory {
        return fs::create_dir_all(target);
    }
    fs::create_dir_all(target.parent().unwrap_or(target))?;
    fs::File::create(target).map(drop)
}

/// Sees to it that any user can get to a directory of this mount namespace: directories on the way that let only their owner pass are
/// covered by others that let everyone.
fn clear_the_way(to: &Path) -> io::Result<()> {
    const PASS: u32 = 0o001;
    let way: Vec<&Path> = to.ancestors().collect();
    let mut closed: Option<PathBuf> = None;
    for directory in way.into_iter().rev() {
        if fs::metadata(directory)?.permissions().mode() & PASS == 0 {
            closed = Some(directory.to_owned());
            break;
        }
    }
    let Some(closed) = closed else { return Ok(()) };
    if closed == to {
        return fs::set_permissions(to, fs::Permissions::from_mode(0o711));
    }
    let tree = open_tree(to)?;
    mount(
        Some("tmpfs"),
        &closed,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=755,size=64k"),
    )?;
    fs::create_dir_all(to)?;
    move_mount(&tree, to)?;
    // It may be closed itself.
    fs::set_permissions(to, fs::Permissions::from_mode(0o711))
}

fn path(of: &Path) -> io::Result<std::ffi::CString> {
    std::ffi::CString::new(of.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// A copy of a tree of mounts that is nowhere yet.
fn open_tree(source: &Path) -> io::Result<OwnedFd> {
    let source = path(source)?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC as libc::c_uint | libc::AT_RECURSIVE as libc::c_uint;
    // SAFETY: the path is a string that ends in a zero; the call makes a descriptor or an error.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, source.as_ptr(), flags) };
    let fd = i32::try_from(Errno::result(fd)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made the descriptor for this process.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Lets the files of a mount be those of a user namespace's users, as they are the node's.
fn map_users(tree: &OwnedFd, namespace: &OwnedFd) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::try_from(namespace.as_raw_fd()).map_err(io::Error::other)?,
    };
    // SAFETY: the path is empty, the attributes live through the call and are as long as it is told.
    let set = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(set)?;
    Ok(())
}

fn move_mount(tree: &OwnedFd, target: &Path) -> io::Result<()> {
    let target = path(target)?;
    // SAFETY: both paths are strings that end in a zero.
    let moved = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    Errno::result(moved)?;
    Ok(())
}
