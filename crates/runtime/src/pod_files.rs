//! The files that a pod's containers find in `/etc`, and their shared memory.

use std::fs;
use std::io;
use std::path::Path;

use cri::v1::{DnsConfig, NamespaceMode, PodSandboxConfig};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::shim::protocol::Users;
use crate::spec::PodFiles;

/// Writes the files of a sandbox into its directory; they are its users'.
pub(crate) fn write(dir: &Path, config: &PodSandboxConfig, host_ipc: bool, users: Option<Users>) -> io::Result<()> {
    let (uid, gid) = users.map_or((0, 0), |users| (users.uid, users.gid));
    let files = names(dir, config, NamespaceMode::Pod);
    fs::write(&files.hostname, format!("{}\n", files.hostname_text))?;
    fs::write(&files.hosts, fs::read("/etc/hosts").unwrap_or_default())?;
    let resolv_conf = match &config.dns_config {
        Some(dns) => resolv_conf(dns).into_bytes(),
        None => fs::read("/etc/resolv.conf").unwrap_or_default(),
    };
    fs::write(&files.resolv_conf, resolv_conf)?;
    for file in [&files.hostname, &files.hosts, &files.resolv_conf] {
        std::os::unix::fs::chown(file, Some(uid), Some(gid))?;
    }
    if !host_ipc {
        fs::create_dir_all(&files.shm)?;
        mount(
            Some("shm"),
            &files.shm,
            Some("tmpfs"),
            MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV,
            Some(format!("mode=1777,size=65536k,uid={uid},gid={gid}").as_str()),
        )?;
    }
    Ok(())
}

/// Takes away what [`write()`] mounted.
pub(crate) fn unmount(dir: &Path) {
    // Nothing is mounted where the node's shared memory is used.
    let _ = umount2(&dir.join("shm"), MntFlags::MNT_DETACH);
}

/// Where the files are.
pub(crate) fn names(dir: &Path, config: &PodSandboxConfig, ipc: NamespaceMode) -> PodFiles {
    let hostname_text = if config.hostname.is_empty() {
        nix::unistd::gethostname()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
    } else {
        config.hostname.clone()
    };
    PodFiles {
        rootfs: Default::default(),
        hosts: dir.join("hosts"),
        hostname: dir.join("hostname"),
        hostname_text,
        resolv_conf: dir.join("resolv.conf"),
        shm: if ipc == NamespaceMode::Node {
            "/dev/shm".into()
        } else {
            dir.join("shm")
        },
    }
}

fn resolv_conf(dns: &DnsConfig) -> String {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_says_what_the_pod_asked() {
        let list = |items: &[&str]| items.iter().map(ToString::to_string).collect::<Vec<_>>();
        let dns = DnsConfig {
            servers: list(&["10.96.0.10", "fd00::10"]),
            searches: list(&["default.svc.cluster.local", "svc.cluster.local"]),
            options: list(&["ndots:5"]),
        };
        assert_eq!(
            resolv_conf(&dns),
            "search default.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\nnameserver fd00::10\noptions ndots:5\n"
        );
        assert_eq!(resolv_conf(&DnsConfig::default()), "");
    }
}
