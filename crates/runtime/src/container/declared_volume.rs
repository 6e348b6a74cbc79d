//! The volumes that an image declares: directories of the container's own, with what the image has there, writable whatever its root is.
//! They are the container's and go with it. Where the pod mounts something itself, nothing is added.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use cri::v1::Mount;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{Mode, UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::mkfifo;

use crate::rootfs::{self, Part};
use crate::spec::PodUsers;

/// What the kernel keeps in a container is not an image's.
const KERNEL: [&str; 3] = ["proc", "sys", "dev"];
/// What a directory is that the image has not.
const MODE: u32 = 0o755;
/// How overlayfs marks its own files.
const OVERLAY: &str = "trusted.overlay.";

/// Makes the volumes in a directory of the container's own; the answer is how they are mounted. `layers` are the image's, the lowest first.
pub(super) fn make(
    declared: &[String],
    mounts: &[Mount],
    layers: &[PathBuf],
    dir: &Path,
    pod: Option<&PodUsers>,
) -> io::Result<Vec<Mount>> {
    let make = |(index, path): (usize, PathBuf)| {
        let volume = dir.join(index.to_string());
        fill(&path, layers, &volume, pod)
            .map_err(|error| io::Error::new(error.kind(), format!("the image's volume {}: {error}", path.display())))?;
        Ok(Mount {
            container_path: path.display().to_string(),
            host_path: volume.display().to_string(),
            ..Default::default()
        })
    };
    wanted(declared, mounts).into_iter().enumerate().map(make).collect()
}

/// The paths at which volumes are needed.
fn wanted(declared: &[String], mounts: &[Mount]) -> Vec<PathBuf> {
    let clean = |path: &str| Path::new("/").join(path).components().collect::<PathBuf>();
    let mut wanted: Vec<PathBuf> = Vec::new();
    for path in declared.iter().map(|path| clean(path)) {
        let kernels = match path.components().nth(1) {
            Some(Component::Normal(first)) => KERNEL.iter().any(|kernels| first == *kernels),
            _ => true,
        };
        let mounted = mounts.iter().any(|mount| clean(&mount.container_path) == path);
        if !kernels && !mounted && !wanted.contains(&path) {
            wanted.push(path);
        }
    }
    wanted
}

fn fill(path: &Path, layers: &[PathBuf], volume: &Path, pod: Option<&PodUsers>) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(MODE).create(volume)?;
    let not_a_directory = || io::Error::from(io::ErrorKind::NotADirectory);
    let place = rootfs::place(layers, path).ok_or_else(not_a_directory)?;
    if !place.missing.as_os_str().is_empty() {
        fs::set_permissions(volume, fs::Permissions::from_mode(MODE))?;
        return own(volume, (0, 0), pod);
    }
    match rootfs::part(layers, &place.there) {
        Some(Part::Directory(parts)) => {
            for part in parts {
                // What hard links join in one layer.
                lay(&part, volume, pod, &mut HashMap::new())?;
            }
            Ok(())
        }
        _ => Err(not_a_directory()),
    }
}

/// Lays a layer's directory over what is there already. No link is followed, and devices are left out.
fn lay(from: &Path, to: &Path, pod: Option<&PodUsers>, links: &mut HashMap<(u64, u64), PathBuf>) -> io::Result<()> {
    if rootfs::opaque(from) {
        for entry in fs::read_dir(to)? {
            clear(&entry?.path())?;
        }
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let metadata = fs::symlink_metadata(&source)?;
        let kind = metadata.file_type();
        let merges = kind.is_dir() && fs::symlink_metadata(&target).is_ok_and(|there| there.is_dir());
        if !merges {
            // A device of number 0 says that what is below is gone.
            clear(&target)?;
        }
        if kind.is_dir() {
            if !merges {
                fs::create_dir(&target)?;
            }
            lay(&source, &target, pod, links)?;
            continue;
        }
        let inode = (metadata.dev(), metadata.ino());
        if let Some(first) = links.get(&inode) {
            fs::hard_link(first, &target)?;
            continue;
        }
        if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&source)?, &target)?;
        } else if kind.is_file() {
            fs::copy(&source, &target)?;
        } else if kind.is_fifo() {
            mkfifo(&target, Mode::empty())?;
        } else {
            continue;
        }
        describe(&source, &metadata, &target, pod)?;
        if metadata.nlink() > 1 {
            links.insert(inode, target);
        }
    }
    // A directory's time would be that of its last change.
    describe(from, &fs::symlink_metadata(from)?, to, pod)
}

