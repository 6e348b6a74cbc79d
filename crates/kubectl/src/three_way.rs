//! The patch that makes of the object on the server what a file says now, knowing what it said before.
//!
//! From the file now and the object come additions and changes; from the file before and the file now come
//! removals. Lists whose items are told apart by a key are compared item by item.

use api::schema::{Type, Types};
use serde_json::{Map, Value, json};

/// What is known of the fields at a place of an object.
#[derive(Clone)]
pub struct Fields(Option<Type>);

/// How the items of a list are told apart.
struct Merge {
    /// Empty for plain values.
    key: &'static str,
    retain_keys: bool,
}

impl Fields {
    /// The fields of a type, by its name in OpenAPI.
    pub fn of(schema: &str) -> Self {
        Self(Some(Types::builtin().find(schema)))
    }

    /// Of a kind that this program does not know: every list is replaced whole.
    pub fn unknown() -> Self {
        Self(None)
    }

    fn field(&self, name: &str) -> (Self, Option<Merge>) {
        match &self.0 {
            Some(Type::Struct(at)) => match Types::builtin().fields(*at).field(name) {
                Some(field) => {
                    let merge = field.merge.filter(|merge| merge.merges()).map(|merge| Merge {
                        key: merge.key,
                        retain_keys: merge.strategy.contains("retainKeys"),
                    });
                    (Self(Some(field.ty.clone())), merge)
                }
                None => (Self(None), None),
            },
            Some(Type::Map(value)) => (Self(Some((**value).clone())), None),
            _ => (Self(None), None),
        }
    }

    fn item(&self) -> Self {
        match &self.0 {
            Some(Type::List(item)) => Self(Some((**item).clone())),
            _ => Self(None),
        }
    }
}

/// The patch; empty when there is nothing to do.
pub fn patch(original: &Value, modified: &Value, current: &Value, fields: Fields) -> Value {
    let empty = Map::new();
    let map = |value: &Value| value.as_object().cloned().unwrap_or_else(|| empty.clone());
    Value::Object(maps(&map(original), &map(modified), &map(current), &fields))
}

fn maps(
    original: &Map<String, Value>,
    modified: &Map<String, Value>,
    current: &Map<String, Value>,
    fields: &Fields,
) -> Map<String, Value> {
    let mut patch = Map::new();
    for (name, new) in modified {
        let (inner, merge) = fields.field(name);
        let before = original.get(name).unwrap_or(&Value::Null);
        match (new, current.get(name)) {
            (Value::Null, None) => {}
            (new, None) => {
                patch.insert(name.clone(), new.clone());
            }
            (Value::Object(new), Some(Value::Object(now))) => {
                let before = before.as_object().cloned().unwrap_or_default();
                let changes = maps(&before, new, now, &inner);
                if !changes.is_empty() {
                    patch.insert(name.clone(), Value::Object(changes));
                }
            }
            (Value::Array(new), Some(Value::Array(now))) if merge.is_some() => {
                let before = before.as_array().map(Vec::as_slice).unwrap_or_default();
                if let Some(merge) = &merge {
                    lists(name, merge, before, new, now, &inner.item(), &mut patch);
                }
            }
            (new, Some(now)) if same(new, now) => {}
            (new, Some(_)) => {
                patch.insert(name.clone(), new.clone());
            }
        }
    }
    for name in original.keys() {
        if !modified.contains_key(name) && current.contains_key(name) {
            patch.insert(name.clone(), Value::Null);
        }
    }
    patch
}

/// Numbers that only differ in how they are written are the same.
fn same(a: &Value, b: &Value) -> bool {
    a == b || matches!((a.as_f64(), b.as_f64()), (Some(a), Some(b)) if a == b)
}

fn lists(
    name: &str,
    merge: &Merge,
    original: &[Value],
    modified: &[Value],
    current: &[Value],
    fields: &Fields,
    patch: &mut Map<String, Value>,
) {
    if merge.key.is_empty() {
        return plain_lists(name, original, modified, current, patch);
    }
    let key = merge.key;
    let find = |list: &[Value], item: &Value| list.iter().find(|other| other[key] == item[key]).cloned();
    let mut changes = Vec::new();
    for item in modified {
        let Some(now) = find(current, item) else {
            changes.push(item.clone());
            continue;
        };
        let map = |value: Option<Value>| match value {
            Some(Value::Object(map)) => map,
            _ => Map::new(),
        };
        let new = map(Some(item.clone()));
        let mut change = maps(&map(find(original, item)), &new, &map(Some(now)), fields);
        if change.is_empty() {
            continue;
        }
        if merge.retain_keys {
            let mut keys: Vec<_> = new.keys().cloned().collect();
            keys.sort();
            change.insert("$retainKeys".into(), keys.into());
        }
        change.insert(key.into(), item[key].clone());
        changes.push(Value::Object(change));
    }
    for item in original {
        if find(modified, item).is_none() && find(current, item).is_some() {
            changes.push(json!({"$patch": "delete", key: item[key]}));
        }
    }
    let order = |list: &[Value]| -> Vec<Value> { list.iter().map(|item| item[key].clone()).collect() };
    let wanted = order(modified);
    let present: Vec<_> = order(current).into_iter().filter(|key| wanted.contains(key)).collect();
    let reordered = present.len() == wanted.len() && present != wanted;
    if changes.is_empty() && !reordered {
        return;
    }
    let order: Vec<_> = wanted.into_iter().map(|value| json!({key: value})).collect();
    patch.insert(format!("$setElementOrder/{name}"), order.into());
    if !changes.is_empty() {
        patch.insert(name.to_owned(), changes.into());
    }
}

