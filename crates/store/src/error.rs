//! What can go wrong, with the key, revision or path that it happened to.

use std::{path::PathBuf, sync::Arc};

use crate::{Entry, Revision};

/// The outcome of a store's operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key is not as the writer expected it.
    #[error("{key:?} is not as expected: {}", state(current))]
    Conflict {
        /// The key.
        key: String,
        /// What is there.
        current: Option<Arc<Entry>>,
    },
    /// The history asked for is gone: read the present state and go on from there.
    #[error("revision {requested} has been compacted, the oldest one is {oldest}")]
    Compacted {
        /// The revision asked for.
        requested: Revision,
        /// The oldest revision that can be read.
        oldest: Revision,
    },
    /// The revision asked for is yet to come.
    #[error("revision {requested} is yet to come, the newest one is {newest}")]
    Future {
        /// The revision asked for.
        requested: Revision,
        /// The newest revision.
        newest: Revision,
    },
    /// The place for the revision is not in the value.
    #[error("value of {key:?}: stamp {stamp} lies outside its {length} bytes")]
    Stamp {
        /// The key.
        key: String,
        /// The offset given.
        stamp: usize,
        /// The value's length.
        length: usize,
    },
    /// The store is shutting down.
    #[error("the store is closed")]
    Closed,
    /// The disk refused the write. Nothing of it is visible; later writes are tried anew.
    #[error("writing to {}: {cause}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the disk said. Shared: writes of one moment go to disk together.
        #[source]
        cause: Arc<redb::Error>,
    },
    /// Another server holds the directory.
    #[error("{} is in use by another server{}", path.display(), holder(*pid))]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The other server's process, if it left its number.
        pid: Option<u32>,
    },
    /// The directory or a file in it can not be made, read or written.
    #[error("{action} {}: {cause}", path.display())]
    Open {
        /// What was being done.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        cause: std::io::Error,
    },
    /// The file is not a store's, or it is damaged.
    #[error("{} is damaged or not a store: {cause}; restore it from a backup, or move it away to begin empty", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        cause: String,
    },
    /// A newer server wrote the file.
    #[error("{} has format {found}, this server knows formats up to {known}: start the newer server that wrote it", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// The file's format.
        found: u64,
        /// The newest format that this server reads.
        known: u64,
    },
}

fn state(current: &Option<Arc<Entry>>) -> String {
    match current {
        Some(entry) => format!("it is at revision {}", entry.revision),
        None => "it does not exist".into(),
    }
}

fn holder(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}
