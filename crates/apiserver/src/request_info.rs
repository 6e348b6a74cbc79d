//! What a request's path and method ask for.

use std::borrow::Cow;

use http::Method;
use percent_encoding::percent_decode_str;

use crate::query::Query;

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Objects, or one object, or something below one.
    Resource(ResourcePath),
    /// Anything else: discovery, health, documents.
    Other,
}

/// The parts of a resource's path.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ResourcePath {
    pub group: String,
    pub version: String,
    pub namespace: Option<String>,
    /// The resource's plural name.
    pub resource: String,
    pub name: Option<String>,
    pub subresource: Option<String>,
    /// What follows the subresource, with its leading slash and still encoded: where a proxied request goes.
    pub rest: String,
    /// Whether the path is one of the older `/watch/` ones.
    pub watch: bool,
}

impl Target {
    pub fn parse(path: &str) -> Self {
        let (group, rest) = if let Some(rest) = path.strip_prefix("/api/") {
            ("", rest)
        } else if let Some(rest) = path.strip_prefix("/apis/") {
            let Some((group, rest)) = rest.split_once('/') else {
                return Self::Other;
            };
            (group, rest)
        } else {
            return Self::Other;
        };
        let mut segments = rest.split('/');
        let version = segments.next().unwrap_or_default();
        let mut parts = segments.filter(|segment| !segment.is_empty());
        let mut found = ResourcePath {
            group: group.into(),
            version: version.into(),
            ..ResourcePath::default()
        };
        let mut next = || parts.next().map(decode);
        let Some(mut first) = next() else { return Self::Other };
        if first == "watch" {
            found.watch = true;
            let Some(after) = next() else { return Self::Other };
            first = after;
        }
        if first == "namespaces" {
            let namespace = next();
            match (namespace, next()) {
                (Some(namespace), Some(second)) if !matches!(&*second, "status" | "finalize") => {
                    found.namespace = Some(namespace.into_owned());
                    first = second;
                }
                (namespace, second) => {
                    found.resource = first.into_owned();
                    found.namespace = namespace.as_deref().map(String::from);
                    found.name = namespace.map(Cow::into_owned);
                    found.subresource = second.map(Cow::into_owned);
                    return Self::Resource(found);
                }
            }
        }
        found.resource = first.into_owned();
        found.name = next().map(Cow::into_owned);
        found.subresource = next().map(Cow::into_owned);
        // What a proxied request asks of its target is passed on untouched, so it is cut from the path itself.
        let before = 3
            + usize::from(path.starts_with("/apis/"))
            + usize::from(found.watch)
            + if found.namespace.is_some() { 2 } else { 0 }
            + 3;
        if found.subresource.is_some()
            && let Some((at, _)) = path.match_indices('/').nth(before - 1)
        {
            found.rest = path[at..].to_owned();
        }
        Self::Resource(found)
    }
}

fn decode(segment: &str) -> Cow<'_, str> {
    // A name that is not UTF-8 names nothing: the lookup then finds nothing.
    percent_decode_str(segment).decode_utf8_lossy()
}

