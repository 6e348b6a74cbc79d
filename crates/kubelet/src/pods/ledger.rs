//! Who holds how much of the node, so that a pod that wants to grow is granted what is free, or waits until it is.
//!
//! Those that wait are served when another pod gives something back: the higher priority first, then the better class, then who has
//! waited longest. Nothing is tried again by the clock.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use api::pod::{HostPort, Qos};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Written;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::admission::Refusal;
use super::mailbox::Mailbox;
use super::pod::PodExt;

const CPU: &str = "cpu";
const MEMORY: &str = "memory";
/// The resource that every pod wants one of.
pub const PODS: &str = "pods";
/// The resources that are looked at first.
const FIRST: [&str; 3] = [CPU, MEMORY, "ephemeral-storage"];

/// Amounts of the node by the names of resources: thousandths of a CPU, and whole units of everything else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Amount(BTreeMap<String, i64>);

impl Amount {
    /// What the pod's spec asks for.
    pub fn of(pod: &Pod) -> Self {
        let requests = api::pod::requests(pod).into_iter();
        Self(requests.map(|(name, amount)| counted(name, amount)).collect())
    }

    /// What an object's list says.
    pub fn listed(list: &BTreeMap<String, Written>) -> Self {
        let read = |(name, written): (&String, &Written)| {
            let amount = api::quantity::Quantity::of(written).ok()?;
            Some(counted(name.clone(), amount))
        };
        Self(list.iter().filter_map(read).collect())
    }

    /// How much of a resource this is.
    pub fn get(&self, resource: &str) -> i64 {
        self.0.get(resource).copied().unwrap_or(0)
    }

    /// The same with more resources.
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Those of the resources that a node has from its devices.
    pub fn extended(mut self) -> Self {
        self.0.retain(|name, _| is_extended(name));
        self
    }

    fn most(mut self, other: &Self) -> Self {
        for (name, amount) in &other.0 {
            let own = self.0.entry(name.clone()).or_insert(*amount);
            *own = (*own).max(*amount);
        }
        self
    }
}

fn counted(name: String, amount: api::quantity::Quantity) -> (String, i64) {
    let units = if name == CPU { amount.millis() } else { amount.value() };
    (name, units)
}

/// Whether a resource is none that every node knows of.
fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/")
}

/// What a pod wants to hold, and what makes it go before others.
#[derive(Debug, Clone)]
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
#[derive(Debug)]
pub struct Bid {
    /// What it is to hold.
    pub wants: Amount,
    /// Its class.
    pub class: Qos,
    /// The node's ports that it takes.
    pub ports: Vec<HostPort>,
    /// Whether others have to go for it if there is not enough.
    pub critical: bool,
    /// Why it is not one for the node, whatever is free there.
    pub misplaced: Option<Refusal>,
    /// The extended resources that the node has now.
    pub extended: Amount,
}

/// What a node has too little of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    /// Such as `cpu`.
    pub resource: String,
    requested: i64,
    used: i64,
    capacity: i64,
}

impl Lack {
    /// How much is missing.
    pub fn missing(&self) -> i64 {
        self.requested - (self.capacity - self.used)
    }
}

/// Upstream's words for it.
impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            resource,
            requested,
            used,
            capacity,
        } = self;
        write!(
            f,
            "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
        )
    }
}

impl From<&Lack> for Refusal {
    fn from(lack: &Lack) -> Self {
        Self {
            reason: format!("OutOf{}", lack.resource),
            message: lack.to_string(),
        }
    }
}

/// Why a pod that comes does not get in.
#[derive(Debug, PartialEq, Eq)]
pub enum Denial {
    /// It cannot run here.
    Refused(Refusal),
    /// It is critical, and would get in if others went.
    Crowded(Vec<Lack>),
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

#[derive(Debug, Default)]
struct Holding {
    amount: Amount,
    burstable: bool,
}

#[derive(Default)]
struct Book {
    held: HashMap<String, Holding>,
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

    /// The resources of which there is not enough, in upstream's order. An extended resource that the node does not know is the cluster's, and
    /// not counted here.
    fn lacks(&self, uid: &str, wants: &Amount, capacity: &Amount) -> Vec<Lack> {
        let wanted = wants.0.keys().map(String::as_str);
        let others = wanted.filter(|name| !FIRST.contains(name));
        let order = FIRST.into_iter().chain(others);
        let counted = order.filter(|name| !is_extended(name) || capacity.0.contains_key(*name));
        let lack = |resource: &str| {
            let others = self.held.iter().filter(|(other, _)| *other != uid);
            let lack = Lack {
                resource: resource.to_owned(),
                requested: wants.get(resource),
                used: others.map(|(_, held)| held.amount.get(resource)).sum(),
                capacity: capacity.get(resource),
            };
            (lack.requested > 0 && lack.missing() > 0).then_some(lack)
        };
        counted.filter_map(lack).collect()
    }

    /// Whether there are as many pods as may be.
    fn is_full(&self, uid: &str, capacity: &Amount) -> Option<Lack> {
        let others = self.held.keys().filter(|other| *other != uid).count();
        let lack = Lack {
            resource: PODS.to_owned(),
            requested: 1,
            used: i64::try_from(others).unwrap_or(i64::MAX),
            capacity: capacity.get(PODS),
        };
        (lack.missing() > 0).then_some(lack)
    }

    fn give(&mut self, uid: &str, amount: Amount, class: Qos, ports: Vec<HostPort>) {
        let burstable = class == Qos::Burstable;
        self.held.insert(uid.to_owned(), Holding { amount, burstable });
        if !ports.is_empty() {
            self.ports.insert(uid.to_owned(), ports);
        }
    }

