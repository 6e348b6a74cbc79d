//! What the tests of every kind do: take JSON through the steps of a write.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use jiff::Timestamp;
use serde_json::Value;

use crate::{FieldValidation, Format, Object, Resource, lifecycle};

/// 2024-01-01, at midnight.
pub(crate) const NOW: i64 = 1_704_067_200;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

/// Decodes strictly and defaults. The object is named `a` unless it says otherwise.
pub(crate) fn decoded(resource: &Resource, mut object: Value) -> Box<dyn Object> {
    let metadata = &mut object
        .as_object_mut()
        .unwrap()
        .entry("metadata")
        .or_insert_with(|| Value::Object(Default::default()));
    metadata
        .as_object_mut()
        .unwrap()
        .entry("name")
        .or_insert_with(|| "a".into());
    let body = object.to_string();
    let mut object = resource
        .strategy
        .decode(body.as_bytes(), Format::Json, FieldValidation::Strict)
        .unwrap()
        .object;
    resource.strategy.default(&mut *object);
    object
}

/// The object as it would be stored by a create in namespace `ns`, or the message of the refusal.
pub(crate) fn created(resource: &Resource, object: Value) -> Result<Box<dyn Object>, String> {
    let mut object = decoded(resource, object);
    lifecycle::before_create(resource, &mut *object, Some("ns"), now())
        .map_err(|status| status.message().to_owned())?;
    Ok(object)
}

/// The object as it would be stored by an update of what `old` creates, or the message of the refusal.
pub(crate) fn updated(resource: &Resource, subresource: Option<&str>, old: Value, new: Value) -> Result<Value, String> {
    let old = created(resource, old).unwrap();
    let mut new = decoded(resource, new);
    lifecycle::before_update(resource, subresource, &mut *new, &*old).map_err(|status| status.message().to_owned())?;
    Ok(new.to_value().unwrap())
}

/// The cells of the row of a new object, one minute after its creation.
pub(crate) fn cells(resource: &Resource, object: Value) -> Vec<Value> {
    let object = created(resource, object).unwrap();
    resource
        .strategy
        .row(&*object, Timestamp::from_second(NOW + 60).unwrap())
}
