//! Storage: claims are bound to volumes, both are kept while they are used, and pods get the claims that they carry along.

mod binder;
mod ephemeral;
mod protection;

use client::Informers;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

/// Runs until it is dropped.
pub async fn run(informers: &Informers) {
    tokio::join!(
        binder::run(informers),
        protection::run(informers),
        ephemeral::run(informers)
    );
}

/// `namespace/name` of a claim, as queues name it.
fn claim_key(claim: &PersistentVolumeClaim) -> Option<String> {
    let meta = &claim.metadata;
    Some(format!("{}/{}", meta.namespace.as_deref()?, meta.name.as_deref()?))
}

/// The claim that a volume is for, as queues name it.
fn claim_of(volume: &PersistentVolume) -> Option<String> {
    let claim = volume.spec.as_ref()?.claim_ref.as_ref()?;
    Some(format!("{}/{}", claim.namespace.as_deref()?, claim.name.as_deref()?))
}
