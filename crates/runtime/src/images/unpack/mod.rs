//! A layer's archive becomes a directory that overlayfs can take as a lower layer.
//!
//! Each layer is unpacked on its own, without the layers below it, so that layers go in parallel and one
//! directory serves every image that has the layer. What OCI says with names, overlayfs says with nodes:
//! `.wh.NAME` becomes a character device 0/0 called NAME, `.wh..wh..opq` becomes an attribute of its
//! directory. A directory that the archive uses without listing it gets root as owner and mode 0755.
//!
//! Archives are not trusted: every name is resolved inside the layer's directory by the kernel
//! ([`tree::Tree`]), and `..` is refused outright.

mod tree;

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::SFlag;
use nix::sys::time::TimeSpec;
use tar::{Archive, Entry, EntryType};

use tree::{Attributes, Tree};

/// Names that begin so hide something of a lower layer.
const WHITEOUT: &[u8] = b".wh.";
/// Hides everything of the lower layers in its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Other names that begin so are the bookkeeping of an old file system, and mean nothing here.
const BOOKKEEPING: &[u8] = b".wh..wh.";

/// Disk blocks are what a file takes; this is their size nearly everywhere.
const BLOCK_BYTES: u64 = 4096;

/// What an unpacked layer takes on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub bytes: u64,
    pub inodes: u64,
}

/// Why an archive could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The stream is not a tar archive, or broke off.
    #[error("read the archive: {0}")]
    Archive(io::Error),
    /// One entry could not be made.
    #[error("{}: {source}", path.display())]
    Entry {
        /// Its name in the archive.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Unpacks the tar stream into the empty directory.
pub(super) fn unpack(archive: impl Read, into: &Path) -> Result<Usage, UnpackError> {
    let mut unpacking = Unpacking {
        tree: Tree::open(into).map_err(|source| UnpackError::Entry {
            path: into.to_owned(),
            source,
        })?,
        usage: Usage::default(),
        directories: Vec::new(),
        buffer: vec![0; 128 * 1024],
    };
    let mut archive = Archive::new(archive);
    for entry in archive.entries().map_err(UnpackError::Archive)? {
        let mut entry = entry.map_err(UnpackError::Archive)?;
        unpacking.entry(&mut entry).map_err(|source| UnpackError::Entry {
            path: PathBuf::from(OsStr::from_bytes(&entry.path_bytes())),
            source,
        })?;
    }
    unpacking.finish()
}

struct Unpacking {
    tree: Tree,
    usage: Usage,
    /// Directories with the times to give them once nothing changes in them any more.
    directories: Vec<(Vec<u8>, TimeSpec)>,
    buffer: Vec<u8>,
}

impl Unpacking {
    fn entry(&mut self, entry: &mut Entry<'_, impl Read>) -> io::Result<()> {
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            return Ok(());
        }
        let path = clean(&entry.path_bytes())?;
        let Some((parent, name)) = split(&path) else {
            return self.root(entry, kind);
        };
        if name == OPAQUE {
            return self.tree.make_opaque(parent);
        }
        if name.starts_with(BOOKKEEPING) {
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            if matches!(hidden, b"" | b"." | b"..") {
                return Err(invalid("a whiteout without a name"));
            }
            self.usage.inodes += 1;
            return self.tree.hide(parent, hidden);
        }
        let attributes = attributes(entry)?;
        match kind {
            EntryType::Directory => {
                self.tree.directory(parent, name, &attributes)?;
                self.directories.push((path.clone(), attributes.modified));
                self.usage.bytes += BLOCK_BYTES;
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let written = self.tree.file(parent, name, &attributes, entry, &mut self.buffer)?;
                self.usage.bytes += written.next_multiple_of(BLOCK_BYTES);
            }
            EntryType::Link => {
                let target = entry
                    .link_name_bytes()
                    .ok_or_else(|| invalid("a hard link without a target"))?;
                let target = clean(&target)?;
                let (target_parent, target_name) = split(&target).ok_or_else(|| invalid("a hard link to the root"))?;
                // It is one more name of a file that is counted already.
                return self.tree.link(parent, name, target_parent, target_name);
            }
            EntryType::Symlink => {
                let target = entry
                    .link_name_bytes()
                    .ok_or_else(|| invalid("a symbolic link without a target"))?
                    .into_owned();
                self.tree.symlink(parent, name, &target, &attributes)?;
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                let node = match kind {
                    EntryType::Char => SFlag::S_IFCHR,
                    EntryType::Block => SFlag::S_IFBLK,
                    _ => SFlag::S_IFIFO,
                };
                let major = entry.header().device_major()?.unwrap_or(0);
                let minor = entry.header().device_minor()?.unwrap_or(0);
                let device = nix::sys::stat::makedev(major.into(), minor.into());
                self.tree.node(parent, name, node, device, &attributes)?;
            }
            other => {
                return Err(invalid(&format!(
                    "an entry of type {:?}, which a layer cannot hold",
                    other.as_byte() as char
                )));
            }
        }
        self.usage.inodes += 1;
        Ok(())
    }

    /// The entry of the layer's root itself.
    fn root(&mut self, entry: &mut Entry<'_, impl Read>, kind: EntryType) -> io::Result<()> {
        if !kind.is_dir() {
            return Err(invalid("the root of a layer must be a directory"));
        }
        let attributes = attributes(entry)?;
        self.tree.root(&attributes)?;
        self.directories.push((Vec::new(), attributes.modified));
        Ok(())
    }

    fn finish(mut self) -> Result<Usage, UnpackError> {
        for (path, modified) in self.directories.into_iter().rev() {
            self.tree
                .set_directory_time(&path, modified)
                .map_err(|source| UnpackError::Entry {
                    path: PathBuf::from(OsStr::from_bytes(&path)),
                    source,
                })?;
        }
        Ok(self.usage)
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The name without `/` at its ends, `.` and doubled `/`; empty for the root.
fn clean(path: &[u8]) -> io::Result<Vec<u8>> {
    let mut cleaned = Vec::with_capacity(path.len());
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => return Err(invalid("the name leads out of the layer")),
            component => {
                if !cleaned.is_empty() {
                    cleaned.push(b'/');
                }
                cleaned.extend_from_slice(component);
            }
        }
    }
    Ok(cleaned)
}

