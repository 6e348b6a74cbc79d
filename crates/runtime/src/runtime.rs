//! The runtime itself: what it holds, how it opens, and what it does when a shim has news.
//!
//! Its picture is rebuilt from the records on disk and from what the shims say, so a server may be killed at any
//! moment. Each sandbox and each container has a lock that its verbs take, so two requests for one do not meet; news
//! of a shim takes no such lock, it only moves a [`Status`] forward.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};

use cri::v1::{ContainerEventResponse, ContainerEventType, LinuxContainerResources};
use nix::fcntl::Flock;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{broadcast, watch};

use crate::apparmor::AppArmor;
use crate::client::{News, ShimClient, Zygote};
use crate::config::{Config, Layout};
use crate::images::Images;
use crate::record::{self, ContainerRecord, Ended, SandboxRecord, Status};
use crate::shim::protocol::Exit;
use crate::spec::Host;
use crate::streaming::StreamingServer;
use crate::{PodNetwork, host};

/// How many events a slow listener may be behind before it loses some and has to list.
const EVENTS: usize = 1024;

/// The built-in container runtime. Clones share it.
#[derive(Clone)]
pub struct Runtime(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub layout: Layout,
    pub network: Arc<dyn PodNetwork>,
    pub images: Images,
    pub zygote: Zygote,
    pub host: Host,
    pub app_armor: Arc<AppArmor>,
    pub sandboxes: RwLock<BTreeMap<String, Arc<Sandbox>>>,
    pub containers: RwLock<BTreeMap<String, Arc<Container>>>,
    pub events: broadcast::Sender<ContainerEventResponse>,
    /// Where sessions are opened; it knows the runtime, so it comes after it.
    pub streaming: OnceLock<StreamingServer>,
    /// Keeps every other process out of the run directory.
    pub _lock: Flock<File>,
}

/// A pod's sandbox.
pub(crate) struct Sandbox {
    pub id: String,
    pub dir: PathBuf,
    pub record: Mutex<SandboxRecord>,
    /// None when the shim has gone.
    pub shim: Mutex<Option<ShimClient>>,
    /// Whether the pause container runs.
    pub paused: watch::Sender<bool>,
    pub verbs: tokio::sync::Mutex<()>,
}

/// A container.
pub(crate) struct Container {
    pub id: String,
    pub sandbox: Arc<Sandbox>,
    pub dir: PathBuf,
    /// What does not change, and what status and resources were at first.
    pub record: ContainerRecord,
    /// The limits that it has now.
    pub resources: Mutex<Option<LinuxContainerResources>>,
    pub status: watch::Sender<Status>,
    pub verbs: tokio::sync::Mutex<()>,
}

impl Container {
    pub(crate) fn new(record: ContainerRecord, sandbox: Arc<Sandbox>, dir: PathBuf) -> Self {
        Self {
            id: record.id.clone(),
            sandbox,
            dir,
            status: watch::Sender::new(record.status.clone()),
            resources: Mutex::new(record.config.0.linux.as_ref().and_then(|linux| linux.resources.clone())),
            record,
            verbs: tokio::sync::Mutex::new(()),
        }
    }

    pub(crate) fn cgroup(&self) -> String {
        format!("{}/{}", self.sandbox.cgroup_parent(), self.id)
    }

    /// Moves the container on and writes it down. Nothing follows an end.
    pub(crate) fn set_status(&self, next: Status) -> bool {
        let moved = self.status.send_if_modified(|status| {
            let moves = !matches!(status, Status::Exited(_));
            if moves {
                *status = next;
            }
            moves
        });
        if moved {
            self.save();
        }
        moved
    }

    pub(crate) fn save(&self) {
        let mut record = self.record.clone();
        record.status = self.status.borrow().clone();
        if let Some(resources) = self.resources.lock().clone() {
            record.config.0.linux.get_or_insert_default().resources = Some(resources);
        }
        let path = self.dir.join("container.json");
        if let Err(err) = record::save(&path, &record) {
            tracing::error!(path = %path.display(), %err, "write down a container");
        }
    }

    /// Waits until the container has ended.
    pub(crate) async fn ended(&self) {
        // The sender lives in self, so waiting cannot fail.
        let _ = self
            .status
            .subscribe()
            .wait_for(|status| status.exited().is_some())
            .await;
    }
}

impl Sandbox {
    pub(crate) fn new(record: SandboxRecord, dir: PathBuf) -> Self {
        Self {
            id: record.id.clone(),
            dir,
            paused: watch::Sender::new(record.ready),
            record: Mutex::new(record),
            shim: Mutex::new(None),
            verbs: tokio::sync::Mutex::new(()),
        }
    }

    pub(crate) fn shim(&self) -> Option<ShimClient> {
        self.shim.lock().clone()
    }

    pub(crate) fn ready(&self) -> bool {
        self.record.lock().ready
    }

    /// A path that opens the pod's network namespace, which its shim lives in.
    pub(crate) fn netns(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.record.lock().shim_pid))
    }

    pub(crate) fn cgroup_parent(&self) -> String {
        self.record.lock().cgroup_parent.clone()
    }

    pub(crate) fn cgroup(&self) -> String {
        format!("{}/{}", self.cgroup_parent(), self.id)
    }

    pub(crate) fn save(&self) {
        let record = self.record.lock().clone();
        let path = self.dir.join("sandbox.json");
        if let Err(err) = record::save(&path, &record) {
            tracing::error!(path = %path.display(), %err, "write down a sandbox");
        }
    }
}

