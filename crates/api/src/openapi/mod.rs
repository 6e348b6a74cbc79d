//! The OpenAPI documents: one of version 3 for each group and version, an index of them, and one of
//! version 2 for everything.
//!
//! kubectl reads them for `explain`, for how lists are merged by `apply`, and to find out whether the server
//! validates fields. They are made when first asked for, and then kept as bytes.

mod paths;
mod schemas;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::catalogue::Catalogue;

/// The version of Kubernetes that the documents are of.
pub const VERSION: &str = "v1.36.0";

/// The form of a document: they differ in where schemas stand and how bodies are described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    V2,
    V3,
}

impl Form {
    fn reference(self, name: &str) -> Value {
        let place = match self {
            Form::V2 => "definitions",
            Form::V3 => "components/schemas",
        };
        json!({"$ref": format!("#/{place}/{name}")})
    }
}

/// A document, and a hash that changes with it.
#[derive(Debug)]
pub struct Document {
    /// The JSON.
    pub bytes: Bytes,
    /// Hexadecimal; the entity tag.
    pub hash: String,
}

impl Document {
    fn new(value: &Value) -> Self {
        let text = value.to_string();
        let hash = Sha256::digest(&text).iter().map(|byte| format!("{byte:02X}")).collect();
        Document {
            bytes: Bytes::from(text),
            hash,
        }
    }
}

/// All documents.
#[derive(Debug)]
pub struct OpenApi {
    index: Document,
    v3: BTreeMap<String, Document>,
}

impl OpenApi {
    /// The documents of the built-in resources.
    pub fn builtin() -> &'static OpenApi {
        static BUILTIN: LazyLock<OpenApi> = LazyLock::new(|| OpenApi::new(Catalogue::builtin()));
        &BUILTIN
    }

    fn new(catalogue: &Catalogue) -> Self {
        let schemas = schemas::all(catalogue, Form::V3);
        let mut v3 = BTreeMap::new();
        for (group, versions) in catalogue.groups() {
            for version in versions {
                let paths = paths::of_version(catalogue, group, version, Form::V3);
                let used = schemas::reachable(&schemas, &paths);
                let document = json!({
                    "openapi": "3.0.0",
                    "info": {"title": "Kubernetes", "version": VERSION},
                    "paths": paths,
                    "components": {"schemas": used},
                });
                v3.insert(prefix(group, version), Document::new(&document));
            }
        }
        let paths: Map<String, Value> = v3
            .iter()
            .map(|(path, document)| {
                let url = format!("/openapi/v3/{path}?hash={}", document.hash);
                (path.clone(), json!({"serverRelativeURL": url}))
            })
            .collect();
        OpenApi {
            index: Document::new(&json!({"paths": paths})),
            v3,
        }
    }

    /// `/openapi/v3`
    pub fn index(&self) -> &Document {
        &self.index
    }

    /// `/openapi/v3/PATH`, where the path is `api/v1` or `apis/GROUP/VERSION`.
    pub fn v3(&self, path: &str) -> Option<&Document> {
        self.v3.get(path)
    }

    /// `/openapi/v2`
    pub fn v2(&self) -> &'static Document {
        static V2: LazyLock<Document> = LazyLock::new(|| {
            let catalogue = Catalogue::builtin();
            let mut paths = Map::new();
            for (group, versions) in catalogue.groups() {
                for version in versions {
                    paths.append(&mut paths::of_version(catalogue, group, version, Form::V2));
                }
            }
            Document::new(&json!({
                "swagger": "2.0",
                "info": {"title": "Kubernetes", "version": VERSION},
                "paths": paths,
                "definitions": schemas::all(catalogue, Form::V2),
            }))
        });
        &V2
    }
}

/// `api/v1` or `apis/GROUP/VERSION`.
fn prefix(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("api/{version}")
    } else {
        format!("apis/{group}/{version}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn document(path: &str) -> Value {
        serde_json::from_slice(&OpenApi::builtin().v3(path).unwrap().bytes).unwrap()
    }

    /// Every `$ref` of a document.
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    match value.as_str() {
                        Some(target) if key == "$ref" => found.push(target),
                        _ => references(value, found),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn kubectl_finds_what_it_looks_for() {
        let core = document("api/v1");
        let kind = json!({"group": "", "version": "v1", "kind": "ConfigMap"});
        let item = &core["paths"]["/api/v1/namespaces/{namespace}/configmaps/{name}"];
        assert_eq!(item["patch"]["x-kubernetes-group-version-kind"], kind);
        assert_eq!(item["patch"]["x-kubernetes-action"], "patch");
        let parameters = item["patch"]["parameters"].as_array().unwrap();
        assert!(
            parameters
                .iter()
                .any(|p| p["name"] == "fieldValidation" && p["in"] == "query")
        );
        assert!(core["paths"]["/api/v1/namespaces/{namespace}/configmaps"]["post"].is_object());
        assert!(core["paths"]["/api/v1/configmaps"]["get"].is_object());
        let schema = &core["components"]["schemas"]["io.k8s.api.core.v1.ConfigMap"];
        assert_eq!(schema["x-kubernetes-group-version-kind"], json!([kind]));
        assert!(schema.get("required").is_none());
        assert_eq!(
            schema["properties"]["metadata"]["allOf"][0]["$ref"],
            "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
        );
        let meta = &core["components"]["schemas"]["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"];
        assert_eq!(
            meta["properties"]["ownerReferences"]["x-kubernetes-patch-merge-key"],
            "uid"
        );
        assert_eq!(
            meta["properties"]["ownerReferences"]["x-kubernetes-patch-strategy"],
            "merge"
        );
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let open_api = OpenApi::builtin();
        let documents = open_api.v3.values().chain([open_api.v2()]);
        for document in documents {
            let value: Value = serde_json::from_slice(&document.bytes).unwrap();
            let mut found = Vec::new();
            references(&value, &mut found);
            for target in found {
                assert!(value.pointer(&target[1..]).is_some(), "{target}");
            }
        }
    }

    #[test]
    fn the_index_names_every_version() {
        let index: Value = serde_json::from_slice(&OpenApi::builtin().index().bytes).unwrap();
        let url = index["paths"]["apis/coordination.k8s.io/v1"]["serverRelativeURL"]
            .as_str()
            .unwrap();
        assert!(
            url.starts_with("/openapi/v3/apis/coordination.k8s.io/v1?hash="),
            "{url}"
        );
    }
}
