//! What becomes of a stream of events, decided without I/O: upstream's aggregation, counting and flood control.
//!
//! - The same event again (all but its times) is not a new object: the count of the first is raised.
//! - Events that differ in their message only are counted as one, `(combined from similar events): …`, once ten different messages
//!   came within ten minutes of each other.
//! - One source may write 25 events about one object at once, and one more every five minutes; the rest is dropped.

use std::collections::{HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

const SIMILAR: usize = 10;
const SIMILAR_WITHIN: SignedDuration = SignedDuration::from_mins(10);
const BURST: f64 = 25.0;
const REFILL_SECONDS: f64 = 300.0;
/// Keys remembered in each table, as upstream's caches.
const REMEMBERED: usize = 4096;
const COMBINED: &str = "(combined from similar events): ";

/// What to write for an event.
#[derive(Debug, Clone)]
pub enum Write {
    /// A new object.
    Create(Event),
    /// A change of the object that counts it.
    Patch {
        /// The event as it is with the change, should the object be gone.
        event: Event,
        /// A strategic merge patch.
        patch: serde_json::Value,
    },
}

/// The identity under which an event is counted.
pub type Key = String;

struct Similar {
    messages: HashSet<String>,
    last: Timestamp,
}

struct Counted {
    count: i32,
    first: Option<Time>,
    name: Option<String>,
    resource_version: Option<String>,
}

struct Bucket {
    tokens: f64,
    filled: Timestamp,
}

/// The memory of one recorder.
#[derive(Default)]
pub struct Correlator {
    similar: Recent<Similar>,
    counted: Recent<Counted>,
    buckets: Recent<Bucket>,
}

impl Correlator {
    /// Decides what an event becomes; `None` when it is one too many.
    pub fn correlate(&mut self, event: Event, now: Timestamp) -> Option<(Key, Write)> {
        let (key, event) = self.aggregate(event, now);
        let write = self.count(&key, event);
        self.allow(&write, now).then_some((key, write))
    }

    /// Takes note of the object as the server has it, so that the next patch changes that one.
    pub fn written(&mut self, key: &Key, event: &Event) {
        let counted = Counted {
            count: event.count.unwrap_or(1),
            first: event.first_timestamp.clone(),
            name: event.metadata.name.clone(),
            resource_version: event.metadata.resource_version.clone(),
        };
        self.counted.insert(key.clone(), counted);
    }

    fn aggregate(&mut self, event: Event, now: Timestamp) -> (Key, Event) {
        let group = group_key(&event);
        let similar = self.similar.get_or_insert(group.clone(), || Similar {
            messages: HashSet::new(),
            last: now,
        });
        if now.duration_since(similar.last) > SIMILAR_WITHIN {
            similar.messages.clear();
        }
        similar.messages.insert(event.message.clone().unwrap_or_default());
        similar.last = now;
        if similar.messages.len() < SIMILAR {
            return (event_key(&event), event);
        }
        // The set need not grow to know that it is large.
        if let Some(any) = similar.messages.iter().next().cloned() {
            similar.messages.remove(&any);
        }
        let message = format!("{COMBINED}{}", event.message.as_deref().unwrap_or_default());
        (
            group,
            Event {
                message: Some(message),
                count: Some(1),
                ..event
            },
        )
    }

    fn count(&mut self, key: &Key, mut event: Event) -> Write {
        let known = self.counted.get(key);
        let write = match known {
            None => Write::Create(event.clone()),
            Some(known) => {
                event.metadata.name = known.name.clone();
                event.metadata.resource_version = known.resource_version.clone();
                event.first_timestamp = known.first.clone();
                event.count = Some(known.count.saturating_add(1));
                let patch =
                    json!({"count": event.count, "lastTimestamp": event.last_timestamp, "message": event.message});
                Write::Patch {
                    event: event.clone(),
                    patch,
                }
            }
        };
        self.written(key, &event);
        write
    }

    fn allow(&mut self, write: &Write, now: Timestamp) -> bool {
        let event = match write {
            Write::Create(event) | Write::Patch { event, .. } => event,
        };
        let bucket = self.buckets.get_or_insert(source_key(event), || Bucket {
            tokens: BURST,
            filled: now,
        });
        let seconds = now.duration_since(bucket.filled).as_secs_f64().max(0.0);
        bucket.tokens = (bucket.tokens + seconds / REFILL_SECONDS).min(BURST);
        bucket.filled = now;
        let allowed = bucket.tokens >= 1.0;
        if allowed {
            bucket.tokens -= 1.0;
        }
        allowed
    }
}

fn joined<const N: usize>(parts: [Option<&str>; N]) -> Key {
    // A character that no part can hold, so that different parts never make one key.
    parts.map(Option::unwrap_or_default).join("\u{0}")
}

/// Who says something about what.
fn source_key(event: &Event) -> Key {
    let (source, about) = (event.source.as_ref(), &event.involved_object);
    joined([
        source.and_then(|source| source.component.as_deref()),
        source.and_then(|source| source.host.as_deref()),
        about.kind.as_deref(),
        about.namespace.as_deref(),
        about.name.as_deref(),
        about.uid.as_deref(),
        about.api_version.as_deref(),
    ])
}

/// Who says what kind of thing about what.
fn group_key(event: &Event) -> Key {
    joined([
        Some(&source_key(event)),
        event.type_.as_deref(),
        event.reason.as_deref(),
        event.reporting_component.as_deref(),
        event.reporting_instance.as_deref(),
    ])
}

/// The whole event but its times.
fn event_key(event: &Event) -> Key {
    joined([
        Some(&group_key(event)),
        event.involved_object.field_path.as_deref(),
        event.message.as_deref(),
    ])
}

/// A map that forgets the older half of what was not used, when it grows past [`REMEMBERED`].
struct Recent<V> {
    young: HashMap<Key, V>,
    old: HashMap<Key, V>,
}

impl<V> Default for Recent<V> {
    fn default() -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
        }
    }
}

