//! Patches: RFC 6902, RFC 7386 and strategic merge, as values in and a value out.

pub(crate) mod keys;
mod lists;
mod strategic;

use serde_json::{Map, Value};

use crate::status::{self, Status};

pub use strategic::strategic_merge;

/// The merge keys of one kind, for strategic merge patches: the type from which its fields are followed.
#[derive(Debug)]
pub struct MergeSchema {
    root: &'static str,
}

impl MergeSchema {
    /// The schema of a type, by its name in OpenAPI.
    pub const fn of(root: &'static str) -> Self {
        MergeSchema { root }
    }

    /// The type's name in OpenAPI.
    pub const fn root(&self) -> &'static str {
        self.root
    }
}

/// The most operations that one JSON patch may have.
const MAX_OPERATIONS: usize = 10_000;

/// Applies a JSON patch (RFC 6902). Either every operation is applied, or none.
pub fn json_patch(mut object: Value, patch: &Value) -> Result<Value, Status> {
    if let Some(count) = patch.as_array().map(Vec::len).filter(|count| *count > MAX_OPERATIONS) {
        return Err(status::too_many_patch_operations(MAX_OPERATIONS, count));
    }
    let operations: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|error| status::bad_request(format!("error decoding patch: {error}")))?;
    match json_patch::patch(&mut object, &operations) {
        Ok(()) => Ok(object),
        Err(error) => {
            let path = &error.path;
            let operation = operations.0.get(error.operation);
            Err(status::unprocessable(match (&error.kind, operation) {
                (json_patch::PatchErrorKind::TestFailed, _) => format!("testing value {path} failed: test failed"),
                (_, Some(operation)) => {
                    let name = operation_name(operation);
                    format!("{name} operation does not apply: doc is missing path: {path}: missing value")
                }
                (_, None) => error.to_string(),
            }))
        }
    }
}

fn operation_name(operation: &json_patch::PatchOperation) -> &'static str {
    match operation {
        json_patch::PatchOperation::Add(_) => "add",
        json_patch::PatchOperation::Remove(_) => "remove",
        json_patch::PatchOperation::Replace(_) => "replace",
        json_patch::PatchOperation::Move(_) => "move",
        json_patch::PatchOperation::Copy(_) => "copy",
        json_patch::PatchOperation::Test(_) => "test",
    }
}

/// Applies a merge patch (RFC 7386): null removes a field, objects are merged, everything else is replaced.
pub fn merge_patch(mut object: Value, patch: &Value) -> Result<Value, Status> {
    object_patch(patch)?;
    json_patch::merge(&mut object, patch);
    Ok(object)
}

/// The fields of a patch, which has to be an object to be merged with one.
fn object_patch(patch: &Value) -> Result<&Map<String, Value>, Status> {
    patch.as_object().ok_or_else(|| {
        let found = match patch {
            Value::Array(_) => "array",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            _ => "null",
        };
        status::bad_request(format!(
            "error decoding patch: json: cannot unmarshal {found} into Go value of type map[string]interface {{}}"
        ))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use serde_json::json;

    use super::*;

    #[test]
    fn json_patches() {
        let object = || json!({"metadata": {"labels": {"a": "1"}}, "list": [1, 2]});
        let patched = json_patch(
            object(),
            &json!([
                {"op": "test", "path": "/metadata/labels/a", "value": "1"},
                {"op": "add", "path": "/metadata/labels/b", "value": "2"},
                {"op": "remove", "path": "/list/0"},
                {"op": "add", "path": "/list/-", "value": 3},
                {"op": "move", "from": "/metadata/labels/a", "path": "/metadata/labels/c"},
            ]),
        );
        assert_eq!(
            patched.unwrap(),
            json!({"metadata": {"labels": {"b": "2", "c": "1"}}, "list": [2, 3]})
        );
        for (patch, code, message) in [
            (
                json!([{"op": "test", "path": "/list/0", "value": 9}]),
                422,
                "testing value /list/0 failed: test failed",
            ),
            (
                json!([{"op": "remove", "path": "/nope"}]),
                422,
                "remove operation does not apply: doc is missing path: /nope: missing value",
            ),
        ] {
            let error = json_patch(object(), &patch).unwrap_err();
            assert_eq!(error.code(), code);
            let causes = error.as_meta().details.as_ref().unwrap().causes.as_ref().unwrap();
            assert_eq!(causes[0].message.as_deref(), Some(message));
        }
        assert_eq!(json_patch(object(), &json!([{"op": "jump"}])).unwrap_err().code(), 400);
        assert_eq!(json_patch(object(), &json!({})).unwrap_err().code(), 400);
    }

    #[test]
    fn merge_patches() {
        let object = json!({"a": {"b": 1, "c": 2}, "list": [1, 2]});
        let patch = json!({"a": {"b": null, "d": {"e": null, "f": 1}}, "list": [3]});
        assert_eq!(
            merge_patch(object.clone(), &patch).unwrap(),
            json!({"a": {"c": 2, "d": {"f": 1}}, "list": [3]})
        );
        assert_eq!(merge_patch(object, &json!([])).unwrap_err().code(), 400);
    }
}