fn clear(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(there) if there.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Says of a copy whose it is, what may be done with it, and how old it is, as of its source.
fn describe(source: &Path, metadata: &fs::Metadata, target: &Path, pod: Option<&PodUsers>) -> io::Result<()> {
    // Before the rights: a change of the owner takes some away.
    own(target, (metadata.uid(), metadata.gid()), pod)?;
    if !metadata.is_symlink() {
        fs::set_permissions(target, fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
        let attributes: Vec<OsString> = xattr::list(source)?.collect();
        for name in attributes {
            if name.to_string_lossy().starts_with(OVERLAY) {
                continue;
            }
            if let Some(value) = xattr::get(source, &name)? {
                xattr::set(target, &name, &value)?;
            }
        }
    }
    let time = |seconds, nanoseconds| TimeSpec::new(seconds, nanoseconds);
    utimensat(
        AT_FDCWD,
        target,
        &time(metadata.atime(), metadata.atime_nsec()),
        &time(metadata.mtime(), metadata.mtime_nsec()),
        UtimensatFlags::NoFollowSymlink,
    )?;
    Ok(())
}

fn own(path: &Path, owner: (u32, u32), pod: Option<&PodUsers>) -> io::Result<()> {
    let (uid, gid) = rootfs::outer(owner, pod);
    std::os::unix::fs::lchown(path, Some(uid), Some(gid))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed call fails the test

    use std::os::unix::fs::symlink;

    use super::*;

    fn mount(path: &str) -> Mount {
        Mount {
            container_path: path.into(),
            ..Default::default()
        }
    }

    #[test]
    fn where_a_volume_is_needed() {
        let declared = [
            "/data", "/data/", "srv", "/", "", "/proc/x", "/dev", "/cache/", "/device",
        ];
        let declared: Vec<String> = declared.iter().map(ToString::to_string).collect();
        let wanted = wanted(&declared, &[mount("/cache"), mount("/data/inner")]);
        assert_eq!(wanted, ["/data", "/srv", "/device"].map(PathBuf::from));
    }

    #[test]
    fn a_volume_has_what_the_image_has() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for path in [
            "low/run/data/sub",
            "low/run/data/gone",
            "low/var",
            "high/run/data/sub",
            "high/run/data/was-link",
        ] {
            fs::create_dir_all(at(path)).unwrap();
        }
        symlink("/run", at("low/var/run")).unwrap();
        for (path, text) in [
            ("low/run/data/a", "low"),
            ("low/run/data/sub/b", "low"),
            ("high/run/data/a", "high"),
            ("high/run/data/sub/c", "high"),
            ("high/run/data/was-link/d", "high"),
            ("low/run/file", ""),
            ("outside", "mine"),
        ] {
            fs::write(at(path), text).unwrap();
        }
        symlink(dir.path(), at("low/run/data/was-link")).unwrap();
        symlink(at("outside"), at("low/run/data/link")).unwrap();
        fs::hard_link(at("high/run/data/a"), at("high/run/data/again")).unwrap();
        fs::set_permissions(at("high/run/data"), fs::Permissions::from_mode(0o2770)).unwrap();
        fs::set_permissions(at("high/run/data/a"), fs::Permissions::from_mode(0o4711)).unwrap();
        let layers = [at("low"), at("high")];
        let declared = ["/var/run/data".to_owned(), "/new/place".to_owned()];
        let mounts = make(&declared, &[], &layers, &at("volumes"), None).unwrap();
        assert_eq!(
            mounts
                .iter()
                .map(|mount| mount.container_path.as_str())
                .collect::<Vec<_>>(),
            ["/var/run/data", "/new/place"]
        );
        assert!(mounts.iter().all(|mount| !mount.readonly));
        let read = |path: &str| fs::read_to_string(at("volumes/0").join(path)).unwrap();
        assert_eq!(
            ["a", "again", "sub/b", "sub/c", "was-link/d"].map(read),
            ["high", "high", "low", "high", "high"]
        );
        assert!(!at("d").exists(), "a link was not followed");
        assert_eq!(fs::read_link(at("volumes/0/link")).unwrap(), at("outside"));
        let metadata = |path: &str| fs::symlink_metadata(at(path)).unwrap();
        let mode = |path: &str| metadata(path).mode() & 0o7777;
        assert_eq!(
            (mode("volumes/0"), mode("volumes/0/a"), mode("volumes/1")),
            (0o2770, 0o4711, 0o755)
        );
        assert_eq!(metadata("volumes/0/a").ino(), metadata("volumes/0/again").ino());
        assert_eq!(metadata("volumes/0").mtime(), metadata("high/run/data").mtime());
        assert_eq!(fs::read_dir(at("volumes/1")).unwrap().count(), 0);
        for path in ["/run/file", "/run/../x"] {
            let error = make(&[path.to_owned()], &[], &layers, &at("volumes"), None).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotADirectory, "{path}");
        }
    }
}
