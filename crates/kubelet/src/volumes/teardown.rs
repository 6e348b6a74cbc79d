//! Takes away what a pod had on the node: mounts first, the deepest first, then files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};

/// Unmounts everything below a pod's directory and removes it. Goes on past failures and says the first.
pub fn tear_down(pod_dir: &Path) -> io::Result<()> {
    let mounts = || fs::read_to_string("/proc/self/mountinfo").map(|mounts| mounts_below(&mounts, pod_dir));
    for mount in mounts()? {
        // Lazily: what a dying process still holds is let go when it is dead.
        if let Err(error) = umount2(&mount, MntFlags::MNT_DETACH) {
            return Err(io::Error::new(
                io::Error::from(error).kind(),
                format!("unmount {}: {error}", mount.display()),
            ));
        }
    }
    // What is mounted is not the pod's to remove: data outlives it.
    if let Some(mount) = mounts()?.first() {
        let text = format!("{} is mounted again", mount.display());
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
    }
    match fs::remove_dir_all(pod_dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io::Error::new(
            error.kind(),
            format!("remove {}: {error}", pod_dir.display()),
        )),
        _ => Ok(()),
    }
}

/// The last mounted first.
pub(super) fn mounts_below(mountinfo: &str, directory: &Path) -> Vec<PathBuf> {
    let points = mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| PathBuf::from(unescape(point)));
    let mut below: Vec<PathBuf> = points.filter(|point| point.starts_with(directory)).collect();
    below.reverse();
    below
}

/// The kernel writes blanks and backslashes in paths as octal.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (code, character)| text.replace(code, character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_other_pods_are_not_touched() {
        let info = "1 2 0:1 / / rw - ext4 a rw\n2 1 0:2 / /p/u1/v\\040x rw - tmpfs t rw\n3 1 0:3 / /p/u1/v\\040x/y rw - tmpfs t rw\n\
                    4 1 0:4 / /p/u12/v rw - tmpfs t rw\n";
        assert_eq!(
            mounts_below(info, Path::new("/p/u1")),
            [PathBuf::from("/p/u1/v x/y"), PathBuf::from("/p/u1/v x")]
        );
    }
}
