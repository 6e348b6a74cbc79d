//! Whether who asks may do what they ask.

use api::{Status, status};

use crate::{
    Identity,
    identity::{AUTHENTICATED, MASTERS},
};

/// What is asked, in the words of authorization.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Action<'a> {
    /// A verb on a resource.
    Resource {
        verb: &'a str,
        group: &'a str,
        resource: &'a str,
        subresource: Option<&'a str>,
        namespace: Option<&'a str>,
        name: Option<&'a str>,
    },
    /// A verb on any other path.
    Path { verb: &'a str, path: &'a str },
}

/// Decides. `false` is no opinion: when nobody allows it, it is refused.
pub(crate) trait Authorizer: Send + Sync {
    fn allows(&self, identity: &Identity, action: Action<'_>) -> bool;
}

/// The paths that everyone may read, to see that the server is there and which it is.
const OPEN_PATHS: &[&str] = &["/healthz", "/livez", "/readyz", "/version"];

/// Allows the administrators everything, everyone who is known all that there is, and strangers a look at the
/// server's health and version.
pub(crate) struct KnownUsers;

impl Authorizer for KnownUsers {
    fn allows(&self, identity: &Identity, action: Action<'_>) -> bool {
        if identity.in_group(MASTERS) || identity.in_group(AUTHENTICATED) {
            return true;
        }
        match action {
            Action::Resource { .. } => false,
            Action::Path { verb, path } => {
                verb == "get"
                    && OPEN_PATHS.iter().any(|open| {
                        path.strip_prefix(open)
                            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                    })
            }
        }
    }
}

/// The refusal, in upstream's words.
pub(crate) fn refusal(identity: &Identity, action: Action<'_>) -> Status {
    let user = &identity.user;
    match action {
        Action::Path { verb, path } => {
            status::forbidden("", "", "", &format!("User {user:?} cannot {verb} path {path:?}"))
        }
        Action::Resource {
            verb,
            group,
            resource,
            subresource,
            namespace,
            name,
        } => {
            let full = subresource.map_or_else(|| resource.to_owned(), |sub| format!("{resource}/{sub}"));
            let place = match namespace {
                Some(namespace) if resource != "namespaces" => format!("in the namespace {namespace:?}"),
                _ => String::from("at the cluster scope"),
            };
            let why = format!("User {user:?} cannot {verb} resource {full:?} in API group {group:?} {place}");
            status::forbidden(group, resource, name.unwrap_or_default(), &why)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_see_health_and_are_told_why_not_the_rest() {
        let list = Action::Resource {
            verb: "list",
            group: "",
            resource: "pods",
            subresource: None,
            namespace: Some("default"),
            name: None,
        };
        let get = |path| Action::Path { verb: "get", path };
        for (identity, action, allowed) in [
            (Identity::anonymous(), get("/healthz"), true),
            (Identity::anonymous(), get("/readyz/ping"), true),
            (Identity::anonymous(), get("/version"), true),
            (Identity::anonymous(), get("/versions"), false),
            (Identity::anonymous(), get("/api"), false),
            (Identity::anonymous(), list, false),
            (Identity::node("one"), list, true),
            (Identity::master("kubernetes-admin"), list, true),
        ] {
            assert_eq!(
                KnownUsers.allows(&identity, action),
                allowed,
                "{} {action:?}",
                identity.user
            );
        }
        assert_eq!(
            refusal(&Identity::anonymous(), list).message(),
            r#"pods is forbidden: User "system:anonymous" cannot list resource "pods" in API group "" in the namespace "default""#
        );
        assert_eq!(
            refusal(&Identity::anonymous(), get("/api")).message(),
            r#"forbidden: User "system:anonymous" cannot get path "/api""#
        );
    }
}
