//! The schemas of the documents: those of `k8s-openapi`, with upstream's extensions and references.

use serde_json::{Map, Value, json};

use super::Form;
use crate::catalogue::{Catalogue, Resource};
use crate::patch::keys;
use crate::schema::{definitions, target};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// The name of the schema of a resource's lists.
pub(super) fn list_name(resource: &Resource) -> String {
    let package = resource.schema.rsplit_once('.').map_or("", |(package, _)| package);
    format!("{package}.{}", resource.list_kind)
}

/// Every schema that some document uses.
pub(super) fn all(catalogue: &Catalogue, form: Form) -> Map<String, Value> {
    let mut schemas = definitions();
    for (name, schema) in &mut schemas {
        finish(name, schema, form);
    }
    for resource in catalogue.resources() {
        if let Some(schema) = schemas.get_mut(resource.schema) {
            mark(schema, resource.group, resource.version, resource.kind);
        }
        if !resource.list_kind.is_empty() {
            schemas.insert(list_name(resource), list(resource, form));
        }
    }
    for (name, group, version, kind) in [
        ("io.k8s.api.core.v1.Binding", "", "v1", "Binding"),
        ("io.k8s.api.policy.v1.Eviction", "policy", "v1", "Eviction"),
        (
            "io.k8s.api.authentication.v1.TokenRequest",
            "authentication.k8s.io",
            "v1",
            "TokenRequest",
        ),
        ("io.k8s.apimachinery.pkg.apis.meta.v1.Status", "", "v1", "Status"),
    ] {
        if let Some(schema) = schemas.get_mut(name) {
            mark(schema, group, version, kind);
        }
    }
    schemas
}

fn mark(schema: &mut Value, group: &str, version: &str, kind: &str) {
    schema["x-kubernetes-group-version-kind"] = json!([{"group": group, "version": version, "kind": kind}]);
}

fn list(resource: &Resource, form: Form) -> Value {
    let text = |description: &str| json!({"type": "string", "description": description});
    let mut schema = json!({
        "description": format!("{} is a list of {} objects.", resource.list_kind, resource.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": text("APIVersion defines the versioned schema of this representation of an object."),
            "items": {
                "description": "The objects of the list.",
                "type": "array",
                "items": form.reference(resource.schema),
            },
            "kind": text("Kind is a string value representing the REST resource this object represents."),
            "metadata": form.reference(&format!("{META}.ListMeta")),
        },
    });
    mark(&mut schema, resource.group, resource.version, resource.list_kind);
    schema
}

/// Puts in what OpenAPI has and JSON schema has not.
fn finish(name: &str, schema: &mut Value, form: Form) {
    match (name.rsplit('.').next(), form) {
        (Some("Quantity"), Form::V3) => union(schema, json!([{"type": "string"}, {"type": "number"}]), None),
        (Some("IntOrString"), Form::V3) => {
            union(
                schema,
                json!([{"type": "integer"}, {"type": "string"}]),
                Some("int-or-string"),
            );
        }
        (Some("Quantity"), Form::V2) => scalar(schema, None),
        (Some("IntOrString"), Form::V2) => scalar(schema, Some("int-or-string")),
        _ => {}
    }
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        for (field, property) in properties {
            if let (Some(merge), Some(fields)) = (keys::find(name, field), property.as_object_mut()) {
                fields.insert("x-kubernetes-patch-strategy".into(), merge.strategy.into());
                if !merge.key.is_empty() {
                    fields.insert("x-kubernetes-patch-merge-key".into(), merge.key.into());
                }
            }
        }
    }
    // k8s-openapi requires metadata of every kind; upstream only of this one.
    if name != "io.k8s.api.core.v1.Event"
        && let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut)
    {
        required.retain(|field| field != "metadata");
        if required.is_empty()
            && let Some(fields) = schema.as_object_mut()
        {
            fields.remove("required");
        }
    }
    refer(schema, form);
}

fn union(schema: &mut Value, types: Value, format: Option<&str>) {
    let description = schema.get("description").cloned();
    *schema = json!({"oneOf": types});
    describe(schema, description, format);
}

fn scalar(schema: &mut Value, format: Option<&str>) {
    let description = schema.get("description").cloned();
    *schema = json!({"type": "string"});
    describe(schema, description, format);
}

fn describe(schema: &mut Value, description: Option<Value>, format: Option<&str>) {
    if let Some(description) = description {
        schema["description"] = description;
    }
    if let Some(format) = format {
        schema["format"] = format.into();
    }
}

/// Points references into the document. In version 3 nothing may stand beside a reference, so that one with
/// a description becomes the only member of an `allOf`.
fn refer(schema: &mut Value, form: Form) {
    match schema {
        Value::Object(fields) => {
            fields.values_mut().for_each(|value| refer(value, form));
            let Some(name) = fields.get("$ref").and_then(Value::as_str).map(|r| target(r).to_owned()) else {
                return;
            };
            if fields.len() > 1 && form == Form::V3 {
                fields.remove("$ref");
                fields.insert("allOf".into(), json!([form.reference(&name)]));
            } else if let Value::Object(reference) = form.reference(&name) {
                fields.extend(reference);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| refer(item, form)),
        _ => {}
    }
}

/// The schemas that `paths` refer to, and those that these refer to.
pub(super) fn reachable(schemas: &Map<String, Value>, paths: &Map<String, Value>) -> Map<String, Value> {
    let mut found = Map::new();
    let mut waiting: Vec<&Value> = paths.values().collect();
    while let Some(value) = waiting.pop() {
        match value {
            Value::Object(fields) => {
                let name = fields.get("$ref").and_then(Value::as_str).map(target);
                if let Some((name, schema)) = name.and_then(|name| schemas.get_key_value(name))
                    && !found.contains_key(name)
                {
                    found.insert(name.clone(), schema.clone());
                    waiting.push(schema);
                }
                waiting.extend(fields.values());
            }
            Value::Array(items) => waiting.extend(items),
            _ => {}
        }
    }
    found
}
