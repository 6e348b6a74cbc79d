//! PersistentVolume: a piece of storage of the cluster.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeSpec, PersistentVolumeStatus};
use serde_json::Value;

use super::{
    VOLUME_PROTECTION, add_finalizer, short_modes, storage, validate_amount, validate_modes, validate_volume_mode,
};
use crate::catalogue::{ALL_VERBS, Resource, Subresource};
use crate::field::{FieldError, Path};
use crate::kinds::pod::validate::{node_selector, volume_sources};
use crate::meta::{self, names};
use crate::strategy::{Typed, TypedStrategy};
use crate::table::{AGE, Column, NAME, age_cell, name_cell};

const SCHEMA: &str = "io.k8s.api.core.v1.PersistentVolume";

/// `persistentvolumes`
pub static RESOURCE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "PersistentVolume",
    list_kind: "PersistentVolumeList",
    plural: "persistentvolumes",
    singular: "persistentvolume",
    short_names: &["pv"],
    categories: &[],
    namespaced: false,
    verbs: ALL_VERBS,
    subresources: &[Subresource::status("", "v1", "PersistentVolume")],
    storage: "persistentvolumes",
    schema: SCHEMA,
    strategy: &Typed::new(PersistentVolumes, SCHEMA),
};

struct PersistentVolumes;

const POLICIES: &[&str] = &["Delete", "Recycle", "Retain"];

fn phase(volume: &PersistentVolume) -> &str {
    let status = volume.status.as_ref();
    status.and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// The sources that are given, with their fields' names; the spec's other fields are none.
fn sources(spec: &PersistentVolumeSpec) -> serde_json::Map<String, Value> {
    const OTHERS: &[&str] = &[
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    ];
    let Ok(Value::Object(mut fields)) = serde_json::to_value(spec) else {
        return Default::default();
    };
    fields.retain(|name, _| !OTHERS.contains(&name.as_str()));
    fields
}

fn validate(volume: &PersistentVolume) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::new("spec");
    let none = PersistentVolumeSpec::default();
    let spec = volume.spec.as_ref().unwrap_or(&none);
    let modes = path.child("accessModes");
    validate_modes(spec.access_modes.as_ref(), &modes, "", &mut errors);
    let capacity = path.child("capacity");
    match spec.capacity.as_ref().filter(|capacity| !capacity.is_empty()) {
        None => errors.push(FieldError::required(&capacity, "")),
        Some(amounts) => {
            if !amounts.contains_key("storage") || amounts.len() > 1 {
                errors.push(FieldError::not_supported(&capacity, "", &["storage"]));
            }
            for (name, amount) in amounts {
                validate_amount(amount, &capacity.key(name), &mut errors);
            }
        }
    }
    let policy = spec.persistent_volume_reclaim_policy.as_deref().unwrap_or_default();
    if !policy.is_empty() && !POLICIES.contains(&policy) {
        let path = path.child("persistentVolumeReclaimPolicy");
        errors.push(FieldError::not_supported(&path, policy, POLICIES));
    }
    let affinity = path.child("nodeAffinity");
    let required = spec.node_affinity.as_ref().map(|affinity| affinity.required.as_ref());
    match required {
        Some(None) => errors.push(FieldError::required(
            &affinity.child("required"),
            "must specify required node constraints",
        )),
        Some(Some(selector)) => node_selector(selector, &affinity.child("required"), &mut errors),
        None => {}
    }
    let given = sources(spec);
    if given.is_empty() {
        errors.push(FieldError::required(&path, "must specify a volume type"));
    }
    for (name, _) in given.iter().skip(1) {
        errors.push(FieldError::forbidden(
            &path.child(name),
            "may not specify more than 1 volume type",
        ));
    }
    if let Some(source) = &spec.host_path {
        volume_sources::host_path(source, &path.child("hostPath"), &mut errors);
        if policy == "Recycle" && source.path.trim_end_matches('/').is_empty() {
            let path = path.child("persistentVolumeReclaimPolicy");
            errors.push(FieldError::forbidden(
                &path,
                "may not be 'recycle' for a hostPath mount of '/'",
            ));
        }
    }
    if let Some(source) = &spec.nfs {
        volume_sources::nfs(source, &path.child("nfs"), &mut errors);
    }
    if let Some(source) = &spec.local {
        let path = path.child("local").child("path").to_string();
        let path = Path::new(&path);
        if source.path.is_empty() {
            errors.push(FieldError::required(&path, ""));
        }
        if source.path.split('/').any(|part| part == "..") {
            errors.push(FieldError::invalid(&path, &source.path, "must not contain '..'"));
        }
        if required.is_none() {
            let detail = "Local volume requires node affinity";
            errors.push(FieldError::required(&affinity, detail));
        }
    }
    if let Some(class) = spec.storage_class_name.as_deref().filter(|class| !class.is_empty()) {
        let wrong = names::dns1123_subdomain(class);
        let path = path.child("storageClassName");
        errors.extend(wrong.into_iter().map(|wrong| FieldError::invalid(&path, class, wrong)));
    }
    validate_volume_mode(spec.volume_mode.as_deref(), &path.child("volumeMode"), &mut errors);
    errors
}

