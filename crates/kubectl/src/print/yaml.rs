//! YAML as upstream's kubectl writes it: keys sorted, lists at their key's column, a string plain where it
//! can be and quoted where it would be read as something else, long lines folded after column 80.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value};

/// A line is folded at the first space beyond this column.
const WIDTH: usize = 80;

/// One document, ending with a line break.
pub fn to_yaml(value: &Value) -> String {
    let mut out = Emitter {
        text: String::new(),
        column: 0,
    };
    match value {
        Value::Object(map) if !map.is_empty() => out.map(map, 0),
        Value::Array(items) if !items.is_empty() => out.list(items, 0),
        other => {
            out.scalar(other, 0);
            out.newline(0);
        }
    }
    out.text
}

struct Emitter {
    text: String,
    column: usize,
}

impl Emitter {
    fn put(&mut self, text: &str) {
        self.text.push_str(text);
        self.column += text.chars().count();
    }

    fn newline(&mut self, indent: usize) {
        self.text.push('\n');
        self.text.extend(std::iter::repeat_n(' ', indent));
        self.column = indent;
    }

    fn indented(&mut self, indent: usize) {
        self.text.extend(std::iter::repeat_n(' ', indent));
        self.column = indent;
    }

    fn map(&mut self, map: &Map<String, Value>, indent: usize) {
        for (index, (key, value)) in sorted(map).into_iter().enumerate() {
            // The first key of a list's item stands behind its dash.
            if index > 0 || self.column == 0 {
                self.indented(indent);
            }
            self.key(key);
            match value {
                Value::Object(map) if !map.is_empty() => {
                    self.newline(0);
                    self.map(map, indent + 2);
                }
                Value::Array(items) if !items.is_empty() => {
                    self.newline(0);
                    self.list(items, indent);
                }
                other => {
                    self.put(" ");
                    self.scalar(other, indent + 2);
                    self.newline(0);
                }
            }
        }
    }

    fn list(&mut self, items: &[Value], indent: usize) {
        for (index, item) in items.iter().enumerate() {
            if index > 0 || self.column == 0 {
                self.indented(indent);
            }
            self.put("- ");
            match item {
                Value::Object(map) if !map.is_empty() => self.map(map, indent + 2),
                Value::Array(items) if !items.is_empty() => self.list(items, indent + 2),
                other => {
                    self.scalar(other, indent + 2);
                    self.newline(0);
                }
            }
        }
    }

    fn key(&mut self, key: &str) {
        match style(key) {
            Style::Plain => self.put(key),
            Style::Single => self.single(key, 0, false),
            Style::Double | Style::Literal => self.double(key, 0, false),
        }
        self.put(":");
    }

    fn scalar(&mut self, value: &Value, indent: usize) {
        match value {
            Value::String(text) => match style(text) {
                Style::Plain => self.folded(text, indent, true),
                Style::Single => self.single(text, indent, true),
                Style::Double => self.double(text, indent, true),
                Style::Literal => self.literal(text, indent),
            },
            Value::Object(_) => self.put("{}"),
            Value::Array(_) => self.put("[]"),
            other => self.put(&other.to_string()),
        }
    }

    /// Text with line breaks in place of single spaces beyond the width.
    fn folded(&mut self, text: &str, indent: usize, fold: bool) {
        let characters: Vec<char> = text.chars().collect();
        let mut after_space = false;
        for (at, character) in characters.iter().enumerate() {
            if *character == ' ' {
                let inner = at > 0 && at + 1 < characters.len();
                if fold && inner && !after_space && self.column > WIDTH && characters[at + 1] != ' ' {
                    self.newline(indent);
                } else {
                    self.put(" ");
                }
                after_space = true;
            } else {
                self.text.push(*character);
                self.column += 1;
                after_space = false;
            }
        }
    }

    fn single(&mut self, text: &str, indent: usize, fold: bool) {
        self.put("'");
        self.folded(&text.replace('\'', "''"), indent, fold);
        self.put("'");
    }

    fn double(&mut self, text: &str, indent: usize, fold: bool) {
        self.put("\"");
        let characters: Vec<char> = text.chars().collect();
        let mut after_space = false;
        for (at, character) in characters.iter().enumerate() {
            let inner = at > 0 && at + 1 < characters.len();
            if *character == ' ' && fold && inner && !after_space && self.column > WIDTH {
                self.newline(indent);
                if characters[at + 1] == ' ' {
                    self.put("\\");
                }
                after_space = true;
                continue;
            }
            after_space = *character == ' ';
            self.put(&escaped(*character));
        }
        self.put("\"");
    }

    fn literal(&mut self, text: &str, indent: usize) {
        self.put("|");
        if text.starts_with([' ', '\n']) {
            self.put("2");
        }
        let body = text.strip_suffix('\n');
        match body {
            None => self.put("-"),
            Some(body) if body.is_empty() || body.ends_with('\n') => self.put("+"),
            Some(_) => {}
        }
        for line in body.unwrap_or(text).split('\n') {
            self.newline(if line.is_empty() { 0 } else { indent });
            self.text.push_str(line);
        }
    }
}

/// The entries of a map in the order of their keys.
pub fn sorted(map: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by_key(|(key, _)| *key);
    entries
}

