//! Binds claims to volumes that are there: the volume first, then the claim, so that two never have one volume.
//!
//! Nothing is provisioned here. A claim whose class waits for its first consumer is bound when the scheduler has put a volume aside for it,
//! or when a volume names it.

use api::storage::{best, claim_phase, is_for, suits, volume_phase};
use client::EventType::{Normal, Warning};
use client::kube::Error;
use client::kube::api::{Api, Patch, PatchParams};
use client::{Change, Events, Informers, WorkQueue};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};

use super::{claim_key, claim_of};
use crate::controller;

const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// What is to be done for a claim.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Nothing, for now.
    Wait,
    /// Nothing, and this is said.
    Say(client::EventType, &'static str, String),
    /// The volume of that name becomes the claim's.
    TakeVolume(String),
    /// The claim says that it has the volume of that name, and what the volume is.
    Complete(String),
    /// Its volume is gone.
    Lose,
}

/// Decides for one claim.
pub fn step(
    claim: &PersistentVolumeClaim,
    volumes: &[impl AsRef<PersistentVolume>],
    class: Option<&StorageClass>,
) -> Step {
    let spec = claim.spec.clone().unwrap_or_default();
    let chosen = spec.volume_name.as_deref().filter(|name| !name.is_empty());
    let by_name = |name: &str| {
        let mut all = volumes.iter().map(AsRef::as_ref);
        all.find(|volume| volume.metadata.name.as_deref() == Some(name))
    };
    let annotations = claim.metadata.annotations.as_ref();
    let completed = annotations.is_some_and(|all| all.contains_key(BIND_COMPLETED));
    let name_of = |volume: &PersistentVolume| volume.metadata.name.clone().unwrap_or_default();
    if let Some(name) = chosen {
        return match by_name(name) {
            None if completed && claim_phase(claim) != "Lost" => Step::Lose,
            None => Step::Wait,
            Some(volume) if is_bound_to(volume, claim) => match completed && claim_phase(claim) == "Bound" {
                true => Step::Wait,
                false => Step::Complete(name.to_owned()),
            },
            Some(_) if completed => match claim_phase(claim) {
                "Lost" => Step::Wait,
                _ => Step::Lose,
            },
            Some(volume) => {
                let taken = volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_some());
                match is_for(volume, claim) || !taken {
                    true => Step::TakeVolume(name.to_owned()),
                    false => {
                        let message = format!("volume {name:?} already bound to a different claim.");
                        Step::Say(Warning, "FailedBinding", message)
                    }
                }
            }
        };
    }
    let waits = class.is_some_and(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
    let mut candidates = volumes.iter().map(AsRef::as_ref);
    if waits {
        return match candidates.find(|volume| is_for(volume, claim) && suits(volume, claim)) {
            Some(volume) if is_bound_to(volume, claim) => Step::Complete(name_of(volume)),
            Some(volume) => Step::TakeVolume(name_of(volume)),
            None => Step::Say(
                Normal,
                "WaitForFirstConsumer",
                "waiting for first consumer to be created before binding".into(),
            ),
        };
    }
    match best(volumes.iter().map(AsRef::as_ref), claim) {
        Some(volume) if is_bound_to(volume, claim) => Step::Complete(name_of(volume)),
        Some(volume) => Step::TakeVolume(name_of(volume)),
        None => unbound(spec.storage_class_name.as_deref().unwrap_or_default(), class),
    }
}

/// Whether the volume is this very claim's.
fn is_bound_to(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    is_for(volume, claim) && reference.is_some_and(|reference| reference.uid == claim.metadata.uid)
}

fn unbound(name: &str, class: Option<&StorageClass>) -> Step {
    match class {
        _ if name.is_empty() => Step::Say(
            Normal,
            "FailedBinding",
            "no persistent volumes available for this claim and no storage class is set".into(),
        ),
        None => Step::Say(
            Warning,
            "ProvisioningFailed",
            format!("storageclass.storage.k8s.io {name:?} not found"),
        ),
        Some(class) if class.provisioner == NO_PROVISIONER => Step::Say(
            Normal,
            "FailedBinding",
            "no persistent volumes available for this claim and no storage class is set".into(),
        ),
        Some(class) => Step::Say(
            Normal,
            "ExternalProvisioning",
            format!(
                "Waiting for a volume to be created either by the external provisioner '{}' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered.",
                class.provisioner
            ),
        ),
    }
}

