//! Label selectors, from their text form and from `meta/v1` LabelSelector objects.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as metav1;

use super::SelectorError;
use super::parse::Parser;
use crate::field::{FieldError, Path, quote};
use crate::meta::names;

/// How a requirement looks at a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// The label has one of the values (`=`, `==` and `in`).
    In,
    /// The label has none of the values, or is not there (`!=` and `notin`).
    NotIn,
    /// The label is there.
    Exists,
    /// The label is not there.
    DoesNotExist,
    /// The label is a whole number greater than the value.
    GreaterThan,
    /// The label is a whole number less than the value.
    LessThan,
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// How it is looked at.
    pub operator: Operator,
    /// What it is compared with.
    pub values: BTreeSet<String>,
    /// Whether it was written with one value and no parentheses.
    pub(super) exact: bool,
}

impl Requirement {
    /// A requirement whose key and values are valid for its operator.
    pub fn new(key: &str, operator: Operator, values: BTreeSet<String>) -> Result<Self, SelectorError> {
        Self::checked(key, operator, values, false)
    }

    pub(super) fn checked(
        key: &str,
        operator: Operator,
        values: BTreeSet<String>,
        exact: bool,
    ) -> Result<Self, SelectorError> {
        let at = Path::new("values");
        let fail = |error: FieldError| Err(SelectorError(error.to_string()));
        check_key(key)?;
        match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                return fail(FieldError::invalid(
                    &at,
                    &values,
                    "for 'in', 'notin' operators, values set can't be empty",
                ));
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                return fail(FieldError::invalid(
                    &at,
                    &values,
                    "values set must be empty for exists and does not exist",
                ));
            }
            Operator::GreaterThan | Operator::LessThan => {
                if values.len() != 1 {
                    return fail(FieldError::invalid(
                        &at,
                        &values,
                        "for 'Gt', 'Lt' operators, exactly one value is required",
                    ));
                }
                for (index, value) in values.iter().enumerate() {
                    if value.parse::<i64>().is_err() {
                        let detail = "for 'Gt', 'Lt' operators, the value must be an integer";
                        return fail(FieldError::invalid(&at.index(index), value, detail));
                    }
                }
            }
            _ => {}
        }
        for (index, value) in values.iter().enumerate() {
            let messages = names::label_value(value);
            if !messages.is_empty() {
                return fail(FieldError::invalid(
                    &at.index(index).key(key),
                    value,
                    messages.join("; "),
                ));
            }
        }
        Ok(Requirement {
            key: key.to_owned(),
            operator,
            values,
            exact,
        })
    }

    /// Whether the labels meet the requirement.
    pub fn matches(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        let value = labels.and_then(|labels| labels.get(&self.key));
        let number = |text: &String| text.parse::<i64>().ok();
        match self.operator {
            Operator::In => value.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan | Operator::LessThan => {
                match (value.and_then(number), self.values.first().and_then(number)) {
                    (Some(value), Some(bound)) if self.operator == Operator::GreaterThan => value > bound,
                    (Some(value), Some(bound)) => value < bound,
                    _ => false,
                }
            }
        }
    }
}

pub(super) fn check_key(key: &str) -> Result<(), SelectorError> {
    let messages = names::qualified_name(key);
    if messages.is_empty() {
        return Ok(());
    }
    Err(SelectorError(
        FieldError::invalid(&Path::new("key"), key, messages.join("; ")).to_string(),
    ))
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = || self.values.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        let key = &self.key;
        match self.operator {
            Operator::In if self.exact => write!(f, "{key}={}", values()),
            Operator::NotIn if self.exact => write!(f, "{key}!={}", values()),
            Operator::In => write!(f, "{key} in ({})", values()),
            Operator::NotIn => write!(f, "{key} notin ({})", values()),
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{}", values()),
            Operator::LessThan => write!(f, "{key}<{}", values()),
        }
    }
}

