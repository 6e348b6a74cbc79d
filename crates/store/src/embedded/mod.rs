//! The store in this process: all entries and a window of history in memory, a log and a redb file underneath.
//!
//! Gets and lists read [`memory`] and never touch the disk; a watch draws from the same memory
//! ([`cursor`]). Writes go through one thread ([`writer`]) to [`disk`] first and become visible after.

mod cursor;
mod disk;
mod log;
mod memory;
mod record;
#[cfg(test)]
mod tests;
mod writer;

use std::{path::Path, sync::Arc, thread::JoinHandle};

use async_trait::async_trait;
use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot};

use self::{cursor::Drawing, disk::Disk, memory::Memory, writer::Request};
use crate::{Entry, Error, Expected, ListOptions, Listing, Result, Revision, Store, Value, Watch};

pub use memory::Window;

/// A store in a directory of its own. Dropping it waits for the last write and frees the directory;
/// its watches end.
pub struct Embedded {
    memory: Arc<RwLock<Memory>>,
    /// Always there until dropped.
    requests: Option<mpsc::Sender<Request>>,
    writer: Option<JoinHandle<()>>,
}

impl Embedded {
    /// Opens the store in a directory, which is made when it is not there. Reads the whole store, so it
    /// blocks for as long as that takes.
    ///
    /// Fails with a clear error when another server holds the directory, when it can not be written, and
    /// when what it holds is damaged or of a newer format.
    pub fn open(dir: &Path, window: Window) -> Result<Self> {
        let (disk, entries) = Disk::open(dir)?;
        let memory = Arc::new(RwLock::new(Memory::new(disk.newest(), entries, window)));
        let (sender, receiver) = mpsc::channel(writer::WAITING);
        let written = memory.clone();
        let writer = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || writer::run(disk, &written, receiver))
            .map_err(|cause| Error::Open {
                action: "starting the writer of",
                path: dir.to_owned(),
                cause,
            })?;
        Ok(Embedded {
            memory,
            requests: Some(sender),
            writer: Some(writer),
        })
    }

    async fn write(&self, key: &str, expected: Expected, value: Option<Value>) -> Result<Arc<Entry>> {
        let (answer, outcome) = oneshot::channel();
        let request = Request {
            key: key.into(),
            expected,
            value,
            answer,
        };
        let requests = self.requests.as_ref().ok_or(Error::Closed)?;
        requests.send(request).await.map_err(|_| Error::Closed)?;
        outcome.await.map_err(|_| Error::Closed)?
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the store's writer panicked");
        }
        let noted = self.memory.write().cursors.close();
        noted.wake();
    }
}

#[async_trait]
impl Store for Embedded {
    async fn get(&self, key: &str) -> Result<Option<Arc<Entry>>> {
        Ok(self.memory.read().get(key))
    }

    async fn list(&self, prefix: &str, options: ListOptions) -> Result<Listing> {
        self.memory.read().list(prefix, &options)
    }

    async fn put(&self, key: &str, expected: Expected, value: Value) -> Result<Arc<Entry>> {
        value.check(key)?;
        self.write(key, expected, Some(value)).await
    }

    async fn delete(&self, key: &str, expected: Expected) -> Result<Arc<Entry>> {
        self.write(key, expected, None).await
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch> {
        Ok(Watch::new(Drawing::begin(&self.memory, prefix, from)?))
    }

    async fn revision(&self) -> Result<Revision> {
        Ok(self.memory.read().newest())
    }

    async fn compact(&self, at: Revision) -> Result<()> {
        self.memory.write().compact(at)
    }
}
