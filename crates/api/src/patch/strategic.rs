//! Strategic merge: objects are merged field by field, and lists item by item where their type says so.
//!
//! Directives in the patch change that: `$patch: replace` and `$patch: delete` in an object or in an item of
//! a list, `$retainKeys` (the only fields that stay), `$deleteFromPrimitiveList/FIELD`, and
//! `$setElementOrder/FIELD` (the order of a merged list).

use serde_json::{Map, Value};

use super::lists::{self, Identity};
use super::{MergeSchema, object_patch};
use crate::schema::{Field, Type, Types};
use crate::status::{self, Status};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";
const SET_ORDER: &str = "$setElementOrder/";

/// Applies a strategic merge patch to an object of the kind that `schema` describes.
pub fn strategic_merge(object: Value, patch: &Value, schema: &MergeSchema) -> Result<Value, Status> {
    let patch = object_patch(patch)?;
    let Value::Object(object) = object else {
        return Err(status::bad_request("invalid JSON document"));
    };
    let merge = Merge {
        types: Types::builtin(),
    };
    merge
        .object(object, patch, &merge.types.find(schema.root()))
        .map(Value::Object)
}

fn bad_order() -> Status {
    status::bad_request("invalid patch format of setElementOrder list")
}

fn no_merge_key(item: &Value, key: &str) -> Status {
    status::unprocessable(format!("map: {item} does not contain declared merge key: {key}"))
}

fn unknown_directive(directive: &Value, patch: &Value) -> Status {
    let directive = directive.as_str().map_or_else(|| directive.to_string(), str::to_owned);
    status::bad_request(format!("unknown patch type: {directive} in map: {patch}"))
}

struct Merge {
    types: &'static Types,
}

/// What is known of a field: its type, and the merge key when its items are merged.
struct Known {
    ty: Type,
    merge_key: Option<&'static str>,
}

impl Merge {
    fn field(&self, ty: &Type, name: &str) -> Known {
        let known = |field: &Field| Known {
            ty: field.ty.clone(),
            merge_key: field.merge.filter(|merge| merge.merges()).map(|merge| merge.key),
        };
        let unknown = Known {
            ty: Type::Any,
            merge_key: None,
        };
        match ty {
            Type::Struct(at) => self.types.fields(*at).field(name).map_or(unknown, known),
            Type::Map(item) => Known {
                ty: (**item).clone(),
                merge_key: None,
            },
            _ => unknown,
        }
    }

    fn object(
        &self,
        mut object: Map<String, Value>,
        patch: &Map<String, Value>,
        ty: &Type,
    ) -> Result<Map<String, Value>, Status> {
        if let Some(directive) = patch.get(DIRECTIVE) {
            return match directive.as_str() {
                Some("replace") => {
                    let mut patch = patch.clone();
                    patch.remove(DIRECTIVE);
                    Ok(patch)
                }
                Some("delete") => Ok(Map::new()),
                _ => Err(unknown_directive(directive, &Value::Object(patch.clone()))),
            };
        }
        if let Some(keys) = patch.get(RETAIN_KEYS) {
            retain(&mut object, patch, keys)?;
        }
        for (key, value) in patch {
            if key == RETAIN_KEYS || key.starts_with(SET_ORDER) {
                continue;
            }
            if let Some(name) = key.strip_prefix(DELETE_PRIMITIVES) {
                let Some(gone) = value.as_array() else {
                    return Err(status::bad_request("invalid patch format of primitive list"));
                };
                if let Some(Value::Array(list)) = object.get_mut(name) {
                    list.retain(|item| !gone.contains(item));
                }
                continue;
            }
            let known = self.field(ty, key);
            let order = patch.get(&format!("{SET_ORDER}{key}"));
            self.member(&mut object, key, value, order, &known)?;
        }
        // An order without its list puts what is there in order.
        for (key, order) in patch {
            let Some(name) = key.strip_prefix(SET_ORDER) else {
                continue;
            };
            let Some(order) = order.as_array() else {
                return Err(bad_order());
            };
            let known = self.field(ty, name);
            if !patch.contains_key(name)
                && let Some(key) = known.merge_key
                && let Some(Value::Array(list)) = object.get_mut(name)
            {
                let server = list.clone();
                *list = lists::order(std::mem::take(list), order, &server, Identity { key });
            }
        }
        Ok(object)
    }