/// What a volume's phase should be, with the reason of a failure; `claim` is the one that it names, if that is there.
pub fn phase(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> (&'static str, Option<String>) {
    let spec = volume.spec.clone().unwrap_or_default();
    let Some(reference) = &spec.claim_ref else {
        return ("Available", None);
    };
    if reference.uid.as_deref().unwrap_or_default().is_empty() {
        return ("Available", None);
    }
    if claim.is_some_and(|claim| claim.metadata.uid == reference.uid) {
        return ("Bound", None);
    }
    match spec.persistent_volume_reclaim_policy.as_deref() {
        Some("Delete") => {
            let name = volume.metadata.name.as_deref().unwrap_or_default();
            let message = format!("error getting deleter volume plugin for volume {name:?}: no volume plugin matched");
            ("Failed", Some(message))
        }
        Some("Recycle") => ("Failed", Some("No recycler plugin found for the volume!".into())),
        _ => ("Released", None),
    }
}

/// A key of the queue: claims have a slash, volumes have none.
pub async fn run(informers: &Informers) {
    let volumes = informers.all::<PersistentVolume>();
    let claims = informers.all::<PersistentVolumeClaim>();
    let classes = informers.all::<StorageClass>();
    volumes.synced().await;
    claims.synced().await;
    classes.synced().await;
    let events = Events::new(informers.client().clone(), "persistentvolume-controller", None);
    let queue = WorkQueue::<String>::default();
    let all_unbound = || {
        for claim in claims.list() {
            if claim_phase(&claim) != "Bound" {
                claim_key(&claim).into_iter().for_each(|key| queue.add(key));
            }
        }
    };
    let feed_claims = async {
        let mut changes = claims.subscribe();
        loop {
            let change = changes.next().await;
            claim_key(change.object()).into_iter().for_each(|key| queue.add(key));
            let spec = change.object().spec.as_ref();
            let mut concerned: Vec<String> = spec.and_then(|spec| spec.volume_name.clone()).into_iter().collect();
            if let Change::Deleted(claim) = &change {
                let of_it = claim_key(claim);
                let theirs = volumes.list().into_iter().filter(|volume| claim_of(volume) == of_it);
                concerned.extend(theirs.filter_map(|volume| volume.metadata.name.clone()));
            }
            concerned
                .into_iter()
                .filter(|name| !name.is_empty())
                .for_each(|name| queue.add(name));
        }
    };
    let feed_volumes = async {
        let mut changes = volumes.subscribe();
        loop {
            let change = changes.next().await;
            change
                .object()
                .metadata
                .name
                .clone()
                .into_iter()
                .for_each(|name| queue.add(name));
            claim_of(change.object()).into_iter().for_each(|key| queue.add(key));
            all_unbound();
        }
    };
    let feed_classes = async {
        let mut changes = classes.subscribe();
        loop {
            changes.next().await;
            all_unbound();
        }
    };
    let work = controller::work("persistent-volume", &queue, async |key: String| {
        let Some((namespace, name)) = key.split_once('/') else {
            let Some(volume) = volumes.get(None, &key) else {
                return Ok(());
            };
            let claim = claim_of(&volume)
                .and_then(|claim| claims.get(Some(claim.split_once('/')?.0), claim.split_once('/')?.1));
            return set_phase(informers, &events, &volume, phase(&volume, claim.as_deref())).await;
        };
        let Some(claim) = claims.get(Some(namespace), name) else {
            return Ok(());
        };
        if claim.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let wanted = claim
            .spec
            .as_ref()
            .and_then(|spec| spec.storage_class_name.clone())
            .unwrap_or_default();
        let class = classes.get(None, &wanted);
        match step(&claim, &volumes.list(), class.as_deref()) {
            Step::Wait => Ok(()),
            Step::Say(kind, reason, message) => {
                if claim_phase(&claim) == "Pending" {
                    events.record(&client::events::reference(&*claim), kind, reason, message);
                }
                Ok(())
            }
            Step::TakeVolume(volume) => match volumes.get(None, &volume) {
                Some(volume) => take(informers, &volume, &claim).await,
                None => Ok(()),
            },
            Step::Complete(volume) => match volumes.get(None, &volume) {
                Some(volume) => complete(informers, &volume, &claim).await,
                None => Ok(()),
            },
            Step::Lose => {
                let reference = client::events::reference(&*claim);
                let message = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
                events.record(&reference, Warning, "ClaimLost", message);
                set_claim_status(informers, &claim, json!({"phase": "Lost"})).await
            }
        }
    });
    tokio::join!(feed_claims, feed_volumes, feed_classes, work);
}

fn merge(patch: &Value) -> Patch<&Value> {
    Patch::Merge(patch)
}

/// The volume becomes the claim's, unless it has changed since it was seen.
async fn take(informers: &Informers, volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Result<(), Error> {
    let named = volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_some());
    let mut patch = json!({
        "metadata": {"resourceVersion": volume.metadata.resource_version},
        "spec": {"claimRef": {
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "namespace": claim.metadata.namespace, "name": claim.metadata.name, "uid": claim.metadata.uid,
            "resourceVersion": claim.metadata.resource_version,
        }},
    });
    if !named {
        patch["metadata"]["annotations"] = json!({BOUND_BY_CONTROLLER: "yes"});
    }
    let api = Api::<PersistentVolume>::all(informers.client().clone());
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    controller::ignore_gone(api.patch(name, &PatchParams::default(), &merge(&patch)).await)
}

async fn complete(
    informers: &Informers,
    volume: &PersistentVolume,
    claim: &PersistentVolumeClaim,
) -> Result<(), Error> {
    let spec = volume.spec.clone().unwrap_or_default();
    let chosen = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_name.as_deref())
        .is_some_and(|name| !name.is_empty());
    let mut annotations = json!({BIND_COMPLETED: "yes"});
    if !chosen {
        annotations[BOUND_BY_CONTROLLER] = "yes".into();
    }
    let patch = json!({
        "metadata": {"uid": claim.metadata.uid, "annotations": annotations},
        "spec": {"volumeName": volume.metadata.name},
    });
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    let api = Api::<PersistentVolumeClaim>::namespaced(informers.client().clone(), namespace);
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    controller::ignore_gone(api.patch(name, &PatchParams::default(), &merge(&patch)).await)?;
    let status = json!({"phase": "Bound", "accessModes": spec.access_modes, "capacity": spec.capacity});
    set_claim_status(informers, claim, status).await
}

