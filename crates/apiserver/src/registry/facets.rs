//! What selectors ask of a stored object, read from its bytes once for all readers.

use std::{collections::BTreeMap, sync::OnceLock};

use api::Resource;
use serde::{Deserialize, de::IgnoredAny};
use store::Entry;

/// Labels and selectable fields of one entry.
#[derive(Default)]
pub(crate) struct Facets {
    labels: OnceLock<BTreeMap<String, String>>,
    fields: OnceLock<(&'static [&'static str], Vec<Option<String>>)>,
    terminating: OnceLock<bool>,
}

#[derive(Deserialize)]
struct Head {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

/// What says that an object is on its way out.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ending {
    metadata: EndingMetadata,
    #[serde(default)]
    status: EndingStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EndingMetadata {
    #[serde(default)]
    deletion_timestamp: Option<IgnoredAny>,
}

#[derive(Default, Deserialize)]
struct EndingStatus {
    #[serde(default)]
    phase: Option<String>,
}

impl Facets {
    /// The entry's labels.
    pub fn labels<'a>(&'a self, entry: &Entry) -> &'a BTreeMap<String, String> {
        self.labels.get_or_init(|| {
            serde_json::from_slice::<Head>(&entry.value)
                .ok()
                .and_then(|head| head.metadata.labels)
                .unwrap_or_default()
        })
    }

    /// Whether the object, a namespace, takes in nothing new.
    pub fn is_terminating(&self, entry: &Entry) -> bool {
        *self.terminating.get_or_init(|| {
            serde_json::from_slice::<Ending>(&entry.value).is_ok_and(|found| {
                found.metadata.deletion_timestamp.is_some() || found.status.phase.as_deref() == Some("Terminating")
            })
        })
    }

    /// The value of a selectable field.
    pub fn field(&self, resource: &Resource, entry: &Entry, path: &str) -> Option<String> {
        let mut from_the_end = entry.key.rsplit('/');
        match path {
            "metadata.name" => return from_the_end.next().map(String::from),
            "metadata.namespace" if resource.namespaced => return from_the_end.nth(1).map(String::from),
            _ => {}
        }
        let fields = resource.strategy.fields();
        let (kept, values) = self.fields.get_or_init(|| (fields, read(resource, entry)));
        let at = fields.iter().position(|field| *field == path)?;
        // Two versions of one kind share their entries and may have different fields.
        if *kept == fields {
            values.get(at).cloned().flatten()
        } else {
            read(resource, entry).get(at).cloned().flatten()
        }
    }
}

fn read(resource: &Resource, entry: &Entry) -> Vec<Option<String>> {
    let strategy = resource.strategy;
    match strategy.load(&entry.value) {
        Ok(object) => strategy
            .fields()
            .iter()
            .map(|field| strategy.field(&*object, field))
            .collect(),
        Err(error) => {
            tracing::error!(key = %entry.key, %error, "a stored object can not be read");
            Vec::new()
        }
    }
}
