//! What the server is told at start.

use std::net::IpAddr;

use crate::{Identity, pki::Pki};

/// A bearer token that never changes, and who it stands for.
#[derive(Clone)]
pub struct StaticToken {
    /// The token as clients send it.
    pub token: String,
    /// The user whom it stands for.
    pub identity: Identity,
}

impl std::fmt::Debug for StaticToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The token stays out of every log.
        f.debug_struct("StaticToken")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// What the server is told at start.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster's authority and certificates.
    pub pki: Pki,
    /// The addresses at which clients and pods reach the server; the first is the endpoint of the `kubernetes`
    /// Service.
    pub addresses: Vec<IpAddr>,
    /// The port of `serve`'s listener, for the `kubernetes` Service's endpoint.
    pub https_port: u16,
    /// The range of Service addresses, such as `10.96.0.0/12`.
    pub service_cidr: String,
    /// The address of the cluster's DNS server, which the Service `kube-dns` has, if it is in the range of Services.
    pub cluster_dns: Option<IpAddr>,
    /// The cluster's DNS domain, such as `cluster.local`.
    pub cluster_domain: String,
    /// Bearer tokens that never change.
    pub tokens: Vec<StaticToken>,
}
