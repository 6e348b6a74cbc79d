//! What can go wrong, with the link, path or address that it happened to.

use std::{io, net::IpAddr, path::PathBuf};

use crate::HostPort;

/// The outcome of an operation on the pod network.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused a change to links, addresses or routes.
    #[error("{action}: {cause}")]
    Netlink {
        /// What was being done, and to which link or address.
        action: String,
        /// What the kernel said.
        #[source]
        cause: io::Error,
    },
    /// A file could not be read or written.
    #[error("{action} {}: {cause}", path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        cause: io::Error,
    },
    /// The file of owners is not as Podium wrote it.
    #[error("{} is damaged: {cause}; remove it after this node's pods have been stopped", path.display())]
    Owners {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        cause: String,
    },
    /// The program `nft` can not be started.
    #[error("running nft: {0}; install the package nftables")]
    NoNft(#[source] io::Error),
    /// `nft` refused a change.
    #[error("{action}: {output}")]
    Nft {
        /// What was being done.
        action: &'static str,
        /// What it printed.
        output: String,
    },
    /// A range of addresses is not written as one.
    #[error("{given:?} is not a range of addresses such as 10.244.0.0/24")]
    Range {
        /// What was given.
        given: String,
    },
    /// A range of a family that pods and Services do not have yet.
    #[error("{given} is not a range of IPv4 addresses, the only ones that pods and Services get")]
    Family {
        /// What was given.
        given: String,
    },
    /// Nobody has said which addresses this node's pods have.
    #[error("the node has no podCIDR yet")]
    NoPodCidr,
    /// Every address is in use.
    #[error("no address is free in the node's podCIDR {range}: {used} are in use")]
    Exhausted {
        /// The range.
        range: String,
        /// How many owners there are.
        used: usize,
    },
    /// Another pod has the port of the node.
    #[error("host port {}/{} is taken by pod {owner}", port.host_port, port.protocol.name())]
    PortTaken {
        /// The port.
        port: HostPort,
        /// The pod that has it, with its namespace.
        owner: String,
    },
    /// A host port is bound to an address of another family than the pod has.
    #[error("host port {} is bound to {address}, but the pod has IPv4 only", port.host_port)]
    PortFamily {
        /// The port.
        port: HostPort,
        /// Its address.
        address: IpAddr,
    },
    /// The DNS server can not have its port.
    #[error(
        "listening on {address} port {port} for DNS: {cause}; another DNS server that listens on every address has it"
    )]
    Listen {
        /// The address.
        address: std::net::Ipv4Addr,
        /// The port.
        port: u16,
        /// What the kernel said.
        #[source]
        cause: io::Error,
    },
    /// The cluster's domain is no name.
    #[error("{given:?} is not a domain such as cluster.local")]
    Domain {
        /// What was given.
        given: String,
    },
    /// Several things went wrong; each was tried.
    #[error("{}", join(.0))]
    Several(Vec<Error>),
}

impl Error {
    /// Nothing, the one error, or all of them.
    pub(crate) fn all(mut errors: Vec<Error>) -> Result<()> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Error::Several(errors)),
        }
    }
}

fn join(errors: &[Error]) -> String {
    errors.iter().map(Error::to_string).collect::<Vec<_>>().join("; ")
}
