//! Claims stay while pods use them, and volumes while claims have them: a finalizer each, taken off when nobody is left.

use api::kinds::storage::{CLAIM_PROTECTION, VOLUME_PROTECTION};
use api::storage::volume_phase;
use client::kube::Error;
use client::kube::api::{Api, Patch, PatchParams};
use client::{Informers, WorkQueue};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use super::claim_key;
use crate::controller;

/// The finalizers that stay when an object that was deleted is let go; none when there is nothing to do.
fn without(meta: &ObjectMeta, finalizer: &str) -> Option<Vec<String>> {
    meta.deletion_timestamp.as_ref()?;
    let finalizers = meta.finalizers.as_ref()?;
    let rest: Vec<String> = finalizers.iter().filter(|given| *given != finalizer).cloned().collect();
    (rest.len() < finalizers.len()).then_some(rest)
}

/// The claims that a pod uses, as queues name them.
pub(super) fn claims_of(pod: &Pod) -> Vec<String> {
    let namespace = api::pod::namespace(pod);
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let names = volumes.filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (None, Some(_)) => Some(format!("{}-{}", api::pod::name(pod), volume.name)),
        (None, None) => None,
    });
    names.map(|name| format!("{namespace}/{name}")).collect()
}

/// Whether a pod keeps the claims that it names: it has a node, and has not ended there.
fn keeps(pod: &Pod) -> bool {
    api::pod::node_name(pod).is_some() && !api::pod::is_terminal(pod)
}

/// Runs until it is dropped.
pub async fn run(informers: &Informers) {
    let pods = informers.all::<Pod>();
    let claims = informers.all::<PersistentVolumeClaim>();
    let volumes = informers.all::<PersistentVolume>();
    pods.synced().await;
    claims.synced().await;
    volumes.synced().await;
    // Claims have a slash, volumes have none.
    let queue = WorkQueue::<String>::default();
    let feed_pods = async {
        let mut changes = pods.subscribe();
        loop {
            let change = changes.next().await;
            let gone = matches!(change, client::Change::Deleted(_)) || !keeps(change.object());
            if gone {
                claims_of(change.object()).into_iter().for_each(|key| queue.add(key));
            }
        }
    };
    let feed_claims = controller::feed(&claims, &queue, |change| {
        let claim = change.object();
        claim
            .metadata
            .deletion_timestamp
            .as_ref()
            .and_then(|_| claim_key(claim))
    });
    let feed_volumes = controller::feed(&volumes, &queue, |change| {
        let meta = &change.object().metadata;
        meta.deletion_timestamp.as_ref().and_then(|_| meta.name.clone())
    });
    let work = controller::work("storage-protection", &queue, async |key: String| {
        let client = informers.client().clone();
        let Some((namespace, name)) = key.split_once('/') else {
            let Some(volume) = volumes.get(None, &key) else {
                return Ok(());
            };
            return match without(&volume.metadata, VOLUME_PROTECTION) {
                Some(rest) if volume_phase(&volume) != "Bound" => {
                    let_go(&Api::<PersistentVolume>::all(client), &volume.metadata, &rest).await
                }
                _ => Ok(()),
            };
        };
        let Some(claim) = claims.get(Some(namespace), name) else {
            return Ok(());
        };
        let Some(rest) = without(&claim.metadata, CLAIM_PROTECTION) else {
            return Ok(());
        };
        if pods
            .list()
            .iter()
            .any(|pod| keeps(pod) && claims_of(pod).contains(&key))
        {
            return Ok(());
        }
        let_go(
            &Api::<PersistentVolumeClaim>::namespaced(client, namespace),
            &claim.metadata,
            &rest,
        )
        .await
    });
    tokio::join!(feed_pods, feed_claims, feed_volumes, work);
}

async fn let_go<K>(api: &Api<K>, meta: &ObjectMeta, finalizers: &[String]) -> Result<(), Error>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    // As it was seen: somebody may have added another finalizer.
    let patch = json!({"metadata": {"resourceVersion": meta.resource_version, "finalizers": finalizers}});
    let name = meta.name.as_deref().unwrap_or_default();
    controller::ignore_gone(api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_deleted_is_let_go() {
        let meta = |value| serde_json::from_value::<ObjectMeta>(value).unwrap();
        let finalizers = json!(["a/b", CLAIM_PROTECTION]);
        let deleted = meta(json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": finalizers}));
        assert_eq!(without(&deleted, CLAIM_PROTECTION).unwrap(), ["a/b"]);
        assert_eq!(without(&deleted, VOLUME_PROTECTION), None);
        assert_eq!(
            without(&meta(json!({"finalizers": finalizers})), CLAIM_PROTECTION),
            None
        );
    }

    #[test]
    fn pods_name_their_claims() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"namespace": "n", "name": "p"},
            "spec": {"nodeName": "x", "containers": [], "volumes": [
                {"name": "a", "persistentVolumeClaim": {"claimName": "data"}}, {"name": "b", "ephemeral": {}}, {"name": "c", "emptyDir": {}},
            ]},
        }))
        .unwrap();
        assert_eq!(claims_of(&pod), ["n/data", "n/p-b"]);
        assert!(keeps(&pod));
    }
}