/// Conditions that all have to hold. Without any, it selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl LabelSelector {
    /// The selector of every object.
    pub fn everything() -> Self {
        Self::default()
    }

    /// The selector of no object.
    pub fn nothing() -> Self {
        LabelSelector {
            requirements: Vec::new(),
            nothing: true,
        }
    }

    /// The selector of objects with all of these labels, as `spec.selector` of a Service means it.
    pub fn from_map(labels: &BTreeMap<String, String>) -> Self {
        let requirements = labels
            .iter()
            .map(|(key, value)| Requirement {
                key: key.clone(),
                operator: Operator::In,
                values: BTreeSet::from([value.clone()]),
                exact: true,
            })
            .collect();
        LabelSelector {
            requirements,
            nothing: false,
        }
    }

    /// The selector that an object's field holds: without the field it selects nothing, with an empty one
    /// everything.
    pub fn from_object(selector: Option<&metav1::LabelSelector>) -> Result<Self, SelectorError> {
        let Some(selector) = selector else {
            return Ok(Self::nothing());
        };
        let mut requirements = selector
            .match_labels
            .as_ref()
            .map(Self::from_map)
            .unwrap_or_default()
            .requirements;
        for requirement in &requirements {
            check_key(&requirement.key)?;
        }
        for expression in selector.match_expressions.iter().flatten() {
            let operator = match expression.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(SelectorError(format!(
                        "{} is not a valid label selector operator",
                        quote(other)
                    )));
                }
            };
            let values = expression.values.iter().flatten().cloned().collect();
            requirements.push(Requirement::new(&expression.key, operator, values)?);
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(LabelSelector {
            requirements,
            nothing: false,
        })
    }

    /// Whether it selects everything.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    /// The conditions.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        !self.nothing && self.requirements.iter().all(|requirement| requirement.matches(labels))
    }
}

impl FromStr for LabelSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Parser::new(text).requirements()?;
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(LabelSelector {
            requirements,
            nothing: false,
        })
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn matching() {
        let set = labels(&[("app", "web"), ("tier", "front"), ("n", "5"), ("in", "x")]);
        for (text, want) in [
            ("", true),
            ("app=web", true),
            ("app==web", true),
            ("app = web , tier=front", true),
            ("app!=web", false),
            ("other!=web", true),
            ("app in (web, db)", true),
            ("app notin (web,db)", false),
            ("other notin (web)", true),
            ("app", true),
            ("!app", false),
            ("!other", true),
            ("other", false),
            ("app in ()", false),
            ("n>4", true),
            ("n<4", false),
            ("app>4", false),
            ("app=", false),
            ("in=x", true),
            ("in in (x)", true),
            ("app in (,web)", true),
        ] {
            match text.parse::<LabelSelector>() {
                Ok(selector) => assert_eq!(selector.matches(Some(&set)), want, "{text}"),
                Err(error) => assert_eq!(text, "app in ()", "{error}"),
            }
        }
    }

    #[test]
    fn parse_errors() {
        for (text, want) in [
            ("a=b=c", "found '=', expected: ',' or 'end of string'"),
            ("a,", "found '', expected: identifier after ','"),
            (",a", "found ',', expected: !, identifier, or 'end of string'"),
            (
                "a b",
                "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt",
            ),
            ("a in b", "unable to parse requirement: found 'b' expected: '('"),
            ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
            (
                "a in ()",
                "unable to parse requirement: values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty",
            ),
            ("!", "unable to parse requirement: found '', expected: identifier"),
            (
                "a>x",
                "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
        ] {
            assert_eq!(text.parse::<LabelSelector>().unwrap_err().to_string(), want, "{text}");
        }
        let error = "app=a/b".parse::<LabelSelector>().unwrap_err().to_string();
        assert!(
            error.starts_with("unable to parse requirement: values[0][app]: Invalid value: \"a/b\": a valid label"),
            "{error}"
        );
        let error = "/x=1".parse::<LabelSelector>().unwrap_err().to_string();
        assert!(
            error.starts_with("unable to parse requirement: key: Invalid value: \"/x\": prefix part must be non-empty"),
            "{error}"
        );
    }

    #[test]
    fn texts_come_back() {
        for (text, want) in [
            ("b=1,a in (y,x),!c", "a in (x,y),b=1,!c"),
            ("a!=b", "a!=b"),
            ("a", "a"),
            ("a notin (b)", "a notin (b)"),
        ] {
            assert_eq!(text.parse::<LabelSelector>().unwrap().to_string(), want);
        }
    }

    #[test]
    fn objects() {
        let everything = metav1::LabelSelector::default();
        assert!(LabelSelector::from_object(Some(&everything)).unwrap().matches(None));
        assert!(!LabelSelector::from_object(None).unwrap().matches(None));
        let selector = metav1::LabelSelector {
            match_labels: Some(labels(&[("app", "web")])),
            match_expressions: Some(vec![metav1::LabelSelectorRequirement {
                key: "tier".into(),
                operator: "DoesNotExist".into(),
                values: None,
            }]),
        };
        let selector = LabelSelector::from_object(Some(&selector)).unwrap();
        assert!(selector.matches(Some(&labels(&[("app", "web")]))));
        assert!(!selector.matches(Some(&labels(&[("app", "web"), ("tier", "x")]))));
    }
}
