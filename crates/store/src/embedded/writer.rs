//! The one way to the disk: takes writes that wait together, decides them in the order they came, puts them on disk in one batch with one
//! fsync, shows them to readers, answers, and wakes the watches.
//!
//! A write that finds nobody else writing goes through it where it is asked for ([`Writer::try_at_once`]): an fsync of a good disk takes less
//! time than handing the write to a thread and back. All others are the store's thread's ([`run`]). While that waits for the disk the next
//! writes gather, so the more writers there are, the more share an fsync.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, oneshot};

use super::{
    cursor::Noted,
    disk::{Disk, State},
    memory::Memory,
};
use crate::{Change, Entry, Error, Expected, Result, Revision, Value};

/// So many writes wait before writers have to.
pub(super) const WAITING: usize = 1024;

/// So many bytes go to disk together.
const BATCH_BYTES: usize = 16 << 20;

/// A disk that takes longer than this for a batch holds nobody up but the store's thread.
const QUICK: Duration = Duration::from_micros(500);

/// What is to be written.
pub(super) struct Write {
    pub(super) key: Arc<str>,
    pub(super) expected: Expected,
    /// None deletes.
    pub(super) value: Option<Value>,
}

impl Write {
    fn bytes(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, |value| value.bytes.len())
    }
}

/// A write for the store's thread, and who waits for it.
pub(super) struct Request {
    write: Write,
    waiter: Waiter,
}

struct Waiter {
    answer: oneshot::Sender<Outcome>,
    _given: Given,
}

/// One of the writes that the store's thread was given, until it is answered or given up.
struct Given(Arc<AtomicUsize>);

impl Given {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Relaxed);
        Given(count.clone())
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

pub(super) type Outcome = Result<Arc<Entry>>;

/// The disk, and what readers see of it.
pub(super) struct Writer {
    memory: Arc<RwLock<Memory>>,
    writing: Mutex<Writing>,
    given: Arc<AtomicUsize>,
    /// Whether the newest batch was on disk soon.
    quick: AtomicBool,
}

struct Writing {
    disk: Disk,
    refusing: bool,
}

impl Writer {
    pub(super) fn new(disk: Disk, memory: Arc<RwLock<Memory>>) -> Self {
        Writer {
            memory,
            writing: Mutex::new(Writing { disk, refusing: false }),
            given: Arc::default(),
            quick: AtomicBool::new(false),
        }
    }

    /// Writes at once, and blocks for it, if nobody else is writing and the disk was quick the last time; otherwise gives the write back.
    /// The watches that the write concerns are the caller's to wake.
    pub(super) fn try_at_once(&self, write: Write) -> std::result::Result<(Outcome, Noted), Write> {
        if !self.quick.load(Relaxed) || self.given.load(Relaxed) > 0 {
            return Err(write);
        }
        let Some(mut writing) = self.writing.try_lock() else {
            return Err(write);
        };
        if !writing.disk.has_room(write.bytes()) {
            return Err(write);
        }
        let (mut outcomes, noted) = self.commit(&mut writing, [write]);
        let outcome = outcomes.pop().unwrap_or(Err(Error::Closed));
        Ok((outcome, noted))
    }

    /// Makes a request for the store's thread of a write, and the receiver of its outcome.
    pub(super) fn request(&self, write: Write) -> (Request, oneshot::Receiver<Outcome>) {
        let (answer, outcome) = oneshot::channel();
        let waiter = Waiter {
            answer,
            _given: Given::new(&self.given),
        };
        (Request { write, waiter }, outcome)
    }

    /// Serves requests until their last sender is gone: the store's thread.
    pub(super) fn run(&self, mut requests: mpsc::Receiver<Request>) {
        while let Some(first) = requests.blocking_recv() {
            // Whoever writes at once meanwhile lets more of them gather.
            let mut writing = self.writing.lock();
            let mut bytes = first.write.bytes();
            let mut waiters = vec![first.waiter];
            let mut writes = vec![first.write];
            while bytes < BATCH_BYTES
                && let Ok(Request { write, waiter }) = requests.try_recv()
            {
                bytes += write.bytes();
                writes.push(write);
                waiters.push(waiter);
            }
            let (outcomes, noted) = self.commit(&mut writing, writes);
            drop(writing);
            for (waiter, outcome) in waiters.into_iter().zip(outcomes) {
                // A writer that gave up waiting has its write all the same.
                let _ = waiter.answer.send(outcome);
            }
            // After the answers: who waits for one goes first, as a watch has more to do with a change.
            noted.wake();
        }
        if let Err(error) = self.writing.lock().disk.close() {
            tracing::warn!(%error, "closing the store: it is all there, and comes together when it is next opened");
        }
    }

