//! Where a request goes, and where a redirect sends it: addresses as Go's `net/url` writes and resolves them.

use std::fmt;

use http::Uri;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

/// What may not stand in a request line, and is escaped in the paths that users write.
const ESCAPED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// `host:port`, an IPv6 address in brackets.
pub fn join(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// An address of HTTP or HTTPS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Whether it is HTTPS.
    pub secure: bool,
    /// The host without brackets.
    pub host: String,
    /// The port, the scheme's own where none is written.
    pub port: u16,
    /// Host and port as they are written.
    pub authority: String,
    /// Path and query, escaped, beginning with a slash.
    pub path: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.path)
    }
}

impl Place {
    /// From the parts that a probe has.
    pub fn new(secure: bool, host: &str, port: u16, path: &str) -> Self {
        Self {
            secure,
            host: host.to_owned(),
            port,
            authority: join(host, port),
            path: escape(path),
        }
    }

    /// Where a `Location` points from here; an address of another scheme has no place here, and only its host counts.
    pub fn resolve(&self, location: &str) -> Result<Self, String> {
        let unparsed = |error: &dyn fmt::Display| format!("failed to parse Location header {location:?}: {error}");
        if location.starts_with("//") || has_scheme(location) {
            let whole = if location.starts_with("//") {
                format!("{}:{location}", if self.secure { "https" } else { "http" })
            } else {
                location.to_owned()
            };
            let uri: Uri = utf8_percent_encode(&whole, ESCAPED)
                .to_string()
                .parse()
                .map_err(|error: http::uri::InvalidUri| unparsed(&error))?;
            let secure = uri.scheme_str() == Some("https");
            let host = uri.host().unwrap_or_default();
            return Ok(Self {
                secure,
                host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
                port: uri.port_u16().unwrap_or(if secure { 443 } else { 80 }),
                authority: uri.authority().map(ToString::to_string).unwrap_or_default(),
                path: escape(uri.path_and_query().map_or("/", |path| path.as_str())),
            });
        }
        let own = self.path.split('?').next().unwrap_or("/");
        let path = match location.as_bytes().first() {
            Some(b'/') => location.to_owned(),
            Some(b'?') => format!("{own}{location}"),
            _ => format!(
                "{}/{location}",
                own.rsplit_once('/').map_or("", |(directory, _)| directory)
            ),
        };
        let (path, query) = match path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path.as_str(), None),
        };
        let mut path = without_dots(path);
        if let Some(query) = query {
            path = format!("{path}?{query}");
        }
        Ok(Self {
            path: escape(&path),
            ..self.clone()
        })
    }
}

fn has_scheme(location: &str) -> bool {
    location.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    })
}

/// A path as it stands in a request: with a slash in front, without a fragment, escaped where it has to be.
fn escape(path: &str) -> String {
    let path = path.split('#').next().unwrap_or_default();
    let slash = if path.starts_with('/') { "" } else { "/" };
    format!("{slash}{}", utf8_percent_encode(path, ESCAPED))
}

/// Takes `.` and `..` out of an absolute path.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut parts = path.split('/').skip(1).peekable();
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        match part {
            "." | ".." => {
                if part == ".." {
                    kept.pop();
                }
                // What the dots stood for is a directory.
                if last {
                    kept.push("");
                }
            }
            part => kept.push(part),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;

    #[test]
    fn a_probe_names_a_place() {
        for (secure, host, path, written) in [
            (false, "10.0.0.1", "/healthz", "http://10.0.0.1:80/healthz"),
            (true, "10.0.0.1", "", "https://10.0.0.1:80/"),
            (false, "fd00::1", "a?b=c d", "http://[fd00::1]:80/a?b=c%20d"),
            (false, "h", "/ä#part", "http://h:80/%C3%A4"),
            (false, "h", "/a%20b", "http://h:80/a%20b"),
        ] {
            assert_eq!(Place::new(secure, host, 80, path).to_string(), written);
        }
    }

    #[test]
    fn redirects_resolve_from_where_they_are_met() {
        let here = Place::new(false, "10.0.0.1", 8090, "/a/b?c=d");
        for (location, there) in [
            ("/x", "http://10.0.0.1:8090/x"),
            ("x", "http://10.0.0.1:8090/a/x"),
            ("../x?y", "http://10.0.0.1:8090/x?y"),
            ("./", "http://10.0.0.1:8090/a/"),
            ("?e=f", "http://10.0.0.1:8090/a/b?e=f"),
            ("/x:y", "http://10.0.0.1:8090/x:y"),
            ("//10.0.0.2/x", "http://10.0.0.2/x"),
            ("https://10.0.0.1:8443/x y", "https://10.0.0.1:8443/x%20y"),
            ("https://[fd00::1]", "https://[fd00::1]/"),
        ] {
            assert_eq!(here.resolve(location).unwrap().to_string(), there, "{location}");
        }
        let there = here.resolve("https://[fd00::1]/x").unwrap();
        assert_eq!((there.host.as_str(), there.port), ("fd00::1", 443));
        let error = here.resolve("http://a b/").unwrap_err();
        assert!(
            error.starts_with("failed to parse Location header \"http://a b/\": "),
            "{error}"
        );
    }
}
