//! What binding and scheduling ask of volumes and claims. Pure functions of values.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Written;

use crate::quantity::Quantity;
use crate::selector::LabelSelector;

/// The volume's phase; empty when there is none yet.
pub fn volume_phase(volume: &PersistentVolume) -> &str {
    let status = volume.status.as_ref();
    status.and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// The claim's phase; empty when there is none yet.
pub fn claim_phase(claim: &PersistentVolumeClaim) -> &str {
    let status = claim.status.as_ref();
    status.and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// The bytes of storage in a list of resources; 0 for none.
pub fn storage_bytes(resources: Option<&BTreeMap<String, Written>>) -> i64 {
    let storage = resources.and_then(|resources| resources.get("storage"));
    storage
        .and_then(|storage| Quantity::of(storage).ok())
        .map_or(0, Quantity::value)
}

/// Whether a volume names this very claim, or one of its name that was not there yet.
pub fn is_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    reference.is_some_and(|reference| {
        let uid = reference.uid.as_deref().unwrap_or_default();
        reference.namespace == claim.metadata.namespace
            && reference.name == claim.metadata.name
            && (uid.is_empty() || reference.uid == claim.metadata.uid)
    })
}

/// Whether a volume is nobody's and may be taken.
pub fn is_free(volume: &PersistentVolume) -> bool {
    volume_phase(volume) == "Available" && volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_none())
}

/// Whether a volume is what a claim asks for.
pub fn suits(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let (Some(has), Some(wants)) = (&volume.spec, &claim.spec) else {
        return false;
    };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".into());
    let requests = wants
        .resources
        .as_ref()
        .and_then(|resources| resources.requests.as_ref());
    let modes = has.access_modes.as_deref().unwrap_or_default();
    let selected = wants.selector.as_ref().is_none_or(|selector| {
        let none = BTreeMap::new();
        let labels = volume.metadata.labels.as_ref().unwrap_or(&none);
        LabelSelector::from_object(Some(selector)).is_ok_and(|selector| selector.matches(Some(labels)))
    });
    volume.metadata.deletion_timestamp.is_none()
        && text(&has.storage_class_name) == text(&wants.storage_class_name)
        && mode(&has.volume_mode) == mode(&wants.volume_mode)
        && storage_bytes(has.capacity.as_ref()) >= storage_bytes(requests)
        && wants.access_modes.iter().flatten().all(|mode| modes.contains(mode))
        && selected
}

/// The smallest of the volumes that suit and are nobody's; one that names the claim before all others.
pub fn best<'a>(
    volumes: impl Iterator<Item = &'a PersistentVolume> + Clone,
    claim: &PersistentVolumeClaim,
) -> Option<&'a PersistentVolume> {
    let named = volumes
        .clone()
        .find(|volume| is_for(volume, claim) && suits(volume, claim));
    let size = |volume: &&PersistentVolume| {
        let capacity = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref());
        (storage_bytes(capacity), volume.metadata.name.clone())
    };
    named.or_else(|| {
        volumes
            .filter(|volume| is_free(volume) && suits(volume, claim))
            .min_by_key(size)
    })
}
