//! A volume's files for the pod's group, as `fsGroup` asks.
//!
//! Other pods may write the volume meanwhile: nothing is done by a name that could by then be a link to somewhere else.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::unistd::{Gid, fchownat};

const FILE: u32 = 0o660;
/// What is made in it belongs to the group, too.
const DIRECTORY: u32 = 0o2770;

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// Whether a directory is the group's already, and all below it is taken to be.
fn is_groups(stat: &FileStat, group: u32) -> bool {
    stat.st_gid == group && stat.st_mode & DIRECTORY == DIRECTORY
}

/// Gives the tree to the group; `only_on_mismatch` leaves it alone when its root is the group's.
pub fn give(root: &Path, group: u32, only_on_mismatch: bool) -> io::Result<()> {
    let root = open(root, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    if only_on_mismatch && is_groups(&fstat(&root)?, group) {
        return Ok(());
    }
    give_tree(&root, group)
}

/// What is in a directory before the directory, so that one that was cut short is known by its root.
fn give_tree(opened: &OwnedFd, group: u32) -> io::Result<()> {
    let stat = fstat(opened)?;
    let path = format!("/proc/self/fd/{}", opened.as_raw_fd());
    if kind(&stat) == SFlag::S_IFDIR {
        for entry in fs::read_dir(&path)? {
            let name = entry?.file_name();
            let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            match openat(opened, name.as_os_str(), flags, Mode::empty()) {
                Ok(inner) => give_tree(&inner, group)?,
                // Gone since it was listed.
                Err(nix::errno::Errno::ENOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    fchownat(opened, "", None, Some(Gid::from_raw(group)), AtFlags::AT_EMPTY_PATH)?;
    let more = match kind(&stat) {
        SFlag::S_IFDIR => DIRECTORY,
        SFlag::S_IFLNK => return Ok(()),
        _ => FILE,
    };
    fs::set_permissions(&path, Permissions::from_mode(stat.st_mode & 0o7777 | more))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[test]
    fn a_tree_is_given_and_nothing_beyond_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        fs::create_dir_all(at("volume/sub")).unwrap();
        fs::write(at("volume/sub/file"), "").unwrap();
        fs::write(at("outside"), "").unwrap();
        symlink("../outside", at("volume/link")).unwrap();
        let before = fs::metadata(at("outside")).unwrap();
        give(&at("volume"), 77, false).unwrap();
        let has = |path: &str| {
            let metadata = fs::symlink_metadata(at(path)).unwrap();
            (metadata.gid(), metadata.mode() & 0o7777)
        };
        assert_eq!(has("volume"), (77, 0o2775));
        assert_eq!(has("volume/sub"), (77, 0o2775));
        assert_eq!(has("volume/sub/file"), (77, 0o664));
        assert_eq!(has("volume/link").0, 77);
        assert_eq!(has("outside"), (before.gid(), before.mode() & 0o7777));
        // Left alone when its root is right already.
        fs::set_permissions(at("volume/sub/file"), Permissions::from_mode(0o600)).unwrap();
        give(&at("volume"), 77, true).unwrap();
        assert_eq!(has("volume/sub/file").1, 0o600);
        give(&at("volume"), 78, true).unwrap();
        assert_eq!(has("volume/sub/file"), (78, 0o660));
    }
}
