//! The pods that wait for a node.
//!
//! A pod is in one of four places:
//! * *active*: to be tried now, the highest priority first, then the one that has waited longest;
//! * *backing off*: to be tried, but only when its back-off of 1 s, doubling to 10 s with each failure, is over;
//! * *set aside*: it failed, and nothing has happened since that could help it; after five minutes it is tried
//!   all the same, should such a happening have been missed;
//! * *gated*: its scheduling gates hold it back.
//!
//! Time is passed in; nothing here waits.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::pod;
use k8s_openapi::api::core::v1::Pod;

use crate::filters::Filter;

const FIRST_BACK_OFF: Duration = Duration::from_secs(1);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(10);
const LONGEST_ASIDE: Duration = Duration::from_secs(5 * 60);

/// Something that may let a pod run that could not before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A node came, or changed what it offers.
    Node,
    /// A pod came to a node, or one there has other labels.
    PodPlaced,
    /// A pod left its node, or ended.
    PodGone,
    /// A volume, a claim or a class came or changed.
    Storage,
}

/// A pod whose turn it is.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The pod as last seen.
    pub pod: Arc<Pod>,
    /// How often it was tried before.
    pub failures: u32,
}

/// The order of active pods: priority first, then the time since when they wait.
type Turn = (Reverse<i32>, Instant, u64);

#[derive(Debug)]
enum Place {
    Active(Turn),
    BackingOff(Instant, u64),
    Aside {
        filters: BTreeSet<Filter>,
        failed: Instant,
        retry: Instant,
    },
    Gated,
}

#[derive(Debug)]
struct Waiting {
    pod: Arc<Pod>,
    failures: u32,
    place: Place,
}

/// The queue.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: HashMap<String, Waiting>,
    active: BTreeMap<Turn, String>,
    backing_off: BTreeMap<(Instant, u64), String>,
    counter: u64,
}

fn back_off(failures: u32) -> Duration {
    let doubled = 2u32.saturating_pow(failures.saturating_sub(1).min(16));
    FIRST_BACK_OFF.saturating_mul(doubled).min(LONGEST_BACK_OFF)
}

fn is_gated(pod: &Pod) -> bool {
    pod.spec
        .as_ref()
        .is_some_and(|spec| spec.scheduling_gates.iter().flatten().next().is_some())
}

impl Queue {
    /// Takes in a pod that is new or changed. A change of its spec or labels may be what helps it; a change of
    /// its status, which the scheduler itself makes, is not.
    pub fn set(&mut self, pod: Arc<Pod>, now: Instant) {
        let uid = pod::uid(&pod).to_owned();
        let Some(known) = self.waiting.get_mut(&uid) else {
            self.insert(uid, pod, 0, now);
            return;
        };
        let same = known.pod.spec == pod.spec && known.pod.metadata.labels == pod.metadata.labels;
        known.pod = pod;
        if !same {
            let failures = known.failures;
            if let Some(known) = self.take(&uid) {
                self.insert(uid, known.pod, failures, now);
            }
        }
    }

    /// Forgets a pod.
    pub fn remove(&mut self, uid: &str) {
        self.take(uid);
    }

    /// The pod whose turn it is; it leaves the queue.
    pub fn pop(&mut self, now: Instant) -> Option<Attempt> {
        self.wake(now);
        let (_, uid) = self.active.first_key_value()?;
        let uid = uid.clone();
        self.take(&uid).map(|waiting| Attempt {
            pod: waiting.pod,
            failures: waiting.failures,
        })
    }

    /// Takes back a pod that got no node: it waits until one of the filters that refused may think otherwise.
    pub fn refused(&mut self, attempt: Attempt, filters: BTreeSet<Filter>, now: Instant) {
        let failures = attempt.failures + 1;
        let place = Place::Aside {
            filters,
            failed: now,
            retry: now + back_off(failures),
        };
        let uid = pod::uid(&attempt.pod).to_owned();
        self.waiting.insert(
            uid,
            Waiting {
                pod: attempt.pod,
                failures,
                place,
            },
        );
    }

