//! Parsing into a JSON value, with the paths of fields that are there twice (the last one counts).

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::Format;
use crate::field::Path;

/// A parsed body.
pub(super) struct Tree {
    pub value: Value,
    /// The paths of the fields that are there more than once, as upstream writes them.
    pub duplicates: Vec<String>,
}

pub(super) fn parse(body: &[u8], format: Format) -> Result<Tree, String> {
    // JSON is YAML too, but for tabs: what looks like it is first read as such.
    if format == Format::Yaml
        && matches!(body.trim_ascii_start().first(), Some(b'{' | b'['))
        && let Ok(tree) = parse(body, Format::Json)
    {
        return Ok(tree);
    }
    let duplicates = RefCell::new(Vec::new());
    let seed = Node {
        path: None,
        duplicates: &duplicates,
    };
    let value = match format {
        Format::Json => {
            let mut deserializer = serde_json::Deserializer::from_slice(body);
            let value = seed.deserialize(&mut deserializer).map_err(|error| said(&error))?;
            deserializer.end().map_err(|error| said(&error))?;
            value
        }
        Format::Yaml => seed
            .deserialize(serde_yaml_ng::Deserializer::from_slice(body))
            .map_err(|e| e.to_string())?,
    };
    Ok(Tree {
        value,
        duplicates: duplicates.into_inner(),
    })
}

fn said(error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "unexpected end of JSON input".to_owned();
    }
    error.to_string()
}

/// One value on the way down, and where it is.
#[derive(Clone, Copy)]
struct Node<'a> {
    path: Option<&'a Path<'a>>,
    duplicates: &'a RefCell<Vec<String>>,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        // YAML knows numbers that JSON does not.
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("the number is not finite"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::with_capacity(items.size_hint().unwrap_or(0));
        loop {
            let path = self.path.map(|path| path.index(list.len()));
            let node = Node {
                path: path.as_ref(),
                ..self
            };
            match items.next_element_seed(node)? {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<Key>()? {
            let Key(key) = key;
            let path = match self.path {
                Some(path) => path.child(&key),
                None => Path::new(&key),
            };
            if map.contains_key(&key) {
                self.duplicates.borrow_mut().push(path.to_string());
            }
            let value = entries.next_value_seed(Node {
                path: Some(&path),
                ..self
            })?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

/// A key, which in YAML may be a number or a boolean.
struct Key(String);

impl<'de> serde::Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;

        impl Visitor<'_> for KeyVisitor {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<Key, E> {
                Ok(Key(value.to_owned()))
            }

            fn visit_string<E: Error>(self, value: String) -> Result<Key, E> {
                Ok(Key(value))
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Key, E> {
                Ok(Key(value.to_string()))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Key, E> {
                Ok(Key(value.to_string()))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Key, E> {
                Ok(Key(value.to_string()))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Key, E> {
                Ok(Key(value.to_string()))
            }
        }

        deserializer.deserialize_any(KeyVisitor)
    }
}
