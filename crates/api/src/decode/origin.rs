//! Where a value comes from, and what upstream says of one that does not fit its kind.

use serde_json::Value;

use super::check::json_type;
use crate::field::{FieldError, Path};
use crate::schema::{Type, Types};
use crate::status::{self, Status};

/// What a value was made by.
#[derive(Clone, Copy, Debug)]
pub enum Origin<'a> {
    /// It is what a request or a file has.
    Whole,
    /// A JSON patch or a merge patch made it.
    Patch,
    /// This strategic merge patch made it.
    StrategicPatch(&'a Value),
}

impl Origin<'_> {
    pub(super) fn words(self) -> Words {
        match self {
            Origin::Whole | Origin::Patch => Words::Decoder,
            Origin::StrategicPatch(_) => Words::Converter,
        }
    }
}

/// Whose words are used for a value of the wrong type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Words {
    /// Go's JSON decoder.
    Decoder,
    /// Upstream's converter, which turns what a strategic merge patch made into an object and names no field.
    Converter,
}

/// A patch whose result does not fit its kind: `patched` is what is shown of it.
pub(super) fn unfit(patched: String, why: String) -> Status {
    status::invalid("", "", "", &[FieldError::invalid(&Path::new("patch"), patched, why)])
}

/// What upstream's converter says of a value that is not of type `ty`.
pub(super) fn unconverted(types: &Types, ty: &Type, value: &Value) -> String {
    let found = match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
    };
    let wanted = types.go_name(ty);
    match (ty, value) {
        (Type::Struct(_), _) => format!("cannot restore struct from: {found}"),
        (Type::Map(_), _) => format!("cannot restore map from {found}"),
        (Type::List(_) | Type::Bytes, _) => format!("cannot restore slice from {found}"),
        // Go has a conversion for these, which is not JSON's.
        (Type::String, Value::Number(number)) if !number.is_f64() => format!("cannot convert {found} to {wanted}"),
        (Type::Int32 | Type::Int64, Value::Number(_)) => format!("cannot convert {found} to {wanted}"),
        (Type::String | Type::Boolean | Type::Int32 | Type::Int64 | Type::Number, _) => {
            format!("unrecognized type: {wanted}")
        }
        _ => format!(
            "json: cannot unmarshal {} into Go value of type {wanted}",
            json_type(value)
        ),
    }
}

/// A value as Go prints it: `map[a:1 b:[x y]]`.
pub(super) fn printed(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(printed).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(fields) => {
            let mut fields: Vec<(&String, &Value)> = fields.iter().collect();
            fields.sort_by_key(|(key, _)| *key);
            let fields: Vec<String> = fields
                .into_iter()
                .map(|(key, value)| format!("{key}:{}", printed(value)))
                .collect();
            format!("map[{}]", fields.join(" "))
        }
        other => other.to_string(),
    }
}
