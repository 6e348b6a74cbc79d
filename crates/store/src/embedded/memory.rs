//! What readers see: every key's newest entry, and behind it the window of history.
//!
//! A key holds its versions, oldest first, so a list at any revision of the window is exact and costs one
//! look-up a key. The window's changes stand in one row: the change of revision `r` is at
//! `r - oldest - 1`. Watches read that row, each at its own place, so a slow one costs no memory of its
//! own; when the row's end passes it by, it is told to list anew.
//!
//! ```text
//!             oldest                            newest
//!   compacted    |  change  change  …  change      |
//!                `-- readable states ------------- '
//! ```

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::Arc,
    time::{Duration, Instant},
};

use super::cursor::Cursors;
use crate::{Change, Entry, Error, ListOptions, Listing, Result, Revision};

/// How much history stays readable. Whichever bound is met first gives up the oldest of it, on the next
/// write: an idle store does nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Changes older than this are given up.
    pub age: Duration,
    /// At most so many changes are kept.
    pub changes: usize,
    /// At most so many bytes of replaced and deleted entries are kept.
    pub bytes: usize,
}

impl Default for Window {
    /// Five minutes, as long as a paged list can be continued upstream, in 32 MiB.
    fn default() -> Self {
        Window {
            age: Duration::from_secs(300),
            changes: 100_000,
            bytes: 32 << 20,
        }
    }
}

/// A key's state since a revision; without an entry it is deleted.
struct Version {
    since: Revision,
    entry: Option<Arc<Entry>>,
}

struct Versions {
    older: VecDeque<Version>,
    newest: Version,
}

impl Versions {
    fn at(&self, revision: Revision) -> Option<&Arc<Entry>> {
        if self.newest.since <= revision {
            return self.newest.entry.as_ref();
        }
        let later = self.older.partition_point(|version| version.since <= revision);
        self.older.get(later.checked_sub(1)?)?.entry.as_ref()
    }
}

struct Recorded {
    change: Change,
    at: Instant,
}

impl Recorded {
    /// What the history alone keeps in memory for this change.
    fn bytes(&self) -> usize {
        let replaced = self
            .change
            .previous()
            .map_or(0, |entry| entry.key.len() + entry.value.len());
        size_of::<Recorded>() + size_of::<Entry>() + replaced
    }
}

/// The store's state as of its newest acknowledged write.
pub(super) struct Memory {
    /// The keys that are there now.
    keys: BTreeMap<Arc<str>, Versions>,
    /// Those that were there in the window: apart, so that a list of what is there does not pass by them.
    gone: BTreeMap<Arc<str>, Versions>,
    history: VecDeque<Recorded>,
    history_bytes: usize,
    oldest: Revision,
    newest: Revision,
    window: Window,
    pub(super) cursors: Cursors,
}

impl Memory {
    /// Begins at a revision with the entries of that time and no history.
    pub(super) fn new(newest: Revision, entries: Vec<Arc<Entry>>, window: Window) -> Self {
        let keys = entries.into_iter().map(|entry| {
            let newest = Version {
                since: entry.revision,
                entry: Some(entry),
            };
            let key = newest.entry.as_ref().map(|entry| entry.key.clone()).unwrap_or_default();
            (
                key,
                Versions {
                    older: VecDeque::new(),
                    newest,
                },
            )
        });
        Memory {
            keys: keys.collect(),
            gone: BTreeMap::new(),
            history: VecDeque::new(),
            history_bytes: 0,
            oldest: newest,
            newest,
            window,
            cursors: Cursors::default(),
        }
    }

    pub(super) fn newest(&self) -> Revision {
        self.newest
    }

    pub(super) fn get(&self, key: &str) -> Option<Arc<Entry>> {
        self.keys.get(key)?.newest.entry.clone()
    }

