//! kubectl's template language for picking values: text with `{…}` actions.
//!
//! An action is a path (`.spec.containers[*].name`, `..name`, `['key']`, `[1:3]`, `[-1]`,
//! `[?(@.name=="x")]`, `['a','b']`), a quoted text (`{"\n"}`), or `{range PATH}…{end}`, within which a path
//! starts at the item. A field that is missing yields nothing.

mod parser;

use std::cmp::Ordering;

use serde_json::Value;

use super::json::to_compact_json;

/// A parsed template.
#[derive(Debug, Clone, PartialEq)]
pub struct Template(Vec<Node>);

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Text(String),
    Path(Vec<Step>),
    Range(Vec<Step>, Vec<Node>),
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    /// Back to the whole document.
    Root,
    Field(String),
    Wildcard,
    /// The values so far and everything below them.
    Descend,
    Slice(Option<i64>, Option<i64>, i64),
    Index(i64),
    Union(Vec<Vec<Step>>),
    Filter(Operand, Option<(Compare, Operand)>),
}

#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Path(Vec<Step>),
    Literal(Value),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compare {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

impl Template {
    /// Parses a template; the error is upstream's, without its prefix.
    pub fn parse(text: &str) -> Result<Self, String> {
        parser::parse(text).map(Self)
    }

    /// A single path, with or without braces and the leading dot, as sort and columns take it.
    pub fn parse_relaxed(path: &str) -> Result<Self, String> {
        let inner = match (path.strip_prefix('{'), path.ends_with('}')) {
            (Some(rest), true) => &rest[..rest.len() - 1],
            (None, false) => path,
            _ => return Err(unexpected_path(path)),
        };
        if inner.is_empty() || inner.contains(['{', '}']) {
            return Err(unexpected_path(path));
        }
        let dot = if inner.starts_with(['.', '[', '$', '@']) {
            ""
        } else {
            "."
        };
        Self::parse(&format!("{{{dot}{inner}}}"))
    }

    /// The text that the template makes of a document.
    pub fn render(&self, document: &Value) -> String {
        let mut out = String::new();
        render(&self.0, document, document, &mut out);
        out
    }

    /// The values of a template that is one path.
    pub fn values<'a>(&self, document: &'a Value) -> Vec<&'a Value> {
        match self.0.as_slice() {
            [Node::Path(path)] => walk(path, document, document),
            _ => Vec::new(),
        }
    }
}

fn unexpected_path(path: &str) -> String {
    format!(
        "unexpected path string, expected a 'name1.name2' or '.name1.name2' or '{{name1.name2}}' or '{{.name1.name2}}': {path}"
    )
}

fn render(nodes: &[Node], root: &Value, current: &Value, out: &mut String) {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Path(path) => {
                let values: Vec<_> = walk(path, root, current).into_iter().map(plain).collect();
                out.push_str(&values.join(" "));
            }
            Node::Range(path, body) => {
                for item in walk(path, root, current) {
                    render(body, root, item, out);
                }
            }
        }
    }
}

/// A value as text: strings as they are, the rest as JSON.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => to_compact_json(other),
    }
}

fn walk<'a>(path: &[Step], root: &'a Value, start: &'a Value) -> Vec<&'a Value> {
    let mut values = vec![start];
    for step in path {
        values = match step {
            Step::Root => vec![root],
            Step::Field(name) => values.into_iter().filter_map(|value| value.get(name)).collect(),
            Step::Wildcard => values.into_iter().flat_map(children).collect(),
            Step::Descend => values.into_iter().flat_map(descend).collect(),
            Step::Index(index) => values.into_iter().filter_map(|value| at(value, *index)).collect(),
            Step::Slice(from, to, step) => values
                .into_iter()
                .flat_map(|value| slice(value, *from, *to, *step))
                .collect(),
            // Each choice in turn, for all values.
            Step::Union(paths) => paths
                .iter()
                .flat_map(|path| values.iter().flat_map(move |value| walk(path, root, value)))
                .collect(),
            Step::Filter(left, test) => values
                .into_iter()
                .flat_map(children)
                .filter(|value| holds(left, test.as_ref(), root, value))
                .collect(),
        };
    }
    values
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(map) => super::yaml::sorted(map).into_iter().map(|(_, value)| value).collect(),
        _ => Vec::new(),
    }
}

fn descend(value: &Value) -> Vec<&Value> {
    let mut found = vec![value];
    for child in children(value) {
        found.extend(descend(child));
    }
    found
}

fn at(value: &Value, index: i64) -> Option<&Value> {
    let items = value.as_array()?;
    let length = i64::try_from(items.len()).ok()?;
    let index = if index < 0 { index + length } else { index };
    items.get(usize::try_from(index).ok()?)
}

