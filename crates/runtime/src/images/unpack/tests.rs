//! Archives against a real directory: what layers hold, and what hostile ones try.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

use super::*;

/// An archive under construction; names go in as they are, however bad.
struct Tar(Builder<Vec<u8>>);

impl Tar {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn entry(mut self, kind: EntryType, name: &str, link: &str, mode: u32, content: &[u8]) -> Self {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(1000);
        header.set_gid(1001);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn file(self, name: &str, content: &str) -> Self {
        self.entry(EntryType::Regular, name, "", 0o644, content.as_bytes())
    }

    fn dir(self, name: &str) -> Self {
        self.entry(EntryType::Directory, name, "", 0o750, b"")
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, name, target, 0o777, b"")
    }

    fn link(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Link, name, target, 0o644, b"")
    }

    fn pax(mut self, extensions: &[(&str, &[u8])]) -> Self {
        self.0.append_pax_extensions(extensions.iter().copied()).unwrap();
        self
    }

    fn unpack(self) -> Result<TempDir, UnpackError> {
        // The layer lies one level down, so that something outside could be seen.
        let outside = tempfile::tempdir().unwrap();
        let layer = outside.path().join("layer");
        fs::create_dir(&layer).unwrap();
        unpack(&self.0.into_inner().unwrap()[..], &layer).map(|_| outside)
    }
}

fn layer(outside: &TempDir) -> std::path::PathBuf {
    outside.path().join("layer")
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

fn is_whiteout(path: impl AsRef<Path>) -> bool {
    let metadata = fs::symlink_metadata(path).unwrap();
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

fn is_opaque(path: impl AsRef<Path>) -> bool {
    xattr::get(path, "trusted.overlay.opaque").unwrap().as_deref() == Some(b"y")
}

#[test]
fn files_keep_what_the_archive_says() {
    let capability: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let out = Tar::new()
        .dir("./")
        .dir("usr")
        .entry(EntryType::Regular, "usr/su", "", 0o4755, b"su")
        .pax(&[
            ("SCHILY.xattr.security.capability", capability),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("mtime", b"1500000000.25"),
        ])
        .file("usr/ping", "ping")
        .link("usr/also", "usr/su")
        .symlink("usr/link", "/usr/su")
        .entry(EntryType::Char, "null", "", 0o666, b"")
        .entry(EntryType::Fifo, "pipe", "", 0o600, b"")
        .unpack()
        .unwrap();
    let layer = layer(&out);
    let su = fs::metadata(layer.join("usr/su")).unwrap();
    assert_eq!((su.mode() & 0o7777, su.uid(), su.gid()), (0o4755, 1000, 1001));
    assert_eq!(su.mtime(), 1_000_000_000);
    assert_eq!(su.nlink(), 2);
    assert_eq!(fs::metadata(layer.join("usr/also")).unwrap().ino(), su.ino());
    let ping = layer.join("usr/ping");
    assert_eq!(xattr::get(&ping, "security.capability").unwrap().unwrap(), capability);
    assert_eq!(xattr::get(&ping, "trusted.overlay.redirect").unwrap(), None);
    let times = fs::metadata(&ping).unwrap();
    assert_eq!((times.mtime(), times.mtime_nsec()), (1_500_000_000, 250_000_000));
    let dir = fs::metadata(layer.join("usr")).unwrap();
    assert_eq!((dir.mode() & 0o7777, dir.mtime()), (0o750, 1_000_000_000));
    let root = fs::metadata(&layer).unwrap();
    assert_eq!((root.mode() & 0o7777, root.uid()), (0o750, 1000));
    let link = fs::symlink_metadata(layer.join("usr/link")).unwrap();
    assert_eq!((link.uid(), link.mtime()), (1000, 1_000_000_000));
    let null = fs::metadata(layer.join("null")).unwrap();
    assert_eq!(
        (null.file_type().is_char_device(), null.rdev(), null.mode() & 0o777),
        (true, nix::sys::stat::makedev(1, 3), 0o666)
    );
    assert!(fs::metadata(layer.join("pipe")).unwrap().file_type().is_fifo());
}

#[test]
fn whiteouts_become_overlayfs_nodes() {
    let out = Tar::new()
        .file("etc/.wh.passwd", "")
        .file("var/.wh..wh..opq", "")
        .file(".wh..wh.plnk/x", "")
        .file(".wh.gone", "")
        .dir("gone")
        .file("gone/new", "n")
        .dir("kept")
        .file("kept/file", "k")
        .file(".wh.kept", "")
        .unpack()
        .unwrap();
    let layer = layer(&out);
    assert!(is_whiteout(layer.join("etc/passwd")));
    assert!(is_opaque(layer.join("var")));
    assert!(!is_opaque(layer.join("etc")));
    assert!(is_opaque(layer.join("gone")), "the old directory stays hidden");
    assert_eq!(read(layer.join("gone/new")), "n");
    assert!(is_opaque(layer.join("kept")));
    assert_eq!(read(layer.join("kept/file")), "k");
}

#[test]
fn later_entries_replace_earlier_ones() {
    let out = Tar::new()
        .file("a", "one")
        .file("a", "two")
        .dir("d")
        .file("d/x", "x")
        .file("d", "now a file")
        .symlink("s", "a")
        .dir("s")
        .file("s/x", "inside")
        .unpack()
        .unwrap();
    let layer = layer(&out);
    assert_eq!(read(layer.join("a")), "two");
    assert_eq!(read(layer.join("d")), "now a file");
    assert_eq!(read(layer.join("s/x")), "inside");
}

#[test]
fn links_of_a_layer_stay_inside_it() {
    let out = Tar::new()
        .symlink("abs", "/elsewhere")
        .file("abs/file", "1")
        .symlink("up", "../../../..")
        .file("up/file", "2")
        .symlink("run", "/var/run")
        .file("run/pid", "3")
        .symlink("far", "../../sibling/dir")
        .file("far/file", "4")
        .unpack()
        .unwrap();
    let layer = layer(&out);
    assert_eq!(read(layer.join("elsewhere/file")), "1");
    assert_eq!(read(layer.join("file")), "2");
    assert_eq!(read(layer.join("var/run/pid")), "3");
    assert_eq!(read(layer.join("sibling/dir/file")), "4");
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 1, "only the layer");
}

#[test]
fn hostile_archives_are_refused() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    let outside = secret.path().to_str().unwrap();
    for (what, tar, reason) in [
        ("up", Tar::new().file("../x", ""), "leads out of the layer"),
        ("deep up", Tar::new().file("a/../../x", ""), "leads out of the layer"),
        (
            "hard link up",
            Tar::new().link("x", "../secret"),
            "leads out of the layer",
        ),
        (
            "hard link to the host",
            Tar::new().link("x", outside),
            "a hard link to a file that the layer does not have",
        ),
        (
            "hard link through a link",
            Tar::new().symlink("l", "/etc").link("x", "l/passwd"),
            "a hard link to a file that the layer does not have",
        ),
        ("link loop", Tar::new().symlink("l", "l").file("l/x", ""), "symbolic"),
        (
            "whiteout up",
            Tar::new().file("a/.wh...", ""),
            "a whiteout without a name",
        ),
        (
            "whiteout of nothing",
            Tar::new().file(".wh.", ""),
            "a whiteout without a name",
        ),
        ("file as root", Tar::new().file("/", ""), "must be a directory"),
        (
            "file as parent",
            Tar::new().file("f", "").file("f/x", ""),
            "Not a directory",
        ),
    ] {
        let error = tar.unpack().unwrap_err().to_string();
        assert!(error.contains(reason), "{what}: {error}");
    }
}

