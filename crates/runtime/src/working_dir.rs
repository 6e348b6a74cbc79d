//! The directory that a container's process starts in. Where there is none it is made, as other runtimes do: in the volume that its path
//! leads into, or else in the container's own layer.
//!
//! What cannot be made is no error here: the process finds the directory missing, and its start fails with the kernel's reason.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use cri::v1::Mount;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, fchmod, mkdirat};

use crate::rootfs::{self, Place};
use crate::spec::PodUsers;

const MODE: u32 = 0o755;

/// Makes `directory`, a path from the container's root. `layers` are the image's, the lowest first; `upper` is the container's own; `pod`
/// has its users, where they are not the node's.
pub(crate) fn make(
    directory: &Path,
    mounts: &[Mount],
    layers: &[PathBuf],
    upper: &Path,
    pod: Option<&PodUsers>,
) -> io::Result<()> {
    match covering(directory, mounts) {
        Some((mount, rest)) if mount.image.is_none() && !mount.readonly => beneath(Path::new(&mount.host_path), rest),
        Some(_) => Ok(()),
        None => match rootfs::place(layers, directory) {
            Some(place) => in_layer(&place, layers, upper, pod),
            None => Ok(()),
        },
    }
}

/// The innermost mount that a path leads into, and the rest of the path.
fn covering<'a>(path: &'a Path, mounts: &'a [Mount]) -> Option<(&'a Mount, &'a Path)> {
    let leads = |mount: &'a Mount| Some((mount, path.strip_prefix(&mount.container_path).ok()?));
    mounts
        .iter()
        .filter_map(leads)
        .min_by_key(|(_, rest)| rest.components().count())
}

/// Makes a path beneath a directory of the node. A link, or anything else that is no directory, ends it: where a link leads is the
/// container's to see.
fn beneath(root: &Path, path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() || !root.is_dir() {
        return Ok(());
    }
    let mut here: OwnedFd = fs::File::open(root)?.into();
    for part in path.components() {
        let Component::Normal(name) = part else { return Ok(()) };
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        let open = || openat2(here.as_fd(), name, how);
        here = match open() {
            Ok(there) => there,
            Err(Errno::ENOENT) => {
                mkdirat(here.as_fd(), name, Mode::from_bits_truncate(MODE))?;
                let made = open()?;
                fchmod(&made, Mode::from_bits_truncate(MODE))?;
                made
            }
            Err(Errno::ENOTDIR | Errno::ELOOP) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
    }
    Ok(())
}

/// Makes what is missing in the container's own layer. A directory that is only in a layer below is repeated there, and stays as it was.
fn in_layer(place: &Place, layers: &[PathBuf], upper: &Path, pod: Option<&PodUsers>) -> io::Result<()> {
    if place.missing.as_os_str().is_empty() {
        return Ok(());
    }
    let mut there = PathBuf::new();
    for part in place.there.components() {
        there.push(part);
        let Some(below) = rootfs::directory(layers, &there) else {
            return Ok(());
        };
        let own = upper.join(&there);
        if fs::create_dir(&own).is_ok() {
            let metadata = fs::metadata(&below)?;
            rootfs::give(&own, (metadata.uid(), metadata.gid()), pod)?;
            fs::set_permissions(&own, fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
        }
    }
    for part in place.missing.components() {
        there.push(part);
        let own = upper.join(&there);
        fs::create_dir(&own)?;
        rootfs::give(&own, (0, 0), pod)?;
        fs::set_permissions(&own, fs::Permissions::from_mode(MODE))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed call fails the test

    use std::os::unix::fs::symlink;

    use super::*;

    fn mount(container_path: &str, host_path: &Path, readonly: bool) -> Mount {
        Mount {
            container_path: container_path.into(),
            host_path: host_path.display().to_string(),
            readonly,
            ..Default::default()
        }
    }

    #[test]
    fn a_missing_directory_is_made_where_its_path_leads() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for path in [
            "low/srv",
            "low/run",
            "high/var",
            "upper",
            "volume/there",
            "inner",
            "fixed",
        ] {
            fs::create_dir_all(at(path)).unwrap();
        }
        fs::set_permissions(at("low/srv"), fs::Permissions::from_mode(0o2770)).unwrap();
        symlink("/run", at("high/var/run")).unwrap();
        symlink("there", at("volume/link")).unwrap();
        fs::write(at("high/file"), "").unwrap();
        let layers = [at("low"), at("high")];
        let mounts = [
            mount("/data", &at("volume"), false),
            mount("/data/in", &at("inner"), false),
            mount("/fixed", &at("fixed"), true),
        ];
        let mode = |path: &str| fs::metadata(at(path)).map(|metadata| metadata.mode() & 0o7777).ok();
        for (directory, made) in [
            ("/srv/app/x", Some("upper/srv/app/x")),
            ("/new", Some("upper/new")),
            ("/var/run/app", Some("upper/run/app")),
            ("/data/there/x/y", Some("volume/there/x/y")),
            ("/data/in/x", Some("inner/x")),
            // Nothing to do, or nothing that can be done.
            ("/", None),
            ("/srv", None),
            ("/data", None),
            ("/fixed/x", None),
            ("/file/x", None),
            ("/data/link/x", None),
            ("/new/../../x", None),
        ] {
            make(Path::new(directory), &mounts, &layers, &at("upper"), None).unwrap();
            if let Some(made) = made {
                assert_eq!(mode(made), Some(0o755), "{directory}");
            }
        }
        assert_eq!(mode("upper/srv"), Some(0o2770), "as in the layer below");
        for path in [
            "upper/data",
            "upper/fixed",
            "upper/file",
            "upper/var",
            "fixed/x",
            "volume/there/x/x",
        ] {
            assert!(!at(path).exists(), "{path}");
        }
        let count = |path: &str| fs::read_dir(at(path)).unwrap().count();
        assert_eq!((count("upper"), count("volume"), count("volume/there")), (3, 2, 1));
    }
}
