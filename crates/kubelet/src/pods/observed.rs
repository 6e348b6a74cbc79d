//! What the runtime knows of one pod, taken from its lists and statuses into one value.

use std::collections::HashMap;
use std::sync::Arc;

use cri::RuntimeService;
use cri::v1::{self, ContainerState, NamespaceMode, PodSandboxState};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::cri_config::labels;

/// One sandbox of a pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Sandbox {
    /// The runtime's id.
    pub id: String,
    /// How many sandboxes the pod had before.
    pub attempt: u32,
    /// Whether it can hold containers.
    pub ready: bool,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// The pod's addresses; none on the node's network.
    pub ips: Vec<String>,
    /// Whether it uses the node's network.
    pub host_network: bool,
}

/// Whether a container runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Made, not started.
    Created,
    /// Its first process runs.
    Running,
    /// Its first process has ended.
    Exited,
    /// The runtime does not know.
    Unknown,
}

/// One instance of a container of a pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    /// The runtime's id.
    pub id: String,
    /// The runtime's name.
    pub runtime: Arc<str>,
    /// The container of the pod's spec.
    pub name: String,
    /// The sandbox it is in.
    pub sandbox: String,
    /// How many instances there were before.
    pub restarts: u32,
    /// Whether it runs.
    pub state: State,
    /// When it was made.
    pub created_at: i64,
    /// When it was started; 0 if it was not.
    pub started_at: i64,
    /// When it ended; 0 if it did not.
    pub finished_at: i64,
    /// How it ended.
    pub exit_code: i32,
    /// Why it ended, in a word.
    pub reason: String,
    /// Why it ended; its termination message, when it has one.
    pub message: String,
    /// The image as the runtime names it.
    pub image: String,
    /// The image as it is: a digest or id.
    pub image_ref: String,
    /// Identifies the container's spec.
    pub hash: String,
    /// Who it runs as.
    pub user: Option<v1::LinuxContainerUser>,
    /// The file of its termination message on the node.
    pub message_file: Option<String>,
    /// Its log on the node.
    pub log_path: String,
    /// What the runtime enforces.
    pub resources: Option<v1::LinuxContainerResources>,
}

impl Instance {
    /// The id as statuses have it.
    pub fn full_id(&self) -> String {
        format!("{}://{}", self.runtime, self.id)
    }

    /// When it ended.
    pub fn finished(&self) -> Timestamp {
        time(self.finished_at)
    }
}

/// Nanoseconds of the runtime as a time.
pub fn time(nanoseconds: i64) -> Timestamp {
    Timestamp::from_nanosecond(nanoseconds.into()).unwrap_or_default()
}

/// Everything the runtime has of one pod, newest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    /// Sandboxes, newest first.
    pub sandboxes: Vec<Sandbox>,
    /// Instances of containers, newest first.
    pub instances: Vec<Instance>,
}

