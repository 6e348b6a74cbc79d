//! Discovery: what groups, versions and resources are served, plain and aggregated.

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::catalogue::{Catalogue, Resource, Subresource, Verb};

/// The media type's parameters that ask for the aggregated form.
pub const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// `/api`: the versions of the core group. `server` is the host and port that clients reach.
pub fn core_versions(server: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server}],
    })
}

/// `/apis`: every named group.
pub fn groups(catalogue: &Catalogue) -> Value {
    let groups: Vec<Value> = catalogue
        .groups()
        .iter()
        .filter(|(group, _)| !group.is_empty())
        .map(|(group, versions)| Value::Object(group_fields(group, versions)))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`: the versions of one named group.
pub fn group(catalogue: &Catalogue, name: &str) -> Option<Value> {
    let groups = catalogue.groups();
    let (group, versions) = groups.iter().find(|(group, _)| *group == name && !name.is_empty())?;
    let mut fields = group_fields(group, versions);
    fields.insert("kind".into(), "APIGroup".into());
    fields.insert("apiVersion".into(), "v1".into());
    Some(Value::Object(fields))
}

fn group_fields(group: &str, versions: &[&str]) -> Map<String, Value> {
    let version = |version: &str| json!({"groupVersion": format!("{group}/{version}"), "version": version});
    let mut fields = Map::new();
    fields.insert("name".into(), group.into());
    fields.insert("versions".into(), versions.iter().map(|v| version(v)).collect());
    fields.insert(
        "preferredVersion".into(),
        versions.first().map_or(Value::Null, |v| version(v)),
    );
    fields
}

/// `/api/v1` and `/apis/GROUP/VERSION`: the resources of one version.
pub fn resources(catalogue: &Catalogue, group: &str, version: &str) -> Option<Value> {
    let mut list = Vec::new();
    for resource in catalogue
        .resources()
        .iter()
        .filter(|r| r.group == group && r.version == version)
    {
        list.push(plain(resource));
        list.extend(
            resource
                .subresources
                .iter()
                .map(|subresource| plain_subresource(resource, subresource)),
        );
    }
    if list.is_empty() {
        return None;
    }
    let mut document = json!({
        "kind": "APIResourceList",
        "groupVersion": if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") },
        "resources": list,
    });
    if !group.is_empty() {
        document["apiVersion"] = "v1".into();
    }
    Some(document)
}

fn verbs(verbs: &[Verb]) -> Value {
    verbs.iter().map(|verb| verb.as_str()).collect()
}

fn plain(resource: &Resource) -> Value {
    let mut entry = json!({
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": verbs(resource.verbs),
    });
    if !resource.short_names.is_empty() {
        entry["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        entry["categories"] = json!(resource.categories);
    }
    if !resource.storage.is_empty() {
        entry["storageVersionHash"] = storage_version_hash(resource).into();
    }
    entry
}

fn plain_subresource(resource: &Resource, subresource: &Subresource) -> Value {
    let mut entry = json!({
        "name": format!("{}/{}", resource.plural, subresource.name),
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": subresource.kind,
        "verbs": verbs(subresource.verbs),
    });
    if (subresource.group, subresource.version) != (resource.group, resource.version) {
        if !subresource.group.is_empty() {
            entry["group"] = subresource.group.into();
        }
        entry["version"] = subresource.version.into();
    }
    entry
}

/// Tells clients whether objects are stored as another kind or version than before.
fn storage_version_hash(resource: &Resource) -> String {
    use base64::Engine as _;
    // Events of both versions are stored as those of the core group.
    let group = if resource.storage == "events" {
        ""
    } else {
        resource.group
    };
    let hash = Sha256::digest(format!("{group}/{}/{}", resource.version, resource.kind));
    base64::engine::general_purpose::STANDARD.encode(&hash[..8])
}

/// The aggregated form of `/api` (for `core`) or `/apis`: all resources of all versions at once.
pub fn aggregated(catalogue: &Catalogue, core: bool) -> Value {
    let items: Vec<Value> = catalogue
        .groups()
        .iter()
        .filter(|(group, _)| group.is_empty() == core)
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    let resources: Vec<Value> = catalogue
                        .resources()
                        .iter()
                        .filter(|resource| resource.group == *group && resource.version == *version)
                        .map(|resource| aggregated_resource(resource))
                        .collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            let metadata = if core { json!({}) } else { json!({"name": group}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    })
}

fn kind(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

fn aggregated_resource(resource: &Resource) -> Value {
    let mut entry = json!({
        "resource": resource.plural,
        "responseKind": kind(resource.group, resource.version, resource.kind),
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": verbs(resource.verbs),
    });
    if !resource.short_names.is_empty() {
        entry["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        entry["categories"] = json!(resource.categories);
    }
    if !resource.subresources.is_empty() {
        entry["subresources"] = resource
            .subresources
            .iter()
            .map(|subresource| {
                json!({
                    "subresource": subresource.name,
                    "responseKind": kind(subresource.group, subresource.version, subresource.kind),
                    "verbs": verbs(subresource.verbs),
                })
            })
            .collect();
    }
    entry
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn a_version_lists_resources_and_subresources() {
        let document = resources(Catalogue::builtin(), "", "v1").unwrap();
        let find = |name: &str| {
            document["resources"]
                .as_array()
                .unwrap()
                .iter()
                .find(|entry| entry["name"] == name)
                .unwrap()
                .clone()
        };
        assert_eq!(document["groupVersion"], "v1");
        assert_eq!(
            find("configmaps"),
            json!({
                "name": "configmaps", "singularName": "configmap", "namespaced": true, "kind": "ConfigMap",
                "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
                "shortNames": ["cm"], "storageVersionHash": "qFsyl6wFWjQ=",
            })
        );
        assert_eq!(
            find("serviceaccounts/token"),
            json!({
                "name": "serviceaccounts/token", "singularName": "", "namespaced": true, "kind": "TokenRequest",
                "group": "authentication.k8s.io", "version": "v1", "verbs": ["create"],
            })
        );
        assert!(resources(Catalogue::builtin(), "nope", "v1").is_none());
        assert!(group(Catalogue::builtin(), "").is_none());
    }

    #[test]
    fn aggregated_documents_hold_everything_once() {
        let catalogue = Catalogue::builtin();
        let count = |document: &Value| -> usize {
            let items = document["items"].as_array().unwrap().iter();
            items
                .flat_map(|item| item["versions"].as_array().unwrap())
                .map(|version| version["resources"].as_array().unwrap().len())
                .sum()
        };
        let total = count(&aggregated(catalogue, true)) + count(&aggregated(catalogue, false));
        assert_eq!(total, catalogue.resources().len());
        let groups = groups(catalogue);
        let lease = groups["groups"]
            .as_array()
            .unwrap()
            .iter()
            .find(|g| g["name"] == "coordination.k8s.io")
            .unwrap();
        assert_eq!(
            lease["preferredVersion"],
            json!({"groupVersion": "coordination.k8s.io/v1", "version": "v1"})
        );
    }
}