fn slice(value: &Value, from: Option<i64>, to: Option<i64>, step: i64) -> Vec<&Value> {
    let Some(items) = value.as_array() else {
        return Vec::new();
    };
    let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
    let place = |at: i64| (if at < 0 { at + length } else { at }).clamp(0, length);
    let (from, to) = (place(from.unwrap_or(0)), place(to.unwrap_or(length)));
    (from..to)
        .step_by(usize::try_from(step).unwrap_or(1).max(1))
        .filter_map(|index| items.get(usize::try_from(index).ok()?))
        .collect()
}

fn holds(left: &Operand, test: Option<&(Compare, Operand)>, root: &Value, item: &Value) -> bool {
    let Some(left) = operand(left, root, item) else {
        return false;
    };
    let Some((compare, right)) = test else {
        return true; // the path exists
    };
    let Some(right) = operand(right, root, item) else {
        return false;
    };
    let order = match (&left, &right) {
        (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (a, b) if a == b => Some(Ordering::Equal),
        _ => None,
    };
    match compare {
        Compare::Equal => order == Some(Ordering::Equal),
        Compare::NotEqual => order != Some(Ordering::Equal),
        Compare::Less => order == Some(Ordering::Less),
        Compare::LessEqual => order.is_some_and(Ordering::is_le),
        Compare::Greater => order == Some(Ordering::Greater),
        Compare::GreaterEqual => order.is_some_and(Ordering::is_ge),
    }
}

fn operand(operand: &Operand, root: &Value, item: &Value) -> Option<Value> {
    match operand {
        Operand::Literal(value) => Some(value.clone()),
        Operand::Path(path) => walk(path, root, item).first().map(|value| (*value).clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn list() -> Value {
        json!({"kind": "List", "items": [
            {"metadata": {"name": "a", "labels": {"app.kubernetes.io/name": "x"}}, "n": 1,
             "spec": {"containers": [{"name": "c1", "image": "i1"}, {"name": "c2", "image": "i2"}]}},
            {"metadata": {"name": "b"}, "n": 2, "ready": true, "spec": {"containers": [{"name": "c3"}]}},
        ]})
    }

    #[test]
    fn templates() {
        for (template, expected) in [
            ("{.kind}", "List"),
            ("{$.kind}", "List"),
            ("kind is {.kind}!", "kind is List!"),
            ("{.items[*].metadata.name}", "a b"),
            ("{.items[0].metadata.name}{\"\\n\"}", "a\n"),
            ("{.items[-1].metadata.name}", "b"),
            ("{.items[0:1].metadata.name}", "a"),
            ("{.items[:].n}", "1 2"),
            ("{.items[0].spec.containers[*]['name','image']}", "c1 c2 i1 i2"),
            ("{range .items[*]}{.metadata.name}:{.n}{\"\\n\"}{end}", "a:1\nb:2\n"),
            (
                "{range .items[*]}{.metadata.name}{range .spec.containers[*]} {.name}{end};{end}",
                "a c1 c2;b c3;",
            ),
            ("{.items[?(@.metadata.name==\"b\")].n}", "2"),
            ("{.items[?(@.n>1)].metadata.name}", "b"),
            ("{.items[?(@.n!=1)].metadata.name}", "b"),
            ("{.items[?(@.ready==true)].metadata.name}", "b"),
            ("{.items[?(@.ready)].metadata.name}", "b"),
            ("{..image}", "i1 i2"),
            ("{.items[0].metadata.labels.app\\.kubernetes\\.io/name}", "x"),
            ("{.items[0].metadata.labels['app.kubernetes.io/name']}", "x"),
            ("{.nothing}", ""),
            ("{.items[1].metadata}", r#"{"name":"b"}"#),
            ("{.items[*].n} {@.kind}", "1 2 List"),
            ("{.kind}{' '}{.items[0].n}", "List 1"),
            ("", ""),
        ] {
            let parsed = Template::parse(template).unwrap_or_else(|error| panic!("{template}: {error}"));
            assert_eq!(parsed.render(&list()), expected, "{template}");
        }
    }

    #[test]
    fn mistakes() {
        for (template, error) in [
            ("{.a", "unclosed action"),
            ("{range .items[*]}x", "unterminated range"),
            ("{end}", "not in range, nothing to end"),
            ("{.a[}", "invalid array index }"),
            ("{.a[0}", "unterminated array"),
            ("{\"x}", "unterminated quoted string"),
            ("{foo}", "unrecognized identifier foo"),
            ("{.a[?(@.b==1]}", "unterminated filter"),
        ] {
            assert_eq!(Template::parse(template), Err(error.to_owned()), "{template}");
        }
    }

    #[test]
    fn relaxed_paths() {
        for path in ["metadata.name", ".metadata.name", "{metadata.name}", "{.metadata.name}"] {
            let template = Template::parse_relaxed(path).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(template.values(&list()["items"][0]), [&json!("a")], "{path}");
        }
        assert!(Template::parse_relaxed("{.a").is_err());
    }
}
