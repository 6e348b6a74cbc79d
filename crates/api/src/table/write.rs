//! Writing `meta.k8s.io/v1` Tables and PartialObjectMetadata from stored objects.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::Column;
use crate::catalogue::Resource;
use crate::status::{self, Status};

/// How much of its object a row carries: the `includeObject` query parameter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// Its metadata.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

impl IncludeObject {
    /// The value of the query parameter.
    pub fn parse(parameter: Option<&str>) -> Result<Self, Status> {
        match parameter {
            None | Some("" | "Metadata") => Ok(IncludeObject::Metadata),
            Some("None") => Ok(IncludeObject::None),
            Some("Object") => Ok(IncludeObject::Object),
            Some(other) => Err(status::bad_request(format!(
                "unrecognized includeObject value: {}",
                crate::field::quote(other)
            ))),
        }
    }
}

/// The metadata of a list.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListHead {
    /// The revision of which the list is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    /// The token of the next page, when there is one.
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    pub continue_token: Option<String>,
    /// How many objects the next pages have, when that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remaining_item_count: Option<u64>,
}

const API_VERSION: &str = "meta.k8s.io/v1";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Table<'a> {
    kind: &'static str,
    api_version: &'static str,
    metadata: &'a ListHead,
    column_definitions: Vec<ColumnDefinition>,
    rows: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct ColumnDefinition {
    name: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    format: &'static str,
    description: &'static str,
    priority: i32,
}

impl From<&Column> for ColumnDefinition {
    fn from(column: &Column) -> Self {
        let Column {
            name,
            kind,
            format,
            description,
            priority,
        } = *column;
        ColumnDefinition {
            name,
            kind,
            format,
            description,
            priority,
        }
    }
}

#[derive(Serialize)]
struct Row<'a> {
    cells: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<RowObject<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum RowObject<'a> {
    Metadata(Partial<'a>),
    Whole(Box<RawValue>),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Partial<'a> {
    kind: &'static str,
    api_version: &'static str,
    metadata: &'a RawValue,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PartialList<'a> {
    kind: &'static str,
    api_version: &'static str,
    metadata: &'a ListHead,
    items: Vec<Partial<'a>>,
}

/// The part of stored bytes that every kind has.
#[derive(Deserialize)]
struct Stored<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
}

fn partial(stored: &[u8]) -> Result<Partial<'_>, Status> {
    let Stored { metadata } = serde_json::from_slice(stored).map_err(status::internal)?;
    Ok(Partial {
        kind: "PartialObjectMetadata",
        api_version: API_VERSION,
        metadata,
    })
}

/// The Table of objects, given as their stored and stamped bytes. A watch leaves the `headers` out after its
/// first event.
pub fn table<'a>(
    resource: &Resource,
    objects: impl IntoIterator<Item = &'a [u8]>,
    head: &ListHead,
    include: IncludeObject,
    headers: bool,
    now: Timestamp,
) -> Result<Vec<u8>, Status> {
    let rows = objects
        .into_iter()
        .map(|stored| row(resource, stored, include, now))
        .collect::<Result<_, _>>()?;
    let columns = if headers { resource.strategy.columns() } else { &[] };
    let table = Table {
        kind: "Table",
        api_version: API_VERSION,
        metadata: head,
        column_definitions: columns.iter().map(ColumnDefinition::from).collect(),
        rows,
    };
    serde_json::to_vec(&table).map_err(status::internal)
}

fn row<'a>(resource: &Resource, stored: &'a [u8], include: IncludeObject, now: Timestamp) -> Result<Row<'a>, Status> {
    let loaded = resource.strategy.load(stored)?;
    let object = match include {
        IncludeObject::None => None,
        IncludeObject::Metadata => Some(RowObject::Metadata(partial(stored)?)),
        IncludeObject::Object => {
            let wire = resource.strategy.wire(stored)?;
            Some(RowObject::Whole(
                serde_json::from_slice(&wire).map_err(status::internal)?,
            ))
        }
    };
    Ok(Row {
        cells: resource.strategy.row(&*loaded, now),
        object,
    })
}

/// Stored bytes as a PartialObjectMetadata.
pub fn partial_object(stored: &[u8]) -> Result<Vec<u8>, Status> {
    serde_json::to_vec(&partial(stored)?).map_err(status::internal)
}

/// Objects, given as their stored bytes, as a PartialObjectMetadataList.
pub fn partial_list<'a>(objects: impl IntoIterator<Item = &'a [u8]>, head: &ListHead) -> Result<Vec<u8>, Status> {
    let items = objects.into_iter().map(partial).collect::<Result<_, _>>()?;
    let list = PartialList {
        kind: "PartialObjectMetadataList",
        api_version: API_VERSION,
        metadata: head,
        items,
    };
    serde_json::to_vec(&list).map_err(status::internal)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use serde_json::json;

    use super::*;
    use crate::kinds::config_map::RESOURCE;

    const STORED: &[u8] = br#"{"apiVersion":"v1","kind":"ConfigMap","data":{"a":"1","b":"2"},"metadata":{"name":"m","resourceVersion":"7","creationTimestamp":"2024-01-01T00:00:00Z"}}"#;

    fn parse(bytes: Vec<u8>) -> Value {
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn tables() {
        let now = "2024-01-01T00:00:42Z".parse().unwrap();
        let head = ListHead {
            resource_version: "9".into(),
            ..Default::default()
        };
        let write = |include, headers| parse(table(&RESOURCE, [STORED], &head, include, headers, now).unwrap());
        let full = write(IncludeObject::Metadata, true);
        assert_eq!(
            (&full["kind"], &full["apiVersion"]),
            (&json!("Table"), &json!("meta.k8s.io/v1"))
        );
        assert_eq!(full["metadata"], json!({"resourceVersion": "9"}));
        assert_eq!(full["rows"][0]["cells"], json!(["m", 2, "42s"]));
        assert_eq!(full["rows"][0]["object"]["kind"], "PartialObjectMetadata");
        assert_eq!(full["rows"][0]["object"]["metadata"]["resourceVersion"], "7");
        let names: Vec<_> = full["columnDefinitions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["name"].clone())
            .collect();
        assert_eq!(names, ["Name", "Data", "Age"]);
        assert_eq!(
            write(IncludeObject::Object, false)["rows"][0]["object"]["data"]["b"],
            "2"
        );
        assert_eq!(
            write(IncludeObject::None, false)["rows"][0],
            json!({"cells": ["m", 2, "42s"]})
        );
        assert_eq!(write(IncludeObject::None, false)["columnDefinitions"], json!([]));
    }

    #[test]
    fn metadata_only() {
        let list = parse(partial_list([STORED], &ListHead::default()).unwrap());
        assert_eq!(list["items"][0]["metadata"]["name"], "m");
        assert_eq!(list["items"][0]["apiVersion"], "meta.k8s.io/v1");
        assert!(list["items"][0].get("data").is_none());
    }

    #[test]
    fn include_object() {
        assert_eq!(IncludeObject::parse(None).unwrap(), IncludeObject::Metadata);
        let error = IncludeObject::parse(Some("x")).unwrap_err();
        assert_eq!(error.message(), r#"unrecognized includeObject value: "x""#);
    }
}
