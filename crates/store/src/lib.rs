//! The `store` room: keys and bytes under one global revision. It knows nothing of Kubernetes.
//!
//! # Vocabulary
//!
//! - A **revision** counts writes. Each successful `put` or `delete` takes the next one, so a revision
//!   names one change, and also the state of the whole store just after it. An empty store stands at 1.
//! - An **entry** is a key with the value that one revision gave it.
//! - A **stamp** is the place in a value where the decimal revision belongs. What is kept is the value
//!   without it; what is handed out always has it.
//! - The **window** is the stretch of history that can still be read: lists at a revision and watches
//!   from a revision inside it are exact. Older revisions are **compacted**.
//!
//! # Guarantees
//!
//! Every [`Store`] passes the same contract tests (the `contract` module):
//!
//! - A write is acknowledged after it is durable, and readers and watchers see it only then.
//! - Writes have one order, that of their revisions, and every watcher sees its part of it in that
//!   order, each change once, with no gap. A watcher that can not keep up is told so, never skipped.
//! - A write that returns an error has left no trace that a reader could see; after [`Error::Write`]
//!   alone a crash may still bring it to light.
//! - Revisions never go back, over restarts too.

#[cfg(any(test, feature = "contract"))]
pub mod contract;
mod embedded;
mod entry;
mod error;
mod watch;

use std::sync::Arc;

use async_trait::async_trait;

pub use embedded::{Embedded, Window};
pub use entry::{Entry, Value};
pub use error::{Error, Result};
pub use watch::{Change, Changes, Watch};

/// The count of writes: each successful write has its own, one higher than the last.
pub type Revision = u64;

/// What a write asks of the key's present state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Nothing. A delete still needs the key to be there.
    Any,
    /// That the key is not there.
    Absent,
    /// That the key's entry is exactly of this revision.
    At(Revision),
}

impl Expected {
    /// Whether a key in this state, absent or of a revision, is what was asked for.
    pub fn admits(self, current: Option<Revision>) -> bool {
        match self {
            Expected::Any => true,
            Expected::Absent => current.is_none(),
            Expected::At(revision) => current == Some(revision),
        }
    }
}

/// Which part of a prefix to list, and as of when.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// The revision to read at; the newest when none is given.
    pub revision: Option<Revision>,
    /// Begin with the first key after this one.
    pub start_after: Option<String>,
    /// At most so many entries; all when none is given.
    pub limit: Option<usize>,
}

/// A list, or one page of it, as of one revision.
#[derive(Debug, Clone)]
pub struct Listing {
    /// The entries in the order of their keys.
    pub entries: Vec<Arc<Entry>>,
    /// The revision that the list shows. Later pages of the same list ask for it.
    pub revision: Revision,
    /// Whether the limit cut the list short.
    pub more: bool,
    /// How many entries follow the last one of this page.
    pub remaining: u64,
}

/// Keys and values under one global revision.
#[async_trait]
pub trait Store: Send + Sync {
    /// The key's newest entry.
    async fn get(&self, key: &str) -> Result<Option<Arc<Entry>>>;

    /// The entries whose keys begin with the prefix, in the order of their keys.
    ///
    /// Fails with [`Error::Compacted`] or [`Error::Future`] when the revision asked for is out of reach.
    async fn list(&self, prefix: &str, options: ListOptions) -> Result<Listing>;

    /// Sets the key's value. Fails with [`Error::Conflict`] when the key is not as expected.
    async fn put(&self, key: &str, expected: Expected, value: Value) -> Result<Arc<Entry>>;

    /// Removes the key and gives the entry as it was, with the revision of its deletion.
    ///
    /// Fails with [`Error::Conflict`] when the key is not as expected, and always when it is absent.
    async fn delete(&self, key: &str, expected: Expected) -> Result<Arc<Entry>>;

    /// Every change after the revision to a key that begins with the prefix, in order, without end.
    ///
    /// Fails with [`Error::Compacted`] or [`Error::Future`] when the revision is out of reach.
    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch>;

    /// The revision of the newest write.
    async fn revision(&self) -> Result<Revision>;

    /// Gives up the history before the revision: states from it on stay readable.
    ///
    /// Does nothing when that is gone already; fails with [`Error::Future`] when it is yet to come.
    async fn compact(&self, at: Revision) -> Result<()>;
}
