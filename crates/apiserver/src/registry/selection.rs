//! Which objects a list, a watch or a deletion means, and as of which revision.

use api::{
    FieldError, Path, Status,
    selector::{FieldSelector, LabelSelector},
    status,
};
use store::{Change, Entry};

use crate::{call::Call, query::Query, registry::facets::Facets};

/// The label and field selectors of a request.
pub(crate) struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
    /// Set when no test of an object is needed.
    everything: bool,
}

/// How a change looks to a watcher that sees only some objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Added,
    Modified,
    /// The object went, or it is no longer one of those that the watcher sees.
    Deleted,
}

impl Selection {
    /// Reads the selectors of a call; a name in its path counts as one.
    pub fn of(call: &Call<'_>) -> Result<Self, Status> {
        let labels: LabelSelector = call.query.get("labelSelector").unwrap_or_default().parse()?;
        let mut text = call.query.get("fieldSelector").unwrap_or_default().to_owned();
        if let Some(name) = call.name {
            text = if text.is_empty() {
                format!("metadata.name={name}")
            } else {
                format!("{text},metadata.name={name}")
            };
        }
        let fields: FieldSelector = text.parse()?;
        fields.check(call.resource.strategy)?;
        let everything = labels.is_everything() && fields.is_everything();
        Ok(Self {
            labels,
            fields,
            everything,
        })
    }

    /// Whether every object is meant.
    pub const fn is_everything(&self) -> bool {
        self.everything
    }

    /// The one name that objects have to have, when the selector says so.
    pub fn name(&self) -> Option<&str> {
        self.fields.required("metadata.name")
    }

    /// Whether an object is meant.
    pub fn admits(&self, call_resource: &api::Resource, entry: &Entry) -> bool {
        if self.everything {
            return true;
        }
        let facets = entry.facets(|_| Facets::default());
        (self.labels.is_everything() || self.labels.matches(Some(facets.labels(entry))))
            && (self.fields.is_everything()
                || self
                    .fields
                    .matches_with(|path| facets.field(call_resource, entry, path)))
    }

    /// How a change looks to who sees only the objects that are meant.
    pub fn seen(&self, resource: &api::Resource, change: &Change) -> Option<Seen> {
        match change {
            Change::Put { entry, previous } => transition(
                previous
                    .as_ref()
                    .is_some_and(|previous| self.admits(resource, previous)),
                self.admits(resource, entry),
            ),
            Change::Delete { previous, .. } => self.admits(resource, previous).then_some(Seen::Deleted),
        }
    }
}

/// What a watcher is told of an object that it saw before, and sees now.
const fn transition(before: bool, now: bool) -> Option<Seen> {
    match (before, now) {
        (false, true) => Some(Seen::Added),
        (true, true) => Some(Seen::Modified),
        (true, false) => Some(Seen::Deleted),
        (false, false) => None,
    }
}

/// A resourceVersion as a client writes it.
pub(crate) fn revision(text: &str) -> Result<u64, Status> {
    text.parse().map_err(|_| {
        let error = FieldError::invalid(
            &Path::new("resourceVersion"),
            text,
            format!("strconv.ParseUint: parsing {text:?}: invalid syntax"),
        );
        status::invalid("meta.k8s.io", "ListOptions", "", &[error])
    })
}

/// Which revision a list or watch is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    /// The newest, or any: nothing was asked for.
    Newest,
    /// At least this one.
    NotOlderThan(u64),
    /// This one and no other.
    Exact(u64),
}