    /// Takes back a pod that has a node but could not be bound to it: it is tried again after its back-off.
    pub fn retry(&mut self, attempt: Attempt, now: Instant) {
        let failures = attempt.failures + 1;
        let uid = pod::uid(&attempt.pod).to_owned();
        let place = self.after(now + back_off(failures), &uid);
        self.waiting.insert(
            uid,
            Waiting {
                pod: attempt.pod,
                failures,
                place,
            },
        );
    }

    /// Gives the pods another try that the event may help.
    pub fn on(&mut self, event: Event, now: Instant) {
        self.release(now, |filters, _| {
            filters.iter().any(|filter| filter.is_helped_by(event))
        });
    }

    /// When something will be due without an event.
    pub fn next_wake(&self) -> Option<Instant> {
        let aside = self.waiting.values().filter_map(|waiting| match waiting.place {
            Place::Aside { failed, .. } => Some(failed + LONGEST_ASIDE),
            _ => None,
        });
        let backing_off = self.backing_off.first_key_value().map(|((at, _), _)| *at);
        aside.chain(backing_off).min()
    }

    /// Makes active what is due.
    fn wake(&mut self, now: Instant) {
        while let Some(((at, _), uid)) = self.backing_off.first_key_value() {
            if *at > now {
                break;
            }
            let uid = uid.clone();
            if let Some(waiting) = self.take(&uid) {
                self.insert(uid, waiting.pod, waiting.failures, now);
            }
        }
        self.release(now, |_, failed| now.duration_since(failed) >= LONGEST_ASIDE);
    }

    /// Takes back those set aside that `is_due` says of.
    fn release(&mut self, now: Instant, is_due: impl Fn(&BTreeSet<Filter>, Instant) -> bool) {
        let due: Vec<(String, Instant)> = self
            .waiting
            .iter()
            .filter_map(|(uid, waiting)| match &waiting.place {
                Place::Aside { filters, failed, retry } if is_due(filters, *failed) => Some((uid.clone(), *retry)),
                _ => None,
            })
            .collect();
        for (uid, retry) in due {
            let Some(waiting) = self.take(&uid) else { continue };
            if retry <= now {
                self.insert(uid, waiting.pod, waiting.failures, now);
            } else {
                let place = self.after(retry, &uid);
                self.waiting.insert(uid, Waiting { place, ..waiting });
            }
        }
    }

    fn after(&mut self, at: Instant, uid: &str) -> Place {
        self.counter += 1;
        self.backing_off.insert((at, self.counter), uid.to_owned());
        Place::BackingOff(at, self.counter)
    }

