//! JSON as upstream's kubectl writes it: four spaces, keys sorted, and what HTML minds escaped.

use serde_json::Value;

use super::yaml::sorted;

/// One document, ending with a line break.
pub fn to_json(value: &Value) -> String {
    let mut out = String::new();
    write(value, 0, true, &mut out);
    out.push('\n');
    out
}

/// One line without a break.
pub fn to_compact_json(value: &Value) -> String {
    let mut out = String::new();
    write(value, 0, false, &mut out);
    out
}

fn write(value: &Value, depth: usize, pretty: bool, out: &mut String) {
    let line = |depth: usize, out: &mut String| {
        if pretty {
            out.push('\n');
            out.extend(std::iter::repeat_n("    ", depth));
        }
    };
    match value {
        Value::Object(map) if map.is_empty() => out.push_str("{}"),
        Value::Object(map) => {
            out.push('{');
            for (index, (key, value)) in sorted(map).into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                line(depth + 1, out);
                string(key, out);
                out.push_str(if pretty { ": " } else { ":" });
                write(value, depth + 1, pretty, out);
            }
            line(depth, out);
            out.push('}');
        }
        Value::Array(items) if items.is_empty() => out.push_str("[]"),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                line(depth + 1, out);
                write(item, depth + 1, pretty, out);
            }
            line(depth, out);
            out.push(']');
        }
        Value::String(text) => string(text, out),
        other => out.push_str(&other.to_string()),
    }
}

fn string(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..' ' => {
                out.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn as_upstream() {
        let value = json!({"b": [1, "<&>"], "a": {}, "c": [], "d": "x\ty\u{1}"});
        assert_eq!(
            to_json(&value),
            "{\n    \"a\": {},\n    \"b\": [\n        1,\n        \"\\u003c\\u0026\\u003e\"\n    ],\n    \"c\": [],\n    \"d\": \"x\\ty\\u0001\"\n}\n"
        );
        assert_eq!(
            to_compact_json(&value),
            r#"{"a":{},"b":[1,"\u003c\u0026\u003e"],"c":[],"d":"x\ty\u0001"}"#
        );
    }
}
