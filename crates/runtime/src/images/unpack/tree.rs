//! Making files below one directory, and never outside it.
//!
//! Parents are opened by the kernel with `RESOLVE_IN_ROOT`: a symbolic link in the archive may point
//! anywhere, and still leads only to places inside. Last components are never followed.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstatat, futimens, makedev, mkdirat, mknodat,
    utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, linkat, symlinkat, unlinkat};
use xattr::FileExt;

/// How many symbolic links may stand in the way of a directory that has to be made.
const MAX_LINKS: usize = 40;

/// Owner, mode, time and extended attributes of a file.
pub(super) struct Attributes {
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
    pub modified: TimeSpec,
    pub xattrs: Vec<(OsString, Vec<u8>)>,
}

impl Attributes {
    fn mode(&self) -> Mode {
        Mode::from_bits_truncate(self.mode)
    }

    fn owner(&self) -> (Option<Uid>, Option<Gid>) {
        (Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))
    }

    /// Owner first: changing it clears set-uid bits and capabilities.
    fn apply(&self, file: &File) -> io::Result<()> {
        let (uid, gid) = self.owner();
        fchown(file, uid, gid)?;
        fchmod(file, self.mode())?;
        for (name, value) in &self.xattrs {
            supported(file.set_xattr(name, value))?;
        }
        Ok(())
    }
}

/// A file system without the kind of attribute is no reason to refuse an image.
fn supported(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(Errno::ENOTSUP as i32) => Ok(()),
        other => other,
    }
}

/// The directory of one layer.
pub(super) struct Tree {
    root: OwnedFd,
    /// The directory of the last entry, because the next entry is mostly its neighbour.
    last: Option<(Vec<u8>, OwnedFd)>,
}

impl Tree {
    pub fn open(path: &Path) -> io::Result<Self> {
        let root = File::open(path)?;
        fchmod(&root, Mode::from_bits_truncate(0o755))?;
        Ok(Self {
            root: root.into(),
            last: None,
        })
    }

    /// Gives the root its attributes.
    pub fn root(&mut self, attributes: &Attributes) -> io::Result<()> {
        attributes.apply(&File::from(self.root.try_clone()?))
    }

