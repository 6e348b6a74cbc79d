//! The node's HTTPS port (10250): what the API server asks of a node.
//!
//! ```text
//! TLS ──▶ who (certificate, token) ──▶ may they ──▶ route ──┬─▶ /healthz, /pods, /configz, /stats/summary, /metrics …
//!                                                           ├─▶ /containerLogs: log files of containers; /logs: the node's own
//!                                                           └─▶ /exec, /attach, /portForward: bytes to and from the
//!                                                               address that the container runtime answers
//! ```
//!
//! Every request carries a client certificate of the cluster's CA or a bearer token; the API server says who may what ([`access`]).

mod access;
mod listen;
mod logs;
mod node_logs;
mod proxy;
mod query;
mod respond;
mod route;
mod session;

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;

use crate::configuration::KubeletConfiguration;

pub use access::Access;
pub use listen::{Server, ServerConfig, ServerError};

/// What the server asks of the kubelet proper.
pub trait PodLookup: Send + Sync + 'static {
    /// All pods of this node, each with the status that the kubelet knows now.
    fn pods(&self) -> Vec<Arc<Pod>>;

    /// One pod with the status that the kubelet knows now.
    fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>>;

    /// The sandbox of a pod that is running now.
    fn sandbox_id(&self, pod_uid: &str) -> Option<String>;

    /// The newest container of that name in a pod, as the runtime knows it (without `podium://`).
    fn container_id(&self, pod_uid: &str, container: &str) -> Option<String>;

    /// Resolves once this container no longer runs and its log is written, at once if it does not run now.
    fn ended(&self, container_id: &str) -> BoxFuture<'static, ()>;
}

/// Which metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// The kubelet's own.
    Kubelet,
    /// Those of containers, as cAdvisor tells them.
    Containers,
    /// CPU and memory, for autoscalers.
    Resources,
    /// Those of probes.
    Probes,
}

/// What the server asks about the node.
#[async_trait]
pub trait NodeReports: Send + Sync + 'static {
    /// The KubeletConfiguration in force.
    fn configuration(&self) -> &KubeletConfiguration;

    /// The pods that the runtime runs, with no more than what it knows of them.
    fn running_pods(&self) -> Vec<Pod>;

    /// `/stats/summary`.
    async fn summary(&self, only_cpu_and_memory: bool) -> Result<serde_json::Value, String>;

    /// Metrics in Prometheus' text format.
    async fn metrics(&self, report: Report) -> Result<String, String>;
}
