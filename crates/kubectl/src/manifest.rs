//! Objects from `-f`: files, folders and standard input, YAML or JSON, several to a document and several
//! documents to a file.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::failure::{Failure, Result};
use crate::print::json::to_compact_json;

/// An object and the file it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// The file, or `STDIN`.
    pub source: String,
    /// The object.
    pub object: Value,
}

impl Manifest {
    /// The object's name, which may be missing when the server makes one.
    pub fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// The namespace the object says it is in.
    pub fn namespace(&self) -> Option<&str> {
        self.object["metadata"]["namespace"]
            .as_str()
            .filter(|namespace| !namespace.is_empty())
    }

    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> &str {
        self.object["apiVersion"].as_str().unwrap_or_default()
    }

    /// The object's kind.
    pub fn kind(&self) -> &str {
        self.object["kind"].as_str().unwrap_or_default()
    }
}

/// Every object of the files, in their order; lists are taken apart. Who validates is told of a missing
/// version too.
pub fn read(files: &[String], recursive: bool, validate: bool) -> Result<Vec<Manifest>> {
    let mut manifests = Vec::new();
    for file in files {
        if file == "-" {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .map_err(|error| Failure::message(format!("read standard input: {error}")))?;
            manifests.extend(parse("STDIN", &text, validate)?);
            continue;
        }
        let path = Path::new(file);
        if !path.exists() {
            return Err(Failure::message(format!("the path {file:?} does not exist")));
        }
        for path in expand(path, recursive)? {
            let source = path.display().to_string();
            let text = fs::read_to_string(&path)
                .map_err(|error| Failure::message(format!("error reading {source:?}: {error}")))?;
            manifests.extend(parse(&source, &text, validate)?);
        }
    }
    Ok(manifests)
}

fn expand(path: &Path, recursive: bool) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let failed = |error: std::io::Error| Failure::message(format!("error reading {path:?}: {error}"));
    let mut entries: Vec<_> = fs::read_dir(path)
        .map_err(failed)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    entries.sort();
    let mut files = Vec::new();
    for entry in entries {
        if entry.is_dir() {
            if recursive {
                files.extend(expand(&entry, true)?);
            }
        } else if entry
            .extension()
            .is_some_and(|extension| ["json", "yaml", "yml"].iter().any(|known| extension == *known))
        {
            files.push(entry);
        }
    }
    Ok(files)
}

/// Every object of a text.
pub fn parse(source: &str, text: &str, validate: bool) -> Result<Vec<Manifest>> {
    let mut manifests = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(text) {
        let object = Value::deserialize(document).map_err(|error| {
            Failure::message(format!(
                "error parsing {source}: error converting YAML to JSON: yaml: {}",
                yaml_mistake(&error)
            ))
        })?;
        if object.is_null() {
            continue;
        }
        flatten(source, object, validate, &mut manifests)?;
    }
    Ok(manifests)
}

/// A mistake in YAML with its line first, as upstream's parser says it.
fn yaml_mistake(error: &serde_yaml_ng::Error) -> String {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or(&text);
    match error.location() {
        // Upstream counts the lines before the place.
        Some(place) if place.line() > 1 => format!("line {}: {what}", place.line() - 1),
        Some(place) => format!("line {}: {what}", place.line()),
        None => text,
    }
}

fn flatten(source: &str, object: Value, validate: bool, manifests: &mut Vec<Manifest>) -> Result<()> {
    if !object.is_object() && validate {
        return Err(Failure::message(format!(
            "error validating {source:?}: error validating data: invalid object to validate; if you choose to ignore these errors, turn validation off with --validate=false"
        )));
    }
    if !object.is_object() {
        return Err(Failure::message(format!(
            "unable to decode {source:?}: json: cannot unmarshal {} into Go value of type unstructured.detector",
            match &object {
                Value::Array(_) => "array",
                Value::String(_) => "string",
                Value::Bool(_) => "bool",
                _ => "number",
            }
        )));
    }
    let unset: Vec<_> = ["apiVersion", "kind"]
        .into_iter()
        .filter(|field| object[*field].as_str().is_none_or(str::is_empty))
        .map(|field| format!("{field} not set"))
        .collect();
    if validate && !unset.is_empty() {
        let unset = match unset.as_slice() {
            [one] => one.clone(),
            both => format!("[{}]", both.join(", ")),
        };
        return Err(Failure::message(format!(
            "error validating {source:?}: error validating data: {unset}; if you choose to ignore these errors, turn validation off with --validate=false"
        )));
    }
    if object["kind"].as_str().is_none_or(str::is_empty) {
        return Err(Failure::message(format!(
            "unable to decode {source:?}: Object 'Kind' is missing in '{}'",
            to_compact_json(&object)
        )));
    }
    let is_list = object["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
    match object.get("items") {
        Some(Value::Array(items)) if is_list => {
            for item in items {
                flatten(source, item.clone(), validate, manifests)?;
            }
        }
        _ => manifests.push(Manifest {
            source: source.to_owned(),
            object,
        }),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_and_lists() {
        let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\n# nothing\n---\n\
                    apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: b, namespace: x}}\n";
        let manifests = parse("f", text, true).unwrap_or_default();
        let found: Vec<_> = manifests.iter().map(|m| (m.name(), m.namespace())).collect();
        assert_eq!(found, [("a", None), ("b", Some("x"))]);
    }

    #[test]
    fn mistakes_name_the_file() {
        for (text, reason) in [
            (
                "a: 1",
                "error: unable to decode \"f\": Object 'Kind' is missing in '{\"a\":1}'\n",
            ),
            (
                "- 1",
                "error: unable to decode \"f\": json: cannot unmarshal array into Go value of type unstructured.detector\n",
            ),
        ] {
            let error = parse("f", text, false)
                .err()
                .map(|error| error.text())
                .unwrap_or_default();
            assert_eq!(error, reason, "{text}");
        }
        let error = parse("f", "a: [", false)
            .err()
            .map(|error| error.text())
            .unwrap_or_default();
        assert!(
            error.starts_with("error: error parsing f: error converting YAML to JSON: yaml: "),
            "{error}"
        );
    }
}