impl Observed {
    /// The sandbox that containers belong into, if it is usable.
    pub fn sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.first().filter(|sandbox| sandbox.ready)
    }

    /// The newest instance of a container.
    pub fn latest(&self, name: &str) -> Option<&Instance> {
        self.instances.iter().find(|instance| instance.name == name)
    }

    /// The newest instance of a container in one sandbox.
    pub fn latest_in(&self, sandbox: &str, name: &str) -> Option<&Instance> {
        self.instances
            .iter()
            .find(|instance| instance.name == name && instance.sandbox == sandbox)
    }

    /// Whether any container still has a process, as far as is known.
    pub fn any_running(&self) -> bool {
        self.instances
            .iter()
            .any(|instance| matches!(instance.state, State::Running | State::Unknown))
    }

    /// Asks the runtime, whose name is `name`. Instances of `known` that have ended are not asked about again.
    pub async fn of(runtime: &dyn RuntimeService, name: &Arc<str>, uid: &str, known: &Observed) -> cri::Result<Self> {
        let selector = HashMap::from([(labels::POD_UID.to_owned(), uid.to_owned())]);
        let filter = v1::PodSandboxFilter {
            label_selector: selector.clone(),
            ..Default::default()
        };
        let listed = runtime
            .list_pod_sandbox(v1::ListPodSandboxRequest { filter: Some(filter) })
            .await?
            .items;
        let mut sandboxes = Vec::with_capacity(listed.len());
        for item in listed {
            let request = v1::PodSandboxStatusRequest {
                pod_sandbox_id: item.id,
                verbose: false,
            };
            match runtime.pod_sandbox_status(request).await {
                Ok(response) => sandboxes.extend(response.status.map(Sandbox::from)),
                // Removed since it was listed.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        let filter = v1::ContainerFilter {
            label_selector: selector,
            ..Default::default()
        };
        let listed = runtime
            .list_containers(v1::ListContainersRequest { filter: Some(filter) })
            .await?
            .containers;
        let mut instances = Vec::with_capacity(listed.len());
        for item in listed {
            let ended = known
                .instances
                .iter()
                .find(|known| known.id == item.id && known.state == State::Exited);
            if let Some(ended) = ended {
                instances.push(ended.clone());
                continue;
            }
            let request = v1::ContainerStatusRequest {
                container_id: item.id,
                verbose: false,
            };
            match runtime.container_status(request).await {
                Ok(response) => instances.extend(
                    response
                        .status
                        .map(|status| Instance::new(status, name, item.pod_sandbox_id)),
                ),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self::sorted(sandboxes, instances))
    }

    fn sorted(mut sandboxes: Vec<Sandbox>, mut instances: Vec<Instance>) -> Self {
        sandboxes.sort_by_key(|sandbox| std::cmp::Reverse((sandbox.created_at, sandbox.attempt)));
        instances.sort_by_key(|instance| std::cmp::Reverse((instance.created_at, instance.restarts)));
        Self { sandboxes, instances }
    }

    /// Fills in the termination messages of instances that ended since `known`.
    pub async fn read_messages(&mut self, pod: &Pod, known: &Observed) {
        for instance in &mut self.instances {
            let seen = known
                .instances
                .iter()
                .any(|known| known.id == instance.id && known.state == State::Exited);
            if instance.state == State::Exited && !seen {
                let words = super::termination::message(pod, instance).await;
                match (instance.message.is_empty(), words.is_empty()) {
                    (_, true) => {}
                    (true, false) => instance.message = words,
                    (false, false) => instance.message = format!("{}: {words}", instance.message),
                }
            }
        }
    }
}

impl From<v1::PodSandboxStatus> for Sandbox {
    fn from(status: v1::PodSandboxStatus) -> Self {
        let host_network = status
            .linux
            .as_ref()
            .and_then(|linux| linux.namespaces.as_ref()?.options.as_ref())
            .is_some_and(|options| options.network() == NamespaceMode::Node);
        let ready = status.state() == PodSandboxState::SandboxReady;
        let network = status.network.unwrap_or_default();
        let ips = std::iter::once(network.ip)
            .chain(network.additional_ips.into_iter().map(|ip| ip.ip))
            .filter(|ip| !ip.is_empty())
            .collect();
        Self {
            ready,
            attempt: status.metadata.map_or(0, |metadata| metadata.attempt),
            created_at: status.created_at,
            id: status.id,
            ips,
            host_network,
        }
    }
}

impl Instance {
    fn new(status: v1::ContainerStatus, runtime: &Arc<str>, sandbox: String) -> Self {
        let state = match status.state() {
            ContainerState::ContainerCreated => State::Created,
            ContainerState::ContainerRunning => State::Running,
            ContainerState::ContainerExited => State::Exited,
            ContainerState::ContainerUnknown => State::Unknown,
        };
        let message_path = status.annotations.get(labels::TERMINATION_MESSAGE_PATH);
        let message_file = status
            .mounts
            .iter()
            .find(|mount| message_path.is_some_and(|path| *path == mount.container_path))
            .map(|mount| mount.host_path.clone());
        let metadata = status.metadata.unwrap_or_default();
        let restarts = status
            .annotations
            .get(labels::RESTART_COUNT)
            .and_then(|count| count.parse().ok())
            .unwrap_or(metadata.attempt);
        let image_ref = if status.image_ref.is_empty() {
            status.image_id
        } else {
            status.image_ref
        };
        let image = status.image.unwrap_or_default().image;
        Self {
            name: status
                .labels
                .get(labels::CONTAINER_NAME)
                .cloned()
                .unwrap_or(metadata.name),
            id: status.id,
            runtime: runtime.clone(),
            sandbox,
            restarts,
            state,
            created_at: status.created_at,
            started_at: status.started_at,
            finished_at: status.finished_at,
            exit_code: status.exit_code,
            reason: status.reason,
            message: status.message,
            image,
            image_ref,
            hash: status.annotations.get(labels::HASH).cloned().unwrap_or_default(),
            user: status.user.and_then(|user| user.linux),
            message_file,
            log_path: status.log_path,
            resources: status.resources.and_then(|resources| resources.linux),
        }
    }
}
