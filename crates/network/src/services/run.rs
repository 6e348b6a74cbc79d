//! The thin loop: what changes is gathered and carried out, without waiting for more.

use std::{collections::HashSet, time::Duration};

use client::Informers;
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use tracing::{info, warn};

use super::{Proxy, frontends::health_check, health::Checks};
use crate::picture::{Name, Observed, Picture};

/// How long a failure is left alone.
const AGAIN: Duration = Duration::from_secs(1);

/// Carries out Services until it is dropped.
pub async fn run(proxy: Proxy, informers: &Informers) {
    let services = informers.all::<Service>();
    let slices = informers.all::<EndpointSlice>();
    services.synced().await;
    slices.synced().await;
    let (mut service_changes, mut slice_changes) = (services.subscribe(), slices.subscribe());
    let mut observed = Picture::default();
    let mut checks = Checks::default();
    let node = proxy.node.clone();
    let mut proxy = Some(proxy);
    // The first update is made even if there is nothing: it is what turns away packets to nobody.
    let mut waiting = false;
    loop {
        let mut dirty = HashSet::new();
        if waiting {
            tokio::select! {
                change = service_changes.next() => dirty.extend(observed.service(change)),
                change = slice_changes.next() => dirty.extend(observed.slice(change)),
            }
        }
        // A Service and its slices come by two ways: what is there of both goes into one transaction.
        while let Some(change) = service_changes.try_next() {
            dirty.extend(observed.service(change));
        }
        while let Some(change) = slice_changes.try_next() {
            dirty.extend(observed.slice(change));
        }
        waiting = true;
        let changed: Vec<(Name, Option<Observed>)> = dirty
            .into_iter()
            .map(|name| (name.clone(), observed.get(&name)))
            .collect();
        for (name, observed) in &changed {
            let wanted = observed.as_ref().and_then(|observed| health_check(observed, &node));
            checks.set(name, wanted).await;
        }
        let Some(mut working) = proxy.take() else { return };
        let worked = tokio::task::spawn_blocking(move || {
            let outcome = working.update(changed.iter().map(|(name, observed)| (name, observed.clone())));
            (working, outcome)
        });
        let Ok((working, outcome)) = worked.await else { return };
        proxy = Some(working);
        match outcome {
            Ok(taken) => {
                for (name, owner) in taken {
                    info!(service = %name, %owner, "an address and port of this Service are another's");
                }
            }
            Err(error) => {
                warn!(%error, "the rules of Services will be made anew");
                tokio::time::sleep(AGAIN).await;
                waiting = false;
            }
        }
    }
}