impl TypedStrategy for PersistentVolumes {
    type Object = PersistentVolume;

    fn default(&self, volume: &mut PersistentVolume) {
        let spec = volume.spec.get_or_insert_default();
        spec.persistent_volume_reclaim_policy
            .get_or_insert_with(|| "Retain".into());
        spec.volume_mode.get_or_insert_with(|| "Filesystem".into());
        if let Some(path) = &mut spec.host_path {
            path.type_.get_or_insert_default();
        }
        let status = volume.status.get_or_insert_default();
        status.phase.get_or_insert_with(|| "Pending".into());
    }

    fn prepare_create(&self, volume: &mut PersistentVolume) {
        add_finalizer(&mut volume.metadata, VOLUME_PROTECTION);
        volume.status = Some(PersistentVolumeStatus {
            phase: Some("Pending".into()),
            last_phase_transition_time: Some(meta::time(Timestamp::now())),
            ..Default::default()
        });
    }

    fn validate_create(&self, volume: &PersistentVolume) -> Vec<FieldError> {
        validate(volume)
    }

    fn prepare_update(&self, subresource: Option<&str>, new: &mut PersistentVolume, old: &PersistentVolume) {
        if subresource.is_none() {
            new.status = old.status.clone();
            return;
        }
        new.spec = old.spec.clone();
        let since = old
            .status
            .as_ref()
            .and_then(|status| status.last_phase_transition_time.clone());
        let changed = phase(new) != phase(old);
        if let Some(status) = &mut new.status {
            status.last_phase_transition_time = match changed {
                true => Some(meta::time(Timestamp::now())),
                false => since,
            };
        }
    }

    fn validate_update(
        &self,
        subresource: Option<&str>,
        new: &PersistentVolume,
        old: &PersistentVolume,
    ) -> Vec<FieldError> {
        if subresource.is_some() {
            return Vec::new();
        }
        let mut errors = validate(new);
        let path = Path::new("spec");
        let (Some(new), Some(old)) = (&new.spec, &old.spec) else {
            return errors;
        };
        if sources(new) != sources(old) {
            let detail = "spec.persistentvolumesource is immutable after creation";
            errors.push(FieldError::forbidden(&path.child("persistentvolumesource"), detail));
        }
        if new.volume_mode != old.volume_mode {
            let mode = new.volume_mode.as_deref().unwrap_or_default();
            errors.push(FieldError::invalid(
                &path.child("volumeMode"),
                mode,
                "field is immutable",
            ));
        }
        if old.node_affinity.is_some() && new.node_affinity != old.node_affinity {
            let affinity = &new.node_affinity;
            errors.push(FieldError::invalid(
                &path.child("nodeAffinity"),
                affinity,
                "field is immutable",
            ));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::new(
                "Capacity",
                "string",
                "capacity is the description of the persistent volume's resources and capacity. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#capacity",
            ),
            Column::new(
                "Access Modes",
                "string",
                "accessModes contains all ways the volume can be mounted. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#access-modes",
            ),
            Column::new(
                "Reclaim Policy",
                "string",
                "persistentVolumeReclaimPolicy defines what happens to a persistent volume when released from its claim. Valid options are Retain (default for manually created PersistentVolumes), Delete (default for dynamically provisioned PersistentVolumes), and Recycle (deprecated). Recycle must be supported by the volume plugin underlying this PersistentVolume. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#reclaiming",
            ),
            Column::new(
                "Status",
                "string",
                "phase indicates if a volume is available, bound to a claim, or released by a claim. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#phase",
            ),
            Column::new(
                "Claim",
                "string",
                "claimRef is part of a bi-directional binding between PersistentVolume and PersistentVolumeClaim. Expected to be non-nil when bound. claim.VolumeName is the authoritative bind between PV and PVC. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#binding",
            ),
            Column::new("StorageClass", "string", "StorageClass of the pv"),
            Column::new("VolumeAttributesClass", "string", "VolumeAttributesClass of the pv"),
            Column::new(
                "Reason",
                "string",
                "reason is a brief CamelCase string that describes any failure and is meant for machine parsing and tidy display in the CLI.",
            ),
            AGE,
            Column::new(
                "VolumeMode",
                "string",
                "volumeMode defines if a volume is intended to be used with a formatted filesystem or to remain in raw block state. Value of Filesystem is implied when not included in spec.",
            )
            .wide(),
        ];
        COLUMNS
    }

