//! `watch`: the changes of a kind's objects, as they happen.
//!
//! A watch is a stream that its client pulls: events are encoded when the connection can take them, and nothing is
//! queued here for a client that is slow. One that falls behind the store's history is told `410 Expired` and
//! lists anew. Objects are sent as the bytes that were stored; only the event around them is written for each
//! watcher.

use std::{borrow::Cow, sync::Arc, time::Duration};

use api::{
    Resource, Status,
    table::{self, IncludeObject, ListHead},
};
use bytes::Bytes;
use futures::{FutureExt as _, Stream, StreamExt as _, stream};
use jiff::Timestamp;
use rand::RngExt as _;
use store::{Change, Entry, ListOptions};
use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep, interval_at, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    answer::{Answer, Content},
    call::{Call, Outcome},
    negotiate::Shape,
    registry::{
        get::await_revision,
        prefix,
        selection::{Match, Seen, Selection, revision_match},
        store_error,
    },
};

/// How often a quiet watch says how far it has come.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// The shortest time after which a watch without a timeout of its own ends; the longest is twice that.
const SHORTEST: Duration = Duration::from_secs(30 * 60);
/// Events that are ready together are sent together, up to this many bytes.
const BATCH_BYTES: usize = 64 << 10;

/// Watches the objects that a call means.
pub(crate) async fn watch(call: &Call<'_>) -> Outcome {
    let selection = Selection::of(call)?;
    let matching = revision_match(call.query, true)?;
    let bookmarks = call.query.flag("allowWatchBookmarks");
    let initial = call
        .query
        .get("sendInitialEvents")
        .map(|_| call.query.flag("sendInitialEvents"));
    let timeout = match call.query.integer("timeoutSeconds")? {
        Some(seconds) if seconds > 0 => Duration::from_secs(seconds.unsigned_abs()),
        _ => SHORTEST.mul_f64(rand::rng().random_range(1.0..2.0)),
    };
    let store = &call.server.store;
    let prefix = prefix(call.resource, call.namespace);
    if let Match::NotOlderThan(revision) | Match::Exact(revision) = matching {
        await_revision(call, revision).await?;
    }
    let from = match matching {
        Match::NotOlderThan(revision) | Match::Exact(revision) if revision > 0 && initial != Some(true) => {
            Some(revision)
        }
        _ => None,
    };
    let (entries, from) = match from {
        Some(revision) => (Vec::new(), revision),
        None if initial == Some(false) => (Vec::new(), store.revision().await.map_err(store_error)?),
        None => {
            let listing = store.list(&prefix, ListOptions::default()).await.map_err(store_error)?;
            (listing.entries, listing.revision)
        }
    };
    let (changes, failure) = match store.watch(&prefix, from).await {
        Ok(changes) => (Some(changes), None),
        // As upstream, inside the stream: a watch that began is what clients know how to take up again.
        Err(error) => (None, Some(store_error(error))),
    };
    let mut bookmark_timer = interval_at(Instant::now() + BOOKMARK_EVERY, BOOKMARK_EVERY);
    bookmark_timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let events = Events {
        encoder: Encoder {
            resource: call.resource,
            shape: call.accept.shape,
            include: IncludeObject::parse(call.query.get("includeObject"))?,
            headings: true,
        },
        selection,
        initial: entries.into_iter(),
        initial_end: (initial == Some(true) && bookmarks).then_some(from),
        changes,
        failure,
        bookmarks,
        bookmark_timer,
        deadline: Box::pin(sleep(timeout)),
        ending: call.server.ending.clone(),
    };
    Ok(Answer::new(200, Content::Watch(events)))
}

/// The events of one watch.
pub(crate) struct Events {
    encoder: Encoder,
    selection: Selection,
    /// What is there at the start and has not been sent yet.
    initial: std::vec::IntoIter<Arc<Entry>>,
    /// The revision of the bookmark that ends the initial events, until it is sent.
    initial_end: Option<u64>,
    /// None when the watch is over.
    changes: Option<store::Watch>,
    /// Why the watch is over, until it is sent.
    failure: Option<Status>,
    bookmarks: bool,
    bookmark_timer: Interval,
    deadline: std::pin::Pin<Box<Sleep>>,
    ending: CancellationToken,
}

