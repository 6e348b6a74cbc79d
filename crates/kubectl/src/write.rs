//! What commands that change objects share: validation levels, namespaces, the line that says what was done.

use serde_json::Value;

use crate::connection::Connection;
use crate::failure::{Failure, Result};
use crate::flags::DryRun;
use crate::manifest::Manifest;
use crate::mapping::Kind;
use crate::output;
use crate::print::{Format, name, without_managed_fields};

/// The server's word for a value of `--validate`.
pub fn field_validation(validate: &str) -> Result<&'static str> {
    match validate {
        "strict" | "true" => Ok("Strict"),
        "warn" => Ok("Warn"),
        "ignore" | "false" => Ok("Ignore"),
        other => Err(Failure::message(format!(
            "invalid - validate option {other:?}; must be one of: strict (or true), warn, ignore (or false)"
        ))),
    }
}

/// The namespace of an object of a file: its own, or the command's. Both given must agree.
pub fn namespace_of(connection: &Connection, given: Option<&str>, manifest: &Manifest, kind: &Kind) -> Result<String> {
    let own = manifest.namespace();
    if let (true, Some(given), Some(own)) = (kind.namespaced, given, own)
        && given != own
    {
        return Err(Failure::message(format!(
            "the namespace from the provided object {own:?} does not match the namespace {given:?}. You must pass '--namespace={own}' to perform this operation."
        )));
    }
    Ok(own.unwrap_or(&connection.namespace).to_owned())
}

/// The object with its namespace filled in.
pub fn placed(manifest: &Manifest, kind: &Kind, namespace: &str) -> Value {
    let mut object = manifest.object.clone();
    if kind.namespaced
        && manifest.namespace().is_none()
        && let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
    {
        metadata.insert("namespace".into(), namespace.into());
    }
    object
}

/// What was done, object by object: `pod/nginx created`, or each object in the format asked for.
pub struct Reports {
    format: Option<Format>,
    dry_run: DryRun,
    begun: bool,
}

impl Reports {
    /// Understands the value of `-o`, when there is one.
    pub fn new(format: Option<&str>, dry_run: DryRun) -> Result<Self> {
        let format = format.map(|format| Format::parse(Some(format))).transpose()?;
        Ok(Self {
            format,
            dry_run,
            begun: false,
        })
    }

    /// Says what was done to one object.
    pub fn report(&mut self, object: &Value, operation: &str) -> Result<()> {
        let Some(format) = &self.format else {
            return output(&format!("{} {operation}{}\n", name(object), self.dry_run.note()));
        };
        let mut object = object.clone();
        without_managed_fields(&mut object);
        let another = std::mem::replace(&mut self.begun, true) && matches!(format, Format::Yaml);
        let separator = if another { "---\n" } else { "" };
        output(&format!("{separator}{}", format.print(&object, true)))
    }
}

/// The end of a command that goes on past failures.
pub fn finish(mut failures: Vec<Failure>) -> Result<()> {
    match failures.len() {
        0 => Ok(()),
        1 => Err(failures.remove(0)),
        _ => Err(Failure::Several(failures)),
    }
}
