//! What names, labels and keys may look like, in upstream's words.
//!
//! Checks return the messages of the rules that a value breaks, none when it is fine. They are written as
//! scans of bytes, since every object that is written passes through them.

use crate::field::{FieldError, Path};

/// The most bytes of a DNS-1123 label.
pub const LABEL_MAX: usize = 63;
/// The most bytes of a DNS-1123 subdomain.
pub const SUBDOMAIN_MAX: usize = 253;

/// Which names the objects of a kind may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// A DNS-1123 subdomain: most kinds.
    Subdomain,
    /// A DNS-1123 label: namespaces.
    Label,
    /// A DNS-1035 label, which starts with a letter: services.
    Label1035,
    /// Anything that is one segment of a path.
    PathSegment,
}

impl NameRule {
    /// The messages of what is wrong with a name.
    pub fn check(self, name: &str) -> Vec<String> {
        match self {
            NameRule::Subdomain => dns1123_subdomain(name),
            NameRule::Label => dns1123_label(name),
            NameRule::Label1035 => dns1035_label(name),
            NameRule::PathSegment => path_segment(name),
        }
    }

    /// The messages of what is wrong with a prefix, which more characters will follow.
    pub fn check_prefix(self, prefix: &str) -> Vec<String> {
        match self {
            NameRule::PathSegment => path_segment_prefix(prefix),
            // A dash is fine at the end of a prefix, though not of a name.
            _ => match prefix.strip_suffix('-') {
                Some(rest) if !rest.is_empty() => self.check(&format!("{}a", &rest[..rest.len() - last_len(rest)])),
                _ => self.check(prefix),
            },
        }
    }
}

fn last_len(s: &str) -> usize {
    s.chars().next_back().map_or(0, char::len_utf8)
}

