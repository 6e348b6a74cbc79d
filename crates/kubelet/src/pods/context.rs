//! What every worker of a node shares.

use std::sync::Arc;

use client::{Client, Events, Informer, Informers};
use cri::RuntimeService;
use cri::v1::{DnsConfig, VersionRequest};
use k8s_openapi::api::core::v1::{Node, Service};
use tokio::sync::{OnceCell, watch};

use crate::cgroup::Cgroups;
use crate::config::Config;
use crate::field::Capacity;
use crate::image::Images;
use crate::metrics::Metrics;
use crate::pods::admission::Kernel;
use crate::pods::ledger::Ledger;
use crate::pods::node_state::NodeState;
use crate::pods::users::Ranges;

/// The node around the pods.
pub struct Context {
    /// The node's settings.
    pub config: Config,
    /// The way to the API.
    pub client: Client,
    /// The watches that parts share.
    pub informers: Informers,
    /// Sandboxes and containers.
    pub runtime: Arc<dyn RuntimeService>,
    /// What the runtime calls itself, once it was asked.
    pub named: OnceCell<Arc<str>>,
    /// Images.
    pub images: Images,
    /// Events in the kubelet's name.
    pub events: Events,
    /// Services, for the environment of containers.
    pub services: Informer<Service>,
    /// The node's object.
    pub node: Informer<Node>,
    /// What the kubelet registers of it.
    pub registers: Node,
    /// The cgroups of pods.
    pub cgroups: Cgroups,
    /// What the node can give.
    pub capacity: Capacity,
    /// Bytes that the machine has, given away or not.
    pub memory_capacity: i64,
    /// Who holds how much of it.
    pub ledger: Ledger,
    /// The users of pods that are not to be the node's.
    pub users: Ranges,
    /// The node's addresses.
    pub host_ips: Vec<String>,
    /// The node's own resolv.conf.
    pub node_dns: DnsConfig,
    /// What the node's kernel has for those who confine.
    pub kernel: Kernel,
    /// What the node says of itself now.
    pub state: watch::Sender<NodeState>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl Context {
    /// What the runtime calls itself.
    pub async fn runtime_name(&self) -> cri::Result<&Arc<str>> {
        let ask = async || {
            let version = self.runtime.version(VersionRequest::default()).await?;
            Ok(version.runtime_name.into())
        };
        self.named.get_or_try_init(ask).await
    }
}
