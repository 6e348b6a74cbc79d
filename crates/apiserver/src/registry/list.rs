//! `list`: the objects of a kind, whole or page by page, as of one revision.

use std::sync::Arc;

use api::{Status, status};
use store::{Entry, ListOptions};

use crate::{
    answer::{Answer, Content, List},
    call::{Call, Outcome},
    registry::{
        get::await_revision,
        key,
        page::{self, Place},
        prefix,
        selection::{Match, Selection, revision_match},
        store_error,
    },
};

/// One page of a list is read in pieces of at least this many objects when a selector takes only some of them.
const SELECTED_PIECE: usize = 500;

/// The objects that a call means.
pub(crate) async fn list(call: &Call<'_>) -> Outcome {
    let list = select(call).await?;
    Ok(Answer::new(200, Content::List(list)))
}

/// The entries that a call means, with what is said of them together.
pub(crate) async fn select(call: &Call<'_>) -> Result<List, Status> {
    let selection = Selection::of(call)?;
    let matching = revision_match(call.query, false)?;
    let limit = call
        .query
        .integer("limit")?
        .and_then(|limit| usize::try_from(limit).ok())
        .filter(|limit| *limit > 0);
    // It bounds a watch only, and has to be a number here too.
    call.query.integer("timeoutSeconds")?;
    let place = call.query.get("continue").map(Place::decode).transpose()?;
    let revision = match (&place, matching) {
        (Some(place), Match::Newest | Match::NotOlderThan(0)) => place.revision,
        (Some(_), _) => {
            return Err(status::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        (None, Match::Exact(revision)) => Some(revision),
        (None, Match::NotOlderThan(revision)) => {
            await_revision(call, revision).await?;
            None
        }
        (None, Match::Newest) => None,
    };
    if revision.is_none()
        && let (Some(name), Some(namespace)) = (selection.name(), namespace_of(call))
    {
        return single(call, &selection, namespace, name).await;
    }
    match pages(call, &selection, revision, limit, place.as_ref()).await {
        Err(store::Error::Compacted { .. }) => Err(match &place {
            Some(place) => page::too_old(place),
            None => status::expired("The resourceVersion for the provided list is too old."),
        }),
        Err(error) => Err(store_error(error)),
        Ok(list) => Ok(list),
    }
}

/// The namespace whose keys a name completes: none when the call is about all namespaces.
fn namespace_of<'a>(call: &Call<'a>) -> Option<Option<&'a str>> {
    match (call.resource.namespaced, call.namespace) {
        (true, Some(namespace)) => Some(Some(namespace)),
        (true, None) => None,
        (false, _) => Some(None),
    }
}

/// A list by one name is a look-up.
async fn single(call: &Call<'_>, selection: &Selection, namespace: Option<&str>, name: &str) -> Result<List, Status> {
    let store = &call.server.store;
    // The revision first: the object may only be newer than the list claims.
    let revision = store.revision().await.map_err(store_error)?;
    let entry = store
        .get(&key(call.resource, namespace, name))
        .await
        .map_err(store_error)?;
    let entries: Vec<Arc<Entry>> = entry
        .into_iter()
        .filter(|entry| selection.admits(call.resource, entry))
        .collect();
    let revision = entries.iter().map(|entry| entry.revision).fold(revision, u64::max);
    Ok(List {
        entries,
        revision,
        next: None,
        remaining: None,
    })
}

async fn pages(
    call: &Call<'_>,
    selection: &Selection,
    revision: Option<u64>,
    limit: Option<usize>,
    place: Option<&Place>,
) -> Result<List, store::Error> {
    let prefix = prefix(call.resource, call.namespace);
    // A continue token holds a key relative to the kind's prefix or the namespace's, whichever was listed.
    let mut after = place.map(|place| format!("{prefix}{}", place.after));
    let mut found: Vec<Arc<Entry>> = Vec::new();
    let mut at = revision;
    loop {
        let wanted = limit.map(|limit| {
            let wanted = limit - found.len();
            if selection.is_everything() {
                wanted
            } else {
                wanted.max(SELECTED_PIECE)
            }
        });
        let options = ListOptions {
            revision: at,
            start_after: after.take(),
            limit: wanted,
        };
        let piece = call.server.store.list(&prefix, options).await?;
        at = Some(piece.revision);
        let last_of_piece = piece.entries.last().map(|entry| entry.key.clone());
        let mut taken = None;
        if selection.is_everything() {
            // The usual case: the store's own vector is the answer.
            if found.is_empty() {
                found = piece.entries
            } else {
                found.extend(piece.entries)
            }
        } else {
            let mut entries = piece.entries.into_iter();
            for entry in entries.by_ref() {
                if selection.admits(call.resource, &entry) {
                    found.push(entry);
                }
                if limit.is_some_and(|limit| found.len() >= limit) {
                    break;
                }
            }
            taken = Some(entries.len());
        }
        let left_in_piece = taken.unwrap_or(0);
        let full = limit.is_some_and(|limit| found.len() >= limit);
        if full || !piece.more {
            let more = full && (piece.more || left_in_piece > 0);
            let next = more.then(|| found.last()).flatten().map(|last| {
                Place {
                    revision: Some(piece.revision),
                    after: last.key[prefix.len()..].to_owned(),
                }
                .encode()
            });
            // How many of the rest a selector would take is not known.
            let remaining = (more && selection.is_everything()).then_some(piece.remaining);
            return Ok(List {
                entries: found,
                revision: piece.revision,
                next,
                remaining,
            });
        }
        after = last_of_piece.map(|key| key.to_string());
    }
}
