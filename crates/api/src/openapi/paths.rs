//! The paths of the documents, with an operation for each verb.

use serde_json::{Map, Value, json};

use super::schemas::list_name;
use super::{Form, prefix};
use crate::catalogue::{Catalogue, Resource, Subresource, Verb};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// The paths of one group and version.
pub(super) fn of_version(catalogue: &Catalogue, group: &str, version: &str, form: Form) -> Map<String, Value> {
    let mut paths = Map::new();
    for resource in catalogue
        .resources()
        .iter()
        .filter(|r| r.group == group && r.version == version)
    {
        of_resource(resource, form, &mut paths);
    }
    paths
}

fn of_resource(resource: &Resource, form: Form, paths: &mut Map<String, Value>) {
    let root = format!("/{}", prefix(resource.group, resource.version));
    let writer = Writer { resource, form };
    let collection = if resource.namespaced {
        format!("{root}/namespaces/{{namespace}}/{}", resource.plural)
    } else {
        format!("{root}/{}", resource.plural)
    };
    let item = format!("{collection}/{{name}}");
    if resource.namespaced && resource.allows(Verb::List) {
        let mut all = Map::new();
        all.insert("get".into(), writer.list());
        all.insert("parameters".into(), json!([pretty(form)]));
        paths.insert(format!("{root}/{}", resource.plural), Value::Object(all));
    }
    let mut operations = Map::new();
    for verb in resource.verbs {
        match verb {
            Verb::List => operations.insert("get".into(), writer.list()),
            Verb::Create => operations.insert(
                "post".into(),
                writer.write("post", resource.schema, resource_kind(resource)),
            ),
            Verb::DeleteCollection => operations.insert("delete".into(), writer.delete("deletecollection")),
            _ => None,
        };
    }
    writer.insert(paths, collection, operations, false);
    let mut operations = Map::new();
    for verb in resource.verbs {
        let kind = resource_kind(resource);
        match verb {
            Verb::Get => operations.insert("get".into(), writer.get(resource.schema, kind)),
            Verb::Update => operations.insert("put".into(), writer.write("put", resource.schema, kind)),
            Verb::Patch => operations.insert("patch".into(), writer.patch(resource.schema, kind)),
            Verb::Delete => operations.insert("delete".into(), writer.delete("delete")),
            _ => None,
        };
    }
    writer.insert(paths, item.clone(), operations, true);
    for subresource in resource.subresources {
        let operations = writer.subresource(subresource);
        writer.insert(paths, format!("{item}/{}", subresource.name), operations, true);
    }
}

fn resource_kind(resource: &Resource) -> Value {
    json!({"group": resource.group, "version": resource.version, "kind": resource.kind})
}

fn parameter(form: Form, place: &str, name: &str, kind: &str, description: &str) -> Value {
    let mut parameter = json!({"name": name, "in": place, "description": description});
    match form {
        Form::V2 => {
            parameter["type"] = kind.into();
            parameter["uniqueItems"] = true.into();
        }
        Form::V3 => parameter["schema"] = json!({"type": kind, "uniqueItems": true}),
    }
    if place == "path" {
        parameter["required"] = true.into();
    }
    parameter
}

fn pretty(form: Form) -> Value {
    parameter(
        form,
        "query",
        "pretty",
        "string",
        "If 'true', then the output is pretty printed.",
    )
}

fn dry_run(form: Form) -> Value {
    parameter(
        form,
        "query",
        "dryRun",
        "string",
        "When present, indicates that modifications should not be persisted. Valid values are: All.",
    )
}

/// The parameters of POST, PUT and PATCH. kubectl leaves validation to a server that has `fieldValidation`.
fn write_parameters(form: Form) -> Vec<Value> {
    vec![
        dry_run(form),
        parameter(
            form,
            "query",
            "fieldManager",
            "string",
            "The name of the actor that is making these changes; at most 128 printable characters.",
        ),
        parameter(
            form,
            "query",
            "fieldValidation",
            "string",
            "What to do with unknown and duplicate fields: Ignore drops them silently, Warn (the default) answers with a warning for each, Strict fails the request.",
        ),
    ]
}

fn list_parameters(form: Form) -> Vec<Value> {
    [
        (
            "allowWatchBookmarks",
            "boolean",
            "Asks a watch for events of type BOOKMARK.",
        ),
        ("continue", "string", "The token of the previous page of the list."),
        (
            "fieldSelector",
            "string",
            "Restricts the objects by their fields. Defaults to everything.",
        ),
        (
            "labelSelector",
            "string",
            "Restricts the objects by their labels. Defaults to everything.",
        ),
        (
            "limit",
            "integer",
            "The most objects in the answer; the rest is had with its continue token.",
        ),
        (
            "resourceVersion",
            "string",
            "The resourceVersion that the answer may not be older than.",
        ),
        (
            "resourceVersionMatch",
            "string",
            "How resourceVersion is applied to a list: NotOlderThan or Exact.",
        ),
        (
            "sendInitialEvents",
            "boolean",
            "Lets a watch begin with the objects that are there.",
        ),
        ("timeoutSeconds", "integer", "Ends the call after so many seconds."),
        ("watch", "boolean", "Watches for changes instead of listing."),
    ]
    .into_iter()
    .map(|(name, kind, description)| parameter(form, "query", name, kind, description))
    .collect()
}

fn delete_parameters(form: Form) -> Vec<Value> {
    vec![
        dry_run(form),
        parameter(
            form,
            "query",
            "gracePeriodSeconds",
            "integer",
            "The seconds before the object is deleted; zero means at once.",
        ),
        parameter(
            form,
            "query",
            "propagationPolicy",
            "string",
            "What happens to dependents: Orphan, Background or Foreground.",
        ),
    ]
}

