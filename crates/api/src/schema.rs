//! The types of all kinds as a graph: what fields a type has and of which types they are.
//!
//! It is made once from the JSON schemas that `k8s-openapi` carries, without their descriptions. Decoding
//! walks it to find unknown fields and wrong types, strategic merge to find out how lists are merged.

use std::collections::HashMap;
use std::sync::LazyLock;

use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::core::v1::Binding;
use k8s_openapi::api::policy::v1::Eviction;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ListMeta, Patch, Status};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use crate::catalogue::Catalogue;
use crate::patch::keys::{self, ListMerge};

/// The type of a value.
#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    /// A string.
    String,
    /// A boolean.
    Boolean,
    /// A whole number of 32 bits.
    Int32,
    /// A whole number of 64 bits.
    Int64,
    /// A number.
    Number,
    /// Bytes, in base64.
    Bytes,
    /// A time, in RFC 3339.
    Time,
    /// A resource quantity.
    Quantity,
    /// A number or a string.
    IntOrString,
    /// Anything.
    Any,
    /// A list.
    List(Box<Type>),
    /// A map from strings.
    Map(Box<Type>),
    /// A type with fields, by its place in [`Types`].
    Struct(usize),
}

/// A field of a type.
#[derive(Debug)]
pub struct Field {
    /// Its name in JSON.
    pub name: Box<str>,
    /// Its type.
    pub ty: Type,
    /// How a strategic merge patch treats it.
    pub merge: Option<&'static ListMerge>,
}

/// A type with fields.
#[derive(Debug)]
pub struct Struct {
    /// Its name in OpenAPI.
    pub name: Box<str>,
    /// Its fields, by name.
    fields: Vec<Field>,
}

impl Struct {
    /// The field of that name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields
            .binary_search_by(|field| (*field.name).cmp(name))
            .ok()
            .map(|at| &self.fields[at])
    }

    /// The fields, by name.
    pub fn fields(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter()
    }

    /// The type's name without its package: `PodSpec`.
    pub fn short_name(&self) -> &str {
        short_name(&self.name)
    }
}

fn short_name(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// Every type that a built-in kind is made of.
#[derive(Debug)]
pub struct Types {
    structs: Vec<Struct>,
    by_name: HashMap<Box<str>, usize>,
}

/// The schemas of every kind that is served or taken by a subresource, and of all that they use, by name.
pub(crate) fn definitions() -> Map<String, Value> {
    let mut generator = SchemaGenerator::new(SchemaSettings::draft2020_12());
    for resource in Catalogue::builtin().resources() {
        resource.strategy.schema(&mut generator);
    }
    generator.subschema_for::<Binding>();
    generator.subschema_for::<DeleteOptions>();
    generator.subschema_for::<Eviction>();
    generator.subschema_for::<ListMeta>();
    generator.subschema_for::<Patch>();
    generator.subschema_for::<Scale>();
    generator.subschema_for::<Status>();
    generator.subschema_for::<TokenRequest>();
    generator.take_definitions(true)
}

/// The name that a `$ref` points to.
pub(crate) fn target(reference: &str) -> &str {
    reference.rsplit('/').next().unwrap_or(reference)
}

impl Types {
    /// The types of the built-in kinds.
    pub fn builtin() -> &'static Types {
        static TYPES: LazyLock<Types> = LazyLock::new(|| Types::new(&definitions()));
        &TYPES
    }

    /// The graph of the given schemas.
    pub fn new(definitions: &Map<String, Value>) -> Self {
        let by_name: HashMap<Box<str>, usize> = definitions
            .iter()
            .filter(|(_, schema)| schema.get("properties").is_some())
            .enumerate()
            .map(|(at, (name, _))| (name.as_str().into(), at))
            .collect();
        let structs = definitions
            .iter()
            .filter_map(|(name, schema)| Some((name, schema.get("properties")?.as_object()?)))
            .map(|(name, properties)| {
                let mut fields: Vec<Field> = properties
                    .iter()
                    .map(|(field, schema)| Field {
                        name: field.as_str().into(),
                        ty: type_of(schema, &by_name),
                        merge: keys::find(name, field),
                    })
                    .collect();
                fields.sort_by(|a, b| a.name.cmp(&b.name));
                Struct {
                    name: name.as_str().into(),
                    fields,
                }
            })
            .collect();
        Types { structs, by_name }
    }

    /// The type of that name in OpenAPI; anything when it is not known.
    pub fn find(&self, name: &str) -> Type {
        self.by_name.get(name).map_or(Type::Any, |&at| Type::Struct(at))
    }

    /// The fields of [`Type::Struct`].
    pub fn fields(&self, at: usize) -> &Struct {
        &self.structs[at]
    }

    /// The type as Go prints it, which upstream's messages show: `[]v1.Container`.
    pub fn go_name(&self, ty: &Type) -> String {
        match ty {
            Type::String => "string".into(),
            Type::Boolean => "bool".into(),
            Type::Int32 => "int32".into(),
            Type::Int64 => "int64".into(),
            Type::Number => "float64".into(),
            Type::Bytes => "[]uint8".into(),
            Type::Time => "v1.Time".into(),
            Type::Quantity => "resource.Quantity".into(),
            Type::IntOrString => "intstr.IntOrString".into(),
            Type::Any => "interface {}".into(),
            Type::List(item) => format!("[]{}", self.go_name(item)),
            Type::Map(item) => format!("map[string]{}", self.go_name(item)),
            Type::Struct(at) => {
                let mut parts = self.structs[*at].name.rsplit('.');
                let name = parts.next().unwrap_or_default();
                format!("{}.{name}", parts.next().unwrap_or_default())
            }
        }
    }
}

fn type_of(schema: &Value, by_name: &HashMap<Box<str>, usize>) -> Type {
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let name = target(reference);
        return match short_name(name) {
            "Time" | "MicroTime" => Type::Time,
            "Quantity" => Type::Quantity,
            "IntOrString" => Type::IntOrString,
            _ => by_name.get(name).map_or(Type::Any, |&at| Type::Struct(at)),
        };
    }
    let format = schema.get("format").and_then(Value::as_str);
    match schema.get("type").and_then(Value::as_str) {
        Some("string") if format == Some("byte") => Type::Bytes,
        Some("string") => Type::String,
        Some("boolean") => Type::Boolean,
        Some("integer") if format == Some("int64") => Type::Int64,
        Some("integer") => Type::Int32,
        Some("number") => Type::Number,
        Some("array") => Type::List(Box::new(
            schema.get("items").map_or(Type::Any, |items| type_of(items, by_name)),
        )),
        Some("object") => match schema.get("additionalProperties") {
            Some(items) => Type::Map(Box::new(type_of(items, by_name))),
            None => Type::Any,
        },
        _ => Type::Any,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_graph_knows_fields_and_go_names() {
        let types = Types::builtin();
        let Type::Struct(at) = types.find("io.k8s.api.core.v1.ConfigMap") else {
            panic!("no ConfigMap")
        };
        let map = types.fields(at);
        assert_eq!(map.short_name(), "ConfigMap");
        assert_eq!(types.go_name(&map.field("data").expect("data").ty), "map[string]string");
        assert_eq!(
            types.go_name(&map.field("metadata").expect("metadata").ty),
            "v1.ObjectMeta"
        );
        assert_eq!(map.field("immutable").expect("immutable").ty, Type::Boolean);
        assert!(map.field("dta").is_none());
    }
}
