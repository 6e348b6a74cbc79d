//! Mounts of the machine's that a test makes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::command::run;

/// A mount, gone when dropped.
pub struct Mount(PathBuf);

impl Mount {
    /// `mount ARGUMENTS AT`.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn new(arguments: &[&str], at: impl AsRef<Path>) -> Self {
        run(Command::new("mount").args(arguments).arg(at.as_ref()), "").ok();
        Self::there(at)
    }

    /// A file system in memory, with these options.
    #[track_caller]
    pub fn memory(options: &str, at: impl AsRef<Path>) -> Self {
        std::fs::create_dir_all(at.as_ref()).expect("a directory to mount at");
        Self::new(&["-t", "tmpfs", "-o", options, "tmpfs"], at)
    }

    /// One that somebody else made.
    pub fn there(at: impl AsRef<Path>) -> Self {
        Self(at.as_ref().to_owned())
    }

    /// Where it is.
    pub fn at(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let mut umount = Command::new("umount");
        let _ = umount.arg("-l").arg(&self.0).stderr(Stdio::null()).status();
    }
}

/// A block device of so many bytes over a file, gone when dropped.
pub struct Loop(String);

impl Loop {
    /// Takes a free one.
    ///
    /// # Panics
    /// When the machine has none.
    #[track_caller]
    pub fn new(file: &Path, bytes: u64) -> Self {
        let made = std::fs::File::create_new(file).and_then(|file| file.set_len(bytes));
        made.expect("a file for a device");
        let mut losetup = Command::new("losetup");
        losetup.args(["--find", "--show"]).arg(file);
        Self(run(&mut losetup, "").ok().trim().to_owned())
    }

    /// Its path.
    pub fn path(&self) -> &str {
        &self.0
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}
