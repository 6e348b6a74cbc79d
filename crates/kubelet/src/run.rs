//! Puts the kubelet together.

use std::fs::Permissions;
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use client::{Client, Events, Informers, Selection};
use cri::{ImageService, RuntimeService};
use k8s_openapi::api::core::v1::{Pod, Service};
use tokio::sync::{OnceCell, watch};

use crate::cgroup::Cgroups;
use crate::config::Config;
use crate::cri_config::dns;
use crate::eviction::Evictor;
use crate::image::Images;
use crate::image_access::Records;
use crate::image_gc::ImageCollector;
use crate::log_rotation;
use crate::metrics::Metrics;
use crate::node::{self, facts};
use crate::pods::admission::Kernel;
use crate::pods::ledger::{Amount, Ledger};
use crate::pods::users::Ranges;
use crate::pods::{Context, Pods};
use crate::reports::Reports;
use crate::server::NodeReports;
use crate::shutdown;
use crate::static_pods::StaticPods;
use crate::stats::Stats;

const CGROUPS: &str = "/sys/fs/cgroup";

/// Why a kubelet cannot run here.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A directory of its own could not be made.
    #[error("create {}: {source}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// What the node is could not be found out.
    #[error(transparent)]
    Facts(#[from] facts::FactsError),
    /// The configuration contradicts itself.
    #[error("kubelet configuration: {0}")]
    Configuration(String),
}

/// A kubelet that is put together and not yet at work. Its pods can be asked about from the start.
pub struct Kubelet {
    config: Config,
    client: Client,
    informers: Informers,
    runtime: Arc<dyn RuntimeService>,
    images: Arc<dyn ImageService>,
    events: Events,
    machine: facts::Machine,
    pods: Pods,
    static_pods: StaticPods,
    context: Arc<Context>,
    stats: Arc<Stats>,
    collector: Arc<ImageCollector>,
    evictor: Evictor,
    log_size: u64,
}

impl Kubelet {
    /// Looks at the machine and puts the parts together. Needs a tokio runtime.
    pub fn new(
        config: Config,
        client: Client,
        runtime: Arc<dyn RuntimeService>,
        images: Arc<dyn ImageService>,
    ) -> Result<Self, RunError> {
        for path in [config.root_dir.join("pods"), config.pod_logs_dir.clone()] {
            std::fs::create_dir_all(&path).map_err(|source| RunError::Directory { path, source })?;
        }
        // Volumes hold secrets: nobody else on the machine has business there.
        std::fs::set_permissions(&config.root_dir, Permissions::from_mode(0o750)).map_err(|source| {
            RunError::Directory {
                path: config.root_dir.clone(),
                source,
            }
        })?;
        let thresholds = config.configuration.thresholds().map_err(RunError::Configuration)?;
        let log_size = config.configuration.log_size().map_err(RunError::Configuration)?;
        let reserved = config.configuration.reserved().map_err(RunError::Configuration)?;
        let machine = facts::Machine::look(&config.root_dir, &thresholds, reserved)?;
        let informers = Informers::new(client.clone());
        let events = Events::new(client.clone(), "kubelet", Some(&config.node_name));
        let pids_limit = Some(config.configuration.pod_pids_limit).filter(|limit| *limit > 0);
        let [_, allocatable] = machine.resources(config.configuration.max_pods);
        let context = Arc::new(Context {
            client: client.clone(),
            informers: informers.clone(),
            runtime: runtime.clone(),
            named: OnceCell::new(),
            images: Images::new(images.clone(), Records::at(config.root_dir.join("image_manager"))),
            events: events.clone(),
            services: informers.all::<Service>(),
            node: node::informer(&informers, &config),
            registers: node::registers(&config, &machine),
            cgroups: Cgroups::at(Path::new(CGROUPS), pids_limit, machine.limits()),
            capacity: machine.allocatable(),
            memory_capacity: machine.memory,
            ledger: Ledger::new(Amount::listed(&allocatable)),
            users: Ranges::default(),
            host_ips: config.node_ips.iter().map(ToString::to_string).collect(),
            // A node without one resolves nothing, and so do its pods.
            node_dns: dns::parse(&std::fs::read_to_string(&config.configuration.resolv_conf).unwrap_or_default()),
            kernel: Kernel::look(),
            config: config.clone(),
            state: watch::Sender::default(),
            metrics: Arc::new(Metrics::default()),
        });
        let pods = Pods::new(context.clone());
        let static_pods = StaticPods::new(context.clone(), pods.clone());
        let stats = Arc::new(Stats::new(
            config.clone(),
            runtime.clone(),
            images.clone(),
            pods.clone(),
        ));
        let collector = ImageCollector::new(context.clone(), images.clone(), pods.clone(), stats.clone());
        let collector = Arc::new(collector);
        let evictor = Evictor {
            context: context.clone(),
            pods: pods.clone(),
            stats: stats.clone(),
            images: collector.clone(),
            thresholds,
        };
        Ok(Self {
            config,
            client,
            informers,
            runtime,
            images,
            events,
            machine,
            pods,
            static_pods,
            context,
            stats,
            collector,
            evictor,
            log_size,
        })
    }

    /// The pods of the node, for its HTTPS port.
    pub fn pods(&self) -> Pods {
        self.pods.clone()
    }

    /// What the node's HTTPS port tells of the node.
    pub fn reports(&self) -> Arc<dyn NodeReports> {
        Arc::new(Reports {
            context: self.context.clone(),
            pods: self.pods.clone(),
            stats: self.stats.clone(),
            processors: self.machine.cpus,
        })
    }

    /// Works until `shutdown`. Containers run on: the next kubelet finds them.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let selection = Selection::fields(format!("spec.nodeName={}", self.config.node_name));
        let informer = self.informers.selected::<Pod>(selection);
        let node = node::Node {
            config: self.config,
            client: self.client,
            informers: self.informers.clone(),
            runtime: self.runtime,
            images: self.images,
            events: self.events,
            machine: self.machine,
            state: self.context.state.subscribe(),
        };
        tokio::select! {
            () = shutdown => {}
            () = self.pods.run(informer.clone(), self.static_pods.complete()) => {}
            () = self.static_pods.run(informer) => {}
            () = node.run() => {}
            () = self.evictor.run() => {}
            () = self.collector.run() => {}
            () = log_rotation::run(self.context.clone(), self.pods.clone(), self.log_size) => {}
            () = shutdown::run(self.context, self.pods.clone()) => {}
        }
    }
}

/// Runs a node until `shutdown`.
pub async fn run(
    config: Config,
    client: Client,
    runtime: Arc<dyn RuntimeService>,
    images: Arc<dyn ImageService>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    Kubelet::new(config, client, runtime, images)?.run(shutdown).await;
    Ok(())
}