fn max_len(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

/// Upstream's explanation of a regular expression that did not match, doubled spaces included.
fn regex_error(message: &str, format: &str, examples: &[&str]) -> String {
    let mut out = message.to_owned();
    if examples.is_empty() {
        return format!("{out} (regex used for validation is '{format}')");
    }
    out.push_str(" (e.g. ");
    for (i, example) in examples.iter().enumerate() {
        if i > 0 {
            out.push_str(" or ");
        }
        out.push_str(&format!("'{example}', "));
    }
    out.push_str(&format!("regex used for validation is '{format}')"));
    out
}

fn lower_alphanumeric(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn is_label(s: &str) -> bool {
    let bytes = s.as_bytes();
    matches!((bytes.first(), bytes.last()), (Some(&first), Some(&last)) if lower_alphanumeric(first) && lower_alphanumeric(last))
        && bytes.iter().all(|&b| lower_alphanumeric(b) || b == b'-')
}

/// A DNS-1123 label: `web-1`.
pub fn dns1123_label(s: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if s.len() > LABEL_MAX {
        errors.push(max_len(LABEL_MAX));
    }
    if !is_label(s) {
        if s.len() <= SUBDOMAIN_MAX && s.split('.').all(is_label) {
            // Most often somebody took a subdomain for a label.
            errors.push("must not contain dots".to_owned());
        } else {
            errors.push(regex_error(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
                "[a-z0-9]([-a-z0-9]*[a-z0-9])?",
                &["my-name", "123-abc"],
            ));
        }
    }
    errors
}

/// A DNS-1123 subdomain: labels joined by dots.
pub fn dns1123_subdomain(s: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if s.len() > SUBDOMAIN_MAX {
        errors.push(max_len(SUBDOMAIN_MAX));
    }
    if !s.split('.').all(is_label) {
        errors.push(regex_error(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
            r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
            &["example.com"],
        ));
    }
    errors
}

/// A DNS-1035 label: as DNS-1123, but a letter comes first.
pub fn dns1035_label(s: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if s.len() > LABEL_MAX {
        errors.push(max_len(LABEL_MAX));
    }
    if !is_label(s) || !s.starts_with(|c: char| c.is_ascii_lowercase()) {
        errors.push(regex_error(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    errors
}

fn path_segment_prefix(s: &str) -> Vec<String> {
    ["/", "%"]
        .iter()
        .filter(|illegal| s.contains(*illegal))
        .map(|illegal| format!("may not contain '{illegal}'"))
        .collect()
}

/// A segment of a URL's path.
pub fn path_segment(s: &str) -> Vec<String> {
    if s == "." || s == ".." {
        return vec![format!("may not be '{s}'")];
    }
    path_segment_prefix(s)
}

fn is_word(s: &str) -> bool {
    let bytes = s.as_bytes();
    matches!((bytes.first(), bytes.last()), (Some(first), Some(last)) if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric())
        && bytes
            .iter()
            .all(|&b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

const QUALIFIED: &str =
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const QUALIFIED_FORMAT: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const QUALIFIED_EXAMPLES: &[&str] = &["MyName", "my.name", "123-abc"];

/// A qualified name: `name` or `example.com/name`, as keys of labels and annotations, taints, resources.
pub fn qualified_name(s: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let name = match s.split('/').collect::<Vec<_>>()[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".to_owned());
            } else {
                errors.extend(
                    dns1123_subdomain(prefix)
                        .into_iter()
                        .map(|message| format!("prefix part {message}")),
                );
            }
            name
        }
        _ => {
            return vec![format!(
                "a qualified name {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                regex_error(QUALIFIED, QUALIFIED_FORMAT, QUALIFIED_EXAMPLES)
            )];
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_MAX {
        errors.push(format!("name part {}", max_len(LABEL_MAX)));
    }
    if !is_word(name) {
        errors.push(format!(
            "name part {}",
            regex_error(QUALIFIED, QUALIFIED_FORMAT, QUALIFIED_EXAMPLES)
        ));
    }
    errors
}

/// The value of a label, which may be empty.
pub fn label_value(s: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if s.len() > LABEL_MAX {
        errors.push(max_len(LABEL_MAX));
    }
    if !s.is_empty() && !is_word(s) {
        errors.push(regex_error(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
            &["MyValue", "my_value", "12345"],
        ));
    }
    errors
}

/// The name of a port: an IANA service name.
pub fn port_name(s: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if s.len() > 15 {
        errors.push(max_len(15));
    }
    if !s.bytes().all(|b| lower_alphanumeric(b) || b == b'-') || s.is_empty() {
        errors.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !s.bytes().any(|b| b.is_ascii_lowercase()) {
        errors.push("must contain at least one letter (a-z)".to_owned());
    }
    if s.contains("--") {
        errors.push("must not contain consecutive hyphens".to_owned());
    }
    if s.starts_with('-') || s.ends_with('-') {
        errors.push("must not begin or end with a hyphen".to_owned());
    }
    errors
}

/// A port's number.
pub fn port_number(port: i32) -> Vec<String> {
    if (1..=65535).contains(&port) {
        Vec::new()
    } else {
        vec!["must be between 1 and 65535, inclusive".to_owned()]
    }
}

/// Adds the errors of a key of a ConfigMap or Secret, which becomes a file's name.
pub fn config_map_key(key: &str, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let mut push = |message: String| errors.push(FieldError::invalid(path, key, message));
    if key.len() > SUBDOMAIN_MAX {
        push(max_len(SUBDOMAIN_MAX));
    }
    if key.is_empty()
        || !key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
    {
        push(regex_error(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    match key {
        "." => push("must not be '.'".to_owned()),
        ".." => push("must not be '..'".to_owned()),
        _ if key.starts_with("..") => push("must not start with '..'".to_owned()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let label = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
        let subdomain = r"a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
        let none: &[&str] = &[];
        for (rule, name, want) in [
            (NameRule::Label, "web-1", none),
            (NameRule::Label, "Web", &[label][..]),
            (NameRule::Label, "", &[label]),
            (NameRule::Label, "a.b", &["must not contain dots"]),
            (NameRule::Subdomain, "a.b", none),
            (NameRule::Subdomain, "a..b", &[subdomain]),
            (NameRule::Subdomain, "nginx_1", &[subdomain]),
            (NameRule::Label1035, "a1", none),
            (NameRule::PathSegment, "A_b:c", none),
            (NameRule::PathSegment, "a/b", &["may not contain '/'"]),
            (NameRule::PathSegment, "..", &["may not be '..'"]),
        ] {
            assert_eq!(rule.check(name), want, "{name}");
        }
        assert_eq!(
            NameRule::Label.check(&"a".repeat(64)),
            ["must be no more than 63 bytes"]
        );
        assert_eq!(NameRule::Label1035.check("1a").len(), 1);
    }

    #[test]
    fn prefixes_may_end_with_a_dash() {
        assert!(NameRule::Subdomain.check_prefix("web-").is_empty());
        assert!(NameRule::Subdomain.check_prefix("web").is_empty());
        assert!(NameRule::Subdomain.check_prefix("a-").is_empty());
        assert!(!NameRule::Subdomain.check_prefix("-").is_empty());
        assert!(!NameRule::Subdomain.check_prefix("Web-").is_empty());
    }

    #[test]
    fn qualified_names() {
        for (name, want) in [
            ("app", &[][..]),
            ("example.com/app", &[]),
            ("/app", &["prefix part must be non-empty"]),
            (
                "example.com/",
                &[
                    "name part must be non-empty",
                    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
                ],
            ),
            (
                "a/b/c",
                &[
                    "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                ],
            ),
        ] {
            assert_eq!(qualified_name(name), want, "{name}");
        }
        assert!(label_value("").is_empty());
        assert!(label_value("v1.2_3").is_empty());
        assert_eq!(label_value("-x").len(), 1);
    }

    #[test]
    fn port_names() {
        assert!(port_name("http-alt").is_empty());
        assert_eq!(port_name("123"), ["must contain at least one letter (a-z)"]);
        assert_eq!(port_name("a--b"), ["must not contain consecutive hyphens"]);
        assert_eq!(port_name("toolongportname1"), ["must be no more than 15 bytes"]);
    }
}
