//! `podium reset`: ends every pod and takes away all that Podium put on the machine.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, umount2};

/// Goes on past what fails and returns it all, so that running it again is never needed for what could be done now.
pub fn run(data_dir: &Path, run_dir: &Path) -> Result<()> {
    let (data_dir, run_dir) = (std::path::absolute(data_dir)?, std::path::absolute(run_dir)?);
    let threads = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // The lock in there says whether a server runs; nothing is touched before.
    threads
        .block_on(runtime::reset(&runtime::Config::new(&data_dir, &run_dir)))
        .context("end the pods")?;
    let mut failed: Vec<String> = Vec::new();
    if let Err(error) = threads.block_on(network::teardown()) {
        failed.push(format!("the pod network: {error}"));
    }
    for mount in mounts_below(&fs::read_to_string("/proc/self/mounts")?, &[&data_dir, &run_dir]) {
        if let Err(error) = umount2(&mount, MntFlags::MNT_DETACH) {
            failed.push(format!("unmount {}: {error}", mount.display()));
        }
    }
    for dir in [&data_dir, &run_dir] {
        // A mount that stays must not be emptied.
        if failed.is_empty()
            && let Err(error) = fs::remove_dir_all(dir)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            failed.push(format!("remove {}: {error}", dir.display()));
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    anyhow::bail!("left behind: {}", failed.join("; "))
}

/// Mount points at or below the directories, the innermost first.
fn mounts_below(mounts: &str, dirs: &[&Path]) -> Vec<PathBuf> {
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(unescape);
    let mut below: Vec<_> = points
        .filter(|point| dirs.iter().any(|dir| point.starts_with(dir)))
        .collect();
    below.reverse();
    below
}

/// The mount table writes white space and backslashes in octal.
fn unescape(text: &str) -> PathBuf {
    let mut path = text.to_owned();
    for (code, char) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        path = path.replace(code, char);
    }
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_below_are_taken_innermost_first() {
        let table = "proc /proc proc rw 0 0\ntmpfs /d/a tmpfs rw 0 0\ntmpfs /d/a/b\\040c tmpfs rw 0 0\ntmpfs /dd tmpfs rw 0 0\nx /r overlay rw 0 0\n";
        let found = mounts_below(table, &[Path::new("/d"), Path::new("/r")]);
        assert_eq!(found, [Path::new("/r"), Path::new("/d/a/b c"), Path::new("/d/a")]);
    }
}
