//! Puts volumes aside for the claims of a pod that has its node, and waits until they are bound.

use std::sync::Arc;
use std::time::Duration;

use api::pod;
use api::storage::{claim_phase, is_for};
use client::Informer;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

/// How long claims have to be bound, as upstream.
const PATIENCE: Duration = Duration::from_secs(600);

/// Returns when every claim has its volume.
pub(crate) async fn bind(
    client: &kube::Client,
    claims: &Informer<PersistentVolumeClaim>,
    pod: &Pod,
    volumes: &[(String, Arc<PersistentVolume>)],
) -> Result<(), kube::Error> {
    let namespace = pod::namespace(pod);
    let api = Api::<PersistentVolume>::all(client.clone());
    for (name, volume) in volumes {
        let Some(claim) = claims.get(Some(namespace), name) else {
            continue;
        };
        if is_for(volume, &claim) && claim_phase(&claim) == "Bound" {
            continue;
        }
        // As it was when it was chosen: another pod may have it by now.
        let patch = json!({
            "metadata": {"resourceVersion": volume.metadata.resource_version, "annotations": {"pv.kubernetes.io/bound-by-controller": "yes"}},
            "spec": {"claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": namespace, "name": name, "uid": claim.metadata.uid,
                "resourceVersion": claim.metadata.resource_version,
            }},
        });
        let target = volume.metadata.name.as_deref().unwrap_or_default();
        api.patch(target, &PatchParams::default(), &Patch::Merge(&patch))
            .await?;
    }
    let wanted = |claim: &PersistentVolumeClaim| {
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        volumes.iter().any(|(wanted, _)| wanted == name) && claim.metadata.namespace.as_deref() == Some(namespace)
    };
    let bound = async {
        let mut changes = claims.subscribe();
        let all = || {
            let of = |name: &String| claims.get(Some(namespace), name);
            volumes
                .iter()
                .all(|(name, _)| of(name).is_some_and(|claim| claim_phase(&claim) == "Bound"))
        };
        while !all() {
            while !wanted(changes.next().await.object()) {}
        }
    };
    // A claim that is not bound by then is tried again with the pod.
    match tokio::time::timeout(PATIENCE, bound).await {
        Ok(()) => Ok(()),
        Err(_) => Err(kube::Error::Service("timed out waiting for claims to be bound".into())),
    }
}
