//! The cluster's DNS server, in the node's process.
//!
//! It has the cluster DNS address as one of the node's own, on the loopback link, so a pod's question takes no
//! translation and goes to its own node. `zone` answers the cluster's names from what is watched; `forward` asks the
//! machine's resolvers for all others; `handler` puts answers together.

mod forward;
mod handler;
mod zone;

use std::{io, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use client::{Change, Informers};
use hickory_proto::rr::Name;
use hickory_server::Server;
use k8s_openapi::api::{
    core::v1::{Namespace, Service},
    discovery::v1::EndpointSlice,
};
use parking_lot::RwLock;
use tokio::net::{TcpListener, UdpSocket};

use crate::{Error, Result, addresses, netlink};
use forward::Forwarder;
use handler::Handler;
use zone::Zone;

const PORT: u16 = 53;

/// How long a connection may be without a question.
const IDLE: Duration = Duration::from_secs(10);

/// As many answers wait for a connection that does not read.
const WAITING: usize = 64;

/// What the server has to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it is asked.
    pub address: IpAddr,
    /// The cluster's domain, such as `cluster.local`.
    pub domain: String,
    /// The range of all pods of the cluster.
    pub cluster_cidr: String,
    /// The range of all Services of the cluster.
    pub service_cidr: String,
    /// The file that names the resolvers of all other names; empty: there are none.
    pub resolv_conf: PathBuf,
}

/// A server that has its address and sockets, but is not at work yet.
pub struct Dns {
    zone: Arc<RwLock<Zone>>,
    forwarder: Forwarder,
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Dns {
    /// Takes the address, in this thread's network namespace.
    pub async fn bind(settings: &Settings) -> Result<Dns> {
        let IpAddr::V4(address) = settings.address else {
            let given = settings.address.to_string();
            return Err(Error::Family { given });
        };
        let ranges = [
            addresses::range_v4(&settings.cluster_cidr)?,
            addresses::range_v4(&settings.service_cidr)?,
        ];
        let mut domain = Name::from_ascii(&settings.domain).map_err(|_| Error::Domain {
            given: settings.domain.clone(),
        })?;
        domain.set_fqdn(true);
        netlink::add_own_address(&netlink::connect()?, address).await?;
        let listening = |cause: io::Error| Error::Listen {
            address,
            port: PORT,
            cause,
        };
        Ok(Dns {
            zone: Arc::new(RwLock::new(Zone::new(domain, address, ranges))),
            forwarder: Forwarder::new(address, &settings.resolv_conf),
            udp: UdpSocket::bind((address, PORT)).await.map_err(listening)?,
            tcp: TcpListener::bind((address, PORT)).await.map_err(listening)?,
        })
    }

    /// Answers until it is dropped.
    pub async fn run(self, informers: &Informers) {
        let Dns {
            zone,
            forwarder,
            udp,
            tcp,
        } = self;
        let services = informers.all::<Service>();
        let slices = informers.all::<EndpointSlice>();
        let namespaces = informers.all::<Namespace>();
        // Who asks before all names are known waits in the socket: no answer is better than a wrong one.
        tokio::join!(services.synced(), slices.synced(), namespaces.synced());
        let (mut service_changes, mut slice_changes, mut namespace_changes) =
            (services.subscribe(), slices.subscribe(), namespaces.subscribe());
        while let Some(change) = service_changes.try_next() {
            take_service(&zone, change);
        }
        while let Some(change) = slice_changes.try_next() {
            take_slice(&zone, change);
        }
        while let Some(change) = namespace_changes.try_next() {
            take_namespace(&zone, &change);
        }
        let mut server = Server::new(Handler::new(zone.clone(), forwarder));
        server.register_socket(udp);
        server.register_listener(tcp, IDLE, WAITING);
        loop {
            tokio::select! {
                change = service_changes.next() => take_service(&zone, change),
                change = slice_changes.next() => take_slice(&zone, change),
                change = namespace_changes.next() => take_namespace(&zone, &change),
                ended = server.block_until_done() => {
                    tracing::error!(?ended, "the DNS server's sockets ended");
                    return;
                }
            }
        }
    }
}

fn take_service(zone: &RwLock<Zone>, change: Change<Service>) {
    let mut zone = zone.write();
    if let Some(name) = zone.picture().service(change) {
        zone.refresh(&name);
    }
}

fn take_slice(zone: &RwLock<Zone>, change: Change<EndpointSlice>) {
    let mut zone = zone.write();
    for name in zone.picture().slice(change) {
        zone.refresh(&name);
    }
}

fn take_namespace(zone: &RwLock<Zone>, change: &Change<Namespace>) {
    let name = change.object().metadata.name.as_deref().unwrap_or_default();
    zone.write().namespace(name, matches!(change, Change::Applied { .. }));
}
