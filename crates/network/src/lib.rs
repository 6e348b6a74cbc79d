//! The `network` room: the pods' links and addresses on one node, host ports, masquerade, Services, DNS.
//!
//! # What a node looks like
//!
//! ```text
//!   pod                          node
//!   eth0 10.244.0.5/32  =======  pod0af40005         route 10.244.0.5/32 dev pod0af40005
//!     default via 169.254.1.1      (no address)      unreachable 10.244.0.0/16
//!     169.254.1.1 is ee:…:ee                         route 10.96.0.0/12 dev lo, 10.96.0.10 on lo
//!                                                    nftables tables inet podium, ip podium-services
//! ```
//!
//! Each pod has a veth pair and a route of its own: no bridge, so no ceiling of ports and no ARP. The pod's
//! gateway is a link-local address that nobody has; both ends know the other's hardware address for good.
//! What is in the cluster's range but not assigned is unreachable, and the Services' range leads back to the
//! machine, so neither ever leaves it by its default route.
//!
//! # Flow
//!
//! [`Links`] decides with plain values and applies them: which address is free (`addresses`), what a pod's
//! link is made of (`plan`), what the nftables table holds (`rules`). Who owns which address is written to a
//! small file in the run directory before the kernel is touched, so a crash can leak nothing: [`Links::reconcile`]
//! takes away what no live sandbox owns.
//!
//! What Podium made can be told from everything else: links by their alias, routes by their protocol number,
//! rules by their table. [`teardown`] removes it all without any file.

mod addresses;
mod apply;
pub mod check;
pub mod dns;
mod error;
mod links;
mod netlink;
mod owners;
mod picture;
mod plan;
mod rules;
pub mod services;
mod teardown;

use std::{net::IpAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

pub use error::{Error, Result};
pub use links::{Links, Settings, prepare_for_services};
pub use teardown::teardown;

/// A pod that is to be put on the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodLink {
    /// The sandbox that owns the link.
    pub sandbox_id: String,
    /// The pod's name, for people who look at the node's links.
    pub pod_name: String,
    /// The pod's namespace in the API.
    pub pod_namespace: String,
    /// A path that opens the pod's network namespace.
    pub netns: PathBuf,
    /// The node's ports that lead to the pod.
    pub host_ports: Vec<HostPort>,
}

/// A port of the node that leads to a port of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostPort {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The pod's port.
    pub container_port: u16,
    /// The node's port.
    pub host_port: u16,
    /// The node's address that it is bound to: every one when none is given, or the unspecified one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
}

impl HostPort {
    /// The one address of the node that it is bound to.
    fn bound_to(&self) -> Option<IpAddr> {
        self.host_ip.filter(|address| !address.is_unspecified())
    }

    /// Whether a packet could be for both.
    fn clashes_with(&self, other: &HostPort) -> bool {
        let addresses = match (self.bound_to(), other.bound_to()) {
            (Some(mine), Some(its)) => mine == its,
            _ => true,
        };
        (self.protocol, self.host_port) == (other.protocol, other.host_port) && addresses
    }
}

/// A transport protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// As nftables writes it.
    fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}
