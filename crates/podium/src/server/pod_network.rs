//! Joins the runtime's door to the pod network with the network that stands behind it.

use std::net::IpAddr;

use async_trait::async_trait;
use network::Links;
use runtime::{NetworkError, PodLink, PodNetwork, Protocol};

/// The node's links, as the runtime asks for them.
pub struct Joined(pub Links);

#[async_trait]
impl PodNetwork for Joined {
    async fn set_pod_cidr(&self, cidr: &str) -> Result<(), NetworkError> {
        Ok(self.0.set_pod_cidr(cidr)?)
    }

    async fn ready(&self) -> Result<(), NetworkError> {
        Ok(self.0.ready()?)
    }

    async fn attach(&self, link: &PodLink) -> Result<Vec<IpAddr>, NetworkError> {
        let link = network::PodLink {
            sandbox_id: link.sandbox_id.clone(),
            pod_name: link.pod_name.clone(),
            pod_namespace: link.pod_namespace.clone(),
            netns: link.netns.clone(),
            host_ports: link
                .host_ports
                .iter()
                .map(|port| network::HostPort {
                    protocol: match port.protocol {
                        Protocol::Tcp => network::Protocol::Tcp,
                        Protocol::Udp => network::Protocol::Udp,
                        Protocol::Sctp => network::Protocol::Sctp,
                    },
                    container_port: port.container_port,
                    host_port: port.host_port,
                    host_ip: port.host_ip,
                })
                .collect(),
        };
        Ok(self.0.attach(&link).await?)
    }

    async fn detach(&self, sandbox_id: &str) -> Result<(), NetworkError> {
        Ok(self.0.detach(sandbox_id).await?)
    }

    async fn reconcile(&self, live: &[String]) -> Result<(), NetworkError> {
        Ok(self.0.reconcile(live).await?)
    }
}