    /// Merges one field.
    fn member(
        &self,
        object: &mut Map<String, Value>,
        key: &str,
        patch: &Value,
        order: Option<&Value>,
        known: &Known,
    ) -> Result<(), Status> {
        if patch.is_null() {
            object.remove(key);
            return Ok(());
        }
        let merged = match (object.remove(key), patch) {
            (Some(Value::Object(old)), Value::Object(patch)) => Value::Object(self.object(old, patch, &known.ty)?),
            (old, Value::Array(patch)) if known.merge_key.is_some() => {
                let old = match old {
                    Some(Value::Array(old)) => old,
                    _ => Vec::new(),
                };
                let order = match order {
                    None => None,
                    Some(Value::Array(order)) => Some(order.as_slice()),
                    Some(_) => return Err(bad_order()),
                };
                Value::Array(self.list(old, patch, order, known)?)
            }
            (_, patch) => without_directives(patch),
        };
        object.insert(key.to_owned(), merged);
        Ok(())
    }

    /// Merges a list item by item.
    fn list(
        &self,
        old: Vec<Value>,
        patch: &[Value],
        order: Option<&[Value]>,
        known: &Known,
    ) -> Result<Vec<Value>, Status> {
        let key = known.merge_key.unwrap_or_default();
        let identity = Identity { key };
        let item_type = match &known.ty {
            Type::List(item) => (**item).clone(),
            _ => Type::Any,
        };
        if let (Some(order), false) = (order, key.is_empty()) {
            // Every item that the patch adds or changes must have its place.
            for item in patch.iter().filter(|item| item.get(DIRECTIVE).is_none()) {
                if identity.position(order, item).is_none() {
                    return Err(status::bad_request(format!(
                        "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
                        Value::Array(patch.to_vec()),
                        Value::Array(order.to_vec())
                    )));
                }
            }
        }
        if patch
            .iter()
            .any(|item| item.get(DIRECTIVE).is_some_and(|directive| directive == "replace"))
        {
            let kept = patch.iter().filter(|item| item.get(DIRECTIVE).is_none());
            return Ok(kept.map(without_directives).collect());
        }
        let server = old.clone();
        let mut merged = old;
        let mut named = Vec::with_capacity(patch.len());
        for item in patch {
            if item.is_array() {
                return Err(status::unprocessable("lists of lists are not supported"));
            }
            if !key.is_empty() && identity.of(item).is_none() {
                return Err(no_merge_key(item, key));
            }
            if let Some(directive) = item.get(DIRECTIVE) {
                if directive == "merge" {
                    return Err(status::bad_request(
                        "merging lists cannot yet be specified in the patch",
                    ));
                }
                if directive != "delete" {
                    return Err(unknown_directive(directive, item));
                }
                merged.retain(|other| !identity.same(other, item));
                continue;
            }
            named.push(item.clone());
            match (identity.position(&merged, item), item) {
                (Some(at), Value::Object(patch)) => {
                    if let Value::Object(old) = merged[at].take() {
                        merged[at] = Value::Object(self.object(old, patch, &item_type)?);
                    }
                }
                (Some(_), _) => {}
                (None, item) => merged.push(without_directives(item)),
            }
        }
        Ok(lists::order(merged, order.unwrap_or(&named), &server, identity))
    }
}

/// Keeps only the fields that `$retainKeys` names; the patch may remove others, but not set them.
fn retain(object: &mut Map<String, Value>, patch: &Map<String, Value>, keys: &Value) -> Result<(), Status> {
    let bad = || status::bad_request("invalid patch format of retainKeys");
    let keys = keys.as_array().ok_or_else(bad)?;
    let named = |key: &String| keys.iter().any(|name| name == key);
    if patch
        .iter()
        .any(|(key, value)| !value.is_null() && !key.starts_with('$') && !named(key))
    {
        return Err(bad());
    }
    object.retain(|key, _| named(key));
    Ok(())
}

