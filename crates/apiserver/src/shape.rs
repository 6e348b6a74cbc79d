//! Objects as tables and as bare metadata.

use api::{Resource, Status, status};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use crate::call::Call;

/// What of an object a table's row carries beside its cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Include {
    None,
    Metadata,
    Object,
}

/// How a kind's tables are written for one request.
pub(crate) struct Table {
    resource: &'static Resource,
    include: Include,
    /// Whether the columns are described.
    pub headings: bool,
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
}

#[derive(Deserialize)]
struct Versioned<'a> {
    #[serde(borrow, rename = "resourceVersion", default)]
    version: &'a str,
}

/// An object's metadata, as its bytes have it.
fn raw_metadata(stored: &[u8]) -> Result<&str, Status> {
    serde_json::from_slice::<Head<'_>>(stored)
        .map(|head| head.metadata.get())
        .map_err(status::internal)
}

/// Writes an object as `PartialObjectMetadata`.
pub(crate) fn metadata(stored: &[u8], out: &mut Vec<u8>) -> Result<(), Status> {
    let metadata = raw_metadata(stored)?;
    out.extend_from_slice(br#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":"#);
    out.extend_from_slice(metadata.as_bytes());
    out.push(b'}');
    Ok(())
}

impl Table {
    pub fn of(call: &Call<'_>) -> Self {
        let include = match call.query.get("includeObject") {
            Some("None") => Include::None,
            Some("Object") => Include::Object,
            _ => Include::Metadata,
        };
        Self {
            resource: call.resource,
            include,
            headings: true,
        }
    }

    /// Writes the table of one object.
    pub fn one(&self, stored: &[u8], out: &mut Vec<u8>) -> Result<(), Status> {
        let version = serde_json::from_str::<Versioned<'_>>(raw_metadata(stored)?)
            .map_err(status::internal)?
            .version;
        self.begin(&format!(r#"{{"resourceVersion":"{version}"}}"#), out);
        self.row(stored, out)?;
        out.extend_from_slice(b"]}");
        Ok(())
    }

    /// Writes the table of a list, whose metadata is given as JSON.
    pub fn many<'a>(
        &self,
        metadata: &str,
        objects: impl Iterator<Item = &'a [u8]>,
        out: &mut Vec<u8>,
    ) -> Result<(), Status> {
        self.begin(metadata, out);
        for (index, stored) in objects.enumerate() {
            if index > 0 {
                out.push(b',');
            }
            self.row(stored, out)?;
        }
        out.extend_from_slice(b"]}");
        Ok(())
    }

    fn begin(&self, metadata: &str, out: &mut Vec<u8>) {
        let columns = self.headings.then(|| {
            let columns = self.resource.strategy.columns().iter();
            let columns = columns.map(|column| {
                json!({
                    "name": column.name, "type": column.kind, "format": column.format,
                    "description": column.description, "priority": column.priority,
                })
            });
            columns.collect::<Vec<_>>()
        });
        out.extend_from_slice(br#"{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":"#);
        out.extend_from_slice(metadata.as_bytes());
        out.extend_from_slice(b",\"columnDefinitions\":");
        out.extend_from_slice(json!(columns).to_string().as_bytes());
        out.extend_from_slice(b",\"rows\":[");
    }

    fn row(&self, stored: &[u8], out: &mut Vec<u8>) -> Result<(), Status> {
        let strategy = self.resource.strategy;
        let object = strategy.load(stored)?;
        let cells = strategy.row(&*object, Timestamp::now());
        out.extend_from_slice(b"{\"cells\":");
        serde_json::to_writer(&mut *out, &cells).map_err(status::internal)?;
        out.extend_from_slice(b",\"object\":");
        match self.include {
            Include::None => out.extend_from_slice(b"null"),
            Include::Metadata => metadata(stored, out)?,
            Include::Object => out.extend_from_slice(&strategy.wire(stored)?),
        }
        out.push(b'}');
        Ok(())
    }
}