struct Writer<'a> {
    resource: &'a Resource,
    form: Form,
}

impl Writer<'_> {
    fn insert(&self, paths: &mut Map<String, Value>, path: String, mut operations: Map<String, Value>, named: bool) {
        if operations.is_empty() {
            return;
        }
        let mut shared = Vec::new();
        if named {
            let description = format!("name of the {}", self.resource.kind);
            shared.push(parameter(self.form, "path", "name", "string", &description));
        }
        if self.resource.namespaced {
            shared.push(parameter(
                self.form,
                "path",
                "namespace",
                "string",
                "object name and auth scope, such as for teams and projects",
            ));
        }
        shared.push(pretty(self.form));
        operations.insert("parameters".into(), shared.into());
        paths.insert(path, Value::Object(operations));
    }

    fn operation(&self, action: &str, kind: Value, parameters: Vec<Value>, body: Option<Value>, answer: &str) -> Value {
        let reference = self.form.reference(answer);
        let mut parameters = parameters;
        let mut operation = json!({
            "description": format!("{action} {}", self.resource.kind),
            "tags": [if self.resource.group.is_empty() {
                format!("core_{}", self.resource.version)
            } else {
                format!("{}_{}", self.resource.group.split('.').next().unwrap_or_default(), self.resource.version)
            }],
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": kind,
        });
        match self.form {
            Form::V2 => {
                if let Some(body) = body {
                    parameters.insert(
                        0,
                        json!({"name": "body", "in": "body", "required": true, "schema": body}),
                    );
                }
                operation["consumes"] = json!(["*/*"]);
                operation["produces"] = json!(["application/json", "application/yaml"]);
                operation["schemes"] = json!(["https"]);
                operation["responses"] = json!({
                    "200": {"description": "OK", "schema": reference},
                    "401": {"description": "Unauthorized"},
                });
            }
            Form::V3 => {
                if let Some(body) = body {
                    operation["requestBody"] = json!({"required": true, "content": {"*/*": {"schema": body}}});
                }
                operation["responses"] = json!({
                    "200": {"description": "OK", "content": {
                        "application/json": {"schema": reference},
                        "application/yaml": {"schema": reference},
                    }},
                    "401": {"description": "Unauthorized"},
                });
            }
        }
        operation["parameters"] = parameters.into();
        operation
    }

    fn list(&self) -> Value {
        let kind = resource_kind(self.resource);
        self.operation(
            "list",
            kind,
            list_parameters(self.form),
            None,
            &list_name(self.resource),
        )
    }

    fn get(&self, schema: &str, kind: Value) -> Value {
        self.operation("get", kind, Vec::new(), None, schema)
    }

    fn write(&self, action: &str, schema: &str, kind: Value) -> Value {
        let body = self.form.reference(schema);
        self.operation(action, kind, write_parameters(self.form), Some(body), schema)
    }

    fn patch(&self, schema: &str, kind: Value) -> Value {
        let body = self.form.reference(&format!("{META}.Patch"));
        let mut parameters = write_parameters(self.form);
        parameters.push(parameter(
            self.form,
            "query",
            "force",
            "boolean",
            "Lets an apply take over fields that others own.",
        ));
        self.operation("patch", kind, parameters, Some(body), schema)
    }

    fn delete(&self, action: &str) -> Value {
        let mut parameters = delete_parameters(self.form);
        if action == "deletecollection" {
            parameters.extend(list_parameters(self.form));
        }
        let body = self.form.reference(&format!("{META}.DeleteOptions"));
        self.operation(
            action,
            resource_kind(self.resource),
            parameters,
            Some(body),
            &format!("{META}.Status"),
        )
    }

    /// The operations of a subresource. Those that are no objects but connections are only named.
    fn subresource(&self, subresource: &Subresource) -> Map<String, Value> {
        let kind = json!({"group": subresource.group, "version": subresource.version, "kind": subresource.kind});
        let schema = match subresource.kind {
            kind if kind == self.resource.kind => self.resource.schema,
            "Binding" => "io.k8s.api.core.v1.Binding",
            "Eviction" => "io.k8s.api.policy.v1.Eviction",
            "Scale" => crate::kinds::apps::scale::SCHEMA,
            "TokenRequest" => "io.k8s.api.authentication.v1.TokenRequest",
            _ => return self.connection(kind),
        };
        let mut operations = Map::new();
        for verb in subresource.verbs {
            match verb {
                Verb::Get => operations.insert("get".into(), self.get(schema, kind.clone())),
                Verb::Create => operations.insert("post".into(), self.write("post", schema, kind.clone())),
                Verb::Update => operations.insert("put".into(), self.write("put", schema, kind.clone())),
                Verb::Patch => operations.insert("patch".into(), self.patch(schema, kind.clone())),
                _ => None,
            };
        }
        operations
    }

    fn connection(&self, kind: Value) -> Map<String, Value> {
        let mut operations = Map::new();
        for method in ["get", "post"] {
            let content = match self.form {
                Form::V2 => json!({"description": "OK", "schema": {"type": "string"}}),
                Form::V3 => json!({"description": "OK", "content": {"*/*": {"schema": {"type": "string"}}}}),
            };
            operations.insert(
                method.into(),
                json!({
                    "description": format!("connect to {}", self.resource.kind),
                    "x-kubernetes-action": "connect",
                    "x-kubernetes-group-version-kind": kind,
                    "responses": {"200": content, "401": {"description": "Unauthorized"}},
                }),
            );
        }
        operations
    }
}