impl Inner {
    pub(crate) fn new(config: &Config, images: Images, network: Arc<dyn PodNetwork>, lock: Flock<File>) -> Arc<Self> {
        let layout = Layout::new(&config.data_dir, &config.run_dir);
        Arc::new(Self {
            zygote: Zygote::new(config, &layout),
            layout,
            network,
            images,
            host: host::read(),
            app_armor: Arc::new(AppArmor::look()),
            sandboxes: RwLock::default(),
            containers: RwLock::default(),
            events: broadcast::Sender::new(EVENTS),
            streaming: OnceLock::new(),
            _lock: lock,
        })
    }

    pub(crate) fn sandbox(&self, id: &str) -> Option<Arc<Sandbox>> {
        self.sandboxes.read().get(id).cloned()
    }

    pub(crate) fn container(&self, id: &str) -> Option<Arc<Container>> {
        self.containers.read().get(id).cloned()
    }

    /// The containers of a sandbox, in the order of their creation.
    pub(crate) fn containers_of(&self, sandbox: &str) -> Vec<Arc<Container>> {
        let mut found: Vec<_> = self
            .containers
            .read()
            .values()
            .filter(|container| container.sandbox.id == sandbox)
            .cloned()
            .collect();
        found.sort_by_key(|container| container.record.created_at);
        found
    }

    /// Connects to a sandbox's shim and listens to it.
    pub(crate) fn connect(self: &Arc<Self>, sandbox: &Sandbox) -> Result<ShimClient, crate::client::ShimError> {
        let runtime = Arc::downgrade(self);
        let id = sandbox.id.clone();
        let client = ShimClient::connect(&sandbox.dir, move |news| {
            if let Some(runtime) = Weak::upgrade(&runtime) {
                runtime.news(&id, news);
            }
        })?;
        *sandbox.shim.lock() = Some(client.clone());
        Ok(client)
    }

    fn news(&self, sandbox: &str, news: News) {
        let Some(sandbox) = self.sandbox(sandbox) else {
            // It is being made or being removed, by someone who looks for himself.
            return;
        };
        match news {
            News::Exited { id, .. } if id == sandbox.id => self.pause_ended(&sandbox),
            News::Exited { id, exit } => {
                if let Some(container) = self.container(&id) {
                    self.container_ended(&container, exit);
                }
            }
            News::Gone => self.shim_gone(&sandbox),
        }
    }

    pub(crate) fn container_ended(&self, container: &Container, exit: Exit) {
        let started_at = match &*container.status.borrow() {
            Status::Running { started_at, .. } => *started_at,
            _ => 0,
        };
        if container.set_status(Status::ended(started_at, exit)) {
            self.announce(container, ContainerEventType::ContainerStoppedEvent);
        }
    }

    pub(crate) fn pause_ended(&self, sandbox: &Sandbox) {
        sandbox.record.lock().ready = false;
        sandbox.save();
        if sandbox.paused.send_replace(false) {
            self.announce_sandbox(sandbox, ContainerEventType::ContainerStoppedEvent);
        }
    }

    /// Without its shim nothing of a pod can be followed any more: it is ended.
    pub(crate) fn shim_gone(&self, sandbox: &Sandbox) {
        *sandbox.shim.lock() = None;
        let containers = self.containers_of(&sandbox.id);
        for cgroup in containers
            .iter()
            .map(|container| container.cgroup())
            .chain([sandbox.cgroup()])
        {
            for pid in host::cgroup_processes(Path::new(&cgroup)) {
                // SAFETY: sending a signal touches no memory of this process.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
        }
        for container in containers {
            let status = container.status.borrow().clone();
            if let Status::Running { started_at, .. } = status {
                let ended = Ended {
                    started_at,
                    finished_at: now(),
                    code: 255,
                    reason: "Unknown".into(),
                    message: "the pod's shim has gone".into(),
                };
                if container.set_status(Status::Exited(ended)) {
                    self.announce(&container, ContainerEventType::ContainerStoppedEvent);
                }
            }
        }
        self.pause_ended(sandbox);
    }

    pub(crate) fn announce(&self, container: &Container, kind: ContainerEventType) {
        self.send(&container.id, &container.sandbox, kind);
    }

    pub(crate) fn announce_sandbox(&self, sandbox: &Sandbox, kind: ContainerEventType) {
        self.send(&sandbox.id, sandbox, kind);
    }

    fn send(&self, id: &str, sandbox: &Sandbox, kind: ContainerEventType) {
        if self.events.receiver_count() == 0 {
            return;
        }
        let containers = self.containers_of(&sandbox.id);
        // Nobody listening any more is no failure.
        let _ = self.events.send(ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: kind.into(),
            created_at: now(),
            pod_sandbox_status: Some(crate::sandbox::status(sandbox)),
            containers_statuses: containers
                .iter()
                .map(|container| crate::container::status(container))
                .collect(),
        });
    }
}

/// Nanoseconds since the epoch.
pub(crate) fn now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

/// A name that no other sandbox or container has.
pub(crate) fn new_id() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}
