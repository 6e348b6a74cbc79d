//! Secret: as ConfigMap, with a type that says which keys it must have.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;

use super::config_map::{MAX_DATA_BYTES, same};
use crate::catalogue::{ALL_VERBS, Resource};
use crate::field::{FieldError, Path};
use crate::meta::names;
use crate::strategy::{Typed, TypedStrategy};
use crate::table::{AGE, Column, NAME, age_cell, name_cell};

const SCHEMA: &str = "io.k8s.api.core.v1.Secret";

/// `secrets`
pub static RESOURCE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "Secret",
    list_kind: "SecretList",
    plural: "secrets",
    singular: "secret",
    short_names: &[],
    categories: &[],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[],
    storage: "secrets",
    schema: SCHEMA,
    strategy: &Typed::new(Secrets, SCHEMA),
};

struct Secrets;

fn kind(secret: &Secret) -> &str {
    secret.type_.as_deref().unwrap_or_default()
}

impl TypedStrategy for Secrets {
    type Object = Secret;

    fn default(&self, secret: &mut Secret) {
        if kind(secret).is_empty() {
            secret.type_ = Some("Opaque".into());
        }
        // stringData is for writing only: it wins over data and is never stored.
        if let Some(strings) = secret.string_data.take().filter(|strings| !strings.is_empty()) {
            let data = secret.data.get_or_insert_with(BTreeMap::new);
            data.extend(
                strings
                    .into_iter()
                    .map(|(key, value)| (key, ByteString(value.into_bytes()))),
            );
        }
    }

    fn validate_create(&self, secret: &Secret) -> Vec<FieldError> {
        validate(secret)
    }

    fn validate_update(&self, _subresource: Option<&str>, new: &Secret, old: &Secret) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if kind(new) != kind(old) {
            errors.push(FieldError::invalid(&Path::new("type"), kind(new), "field is immutable"));
        }
        if old.immutable == Some(true) {
            let unchangeable = "field is immutable when `immutable` is set";
            if new.immutable != Some(true) {
                errors.push(FieldError::forbidden(&Path::new("immutable"), unchangeable));
            }
            if !same(&new.data, &old.data) {
                errors.push(FieldError::forbidden(&Path::new("data"), unchangeable));
            }
        }
        errors.extend(validate(new));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::new(
                "Type",
                "string",
                "Used to facilitate programmatic handling of secret data. More info: https://kubernetes.io/docs/concepts/configuration/secret/#secret-types",
            ),
            Column::new(
                "Data",
                "string",
                "Data contains the secret data. Each key must consist of alphanumeric characters, '-', '_' or '.'. The serialized form of the secret data is a base64 encoded string, representing the arbitrary (possibly non-string) data value here. Described in https://tools.ietf.org/html/rfc4648#section-4",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn row(&self, secret: &Secret, now: Timestamp) -> Vec<Value> {
        vec![
            name_cell(&secret.metadata),
            kind(secret).into(),
            secret.data.as_ref().map_or(0, BTreeMap::len).into(),
            age_cell(&secret.metadata, now),
        ]
    }

    fn fields(&self) -> &'static [&'static str] {
        &["type"]
    }

    fn field(&self, secret: &Secret, path: &str) -> Option<String> {
        (path == "type").then(|| kind(secret).to_owned())
    }
}

const SERVICE_ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";

