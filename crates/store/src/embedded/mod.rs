//! The store in this process: all entries and a window of history in memory, a log and a redb file underneath.
//!
//! Gets and lists read [`memory`] and never touch the disk; a watch draws from the same memory
//! ([`cursor`]). Writes go one batch after the other ([`writer`]) to [`disk`] first and become visible after.

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
use tokio::sync::mpsc;

use self::{
    cursor::Drawing,
    disk::Disk,
    memory::Memory,
    writer::{Request, Write, Writer},
};
use crate::{Entry, Error, Expected, ListOptions, Listing, Result, Revision, Store, Value, Watch};

pub use memory::Window;

/// A store in a directory of its own. Dropping it waits for the last write and frees the directory;
/// its watches end.
pub struct Embedded {
    memory: Arc<RwLock<Memory>>,
    /// Always there until dropped.
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
    writer: Arc<Writer>,
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
        let writer = Arc::new(Writer::new(disk, memory.clone()));
        let running = writer.clone();
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || running.run(receiver))
            .map_err(|cause| Error::Open {
                action: "starting the thread of",
                path: dir.to_owned(),
                cause,
            })?;
        Ok(Embedded {
            memory,
            requests: Some(sender),
            thread: Some(thread),
            writer,
        })
    }

    async fn write(&self, key: &str, expected: Expected, value: Option<Value>) -> Result<Arc<Entry>> {
        let write = Write {
            key: key.into(),
            expected,
            value,
        };
        let write = match self.writer.try_at_once(write) {
            Ok((outcome, noted)) => {
                noted.wake_later();
                return outcome;
            }
            Err(write) => write,
        };
        let (request, outcome) = self.writer.request(write);
        let requests = self.requests.as_ref().ok_or(Error::Closed)?;
        requests.send(request).await.map_err(|_| Error::Closed)?;
        outcome.await.map_err(|_| Error::Closed)?
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's thread panicked");
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
