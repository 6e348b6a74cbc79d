//! What the shim mounts for a container that cannot be mounted, or not so, when libcontainer makes the container.
//!
//! A process of a user namespace can neither mount the image's layers as its own users' nor reach what the node keeps from others. And
//! libcontainer lets all mounts of a container travel between it and the node in one way, where each volume has its own. So the shim, which
//! is the node's root, does it beforehand, in a mount namespace that it makes for one start and leaves again: what is in it is copied into
//! the container's, and goes with that.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use super::protocol::{Failure, Spread, Stage, Staging};
use super::users::Held;

/// Runs `create` where everything is mounted that a container needs and cannot mount itself; `held` are its pod's own users.
pub(super) fn staged<T>(
    staging: &Staging,
    bundle: &Path,
    held: Option<&Held>,
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

fn stage(staging: &Staging, bundle: &Path, held: Option<&Held>) -> Result<(), Failure> {
    let failed = |what: String| move |err: io::Error| Failure::other(format!("{what}: {err}"));
    let tree = |source: &Path, mapped: bool| -> Result<OwnedFd, Failure> {
        let tree = open_tree(source).map_err(failed(format!("open {}", source.display())))?;
        if mapped {
            let held = held.ok_or_else(|| Failure::other("the pod has no users of its own".to_owned()))?;
            map_users(&tree, &held.namespace).map_err(failed(format!(
                "map the users of {} (its file system may not be able to)",
                source.display()
            )))?;
        }
        Ok(tree)
    };
    // All is opened by its name before the way to the bundle is covered, and before mounts are cut off from the node's, so that those which
    // are to stay together do.
    let layers = match &staging.layers {
        Some((source, target)) => Some((tree(source, true)?, target)),
        None => None,
    };
    let mut trees = Vec::new();
    for staged in &staging.mounts {
        trees.push(match &staged.what {
            Stage::Tree { source, mapped, spread } => {
                let tree = tree(source, *mapped)?;
                if let Some(spread) = spread {
                    narrow(&tree, *spread).map_err(failed(format!("cut off {}", source.display())))?;
                }
                Some(tree)
            }
            Stage::Overlay { .. } => None,
        });
    }
    let nothing = None::<&str>;
    mount(nothing, "/", nothing, MsFlags::MS_SLAVE | MsFlags::MS_REC, nothing)
        .map_err(|err| failed("make mounts the namespace's own".into())(err.into()))?;
    if held.is_some() {
        clear_the_way(bundle).map_err(failed(format!("make {} reachable", bundle.display())))?;
    }
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
    set_attributes(tree, &attributes, libc::AT_EMPTY_PATH)
}

/// Lets mounts travel between a tree and what it was copied from in one direction at most.
fn narrow(tree: &OwnedFd, spread: Spread) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: 0,
        attr_clr: 0,
        propagation: match spread {
            Spread::Private => libc::MS_PRIVATE,
            Spread::Slave => libc::MS_SLAVE,
        },
        userns_fd: 0,
    };
    set_attributes(tree, &attributes, libc::AT_EMPTY_PATH | libc::AT_RECURSIVE)
}

fn set_attributes(tree: &OwnedFd, attributes: &libc::mount_attr, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: the path is empty, the attributes live through the call and are as long as it is told.
    let set = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const *attributes,
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
