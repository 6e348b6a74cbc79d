//! Objects as text: the formats of `-o`.

pub mod columns;
pub mod custom;
pub mod json;
pub mod jsonpath;
pub mod sort;
pub mod table;
pub mod tabs;
pub mod yaml;

use std::fs;

use serde_json::Value;

use crate::failure::{Failure, Result};
use custom::CustomColumns;
use jsonpath::Template;

/// The value of `-o`.
#[derive(Debug)]
pub enum Format {
    /// The server's table.
    Table {
        /// With the columns of lower priority.
        wide: bool,
    },
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// `kind/name`.
    Name,
    /// A template; `as_json` prints every value as JSON.
    JsonPath {
        /// The template.
        template: Template,
        /// Each value as a document of its own.
        as_json: bool,
    },
    /// A table of the user's own.
    Custom(CustomColumns),
}

const FORMATS: &str = "custom-columns,custom-columns-file,json,jsonpath,jsonpath-as-json,jsonpath-file,name,wide,yaml";

impl Format {
    /// Understands the value of `-o`.
    pub fn parse(output: Option<&str>) -> Result<Self> {
        let Some(output) = output.filter(|output| !output.is_empty()) else {
            return Ok(Self::Table { wide: false });
        };
        let (name, argument) = output.split_once('=').unwrap_or((output, ""));
        let template = |text: &str, as_json| {
            if text.is_empty() {
                return Err(Failure::message("template format specified but no template given"));
            }
            let template = Template::parse(text)
                .map_err(|reason| Failure::message(format!("error parsing jsonpath {text}, {reason}")))?;
            Ok(Self::JsonPath { template, as_json })
        };
        let file = || {
            fs::read_to_string(argument)
                .map_err(|error| Failure::message(format!("error reading --template {argument}, {error}")))
        };
        match name {
            "json" => Ok(Self::Json),
            "yaml" => Ok(Self::Yaml),
            "name" => Ok(Self::Name),
            "wide" => Ok(Self::Table { wide: true }),
            "jsonpath" => template(argument, false),
            "jsonpath-as-json" => template(argument, true),
            "jsonpath-file" => template(&file()?, false),
            "custom-columns" => CustomColumns::parse(argument)
                .map(Self::Custom)
                .map_err(Failure::message),
            "custom-columns-file" => CustomColumns::parse_file(&file()?)
                .map(Self::Custom)
                .map_err(Failure::message),
            _ => Err(Failure::message(format!(
                "unable to match a printer suitable for the output format {output:?}, allowed formats are: {FORMATS}"
            ))),
        }
    }

    /// One object, or a list that stands for what was asked.
    pub fn print(&self, object: &Value, headers: bool) -> String {
        match self {
            Self::Json => json::to_json(object),
            Self::Yaml => yaml::to_yaml(object),
            Self::JsonPath {
                template,
                as_json: false,
            } => template.render(object),
            Self::JsonPath {
                template,
                as_json: true,
            } => {
                let values: Vec<_> = template.values(object).into_iter().cloned().collect();
                json::to_json(&Value::Array(values))
            }
            Self::Name => items(object).iter().map(|item| format!("{}\n", name(item))).collect(),
            Self::Custom(columns) => columns.table(&items(object), headers),
            Self::Table { .. } => String::new(),
        }
    }
}

fn items(object: &Value) -> Vec<Value> {
    match object.get("items") {
        Some(Value::Array(items)) => items.clone(),
        _ => vec![object.clone()],
    }
}

/// `pod/nginx`, `deployment.apps/web`.
pub fn name(object: &Value) -> String {
    let kind = object["kind"].as_str().unwrap_or_default().to_lowercase();
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    match object["apiVersion"]
        .as_str()
        .and_then(|version| version.split_once('/'))
    {
        Some((group, _)) => format!("{kind}.{group}/{name}"),
        None => format!("{kind}/{name}"),
    }
}

/// Takes away what only other programs read.
pub fn without_managed_fields(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    if let Some(items) = object.get_mut("items").and_then(Value::as_array_mut) {
        items.iter_mut().for_each(without_managed_fields);
    }
}
