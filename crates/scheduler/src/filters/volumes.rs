//! Claims: a pod runs where the volumes that it has, or could have, can be reached.

use std::sync::Arc;

use api::pod;
use api::storage::{best, claim_phase};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};

use super::{Filter, Rejection, matches_node_term};
use crate::snapshot::{NodeInfo, Snapshot};

/// The names of the claims of a pod, with whether each is made for it.
fn claims(pod: &Pod) -> impl Iterator<Item = (String, bool)> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(claim), _) => Some((claim.claim_name.clone(), false)),
        (None, Some(_)) => Some((format!("{}-{}", pod::name(pod), volume.name), true)),
        (None, None) => None,
    })
}

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
    claim_phase(claim) == "Bound" && volume.is_some_and(|name| !name.is_empty())
}

/// Why no node can have the pod, as far as claims go.
pub(super) fn missing(pod: &Pod, snapshot: &Snapshot) -> Option<String> {
    let namespace = pod::namespace(pod);
    let mut immediate = false;
    for (name, made_for_it) in claims(pod) {
        let Some(claim) = snapshot.storage.claim(namespace, &name) else {
            return Some(match made_for_it {
                true => format!("waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}"),
                false => format!("persistentvolumeclaim {name:?} not found"),
            });
        };
        if claim.metadata.deletion_timestamp.is_some() {
            return Some(format!("persistentvolumeclaim {name:?} is being deleted"));
        }
        if claim_phase(claim) == "Lost" {
            let volume = claim
                .spec
                .as_ref()
                .and_then(|spec| spec.volume_name.clone())
                .unwrap_or_default();
            return Some(format!(
                "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"
            ));
        }
        let owned = || {
            let owners = claim.metadata.owner_references.iter().flatten();
            owners
                .into_iter()
                .any(|owner| owner.controller == Some(true) && owner.uid == pod::uid(pod))
        };
        if made_for_it && !owned() {
            let pod = format!("{namespace}/{}", pod::name(pod));
            return Some(format!(
                "PVC \"{namespace}/{name}\" was not created for pod {pod:?} (pod is not owner)"
            ));
        }
        immediate |= !is_bound(claim) && !snapshot.storage.waits_for_consumer(claim);
    }
    immediate.then(|| "pod has unbound immediate PersistentVolumeClaims".to_owned())
}

/// What a pod needs of the cluster's storage.
#[derive(Default)]
pub(super) struct Volumes {
    bound: Vec<Arc<PersistentVolume>>,
    /// Claims that get a volume with the pod's node.
    open: Vec<Arc<PersistentVolumeClaim>>,
    all: Vec<Arc<PersistentVolume>>,
}

impl Volumes {
    pub(super) fn new(pod: &Pod, snapshot: &Snapshot) -> Self {
        let mut needs = Volumes::default();
        for (name, _) in claims(pod) {
            let Some(claim) = snapshot.storage.claim(pod::namespace(pod), &name) else {
                continue;
            };
            match claim
                .spec
                .as_ref()
                .and_then(|spec| spec.volume_name.as_deref())
                .filter(|_| is_bound(claim))
            {
                Some(volume) => needs.bound.extend(snapshot.storage.volume(volume).cloned()),
                None => needs.open.push(claim.clone()),
            }
        }
        if !needs.open.is_empty() {
            needs.all = snapshot.storage.volumes().cloned().collect();
        }
        needs
    }

    /// The volumes that open claims would get on a node, as many as there are.
    pub(super) fn on(&self, info: &NodeInfo) -> Vec<(String, Arc<PersistentVolume>)> {
        let mut given: Vec<(String, Arc<PersistentVolume>)> = Vec::new();
        for claim in &self.open {
            let left = self.all.iter().filter(|volume| reaches(volume, info));
            let left = left.filter(|volume| !given.iter().any(|(_, taken)| Arc::ptr_eq(taken, volume)));
            let chosen = best(left.clone().map(|volume| &**volume), claim);
            let chosen = chosen.and_then(|chosen| self.all.iter().find(|volume| std::ptr::eq(&***volume, chosen)));
            let name = claim.metadata.name.clone().unwrap_or_default();
            given.extend(chosen.map(|volume| (name, volume.clone())));
        }
        given
    }

    pub(super) fn check(&self, info: &NodeInfo) -> Result<(), Rejection> {
        let mut reasons = Vec::new();
        if !self.bound.iter().all(|volume| reaches(volume, info)) {
            reasons.push("node(s) didn't match PersistentVolume's node affinity".to_owned());
        }
        if self.on(info).len() < self.open.len() {
            reasons.push("node(s) didn't find available persistent volumes to bind".to_owned());
        }
        if reasons.is_empty() {
            return Ok(());
        }
        Err(Rejection {
            filter: Filter::VolumeBinding,
            reasons,
            preemptible: false,
        })
    }
}

/// Whether a volume can be reached from a node.
fn reaches(volume: &PersistentVolume, info: &NodeInfo) -> bool {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    affinity
        .and_then(|affinity| affinity.required.as_ref())
        .is_none_or(|selector| {
            selector
                .node_selector_terms
                .iter()
                .any(|term| matches_node_term(term, info))
        })
}