async fn set_claim_status(informers: &Informers, claim: &PersistentVolumeClaim, status: Value) -> Result<(), Error> {
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    let api = Api::<PersistentVolumeClaim>::namespaced(informers.client().clone(), namespace);
    let patch = json!({"metadata": {"uid": claim.metadata.uid}, "status": status});
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    controller::ignore_gone(api.patch_status(name, &PatchParams::default(), &merge(&patch)).await)
}

async fn set_phase(
    informers: &Informers,
    events: &Events,
    volume: &PersistentVolume,
    (phase, message): (&'static str, Option<String>),
) -> Result<(), Error> {
    if volume_phase(volume) == phase {
        return Ok(());
    }
    if let Some(message) = &message {
        events.record(
            &client::events::reference(volume),
            Warning,
            "VolumeFailedDelete",
            message.clone(),
        );
    }
    let api = Api::<PersistentVolume>::all(informers.client().clone());
    let patch = json!({"metadata": {"uid": volume.metadata.uid}, "status": {"phase": phase, "message": message}});
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    controller::ignore_gone(api.patch_status(name, &PatchParams::default(), &merge(&patch)).await)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn volume(name: &str, size: &str, more: Value) -> Arc<PersistentVolume> {
        let mut spec = json!({"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce", "ReadOnlyMany"]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let value = json!({"metadata": {"name": name, "labels": {"disk": name}}, "spec": spec, "status": {"phase": "Available"}});
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn claim(size: &str, more: Value) -> PersistentVolumeClaim {
        let mut spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let value = json!({"metadata": {"namespace": "n", "name": "c", "uid": "u"}, "spec": spec, "status": {"phase": "Pending"}});
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_smallest_that_suits_is_taken() {
        let all = [
            volume("large", "10Gi", json!({})),
            volume("fits", "2Gi", json!({})),
            volume("small", "1Mi", json!({})),
            volume("classy", "1Gi", json!({"storageClassName": "fast"})),
            volume(
                "taken",
                "1Gi",
                json!({"claimRef": {"namespace": "n", "name": "other", "uid": "x"}}),
            ),
        ];
        let taken = |more| step(&claim("1Gi", more), &all, None);
        assert_eq!(taken(json!({})), Step::TakeVolume("fits".into()));
        assert_eq!(
            taken(json!({"storageClassName": "fast"})),
            Step::TakeVolume("classy".into())
        );
        assert_eq!(
            taken(json!({"selector": {"matchLabels": {"disk": "large"}}})),
            Step::TakeVolume("large".into())
        );
        let none = |more| match taken(more) {
            Step::Say(_, reason, _) => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(none(json!({"accessModes": ["ReadWriteMany"]})), "FailedBinding");
        assert_eq!(none(json!({"volumeMode": "Block"})), "FailedBinding");
        assert_eq!(none(json!({"storageClassName": "none"})), "ProvisioningFailed");
        assert_eq!(
            taken(json!({"volumeName": "taken"})),
            Step::Say(
                Warning,
                "FailedBinding",
                "volume \"taken\" already bound to a different claim.".into()
            )
        );
    }

    #[test]
    fn a_claim_and_its_volume_agree_step_by_step() {
        let ours = volume(
            "v",
            "1Gi",
            json!({"claimRef": {"namespace": "n", "name": "c", "uid": "u"}}),
        );
        assert_eq!(
            step(&claim("1Gi", json!({})), std::slice::from_ref(&ours), None),
            Step::Complete("v".into())
        );
        let named = volume("v", "1Gi", json!({"claimRef": {"namespace": "n", "name": "c"}}));
        assert_eq!(
            step(&claim("1Gi", json!({})), std::slice::from_ref(&named), None),
            Step::TakeVolume("v".into())
        );
        let mut done = claim("1Gi", json!({"volumeName": "v"}));
        done.metadata.annotations = Some([(BIND_COMPLETED.to_owned(), "yes".to_owned())].into());
        done.status.as_mut().unwrap().phase = Some("Bound".into());
        assert_eq!(step(&done, std::slice::from_ref(&ours), None), Step::Wait);
        assert_eq!(step(&done, &[] as &[Arc<PersistentVolume>], None), Step::Lose);
        assert_eq!(phase(&ours, Some(&done)).0, "Bound");
        assert_eq!(phase(&ours, None).0, "Released");
        assert_eq!(phase(&named, Some(&done)).0, "Available");
        assert_eq!(phase(&volume("v", "1Gi", json!({})), None).0, "Available");
    }

    #[test]
    fn a_class_can_wait_for_the_first_pod() {
        let class: StorageClass =
            serde_json::from_value(json!({"metadata": {"name": "late"}, "provisioner": NO_PROVISIONER, "volumeBindingMode": "WaitForFirstConsumer"})).unwrap();
        let late = claim("1Gi", json!({"storageClassName": "late"}));
        let free = volume("v", "1Gi", json!({"storageClassName": "late"}));
        assert!(matches!(
            step(&late, &[free], Some(&class)),
            Step::Say(_, "WaitForFirstConsumer", _)
        ));
        let aside = volume(
            "v",
            "1Gi",
            json!({"storageClassName": "late", "claimRef": {"namespace": "n", "name": "c", "uid": "u"}}),
        );
        assert_eq!(step(&late, &[aside], Some(&class)), Step::Complete("v".into()));
    }
}
