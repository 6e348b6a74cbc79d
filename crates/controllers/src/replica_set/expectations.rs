//! What a ReplicaSet has done and not yet seen: without it the pods just made would be made again, as the cache that
//! is counted in does not show them yet.
//!
//! Pods are expected by name and not by number, which a pod that comes and goes at once cannot confuse.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long something is waited for that was done. A watch that was away may have missed it for good.
const PATIENCE: Duration = Duration::from_secs(5 * 60);

struct Expected {
    /// Names of pods that are to appear.
    created: HashSet<String>,
    /// Uids of pods that are to be ending, or gone.
    deleted: HashSet<String>,
    since: Instant,
}

/// The expectations of all ReplicaSets, each by its namespace and name.
#[derive(Default)]
pub struct Expectations(Mutex<HashMap<String, Expected>>);

impl Expectations {
    fn add(&self, set: &str, add: impl FnOnce(&mut Expected) -> bool) {
        let mut sets = self.0.lock();
        let expected = sets.entry(set.to_owned()).or_insert_with(|| Expected {
            created: HashSet::new(),
            deleted: HashSet::new(),
            since: Instant::now(),
        });
        expected.since = Instant::now();
        add(expected);
    }

    fn take(&self, set: &str, take: impl FnOnce(&mut Expected) -> bool) {
        let mut sets = self.0.lock();
        if let Some(expected) = sets.get_mut(set) {
            take(expected);
            if expected.created.is_empty() && expected.deleted.is_empty() {
                sets.remove(set);
            }
        }
    }

    /// A pod of this name is going to be made.
    pub fn creating(&self, set: &str, pod: &str) {
        self.add(set, |expected| expected.created.insert(pod.to_owned()));
    }

    /// The pod was seen, or could not be made.
    pub fn created(&self, set: &str, pod: &str) {
        self.take(set, |expected| expected.created.remove(pod));
    }

    /// The pod with this uid is going to be deleted.
    pub fn deleting(&self, set: &str, uid: &str) {
        self.add(set, |expected| expected.deleted.insert(uid.to_owned()));
    }

    /// The pod was seen ending, or could not be deleted.
    pub fn deleted(&self, set: &str, uid: &str) {
        self.take(set, |expected| expected.deleted.remove(uid));
    }

    /// The set is gone.
    pub fn forget(&self, set: &str) {
        self.0.lock().remove(set);
    }

    /// How long to wait at most until pods may be counted again; none when they may be now.
    pub fn pending(&self, set: &str, now: Instant) -> Option<Duration> {
        let mut sets = self.0.lock();
        let left = PATIENCE.saturating_sub(now.saturating_duration_since(sets.get(set)?.since));
        if left.is_zero() {
            sets.remove(set);
            return None;
        }
        Some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_waits_for_what_it_did_but_not_for_ever() {
        let expectations = Expectations::default();
        let pending = |set: &str| expectations.pending(set, Instant::now()).is_some();
        assert!(!pending("a/s"));
        expectations.creating("a/s", "s-1");
        expectations.deleting("a/s", "uid");
        expectations.created("a/s", "s-2");
        expectations.created("a/other", "s-1");
        assert!(pending("a/s"));
        expectations.created("a/s", "s-1");
        assert!(pending("a/s"));
        expectations.deleted("a/s", "uid");
        assert!(!pending("a/s"));

        expectations.creating("a/s", "s-3");
        assert_eq!(expectations.pending("a/s", Instant::now() + PATIENCE), None);
        assert!(!pending("a/s"), "given up for good");
        expectations.creating("a/s", "s-4");
        expectations.forget("a/s");
        assert!(!pending("a/s"));
    }
}
