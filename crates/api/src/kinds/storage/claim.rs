//! PersistentVolumeClaim: what somebody wants of the cluster's storage.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus};
use serde_json::Value;

use super::{
    CLAIM_PROTECTION, add_finalizer, short_modes, storage, validate_amount, validate_modes, validate_volume_mode,
};
use crate::catalogue::{ALL_VERBS, Resource, Subresource};
use crate::field::{FieldError, Path};
use crate::kinds::pod::validate::label_selector;
use crate::meta::names;
use crate::quantity::Quantity;
use crate::strategy::{Typed, TypedStrategy};
use crate::table::{AGE, Column, NAME, age_cell, name_cell};

const SCHEMA: &str = "io.k8s.api.core.v1.PersistentVolumeClaim";

/// `persistentvolumeclaims`
pub static RESOURCE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "PersistentVolumeClaim",
    list_kind: "PersistentVolumeClaimList",
    plural: "persistentvolumeclaims",
    singular: "persistentvolumeclaim",
    short_names: &["pvc"],
    categories: &[],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[Subresource::status("", "v1", "PersistentVolumeClaim")],
    storage: "persistentvolumeclaims",
    schema: SCHEMA,
    strategy: &Typed::new(Claims, SCHEMA),
};

struct Claims;

fn spec(claim: &PersistentVolumeClaim) -> PersistentVolumeClaimSpec {
    claim.spec.clone().unwrap_or_default()
}

/// What may not be asked of a claim.
pub(crate) fn validate_spec(spec: &PersistentVolumeClaimSpec, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let modes = path.child("accessModes");
    validate_modes(
        spec.access_modes.as_ref(),
        &modes,
        "at least 1 access mode is required",
        errors,
    );
    if let Some(selector) = &spec.selector {
        label_selector(selector, &path.child("selector"), errors);
    }
    let resources = path.child("resources");
    let requests = spec
        .resources
        .as_ref()
        .and_then(|resources| resources.requests.as_ref());
    match requests.and_then(|requests| requests.get("storage")) {
        None => errors.push(FieldError::required(&resources.key("storage"), "")),
        Some(amount) => validate_amount(amount, &resources.child("requests").key("storage"), errors),
    }
    if let Some(class) = spec.storage_class_name.as_deref().filter(|class| !class.is_empty()) {
        let path = path.child("storageClassName");
        let wrong = names::dns1123_subdomain(class);
        errors.extend(wrong.into_iter().map(|wrong| FieldError::invalid(&path, class, wrong)));
    }
    validate_volume_mode(spec.volume_mode.as_deref(), &path.child("volumeMode"), errors);
}

impl TypedStrategy for Claims {
    type Object = PersistentVolumeClaim;

    fn default(&self, claim: &mut PersistentVolumeClaim) {
        let spec = claim.spec.get_or_insert_default();
        spec.volume_mode.get_or_insert_with(|| "Filesystem".into());
        let status = claim.status.get_or_insert_default();
        status.phase.get_or_insert_with(|| "Pending".into());
    }

    fn prepare_create(&self, claim: &mut PersistentVolumeClaim) {
        add_finalizer(&mut claim.metadata, CLAIM_PROTECTION);
        claim.status = Some(PersistentVolumeClaimStatus {
            phase: Some("Pending".into()),
            ..Default::default()
        });
    }

    fn validate_create(&self, claim: &PersistentVolumeClaim) -> Vec<FieldError> {
        let mut errors = Vec::new();
        validate_spec(&spec(claim), &Path::new("spec"), &mut errors);
        errors
    }

    fn prepare_update(&self, subresource: Option<&str>, new: &mut PersistentVolumeClaim, old: &PersistentVolumeClaim) {
        match subresource {
            None => new.status = old.status.clone(),
            Some(_) => new.spec = old.spec.clone(),
        }
    }