#[test]
fn writing_through_a_link_replaces_it() {
    // The last component is never followed, whatever it points to.
    let out = Tar::new()
        .symlink("passwd", "../outside")
        .file("passwd", "mine")
        .symlink("fifo", "../outside")
        .entry(EntryType::Fifo, "fifo", "", 0o600, b"")
        .unpack()
        .unwrap();
    assert_eq!(read(layer(&out).join("passwd")), "mine");
    assert!(!out.path().join("outside").exists());
}

#[test]
fn cut_off_archives_are_refused() {
    let whole = Tar::new().file("a", &"x".repeat(5000)).0.into_inner().unwrap();
    let dir = tempfile::tempdir().unwrap();
    for length in [100, 600, 3000] {
        assert!(
            matches!(
                unpack(&whole[..length], dir.path()),
                Err(UnpackError::Archive(_) | UnpackError::Entry { .. })
            ),
            "{length}"
        );
    }
}

#[test]
fn pax_times() {
    for (text, expected) in [
        ("5", Some((5, 0))),
        ("5.5", Some((5, 500_000_000))),
        ("5.1234567891", Some((5, 123_456_789))),
        ("-1.25", Some((-2, 750_000_000))),
        ("x", None),
        ("1.x", None),
    ] {
        let time = seconds(text).map(|time| (time.tv_sec(), time.tv_nsec()));
        assert_eq!(time, expected, "{text}");
    }
}
