//! Who holds how much of the node, so that a pod that wants to grow is granted what is free, or waits until it is.
//!
//! Those that wait are served when another pod gives something back: the higher priority first, then the better class, then who has
//! waited longest. Nothing is tried again by the clock.

use std::collections::HashMap;
use std::sync::Arc;

use api::pod::HostPort;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;

use super::admission::Refusal;
use super::mailbox::Mailbox;
use super::pod::PodExt;
use crate::field::Capacity;

/// An amount of the node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// Thousandths of a CPU.
    pub cpu_millis: i64,
    /// Bytes.
    pub memory: i64,
}

impl Amount {
    /// What the pod's spec asks for.
    pub fn of(pod: &Pod) -> Self {
        let requests = api::pod::requests(pod);
        Self {
            cpu_millis: requests.get("cpu").map_or(0, |cpu| cpu.millis()),
            memory: requests.get("memory").map_or(0, |memory| memory.value()),
        }
    }

    fn most(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.max(other.cpu_millis),
            memory: self.memory.max(other.memory),
        }
    }
}

/// What a pod wants to hold, and what makes it go before others.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    /// All of what it would hold.
    pub wants: Amount,
    /// Its priority.
    pub priority: i32,
    /// Whether it is Guaranteed.
    pub guaranteed: bool,
    /// Since when it wants it.
    pub since: Timestamp,
}

/// A pod that comes to the node.
#[derive(Debug, Default)]
pub struct Bid {
    /// What it is to hold.
    pub wants: Amount,
    /// The node's ports that it takes.
    pub ports: Vec<HostPort>,
    /// Whether it gets what it wants though there is not enough.
    pub critical: bool,
    /// Why it is not one for the node, whatever is free there.
    pub misplaced: Option<Refusal>,
}

/// What a node has too little of.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Lack {
    /// Such as `cpu`.
    resource: &'static str,
    /// Upstream's words for it.
    message: String,
}

impl Lack {
    fn of(resource: &'static str, requested: i64, used: i64, capacity: i64) -> Self {
        let message = format!(
            "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
        );
        Self { resource, message }
    }
}

impl From<Lack> for Refusal {
    fn from(lack: Lack) -> Self {
        Self {
            reason: format!("OutOf{}", lack.resource),
            message: lack.message,
        }
    }
}

/// What comes of asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It holds it now.
    Granted,
    /// Not now; upstream's words for why.
    Deferred(String),
    /// Never on this node; upstream's words for why.
    Infeasible(String),
}

#[derive(Default)]
struct Book {
    held: HashMap<String, Amount>,
    ports: HashMap<String, Vec<HostPort>>,
    waiting: HashMap<String, (Ask, Arc<Mailbox>)>,
}

impl Book {
    /// Whether another pod has one of these ports.
    fn has_given(&self, uid: &str, ports: &[HostPort]) -> bool {
        let others = self.ports.iter().filter(|(other, _)| *other != uid);
        let mut taken = others.flat_map(|(_, ports)| ports);
        taken.any(|taken| ports.iter().any(|port| port.conflicts(taken)))
    }

    /// The resource of which there is not enough.
    fn lacks(&self, uid: &str, wants: Amount, capacity: Capacity) -> Option<Lack> {
        let others = || {
            self.held
                .iter()
                .filter(|(other, _)| *other != uid)
                .map(|(_, amount)| *amount)
        };
        let cpu = others().map(|amount| amount.cpu_millis).sum::<i64>();
        let memory = others().map(|amount| amount.memory).sum::<i64>();
        [
            ("cpu", wants.cpu_millis, cpu, capacity.cpu_millis),
            ("memory", wants.memory, memory, capacity.memory),
        ]
        .into_iter()
        .find(|(_, wanted, used, capacity)| *wanted > 0 && *wanted > capacity - used)
        .map(|(resource, wanted, used, capacity)| Lack::of(resource, wanted, used, capacity))
    }

    fn give(&mut self, uid: &str, amount: Amount, ports: Vec<HostPort>) {
        self.held.insert(uid.to_owned(), amount);
        if !ports.is_empty() {
            self.ports.insert(uid.to_owned(), ports);
        }
    }

    fn ask(&mut self, uid: &str, ask: Ask, capacity: Capacity) -> Verdict {
        let wants = ask.wants;
        // Upstream speaks of memory first here.
        for (resource, wanted, capacity) in [
            ("memory", wants.memory, capacity.memory),
            ("cpu", wants.cpu_millis, capacity.cpu_millis),
        ] {
            if wanted > capacity {
                return Verdict::Infeasible(format!(
                    "Node didn't have enough capacity: {resource}, requested: {wanted}, capacity: {capacity}"
                ));
            }
        }
        if let Some(lack) = self.lacks(uid, wants, capacity) {
            return Verdict::Deferred(lack.message);
        }
        // Until it is in force, what the pod had counts too.
        let before = self.held.get(uid).copied().unwrap_or_default();
        self.held.insert(uid.to_owned(), before.most(wants));
        Verdict::Granted
    }

