//! A work queue of keys, with the three promises of controllers' queues.
//!
//! A key waits at most once, however often it is added. A key is worked on by one worker at a time: added meanwhile, it comes again when
//! that work is done. A key whose work failed comes again after a delay that doubles with each failure, until it is forgotten. There is
//! no overall rate.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How long a key waits after failing: `base` doubled with each failure, up to `most`.
#[derive(Debug, Clone, Copy)]
pub struct RetryDelay {
    /// After the first failure.
    pub base: Duration,
    /// The most.
    pub most: Duration,
}

impl Default for RetryDelay {
    /// Upstream's controllers: 5 ms up to 1,000 s.
    fn default() -> Self {
        Self {
            base: Duration::from_millis(5),
            most: Duration::from_secs(1000),
        }
    }
}

impl RetryDelay {
    /// The delay after that many failures (the first is 1).
    pub fn after(&self, failures: u32) -> Duration {
        self.base
            .saturating_mul(2u32.saturating_pow(failures.saturating_sub(1)))
            .min(self.most)
    }
}

struct Later<K> {
    at: Instant,
    /// Keeps the order of equal times, and makes the key no part of it.
    order: u64,
    key: K,
}

impl<K> PartialEq for Later<K> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl<K> Eq for Later<K> {}
impl<K> PartialOrd for Later<K> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<K> Ord for Later<K> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

struct State<K> {
    ready: VecDeque<K>,
    /// In `ready`, or to go there when the work in progress is done.
    waiting: HashSet<K>,
    working: HashSet<K>,
    failures: HashMap<K, u32>,
    later: BinaryHeap<Reverse<Later<K>>>,
    order: u64,
}

/// The queue; clones share it.
pub struct WorkQueue<K> {
    state: Arc<Mutex<State<K>>>,
    changed: Arc<Notify>,
    delay: RetryDelay,
}

impl<K> Clone for WorkQueue<K> {
    fn clone(&self) -> Self {
        Self {
            state: self.state.clone(),
            changed: self.changed.clone(),
            delay: self.delay,
        }
    }
}

impl<K: Hash + Eq + Clone> Default for WorkQueue<K> {
    fn default() -> Self {
        Self::new(RetryDelay::default())
    }
}

impl<K: Hash + Eq + Clone> WorkQueue<K> {
    /// An empty queue.
    pub fn new(delay: RetryDelay) -> Self {
        let state = State {
            ready: VecDeque::new(),
            waiting: HashSet::new(),
            working: HashSet::new(),
            failures: HashMap::new(),
            later: BinaryHeap::new(),
            order: 0,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            changed: Arc::default(),
            delay,
        }
    }

    /// Has the key worked on as soon as may be.
    pub fn add(&self, key: K) {
        self.state.lock().add(key);
        self.changed.notify_one();
    }

    /// Has the key worked on after a time.
    pub fn add_after(&self, key: K, after: Duration) {
        let mut state = self.state.lock();
        state.order += 1;
        let order = state.order;
        state.later.push(Reverse(Later {
            at: Instant::now() + after,
            order,
            key,
        }));
        drop(state);
        self.changed.notify_one();
    }

    /// The next key; waits for one. Dropping the claim says that the work went well, [`Claim::retry`] that it did not.
    pub async fn next(&self) -> Claim<K> {
        loop {
            let due = {
                let mut state = self.state.lock();
                state.wake(Instant::now());
                if let Some(key) = state.ready.pop_front() {
                    state.waiting.remove(&key);
                    state.working.insert(key.clone());
                    if !state.ready.is_empty() {
                        self.changed.notify_one();
                    }
                    return Claim {
                        queue: self.clone(),
                        key,
                        failed: false,
                    };
                }
                state.later.peek().map(|later| later.0.at)
            };
            match due {
                Some(at) => tokio::select! {
                    () = self.changed.notified() => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => self.changed.notified().await,
            }
        }
    }

    fn done(&self, key: &K, failed: bool) {
        let mut state = self.state.lock();
        state.working.remove(key);
        if state.waiting.contains(key) {
            state.ready.push_back(key.clone());
        }
        if failed {
            let failures = state.failures.entry(key.clone()).or_insert(0);
            *failures = failures.saturating_add(1);
            let after = self.delay.after(*failures);
            drop(state);
            self.add_after(key.clone(), after);
        } else {
            state.failures.remove(key);
            drop(state);
            self.changed.notify_one();
        }
    }
}

impl<K: Hash + Eq + Clone> State<K> {
    fn add(&mut self, key: K) {
        if self.waiting.insert(key.clone()) && !self.working.contains(&key) {
            self.ready.push_back(key);
        }
    }

    fn wake(&mut self, now: Instant) {
        while let Some(Reverse(later)) = self.later.peek()
            && later.at <= now
        {
            if let Some(Reverse(later)) = self.later.pop() {
                self.add(later.key);
            }
        }
    }
}

/// A key in work.
pub struct Claim<K: Hash + Eq + Clone> {
    queue: WorkQueue<K>,
    key: K,
    failed: bool,
}

impl<K: Hash + Eq + Clone> Claim<K> {
    /// The key to work on.
    pub fn key(&self) -> &K {
        &self.key
    }

    /// The work failed: the key comes again after its back-off.
    pub fn retry(mut self) {
        self.failed = true;
    }
}

impl<K: Hash + Eq + Clone> Drop for Claim<K> {
    fn drop(&mut self) {
        self.queue.done(&self.key, self.failed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_waits_once_and_is_worked_on_once() {
        let queue = WorkQueue::default();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        let first = queue.next().await;
        assert_eq!(*first.key(), "a");
        queue.add("a");
        let second = queue.next().await;
        assert_eq!(*second.key(), "b");
        assert!(
            tokio::time::timeout(Duration::from_secs(1), queue.next())
                .await
                .is_err(),
            "a is still in work"
        );
        drop(first);
        assert_eq!(*queue.next().await.key(), "a");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_wait_longer_each_time_until_one_goes_well() {
        let queue = WorkQueue::new(RetryDelay {
            base: Duration::from_secs(1),
            most: Duration::from_secs(3),
        });
        queue.add("a");
        queue.next().await.retry();
        for expected in [1, 2, 3, 3] {
            let start = Instant::now();
            queue.next().await.retry();
            assert_eq!(start.elapsed().as_secs(), expected);
        }
        drop(queue.next().await);
        queue.add("a");
        queue.next().await.retry();
        let start = Instant::now();
        queue.next().await;
        assert_eq!(start.elapsed().as_secs(), 1);
    }
}