    /// Decides writes and makes them durable together; gives an outcome each, in order, and the watches to wake.
    fn commit(&self, writing: &mut Writing, writes: impl IntoIterator<Item = Write>) -> (Vec<Outcome>, Noted) {
        let Writing { disk, refusing } = writing;
        let seen = |key: &str| self.memory.read().get(key);
        let mut batch = Batch::new(disk.newest());
        let outcomes: Vec<_> = writes.into_iter().map(|write| batch.decide(seen, write)).collect();
        if batch.changes.is_empty() {
            return (outcomes, Noted::default());
        }
        let newest = batch.newest;
        let begun = Instant::now();
        let written = disk.commit(batch.states(), newest, seen);
        self.quick.store(begun.elapsed() < QUICK, Relaxed);
        if let Err(error) = written {
            if !*refusing {
                tracing::error!(%error, "the store refuses writes");
            }
            *refusing = true;
            return (
                outcomes.iter().map(|_| Err(refusal(&error))).collect(),
                Noted::default(),
            );
        }
        if *refusing {
            tracing::info!("the store takes writes again");
            *refusing = false;
        }
        let mut memory = self.memory.write();
        memory.publish(batch.changes, Instant::now());
        (outcomes, memory.cursors.take_noted())
    }
}

/// What a write is told whose batch failed: nothing of that happened, so no outcome holds, conflicts with its writes neither.
fn refusal(error: &Error) -> Error {
    match error {
        Error::Write { path, cause } => Error::Write {
            path: path.clone(),
            cause: cause.clone(),
        },
        _ => Error::Closed,
    }
}

/// Writes that go to disk together, each decided on what the ones before it leave.
struct Batch {
    newest: Revision,
    changes: Vec<Change>,
    states: HashMap<Arc<str>, Option<Arc<Entry>>>,
}

impl Batch {
    fn new(newest: Revision) -> Self {
        Batch {
            newest,
            changes: Vec::new(),
            states: HashMap::new(),
        }
    }

    fn decide(&mut self, seen: impl Fn(&str) -> Option<Arc<Entry>>, Write { key, expected, value }: Write) -> Outcome {
        let previous = match self.states.get(&key) {
            Some(state) => state.clone(),
            None => seen(&key),
        };
        if !expected.admits(previous.as_ref().map(|entry| entry.revision)) {
            return Err(Error::Conflict {
                key: key.as_ref().into(),
                current: previous,
            });
        }
        let revision = self.newest + 1;
        let change = match (value, previous) {
            (Some(value), None) => {
                let entry = Arc::new(Entry::new(key.clone(), revision, revision, value));
                Change::Put { entry, previous: None }
            }
            (Some(value), Some(previous)) => {
                let entry = Entry::new(previous.key.clone(), revision, previous.create_revision, value);
                Change::Put {
                    entry: Arc::new(entry),
                    previous: Some(previous),
                }
            }
            (None, Some(previous)) => Change::Delete {
                entry: Arc::new(previous.at(revision)),
                previous,
            },
            (None, None) => {
                return Err(Error::Conflict {
                    key: key.as_ref().into(),
                    current: None,
                });
            }
        };
        self.newest = revision;
        let entry = change.entry().clone();
        let state = matches!(change, Change::Put { .. }).then(|| entry.clone());
        self.states.insert(key, state);
        self.changes.push(change);
        Ok(entry)
    }

    /// What the disk has to hold afterwards: one state a key.
    fn states(&self) -> Vec<State> {
        self.states
            .iter()
            .map(|(key, state)| (key.clone(), state.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

    use super::*;
    use crate::Window;

    fn write(bytes: usize) -> Write {
        Write {
            key: "key".into(),
            expected: Expected::Any,
            value: Some(Value::plain(vec![0; bytes])),
        }
    }

    #[test]
    fn only_a_lone_small_write_to_a_quick_disk_is_done_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, entries) = Disk::open(dir.path()).unwrap();
        let memory = Memory::new(disk.newest(), entries, Window::default());
        let writer = Writer::new(disk, Arc::new(RwLock::new(memory)));
        // The first batch makes the log's room.
        writer
            .commit(&mut writer.writing.lock(), [write(1)])
            .0
            .remove(0)
            .unwrap();
        let at_once = |bytes| {
            let outcome = writer.try_at_once(write(bytes)).ok();
            outcome.map(|(outcome, _)| outcome.unwrap().revision)
        };
        let quick = || writer.quick.store(true, Relaxed);

        writer.quick.store(false, Relaxed);
        assert_eq!(at_once(1), None, "the disk was slow");
        quick();
        assert_eq!(at_once(1), Some(3));
        quick();
        assert_eq!(at_once(1 << 20), None, "it may want more room first");
        let request = writer.request(write(1));
        assert_eq!(at_once(1), None, "the thread has a write");
        drop(request);
        let writing = writer.writing.lock();
        assert_eq!(at_once(1), None, "somebody writes");
        drop(writing);
        assert_eq!(at_once(1), Some(4));
    }
}