impl<V> Recent<V> {
    fn get(&mut self, key: &Key) -> Option<&V> {
        if let Some(value) = self.old.remove(key) {
            self.insert(key.clone(), value);
        }
        self.young.get(key)
    }

    fn get_or_insert(&mut self, key: Key, value: impl FnOnce() -> V) -> &mut V {
        if let Some(known) = self.old.remove(&key) {
            self.insert(key.clone(), known);
        }
        self.turn();
        self.young.entry(key).or_insert_with(value)
    }

    fn insert(&mut self, key: Key, value: V) {
        self.turn();
        self.young.insert(key, value);
    }

    fn turn(&mut self) {
        if self.young.len() >= REMEMBERED / 2 {
            self.old = std::mem::take(&mut self.young);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use k8s_openapi::api::core::v1::{EventSource, ObjectReference};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn event(pod: &str, message: &str, second: i64) -> Event {
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{pod}.{second}")),
                ..Default::default()
            },
            involved_object: ObjectReference {
                kind: Some("Pod".into()),
                name: Some(pod.into()),
                ..Default::default()
            },
            message: Some(message.into()),
            reason: Some("BackOff".into()),
            type_: Some("Warning".into()),
            count: Some(1),
            first_timestamp: Some(Time(at(second))),
            last_timestamp: Some(Time(at(second))),
            source: Some(EventSource {
                component: Some("kubelet".into()),
                host: Some("node".into()),
            }),
            ..Default::default()
        }
    }

    fn correlate(correlator: &mut Correlator, event: Event, second: i64) -> Option<Write> {
        correlator.correlate(event, at(second)).map(|(_, write)| write)
    }

    #[test]
    fn the_same_event_again_raises_the_count_of_the_first() {
        let mut correlator = Correlator::default();
        let (key, write) = correlator.correlate(event("web", "again", 0), at(0)).unwrap();
        let Write::Create(mut created) = write else {
            panic!("the first is an object of its own")
        };
        created.metadata.resource_version = Some("7".into());
        correlator.written(&key, &created);
        for (second, count) in [(5, 2), (9, 3)] {
            let Some(Write::Patch { event, patch }) = correlate(&mut correlator, event("web", "again", second), second)
            else {
                panic!("a repeat is a patch")
            };
            assert_eq!(event.metadata.name.as_deref(), Some("web.0"));
            assert_eq!(event.first_timestamp, Some(Time(at(0))));
            assert_eq!(
                patch,
                json!({"count": count, "lastTimestamp": Time(at(second)), "message": "again"})
            );
        }
        assert!(matches!(
            correlate(&mut correlator, event("db", "again", 10), 10),
            Some(Write::Create(_))
        ));
    }

    #[test]
    fn ten_different_messages_become_one() {
        let mut correlator = Correlator::default();
        for second in 0..9 {
            let write = correlate(&mut correlator, event("web", &format!("m{second}"), second), second);
            assert!(matches!(write, Some(Write::Create(_))), "{second}");
        }
        let Some(Write::Create(first)) = correlate(&mut correlator, event("web", "m9", 9), 9) else {
            panic!()
        };
        assert_eq!(first.message.as_deref(), Some("(combined from similar events): m9"));
        let Some(Write::Patch { event: second, .. }) = correlate(&mut correlator, event("web", "m10", 10), 10) else {
            panic!()
        };
        assert_eq!(
            (second.message.as_deref(), second.count),
            (Some("(combined from similar events): m10"), Some(2))
        );
        // Ten quiet minutes, and each speaks for itself again.
        let Some(Write::Create(later)) = correlate(&mut correlator, event("web", "m11", 700), 700) else {
            panic!()
        };
        assert_eq!(later.message.as_deref(), Some("m11"));
    }

    #[test]
    fn a_flood_is_held_back_and_let_on_slowly() {
        let mut correlator = Correlator::default();
        let written = (0..100)
            .filter(|second| correlate(&mut correlator, event("web", "same", *second), *second).is_some())
            .count();
        assert_eq!(written, 25);
        assert!(
            correlate(&mut correlator, event("db", "same", 100), 100).is_some(),
            "another object has its own allowance"
        );
        assert!(correlate(&mut correlator, event("web", "same", 301), 301).is_some());
        let Some(Write::Patch { event, .. }) = correlate(&mut correlator, event("web", "same", 601), 601) else {
            panic!()
        };
        assert_eq!(event.count, Some(102), "those held back are counted");
    }
}