fn validate(secret: &Secret) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let data = Path::new("data");
    let mut bytes = 0;
    for (key, value) in secret.data.iter().flatten() {
        names::config_map_key(key, &data.key(key), &mut errors);
        bytes += value.0.len();
    }
    if bytes > MAX_DATA_BYTES {
        errors.push(FieldError::too_long(&data, MAX_DATA_BYTES));
    }
    let get = |key: &str| secret.data.as_ref().and_then(|data| data.get(key));
    let mut required = |keys: &[&str]| {
        for key in keys.iter().filter(|key| get(key).is_none()) {
            errors.push(FieldError::required(&data.key(key), ""));
        }
    };
    match kind(secret) {
        "kubernetes.io/service-account-token" => {
            let name = secret
                .metadata
                .annotations
                .as_ref()
                .and_then(|map| map.get(SERVICE_ACCOUNT_NAME));
            if name.is_none_or(String::is_empty) {
                let metadata = Path::new("metadata");
                let path = metadata.child("annotations");
                errors.push(FieldError::required(&path.key(SERVICE_ACCOUNT_NAME), ""));
            }
        }
        "kubernetes.io/dockercfg" => docker_config(secret, ".dockercfg", &mut errors),
        "kubernetes.io/dockerconfigjson" => docker_config(secret, ".dockerconfigjson", &mut errors),
        "kubernetes.io/basic-auth" if get("username").is_none() && get("password").is_none() => {
            required(&["username", "password"]);
        }
        "kubernetes.io/ssh-auth" => required(&["ssh-privatekey"]),
        "kubernetes.io/tls" => required(&["tls.crt", "tls.key"]),
        _ => {}
    }
    errors
}

/// The key has to be there and to be JSON; its content is never shown.
fn docker_config(secret: &Secret, key: &str, errors: &mut Vec<FieldError>) {
    let data = Path::new("data");
    match secret.data.as_ref().and_then(|data| data.get(key)) {
        None => errors.push(FieldError::required(&data.key(key), "")),
        Some(value) => {
            if let Err(error) = serde_json::from_slice::<serde_json::Map<String, Value>>(&value.0) {
                let shown = "<secret contents redacted>";
                errors.push(FieldError::invalid(&data.key(key), shown, error.to_string()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{cells, created, updated};

    #[test]
    fn strings_become_data() {
        let secret = created(
            &RESOURCE,
            json!({"data": {"a": "eA==", "b": "eA=="}, "stringData": {"b": "y"}}),
        )
        .unwrap();
        let value = secret.to_value().unwrap();
        assert_eq!(value["data"], json!({"a": "eA==", "b": "eQ=="}));
        assert_eq!(value["type"], "Opaque");
        assert!(value.get("stringData").is_none());
    }

    #[test]
    fn types_require_keys() {
        for (secret, want) in [
            (
                json!({"type": "kubernetes.io/tls"}),
                r#"Secret "a" is invalid: [data[tls.crt]: Required value, data[tls.key]: Required value]"#,
            ),
            (
                json!({"type": "kubernetes.io/ssh-auth"}),
                r#"Secret "a" is invalid: data[ssh-privatekey]: Required value"#,
            ),
            (
                json!({"type": "kubernetes.io/basic-auth"}),
                r#"Secret "a" is invalid: [data[username]: Required value, data[password]: Required value]"#,
            ),
            (
                json!({"type": "kubernetes.io/dockerconfigjson"}),
                r#"Secret "a" is invalid: data[.dockerconfigjson]: Required value"#,
            ),
            (
                json!({"type": "kubernetes.io/service-account-token"}),
                r#"Secret "a" is invalid: metadata.annotations[kubernetes.io/service-account.name]: Required value"#,
            ),
        ] {
            assert_eq!(created(&RESOURCE, secret).unwrap_err(), want);
        }
        let broken = created(
            &RESOURCE,
            json!({"type": "kubernetes.io/dockercfg", "stringData": {".dockercfg": "hidden"}}),
        );
        let error = broken.unwrap_err();
        assert!(
            error.contains("<secret contents redacted>") && !error.contains("hidden"),
            "{error}"
        );
    }

    #[test]
    fn its_type_stays() {
        assert_eq!(
            updated(&RESOURCE, None, json!({}), json!({"type": "mine"})).unwrap_err(),
            r#"Secret "a" is invalid: type: Invalid value: "mine": field is immutable"#
        );
    }

    #[test]
    fn rows() {
        assert_eq!(
            cells(&RESOURCE, json!({"data": {"a": ""}})),
            [json!("a"), json!("Opaque"), json!(1), json!("60s")]
        );
    }
}