    fn row(&self, volume: &PersistentVolume, now: Timestamp) -> Vec<Value> {
        let none = PersistentVolumeSpec::default();
        let spec = volume.spec.as_ref().unwrap_or(&none);
        let claim = spec.claim_ref.as_ref().map(|claim| {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            format!("{}/{}", text(&claim.namespace), text(&claim.name))
        });
        let phase = match volume.metadata.deletion_timestamp {
            Some(_) => "Terminating",
            None => phase(volume),
        };
        let unset = |text: Option<&str>| text.filter(|text| !text.is_empty()).unwrap_or("<unset>").to_owned();
        let reason = volume.status.as_ref().and_then(|status| status.reason.clone());
        vec![
            name_cell(&volume.metadata),
            storage(spec.capacity.as_ref()).into(),
            short_modes(spec.access_modes.as_ref()).into(),
            spec.persistent_volume_reclaim_policy.clone().unwrap_or_default().into(),
            phase.into(),
            claim.unwrap_or_default().into(),
            spec.storage_class_name.clone().unwrap_or_default().into(),
            unset(spec.volume_attributes_class_name.as_deref()).into(),
            reason.unwrap_or_default().into(),
            age_cell(&volume.metadata, now),
            unset(spec.volume_mode.as_deref()).into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{cells, created, updated};

    fn volume(more: Value) -> Value {
        let mut spec =
            json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/data"}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        json!({"spec": spec})
    }

    #[test]
    fn volumes_say_what_is_wrong() {
        for (more, error) in [
            (json!({"capacity": null}), "spec.capacity: Required value"),
            (json!({"accessModes": null}), "spec.accessModes: Required value"),
            (
                json!({"accessModes": ["Often"]}),
                r#"spec.accessModes: Unsupported value: "Often""#,
            ),
            (
                json!({"hostPath": null}),
                "spec: Required value: must specify a volume type",
            ),
            (
                json!({"hostPath": {"path": "/a/../b"}}),
                r#"spec.hostPath.path: Invalid value: "/a/../b": must not contain '..'"#,
            ),
            (
                json!({"nfs": {"server": "s", "path": "/"}}),
                "spec.nfs: Forbidden: may not specify more than 1 volume type",
            ),
            (
                json!({"hostPath": null, "local": {"path": "/d"}}),
                "spec.nodeAffinity: Required value: Local volume requires node affinity",
            ),
            (
                json!({"persistentVolumeReclaimPolicy": "Burn"}),
                "supported values: \"Delete\", \"Recycle\", \"Retain\"",
            ),
        ] {
            let said = created(&RESOURCE, volume(more)).unwrap_err();
            assert!(said.contains(error), "{said}");
        }
        let said = updated(
            &RESOURCE,
            None,
            volume(json!({})),
            volume(json!({"hostPath": {"path": "/other"}})),
        )
        .unwrap_err();
        assert!(said.contains("spec.persistentvolumesource: Forbidden"), "{said}");
    }

    #[test]
    fn rows() {
        let row = cells(&RESOURCE, volume(json!({"claimRef": {"namespace": "n", "name": "c"}})));
        let expected = json!([
            "a",
            "1Gi",
            "RWO",
            "Retain",
            "Pending",
            "n/c",
            "",
            "<unset>",
            "",
            "60s",
            "Filesystem"
        ]);
        assert_eq!(Value::from(row), expected);
    }
}
