//! Files that change all at once: a reader sees the old set or the new one, never a mixture.
//!
//! The files live in a directory of their own; `..data` is a link to it, replaced by a rename; what users see are links through `..data`.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Component, Path};

use super::File;

const DATA: &str = "..data";
const NEXT: &str = "..data_tmp";

/// Puts the files in place of what is there, if they differ.
pub fn write(directory: &Path, files: &[File], group: Option<u32>) -> io::Result<()> {
    for file in files {
        check(&file.path)?;
    }
    let current = fs::read_link(directory.join(DATA)).ok();
    if let Some(current) = &current
        && same(&directory.join(current), files)
    {
        return Ok(());
    }
    let name = jiff::Timestamp::now().strftime("..%Y_%m_%d_%H_%M_%S.%9f").to_string();
    let fresh = directory.join(&name);
    fs::create_dir(&fresh)?;
    set_mode(&fresh, 0o755, None, group)?;
    for file in files {
        let path = fresh.join(&file.path);
        if let Some(parent) = path.parent().filter(|parent| !parent.exists()) {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, &file.data)?;
        // A group that is to read a pod's volumes can read every file.
        let mode = if group.is_some() { file.mode | 0o440 } else { file.mode };
        set_mode(&path, mode, file.owner, group)?;
    }
    let next = directory.join(NEXT);
    let _ = fs::remove_file(&next);
    symlink(&name, &next)?;
    fs::rename(&next, directory.join(DATA))?;
    link(directory, files)?;
    if let Some(current) = current {
        fs::remove_dir_all(directory.join(current))?;
    }
    Ok(())
}

fn set_mode(path: &Path, mode: u32, owner: Option<u32>, group: Option<u32>) -> io::Result<()> {
    if owner.is_some() || group.is_some() {
        chown(path, owner, group)?;
    }
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// The API server refuses such paths; here they would leave the volume.
fn check(path: &str) -> io::Result<()> {
    let plain = Path::new(path)
        .components()
        .all(|component| matches!(component, Component::Normal(_)));
    if plain && !path.is_empty() && !path.starts_with("..") {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("{path:?} is not a path below the volume"),
    ))
}

fn same(current: &Path, files: &[File]) -> bool {
    let mut count = 0;
    let mut pending = vec![current.to_owned()];
    while let Some(directory) = pending.pop() {
        let Ok(entries) = fs::read_dir(directory) else {
            return false;
        };
        for entry in entries.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => pending.push(entry.path()),
                _ => count += 1,
            }
        }
    }
    let as_is = |file: &File| fs::read(current.join(&file.path)).is_ok_and(|data| data == file.data);
    count == files.len() && files.iter().all(as_is)
}

/// Each first part of a path is a link through `..data`; links of files that are gone go too.
fn link(directory: &Path, files: &[File]) -> io::Result<()> {
    let wanted: BTreeSet<&str> = files.iter().filter_map(|file| file.path.split('/').next()).collect();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let stale = name
            .to_str()
            .is_none_or(|name| !name.starts_with("..") && !wanted.contains(name));
        // A directory is a place for another volume.
        if stale && !entry.file_type()?.is_dir() {
            fs::remove_file(entry.path())?;
        }
    }
    for name in wanted {
        let path = directory.join(name);
        if !path.is_symlink() && !path.is_dir() {
            symlink(Path::new(DATA).join(name), path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;

    fn file(path: &str, data: &str) -> File {
        File {
            path: path.into(),
            data: data.into(),
            mode: 0o640,
            owner: None,
        }
    }

    #[test]
    fn files_change_together_and_stay_when_nothing_changed() {
        let dir = tempfile::tempdir().unwrap();
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).ok();
        let target = || fs::read_link(dir.path().join("..data")).unwrap();
        write(dir.path(), &[file("a", "1"), file("sub/b", "2")], None).unwrap();
        assert_eq!((read("a"), read("sub/b")), (Some("1".into()), Some("2".into())));
        assert_eq!(
            fs::metadata(dir.path().join("a")).unwrap().permissions().mode() & 0o777,
            0o640
        );
        let first = target();
        write(dir.path(), &[file("a", "1"), file("sub/b", "2")], None).unwrap();
        assert_eq!(target(), first);
        fs::create_dir(dir.path().join("place")).unwrap();
        write(dir.path(), &[file("a", "3"), file("c", "4"), file("place", "5")], None).unwrap();
        assert_eq!(
            (read("a"), read("sub/b"), read("c")),
            (Some("3".into()), None, Some("4".into()))
        );
        assert!(!dir.path().join(first).exists());
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            5,
            "the data, its link, two files, and a place for another volume"
        );
    }

    #[test]
    fn no_path_leaves_the_volume() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["../x", "/x", "a/../../x", "..data", ""] {
            assert!(write(dir.path(), &[file(path, "")], None).is_err(), "{path}");
        }
    }
}
