//! Acting as somebody else: `kubectl --as`, `--as-group`, `--as-uid` and `--as-user-extra`.
//!
//! Who may is a matter of authorization, as upstream documents it: the verb `impersonate` on `users`, `groups`, `serviceaccounts`, and on
//! `uids` and `userextras` of `authentication.k8s.io`. What follows happens in the other's name, with none of one's own groups.

use std::{collections::BTreeMap, sync::Arc};

use api::{Status, status};
use http::{HeaderMap, HeaderName};
use percent_encoding::percent_decode_str;

use crate::{
    Identity,
    authz::{Action, Authorizer, refusal},
    identity::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, service_account_groups},
};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
const GROUP_OF_REVIEWS: &str = "authentication.k8s.io";

/// Whom a request wants to be, if its headers say so. The headers are taken off: who comes later in its walk, a program behind a proxy too,
/// sees none of them.
///
/// # Errors
/// `Forbidden` when the one who asks may not, and what upstream says when groups and the like come without a user.
pub(crate) fn take(
    headers: &mut HeaderMap,
    identity: &Identity,
    authorizer: &dyn Authorizer,
) -> Result<Option<Identity>, Status> {
    let Some(wanted) = Wanted::take(headers)? else {
        return Ok(None);
    };
    for action in wanted.actions() {
        if !authorizer.allows(identity, action) {
            return Err(refusal(identity, action));
        }
    }
    Ok(Some(wanted.identity()))
}

/// What the headers say.
#[derive(Debug, Default, PartialEq)]
struct Wanted {
    user: String,
    uid: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

impl Wanted {
    fn take(headers: &mut HeaderMap) -> Result<Option<Self>, Status> {
        let names: Vec<HeaderName> = headers
            .keys()
            .filter(|name| matches!(name.as_str(), USER | GROUP | UID) || name.as_str().starts_with(EXTRA))
            .cloned()
            .collect();
        if names.is_empty() {
            return Ok(None);
        }
        let mut wanted = Self::default();
        for name in names {
            let http::header::Entry::Occupied(entry) = headers.entry(&name) else {
                continue;
            };
            let (_, values) = entry.remove_entry_mult();
            let values = values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
            match name.as_str() {
                USER => wanted.user = values.take(1).collect(),
                UID => wanted.uid = values.take(1).collect(),
                GROUP => wanted.groups = values.collect(),
                extra => {
                    let key = extra.strip_prefix(EXTRA).unwrap_or_default();
                    // A name that is none of UTF-8 under its encoding stays as it came.
                    let key = percent_decode_str(key)
                        .decode_utf8()
                        .map_or_else(|_| key.to_owned(), Into::into);
                    wanted.extra.entry(key).or_default().extend(values);
                }
            }
        }
        if wanted.user.is_empty() {
            let what = match (&wanted.groups[..], wanted.uid.as_str()) {
                ([], "") => "extra fields",
                ([], _) => "a uid",
                _ => "groups",
            };
            return Err(status::internal(format!(
                "requested {what} without impersonating a user"
            )));
        }
        Ok(Some(wanted))
    }

    /// The namespace and name of the ServiceAccount, if that is who the user is.
    fn service_account(&self) -> Option<(&str, &str)> {
        let (namespace, name) = self.user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
        (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
    }

    /// Each of what must be allowed.
    fn actions(&self) -> impl Iterator<Item = Action<'_>> {
        let action = |group, resource, subresource, namespace, name| Action::Resource {
            verb: "impersonate",
            group,
            resource,
            subresource,
            namespace,
            name: Some(name),
        };
        let user = match self.service_account() {
            Some((namespace, name)) => action("", "serviceaccounts", None, Some(namespace), name),
            None => action("", "users", None, None, self.user.as_str()),
        };
        let groups = self
            .groups
            .iter()
            .map(move |name| action("", "groups", None, None, name));
        let uid = Some(self.uid.as_str()).filter(|uid| !uid.is_empty());
        let uid = uid.map(|uid| action(GROUP_OF_REVIEWS, "uids", None, None, uid));
        let extra = self.extra.iter().flat_map(move |(key, values)| {
            values
                .iter()
                .map(move |value| action(GROUP_OF_REVIEWS, "userextras", Some(key), None, value))
        });
        std::iter::once(user).chain(groups).chain(uid).chain(extra)
    }