    /// Whether the state at the revision, and the changes after it, can be read.
    pub(super) fn reach(&self, revision: Revision) -> Result<()> {
        if revision < self.oldest {
            Err(Error::Compacted {
                requested: revision,
                oldest: self.oldest,
            })
        } else if revision > self.newest {
            Err(Error::Future {
                requested: revision,
                newest: self.newest,
            })
        } else {
            Ok(())
        }
    }

    pub(super) fn list<'a>(&'a self, prefix: &str, options: &ListOptions) -> Result<Listing> {
        let revision = options.revision.unwrap_or(self.newest);
        self.reach(revision)?;
        let start = match options.start_after.as_deref() {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let limit = options.limit.unwrap_or(usize::MAX);
        let within = |keys: &'a BTreeMap<Arc<str>, Versions>| {
            let range = keys.range::<str, _>((start, Bound::Unbounded));
            let range = range.take_while(|(key, _)| key.starts_with(prefix));
            range.filter_map(|(_, versions)| versions.at(revision))
        };
        let (entries, remaining): (Vec<_>, _) = if revision == self.newest {
            let mut found = within(&self.keys);
            (found.by_ref().take(limit).cloned().collect(), found.count())
        } else {
            let mut found: Vec<_> = within(&self.keys).chain(within(&self.gone)).collect();
            found.sort_unstable_by(|one, other| one.key.cmp(&other.key));
            let remaining = found.len().saturating_sub(limit);
            (found.into_iter().take(limit).cloned().collect(), remaining)
        };
        Ok(Listing {
            entries,
            revision,
            more: remaining > 0,
            remaining: remaining as u64,
        })
    }

    /// Makes changes visible, and room for them in the window. They are the next revisions, in order.
    pub(super) fn publish(&mut self, changes: Vec<Change>, now: Instant) {
        self.make_room(changes.len(), now);
        for change in changes {
            self.newest = change.revision();
            self.cursors.offer(change.key(), self.newest);
            let version = Version {
                since: self.newest,
                entry: match &change {
                    Change::Put { entry, .. } => Some(entry.clone()),
                    Change::Delete { .. } => None,
                },
            };
            let key = change.key();
            let versions = match self.keys.remove(key).or_else(|| self.gone.remove(key)) {
                None => Versions {
                    older: VecDeque::new(),
                    newest: version,
                },
                Some(Versions { mut older, newest }) => {
                    older.push_back(newest);
                    Versions { older, newest: version }
                }
            };
            let place = match versions.newest.entry {
                Some(_) => &mut self.keys,
                None => &mut self.gone,
            };
            place.insert(key.clone(), versions);
            let recorded = Recorded { change, at: now };
            self.history_bytes += recorded.bytes();
            self.history.push_back(recorded);
        }
    }

    /// Gives up the history before the revision.
    pub(super) fn compact(&mut self, at: Revision) -> Result<()> {
        if at > self.newest {
            return Err(Error::Future {
                requested: at,
                newest: self.newest,
            });
        }
        while self.oldest < at {
            self.forget_oldest();
        }
        Ok(())
    }

    /// The changes to a prefix from the one of revision `from` on, at most `limit` of them, and the
    /// revision to go on from; zero when the newest change has been looked at.
    pub(super) fn changes(&self, prefix: &str, from: Revision, limit: usize) -> Result<(VecDeque<Change>, Revision)> {
        self.reach(from - 1)?;
        let mut found = VecDeque::new();
        for recorded in self.history.range((from - self.oldest - 1) as usize..) {
            if recorded.change.key().starts_with(prefix) {
                if found.len() == limit {
                    return Ok((found, recorded.change.revision()));
                }
                found.push_back(recorded.change.clone());
            }
        }
        Ok((found, 0))
    }

    fn make_room(&mut self, incoming: usize, now: Instant) {
        let Window { age, changes, bytes } = self.window;
        while let Some(first) = self.history.front() {
            let too_many = self.history.len() + incoming > changes || self.history_bytes > bytes;
            if !too_many && now.saturating_duration_since(first.at) <= age {
                break;
            }
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some(forgotten) = self.history.pop_front() else {
            return;
        };
        self.history_bytes -= forgotten.bytes();
        self.oldest = forgotten.change.revision();
        let key = forgotten.change.key();
        let Some(versions) = self.keys.get_mut(key).or_else(|| self.gone.get_mut(key)) else {
            return;
        };
        while versions
            .older
            .front()
            .is_some_and(|version| version.since < self.oldest)
        {
            versions.older.pop_front();
        }
        if versions.older.is_empty() {
            // A key that changed often must not hold its room for ever.
            versions.older.shrink_to_fit();
        }
        if versions.newest.entry.is_none() && versions.newest.since <= self.oldest {
            self.gone.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
    use super::*;
    use crate::Value;

    fn put(memory: &mut Memory, key: &str, now: Instant) {
        let previous = memory.get(key);
        let revision = memory.newest() + 1;
        let entry = Arc::new(Entry::new(
            key.into(),
            revision,
            revision,
            Value::plain(format!("{revision}")),
        ));
        memory.publish(vec![Change::Put { entry, previous }], now);
    }

    fn delete(memory: &mut Memory, key: &str, now: Instant) {
        let previous = memory.get(key).unwrap();
        let entry = Arc::new(previous.at(memory.newest() + 1));
        memory.publish(vec![Change::Delete { entry, previous }], now);
    }

    fn shown(memory: &Memory, revision: Revision) -> String {
        let listing = memory.list(
            "",
            &ListOptions {
                revision: Some(revision),
                ..Default::default()
            },
        );
        let shown = |entry: &Arc<Entry>| format!("{}@{}", entry.key, entry.revision);
        listing.map_or_else(
            |e| e.to_string(),
            |l| l.entries.iter().map(shown).collect::<Vec<_>>().join(" "),
        )
    }

    #[test]
    fn every_state_of_the_window_can_be_listed_until_it_is_compacted() {
        let now = Instant::now();
        let mut memory = Memory::new(1, vec![], Window::default());
        put(&mut memory, "a", now); // 2
        put(&mut memory, "b", now); // 3
        put(&mut memory, "a", now); // 4
        delete(&mut memory, "b", now); // 5
        put(&mut memory, "b", now); // 6
        delete(&mut memory, "a", now); // 7
        let states = ["", "a@2", "a@2 b@3", "a@4 b@3", "a@4", "a@4 b@6", "b@6"];
        for compacted in 1..=7 {
            memory.compact(compacted).unwrap();
            for revision in 1..=7 {
                let expected = match revision < compacted {
                    true => format!("revision {revision} has been compacted, the oldest one is {compacted}"),
                    false => states[revision as usize - 1].into(),
                };
                assert_eq!(
                    shown(&memory, revision),
                    expected,
                    "at {revision}, compacted at {compacted}"
                );
            }
        }
        assert_eq!(
            (memory.keys.len(), memory.gone.len()),
            (1, 0),
            "a deleted key goes with the last state that had it"
        );
        assert_eq!(memory.history_bytes, 0);
    }

    #[test]
    fn the_window_is_bounded_by_age_count_and_bytes() {
        let now = Instant::now();
        let minute = Duration::from_secs(60);
        let wide = Window {
            age: 10 * minute,
            changes: 1000,
            bytes: 1 << 20,
        };
        for (window, expected) in [
            (wide, 1),
            (Window { age: minute, ..wide }, 9),
            (Window { changes: 4, ..wide }, 7),
            (Window { bytes: 0, ..wide }, 10),
            (Window { changes: 0, ..wide }, 10),
        ] {
            let mut memory = Memory::new(1, vec![], window);
            for at in 0..10 {
                put(&mut memory, "key", now + at * minute);
            }
            assert_eq!(memory.newest(), 11);
            assert_eq!(memory.oldest, expected, "{window:?}");
        }
    }
}
