//! A part of a volume as a mount of its own.
//!
//! A container writes its volume while the kubelet opens paths in it, so a link put there must not lead out of it: the path is opened
//! beneath the volume by the kernel (`openat2`), and what was opened is bind-mounted by its descriptor, not by its name.

use std::fs::{self, Permissions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, fstat, mkdirat};

/// Mounts `volume/path` at `target` and returns `target`. What is missing of the path becomes a directory.
pub fn bind(volume: &Path, path: &str, target: &Path) -> Result<PathBuf, String> {
    let failed = |what: &str, error: Errno| format!("{what} {path:?} of volume {}: {error}", volume.display());
    let source = open_beneath(volume, path).map_err(|error| failed("open", error))?;
    let name = proc_name(&source);
    let is_directory = fs::metadata(&name)
        .map_err(|error| format!("stat {path:?}: {error}"))?
        .is_dir();
    let made = if is_directory {
        fs::create_dir_all(target)
    } else {
        fs::create_dir_all(target.parent().unwrap_or(target)).and_then(|()| match target.exists() {
            true => Ok(()),
            false => fs::File::create(target).map(drop),
        })
    };
    made.map_err(|error| format!("create {}: {error}", target.display()))?;
    // What an earlier instance of the container had there.
    while umount2(target, MntFlags::MNT_DETACH).is_ok() {}
    mount(
        Some(name.as_str()),
        target,
        None::<&str>,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        None::<&str>,
    )
    .map_err(|error| failed("mount", error))?;
    Ok(target.to_owned())
}

/// A path to exactly what was opened.
fn proc_name(opened: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", opened.as_raw_fd())
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

fn open_beneath(volume: &Path, path: &str) -> Result<OwnedFd, Errno> {
    let beneath = |directory: &OwnedFd, path: &str| {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(directory, path, how)
    };
    let root = open(volume, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    match beneath(&root, path) {
        Err(Errno::ENOENT) => {}
        opened => return opened,
    }
    // What is made is open to those to whom the volume is.
    let mode = Permissions::from_mode(fstat(&root)?.st_mode & 0o7777);
    let mut directory = root;
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        directory = match beneath(&directory, part) {
            Err(Errno::ENOENT) => {
                let made = mkdirat(&directory, part, Mode::from_bits_truncate(0o700));
                let opened = beneath(&directory, part)?;
                match made {
                    Ok(()) => fs::set_permissions(proc_name(&opened), mode.clone()).map_err(errno)?,
                    Err(Errno::EEXIST) => {}
                    Err(error) => return Err(error),
                }
                opened
            }
            opened => opened?,
        };
    }
    Ok(directory)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_path_stays_in_its_volume() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("volume");
        fs::create_dir(&volume).unwrap();
        fs::write(dir.path().join("secret"), "").unwrap();
        symlink("../secret", volume.join("out")).unwrap();
        symlink("/etc", volume.join("absolute")).unwrap();
        fs::create_dir_all(volume.join("real")).unwrap();
        symlink("real", volume.join("inside")).unwrap();
        for path in ["out", "absolute/passwd", "../secret", "absolute/new"] {
            assert!(open_beneath(&volume, path).is_err(), "{path}");
        }
        for path in ["inside", "made/of/new", "real"] {
            open_beneath(&volume, path).unwrap();
        }
        let mode = |path: &str| fs::metadata(volume.join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode("made/of/new"), mode("."));
    }
}
