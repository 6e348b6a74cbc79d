//! From what is left of a node to what it says of itself and what must be reclaimed: thresholds, their grace periods, and how long a
//! condition outlives its cause. No I/O, no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::thresholds::{Observations, Pressure, Signal, Threshold};

/// What is remembered between two looks.
#[derive(Debug, Default)]
pub struct Shortages {
    /// Thresholds that made pods go, until so much is left as they want after that.
    acted_on: Vec<Threshold>,
    /// Since when a threshold is met.
    since: Vec<(Threshold, Instant)>,
    /// When a condition had a cause last.
    caused: BTreeMap<Pressure, Instant>,
}

/// What comes of a look.
#[derive(Debug, PartialEq)]
pub struct Verdict {
    /// The conditions that hold.
    pub pressures: BTreeSet<Pressure>,
    /// The thresholds to act on, the most urgent first.
    pub due: Vec<Threshold>,
}

impl Shortages {
    /// Takes a look. `transition` is how long a condition outlives its cause.
    pub fn look(
        &mut self,
        thresholds: &[Threshold],
        seen: &Observations,
        transition: Duration,
        now: Instant,
    ) -> Verdict {
        let unresolved = |threshold: &&Threshold| {
            threshold.is_met(seen, false) || self.acted_on.contains(threshold) && threshold.is_met(seen, true)
        };
        let met: Vec<Threshold> = thresholds.iter().filter(unresolved).copied().collect();
        let since = |threshold: &Threshold| {
            let known = self.since.iter().find(|(known, _)| known == threshold);
            known.map_or(now, |(_, since)| *since)
        };
        self.since = met.iter().map(|threshold| (*threshold, since(threshold))).collect();
        for threshold in &met {
            self.caused.insert(threshold.signal.pressure(), now);
        }
        let over = |at: &Instant| {
            let passed = now.duration_since(*at);
            passed >= transition && !passed.is_zero()
        };
        self.caused.retain(|_, at| !over(at));
        let mut due: Vec<Threshold> = self
            .since
            .iter()
            .filter(|(threshold, since)| now.duration_since(*since) >= threshold.grace.unwrap_or_default())
            .map(|(threshold, _)| *threshold)
            .collect();
        self.acted_on.clone_from(&due);
        due.sort_by_key(|threshold| threshold.signal != Signal::MemoryAvailable);
        Verdict {
            pressures: self.caused.keys().copied().collect(),
            due,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use api::quantity::Quantity;

    use super::*;
    use crate::eviction::thresholds::{Observed, Value};

    fn threshold(signal: Signal, value: i64, grace: Option<u64>, reclaim: Option<i64>) -> Threshold {
        let amount = |value| Value::Amount(Quantity::from_bytes(value));
        Threshold {
            signal,
            value: amount(value),
            grace: grace.map(Duration::from_secs),
            reclaim: reclaim.map(amount),
        }
    }

    /// Looks at (seconds, what is left) one after the other: the conditions and what is due.
    fn looks(thresholds: &[Threshold], transition: u64, steps: &[(u64, &[(Signal, i64)])]) -> Vec<(String, String)> {
        let start = Instant::now();
        let mut shortages = Shortages::default();
        let mut said = Vec::new();
        for (at, seen) in steps {
            let seen = seen.iter().map(|(signal, available)| {
                let (available, capacity) = (*available, 1000);
                (*signal, Observed { available, capacity })
            });
            let verdict = shortages.look(
                thresholds,
                &seen.collect(),
                Duration::from_secs(transition),
                start + Duration::from_secs(*at),
            );
            let names: Vec<_> = verdict.pressures.iter().map(|pressure| pressure.name()).collect();
            let due: Vec<_> = verdict.due.iter().map(|due| due.signal.name()).collect();
            said.push((names.join(" "), due.join(" ")));
        }
        said
    }

    #[test]
    fn shortages_and_their_ends() {
        use Signal::{MemoryAvailable as Memory, NodeFsAvailable as Disk, PidAvailable as Pid};
        let said = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(conditions, due)| ((*conditions).to_owned(), (*due).to_owned()))
                .collect::<Vec<_>>()
        };
        // A hard one acts at once; the condition stands for a while after it.
        assert_eq!(
            looks(
                &[threshold(Memory, 100, None, None)],
                30,
                &[
                    (0, &[(Memory, 100)]),
                    (1, &[(Memory, 99)]),
                    (2, &[(Memory, 100)]),
                    (30, &[(Memory, 100)]),
                    (31, &[(Memory, 100)])
                ],
            ),
            said(&[
                ("", ""),
                ("MemoryPressure", "memory.available"),
                ("MemoryPressure", ""),
                ("MemoryPressure", ""),
                ("", "")
            ])
        );
        // A soft one waits, from the beginning of each shortage.
        assert_eq!(
            looks(
                &[threshold(Disk, 100, Some(10), None)],
                0,
                &[
                    (0, &[(Disk, 1)]),
                    (9, &[(Disk, 1)]),
                    (10, &[(Disk, 1)]),
                    (11, &[(Disk, 500)]),
                    (12, &[(Disk, 1)]),
                    (21, &[(Disk, 1)])
                ],
            ),
            said(&[
                ("DiskPressure", ""),
                ("DiskPressure", ""),
                ("DiskPressure", "nodefs.available"),
                ("", ""),
                ("DiskPressure", ""),
                ("DiskPressure", "")
            ])
        );
        // What was acted on is due until as much is left as is to be reclaimed; before that, the threshold alone counts.
        assert_eq!(
            looks(
                &[threshold(Pid, 100, None, Some(50))],
                0,
                &[
                    (0, &[(Pid, 120)]),
                    (1, &[(Pid, 99)]),
                    (2, &[(Pid, 149)]),
                    (3, &[(Pid, 150)]),
                    (4, &[(Pid, 120)])
                ],
            ),
            said(&[
                ("", ""),
                ("PIDPressure", "pid.available"),
                ("PIDPressure", "pid.available"),
                ("", ""),
                ("", "")
            ])
        );
        // Memory is the most urgent.
        assert_eq!(
            looks(
                &[threshold(Disk, 100, None, None), threshold(Memory, 100, None, None)],
                0,
                &[(0, &[(Disk, 1), (Memory, 1)])],
            ),
            said(&[("MemoryPressure DiskPressure", "memory.available nodefs.available")])
        );
    }
}
