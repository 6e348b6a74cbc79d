//! The walk of a value along its type.
//!
//! It finds fields that the type does not have and values of the wrong type, and changes what the types of
//! `k8s-openapi` read otherwise than Go does: what is null or empty is left out, quantities become canonical.

use serde_json::Value;

use super::origin::{Words, unconverted};
use crate::field::Path;
use crate::quantity::Quantity;
use crate::schema::{Struct, Type, Types};

/// Checks `value` against `ty`: the paths of unknown fields, or upstream's message for a wrong type.
pub(super) fn check(types: &Types, ty: &Type, value: &mut Value, words: Words) -> Result<Vec<String>, String> {
    let mut walk = Walk {
        types,
        words,
        unknown: Vec::new(),
    };
    walk.value(
        ty,
        value,
        &Place {
            path: None,
            names: None,
            owner: None,
        },
    )?;
    Ok(walk.unknown)
}

/// What JSON calls the type of a value, as Go's errors do.
pub(super) fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

struct Walk<'t> {
    types: &'t Types,
    words: Words,
    unknown: Vec<String>,
}

/// Where a value is: `path` with indices and keys, `names` with the names of fields only, and the innermost
/// type that has it as a field.
#[derive(Clone, Copy)]
struct Place<'a> {
    path: Option<&'a Path<'a>>,
    names: Option<&'a Path<'a>>,
    owner: Option<&'a Struct>,
}

fn below<'a>(path: Option<&'a Path<'a>>, name: &'a str) -> Path<'a> {
    match path {
        Some(path) => path.child(name),
        None => Path::new(name),
    }
}

impl Walk<'_> {
    fn value(&mut self, ty: &Type, value: &mut Value, place: &Place<'_>) -> Result<(), String> {
        match (ty, &mut *value) {
            (_, Value::Null) | (Type::Any, _) => {}
            (Type::String, Value::String(_)) | (Type::Boolean, Value::Bool(_)) => {}
            (Type::Number, Value::Number(_)) => {}
            (Type::Int32, Value::Number(n)) if n.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) => {}
            (Type::Int64, Value::Number(n)) if n.is_i64() => {}
            (Type::IntOrString, Value::String(_) | Value::Number(_)) => {}
            (Type::Bytes, Value::String(text)) => base64(text)?,
            (Type::Time, Value::String(text)) => time(text)?,
            (Type::Quantity, Value::String(_) | Value::Number(_)) => {
                let text = value
                    .as_str()
                    .map_or_else(|| value.to_string(), |text| text.trim().to_owned());
                let quantity: Quantity = text.parse().map_err(|error| format!("{error}"))?;
                *value = Value::String(quantity.to_string());
            }
            (Type::List(item), Value::Array(items)) => {
                for (at, element) in items.iter_mut().enumerate() {
                    if element.is_null() {
                        *element = zero(item);
                    }
                    let path = place.path.map(|path| path.index(at));
                    self.value(
                        item,
                        element,
                        &Place {
                            path: path.as_ref(),
                            ..*place
                        },
                    )?;
                }
            }
            (Type::Map(item), Value::Object(entries)) => {
                for (key, element) in entries.iter_mut() {
                    if element.is_null() {
                        *element = zero(item);
                    }
                    let path = below(place.path, key);
                    self.value(
                        item,
                        element,
                        &Place {
                            path: Some(&path),
                            ..*place
                        },
                    )?;
                }
            }
            (Type::Struct(at), Value::Object(entries)) => {
                let owner = self.types.fields(*at);
                entries.retain(|key, element| match owner.field(key) {
                    Some(field) => !is_nothing(&field.ty, element),
                    None => {
                        self.unknown.push(below(place.path, key).to_string());
                        false
                    }
                });
                for (key, element) in entries.iter_mut() {
                    let Some(field) = owner.field(key) else { continue };
                    let (path, names) = (below(place.path, key), below(place.names, key));
                    let inner = Place {
                        path: Some(&path),
                        names: Some(&names),
                        owner: Some(owner),
                    };
                    self.value(&field.ty, element, &inner)?;
                }
            }
            _ => return Err(self.mismatch(ty, value, place)),
        }
        Ok(())
    }

    fn mismatch(&self, ty: &Type, value: &Value, place: &Place<'_>) -> String {
        if self.words == Words::Converter {
            return unconverted(self.types, ty, value);
        }
        let found = match (ty, value) {
            (Type::Int32 | Type::Int64, Value::Number(number)) => format!("number {number}"),
            _ => json_type(value).to_owned(),
        };
        let wanted = self.types.go_name(ty);
        match (place.owner, place.names) {
            (Some(owner), Some(names)) => format!(
                "json: cannot unmarshal {found} into Go struct field {}.{names} of type {wanted}",
                owner.short_name()
            ),
            _ => format!("json: cannot unmarshal {found} into Go value of type {wanted}"),
        }
    }
}

/// Whether a field's value says no more than its absence: upstream stores no nulls, empty lists and empty maps.
fn is_nothing(ty: &Type, value: &Value) -> bool {
    match (ty, value) {
        (_, Value::Null) => true,
        (Type::List(_), Value::Array(items)) => items.is_empty(),
        (Type::Map(_), Value::Object(entries)) => entries.is_empty(),
        _ => false,
    }
}

/// What a null is in a list or map, where it cannot be left out.
fn zero(ty: &Type) -> Value {
    match ty {
        Type::String | Type::Bytes => "".into(),
        Type::Quantity => "0".into(),
        Type::Boolean => false.into(),
        Type::Int32 | Type::Int64 | Type::Number | Type::IntOrString => 0.into(),
        Type::List(_) => Value::Array(Vec::new()),
        Type::Map(_) | Type::Struct(_) => Value::Object(serde_json::Map::new()),
        Type::Time | Type::Any => Value::Null,
    }
}

fn base64(text: &str) -> Result<(), String> {
    use base64::DecodeError;
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD
        .decode(text)
        .map(|_| ())
        .map_err(|error| {
            let at = match error {
                DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol { offset: at, .. } => at,
                _ => text.len(),
            };
            format!("illegal base64 data at input byte {at}")
        })
}

fn time(text: &str) -> Result<(), String> {
    match text.parse::<jiff::Timestamp>() {
        Ok(_) => Ok(()),
        Err(_) => Err(format!(
            "parsing time {0} as \"2006-01-02T15:04:05Z07:00\": cannot parse {0} as \"2006\"",
            crate::field::quote(text)
        )),
    }
}