fn escaped(character: char) -> String {
    match character {
        '\0' => "\\0".into(),
        '\u{7}' => "\\a".into(),
        '\u{8}' => "\\b".into(),
        '\t' => "\\t".into(),
        '\n' => "\\n".into(),
        '\u{b}' => "\\v".into(),
        '\u{c}' => "\\f".into(),
        '\r' => "\\r".into(),
        '\u{1b}' => "\\e".into(),
        '"' => "\\\"".into(),
        '\\' => "\\\\".into(),
        '\u{85}' => "\\N".into(),
        '\u{a0}' => "\\_".into(),
        '\u{2028}' => "\\L".into(),
        '\u{2029}' => "\\P".into(),
        character if printable(character) => character.into(),
        character => match u32::from(character) {
            code @ ..=0xff => format!("\\x{code:02X}"),
            code @ ..=0xffff => format!("\\u{code:04X}"),
            code => format!("\\U{code:08X}"),
        },
    }
}

fn printable(character: char) -> bool {
    matches!(character, '\n' | ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}') && character != '\u{feff}'
}

#[derive(Debug, PartialEq, Clone, Copy)]
enum Style {
    Plain,
    Single,
    Double,
    Literal,
}

fn style(text: &str) -> Style {
    let special = text.chars().any(|character| !printable(character));
    let spaced_break = text.contains(" \n");
    if text.contains('\n') {
        let block = !special && !spaced_break && !text.ends_with(' ');
        return if block { Style::Literal } else { Style::Double };
    }
    if special || !reads_as_string(text) {
        return Style::Double;
    }
    if plain_is_safe(text) {
        Style::Plain
    } else {
        Style::Single
    }
}

/// Whether nothing in the text means something to YAML.
fn plain_is_safe(text: &str) -> bool {
    if text.starts_with(' ') || text.ends_with(' ') || text.starts_with("---") || text.starts_with("...") {
        return false;
    }
    let mut before = ' ';
    let mut characters = text.chars().peekable();
    let mut first = true;
    while let Some(character) = characters.next() {
        let spaced = characters.peek().is_none_or(|next| *next == ' ');
        let indicator = match character {
            '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`' if first => {
                true
            }
            '?' | '-' if first => spaced,
            ':' => spaced,
            '#' => before == ' ',
            _ => false,
        };
        if indicator {
            return false;
        }
        before = character;
        first = false;
    }
    true
}

/// Whether the text without quotes would still be a string.
fn reads_as_string(text: &str) -> bool {
    static NUMBER: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(concat!(
            r"^(?:[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?",
            r"|[-+]?0[xX][0-9a-fA-F_]+|[-+]?0[oO]?[0-7_]+|[-+]?0[bB][01_]+",
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
            r"|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?",
            r"|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}",
            r"(?:[Tt ][0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}(?:\.[0-9]+)?(?:Z|[-+][0-9]{2}:[0-9]{2})?)?)$",
        ))
        .ok()
    });
    if matches!(
        text,
        "" | "~"
            | "null"
            | "Null"
            | "NULL"
            | "<<"
            | "="
            | "y"
            | "Y"
            | "yes"
            | "Yes"
            | "YES"
            | "true"
            | "True"
            | "TRUE"
            | "on"
            | "On"
            | "ON"
            | "n"
            | "N"
            | "no"
            | "No"
            | "NO"
            | "false"
            | "False"
            | "FALSE"
            | "off"
            | "Off"
            | "OFF"
    ) {
        return text == "=";
    }
    !NUMBER.as_ref().is_some_and(|number| number.is_match(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn strings() {
        for (text, expected) in [
            ("nginx", "nginx"),
            ("a b", "a b"),
            ("", "\"\""),
            ("true", "\"true\""),
            ("y", "\"y\""),
            ("5", "\"5\""),
            ("0644", "\"0644\""),
            ("1.5", "\"1.5\""),
            ("1e3", "\"1e3\""),
            ("12h", "12h"),
            ("100m", "100m"),
            ("10.0.0.1", "10.0.0.1"),
            ("2024-01-02T03:04:05Z", "\"2024-01-02T03:04:05Z\""),
            ("12:30", "\"12:30\""),
            ("a: b", "'a: b'"),
            ("a:b", "a:b"),
            ("a #b", "'a #b'"),
            ("*", "'*'"),
            ("-c", "-c"),
            ("- c", "'- c'"),
            ("it's", "it's"),
            ("'q'", "'''q'''"),
            ("{}", "'{}'"),
            (" a", "' a'"),
            ("a\tb", "\"a\\tb\""),
            ("ü", "ü"),
            ("a\nb\n", "|\n  a\n  b"),
            ("a\nb", "|-\n  a\n  b"),
            ("a\n\n", "|+\n  a\n"),
        ] {
            let yaml = to_yaml(&json!({ "k": text }));
            assert_eq!(yaml, format!("k: {expected}\n"), "{text:?}");
        }
    }

    #[test]
    fn shapes() {
        let value = json!({
            "b": [{"w": 1, "v": {"z": [1, [2, 3]]}}, "s", [], {}],
            "a": null, "c": {"m": -1.5, "t": true, "y": "n"},
        });
        assert_eq!(
            to_yaml(&value),
            "a: null\nb:\n- v:\n    z:\n    - 1\n    - - 2\n      - 3\n  w: 1\n- s\n- []\n- {}\nc:\n  m: -1.5\n  t: true\n  \"y\": \"n\"\n"
        );
    }

    #[test]
    fn long_lines_fold() {
        let text = "word ".repeat(30).trim_end().to_owned();
        let yaml = to_yaml(&json!({"m": {"key": text}}));
        let lines: Vec<_> = yaml.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[1].len() > WIDTH && lines[2].starts_with("    word"));
    }
}
