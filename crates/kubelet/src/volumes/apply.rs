//! Makes a volume's directory be what its source says; done again, it changes nothing that is right already.

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use super::teardown::mounts_below;
use super::{Mounted, Source, atomic, device, ownership};

type Result<T> = std::result::Result<T, String>;

/// Where the volume is, when it is as it should be.
pub fn apply(directory: &Path, source: &Source, fs_group: Option<i64>) -> Result<Mounted> {
    let mut mounted = Mounted {
        path: directory.to_owned(),
        read_only: false,
        device: false,
    };
    match source {
        Source::Directory => {
            if create(directory)? {
                own(directory, fs_group)?;
            }
        }
        Source::Memory { size } => {
            create(directory)?;
            if mount_at(directory, "tmpfs", &format!("mode=1777,size={size}"))? {
                own(directory, fs_group)?;
            }
        }
        Source::HugePages { page } => {
            create(directory)?;
            if mount_at(directory, "hugetlbfs", &format!("mode=1777,pagesize={page}"))? {
                own(directory, fs_group)?;
            }
        }
        Source::Files { files, in_memory } => {
            create(directory)?;
            if *in_memory {
                mount_at(directory, "tmpfs", "mode=1777")?;
            }
            let group = fs_group.and_then(|group| u32::try_from(group).ok());
            atomic::write(directory, files, group).map_err(|error| format!("{}: {error}", directory.display()))?;
            mounted.read_only = true;
        }
        Source::Host { path, kind } => {
            host(path, kind)?;
            mounted.path = path.clone();
        }
        Source::Local { path, only_on_mismatch } => {
            if !path.exists() {
                return Err(format!("path {:?} does not exist", path.display()));
            }
            if let Some(group) = fs_group.and_then(|group| u32::try_from(group).ok()) {
                ownership::give(path, group, *only_on_mismatch).map_err(said("apply fsGroup to", path))?;
            }
            mounted.path = path.clone();
        }
        Source::Device { path } => {
            mounted.path = device::find(path)?;
            mounted.device = true;
        }
        // Mounted before.
        Source::Ceph(ceph) => mounted.read_only = ceph.read_only,
        Source::Nfs(nfs) => mounted.read_only = nfs.read_only,
    }
    Ok(mounted)
}

fn said<'a>(what: &'a str, path: &'a Path) -> impl FnOnce(std::io::Error) -> String + 'a {
    move |error| format!("{what} {}: {error}", path.display())
}

/// Whether it had to be created. Any user of the pod may write into it.
fn create(directory: &Path) -> Result<bool> {
    if directory.is_dir() {
        return Ok(false);
    }
    fs::create_dir_all(directory).map_err(said("mkdir", directory))?;
    fs::set_permissions(directory, Permissions::from_mode(0o777)).map_err(said("chmod", directory))?;
    Ok(true)
}

/// What is written into it belongs to the group.
fn own(directory: &Path, fs_group: Option<i64>) -> Result<()> {
    let Some(group) = fs_group.and_then(|group| u32::try_from(group).ok()) else {
        return Ok(());
    };
    chown(directory, None, Some(group)).map_err(said("chown", directory))?;
    fs::set_permissions(directory, Permissions::from_mode(0o2777)).map_err(said("chmod", directory))
}

/// Makes directories in a volume for other volumes to be mounted at.
pub fn make_places(directory: &Path, places: &[PathBuf]) -> Result<()> {
    for place in places {
        let place = directory.join(place);
        fs::create_dir_all(&place).map_err(said("mkdir", &place))?;
    }
    Ok(())
}

/// Mounts a file system that is nowhere else, unless one is there already. Whether it had to.
fn mount_at(directory: &Path, kind: &str, options: &str) -> Result<bool> {
    if is_mount_point(directory)? {
        return Ok(false);
    }
    mount(Some(kind), directory, Some(kind), MsFlags::empty(), Some(options))
        .map_err(|error| format!("mount {kind} at {}: {error}", directory.display()))?;
    Ok(true)
}

/// Makes a directory for another file system to be mounted at. Whether one is there already.
pub fn prepare_mount(directory: &Path) -> Result<bool> {
    let info = fs::read_to_string("/proc/self/mountinfo").map_err(said("read", Path::new("/proc/self/mountinfo")))?;
    if !mounts_below(&info, directory).is_empty() {
        return Ok(true);
    }
    create(directory)?;
    Ok(false)
}

/// Whether another file system begins at a directory.
fn is_mount_point(directory: &Path) -> Result<bool> {
    let device = |path: &Path| {
        fs::metadata(path)
            .map(|metadata| metadata.dev())
            .map_err(said("stat", path))
    };
    let parent = directory.parent().unwrap_or(Path::new("/"));
    Ok(device(directory)? != device(parent)?)
}

fn host(path: &Path, kind: &str) -> Result<()> {
    if kind.is_empty() {
        return Ok(());
    }
    if kind == "DirectoryOrCreate" && !path.exists() {
        fs::create_dir_all(path).map_err(said("mkdir", path))?;
        fs::set_permissions(path, Permissions::from_mode(0o755)).map_err(said("chmod", path))?;
    }
    if kind == "FileOrCreate" && !path.exists() {
        fs::File::create_new(path).map_err(said("create", path))?;
        fs::set_permissions(path, Permissions::from_mode(0o644)).map_err(said("chmod", path))?;
    }
    let found = fs::metadata(path).ok().map(|metadata| metadata.file_type());
    let (fits, what) = match kind {
        "Directory" | "DirectoryOrCreate" => (found.is_some_and(|found| found.is_dir()), "a directory"),
        "File" | "FileOrCreate" => (found.is_some_and(|found| found.is_file()), "a file"),
        "Socket" => (found.is_some_and(|found| found.is_socket()), "a socket file"),
        "CharDevice" => (found.is_some_and(|found| found.is_char_device()), "a character device"),
        "BlockDevice" => (found.is_some_and(|found| found.is_block_device()), "a block device"),
        _ => return Err(format!("{kind} is an invalid volume type")),
    };
    if fits {
        Ok(())
    } else {
        Err(format!("hostPath type check failed: {} is not {what}", path.display()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;

    #[test]
    fn host_paths_are_what_they_must_be() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        assert_eq!(
            host(&path("a"), "Directory").unwrap_err(),
            format!("hostPath type check failed: {} is not a directory", path("a").display())
        );
        host(&path("a"), "DirectoryOrCreate").unwrap();
        host(&path("a"), "Directory").unwrap();
        host(&path("b"), "FileOrCreate").unwrap();
        host(&path("b"), "File").unwrap();
        assert!(host(&path("b"), "Socket").is_err());
        assert_eq!(
            host(&path("b"), "Nonsense").unwrap_err(),
            "Nonsense is an invalid volume type"
        );
    }

    #[test]
    fn an_empty_directory_is_for_everyone_and_its_group() {
        let dir = tempfile::tempdir().unwrap();
        let path = apply(&dir.path().join("v"), &Source::Directory, Some(7)).unwrap().path;
        let metadata = fs::metadata(path).unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.gid()), (0o2777, 7));
    }
}
