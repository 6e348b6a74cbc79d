//! The node itself: registered, kept up to date, and heard of every ten seconds.
//!
//! The Node object is made at once; its status is written when it changes, and every five minutes at least. Between changes the heartbeat
//! is a Lease. The pod range that the controllers give the node goes to the runtime as soon as it is there, and the runtime's answer makes
//! the node Ready: nothing waits for a timer.

pub mod facts;
mod status;

use std::sync::Arc;
use std::time::Duration;

use client::EventType::{self, Normal};
use client::kube::Api;
use client::kube::api::{Patch, PatchParams, PostParams};
use client::lease::{self, Heartbeat};
use client::{Client, Events, Informer, Informers, Selection};
use cri::v1::{
    ListImagesRequest, NetworkConfig, RuntimeConfig, StatusRequest, UpdateRuntimeConfigRequest, VersionRequest,
};
use cri::{ImageService, RuntimeService};
use k8s_openapi::api::core::v1::{self as core, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::config::Config;
use crate::pods::node_state::NodeState;

/// The version of Kubernetes that this kubelet is.
pub const VERSION: &str = "v1.36.0";

const LEASES: &str = "kube-node-lease";
const LEASE_DURATION: Duration = Duration::from_secs(40);
const LEASE_EVERY: Duration = Duration::from_secs(10);
/// How often the runtime is asked whether it is well, while all is.
const LOOK: Duration = Duration::from_secs(10);
/// How often, while something is not.
const LOOK_SOON: Duration = Duration::from_secs(1);
/// A status that does not change is written so often.
const REPORT: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_millis(200);

/// How events refer to a node: by the name, which outlives the object.
pub(crate) fn reference(node_name: &str) -> ObjectReference {
    ObjectReference {
        kind: Some("Node".into()),
        uid: Some(node_name.into()),
        name: Some(node_name.into()),
        ..Default::default()
    }
}

/// The node's object as its kubelet makes it.
pub(crate) fn registers(config: &Config, machine: &facts::Machine) -> core::Node {
    let name = &config.node_name;
    core::Node {
        metadata: client::kube::core::ObjectMeta {
            name: Some(name.clone()),
            labels: Some(status::labels(name, &machine.info.architecture)),
            ..Default::default()
        },
        ..Default::default()
    }
}

/// The node's object as the API server has it.
pub(crate) fn informer(informers: &Informers, config: &Config) -> Informer<core::Node> {
    informers.selected(Selection::fields(format!("metadata.name={}", config.node_name)))
}

/// The node of this kubelet.
pub(crate) struct Node {
    pub config: Config,
    pub client: Client,
    pub informers: Informers,
    pub runtime: Arc<dyn RuntimeService>,
    pub images: Arc<dyn ImageService>,
    pub events: Events,
    pub machine: facts::Machine,
    pub state: watch::Receiver<NodeState>,
}

impl Node {
    /// Registers the node and keeps it, until the future is dropped.
    pub async fn run(mut self) {
        self.tell(Normal, "Starting", "Starting kubelet.");
        self.ask_version().await;
        self.register().await;
        let heartbeat = Heartbeat {
            namespace: LEASES.into(),
            name: self.config.node_name.clone(),
            holder: self.config.node_name.clone(),
            duration: LEASE_DURATION,
            every: LEASE_EVERY,
        };
        let beat = lease::keep(self.client.clone(), heartbeat, || self.owner());
        tokio::join!(beat, self.keep_status());
    }

    /// The Node object as it is now, as the owner of the Lease: another one than before when somebody deleted that.
    async fn owner(&self) -> Option<OwnerReference> {
        let api = Api::<core::Node>::all(self.client.clone());
        let node = api.get_opt(&self.config.node_name).await.ok().flatten()?;
        Some(OwnerReference {
            api_version: "v1".into(),
            kind: "Node".into(),
            name: self.config.node_name.clone(),
            uid: node.metadata.uid?,
            ..Default::default()
        })
    }

    fn tell(&self, kind: EventType, reason: &str, message: impl Into<String>) {
        self.events
            .record(&reference(&self.config.node_name), kind, reason, message);
    }

    async fn ask_version(&mut self) {
        loop {
            match self.runtime.version(VersionRequest::default()).await {
                Ok(version) => {
                    self.machine.info.container_runtime_version =
                        format!("{}://{}", version.runtime_name, version.runtime_version);
                    return;
                }
                Err(error) => {
                    warn!(%error, "the container runtime does not answer");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Makes the Node object, or finds it.
    async fn register(&self) {
        loop {
            match self.try_register().await {
                Ok(_) => return,
                Err(error) => {
                    warn!(%error, "the node is not registered yet");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn try_register(&self) -> Result<core::Node, client::kube::Error> {
        let api = Api::<core::Node>::all(self.client.clone());
        let name = &self.config.node_name;
        let fresh = registers(&self.config, &self.machine);
        match api.create(&PostParams::default(), &fresh).await {
            Ok(node) => {
                info!(node = %name, "registered");
                Ok(node)
            }
            Err(client::kube::Error::Api(refusal)) if refusal.code == 409 => {
                api.patch(
                    name,
                    &PatchParams::default(),
                    &Patch::Strategic(json!({"metadata": {"labels": fresh.metadata.labels}})),
                )
                .await
            }
            Err(error) => Err(error),
        }
    }

    async fn keep_status(&self) {
        let informer = informer(&self.informers, &self.config);
        let mut changes = informer.subscribe();
        informer.synced().await;
        let mut pod_cidr = String::new();
        let mut unschedulable = false;
        let mut reported: Option<(Instant, core::NodeStatus)> = None;
        let mut state = self.state.clone();
        loop {
            let node = informer.get(None, &self.config.node_name);
            if node.is_none() {
                // Somebody deleted it: a new one has to say everything.
                reported = None;
            }
            let wanted = node
                .as_ref()
                .and_then(|node| node.spec.as_ref()?.pod_cidr.clone())
                .unwrap_or_default();
            // A node that was deleted, and one that has no range yet, keeps what its pods have.
            if !wanted.is_empty() && wanted != pod_cidr && self.set_pod_cidr(&wanted).await {
                pod_cidr = wanted;
            }
            let cordoned = node
                .as_ref()
                .and_then(|node| node.spec.as_ref()?.unschedulable)
                .unwrap_or(unschedulable && node.is_none());
            if cordoned != unschedulable {
                unschedulable = cordoned;
                let (reason, message) = status::schedulable_news(cordoned, &self.config.node_name);
                self.tell(Normal, reason, message);
            }
            let now = jiff::Timestamp::now();
            let known = reported
                .as_ref()
                .map(|(_, status)| status.clone())
                .or_else(|| node.as_ref()?.status.clone())
                .unwrap_or_default();
            let runtime = self.runtime.status(StatusRequest { verbose: false }).await;
            let images = self
                .images
                .list_images(ListImagesRequest { filter: None })
                .await
                .map(|images| images.images)
                .unwrap_or_default();
            let own = state.borrow_and_update().clone();
            let status = status::status(&known, &self.config, &self.machine, &own, &runtime, images, now);
            let due = reported
                .as_ref()
                .is_none_or(|(at, status_)| at.elapsed() >= REPORT || status::differs(status_, &status));
            let ready = status::is_ready(&status);
            if due && self.report(&status).await {
                for (reason, message) in status::news(
                    reported.as_ref().map(|(_, status)| status),
                    &status,
                    &self.config.node_name,
                ) {
                    self.tell(Normal, &reason, message);
                }
                reported = Some((Instant::now(), status));
            }
            let wait = if ready && reported.is_some() { LOOK } else { LOOK_SOON };
            // Whatever changed of the node, all of it is looked at again.
            tokio::select! {
                _ = changes.next() => while changes.try_next().is_some() {},
                _ = state.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn set_pod_cidr(&self, cidr: &str) -> bool {
        let network_config = Some(NetworkConfig {
            pod_cidr: cidr.to_owned(),
        });
        let request = UpdateRuntimeConfigRequest {
            runtime_config: Some(RuntimeConfig { network_config }),
        };
        match self.runtime.update_runtime_config(request).await {
            Ok(_) => {
                info!(cidr, "the node has its pod range");
                true
            }
            Err(error) => {
                warn!(cidr, %error, "the runtime does not take the pod range");
                false
            }
        }
    }

    async fn report(&self, status: &core::NodeStatus) -> bool {
        let api = Api::<core::Node>::all(self.client.clone());
        let patch = json!({"status": status::patch(status)});
        match api
            .patch_status(
                &self.config.node_name,
                &PatchParams::default(),
                &Patch::Strategic(patch),
            )
            .await
        {
            Ok(_) => true,
            Err(client::kube::Error::Api(refusal)) if refusal.code == 404 => {
                // Somebody deleted the node while its kubelet runs.
                self.register().await;
                false
            }
            Err(error) => {
                warn!(%error, "the node's status is not written");
                false
            }
        }
    }
}
