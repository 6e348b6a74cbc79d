//! Validation errors: a field's path, what is wrong with it, and upstream's words for that.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

/// The path of a field, as a chain of borrowed segments: nothing is allocated until an error is made.
///
/// ```
/// use api::Path;
/// let spec = Path::new("spec");
/// assert_eq!(spec.child("containers").index(0).child("name").to_string(), "spec.containers[0].name");
/// assert_eq!(Path::new("data").key("a.txt").to_string(), "data[a.txt]");
/// // Upstream's path of no field, which stands for the whole object.
/// assert_eq!(Path::new("").to_string(), "[]");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    segment: Segment<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Segment<'a> {
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    /// A path of one field.
    pub const fn new(field: &'a str) -> Self {
        Path {
            parent: None,
            segment: Segment::Field(field),
        }
    }

    /// The field `name` of the value at this path.
    pub fn child(&'a self, name: &'a str) -> Path<'a> {
        Path {
            parent: Some(self),
            segment: Segment::Field(name),
        }
    }

    /// The element `index` of the list at this path.
    pub fn index(&'a self, index: usize) -> Path<'a> {
        Path {
            parent: Some(self),
            segment: Segment::Index(index),
        }
    }

    /// The value under `key` of the map at this path.
    pub fn key(&'a self, key: &'a str) -> Path<'a> {
        Path {
            parent: Some(self),
            segment: Segment::Key(key),
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.segment {
            Segment::Field("") => f.write_str("[]"),
            Segment::Field(name) if self.parent.is_some() => write!(f, ".{name}"),
            Segment::Field(name) => f.write_str(name),
            Segment::Index(index) => write!(f, "[{index}]"),
            Segment::Key(key) => write!(f, "[{key}]"),
        }
    }
}

/// What is wrong with a field, in upstream's classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldErrorKind {
    /// The value names something that is not there.
    NotFound,
    /// A value has to be given.
    Required,
    /// The value has to be unique, and is not.
    Duplicate,
    /// The value breaks a rule.
    Invalid,
    /// The value is none of an enumeration.
    NotSupported,
    /// The field may not be set, or not be changed, here.
    Forbidden,
    /// The value has too many bytes.
    TooLong,
    /// The list has too many items.
    TooMany,
    /// The value has the wrong type.
    TypeInvalid,
    /// The server could not decide.
    Internal,
}

impl FieldErrorKind {
    /// The words that open the message.
    pub const fn title(self) -> &'static str {
        match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
        }
    }

    /// The reason of the cause in a Status.
    pub const fn cause(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Internal => "InternalError",
        }
    }

    /// Whether the message quotes the value.
    const fn quotes_value(self) -> bool {
        !matches!(self, Self::Required | Self::Forbidden | Self::TooLong | Self::Internal)
    }
}

/// One failed check of one field. `Display` is upstream's message, path first.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// The class of the failure.
    pub kind: FieldErrorKind,
    /// The field, as upstream writes it.
    pub field: String,
    /// The value that failed; null where the message does not show it.
    pub bad_value: Value,
    /// The rule, in words.
    pub detail: String,
}

impl FieldError {
    fn new(kind: FieldErrorKind, path: &Path<'_>, value: Value, detail: impl Into<String>) -> Self {
        FieldError {
            kind,
            field: path.to_string(),
            bad_value: value,
            detail: detail.into(),
        }
    }

    /// The value breaks a rule, told by `detail`.
    pub fn invalid(path: &Path<'_>, value: impl Serialize, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Invalid, path, to_value(value), detail)
    }

    /// The field has to be set; `detail` may be empty.
    pub fn required(path: &Path<'_>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Required, path, Value::String(String::new()), detail)
    }

    /// The value is there twice.
    pub fn duplicate(path: &Path<'_>, value: impl Serialize) -> Self {
        Self::new(FieldErrorKind::Duplicate, path, to_value(value), "")
    }

    /// The value names something that is not there.
    pub fn not_found(path: &Path<'_>, value: impl Serialize) -> Self {
        Self::new(FieldErrorKind::NotFound, path, to_value(value), "")
    }

    /// The value is none of `supported`, which the message lists in the given order.
    pub fn not_supported(path: &Path<'_>, value: impl Serialize, supported: &[&str]) -> Self {
        let mut detail = String::new();
        for (i, value) in supported.iter().enumerate() {
            detail.push_str(if i == 0 { "supported values: " } else { ", " });
            detail.push_str(&quote(value));
        }
        Self::new(FieldErrorKind::NotSupported, path, to_value(value), detail)
    }

    /// The field may not be set or changed here.
    pub fn forbidden(path: &Path<'_>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Forbidden, path, Value::String(String::new()), detail)
    }

    /// The value has more than `max` bytes.
    pub fn too_long(path: &Path<'_>, max: usize) -> Self {
        let detail = format!("may not be more than {max} bytes");
        Self::new(
            FieldErrorKind::TooLong,
            path,
            Value::String("<value omitted>".into()),
            detail,
        )
    }

    /// The list has `actual` items, more than `max`.
    pub fn too_many(path: &Path<'_>, actual: usize, max: usize) -> Self {
        let plural = if max == 1 { "" } else { "s" };
        Self::new(
            FieldErrorKind::TooMany,
            path,
            actual.into(),
            format!("must have at most {max} item{plural}"),
        )
    }

    /// The server could not check the field.
    pub fn internal(path: &Path<'_>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Internal, path, Value::Null, detail)
    }

    /// The message without the path: what a Status gives as a cause's message.
    pub fn body(&self) -> String {
        let mut out = self.kind.title().to_owned();
        if self.kind.quotes_value() {
            out.push_str(": ");
            match &self.bad_value {
                Value::String(s) => out.push_str(&quote(s)),
                other => out.push_str(&other.to_string()),
            }
        }
        if !self.detail.is_empty() {
            out.push_str(": ");
            out.push_str(&self.detail);
        }
        out
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

impl std::error::Error for FieldError {}

fn to_value(value: impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

/// A string in double quotes, escaped as Go's `%q` does it.
pub fn quote(s: &str) -> String {
    let mut out = String::with_capacity(s.len() + 2);
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c == '\u{7f}' => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_upstreams() {
        let spec = Path::new("spec");
        let containers = spec.child("containers");
        let first = containers.index(0);
        let name = first.child("name");
        let cases = [
            (
                FieldError::required(&name, ""),
                "spec.containers[0].name: Required value",
            ),
            (
                FieldError::invalid(&name, "A", "must be lower"),
                r#"spec.containers[0].name: Invalid value: "A": must be lower"#,
            ),
            (
                FieldError::invalid(&spec.child("n"), 3, "must be 4"),
                "spec.n: Invalid value: 3: must be 4",
            ),
            (
                FieldError::duplicate(&name, "a"),
                r#"spec.containers[0].name: Duplicate value: "a""#,
            ),
            (
                FieldError::not_supported(&name, "x", &["a", "b"]),
                r#"spec.containers[0].name: Unsupported value: "x": supported values: "a", "b""#,
            ),
            (
                FieldError::too_long(&name, 63),
                "spec.containers[0].name: Too long: may not be more than 63 bytes",
            ),
            (
                FieldError::too_many(&containers, 5, 3),
                "spec.containers: Too many: 5: must have at most 3 items",
            ),
            (FieldError::forbidden(&spec, "no"), "spec: Forbidden: no"),
            (
                FieldError::not_found(&name, "v"),
                r#"spec.containers[0].name: Not found: "v""#,
            ),
        ];
        for (error, want) in cases {
            assert_eq!(error.to_string(), want);
        }
    }
}
