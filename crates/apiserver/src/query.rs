//! The options in a request's query, read with upstream's rules.

use api::{FieldError, Path, Status, status};

/// The query's parameters, decoded, in their order.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(query: &str) -> Self {
        Self(form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    /// The first value of a parameter; an empty one counts as none.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// Every value of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// A flag as upstream reads it: there and neither `0` nor `false`.
    pub fn flag(&self, name: &str) -> bool {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .is_some_and(|(_, value)| !matches!(value.as_str(), "0" | "false" | "False"))
    }

    pub fn integer(&self, name: &str) -> Result<Option<i64>, Status> {
        let Some(text) = self.get(name) else { return Ok(None) };
        match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(status::bad_request(format!(
                "strconv.ParseInt: parsing {text:?}: invalid syntax"
            ))),
        }
    }

    /// Whether nothing is to be stored.
    pub fn dry_run(&self, options_kind: &str) -> Result<bool, Status> {
        dry_run(options_kind, self.all("dryRun").filter(|value| !value.is_empty()))
    }
}

/// Whether the values of `dryRun`, from a query or a body, ask for nothing to be stored.
pub(crate) fn dry_run<'a>(options_kind: &str, values: impl Iterator<Item = &'a str>) -> Result<bool, Status> {
    let mut dry = false;
    for value in values {
        if value != "All" {
            let error = FieldError::not_supported(&Path::new("dryRun"), [value], &["All"]);
            return Err(status::invalid("meta.k8s.io", options_kind, "", &[error]));
        }
        dry = true;
    }
    Ok(dry)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test fails by panicking.
    use super::*;

    #[test]
    fn options_are_read_as_upstream_reads_them() {
        let query = Query::parse("a=1&b=&watch=true&x=0&y&limit=5&bad=z&dryRun=All&command=a+b&command=c%2Fd");
        assert_eq!(query.get("a"), Some("1"));
        assert_eq!(query.get("b"), None);
        assert!(query.flag("watch"));
        assert!(!query.flag("x"));
        assert!(query.flag("y"));
        assert!(!query.flag("absent"));
        assert_eq!(query.integer("limit").unwrap(), Some(5));
        assert_eq!(query.integer("bad").unwrap_err().code(), 400);
        assert!(query.dry_run("CreateOptions").unwrap());
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["a b", "c/d"]);
        let error = Query::parse("dryRun=Some").dry_run("CreateOptions").unwrap_err();
        assert_eq!(
            error.message(),
            r#"CreateOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: ["Some"]: supported values: "All""#
        );
    }
}
