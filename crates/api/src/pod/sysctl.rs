//! Kernel parameters that pods set: their names, and the kernel's namespaces that they belong to.

/// A kernel namespace with parameters of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SysctlNamespace {
    /// Message queues, semaphores and shared memory.
    Ipc,
    /// The network.
    Net,
}

impl SysctlNamespace {
    /// As upstream names it in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ipc => "IPC",
            Self::Net => "Net",
        }
    }
}

/// The name with dots between its segments; with slashes, dots are part of segments.
pub fn sysctl_name(name: &str) -> String {
    // Whichever separator comes first is the one between segments.
    let slashes = name.find(['.', '/']).is_some_and(|at| name.as_bytes()[at] == b'/');
    let swapped = |c: char| match c {
        '/' => '.',
        '.' => '/',
        other => other,
    };
    match slashes {
        true => name.chars().map(swapped).collect(),
        false => name.to_owned(),
    }
}

/// The kernel namespace that a sysctl, or a prefix of sysctls, belongs to, if to any.
pub fn sysctl_namespace(name: &str) -> Option<SysctlNamespace> {
    let name = sysctl_name(name);
    if name.starts_with("net.") {
        return Some(SysctlNamespace::Net);
    }
    let ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."]
        .iter()
        .any(|prefix| name.starts_with(prefix));
    (ipc || name == "kernel.sem").then_some(SysctlNamespace::Ipc)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_namespaces() {
        assert_eq!(
            sysctl_name("net/ipv4/conf/eth0.1/rp_filter"),
            "net.ipv4.conf.eth0/1.rp_filter"
        );
        assert_eq!(
            sysctl_name("net.ipv4.conf.eth0/1.rp_filter"),
            "net.ipv4.conf.eth0/1.rp_filter"
        );
        for (name, namespace) in [
            ("net.ipv4.tcp_syncookies", Some(SysctlNamespace::Net)),
            ("net/ipv4/tcp_syncookies", Some(SysctlNamespace::Net)),
            ("kernel.shm_rmid_forced", Some(SysctlNamespace::Ipc)),
            ("kernel.sem", Some(SysctlNamespace::Ipc)),
            ("fs.mqueue.msg_max", Some(SysctlNamespace::Ipc)),
            ("kernel.pid_max", None),
            ("vm.swappiness", None),
        ] {
            assert_eq!(sysctl_namespace(name), namespace, "{name}");
        }
    }
}