    /// Grants what has become possible, and answers who is to hear of it.
    fn serve(&mut self, capacity: Capacity) -> Vec<Arc<Mailbox>> {
        let mut order: Vec<String> = self.waiting.keys().cloned().collect();
        order.sort_by_key(|uid| {
            let ask = &self.waiting[uid].0;
            (std::cmp::Reverse((ask.priority, ask.guaranteed)), ask.since)
        });
        let mut served = Vec::new();
        for uid in order {
            let Some((ask, _)) = self.waiting.get(&uid) else {
                continue;
            };
            if self.ask(&uid, *ask, capacity) == Verdict::Granted {
                served.extend(self.waiting.remove(&uid).map(|(_, mailbox)| mailbox));
            }
        }
        served
    }
}

/// The node's ledger.
pub struct Ledger {
    capacity: Capacity,
    book: Mutex<Book>,
}

impl Ledger {
    /// Nobody holds anything yet.
    pub fn new(capacity: Capacity) -> Self {
        Self {
            capacity,
            book: Mutex::default(),
        }
    }

    /// A pod that is new here holds this from now on, if it is to be had: no more than `most` pods hold anything.
    pub fn admit(&self, uid: &str, bid: Bid, most: u32) -> Result<(), Refusal> {
        let mut book = self.book.lock();
        let (others, most) = (
            book.held.keys().filter(|other| *other != uid).count() as i64,
            i64::from(most),
        );
        if !bid.critical {
            if others >= most {
                return Err(Lack::of("pods", 1, others, most).into());
            }
            if let Some(lack) = book.lacks(uid, bid.wants, self.capacity) {
                return Err(lack.into());
            }
        }
        if let Some(refusal) = bid.misplaced {
            return Err(refusal);
        }
        if book.has_given(uid, &bid.ports) {
            let why = "node(s) didn't have free ports for the requested pod ports";
            return Err(Refusal::predicate("NodePorts", why));
        }
        book.give(uid, bid.wants, bid.ports);
        Ok(())
    }

    /// A pod that is here already holds what it has.
    pub fn take_in(&self, pod: &Pod) {
        let ports = api::pod::host_ports(pod);
        self.book.lock().give(pod.uid(), Amount::of(pod), ports);
    }

    /// A pod holds this, and no more.
    pub fn hold(&self, uid: &str, amount: Amount) {
        let mut book = self.book.lock();
        let before = book.held.insert(uid.to_owned(), amount);
        let freed = before.is_some_and(|before| before.most(amount) != amount);
        let served = if freed { book.serve(self.capacity) } else { Vec::new() };
        drop(book);
        served.iter().for_each(|mailbox| mailbox.wake());
    }

    /// A pod wants to hold something else. Where it has to wait, its mailbox is woken when it need not any more, and it asks again.
    pub fn ask(&self, uid: &str, ask: Ask, mailbox: &Arc<Mailbox>) -> Verdict {
        let mut book = self.book.lock();
        book.waiting.remove(uid);
        let verdict = book.ask(uid, ask, self.capacity);
        if matches!(verdict, Verdict::Deferred(_)) {
            book.waiting.insert(uid.to_owned(), (ask, mailbox.clone()));
        }
        verdict
    }

    /// A pod wants nothing any more but what it holds.
    pub fn withdraw(&self, uid: &str) {
        self.book.lock().waiting.remove(uid);
    }