/// Directory and last component; none for the root.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.is_empty() {
        return None;
    }
    Some(match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    })
}

fn attributes(entry: &mut Entry<'_, impl Read>) -> io::Result<Attributes> {
    let header = entry.header();
    let fields = header.as_old();
    // Some writers leave out what is zero.
    let number = |value: io::Result<u64>, field: &[u8]| match value {
        Err(_) if field.iter().all(|byte| matches!(byte, 0 | b' ')) => Ok(0),
        other => other,
    };
    let id = |id: u64| u32::try_from(id).map_err(|_| invalid("an owner beyond 32 bits"));
    let mode = number(header.mode().map(u64::from), &fields.mode)?;
    let mut attributes = Attributes {
        uid: id(number(header.uid(), &fields.uid)?)?,
        gid: id(number(header.gid(), &fields.gid)?)?,
        mode: u32::try_from(mode & 0o7777).unwrap_or_default(),
        modified: TimeSpec::new(header.mtime().unwrap_or(0).try_into().unwrap_or(i64::MAX), 0),
        xattrs: Vec::new(),
    };
    let Some(extensions) = entry.pax_extensions()? else {
        return Ok(attributes);
    };
    for extension in extensions {
        let extension = extension?;
        let (key, value) = (extension.key_bytes(), extension.value_bytes());
        if key == b"mtime" {
            if let Some(time) = std::str::from_utf8(value).ok().and_then(seconds) {
                attributes.modified = time;
            }
        } else if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            // These steer overlayfs itself; an image must not.
            if !name.starts_with(b"trusted.overlay.") && !name.starts_with(b"user.overlay.") {
                attributes
                    .xattrs
                    .push((OsStr::from_bytes(name).to_owned(), value.to_vec()));
            }
        }
    }
    Ok(attributes)
}

/// A PAX time: seconds with a fraction.
fn seconds(text: &str) -> Option<TimeSpec> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos: i64 = digits.parse().ok()?;
    // The fraction of a time before 1970 counts away from zero, the kernel's nanoseconds count up.
    Some(if whole.starts_with('-') && nanos > 0 {
        TimeSpec::new(seconds - 1, 1_000_000_000 - nanos)
    } else {
        TimeSpec::new(seconds, nanos)
    })
}

#[cfg(test)]
mod tests;
