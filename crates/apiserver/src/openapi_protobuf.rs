//! The paths of the OpenAPI v2 document in protobuf, the only form in which kubectl asks for that document.
//!
//! kubectl reads it when a manifest's kind is in no OpenAPI v3 document, to learn whether the server validates
//! fields itself; it then goes on to say that the kind is not known. What that takes is written here: paths,
//! operations, their kinds and query parameters. Schemas are not, for those kubectl reads from version 3.

use bytes::Bytes;
use prost::Message;
use serde_json::Value;

/// The media type that kubectl accepts begins with this, and so does the one that it is sent.
pub(crate) const MEDIA_TYPE: &str = "application/com.github.proto-openapi.spec.v2";

#[derive(Clone, PartialEq, Message)]
struct Document {
    #[prost(string, tag = "1")]
    swagger: String,
    #[prost(message, optional, tag = "2")]
    info: Option<Info>,
    #[prost(message, optional, tag = "8")]
    paths: Option<Paths>,
}

#[derive(Clone, PartialEq, Message)]
struct Info {
    #[prost(string, tag = "1")]
    title: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct Paths {
    #[prost(message, repeated, tag = "2")]
    path: Vec<NamedPathItem>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedPathItem {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<PathItem>,
}

#[derive(Clone, PartialEq, Message)]
struct PathItem {
    #[prost(message, optional, tag = "2")]
    get: Option<Operation>,
    #[prost(message, optional, tag = "3")]
    put: Option<Operation>,
    #[prost(message, optional, tag = "4")]
    post: Option<Operation>,
    #[prost(message, optional, tag = "5")]
    delete: Option<Operation>,
    #[prost(message, optional, tag = "8")]
    patch: Option<Operation>,
}

#[derive(Clone, PartialEq, Message)]
struct Operation {
    #[prost(string, tag = "5")]
    operation_id: String,
    #[prost(message, repeated, tag = "8")]
    parameters: Vec<ParametersItem>,
    #[prost(message, repeated, tag = "13")]
    vendor_extension: Vec<NamedAny>,
}

// The next three are unions in the schema, of which only the branch of a query parameter is written.

#[derive(Clone, PartialEq, Message)]
struct ParametersItem {
    #[prost(message, optional, tag = "1")]
    parameter: Option<Parameter>,
}

#[derive(Clone, PartialEq, Message)]
struct Parameter {
    #[prost(message, optional, tag = "2")]
    non_body_parameter: Option<NonBodyParameter>,
}

#[derive(Clone, PartialEq, Message)]
struct NonBodyParameter {
    #[prost(message, optional, tag = "3")]
    query: Option<QueryParameter>,
}

#[derive(Clone, PartialEq, Message)]
struct QueryParameter {
    #[prost(bool, tag = "1")]
    required: bool,
    #[prost(string, tag = "2")]
    place: String,
    #[prost(string, tag = "3")]
    description: String,
    #[prost(string, tag = "4")]
    name: String,
    #[prost(string, tag = "6")]
    kind: String,
}

#[derive(Clone, PartialEq, Message)]
struct NamedAny {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(string, tag = "2")]
    yaml: String,
}

/// The protobuf form of a document that is given as JSON.
pub(crate) fn encode(json: &[u8]) -> Result<Bytes, serde_json::Error> {
    let document: Value = serde_json::from_slice(json)?;
    let path = document["paths"].as_object().into_iter().flatten();
    let path = path.map(|(name, item)| NamedPathItem {
        name: name.clone(),
        value: Some(path_item(item)),
    });
    let message = Document {
        swagger: "2.0".into(),
        info: Some(Info {
            title: text(&document["info"]["title"]),
            version: text(&document["info"]["version"]),
        }),
        paths: Some(Paths { path: path.collect() }),
    };
    Ok(message.encode_to_vec().into())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn path_item(item: &Value) -> PathItem {
    // Parameters may be said once for all operations of a path.
    let shared = &item["parameters"];
    let of = |verb: &str| item.get(verb).map(|value| operation(value, shared));
    PathItem {
        get: of("get"),
        put: of("put"),
        post: of("post"),
        delete: of("delete"),
        patch: of("patch"),
    }
}

fn operation(operation: &Value, shared: &Value) -> Operation {
    let parameters = [&operation["parameters"], shared]
        .into_iter()
        .filter_map(Value::as_array)
        .flatten();
    let parameters = parameters
        .filter(|parameter| parameter["in"] == "query")
        .map(|parameter| {
            let query = QueryParameter {
                required: parameter["required"] == true,
                place: "query".into(),
                description: text(&parameter["description"]),
                name: text(&parameter["name"]),
                kind: text(&parameter["type"]),
            };
            let non_body_parameter = Some(NonBodyParameter { query: Some(query) });
            ParametersItem {
                parameter: Some(Parameter { non_body_parameter }),
            }
        });
    let extensions = operation
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| key.starts_with("x-"));
    // JSON is YAML.
    let extensions = extensions.map(|(name, value)| NamedAny {
        name: name.clone(),
        value: Some(AnyValue {
            yaml: value.to_string(),
        }),
    });
    Operation {
        operation_id: text(&operation["operationId"]),
        parameters: parameters.collect(),
        vendor_extension: extensions.collect(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test fails by panicking.
    use super::*;

    #[test]
    fn kubectl_finds_the_kind_and_the_parameter_of_a_patch() {
        let json = serde_json::json!({
            "info": {"title": "Kubernetes", "version": "v1"},
            "paths": {"/api/v1/namespaces/{name}": {"patch": {
                "operationId": "patchNamespace",
                "parameters": [{"in": "body", "name": "body"}, {"in": "query", "name": "fieldValidation", "type": "string"}],
                "x-kubernetes-group-version-kind": {"group": "", "version": "v1", "kind": "Namespace"},
            }}},
        });
        let document = Document::decode(encode(json.to_string().as_bytes()).unwrap()).unwrap();
        let patch = document.paths.unwrap().path[0].value.clone().unwrap().patch.unwrap();
        assert_eq!(patch.vendor_extension[0].name, "x-kubernetes-group-version-kind");
        assert_eq!(patch.parameters.len(), 1);
    }
}
