//! The kernel's NFS server in a test's network namespace, without any program beside it: what rpc.mountd would answer is said beforehand.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::run;
use crate::netns::inside;
use crate::{Netns, kernel_has, nothing_is_left_out};

/// Flags of an export: it is known by a number, found without its parents, and written by root as by anyone, from any port.
const EXPORT_FLAGS: u32 = 0x2000 | 0x400 | 0x2;

/// Seconds in which a server that was only started lets old clients come back, and no new one open a file: the fewest that it takes.
const GRACE: &str = "10";

/// A server of NFS 4 with one export, `/`. It ends when it is dropped.
pub struct Nfs {
    netns: PathBuf,
    address: String,
    export: PathBuf,
    /// Where the server's own file system is mounted; the kernel ends the server with it.
    control: PathBuf,
}

impl Nfs {
    /// Whether this machine's kernel can be server and client, and has the client's program. Where [`kernel_has`] panics, so does this.
    pub fn possible() -> bool {
        kernel_has("nfsd") && kernel_has("nfs") && {
            let installed = Path::new("/usr/sbin/mount.nfs").exists();
            assert!(installed || !nothing_is_left_out(), "mount.nfs is not installed");
            installed
        }
    }

    /// Exports a directory to clients at an address of the namespace, which is its own.
    pub fn start(netns: &Netns, address: &str, export: &Path, dir: &Path) -> Self {
        let control = dir.join("nfsd");
        fs::create_dir(&control).expect("a directory for the NFS server");
        // Whose network namespace mounts it, in that one the server is.
        let mut mount = netns.command("mount");
        run(mount.args(["-t", "nfsd", "nfsd"]).arg(&control), "").ok();
        let nfs = Self {
            netns: netns.path(),
            address: address.to_owned(),
            export: export.to_owned(),
            control,
        };
        // Version 3 wants a portmapper.
        nfs.set("versions", "-3");
        nfs.set("nfsv4leasetime", GRACE);
        nfs.set("nfsv4gracetime", GRACE);
        nfs.resume();
        nfs
    }

    fn set(&self, file: &str, value: &str) {
        let path = self.control.join(file);
        fs::write(&path, format!("{value}\n")).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// It serves, and also again after it was stopped.
    pub fn resume(&self) {
        let (address, export, never) = (&self.address, self.export.display(), i32::MAX);
        for (cache, line) in [
            ("auth.unix.ip", format!("nfsd {address} {never} all")),
            (
                "nfsd.export",
                format!("all {export} {never} {EXPORT_FLAGS} 65534 65534 0"),
            ),
            ("nfsd.fh", format!("all 1 \\x00000000 {never} {export}")),
        ] {
            let mut tee = inside(&self.netns, "tee");
            tee.arg(format!("/proc/net/rpc/{cache}/channel"));
            run(&mut tee, &format!("{line}\n")).ok();
        }
        self.set("threads", "2");
    }

    /// Nobody is answered any more.
    pub fn stop(&self) {
        self.set("threads", "0");
    }

    /// The servers that the namespace's clients still hold to.
    pub fn clients(&self) -> String {
        run(inside(&self.netns, "cat").arg("/proc/net/nfsfs/servers"), "").ok()
    }
}

impl Drop for Nfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.control).status();
    }
}