impl ResourcePath {
    /// The verb that authorization and the registry know, from the method and what is asked for.
    pub fn verb(&self, method: &Method, query: &Query) -> &'static str {
        let one = self.name.is_some();
        match *method {
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if one => "delete",
            Method::DELETE => "deletecollection",
            _ if self.subresource.is_none() && (self.watch || query.flag("watch")) => "watch",
            _ if one => "get",
            _ => "list",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(group: &str, namespace: &str, resource: &str, name: &str, subresource: &str, rest: &str) -> Target {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Target::Resource(ResourcePath {
            group: group.into(),
            version: "v1".into(),
            namespace: some(namespace),
            resource: resource.into(),
            name: some(name),
            subresource: some(subresource),
            rest: rest.into(),
            watch: false,
        })
    }

    #[test]
    fn paths_are_taken_apart() {
        for (text, expected) in [
            ("/api/v1/pods", path("", "", "pods", "", "", "")),
            ("/api/v1/nodes/one", path("", "", "nodes", "one", "", "")),
            ("/api/v1/nodes/one/status", path("", "", "nodes", "one", "status", "")),
            (
                "/api/v1/nodes/one/proxy/logs/a%2Fb/",
                path("", "", "nodes", "one", "proxy", "/logs/a%2Fb/"),
            ),
            ("/api/v1/namespaces", path("", "", "namespaces", "", "", "")),
            ("/api/v1/namespaces/", path("", "", "namespaces", "", "", "")),
            ("/api/v1/namespaces/a", path("", "a", "namespaces", "a", "", "")),
            (
                "/api/v1/namespaces/a/finalize",
                path("", "a", "namespaces", "a", "finalize", ""),
            ),
            ("/api/v1/namespaces/a/pods", path("", "a", "pods", "", "", "")),
            ("/api/v1/namespaces/a/pods/p", path("", "a", "pods", "p", "", "")),
            (
                "/api/v1/namespaces/a/pods/p/exec",
                path("", "a", "pods", "p", "exec", ""),
            ),
            ("/api/v1/namespaces/a/pods/p%2Fq", path("", "a", "pods", "p/q", "", "")),
            (
                "/api/v1/namespaces/a/services/http:s:80/proxy/x/y",
                path("", "a", "services", "http:s:80", "proxy", "/x/y"),
            ),
            (
                "/apis/apps/v1/namespaces/a/deployments/d/scale",
                path("apps", "a", "deployments", "d", "scale", ""),
            ),
            ("/apis/apps/v1/deployments", path("apps", "", "deployments", "", "", "")),
            ("/api", Target::Other),
            ("/api/v1", Target::Other),
            ("/api/v1/", Target::Other),
            ("/apis/apps", Target::Other),
            ("/apis/apps/v1", Target::Other),
            ("/api/v1/watch", Target::Other),
            ("/healthz", Target::Other),
            ("/", Target::Other),
        ] {
            assert_eq!(Target::parse(text), expected, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_path_is_taken_apart(path in "(/apis?/)?[a-z0-9/%.:]{0,60}") {
            if let Target::Resource(found) = Target::parse(&path) {
                proptest::prop_assert!(path.ends_with(&found.rest), "{found:?}");
            }
        }
    }

    #[test]
    fn verbs_follow_the_method_and_what_is_asked_for() {
        for (method, text, query, verb) in [
            (Method::GET, "/api/v1/pods", "", "list"),
            (Method::GET, "/api/v1/pods", "watch=1", "watch"),
            (Method::GET, "/api/v1/watch/pods", "", "watch"),
            (Method::GET, "/api/v1/watch/namespaces/a/pods/p", "", "watch"),
            (Method::GET, "/api/v1/namespaces/a/pods/p", "", "get"),
            (Method::HEAD, "/api/v1/namespaces/a/pods/p", "", "get"),
            (Method::GET, "/api/v1/namespaces/a/pods/p", "watch=true", "watch"),
            (Method::GET, "/api/v1/namespaces/a/pods/p/log", "watch=true", "get"),
            (Method::POST, "/api/v1/namespaces/a/pods", "", "create"),
            (Method::POST, "/api/v1/namespaces/a/pods/p/exec", "", "create"),
            (Method::PUT, "/api/v1/namespaces/a/pods/p", "", "update"),
            (Method::PATCH, "/api/v1/namespaces/a/pods/p", "", "patch"),
            (Method::DELETE, "/api/v1/namespaces/a/pods/p", "", "delete"),
            (Method::DELETE, "/api/v1/namespaces/a/pods", "", "deletecollection"),
        ] {
            let Target::Resource(path) = Target::parse(text) else {
                panic!("{text} is a resource's path")
            };
            assert_eq!(
                path.verb(&method, &Query::parse(query)),
                verb,
                "{method} {text}?{query}"
            );
        }
    }
}
