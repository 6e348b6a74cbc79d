//! Sandboxes: a pod's namespaces, its pause container and its shim. One verb a file.

mod remove;
mod resources;
pub(crate) mod run;
mod status;
mod stop;

use cri::v1::{NamespaceMode, NamespaceOption, PodSandboxConfig};

pub(crate) use status::{details, matches, selected, status, summary};

/// Which namespaces of the node the pod shares.
pub(crate) fn namespace_options(config: &PodSandboxConfig) -> NamespaceOption {
    config
        .linux
        .as_ref()
        .and_then(|linux| linux.security_context.as_ref())
        .and_then(|context| context.namespace_options.clone())
        .unwrap_or_default()
}

pub(crate) fn on_host_network(config: &PodSandboxConfig) -> bool {
    namespace_options(config).network() == NamespaceMode::Node
}