    pub fn set_directory_time(&mut self, path: &[u8], modified: TimeSpec) -> io::Result<()> {
        match self.resolve(path) {
            Ok(directory) => Ok(futimens(directory, &modified, &modified)?),
            // A later entry took its place.
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub fn directory(&mut self, parent: &[u8], name: &[u8], attributes: &Attributes) -> io::Result<()> {
        let directory = self.parent(parent)?;
        let mut hid = false;
        match mkdirat(directory, name, Mode::S_IRWXU) {
            Ok(()) => {}
            Err(Errno::EEXIST) => {
                let old = kind(directory, name)?;
                if old != SFlag::S_IFDIR {
                    hid = is_whiteout(directory, name)?;
                    self.clear(parent, name)?;
                    mkdirat(self.parent(parent)?, name, Mode::S_IRWXU)?;
                }
            }
            Err(error) => return Err(error.into()),
        }
        let made = open_directory(self.parent(parent)?, name)?;
        if hid {
            // The layer removes a directory and makes a new one: nothing of the old may show.
            set_opaque(&made)?;
        }
        attributes.apply(&made)
    }

    /// Makes a file of everything the reader gives, and says how much that was.
    pub fn file(
        &mut self,
        parent: &[u8],
        name: &[u8],
        attributes: &Attributes,
        content: &mut impl Read,
        buffer: &mut [u8],
    ) -> io::Result<u64> {
        let fd = self.make(parent, name, |directory| {
            openat(
                directory,
                name,
                OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
                Mode::S_IRUSR | Mode::S_IWUSR,
            )
        })?;
        let mut file = File::from(fd);
        let mut written = 0;
        loop {
            let count = match content.read(buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            file.write_all(&buffer[..count])?;
            written += count as u64;
        }
        attributes.apply(&file)?;
        futimens(&file, &attributes.modified, &attributes.modified)?;
        Ok(written)
    }

    pub fn symlink(&mut self, parent: &[u8], name: &[u8], target: &[u8], attributes: &Attributes) -> io::Result<()> {
        self.make(parent, name, |directory| symlinkat(target, directory, name))?;
        self.apply_by_name(parent, name, attributes)
    }

    pub fn node(
        &mut self,
        parent: &[u8],
        name: &[u8],
        node: SFlag,
        device: nix::libc::dev_t,
        attributes: &Attributes,
    ) -> io::Result<()> {
        self.make(parent, name, |directory| {
            mknodat(directory, name, node, Mode::S_IRUSR, device)
        })?;
        self.apply_by_name(parent, name, attributes)?;
        // The node was made here a moment ago, so this follows nothing.
        let directory = self.parent(parent)?;
        fchmodat(directory, name, attributes.mode(), FchmodatFlags::FollowSymlink)?;
        Ok(())
    }

    /// Another name for a file of this layer.
    pub fn link(&mut self, parent: &[u8], name: &[u8], target_parent: &[u8], target_name: &[u8]) -> io::Result<()> {
        if (parent, name) == (target_parent, target_name) {
            return Ok(());
        }
        let target = self
            .resolve(target_parent)
            .and_then(|directory| {
                kind(directory.as_fd(), target_name)?;
                Ok(directory)
            })
            .map_err(|error| match error {
                Errno::ENOENT | Errno::ENOTDIR => io::Error::new(
                    io::ErrorKind::NotFound,
                    "a hard link to a file that the layer does not have",
                ),
                other => other.into(),
            })?;
        self.make(parent, name, |directory| {
            linkat(&target, target_name, directory, name, AtFlags::empty())
        })
        .map(drop)
    }

    /// Hides the name of the layers below. What this layer has under that name stays.
    pub fn hide(&mut self, parent: &[u8], name: &[u8]) -> io::Result<()> {
        let directory = self.parent(parent)?;
        match mknodat(directory, name, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0)) {
            Err(Errno::EEXIST) if kind(directory, name)? == SFlag::S_IFDIR => {
                set_opaque(&open_directory(directory, name)?)
            }
            Ok(()) | Err(Errno::EEXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Hides everything that the layers below have in the directory.
    pub fn make_opaque(&mut self, path: &[u8]) -> io::Result<()> {
        let directory = self.parent(path)?.try_clone_to_owned()?;
        set_opaque(&File::from(directory))
    }

    fn apply_by_name(&mut self, parent: &[u8], name: &[u8], attributes: &Attributes) -> io::Result<()> {
        let directory = self.parent(parent)?;
        let (uid, gid) = attributes.owner();
        fchownat(directory, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        for (key, value) in &attributes.xattrs {
            supported(xattr::set(by_name(directory, name), key, value))?;
        }
        let modified = attributes.modified;
        utimensat(directory, name, &modified, &modified, UtimensatFlags::NoFollowSymlink)?;
        Ok(())
    }

    /// Makes something that must not be there yet, in place of what an earlier entry left.
    fn make<T>(
        &mut self,
        parent: &[u8],
        name: &[u8],
        make: impl Fn(BorrowedFd<'_>) -> nix::Result<T>,
    ) -> io::Result<T> {
        match make(self.parent(parent)?) {
            Err(Errno::EEXIST) => {
                self.clear(parent, name)?;
                Ok(make(self.parent(parent)?)?)
            }
            other => Ok(other?),
        }
    }

    /// Takes away what an earlier entry put there, with all below it.
    fn clear(&mut self, parent: &[u8], name: &[u8]) -> io::Result<()> {
        let directory = self.parent(parent)?;
        if kind(directory, name)? == SFlag::S_IFDIR {
            let path = by_name(directory, name);
            std::fs::remove_dir_all(path)?;
            // The directory of the last entry may have been below.
            self.last = None;
        } else {
            unlinkat(directory, name, UnlinkatFlags::NoRemoveDir)?;
        }
        Ok(())
    }

    /// The directory, made if it has to be.
    fn parent(&mut self, path: &[u8]) -> io::Result<BorrowedFd<'_>> {
        if path.is_empty() {
            return Ok(self.root.as_fd());
        }
        if self.last.as_ref().is_none_or(|(last, _)| last != path) {
            let directory = match self.resolve(path) {
                Err(Errno::ENOENT) => self.make_directories(path, MAX_LINKS)?,
                other => other?,
            };
            self.last = Some((path.to_vec(), directory));
        }
        match &self.last {
            Some((_, directory)) => Ok(directory.as_fd()),
            None => Ok(self.root.as_fd()),
        }
    }

    fn resolve(&self, path: &[u8]) -> nix::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        openat2(
            &self.root,
            path,
            OpenHow::new()
                .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
                .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS),
        )
    }

    fn make_directories(&self, path: &[u8], links: usize) -> io::Result<OwnedFd> {
        let mut directory = self.root.try_clone()?;
        let ends = (0..path.len()).filter(|at| path[*at] == b'/').chain([path.len()]);
        let mut start = 0;
        for end in ends {
            let (prefix, name) = (&path[..end], &path[start..end]);
            directory = match self.resolve(prefix) {
                Err(Errno::ENOENT) => match mkdirat(&directory, name, Mode::S_IRWXU) {
                    Ok(()) => {
                        let made = open_directory(directory.as_fd(), name)?;
                        fchmod(&made, Mode::from_bits_truncate(0o755))?;
                        made.into()
                    }
                    // A symbolic link to a directory that only a lower layer has: make it here too.
                    Err(Errno::EEXIST) if links > 0 => {
                        let target = readlinkat(&directory, name)?;
                        let parent = &path[..start.saturating_sub(1)];
                        self.make_directories(&follow(parent, target.as_bytes()), links - 1)?
                    }
                    Err(error) => return Err(error.into()),
                },
                other => other?,
            };
            start = end + 1;
        }
        Ok(directory)
    }
}

/// Where a link in the directory points, as a path from the root that does not leave it.
fn follow(directory: &[u8], target: &[u8]) -> Vec<u8> {
    let start: &[u8] = if target.starts_with(b"/") { b"" } else { directory };
    let mut components: Vec<&[u8]> = Vec::new();
    for component in start.split(|b| *b == b'/').chain(target.split(|b| *b == b'/')) {
        match component {
            b"" | b"." => {}
            b".." => {
                components.pop();
            }
            component => components.push(component),
        }
    }
    components.join(&b'/')
}

fn kind(directory: BorrowedFd<'_>, name: &[u8]) -> nix::Result<SFlag> {
    let stat = fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    Ok(SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT)
}

fn is_whiteout(directory: BorrowedFd<'_>, name: &[u8]) -> nix::Result<bool> {
    let stat = fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    Ok(kind == SFlag::S_IFCHR && stat.st_rdev == makedev(0, 0))
}

fn open_directory(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(openat(directory, name, flags, Mode::empty())?.into())
}

fn set_opaque(directory: &File) -> io::Result<()> {
    directory.set_xattr("trusted.overlay.opaque", b"y")
}

/// A path for calls that take no directory. Its last component is as it was; none of the calls it is
/// given to follows that.
fn by_name(directory: BorrowedFd<'_>, name: &[u8]) -> PathBuf {
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    path.push(OsStr::from_bytes(name));
    path
}