    fn ask(&mut self, uid: &str, ask: &Ask, capacity: &Amount) -> Verdict {
        // Upstream speaks of memory first here.
        for resource in [MEMORY, CPU] {
            let (wanted, capacity) = (ask.wants.get(resource), capacity.get(resource));
            if wanted > capacity {
                return Verdict::Infeasible(format!(
                    "Node didn't have enough capacity: {resource}, requested: {wanted}, capacity: {capacity}"
                ));
            }
        }
        if let Some(lack) = self.lacks(uid, &ask.wants, capacity).first() {
            return Verdict::Deferred(lack.to_string());
        }
        // Until it is in force, what the pod had counts too.
        let held = self.held.entry(uid.to_owned()).or_default();
        held.amount = std::mem::take(&mut held.amount).most(&ask.wants);
        Verdict::Granted
    }

    /// Grants what has become possible, and answers who is to hear of it.
    fn serve(&mut self, capacity: &Amount) -> Vec<Arc<Mailbox>> {
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
            if self.ask(&uid, &ask.clone(), capacity) == Verdict::Granted {
                served.extend(self.waiting.remove(&uid).map(|(_, mailbox)| mailbox));
            }
        }
        served
    }
}

/// The node's ledger.
pub struct Ledger {
    capacity: Amount,
    book: Mutex<Book>,
    /// Told when a pod does not hold anything any more.
    released: Notify,
    burstable: watch::Sender<i64>,
}

impl Ledger {
    /// Nobody holds anything yet. `capacity` has the number of pods too.
    pub fn new(capacity: Amount) -> Self {
        Self {
            capacity,
            book: Mutex::default(),
            released: Notify::new(),
            burstable: watch::Sender::default(),
        }
    }

    /// Changes the book, and tells who follows it.
    fn write<T>(&self, change: impl FnOnce(&mut Book) -> T) -> T {
        let mut book = self.book.lock();
        let outcome = change(&mut book);
        let burstable = book.held.values().filter(|held| held.burstable);
        let sum: i64 = burstable.map(|held| held.amount.get(CPU)).sum();
        self.burstable
            .send_if_modified(|known| std::mem::replace(known, sum) != sum);
        outcome
    }

    /// The thousandths of a CPU that all Burstable pods hold.
    pub fn burstable(&self) -> watch::Receiver<i64> {
        self.burstable.subscribe()
    }

    /// A pod that is new here holds this from now on, if it is to be had.
    pub fn admit(&self, uid: &str, bid: Bid) -> Result<(), Denial> {
        let capacity = self.capacity.clone().and(bid.extended);
        self.write(|book| {
            let full = book.is_full(uid, &capacity).into_iter();
            let lacks: Vec<Lack> = full.chain(book.lacks(uid, &bid.wants, &capacity)).collect();
            if let Some(lack) = lacks.first().filter(|_| !bid.critical) {
                return Err(Denial::Refused(lack.into()));
            }
            if let Some(refusal) = bid.misplaced {
                return Err(Denial::Refused(refusal));
            }
            if book.has_given(uid, &bid.ports) {
                let why = "node(s) didn't have free ports for the requested pod ports";
                return Err(Denial::Refused(Refusal::predicate("NodePorts", why)));
            }
            if !lacks.is_empty() {
                return Err(Denial::Crowded(lacks));
            }
            book.give(uid, bid.wants, bid.class, bid.ports);
            Ok(())
        })
    }

    /// A pod that is here already holds what it has.
    pub fn take_in(&self, pod: &Pod) {
        let (class, ports) = (api::pod::stored_qos_class(pod), api::pod::host_ports(pod));
        self.write(|book| book.give(pod.uid(), Amount::of(pod), class, ports));
    }

    /// Whether a pod holds anything.
    pub fn has(&self, uid: &str) -> bool {
        self.book.lock().held.contains_key(uid)
    }

    /// A pod holds this, and no more.
    pub fn hold(&self, uid: &str, amount: Amount) {
        let served = self.write(|book| {
            let held = book.held.entry(uid.to_owned()).or_default();
            let before = std::mem::replace(&mut held.amount, amount.clone());
            let freed = before.most(&amount) != amount;
            if freed { book.serve(&self.capacity) } else { Vec::new() }
        });
        served.iter().for_each(|mailbox| mailbox.wake());
    }

    /// A pod wants to hold something else. Where it has to wait, its mailbox is woken when it need not any more, and it asks again.
    pub fn ask(&self, uid: &str, ask: Ask, mailbox: &Arc<Mailbox>) -> Verdict {
        self.write(|book| {
            book.waiting.remove(uid);
            let verdict = book.ask(uid, &ask, &self.capacity);
            if matches!(verdict, Verdict::Deferred(_)) {
                book.waiting.insert(uid.to_owned(), (ask, mailbox.clone()));
            }
            verdict
        })
    }

    /// A pod wants nothing any more but what it holds.
    pub fn withdraw(&self, uid: &str) {
        self.book.lock().waiting.remove(uid);
    }

    /// A pod holds nothing any more.
    pub fn release(&self, uid: &str) {
        let served = self.write(|book| {
            book.waiting.remove(uid);
            book.ports.remove(uid);
            match book.held.remove(uid) {
                Some(_) => book.serve(&self.capacity),
                None => Vec::new(),
            }
        });
        served.iter().for_each(|mailbox| mailbox.wake());
        self.released.notify_waiters();
    }

    /// Resolves when none of these pods holds anything any more.
    pub async fn released(&self, uids: &[&str]) {
        loop {
            // Made before looking, so that no release is missed.
            let next = self.released.notified();
            if !uids.iter().any(|uid| self.has(uid)) {
                return;
            }
            next.await;
        }
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
