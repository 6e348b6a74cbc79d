//! Any object, by its fields.

use serde_json::{Map, Value};

use super::text::{annotations, pairs, plain, string};
use crate::print::yaml::sorted;

/// Name, labels and annotations, then every other field with its name in words.
pub fn describe(object: &Value) -> String {
    let metadata = &object["metadata"];
    let mut text = format!(
        "Name:\t{}\nNamespace:\t{}\n",
        string(metadata, "name"),
        string(metadata, "namespace")
    );
    text += &pairs("Labels", &metadata["labels"]);
    text += &annotations(&metadata["annotations"]);
    text += &format!(
        "API Version:\t{}\nKind:\t{}\n",
        string(object, "apiVersion"),
        string(object, "kind")
    );
    let mut rest = object.clone();
    if let Some(fields) = rest.as_object_mut() {
        fields.remove("apiVersion");
        fields.remove("kind");
        if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
            for shown in ["managedFields", "name", "namespace", "labels", "annotations"] {
                metadata.remove(shown);
            }
        }
        write(fields, 0, &mut text);
    }
    text
}

fn write(fields: &Map<String, Value>, level: usize, text: &mut String) {
    let indent = "  ".repeat(level);
    for (key, value) in sorted(fields) {
        let label = words(key);
        match value {
            Value::Object(inner) => {
                text.push_str(&format!("{indent}{label}:\n"));
                write(inner, level + 1, text);
            }
            Value::Array(items) => {
                text.push_str(&format!("{indent}{label}:\n"));
                for item in items {
                    match item {
                        Value::Object(inner) => write(inner, level + 1, text),
                        other => text.push_str(&format!("{indent}  {}\n", plain(other))),
                    }
                }
            }
            Value::Null => text.push_str(&format!("{indent}{label}:\t<nil>\n")),
            other => text.push_str(&format!("{indent}{label}:\t{}\n", plain(other))),
        }
    }
}

/// `creationTimestamp` is `Creation Timestamp`; what is no plain name stays as it is.
fn words(key: &str) -> String {
    let acronyms = ["API", "URL", "UID", "OSB", "GUID"];
    if !key.chars().all(|c| c.is_ascii_alphanumeric()) {
        return key.to_owned();
    }
    let mut words: Vec<String> = Vec::new();
    let mut before_upper = true;
    for character in key.chars() {
        let upper = character.is_ascii_uppercase();
        match words.last_mut() {
            Some(word) if !upper || before_upper => word.push(character),
            _ => words.push(character.to_string()),
        }
        before_upper = upper;
    }
    let words = words.into_iter().map(|word| {
        let capitals = word.to_ascii_uppercase();
        if acronyms.contains(&capitals.as_str()) {
            return capitals;
        }
        let mut characters = word.chars();
        let first = characters.next().map(|first| first.to_ascii_uppercase());
        first.into_iter().chain(characters).collect()
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn field_names() {
        for (key, expected) in [
            ("creationTimestamp", "Creation Timestamp"),
            ("uid", "UID"),
            ("data", "Data"),
            ("app.kubernetes.io/name", "app.kubernetes.io/name"),
        ] {
            assert_eq!(words(key), expected);
        }
    }
}
