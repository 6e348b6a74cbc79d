//! What must be left of a node, as configured and as observed.

use std::collections::BTreeMap;
use std::time::Duration;

use api::quantity::{Quantity, Suffixes};

use crate::configuration::GoDuration;

/// Upstream's hard thresholds on Linux.
pub const DEFAULTS: [(&str, &str); 5] = [
    ("memory.available", "100Mi"),
    ("nodefs.available", "10%"),
    ("nodefs.inodesFree", "5%"),
    ("imagefs.available", "15%"),
    ("imagefs.inodesFree", "5%"),
];

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// The node's memory that is not in use.
    MemoryAvailable,
    /// Bytes free where volumes and logs are.
    NodeFsAvailable,
    /// Inodes free there.
    NodeFsInodesFree,
    /// Bytes free where images and containers' own layers are.
    ImageFsAvailable,
    /// Inodes free there.
    ImageFsInodesFree,
    /// Process numbers that are not in use.
    PidAvailable,
}

/// A condition of the node, which says that something of it runs short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pressure {
    /// Memory.
    Memory,
    /// Disk space or inodes.
    Disk,
    /// Process numbers.
    Pid,
}

impl Pressure {
    /// The condition's type.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "MemoryPressure",
            Self::Disk => "DiskPressure",
            Self::Pid => "PIDPressure",
        }
    }
}

impl Signal {
    const ALL: [Self; 6] = [
        Self::MemoryAvailable,
        Self::NodeFsAvailable,
        Self::NodeFsInodesFree,
        Self::ImageFsAvailable,
        Self::ImageFsInodesFree,
        Self::PidAvailable,
    ];

    /// As configurations name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::MemoryAvailable => "memory.available",
            Self::NodeFsAvailable => "nodefs.available",
            Self::NodeFsInodesFree => "nodefs.inodesFree",
            Self::ImageFsAvailable => "imagefs.available",
            Self::ImageFsInodesFree => "imagefs.inodesFree",
            Self::PidAvailable => "pid.available",
        }
    }

    /// The condition that it makes true.
    pub fn pressure(self) -> Pressure {
        match self {
            Self::MemoryAvailable => Pressure::Memory,
            Self::PidAvailable => Pressure::Pid,
            _ => Pressure::Disk,
        }
    }

    /// The resource that pods are evicted for.
    pub fn resource(self) -> &'static str {
        match self {
            Self::MemoryAvailable => "memory",
            Self::PidAvailable => "pids",
            Self::NodeFsAvailable | Self::ImageFsAvailable => "ephemeral-storage",
            Self::NodeFsInodesFree | Self::ImageFsInodesFree => "inodes",
        }
    }

    /// An amount of it, for people.
    pub fn amount(self, value: i64) -> Quantity {
        let suffixes = match self {
            Self::PidAvailable => Suffixes::DecimalSi,
            _ => Suffixes::BinarySi,
        };
        Quantity::new(value, suffixes)
    }
}

/// How much must be left.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// So much.
    Amount(Quantity),
    /// Such a part of the whole, 1 being all.
    Part(f64),
}

impl Value {
    fn parse(text: &str) -> Result<Self, String> {
        if let Some(percent) = text.strip_suffix('%') {
            let percent: f64 = percent
                .parse()
                .map_err(|_| format!("{text:?} is neither a percentage nor a quantity"))?;
            return match percent {
                ..0.0 => Err(format!("eviction percentage threshold {text} must be >= 0%")),
                0.0..=100.0 => Ok(Self::Part(percent / 100.0)),
                _ => Err(format!("eviction percentage threshold {text} must be <= 100%")),
            };
        }
        let amount: Quantity = text
            .parse()
            .map_err(|error| format!("{text:?} is neither a percentage nor a quantity: {error}"))?;
        match amount.is_negative() {
            true => Err(format!("eviction threshold {text} must be positive")),
            false => Ok(Self::Amount(amount)),
        }
    }

    /// The amount, of a whole of `capacity`.
    pub fn of(self, capacity: i64) -> i64 {
        match self {
            Self::Amount(amount) => amount.value(),
            Self::Part(part) => (capacity as f64 * part) as i64,
        }
    }
}

/// Less than this must not be left.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    /// Of what.
    pub signal: Signal,
    /// How much.
    pub value: Value,
    /// How long less may be left; none where not at all.
    pub grace: Option<Duration>,
    /// How much more is to be left after a shortage.
    pub reclaim: Option<Value>,
}

