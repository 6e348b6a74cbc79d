//! What becomes of an object whose owners are known. No I/O.

use super::graph::End;

/// An owner, as an object that names it finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// It is there.
    Solid,
    /// It was deleted and waits for the object to go.
    Waiting,
    /// It is not there.
    Absent,
    /// Nobody can say: its kind is not served.
    Unknown,
}

/// What is to be done with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Keep,
    /// The references to these owners are taken out.
    Detach(Vec<String>),
    /// It is deleted.
    Delete {
        /// How.
        policy: &'static str,
        /// Whether it first stops to keep its owners: they would wait for it as it waits for them.
        unblock: bool,
    },
}

/// What is known of the object's dependents.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dependents {
    /// Whether it has any.
    pub any: bool,
    /// Whether one of them goes in the foreground itself.
    pub waiting: bool,
}

/// Decides on an object with these owners; `finalizer` is how it would go for its own part.
pub fn decide(owners: &[(String, Owner)], finalizer: Option<End>, dependents: Dependents) -> Verdict {
    let has = |wanted: Owner| owners.iter().any(|(_, owner)| *owner == wanted);
    if owners.is_empty() || has(Owner::Unknown) {
        return Verdict::Keep;
    }
    if has(Owner::Solid) {
        let useless: Vec<String> = owners
            .iter()
            .filter(|(_, owner)| *owner != Owner::Solid)
            .map(|(uid, _)| uid.clone())
            .collect();
        return match useless.is_empty() {
            true => Verdict::Keep,
            false => Verdict::Detach(useless),
        };
    }
    if has(Owner::Waiting) && dependents.any {
        return Verdict::Delete {
            policy: "Foreground",
            unblock: dependents.waiting,
        };
    }
    let policy = match finalizer {
        Some(End::Orphan) => "Orphan",
        Some(End::Foreground) => "Foreground",
        Some(End::Plain) | None => "Background",
    };
    Verdict::Delete { policy, unblock: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        use Owner::{Absent, Solid, Unknown, Waiting};
        let delete = |policy, unblock| Verdict::Delete { policy, unblock };
        let detach = |uids: &[&str]| Verdict::Detach(uids.iter().map(ToString::to_string).collect());
        let none = Dependents::default();
        let some = Dependents {
            any: true,
            waiting: false,
        };
        let circle = Dependents {
            any: true,
            waiting: true,
        };
        for (owners, finalizer, dependents, want) in [
            (&[][..], None, none, Verdict::Keep),
            (&[Solid], None, none, Verdict::Keep),
            (&[Solid, Solid], None, some, Verdict::Keep),
            (&[Solid, Absent, Waiting], None, none, detach(&["1", "2"])),
            (&[Absent], None, none, delete("Background", false)),
            (&[Absent, Absent], None, some, delete("Background", false)),
            (&[Absent], Some(End::Orphan), some, delete("Orphan", false)),
            (&[Absent], Some(End::Foreground), some, delete("Foreground", false)),
            (&[Waiting], None, none, delete("Background", false)),
            (&[Waiting], None, some, delete("Foreground", false)),
            (&[Waiting, Absent], None, some, delete("Foreground", false)),
            (&[Waiting], None, circle, delete("Foreground", true)),
            (&[Unknown], None, none, Verdict::Keep),
            (&[Absent, Unknown], None, none, Verdict::Keep),
        ] {
            let named: Vec<_> = owners
                .iter()
                .enumerate()
                .map(|(n, owner)| (n.to_string(), *owner))
                .collect();
            assert_eq!(decide(&named, finalizer, dependents), want, "{owners:?} {finalizer:?}");
        }
    }
}
