//! Tables of specs and of what upstream says of them.

mod create;
mod update;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::field::FieldError;
use crate::kinds::pod::defaults;

/// A defaulted pod of a name.
fn pod(spec: Value) -> Pod {
    let mut pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec}))
        .unwrap_or_else(|error| panic!("a fixture: {error}"));
    defaults::pod(&mut pod);
    pod
}

/// A spec with one container, made of `more`.
fn one(mut more: Value) -> Value {
    let defaults = json!({"name": "c", "image": "i"});
    for (key, value) in defaults.as_object().into_iter().flatten() {
        if more.get(key).is_none() {
            more[key] = value.clone();
        }
    }
    json!({"containers": [more]})
}

/// A spec with a good container and `more`.
fn with(mut more: Value) -> Value {
    if more.get("containers").is_none() {
        more["containers"] = json!([{"name": "c", "image": "i"}]);
    }
    more
}

fn shown(errors: &[FieldError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}
