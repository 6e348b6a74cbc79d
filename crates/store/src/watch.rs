//! Watches: the changes after a revision, in order, and how far they have come.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::Stream;

use crate::{Entry, Result, Revision};

/// One write, as a watcher sees it.
#[derive(Debug, Clone)]
pub enum Change {
    /// The key was made or set.
    Put {
        /// The new entry.
        entry: Arc<Entry>,
        /// The entry it replaced, none when the key was made.
        previous: Option<Arc<Entry>>,
    },
    /// The key was removed.
    Delete {
        /// The last entry with the revision of its deletion, shown in its value too.
        entry: Arc<Entry>,
        /// The last entry as it was.
        previous: Arc<Entry>,
    },
}

impl Change {
    /// The entry that carries the change's revision.
    pub fn entry(&self) -> &Arc<Entry> {
        match self {
            Change::Put { entry, .. } | Change::Delete { entry, .. } => entry,
        }
    }

    /// The entry that the change replaced or removed.
    pub fn previous(&self) -> Option<&Arc<Entry>> {
        match self {
            Change::Put { previous, .. } => previous.as_ref(),
            Change::Delete { previous, .. } => Some(previous),
        }
    }

    /// The key.
    pub fn key(&self) -> &Arc<str> {
        &self.entry().key
    }

    /// The revision of the write.
    pub fn revision(&self) -> Revision {
        self.entry().revision
    }
}

/// What a backend implements for its watches.
///
/// The stream goes on until the store closes. An error ends it: [`crate::Error::Compacted`] says that the
/// watcher fell so far behind that changes it has not seen are gone, and has to list anew.
pub trait Changes: Stream<Item = Result<Change>> + Send {
    /// See [`Watch::progress`].
    fn progress(&self) -> Revision;
}

/// The changes to one prefix after one revision.
pub struct Watch(Pin<Box<dyn Changes>>);

impl Watch {
    /// Wraps a backend's watch.
    pub fn new(changes: impl Changes + 'static) -> Self {
        Watch(Box::pin(changes))
    }

    /// The revision up to which the stream has given out every change: a bookmark. While nothing is on
    /// its way this is the store's newest revision, also when the latest changes were to other keys.
    pub fn progress(&self) -> Revision {
        self.0.progress()
    }
}

impl Stream for Watch {
    type Item = Result<Change>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}
