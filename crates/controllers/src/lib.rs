//! The controllers: one module each, `reconcile(observed) -> changes` in it without I/O, and a thin loop that carries
//! the changes out.
//!
//! Each controller watches through the process's shared [`Informers`], is woken by changes that concern it, and tries
//! again with back-off when carrying out fails. Nothing here polls; what depends on time is put on the queue for then.

mod controller;
mod deployment;
mod endpoints;
mod garbage;
mod namespace;
mod node_ipam;
mod node_lifecycle;
mod owner;
mod pod_gc;
mod replica_set;
mod root_ca;
mod service_account;
mod storage;

use client::Informers;

pub use node_ipam::CidrError;

/// What the controllers are told at start.
#[derive(Clone, Debug)]
pub struct Config {
    /// The range of pods' addresses, of which each node gets a part.
    pub cluster_cidr: String,
    /// The certificate of the cluster's authority, in PEM.
    pub authority: String,
}

/// Runs every controller until it is dropped.
///
/// # Errors
/// When the cluster's address range cannot be read.
pub async fn run(config: &Config, informers: &Informers) -> Result<(), CidrError> {
    let range = node_ipam::Range::parse(&config.cluster_cidr)?;
    tokio::join!(
        node_ipam::run(range, informers),
        node_lifecycle::run(informers),
        pod_gc::run(informers),
        service_account::run(informers),
        root_ca::run(&config.authority, informers),
        namespace::run(informers),
        garbage::run(informers),
        deployment::run(informers),
        replica_set::run(informers),
        storage::run(informers),
        endpoints::run(informers),
    );
    Ok(())
}
