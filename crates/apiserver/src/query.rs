//! The options in a request's query, read with upstream's rules.

use api::{FieldError, FieldValidation, Path, Status, status};

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

    /// The options of a request that writes, whose kind is `kind`.
    pub fn write_options(&self, kind: &str) -> Result<WriteOptions, Status> {
        let mut errors = Vec::new();
        if kind == "PatchOptions" && self.get("force").is_some() {
            let detail = "may not be specified for non-apply patch";
            errors.push(FieldError::forbidden(&Path::new("force"), detail));
        }
        field_manager(self.get("fieldManager").unwrap_or_default(), &mut errors);
        let dry_run = is_dry(self.all("dryRun").filter(|value| !value.is_empty()));
        let validation = FieldValidation::parse(self.get("fieldValidation"));
        match (dry_run, validation) {
            (Ok(dry_run), Ok(validation)) if errors.is_empty() => Ok(WriteOptions { dry_run, validation }),
            (dry_run, validation) => {
                errors.extend(dry_run.err());
                errors.extend(validation.err());
                Err(status::invalid("meta.k8s.io", kind, "", &errors))
            }
        }
    }
}

/// What a request that writes wishes for besides its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WriteOptions {
    /// Nothing is to be stored.
    pub dry_run: bool,
    pub validation: FieldValidation,
}

/// The most bytes of a field manager's name.
const MAX_FIELD_MANAGER: usize = 128;

fn field_manager(name: &str, errors: &mut Vec<FieldError>) {
    let path = Path::new("fieldManager");
    if name.len() > MAX_FIELD_MANAGER {
        errors.push(FieldError::too_long(&path, MAX_FIELD_MANAGER));
    }
    for (at, found) in name.char_indices() {
        if found.is_control() || (found != ' ' && found.is_whitespace()) {
            let detail = format!("invalid character U+{:04X} (at position {at})", u32::from(found));
            errors.push(FieldError::invalid(&path, name, detail));
        }
    }
}

/// Whether the values of `dryRun`, from a query or a body, ask for nothing to be stored.
pub(crate) fn dry_run<'a>(options_kind: &str, values: impl Iterator<Item = &'a str>) -> Result<bool, Status> {
    is_dry(values).map_err(|error| status::invalid("meta.k8s.io", options_kind, "", &[error]))
}

fn is_dry<'a>(values: impl Iterator<Item = &'a str>) -> Result<bool, FieldError> {
    let mut dry = false;
    for value in values {
        if value != "All" {
            return Err(FieldError::not_supported(&Path::new("dryRun"), [value], &["All"]));
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
        let options = query.write_options("CreateOptions").unwrap();
        assert_eq!((options.dry_run, options.validation), (true, FieldValidation::Warn));
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["a b", "c/d"]);
    }

    #[test]
    fn options_that_are_none() {
        for (query, kind, want) in [
            (
                "dryRun=Some".to_owned(),
                "CreateOptions",
                r#"dryRun: Unsupported value: ["Some"]: supported values: "All""#,
            ),
            (
                "fieldValidation=Loud".to_owned(),
                "UpdateOptions",
                r#"fieldValidation: Unsupported value: "Loud": supported values: "Ignore", "Strict", "Warn""#,
            ),
            (
                format!("fieldManager={}", "m".repeat(129)),
                "CreateOptions",
                "fieldManager: Too long: may not be more than 128 bytes",
            ),
            (
                "fieldManager=a%09b&dryRun=Some".to_owned(),
                "CreateOptions",
                r#"[fieldManager: Invalid value: "a\tb": invalid character U+0009 (at position 1), dryRun: Unsupported value: ["Some"]: supported values: "All"]"#,
            ),
            (
                "force=true".to_owned(),
                "PatchOptions",
                "force: Forbidden: may not be specified for non-apply patch",
            ),
        ] {
            let error = Query::parse(&query).write_options(kind).unwrap_err();
            assert_eq!(error.code(), 422);
            assert_eq!(error.message(), format!("{kind}.meta.k8s.io \"\" is invalid: {want}"));
        }
    }
}
