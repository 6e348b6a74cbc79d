//! ConfigMap: the plain kind. It has no status and no defaults; once immutable, its data cannot change.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::Value;

use crate::catalogue::{ALL_VERBS, Resource};
use crate::field::{FieldError, Path};
use crate::meta::names;
use crate::strategy::{Typed, TypedStrategy};
use crate::table::{AGE, Column, NAME, age_cell, name_cell};

const SCHEMA: &str = "io.k8s.api.core.v1.ConfigMap";

/// `configmaps`
pub static RESOURCE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "ConfigMap",
    list_kind: "ConfigMapList",
    plural: "configmaps",
    singular: "configmap",
    short_names: &["cm"],
    categories: &[],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[],
    storage: "configmaps",
    schema: SCHEMA,
    strategy: &Typed::new(ConfigMaps, SCHEMA),
};

/// The most bytes that the keys and values of a ConfigMap or Secret may have together.
pub(crate) const MAX_DATA_BYTES: usize = 1024 * 1024;

struct ConfigMaps;

impl TypedStrategy for ConfigMaps {
    type Object = ConfigMap;

    fn validate_create(&self, map: &ConfigMap) -> Vec<FieldError> {
        validate(map)
    }

    fn validate_update(&self, _subresource: Option<&str>, new: &ConfigMap, old: &ConfigMap) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if old.immutable == Some(true) {
            let unchangeable = "field is immutable when `immutable` is set";
            if new.immutable != Some(true) {
                errors.push(FieldError::forbidden(&Path::new("immutable"), unchangeable));
            }
            if !same(&new.data, &old.data) {
                errors.push(FieldError::forbidden(&Path::new("data"), unchangeable));
            }
            if !same(&new.binary_data, &old.binary_data) {
                errors.push(FieldError::forbidden(&Path::new("binaryData"), unchangeable));
            }
        }
        errors.extend(validate(new));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::new(
                "Data",
                "string",
                "Data contains the configuration data. Each key must consist of alphanumeric characters, '-', '_' or '.'. Values with non-UTF-8 byte sequences must use the BinaryData field. The keys stored in Data must not overlap with the keys in the BinaryData field, this is enforced during validation process.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn row(&self, map: &ConfigMap, now: Timestamp) -> Vec<Value> {
        let count = map.data.as_ref().map_or(0, BTreeMap::len) + map.binary_data.as_ref().map_or(0, BTreeMap::len);
        vec![name_cell(&map.metadata), count.into(), age_cell(&map.metadata, now)]
    }
}

/// Whether two maps are the same to a client, to whom an empty one and none are one thing.
pub(crate) fn same<V: PartialEq>(a: &Option<BTreeMap<String, V>>, b: &Option<BTreeMap<String, V>>) -> bool {
    a.iter().flatten().eq(b.iter().flatten())
}

fn validate(map: &ConfigMap) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut bytes = 0;
    let data = Path::new("data");
    for (key, value) in map.data.iter().flatten() {
        names::config_map_key(key, &data.key(key), &mut errors);
        if map.binary_data.as_ref().is_some_and(|binary| binary.contains_key(key)) {
            errors.push(FieldError::invalid(
                &data.key(key),
                key,
                "duplicate of key present in binaryData",
            ));
        }
        bytes += value.len();
    }
    let binary = Path::new("binaryData");
    for (key, value) in map.binary_data.iter().flatten() {
        names::config_map_key(key, &binary.key(key), &mut errors);
        bytes += value.0.len();
    }
    if bytes > MAX_DATA_BYTES {
        errors.push(FieldError::too_long(&Path::new(""), MAX_DATA_BYTES));
    }
    errors
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{cells, created, updated};

    #[test]
    fn keys_are_file_names() {
        assert!(
            created(&RESOURCE, json!({"data": {"a.txt": "", "..data": ""}}))
                .unwrap_err()
                .ends_with(r#"data[..data]: Invalid value: "..data": must not start with '..'"#)
        );
        assert_eq!(
            created(&RESOURCE, json!({"data": {"a": ""}, "binaryData": {"a": ""}})).unwrap_err(),
            r#"ConfigMap "a" is invalid: data[a]: Invalid value: "a": duplicate of key present in binaryData"#
        );
        assert_eq!(
            created(&RESOURCE, json!({"data": {"a": "x".repeat(MAX_DATA_BYTES + 1)}})).unwrap_err(),
            r#"ConfigMap "a" is invalid: []: Too long: may not be more than 1048576 bytes"#
        );
    }

    #[test]
    fn an_immutable_one_stays_as_it_is() {
        let old = json!({"immutable": true, "data": {"a": "1"}});
        assert_eq!(
            updated(&RESOURCE, None, old.clone(), json!({"data": {"a": "2"}})).unwrap_err(),
            "ConfigMap \"a\" is invalid: [immutable: Forbidden: field is immutable when `immutable` is set, data: Forbidden: field is immutable when `immutable` is set]"
        );
        assert!(updated(&RESOURCE, None, old.clone(), old).is_ok());
    }

    #[test]
    fn rows() {
        assert_eq!(
            cells(&RESOURCE, json!({"data": {"a": "1"}, "binaryData": {"b": ""}})),
            [json!("a"), json!(2), json!("60s")]
        );
    }
}
