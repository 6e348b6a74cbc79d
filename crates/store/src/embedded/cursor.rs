//! Watches on memory: each has a place in the row of changes, and sleeps while nothing for it is there.
//!
//! A publisher, holding memory for writing, notes on every cursor of a matching prefix the first change
//! that it has not drawn, and wakes it afterwards. A watch, holding memory for reading, draws from that
//! change on. A cursor without a note has seen all there is, however much has happened to other keys.

use std::{
    collections::{HashMap, VecDeque},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use futures::{Stream, task::AtomicWaker};
use parking_lot::RwLock;

use super::memory::Memory;
use crate::{Change, Changes, Result, Revision};

/// How many changes a watch draws at a time: enough to make the lock cheap, few enough to hold it briefly.
const DRAW: usize = 128;

#[derive(Default)]
pub(super) struct Cursor {
    /// The first change that may have to be drawn, zero for none. Only touched under memory's lock, which
    /// orders it: for writing by a publisher, for reading by the one watch that owns the cursor.
    next: AtomicU64,
    waker: AtomicWaker,
}

/// Every watch's cursor, by prefix.
#[derive(Default)]
pub(super) struct Cursors {
    by_prefix: HashMap<Arc<str>, Vec<Arc<Cursor>>>,
    noted: Vec<Arc<Cursor>>,
    closed: bool,
}

impl Cursors {
    /// Notes a change where it matters.
    pub(super) fn offer(&mut self, key: &str, revision: Revision) {
        for (prefix, cursors) in &self.by_prefix {
            if !key.starts_with(&**prefix) {
                continue;
            }
            for cursor in cursors {
                if cursor.next.load(Relaxed) == 0 {
                    cursor.next.store(revision, Relaxed);
                    self.noted.push(cursor.clone());
                }
            }
        }
    }

    /// The cursors noted since the last call, to be woken once memory's lock is free.
    pub(super) fn take_noted(&mut self) -> Noted {
        Noted(std::mem::take(&mut self.noted))
    }

    /// Ends every watch after what is already there.
    pub(super) fn close(&mut self) -> Noted {
        self.closed = true;
        Noted(self.by_prefix.values().flatten().cloned().collect())
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_prefix.values().map(Vec::len).sum()
    }

    fn remove(&mut self, prefix: &str, cursor: &Arc<Cursor>) {
        let Some(cursors) = self.by_prefix.get_mut(prefix) else {
            return;
        };
        cursors.retain(|other| !Arc::ptr_eq(other, cursor));
        if cursors.is_empty() {
            self.by_prefix.remove(prefix);
        }
    }
}

/// Cursors that have something to draw.
#[must_use = "they sleep until they are woken"]
#[derive(Default)]
pub(super) struct Noted(Vec<Arc<Cursor>>);

impl Noted {
    pub(super) fn wake(self) {
        for cursor in self.0 {
            cursor.waker.wake();
        }
    }

    /// Wakes them once the present task waits for something: it has an answer to send first.
    pub(super) fn wake_later(self) {
        if !self.0.is_empty() {
            tokio::spawn(async move { self.wake() });
        }
    }
}

/// The stream behind [`crate::Watch`].
pub(super) struct Drawing {
    memory: Arc<RwLock<Memory>>,
    prefix: Arc<str>,
    cursor: Arc<Cursor>,
    drawn: VecDeque<Change>,
    /// The revision where it was cut off or closed.
    ended: Option<Revision>,
}

impl Drawing {
    /// Watches a prefix from after the revision on.
    pub(super) fn begin(memory: &Arc<RwLock<Memory>>, prefix: &str, from: Revision) -> Result<Self> {
        let mut state = memory.write();
        state.reach(from)?;
        let cursor = Arc::new(Cursor::default());
        if from < state.newest() {
            cursor.next.store(from + 1, Relaxed);
        }
        let prefix = Arc::<str>::from(prefix);
        state
            .cursors
            .by_prefix
            .entry(prefix.clone())
            .or_default()
            .push(cursor.clone());
        Ok(Drawing {
            memory: memory.clone(),
            prefix,
            cursor,
            drawn: VecDeque::new(),
            ended: None,
        })
    }

    /// Fills `drawn` with what is there, and ends when nothing more can come.
    fn draw(&mut self) -> Result<()> {
        let state = self.memory.read();
        let next = self.cursor.next.load(Relaxed);
        if next == 0 {
            self.ended = state.cursors.closed.then(|| state.newest());
            return Ok(());
        }
        let (drawn, next) = state
            .changes(&self.prefix, next, DRAW)
            .inspect_err(|_| self.ended = Some(next - 1))?;
        self.cursor.next.store(next, Relaxed);
        self.drawn = drawn;
        Ok(())
    }
}

impl Stream for Drawing {
    type Item = Result<Change>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(change) = self.drawn.pop_front() {
            return Poll::Ready(Some(Ok(change)));
        }
        if self.ended.is_some() {
            return Poll::Ready(None);
        }
        // First the waker, then the look: a change that comes between the two wakes it.
        self.cursor.waker.register(context.waker());
        match self.draw() {
            Err(error) => Poll::Ready(Some(Err(error))),
            Ok(()) => match self.drawn.pop_front() {
                Some(change) => Poll::Ready(Some(Ok(change))),
                None if self.ended.is_some() => Poll::Ready(None),
                None => Poll::Pending,
            },
        }
    }
}

impl Changes for Drawing {
    fn progress(&self) -> Revision {
        if let Some(change) = self.drawn.front() {
            return change.revision() - 1;
        }
        if let Some(revision) = self.ended {
            return revision;
        }
        let state = self.memory.read();
        match self.cursor.next.load(Relaxed) {
            0 => state.newest(),
            next => next - 1,
        }
    }
}

impl Drop for Drawing {
    fn drop(&mut self) {
        self.memory.write().cursors.remove(&self.prefix, &self.cursor);
    }
}
