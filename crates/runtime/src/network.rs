//! The door to the pod network: what the runtime asks of whoever gives pods their links and addresses.
//!
//! The runtime makes a pod's network namespace; a [`PodNetwork`] puts a link with addresses into it and takes them
//! away again. Pods in the node's network namespace are never offered to it.

use std::net::IpAddr;
use std::path::PathBuf;

use async_trait::async_trait;

/// A failure of the pod network, in words for the person who reads the pod's events.
pub type NetworkError = Box<dyn std::error::Error + Send + Sync>;

/// Gives pods their links and addresses.
#[async_trait]
pub trait PodNetwork: Send + Sync {
    /// The range this node's pods take their addresses from, as the node object has it.
    async fn set_pod_cidr(&self, cidr: &str) -> Result<(), NetworkError>;
    /// Whether pods can get addresses now; the text of the error is the node's NetworkReady message.
    async fn ready(&self) -> Result<(), NetworkError>;
    /// Puts a link into the pod's namespace; the first address is the pod's IP.
    async fn attach(&self, link: &PodLink) -> Result<Vec<IpAddr>, NetworkError>;
    /// Takes the link, addresses and host ports of a sandbox away; succeeds when there is nothing.
    async fn detach(&self, sandbox_id: &str) -> Result<(), NetworkError>;
    /// Frees what none of the live sandboxes owns.
    async fn reconcile(&self, live: &[String]) -> Result<(), NetworkError>;
}

/// A pod that wants a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodLink {
    /// The sandbox, which owns the link and its addresses.
    pub sandbox_id: String,
    /// The pod's name.
    pub pod_name: String,
    /// The pod's namespace (of Kubernetes, not of the kernel).
    pub pod_namespace: String,
    /// A path that opens the pod's network namespace.
    pub netns: PathBuf,
    /// Ports of the node that lead to the pod.
    pub host_ports: Vec<HostPort>,
}

/// A port of the node that leads to a port of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port that the pod listens on.
    pub container_port: u16,
    /// The port on the node.
    pub host_port: u16,
    /// The node's address the port is bound to; none means all.
    pub host_ip: Option<IpAddr>,
}

/// A transport protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}