    fn identity(self) -> Identity {
        let mut groups = self.groups.clone();
        if let (Some((namespace, _)), true) = (self.service_account(), groups.is_empty()) {
            groups = service_account_groups(namespace).into();
        }
        // Everybody has proved who they are or has not.
        let known = groups
            .iter()
            .any(|group| matches!(group.as_str(), AUTHENTICATED | UNAUTHENTICATED));
        if !known {
            let stranger = self.user == ANONYMOUS;
            groups.push(if stranger { UNAUTHENTICATED } else { AUTHENTICATED }.into());
        }
        Identity {
            user: self.user.into(),
            uid: self.uid.into(),
            groups: groups.into_iter().map(Arc::from).collect(),
            extra: Arc::new(self.extra),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
    use http::HeaderValue;

    use super::*;

    /// Who may impersonate users and groups alone, of those that are named.
    struct May(&'static [&'static str]);

    impl Authorizer for May {
        fn allows(&self, _: &Identity, action: Action<'_>) -> bool {
            let Action::Resource {
                verb,
                resource,
                name: Some(name),
                ..
            } = action
            else {
                return false;
            };
            verb == "impersonate" && self.0.contains(&format!("{resource}/{name}").as_str())
        }
    }

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn one_acts_as_whom_one_may() {
        let groups = |identity: &Identity| identity.groups.iter().map(ToString::to_string).collect::<Vec<_>>();
        let may = May(&[
            "users/jane",
            "groups/dev",
            "groups/ops",
            "users/system:anonymous",
            "serviceaccounts/robot",
            "uids/7",
            "userextras/view",
        ]);
        let me = Identity::master("me");
        let mut asked = headers(&[
            ("impersonate-user", "jane"),
            ("accept", "application/json"),
            ("impersonate-group", "dev"),
            ("impersonate-group", "ops"),
            ("impersonate-uid", "7"),
            ("impersonate-extra-acme.com%2fscopes", "view"),
        ]);
        let jane = take(&mut asked, &me, &may).unwrap().unwrap();
        assert_eq!((&*jane.user, &*jane.uid), ("jane", "7"));
        assert_eq!(groups(&jane), ["dev", "ops", "system:authenticated"]);
        assert_eq!(jane.extra["acme.com/scopes"], ["view"]);
        assert_eq!(
            asked,
            headers(&[("accept", "application/json")]),
            "nobody after this sees them"
        );

        for (user, expected) in [
            ("jane", vec!["system:authenticated"]),
            ("system:anonymous", vec!["system:unauthenticated"]),
            (
                "system:serviceaccount:prod:robot",
                vec![
                    "system:serviceaccounts",
                    "system:serviceaccounts:prod",
                    "system:authenticated",
                ],
            ),
        ] {
            let acting = take(&mut headers(&[("impersonate-user", user)]), &me, &may);
            assert_eq!(groups(&acting.unwrap().unwrap()), expected, "{user}");
        }
        assert_eq!(take(&mut headers(&[]), &me, &may).unwrap(), None);
    }

    #[test]
    fn others_are_refused_in_upstreams_words() {
        let me = Identity::authenticated("me", ["ops"]);
        for (lines, code, said) in [
            (
                &[("impersonate-user", "bob")][..],
                403,
                r#"users "bob" is forbidden: User "me" cannot impersonate resource "users" in API group "" at the cluster scope"#,
            ),
            (
                &[("impersonate-user", "jane"), ("impersonate-group", "system:masters")],
                403,
                r#"groups "system:masters" is forbidden: User "me" cannot impersonate resource "groups" in API group "" at the cluster scope"#,
            ),
            (
                &[("impersonate-user", "system:serviceaccount:prod:robot")],
                403,
                r#"serviceaccounts "robot" is forbidden: User "me" cannot impersonate resource "serviceaccounts" in API group "" in the namespace "prod""#,
            ),
            (
                &[("impersonate-user", "jane"), ("impersonate-extra-scopes", "view")],
                403,
                r#"userextras.authentication.k8s.io "view" is forbidden: User "me" cannot impersonate resource "userextras/scopes" in API group "authentication.k8s.io" at the cluster scope"#,
            ),
            (
                &[("impersonate-group", "ops")],
                500,
                "Internal error occurred: requested groups without impersonating a user",
            ),
        ] {
            let refused = take(&mut headers(lines), &me, &May(&["users/jane"])).unwrap_err();
            assert_eq!((refused.code(), refused.message()), (code, said));
        }
    }
}