    /// A pod holds nothing any more.
    pub fn release(&self, uid: &str) {
        let mut book = self.book.lock();
        book.waiting.remove(uid);
        book.ports.remove(uid);
        let served = match book.held.remove(uid) {
            Some(_) => book.serve(self.capacity),
            None => Vec::new(),
        };
        drop(book);
        served.iter().for_each(|mailbox| mailbox.wake());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;

    const CAPACITY: Capacity = Capacity {
        cpu_millis: 4000,
        memory: 1000,
        ephemeral_storage: 0,
    };

    fn amount(cpu_millis: i64, memory: i64) -> Amount {
        Amount { cpu_millis, memory }
    }

    fn ask(cpu_millis: i64, priority: i32, since: i64) -> Ask {
        Ask {
            wants: amount(cpu_millis, 10),
            priority,
            guaranteed: false,
            since: Timestamp::from_second(since).unwrap_or_default(),
        }
    }

    #[test]
    fn what_is_granted() {
        let ledger = Ledger::new(CAPACITY);
        let mailbox = Arc::new(Mailbox::new(Arc::default(), false));
        ledger.hold("a", amount(1000, 10));
        ledger.hold("b", amount(2000, 500));
        let wants = |cpu, memory| {
            let asked = Ask {
                wants: amount(cpu, memory),
                ..ask(0, 0, 0)
            };
            ledger.ask("a", asked, &mailbox)
        };
        assert_eq!(wants(2000, 10), Verdict::Granted);
        assert_eq!(
            wants(3000, 10),
            Verdict::Deferred(
                "Node didn't have enough resource: cpu, requested: 3000, used: 2000, capacity: 4000".into()
            )
        );
        assert_eq!(
            wants(1000, 600),
            Verdict::Deferred(
                "Node didn't have enough resource: memory, requested: 600, used: 500, capacity: 1000".into()
            )
        );
        assert_eq!(
            wants(8000, 10),
            Verdict::Infeasible("Node didn't have enough capacity: cpu, requested: 8000, capacity: 4000".into())
        );
    }

    #[test]
    fn who_comes_is_admitted_while_there_is_room() {
        let ledger = Ledger::new(CAPACITY);
        let admit = |uid: &str, wants, most| {
            let bid = Bid {
                wants,
                ..Bid::default()
            };
            ledger.admit(uid, bid, most)
        };
        let lack = |resource, numbers: &str| {
            Err(Refusal {
                reason: format!("OutOf{resource}"),
                message: format!("Node didn't have enough resource: {resource}, {numbers}"),
            })
        };
        assert_eq!(admit("a", amount(3000, 10), 3), Ok(()));
        assert_eq!(
            admit("b", amount(1500, 10), 3),
            lack("cpu", "requested: 1500, used: 3000, capacity: 4000")
        );
        assert_eq!(
            admit("b", amount(0, 991), 3),
            lack("memory", "requested: 991, used: 10, capacity: 1000")
        );
        assert_eq!(admit("b", amount(1000, 990), 3), Ok(()));
        assert_eq!(admit("c", amount(0, 0), 3), Ok(()), "what wants nothing always fits");
        assert_eq!(
            admit("d", amount(0, 0), 3),
            lack("pods", "requested: 1, used: 3, capacity: 3")
        );
        ledger.release("a");
        assert_eq!(admit("d", amount(3000, 0), 3), Ok(()));
    }

    #[test]
    fn a_port_is_one_pods() {
        let ledger = Ledger::new(CAPACITY);
        let bid = |port, critical, wants| Bid {
            wants,
            ports: vec![HostPort {
                ip: String::new(),
                protocol: "TCP".into(),
                port,
            }],
            critical,
            misplaced: None,
        };
        let refused = |result: Result<(), Refusal>| result.err().map(|refusal| refusal.reason);
        let (little, much) = (amount(1, 1), amount(9000, 1));
        assert_eq!(refused(ledger.admit("a", bid(80, false, little), 9)), None);
        assert_eq!(refused(ledger.admit("a", bid(80, false, little), 9)), None, "its own");
        let taken = ledger.admit("b", bid(80, false, little), 9).unwrap_err();
        assert_eq!(
            taken.message,
            "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"
        );
        assert_eq!(
            refused(ledger.admit("b", bid(80, true, much), 9)).as_deref(),
            Some("NodePorts")
        );
        assert_eq!(
            refused(ledger.admit("b", bid(80, false, much), 9)).as_deref(),
            Some("OutOfcpu")
        );
        assert_eq!(
            refused(ledger.admit("b", bid(81, true, much), 9)),
            None,
            "it is critical"
        );
        ledger.release("a");
        assert_eq!(refused(ledger.admit("c", bid(80, true, little), 9)), None);
        let bid = Bid {
            misplaced: Some(Refusal::predicate("NodeAffinity", "x")),
            ..bid(80, true, little)
        };
        assert_eq!(refused(ledger.admit("d", bid, 9)).as_deref(), Some("NodeAffinity"));
    }

    #[test]
    fn who_waits_is_served_in_turn() {
        let ledger = Ledger::new(CAPACITY);
        let mailbox = Arc::new(Mailbox::new(Arc::default(), false));
        for (uid, held) in [("full", 3000), ("low", 100), ("old", 100), ("high", 100)] {
            ledger.hold(uid, amount(held, 0));
        }
        for (uid, priority, since) in [("low", 0, 5), ("old", 0, 1), ("high", 9, 9)] {
            assert!(matches!(
                ledger.ask(uid, ask(2000, priority, since), &mailbox),
                Verdict::Deferred(_)
            ));
        }
        let held = |uid: &str| ledger.book.lock().held[uid].cpu_millis;
        ledger.release("full");
        // Two of three would be 4,000, but the third holds its 100 still.
        assert_eq!(["high", "old", "low"].map(held), [2000, 100, 100]);
        ledger.hold("high", amount(1000, 0));
        assert_eq!(["high", "old", "low"].map(held), [1000, 2000, 100]);
        ledger.withdraw("low");
        ledger.release("old");
        assert_eq!(held("low"), 100, "it does not want it any more");
    }

    #[test]
    fn what_a_pod_had_counts_until_the_grant_is_in_force() {
        let ledger = Ledger::new(CAPACITY);
        let mailbox = Arc::new(Mailbox::new(Arc::default(), false));
        ledger.hold("a", amount(3000, 0));
        assert_eq!(ledger.ask("a", ask(1000, 0, 0), &mailbox), Verdict::Granted);
        assert!(matches!(
            ledger.ask("b", ask(2000, 0, 0), &mailbox),
            Verdict::Deferred(_)
        ));
        ledger.hold("a", amount(1000, 0));
        assert_eq!(ledger.book.lock().held["b"].cpu_millis, 2000);
    }
}
