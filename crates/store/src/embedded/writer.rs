//! The one thread that writes: it takes all writes that wait, decides them in the order they came, puts
//! them on disk in one transaction with one fsync, shows them to readers, answers, and wakes the watches.
//!
//! While it waits for the disk the next writes gather, so the more writers there are, the more share an
//! fsync, and a lone one never waits for others.

use std::{collections::HashMap, sync::Arc, time::Instant};

use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot};

use super::{
    disk::{Disk, State},
    memory::Memory,
};
use crate::{Change, Entry, Error, Expected, Result, Revision, Value};

/// So many writes wait before writers have to.
pub(super) const WAITING: usize = 1024;

/// So many bytes go to disk together.
const BATCH_BYTES: usize = 16 << 20;

/// A write and who waits for it.
pub(super) struct Request {
    pub(super) key: Arc<str>,
    pub(super) expected: Expected,
    /// None deletes.
    pub(super) value: Option<Value>,
    pub(super) answer: oneshot::Sender<Result<Arc<Entry>>>,
}

impl Request {
    fn bytes(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, |value| value.bytes.len())
    }
}

/// Serves requests until their last sender is gone.
pub(super) fn run(mut disk: Disk, memory: &RwLock<Memory>, mut requests: mpsc::Receiver<Request>) {
    let mut refusing = false;
    while let Some(first) = requests.blocking_recv() {
        let mut bytes = first.bytes();
        let mut waiting = vec![first];
        while bytes < BATCH_BYTES
            && let Ok(request) = requests.try_recv()
        {
            bytes += request.bytes();
            waiting.push(request);
        }
        let seen = |key: &str| memory.read().get(key);
        let mut batch = Batch::new(disk.newest());
        let mut outcomes = Vec::with_capacity(waiting.len());
        for Request {
            key,
            expected,
            value,
            answer,
        } in waiting
        {
            outcomes.push((answer, batch.decide(seen, key, expected, value)));
        }
        let mut noted = None;
        if !batch.changes.is_empty() {
            let newest = batch.newest;
            if let Err(error) = disk.commit(batch.states(), newest, seen) {
                if !refusing {
                    tracing::error!(%error, "the store refuses writes");
                }
                refusing = true;
                refuse(outcomes, &error);
                continue;
            }
            if refusing {
                tracing::info!("the store takes writes again");
                refusing = false;
            }
            let mut memory = memory.write();
            memory.publish(batch.changes, Instant::now());
            noted = Some(memory.cursors.take_noted());
        }
        for (answer, outcome) in outcomes {
            // A writer that gave up waiting has its write all the same.
            let _ = answer.send(outcome);
        }
        // After the answers: who waits for one goes first, as a watch has more to do with a change.
        if let Some(noted) = noted {
            noted.wake();
        }
    }
    if let Err(error) = disk.close() {
        tracing::warn!(%error, "closing the store: it is all there, and comes together when it is next opened");
    }
}

type Outcome = (oneshot::Sender<Result<Arc<Entry>>>, Result<Arc<Entry>>);

/// Nothing of the batch happened, so no outcome holds, conflicts with its writes neither.
fn refuse(outcomes: Vec<Outcome>, error: &Error) {
    for (answer, _) in outcomes {
        let error = match error {
            Error::Write { path, cause } => Error::Write {
                path: path.clone(),
                cause: cause.clone(),
            },
            _ => Error::Closed,
        };
        let _ = answer.send(Err(error));
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

    fn decide(
        &mut self,
        seen: impl Fn(&str) -> Option<Arc<Entry>>,
        key: Arc<str>,
        expected: Expected,
        value: Option<Value>,
    ) -> Result<Arc<Entry>> {
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