/// Reads resourceVersion and resourceVersionMatch, and refuses what upstream refuses.
pub(crate) fn revision_match(query: &Query, watch: bool) -> Result<Match, Status> {
    let version = query.get("resourceVersion");
    let matching = query.get("resourceVersionMatch");
    let initial = query.get("sendInitialEvents").is_some();
    let continues = query.get("continue").is_some();
    let path = Path::new("resourceVersionMatch");
    let invalid = |error| Err(status::invalid("meta.k8s.io", "ListOptions", "", &[error]));
    if initial {
        let path = Path::new("sendInitialEvents");
        if !watch {
            return invalid(FieldError::forbidden(&path, "sendInitialEvents is forbidden for list"));
        }
        if matching != Some("NotOlderThan") {
            return invalid(FieldError::forbidden(
                &Path::new("resourceVersionMatch"),
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ));
        }
    } else if let Some(matching) = matching {
        if watch {
            return invalid(FieldError::forbidden(
                &path,
                "resourceVersionMatch is forbidden for watch",
            ));
        }
        if version.is_none() {
            return invalid(FieldError::forbidden(
                &path,
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            ));
        }
        if continues {
            return invalid(FieldError::forbidden(
                &path,
                "resourceVersionMatch is forbidden when continue is provided",
            ));
        }
        if !matches!(matching, "Exact" | "NotOlderThan") {
            return invalid(FieldError::not_supported(&path, matching, &["Exact", "NotOlderThan"]));
        }
        if matching == "Exact" && version == Some("0") {
            return invalid(FieldError::forbidden(
                &path,
                "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ));
        }
    }
    let limited = query.get("limit").is_some_and(|limit| limit != "0");
    match version.map(revision).transpose()? {
        None => Ok(Match::Newest),
        Some(0) => Ok(Match::NotOlderThan(0)),
        Some(version) if matching == Some("Exact") => Ok(Match::Exact(version)),
        // As upstream has it since paging began: a page that names a revision and no rule means exactly that one.
        Some(version) if matching.is_none() && limited && !watch => Ok(Match::Exact(version)),
        Some(version) => Ok(Match::NotOlderThan(version)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test fails by panicking.
    use super::*;

    #[test]
    fn a_watcher_sees_objects_come_and_go_with_its_selector() {
        assert_eq!(transition(false, true), Some(Seen::Added));
        assert_eq!(transition(true, true), Some(Seen::Modified));
        assert_eq!(transition(true, false), Some(Seen::Deleted));
        assert_eq!(transition(false, false), None);
    }

    #[test]
    fn revisions_are_matched_by_upstreams_rules() {
        for (query, watch, expected) in [
            ("", false, Ok(Match::Newest)),
            ("resourceVersion=0", false, Ok(Match::NotOlderThan(0))),
            ("resourceVersion=7", false, Ok(Match::NotOlderThan(7))),
            ("resourceVersion=7&limit=5", false, Ok(Match::Exact(7))),
            (
                "resourceVersion=7&limit=5&resourceVersionMatch=NotOlderThan",
                false,
                Ok(Match::NotOlderThan(7)),
            ),
            (
                "resourceVersion=7&resourceVersionMatch=Exact",
                false,
                Ok(Match::Exact(7)),
            ),
            (
                "resourceVersion=x",
                false,
                Err(r#"resourceVersion: Invalid value: "x""#),
            ),
            (
                "resourceVersionMatch=Exact",
                false,
                Err("forbidden unless resourceVersion is provided"),
            ),
            (
                "resourceVersion=0&resourceVersionMatch=Exact",
                false,
                Err("is forbidden for resourceVersion \"0\""),
            ),
            (
                "resourceVersion=1&resourceVersionMatch=Best",
                false,
                Err(r#"Unsupported value: "Best""#),
            ),
            (
                "resourceVersion=1&resourceVersionMatch=Exact&continue=a",
                false,
                Err("forbidden when continue is provided"),
            ),
            (
                "resourceVersion=1&resourceVersionMatch=Exact",
                true,
                Err("resourceVersionMatch is forbidden for watch"),
            ),
            (
                "sendInitialEvents=true",
                false,
                Err("sendInitialEvents is forbidden for list"),
            ),
            (
                "sendInitialEvents=true",
                true,
                Err("requires setting resourceVersionMatch to NotOlderThan"),
            ),
            (
                "sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
                true,
                Ok(Match::Newest),
            ),
        ] {
            match (revision_match(&Query::parse(query), watch), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{query}"),
                (Err(found), Err(expected)) => assert!(found.message().contains(expected), "{query}: {found}"),
                (found, expected) => panic!("{query}: {found:?}, not {expected:?}"),
            }
        }
    }
}
