//! Field selectors: `status.phase=Running,metadata.name!=x`.

use std::fmt;
use std::str::FromStr;

use super::SelectorError;
use crate::field::quote;
use crate::object::Object;
use crate::strategy::Strategy;

/// One condition on one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    /// The field's path.
    pub path: String,
    /// Whether the value has to be equal, rather than different.
    pub equal: bool,
    /// The value.
    pub value: String,
}

/// Conditions that all have to hold. Without any, it selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<FieldTerm>,
}

const METADATA: &[&str] = &["metadata.name", "metadata.namespace"];

impl FieldSelector {
    /// Whether it selects everything.
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The conditions.
    pub fn terms(&self) -> &[FieldTerm] {
        &self.terms
    }

    /// The value that a field must have to be selected, when there is one.
    pub fn required(&self, path: &str) -> Option<&str> {
        self.terms
            .iter()
            .find(|term| term.equal && term.path == path)
            .map(|term| term.value.as_str())
    }

    /// Refuses a selector with a field that the kind does not let select.
    pub fn check(&self, strategy: &dyn Strategy) -> Result<(), SelectorError> {
        for term in &self.terms {
            let path = term.path.as_str();
            if METADATA.contains(&path) || strategy.fields().contains(&path) {
                continue;
            }
            return Err(SelectorError(if strategy.fields().is_empty() {
                format!(
                    "{} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
                    quote(path)
                )
            } else {
                format!("field label not supported: {path}")
            }));
        }
        Ok(())
    }

    /// Whether the object is selected. A field that the kind does not know counts as empty.
    pub fn matches(&self, strategy: &dyn Strategy, object: &dyn Object) -> bool {
        self.matches_with(|path| strategy.field(object, path))
    }

    /// Whether an object is selected whose fields `field` gives.
    pub fn matches_with(&self, field: impl Fn(&str) -> Option<String>) -> bool {
        self.terms
            .iter()
            .all(|term| (field(&term.path).unwrap_or_default() == term.value) == term.equal)
    }
}

/// Splits at commas that no backslash escapes.
fn split_terms(text: &str) -> Vec<&str> {
    let (mut terms, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    term.char_indices().find_map(|(at, _)| {
        let (path, rest) = term.split_at(at);
        [("!=", false), ("==", true), ("=", true)]
            .into_iter()
            .find_map(|(operator, equal)| Some((path, equal, rest.strip_prefix(operator)?)))
    })
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                next => {
                    let sequence: String = std::iter::once('\\').chain(next).collect();
                    return Err(SelectorError(format!(
                        "invalid field selector: invalid escape sequence: {sequence}"
                    )));
                }
            },
            ',' | '=' => {
                return Err(SelectorError(format!(
                    "invalid field selector: unescaped character in value: {c}"
                )));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

impl FromStr for FieldSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let mut terms = Vec::new();
        for term in split_terms(text).into_iter().filter(|term| !term.is_empty()) {
            let Some((path, equal, value)) = split_term(term) else {
                return Err(SelectorError(format!(
                    "invalid selector: '{text}'; can't understand '{term}'"
                )));
            };
            terms.push(FieldTerm {
                path: path.to_owned(),
                equal,
                value: unescape(value)?,
            });
        }
        terms.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(FieldSelector { terms })
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.terms.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let operator = if term.equal { "=" } else { "!=" };
            let value = term.value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            write!(f, "{comma}{}{operator}{value}", term.path)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn parsing_and_matching() {
        let field = |path: &str| match path {
            "metadata.name" => Some("a,b".to_owned()),
            "status.phase" => Some("Running".to_owned()),
            _ => None,
        };
        for (text, want) in [
            ("", true),
            ("status.phase=Running", true),
            ("status.phase==Running", true),
            ("status.phase!=Running", false),
            ("status.phase!=Pending,metadata.name=a\\,b", true),
            ("metadata.name=a", false),
            ("spec.nodeName=", true),
        ] {
            assert_eq!(
                text.parse::<FieldSelector>().unwrap().matches_with(field),
                want,
                "{text}"
            );
        }
        let selector: FieldSelector = "metadata.name=x\\=y,a!=b".parse().unwrap();
        assert_eq!(selector.required("metadata.name"), Some("x=y"));
        assert_eq!(selector.required("a"), None);
        assert_eq!(selector.to_string(), "a!=b,metadata.name=x\\=y");
    }

    #[test]
    fn parse_errors() {
        for (text, want) in [
            ("name", "invalid selector: 'name'; can't understand 'name'"),
            ("a=b,name", "invalid selector: 'a=b,name'; can't understand 'name'"),
            ("a=b\\x", "invalid field selector: invalid escape sequence: \\x"),
            ("a=b=c", "invalid field selector: unescaped character in value: ="),
        ] {
            assert_eq!(text.parse::<FieldSelector>().unwrap_err().to_string(), want);
        }
    }
}