    fn insert(&mut self, uid: String, pod: Arc<Pod>, failures: u32, now: Instant) {
        let place = if is_gated(&pod) {
            Place::Gated
        } else {
            self.counter += 1;
            let priority = pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0);
            let turn = (Reverse(priority), now, self.counter);
            self.active.insert(turn, uid.clone());
            Place::Active(turn)
        };
        self.waiting.insert(uid, Waiting { pod, failures, place });
    }

    fn take(&mut self, uid: &str) -> Option<Waiting> {
        let waiting = self.waiting.remove(uid)?;
        match &waiting.place {
            Place::Active(turn) => {
                self.active.remove(turn);
            }
            Place::BackingOff(at, counter) => {
                self.backing_off.remove(&(*at, *counter));
            }
            Place::Aside { .. } | Place::Gated => {}
        }
        Some(waiting)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "the fixtures are constants")]
    use super::*;
    use serde_json::{Value, json};

    fn pod(name: &str, spec: Value) -> Arc<Pod> {
        let mut value = json!({"metadata": {"name": name, "uid": name}, "spec": {"containers": []}});
        for (key, part) in spec.as_object().into_iter().flatten() {
            value["spec"][key] = part.clone();
        }
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn popped(queue: &mut Queue, now: Instant) -> Vec<String> {
        std::iter::from_fn(|| queue.pop(now))
            .map(|attempt| pod::name(&attempt.pod).to_owned())
            .collect()
    }

    const FIT: Filter = Filter::NodeResourcesFit;

    #[test]
    fn by_priority_then_by_age() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for (name, priority) in [("a", 0), ("b", 10), ("c", 0), ("d", 10)] {
            queue.set(pod(name, json!({"priority": priority})), now);
        }
        assert_eq!(popped(&mut queue, now), ["b", "d", "a", "c"]);
    }

    #[test]
    fn gates_hold_back() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.set(pod("a", json!({"schedulingGates": [{"name": "g"}]})), now);
        assert!(popped(&mut queue, now).is_empty());
        assert_eq!(queue.next_wake(), None);
        queue.set(pod("a", json!({})), now);
        assert_eq!(popped(&mut queue, now), ["a"]);
    }

    #[test]
    fn set_aside_until_something_helps() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let second = Duration::from_secs(1);
        queue.set(pod("a", json!({})), now);
        let attempt = queue.pop(now).unwrap();
        queue.refused(attempt, BTreeSet::from([FIT]), now);
        // Nothing that helps: not even after its back-off.
        queue.on(Event::PodPlaced, now + 2 * second);
        assert!(popped(&mut queue, now + 2 * second).is_empty());
        // A status that the scheduler itself wrote is no reason to try again.
        queue.set(pod("a", json!({})), now + 2 * second);
        assert!(popped(&mut queue, now + 2 * second).is_empty());
        queue.on(Event::PodGone, now + 2 * second);
        assert_eq!(popped(&mut queue, now + 2 * second), ["a"]);
    }

    #[test]
    fn help_within_the_back_off_waits_for_its_end() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.set(pod("a", json!({})), now);
        let attempt = queue.pop(now).unwrap();
        queue.refused(attempt, BTreeSet::from([FIT]), now);
        queue.on(Event::Node, now);
        assert!(popped(&mut queue, now).is_empty());
        let wake = queue.next_wake().unwrap();
        assert_eq!(wake - now, FIRST_BACK_OFF);
        assert_eq!(popped(&mut queue, wake), ["a"]);
    }

    #[test]
    fn back_offs_double_to_a_most() {
        let seconds: Vec<u64> = (1..7).map(|failures| back_off(failures).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 10, 10]);
        assert_eq!(back_off(u32::MAX), LONGEST_BACK_OFF);
        let (mut queue, mut now) = (Queue::default(), Instant::now());
        queue.set(pod("a", json!({})), now);
        for want in [1, 2, 4] {
            let attempt = queue.pop(now).unwrap();
            queue.retry(attempt, now);
            let wake = queue.next_wake().unwrap();
            assert_eq!((wake - now).as_secs(), want);
            now = wake;
        }
    }

    #[test]
    fn five_minutes_are_the_safety_net() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.set(pod("a", json!({})), now);
        let attempt = queue.pop(now).unwrap();
        queue.refused(attempt, BTreeSet::from([FIT]), now);
        assert_eq!(queue.next_wake(), Some(now + LONGEST_ASIDE));
        assert_eq!(popped(&mut queue, now + LONGEST_ASIDE), ["a"]);
    }

    #[test]
    fn the_deleted_and_the_changed() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.set(pod("a", json!({})), now);
        queue.set(pod("b", json!({})), now);
        queue.remove("a");
        assert_eq!(popped(&mut queue, now), ["b"]);
        queue.set(pod("c", json!({})), now);
        let attempt = queue.pop(now).unwrap();
        queue.refused(attempt, BTreeSet::from([FIT]), now);
        // The pod itself asks for less now.
        queue.set(pod("c", json!({"nodeSelector": {"a": "b"}})), now);
        assert_eq!(popped(&mut queue, now), ["c"]);
    }
}