    fn validate_update(
        &self,
        subresource: Option<&str>,
        new: &PersistentVolumeClaim,
        old: &PersistentVolumeClaim,
    ) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if subresource.is_some() {
            return errors;
        }
        let path = Path::new("spec");
        let (wanted, before) = (spec(new), spec(old));
        validate_spec(&wanted, &path, &mut errors);
        // What the binder and the default class fill in once, and a bound claim's size.
        let mut allowed = wanted.clone();
        if before.volume_name.as_deref().unwrap_or_default().is_empty() {
            allowed.volume_name = before.volume_name.clone();
        }
        if before.storage_class_name.is_none() {
            allowed.storage_class_name = None;
        }
        let phase = old.status.as_ref().and_then(|status| status.phase.as_deref());
        if phase == Some("Bound") {
            allowed.resources = before.resources.clone();
            allowed.volume_attributes_class_name = before.volume_attributes_class_name.clone();
        }
        if allowed != before {
            let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
            errors.push(FieldError::forbidden(&path, detail));
        }
        let amount = |spec: &PersistentVolumeClaimSpec| {
            let requests = spec.resources.as_ref()?.requests.as_ref()?;
            Quantity::of(requests.get("storage")?).ok().map(|amount| amount.value())
        };
        if amount(&wanted) < amount(&before) {
            let path = path.child("resources").child("requests").key("storage").to_string();
            let detail = "field can not be less than status.capacity";
            errors.push(FieldError::forbidden(&Path::new(&path), detail));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::new("Status", "string", "phase represents the current phase of PersistentVolumeClaim."),
            Column::new(
                "Volume",
                "string",
                "volumeName is the binding reference to the PersistentVolume backing this claim.",
            ),
            Column::new("Capacity", "string", "capacity represents the actual resources of the underlying volume."),
            Column::new(
                "Access Modes",
                "string",
                "accessModes contains the actual access modes the volume backing the PVC has. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#access-modes-1",
            ),
            Column::new("StorageClass", "string", "StorageClass of the pvc"),
            Column::new("VolumeAttributesClass", "string", "VolumeAttributesClass of the pvc"),
            AGE,
            Column::new(
                "VolumeMode",
                "string",
                "volumeMode defines what type of volume is required by the claim. Value of Filesystem is implied when not included in claim spec.",
            )
            .wide(),
        ];
        COLUMNS
    }

    fn row(&self, claim: &PersistentVolumeClaim, now: Timestamp) -> Vec<Value> {
        let spec = spec(claim);
        let status = claim.status.clone().unwrap_or_default();
        let phase = match claim.metadata.deletion_timestamp {
            Some(_) => "Terminating".to_owned(),
            None => status.phase.clone().unwrap_or_default(),
        };
        let volume = spec.volume_name.unwrap_or_default();
        let (capacity, modes) = match volume.is_empty() {
            true => (String::new(), String::new()),
            false => (
                storage(status.capacity.as_ref()).to_owned(),
                short_modes(status.access_modes.as_ref()),
            ),
        };
        let unset = |text: Option<String>| text.filter(|text| !text.is_empty()).unwrap_or_else(|| "<unset>".into());
        vec![
            name_cell(&claim.metadata),
            phase.into(),
            volume.into(),
            capacity.into(),
            modes.into(),
            spec.storage_class_name.unwrap_or_default().into(),
            unset(spec.volume_attributes_class_name).into(),
            age_cell(&claim.metadata, now),
            unset(spec.volume_mode).into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{cells, created, updated};

    fn claim(storage: &str, more: Value) -> Value {
        let mut spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage}}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"spec": spec})
    }

    #[test]
    fn claims_say_what_is_wrong() {
        let said = created(&RESOURCE, json!({"spec": {}})).unwrap_err();
        assert!(
            said.contains("spec.accessModes: Required value: at least 1 access mode is required"),
            "{said}"
        );
        assert!(said.contains("spec.resources[storage]: Required value"), "{said}");
        let said = created(&RESOURCE, claim("0", json!({}))).unwrap_err();
        assert!(
            said.contains("spec.resources.requests[storage]: Invalid value: \"0\": must be greater than zero"),
            "{said}"
        );
        let change = |more: Value| updated(&RESOURCE, None, claim("1Gi", json!({})), claim("1Gi", more));
        change(json!({"volumeName": "v"})).unwrap();
        let said = change(json!({"accessModes": ["ReadWriteMany"]})).unwrap_err();
        assert!(
            said.contains("spec: Forbidden: spec is immutable after creation except"),
            "{said}"
        );
    }

    #[test]
    fn rows() {
        let row = cells(&RESOURCE, claim("1Gi", json!({"storageClassName": "local"})));
        assert_eq!(
            Value::from(row),
            json!(["a", "Pending", "", "", "", "local", "<unset>", "60s", "Filesystem"])
        );
    }
}
