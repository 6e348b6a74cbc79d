//! Back-offs that double: restarts of containers, pulls of images.
//!
//! The first failure is tried again at once; then an entry stands, and each further try waits for its delay, counted from the last
//! failure, and doubles it. An entry is forgotten when nothing failed for twice the longest delay.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};

const FIRST: SignedDuration = SignedDuration::from_secs(10);
const LONGEST: SignedDuration = SignedDuration::from_mins(5);

#[derive(Debug, Clone, Copy, PartialEq)]
struct Entry {
    delay: SignedDuration,
    updated: Timestamp,
}

impl Entry {
    fn expired(&self, event: Timestamp) -> bool {
        event.duration_since(self.updated) > LONGEST * 2
    }
}

/// The back-offs of one pod, by container or image.
#[derive(Debug, Clone, Default)]
pub struct Backoffs {
    entries: HashMap<String, Entry>,
}

impl Backoffs {
    /// Until when to wait after a failure at `failed`, and the delay; `None` when the next try may come now.
    pub fn until(&self, key: &str, failed: Timestamp, now: Timestamp) -> Option<(Timestamp, SignedDuration)> {
        let entry = self.entries.get(key).filter(|entry| !entry.expired(failed))?;
        let until = failed.saturating_add(entry.delay).unwrap_or(Timestamp::MAX);
        (until > now).then_some((until, entry.delay))
    }

    /// A try is made after a failure at `failed`.
    pub fn next(&mut self, key: &str, failed: Timestamp, now: Timestamp) {
        let delay = match self.entries.get(key) {
            Some(entry) if !entry.expired(failed) => (entry.delay * 2).min(LONGEST),
            _ => FIRST,
        };
        self.entries.insert(key.to_owned(), Entry { delay, updated: now });
    }

    /// The thing went well.
    pub fn reset(&mut self, key: &str) {
        self.entries.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap_or_default()
    }

    #[test]
    fn delays_double_up_to_five_minutes_and_are_forgotten_after_ten() {
        let mut backoffs = Backoffs::default();
        assert_eq!(backoffs.until("c", at(0), at(0)), None, "the first restart is at once");
        let mut now = 0;
        let mut seen = Vec::new();
        for _ in 0..7 {
            backoffs.next("c", at(now), at(now));
            now += 1;
            let (until, delay) = backoffs.until("c", at(now), at(now)).unwrap_or_default();
            assert_eq!(until, at(now + delay.as_secs()));
            assert_eq!(backoffs.until("c", at(now), until), None);
            seen.push(delay.as_secs());
            now += delay.as_secs();
        }
        assert_eq!(seen, [10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(
            backoffs.until("c", at(now + 601), at(now + 601)),
            None,
            "ten good minutes"
        );
        backoffs.next("c", at(now + 601), at(now + 601));
        assert_eq!(
            backoffs
                .until("c", at(now + 602), at(now + 602))
                .map(|(_, delay)| delay.as_secs()),
            Some(10)
        );
    }
}