/// How much is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observed {
    /// Now.
    pub available: i64,
    /// Of so much.
    pub capacity: i64,
}

/// How much is left of what.
pub type Observations = BTreeMap<Signal, Observed>;

impl Threshold {
    /// Whether less is left; with `reclaiming`, whether less is left than after a shortage there should be.
    pub fn is_met(&self, seen: &Observations, reclaiming: bool) -> bool {
        let Some(seen) = seen.get(&self.signal) else {
            return false;
        };
        let more = self.reclaim.filter(|_| reclaiming);
        let wanted = self.value.of(seen.capacity) + more.map_or(0, |more| more.of(seen.capacity));
        seen.available < wanted
    }
}

/// Reads what is configured.
pub fn parse(
    hard: &BTreeMap<String, String>,
    soft: &BTreeMap<String, String>,
    graces: &BTreeMap<String, GoDuration>,
    reclaims: &BTreeMap<String, String>,
) -> Result<Vec<Threshold>, String> {
    let signal = |name: &str| {
        let known = Signal::ALL.into_iter().find(|signal| signal.name() == name);
        known.ok_or_else(|| format!("unknown eviction signal {name:?}"))
    };
    let mut minimum = BTreeMap::new();
    for (name, value) in reclaims {
        let value = Value::parse(value).map_err(|error| format!("evictionMinimumReclaim: {name}: {error}"))?;
        minimum.insert(
            signal(name).map_err(|error| format!("evictionMinimumReclaim: {error}"))?,
            value,
        );
    }
    for name in graces.keys() {
        signal(name).map_err(|error| format!("evictionSoftGracePeriod: {error}"))?;
    }
    let mut thresholds = Vec::new();
    for (field, list) in [("evictionHard", hard), ("evictionSoft", soft)] {
        for (name, text) in list {
            let signal = signal(name).map_err(|error| format!("{field}: {error}"))?;
            let value = Value::parse(text).map_err(|error| format!("{field}: {name}: {error}"))?;
            let grace = match field {
                "evictionHard" => None,
                _ => Some(
                    graces
                        .get(name)
                        .ok_or_else(|| {
                            format!("{field}: grace period must be specified for the soft eviction threshold {name}")
                        })?
                        .0,
                ),
            };
            // As upstream: these switch a threshold off.
            if text == "0%" || text == "100%" {
                continue;
            }
            thresholds.push(Threshold {
                signal,
                value,
                grace,
                reclaim: minimum.get(&signal).copied(),
            });
        }
    }
    Ok(thresholds)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;

    #[test]
    fn parts_and_amounts_of_what_is_left() {
        let list = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect::<BTreeMap<_, _>>()
        };
        let none = BTreeMap::new();
        let parsed = parse(
            &list(&[
                ("memory.available", "10%"),
                ("nodefs.available", "1Ki"),
                ("pid.available", "0%"),
            ]),
            &BTreeMap::new(),
            &BTreeMap::new(),
            &list(&[("memory.available", "5%")]),
        )
        .unwrap();
        assert_eq!(parsed.len(), 2, "0% is none");
        let seen = |signal, available| {
            Observations::from([(
                signal,
                Observed {
                    available,
                    capacity: 10_000,
                },
            )])
        };
        for (threshold, available, met, reclaiming) in [
            (parsed[0], 999, true, true),
            (parsed[0], 1000, false, true),
            (parsed[0], 1499, false, true),
            (parsed[0], 1500, false, false),
            (parsed[1], 1023, true, true),
            (parsed[1], 1024, false, false),
        ] {
            let seen = seen(threshold.signal, available);
            assert_eq!(
                (threshold.is_met(&seen, false), threshold.is_met(&seen, true)),
                (met, reclaiming),
                "{available}"
            );
        }
        assert!(
            !parsed[0].is_met(&Observations::new(), true),
            "what is not seen is not short"
        );
        for (value, said) in [
            ("-1%", "must be >= 0%"),
            ("101%", "must be <= 100%"),
            ("-1Gi", "must be positive"),
            ("x", "neither"),
        ] {
            let error = parse(
                &list(&[("memory.available", value)]),
                &none.clone(),
                &BTreeMap::new(),
                &none,
            )
            .unwrap_err();
            assert!(
                error.starts_with("evictionHard: memory.available: ") && error.contains(said),
                "{error}"
            );
        }
    }
}