impl Events {
    /// The events as the client is sent them: lines of JSON.
    pub fn into_stream(self) -> impl Stream<Item = Bytes> + Send + 'static {
        stream::unfold(self, |mut events| async move {
            let mut batch = Vec::new();
            events.next(&mut batch).await;
            (!batch.is_empty()).then(|| (Bytes::from(batch), events))
        })
    }

    /// Waits for events and writes all that are ready; writes nothing when the watch is over.
    async fn next(&mut self, batch: &mut Vec<u8>) {
        self.write_initial(batch);
        if !batch.is_empty() {
            return;
        }
        if let Some(failure) = self.failure.take() {
            Encoder::error(&failure, batch);
            return;
        }
        while batch.is_empty() {
            let Some(changes) = &mut self.changes else { return };
            tokio::select! {
                biased;
                () = self.ending.cancelled() => self.changes = None,
                change = changes.next() => self.take(change, batch),
                _ = self.bookmark_timer.tick(), if self.bookmarks => {
                    self.encoder.bookmark(changes.progress(), false, batch);
                }
                () = &mut self.deadline => self.changes = None,
            }
        }
        // What else is ready now goes along.
        while batch.len() < BATCH_BYTES
            && let Some(Some(change)) = self.changes.as_mut().and_then(|changes| changes.next().now_or_never())
        {
            self.take(Some(change), batch);
        }
    }

    fn write_initial(&mut self, batch: &mut Vec<u8>) {
        while batch.len() < BATCH_BYTES {
            match self.initial.next() {
                Some(entry) if self.selection.admits(self.encoder.resource, &entry) => {
                    self.encoder.event("ADDED", &entry, batch);
                }
                Some(_) => {}
                None => {
                    if let Some(revision) = self.initial_end.take() {
                        self.encoder.bookmark(revision, true, batch);
                    }
                    return;
                }
            }
        }
    }

    fn take(&mut self, change: Option<store::Result<Change>>, batch: &mut Vec<u8>) {
        match change {
            Some(Ok(change)) => match self.selection.seen(self.encoder.resource, &change) {
                Some(Seen::Added) => self.encoder.event("ADDED", change.entry(), batch),
                Some(Seen::Modified) => self.encoder.event("MODIFIED", change.entry(), batch),
                Some(Seen::Deleted) => self.encoder.event("DELETED", &last_seen(&change), batch),
                None => {}
            },
            Some(Err(error)) => {
                self.changes = None;
                Encoder::error(&store_error(error), batch);
            }
            None => self.changes = None,
        }
    }
}

/// An object as a watcher last saw it, at the revision at which it went out of the watcher's sight.
fn last_seen(change: &Change) -> Arc<Entry> {
    match change {
        Change::Put {
            entry,
            previous: Some(previous),
        } => Arc::new(previous.at(entry.revision)),
        Change::Put { entry, previous: None } | Change::Delete { entry, .. } => entry.clone(),
    }
}

/// Writes events in the shape that the client wants.
struct Encoder {
    resource: &'static Resource,
    shape: Shape,
    include: IncludeObject,
    /// Whether a table says what its columns are: the first one of a watch does.
    headings: bool,
}

impl Encoder {
    fn event(&mut self, kind: &str, entry: &Entry, out: &mut Vec<u8>) {
        match self.object(entry) {
            Ok(object) => {
                out.extend_from_slice(b"{\"type\":\"");
                out.extend_from_slice(kind.as_bytes());
                out.extend_from_slice(b"\",\"object\":");
                out.extend_from_slice(&object);
                out.extend_from_slice(b"}\n");
            }
            Err(status) => Self::error(&status, out),
        }
    }

    fn object<'e>(&mut self, entry: &'e Entry) -> Result<Cow<'e, [u8]>, Status> {
        match self.shape {
            Shape::Whole => self.resource.strategy.wire(&entry.value),
            Shape::Metadata => table::partial_object(&entry.value).map(Cow::Owned),
            Shape::Table => {
                let head = ListHead {
                    resource_version: entry.revision.to_string(),
                    ..ListHead::default()
                };
                let headings = std::mem::take(&mut self.headings);
                let rows = [&entry.value[..]];
                table::table(self.resource, rows, &head, self.include, headings, Timestamp::now()).map(Cow::Owned)
            }
        }
    }

    fn bookmark(&self, revision: u64, ends_initial: bool, out: &mut Vec<u8>) {
        let annotations = if ends_initial {
            r#","annotations":{"k8s.io/initial-events-end":"true"}"#
        } else {
            ""
        };
        let metadata = format!(r#""metadata":{{"resourceVersion":"{revision}"{annotations}}}"#);
        let head = match self.shape {
            Shape::Whole => format!(
                r#""kind":"{}","apiVersion":"{}""#,
                self.resource.kind,
                self.resource.api_version()
            ),
            Shape::Metadata => String::from(r#""kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1""#),
            Shape::Table => {
                String::from(r#""kind":"Table","apiVersion":"meta.k8s.io/v1","columnDefinitions":[],"rows":[]"#)
            }
        };
        out.extend_from_slice(format!("{{\"type\":\"BOOKMARK\",\"object\":{{{head},{metadata}}}}}\n").as_bytes());
    }

    fn error(status: &Status, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"type\":\"ERROR\",\"object\":");
        out.extend_from_slice(&status.to_json());
        out.extend_from_slice(b"}\n");
    }
}