/// A part of the patch that has nothing to be merged with: as it is, without nulls and directives.
fn without_directives(patch: &Value) -> Value {
    match patch {
        Value::Object(fields) => fields
            .iter()
            .filter(|(key, value)| !value.is_null() && !is_directive(key))
            .map(|(key, value)| (key.clone(), without_directives(value)))
            .collect(),
        Value::Array(items) => items
            .iter()
            .filter(|item| item.get(DIRECTIVE).is_none())
            .map(without_directives)
            .collect(),
        other => other.clone(),
    }
}

fn is_directive(key: &str) -> bool {
    key == DIRECTIVE || key == RETAIN_KEYS || key.starts_with(DELETE_PRIMITIVES) || key.starts_with(SET_ORDER)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use serde_json::json;

    use super::*;

    const SERVICE: MergeSchema = MergeSchema::of("io.k8s.api.core.v1.Service");
    const NAMESPACE: MergeSchema = MergeSchema::of("io.k8s.api.core.v1.Namespace");

    #[test]
    fn cases() {
        let ports = |list: Value| json!({"spec": {"ports": list}});
        let finalizers = |list: Value| json!({"metadata": {"finalizers": list}});
        for (what, object, patch, want) in [
            (
                "objects merge, null removes",
                json!({"metadata": {"labels": {"a": "1", "b": "2"}}}),
                json!({"metadata": {"labels": {"a": null, "c": "3"}, "annotations": {"x": null}}}),
                json!({"metadata": {"labels": {"b": "2", "c": "3"}, "annotations": {}}}),
            ),
            (
                "lists merge by key, new items first as upstream orders them",
                ports(json!([{"port": 80, "name": "a"}, {"port": 81, "name": "b"}])),
                ports(json!([{"port": 81, "name": "c"}, {"port": 82}])),
                ports(json!([{"port": 80, "name": "a"}, {"port": 81, "name": "c"}, {"port": 82}])),
            ),
            (
                "an item is deleted",
                ports(json!([{"port": 80}, {"port": 81}])),
                ports(json!([{"port": 80, "$patch": "delete"}])),
                ports(json!([{"port": 81}])),
            ),
            (
                "a list is replaced",
                ports(json!([{"port": 80}, {"port": 81}])),
                ports(json!([{"port": 82}, {"$patch": "replace"}])),
                ports(json!([{"port": 82}])),
            ),
            (
                "an object is replaced",
                json!({"spec": {"selector": {"a": "1"}}}),
                json!({"spec": {"selector": {"b": "2", "$patch": "replace"}}}),
                json!({"spec": {"selector": {"b": "2"}}}),
            ),
            (
                "an object is emptied",
                json!({"spec": {"selector": {"a": "1"}}}),
                json!({"spec": {"selector": {"$patch": "delete"}}}),
                json!({"spec": {"selector": {}}}),
            ),
            (
                "plain values are a set",
                finalizers(json!(["a/x", "b/y"])),
                finalizers(json!(["b/y", "c/z"])),
                finalizers(json!(["a/x", "b/y", "c/z"])),
            ),
            (
                "plain values are taken away",
                finalizers(json!(["a/x", "b/y"])),
                json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/x"]}}),
                finalizers(json!(["b/y"])),
            ),
            (
                "only the named fields are kept",
                json!({"spec": {"type": "NodePort", "selector": {"a": "1"}, "clusterIP": "x"}}),
                json!({"spec": {"$retainKeys": ["type", "selector"], "type": "ClusterIP"}}),
                json!({"spec": {"type": "ClusterIP", "selector": {"a": "1"}}}),
            ),
            (
                "an order is set",
                ports(json!([{"port": 1}, {"port": 2}, {"port": 3}])),
                json!({"spec": {"ports": [{"port": 3, "name": "x"}], "$setElementOrder/ports": [{"port": 3}, {"port": 1}]}}),
                ports(json!([{"port": 2}, {"port": 3, "name": "x"}, {"port": 1}])),
            ),
            (
                "an order alone is set",
                ports(json!([{"port": 1}, {"port": 2}])),
                json!({"spec": {"$setElementOrder/ports": [{"port": 2}, {"port": 1}]}}),
                ports(json!([{"port": 2}, {"port": 1}])),
            ),
            (
                "a list without a key is replaced",
                json!({"spec": {"externalIPs": ["1.1.1.1"]}}),
                json!({"spec": {"externalIPs": ["2.2.2.2"]}}),
                json!({"spec": {"externalIPs": ["2.2.2.2"]}}),
            ),
            (
                "directives in new parts are dropped",
                json!({}),
                json!({"spec": {"ports": [{"port": 1}, {"port": 2, "$patch": "delete"}], "$retainKeys": ["ports"], "selector": null}}),
                ports(json!([{"port": 1}])),
            ),
        ] {
            assert_eq!(strategic_merge(object, &patch, &SERVICE).unwrap(), want, "{what}");
        }
    }

    #[test]
    fn a_pods_lists_merge_by_their_keys() {
        let pod = MergeSchema::of("io.k8s.api.core.v1.Pod");
        let object = json!({"spec": {
            "containers": [{"name": "a", "image": "x:1", "env": [{"name": "K", "value": "1"}]}, {"name": "b", "image": "y"}],
            "tolerations": [{"key": "t"}],
            "volumes": [{"name": "v", "emptyDir": {}}],
        }});
        let patch = json!({"spec": {
            "containers": [{"name": "a", "image": "x:2", "env": [{"name": "L", "value": "2"}]}],
            "tolerations": [{"key": "u"}],
            "volumes": [{"$retainKeys": ["name", "hostPath"], "name": "v", "hostPath": {"path": "/x"}, "emptyDir": null}],
        }});
        // What only the patch has comes before what only the object has, as upstream does it.
        assert_eq!(
            strategic_merge(object, &patch, &pod).unwrap(),
            json!({"spec": {
                "containers": [
                    {"name": "a", "image": "x:2", "env": [{"name": "L", "value": "2"}, {"name": "K", "value": "1"}]},
                    {"name": "b", "image": "y"},
                ],
                "tolerations": [{"key": "u"}],
                "volumes": [{"name": "v", "hostPath": {"path": "/x"}}],
            }})
        );
    }

    #[test]
    fn conditions_of_a_status_merge_by_type() {
        let object =
            json!({"status": {"conditions": [{"type": "A", "status": "False"}, {"type": "B", "status": "True"}]}});
        let patch = json!({"status": {"$setElementOrder/conditions": [{"type": "B"}, {"type": "A"}], "conditions": [{"type": "A", "status": "True"}]}});
        assert_eq!(
            strategic_merge(object, &patch, &NAMESPACE).unwrap(),
            json!({"status": {"conditions": [{"type": "B", "status": "True"}, {"type": "A", "status": "True"}]}})
        );
    }

    #[test]
    fn bad_patches() {
        for (patch, code, message) in [
            (
                json!({"spec": {"ports": [{"name": "x"}]}}),
                422,
                "does not contain declared merge key: port",
            ),
            (
                json!({"spec": {"selector": {"$patch": "jump"}}}),
                400,
                "unknown patch type: jump in map",
            ),
            (
                json!({"spec": {"$retainKeys": "type"}}),
                400,
                "invalid patch format of retainKeys",
            ),
            (
                json!({"spec": {"$retainKeys": ["type"], "clusterIP": "x"}}),
                400,
                "invalid patch format of retainKeys",
            ),
            (
                json!({"spec": {"$setElementOrder/ports": {}}}),
                400,
                "invalid patch format of setElementOrder list",
            ),
            (
                json!({"spec": {"ports": [{"port": 1}], "$setElementOrder/ports": []}}),
                400,
                "doesn't match $setElementOrder",
            ),
            (json!([]), 400, "error decoding patch"),
        ] {
            let object = json!({"spec": {"selector": {"a": "1"}, "ports": []}});
            let error = strategic_merge(object, &patch, &SERVICE).unwrap_err();
            assert_eq!(error.code(), code, "{patch}");
            let cause = error
                .as_meta()
                .details
                .as_ref()
                .and_then(|details| details.causes.as_ref()?.first()?.message.clone());
            let text = cause.unwrap_or_else(|| error.message().to_owned());
            assert!(text.contains(message), "{text}");
        }
    }
}
