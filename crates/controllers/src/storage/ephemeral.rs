//! Claims that pods carry along: made when the pod comes, owned by it, and so gone after it.

use client::EventType::Warning;
use client::kube::api::{Api, PostParams};
use client::{Events, Informers, WorkQueue};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::controller;

/// The claim for a volume of a pod; none when the volume carries none.
fn claim(pod: &Pod, volume: &Volume) -> Option<PersistentVolumeClaim> {
    let template = volume.ephemeral.as_ref()?.volume_claim_template.as_ref()?;
    let given = template.metadata.clone().unwrap_or_default();
    Some(PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(format!("{}-{}", api::pod::name(pod), volume.name)),
            namespace: pod.metadata.namespace.clone(),
            labels: given.labels,
            annotations: given.annotations,
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".into(),
                kind: "Pod".into(),
                name: api::pod::name(pod).to_owned(),
                uid: api::pod::uid(pod).to_owned(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..Default::default()
        },
        spec: Some(template.spec.clone()),
        status: None,
    })
}

/// Whether a claim was made for this pod.
fn is_of(claim: &PersistentVolumeClaim, pod: &Pod) -> bool {
    let owners = claim.metadata.owner_references.iter().flatten();
    owners
        .into_iter()
        .any(|owner| owner.controller == Some(true) && owner.uid == api::pod::uid(pod))
}

/// Runs until it is dropped.
pub async fn run(informers: &Informers) {
    let pods = informers.all::<Pod>();
    let claims = informers.all::<PersistentVolumeClaim>();
    pods.synced().await;
    claims.synced().await;
    let events = Events::new(informers.client().clone(), "ephemeral_volume", None);
    let queue = WorkQueue::<String>::default();
    let carries = |pod: &Pod| {
        let mut volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        volumes.any(|volume| volume.ephemeral.is_some())
    };
    let key = |pod: &Pod| format!("{}/{}", api::pod::namespace(pod), api::pod::name(pod));
    let feed_pods = controller::feed(&pods, &queue, |change| match change {
        client::Change::Applied { object, .. } if carries(object) => Some(key(object)),
        _ => None,
    });
    // A claim that was in the way, or was deleted, is made anew.
    let feed_claims = controller::feed(&claims, &queue, |change| match change {
        client::Change::Deleted(claim) => {
            let namespace = claim.metadata.namespace.clone()?;
            let owner = claim
                .metadata
                .owner_references
                .iter()
                .flatten()
                .find(|owner| owner.kind == "Pod")?;
            Some(format!("{namespace}/{}", owner.name))
        }
        _ => None,
    });
    let work = controller::work("ephemeral-volume", &queue, async |key: String| {
        let Some((namespace, name)) = key.split_once('/') else {
            return Ok(());
        };
        let Some(pod) = pods.get(Some(namespace), name) else {
            return Ok(());
        };
        if api::pod::is_deleting(&pod) || api::pod::is_terminal(&pod) {
            return Ok(());
        }
        let api = Api::<PersistentVolumeClaim>::namespaced(informers.client().clone(), namespace);
        for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
            let Some(claim) = claim(&pod, volume) else { continue };
            let name = claim.metadata.name.clone().unwrap_or_default();
            match claims.get(Some(namespace), &name) {
                Some(there) if is_of(&there, &pod) => {}
                Some(_) => {
                    let message =
                        format!("PVC \"{namespace}/{name}\" was not created for pod \"{key}\" (pod is not owner)");
                    let about = client::events::reference(&*pod);
                    events.record(
                        &about,
                        Warning,
                        "FailedBinding",
                        format!("ephemeral volume {}: {message}", volume.name),
                    );
                }
                None => match api.create(&PostParams::default(), &claim).await {
                    // Made meanwhile: the watch brings it.
                    Err(error) if controller::is_conflict(&error) => {}
                    created => drop(created?),
                },
            }
        }
        Ok(())
    });
    tokio::join!(feed_pods, feed_claims, work);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_is_its_pods() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"namespace": "n", "name": "p", "uid": "u"},
            "spec": {"containers": [], "volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate": {
                "metadata": {"labels": {"a": "b"}}, "spec": {"accessModes": ["ReadWriteOnce"]},
            }}}]},
        }))
        .unwrap();
        let made = claim(&pod, &pod.spec.as_ref().unwrap().volumes.as_ref().unwrap()[0]).unwrap();
        assert_eq!(made.metadata.name.as_deref(), Some("p-v"));
        assert_eq!(made.metadata.labels.as_ref().unwrap()["a"], "b");
        assert!(is_of(&made, &pod));
        assert!(!is_of(&PersistentVolumeClaim::default(), &pod));
    }
}
