//! SELinux: the labels of a container's process and of what is mounted for it, for those who ask, on machines that have it.

use cri::v1::{LinuxContainerSecurityContext, SeLinuxOption};

use super::Host;

/// The labels of a container.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Labels {
    /// Its process runs under this one.
    pub(super) process: Option<String>,
    /// Its files have this one.
    pub(super) mounts: Option<String>,
}

/// What a part of a label is for one who does not say, as distributions have it for containers.
const USER: &str = "system_u";
const ROLE: &str = "system_r";
const TYPE: &str = "container_t";
const LEVEL: &str = "s0";

pub(super) fn labels(context: &LinuxContainerSecurityContext, host: &Host) -> Labels {
    let Some(options) = context.selinux_options.as_ref().filter(|_| host.selinux) else {
        return Labels::default();
    };
    let SeLinuxOption {
        user,
        role,
        r#type,
        level,
    } = options;
    let or = |value: &str, default: &str| match value {
        "" => default.to_owned(),
        value => value.to_owned(),
    };
    let (user, level) = (or(user, USER), or(level, LEVEL));
    let process = format!("{user}:{}:{}:{level}", or(role, ROLE), or(r#type, TYPE));
    Labels {
        // Nothing confines a privileged container.
        process: (!context.privileged).then_some(process),
        mounts: Some(format!("{user}:object_r:container_file_t:{level}")),
    }
}
