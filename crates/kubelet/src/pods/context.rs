//! What every worker of a node shares.

use std::sync::Arc;

use client::{Client, Events, Informer, Informers};
use cri::RuntimeService;
use cri::v1::DnsConfig;
use k8s_openapi::api::core::v1::Service;

use crate::cgroup::Cgroups;
use crate::config::Config;
use crate::field::Capacity;
use crate::image::Images;
use crate::pods::ledger::Ledger;

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
    /// Images.
    pub images: Images,
    /// Events in the kubelet's name.
    pub events: Events,
    /// Services, for the environment of containers.
    pub services: Informer<Service>,
    /// The cgroups of pods.
    pub cgroups: Cgroups,
    /// What the node can give.
    pub capacity: Capacity,
    /// Who holds how much of it.
    pub ledger: Ledger,
    /// The node's addresses.
    pub host_ips: Vec<String>,
    /// The node's own resolv.conf.
    pub node_dns: DnsConfig,
}