fn plain_lists(name: &str, original: &[Value], modified: &[Value], current: &[Value], patch: &mut Map<String, Value>) {
    let without = |list: &[Value], other: &[Value]| -> Vec<Value> {
        list.iter().filter(|item| !other.contains(item)).cloned().collect()
    };
    let added = without(modified, current);
    let removed: Vec<_> = without(original, modified)
        .into_iter()
        .filter(|item| current.contains(item))
        .collect();
    if added.is_empty() && removed.is_empty() {
        return;
    }
    patch.insert(format!("$setElementOrder/{name}"), modified.to_vec().into());
    if !removed.is_empty() {
        patch.insert(format!("$deleteFromPrimitiveList/{name}"), removed.into());
    }
    if !added.is_empty() {
        patch.insert(name.to_owned(), added.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::patch::{MergeSchema, strategic_merge};

    const POD: &str = "io.k8s.api.core.v1.Pod";

    fn pod(containers: Value, more: Value) -> Value {
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {"containers": containers}});
        for (key, value) in more.as_object().into_iter().flatten() {
            pod["spec"][key] = value.clone();
        }
        pod
    }

    #[test]
    fn what_the_file_says_comes_about_and_the_rest_stays() {
        let a = json!({"name": "a", "image": "i1"});
        let b = json!({"name": "b", "image": "i2", "env": [{"name": "X", "value": "1"}]});
        let defaulted = |container: &Value| {
            let mut container = container.clone();
            container["imagePullPolicy"] = "Always".into();
            container
        };
        let cases = [
            (
                "nothing new",
                pod(json!([a]), json!({})),
                pod(json!([a]), json!({})),
                json!({}),
            ),
            (
                "another image",
                pod(json!([a]), json!({})),
                pod(json!([{"name": "a", "image": "i9"}]), json!({})),
                json!({"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"image": "i9", "name": "a"}]}}),
            ),
            (
                "one less",
                pod(json!([a, b]), json!({})),
                pod(json!([a]), json!({})),
                json!({"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"$patch": "delete", "name": "b"}]}}),
            ),
            (
                "a field less",
                pod(json!([a]), json!({"hostNetwork": true})),
                pod(json!([a]), json!({})),
                json!({"spec": {"hostNetwork": null}}),
            ),
        ];
        for (what, original, modified, expected) in cases {
            let containers: Vec<_> = original["spec"]["containers"]
                .as_array()
                .into_iter()
                .flatten()
                .map(defaulted)
                .collect();
            let mut current = original.clone();
            current["spec"]["containers"] = containers.into();
            current["spec"]["dnsPolicy"] = "ClusterFirst".into();
            let made = patch(&original, &modified, &current, Fields::of(POD));
            assert_eq!(made, expected, "{what}");
            // The server, applying it, comes to what the file says and keeps what it does not speak of.
            let after = strategic_merge(current, &made, &MergeSchema::of(POD));
            let after = after.unwrap_or_default();
            assert_eq!(after["spec"]["dnsPolicy"], "ClusterFirst", "{what}");
            assert_eq!(
                patch(&modified, &modified, &after, Fields::of(POD)),
                json!({}),
                "{what}: applied twice"
            );
        }
    }

    #[test]
    fn finalizers_and_volumes() {
        let with = |finalizers: Value, volume: Value| json!({"metadata": {"finalizers": finalizers}, "spec": {"volumes": [volume]}});
        let original = with(json!(["a", "b"]), json!({"name": "v", "emptyDir": {}}));
        let modified = with(json!(["a", "c"]), json!({"name": "v", "hostPath": {"path": "/x"}}));
        let current = with(json!(["a", "b", "other"]), json!({"name": "v", "emptyDir": {}}));
        assert_eq!(
            patch(&original, &modified, &current, Fields::of(POD)),
            json!({
                "metadata": {
                    "$setElementOrder/finalizers": ["a", "c"],
                    "$deleteFromPrimitiveList/finalizers": ["b"], "finalizers": ["c"],
                },
                "spec": {
                    "$setElementOrder/volumes": [{"name": "v"}],
                    "volumes": [{"$retainKeys": ["hostPath", "name"], "name": "v", "emptyDir": null, "hostPath": {"path": "/x"}}],
                },
            })
        );
        let unknown = patch(&original, &modified, &current, Fields::unknown());
        assert_eq!(unknown["metadata"]["finalizers"], json!(["a", "c"]));
    }
}
