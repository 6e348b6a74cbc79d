//! A container, as the runtime is asked for it.

use cri::v1::{
    ContainerConfig, ContainerMetadata, Device, ImageSpec, KeyValue, LinuxContainerConfig, Mount, NamespaceMode,
    Signal, UserNamespace,
};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::security::{ImageUser, Seccomp};
use super::{labels, resources, security};
use crate::expand::expand;
use crate::pods::pod::{PodExt, Role};

/// What an instance needs besides its spec.
pub struct Inputs<'a> {
    /// How many instances there were before.
    pub restarts: u32,
    /// The image as the runtime names it.
    pub image_ref: String,
    /// Its user.
    pub image_user: ImageUser,
    /// The environment, complete and in order.
    pub env: Vec<(String, String)>,
    /// Volumes and managed files.
    pub mounts: Vec<Mount>,
    /// Block volumes.
    pub devices: Vec<Device>,
    /// The node's memory in bytes.
    pub memory_capacity: i64,
    /// The pod's own users, if it has some.
    pub users: Option<UserNamespace>,
    /// What the node has of seccomp.
    pub seccomp: Seccomp,
    /// Whether the node's cgroups are version 2.
    pub unified: bool,
    /// The instance whose processes it is to see, where its pod's containers do not see each other's.
    pub target: Option<String>,
    /// The container's part in the pod.
    pub role: Role,
    /// The pod.
    pub pod: &'a Pod,
}

/// Below the pod's log directory.
pub fn log_path(name: &str, restarts: u32) -> String {
    format!("{name}/{restarts}.log")
}

/// All of it.
pub fn config(container: &Container, inputs: Inputs<'_>) -> ContainerConfig {
    let pod = inputs.pod;
    let expanded = |words: &Option<Vec<String>>| {
        words
            .iter()
            .flatten()
            .map(|word| expand(word, &inputs.env))
            .collect::<Vec<_>>()
    };
    let labels = [
        (labels::CONTAINER_NAME, container.name.as_str()),
        (labels::POD_NAME, pod.name()),
        (labels::POD_NAMESPACE, pod.namespace()),
        (labels::POD_UID, pod.uid()),
    ];
    let mut annotations = vec![
        (labels::HASH, labels::hash(container)),
        (labels::RESTART_COUNT, inputs.restarts.to_string()),
        (
            labels::TERMINATION_MESSAGE_PATH,
            container.termination_message_path.clone().unwrap_or_default(),
        ),
        (
            labels::TERMINATION_MESSAGE_POLICY,
            container.termination_message_policy.clone().unwrap_or_default(),
        ),
        (labels::GRACE, pod.grace().to_string()),
    ];
    if let Some(ports) = container.ports.as_ref().filter(|ports| !ports.is_empty()) {
        // A list of plain values always encodes.
        annotations.push((labels::PORTS, serde_json::to_string(ports).unwrap_or_default()));
    }
    let stop_signal = container
        .lifecycle
        .as_ref()
        .and_then(|lifecycle| lifecycle.stop_signal.as_deref());
    let mut security_context = security::container(
        pod,
        container,
        &inputs.image_user,
        inputs.users.as_ref(),
        &inputs.seccomp,
    );
    if let (Some(target), Some(namespaces)) = (inputs.target, &mut security_context.namespace_options)
        && namespaces.pid() == NamespaceMode::Container
    {
        namespaces.set_pid(NamespaceMode::Target);
        namespaces.target_id = target;
    }
    let mut mounts = inputs.mounts;
    if let Some(users) = &inputs.users {
        // An image's files are mapped by the runtime, which knows whose they are.
        for mount in mounts.iter_mut().filter(|mount| mount.image.is_none()) {
            mount.uid_mappings.clone_from(&users.uids);
            mount.gid_mappings.clone_from(&users.gids);
        }
    }
    ContainerConfig {
        metadata: Some(ContainerMetadata {
            name: container.name.clone(),
            attempt: inputs.restarts,
        }),
        image: Some(ImageSpec {
            image: inputs.image_ref,
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..Default::default()
        }),
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        annotations: annotations
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect(),
        log_path: log_path(&container.name, inputs.restarts),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        linux: Some(LinuxContainerConfig {
            resources: Some(resources::container(
                pod,
                container,
                inputs.role,
                inputs.memory_capacity,
                inputs.unified,
            )),
            security_context: Some(security_context),
        }),
        stop_signal: stop_signal.map_or(Signal::RuntimeDefault, signal).into(),
        mounts,
        devices: inputs.devices,
        envs: inputs
            .env
            .into_iter()
            .map(|(key, value)| KeyValue { key, value })
            .collect(),
        ..Default::default()
    }
}

/// `SIGRTMIN+3` and its like are `SIGRTMINPLUS3` on the wire.
fn signal(name: &str) -> Signal {
    Signal::from_str_name(&name.replace('+', "PLUS").replace('-', "MINUS")).unwrap_or(Signal::RuntimeDefault)
}
