//! The elements of the table's sets, as values: what each Service has there, and what a change of it changes. The
//! cost of a change is that of the Service's own elements, however many other Services there are. No I/O.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::Hash,
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
};

use ipnet::Ipv4Net;

use super::frontends::{Fate, Frontend, Wanted};
use crate::Protocol;

/// The chain that chooses one of so many endpoints. All Services with as many share it: it finds the endpoint by
/// the packet's own destination and a random number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Pick {
    pub(super) count: u32,
    /// Whether it is for node ports.
    pub(super) node_port: bool,
    /// Whether a client stays with its endpoint.
    pub(super) sticky: bool,
}

/// The key of an element, with the set that it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Element {
    /// In `services`: the chain that chooses among the endpoints.
    Service(Frontend),
    /// In `endpoints`: the endpoint of that number.
    Endpoint(Frontend, u32),
    /// In `sticky`: the chain that remembers the client.
    Sticky(Frontend),
    /// In `unserved`: how what has no endpoint is turned away.
    Unserved(Frontend),
    /// In `hairpin`: a pod that may reach itself by a Service.
    Hairpin(Ipv4Addr),
}

/// What a map has for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Data {
    /// Nothing: it is a set.
    None,
    Pick(Pick),
    Endpoint(SocketAddrV4),
    /// For so many seconds.
    Remember(u32),
    Refuse,
    Drop,
}

type Name = Arc<str>;

/// What is in the kernel, Service by Service.
pub(super) struct State {
    /// The pods' range: no other endpoint can reach itself by way of this node.
    cluster: Ipv4Net,
    services: HashMap<Name, Applied>,
    /// Which Service a frontend leads to: the first that asked for it.
    owners: HashMap<Frontend, Name>,
    /// Services that ask for a frontend of another one.
    waiting: HashMap<Name, Wanted>,
    hairpins: Counted<Ipv4Addr>,
    picks: HashSet<Pick>,
    /// The times for which there are chains that remember.
    times: HashSet<u32>,
}

type Applied = BTreeMap<Frontend, Spread>;

/// A frontend's fate with its endpoints in the order of their numbers.
#[derive(Clone, PartialEq, Eq)]
struct Spread {
    fate: Fate,
    order: Vec<SocketAddrV4>,
}

impl Spread {
    fn is_sticky(&self) -> bool {
        matches!(self.fate, Fate::Spread { affinity: Some(_), .. })
    }
}

/// What one transaction does, and what is to be looked after when it is done.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Chains that are not there yet.
    pub(super) picks: BTreeSet<Pick>,
    /// Times for which there are no chains yet that remember.
    pub(super) times: BTreeSet<u32>,
    /// Elements as they were and as they are to be.
    elements: BTreeMap<Element, (Option<Data>, Option<Data>)>,
    /// UDP frontends whose flows may lead where they no longer should, with the endpoints they may lead to.
    pub(super) flows: BTreeMap<Frontend, BTreeSet<SocketAddrV4>>,
    /// Frontends whose clients may be remembered with an endpoint that is gone, with those that are there.
    pub(super) clients: BTreeMap<Frontend, BTreeSet<SocketAddrV4>>,
}

impl Changes {
    fn put(&mut self, element: Element, old: Option<Data>, new: Option<Data>) {
        self.elements
            .entry(element)
            .and_modify(|(_, last)| *last = new)
            .or_insert((old, new));
    }

    /// Elements to take away, in the order of their sets.
    pub(super) fn removed(&self) -> impl Iterator<Item = (Element, Data)> {
        let removed = |(element, (old, new)): (&Element, &(Option<Data>, Option<Data>))| {
            old.filter(|_| old != new).map(|old| (*element, old))
        };
        self.elements.iter().filter_map(removed)
    }

    /// Elements to put in, in the order of their sets. Those with other data than before are also removed.
    pub(super) fn added(&self) -> impl Iterator<Item = (Element, Data)> {
        let added = |(element, (old, new)): (&Element, &(Option<Data>, Option<Data>))| {
            new.filter(|_| old != new).map(|new| (*element, new))
        };
        self.elements.iter().filter_map(added)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.elements.values().all(|(old, new)| old == new)
    }
}

impl State {
    pub(super) fn new(cluster: Ipv4Net) -> State {
        State {
            cluster,
            services: HashMap::new(),
            owners: HashMap::new(),
            waiting: HashMap::new(),
            hairpins: Counted::default(),
            picks: HashSet::new(),
            times: HashSet::new(),
        }
    }

    /// Makes a Service what it is to be, and those that waited for what it gives up. The result names a Service
    /// whose frontend it can not have, if there is one.
    pub(super) fn set(&mut self, name: &Name, wanted: Wanted, changes: &mut Changes) -> Option<Name> {
        let (gave_up, taken) = self.set_one(name, wanted, changes);
        if gave_up && !self.waiting.is_empty() {
            let again: Vec<(Name, Wanted)> = self
                .waiting
                .iter()
                .map(|(name, wanted)| (name.clone(), wanted.clone()))
                .collect();
            for (name, wanted) in again {
                self.set_one(&name, wanted, changes);
            }
        }
        taken
    }

    fn set_one(&mut self, name: &Name, wanted: Wanted, changes: &mut Changes) -> (bool, Option<Name>) {
        let mut taken = None;
        let mut mine = wanted.clone();
        mine.retain(|frontend, _| match self.owners.get(frontend) {
            Some(owner) if owner != name => {
                taken = Some(owner.clone());
                false
            }
            _ => true,
        });
        match taken {
            Some(_) => drop(self.waiting.insert(name.clone(), wanted)),
            None => drop(self.waiting.remove(name)),
        }
        let old = self.services.remove(name).unwrap_or_default();
        let new = apply(mine, &old);
        let mut gave_up = false;
        let all: BTreeSet<Frontend> = old.keys().chain(new.keys()).copied().collect();
        for frontend in all {
            let (before, after) = (old.get(&frontend), new.get(&frontend));
            if before == after {
                continue;
            }
            match after {
                Some(_) => drop(self.owners.insert(frontend, name.clone())),
                None => {
                    self.owners.remove(&frontend);
                    gave_up = true;
                }
            }
            self.change(frontend, before, after, changes);
        }
        if !new.is_empty() {
            self.services.insert(name.clone(), new);
        }
        (gave_up, taken)
    }

    fn change(&mut self, frontend: Frontend, before: Option<&Spread>, after: Option<&Spread>, changes: &mut Changes) {
        let (old, new) = (elements(frontend, before), elements(frontend, after));
        for (element, data) in &old {
            if !new.contains_key(element) {
                changes.put(*element, Some(*data), None);
            }
        }
        for (element, data) in &new {
            let known = old.get(element).copied();
            if known != Some(*data) {
                changes.put(*element, known, Some(*data));
            }
            match data {
                Data::Pick(pick) if self.picks.insert(*pick) => drop(changes.picks.insert(*pick)),
                Data::Remember(time) if self.times.insert(*time) => drop(changes.times.insert(*time)),
                _ => {}
            }
        }
        let endpoints = |spread: Option<&Spread>| spread.map(|spread| spread.order.clone()).unwrap_or_default();
        let (was, is) = (endpoints(before), endpoints(after));
        for endpoint in is.iter().filter(|endpoint| self.cluster.contains(endpoint.ip())) {
            if self.hairpins.add(*endpoint.ip()) {
                changes.put(Element::Hairpin(*endpoint.ip()), None, Some(Data::None));
            }
        }
        for endpoint in was.iter().filter(|endpoint| self.cluster.contains(endpoint.ip())) {
            if self.hairpins.remove(endpoint.ip()) {
                changes.put(Element::Hairpin(*endpoint.ip()), Some(Data::None), None);
            }
        }
        let is: BTreeSet<SocketAddrV4> = is.into_iter().collect();
        let gone = was.iter().any(|endpoint| !is.contains(endpoint));
        if gone && before.is_some_and(Spread::is_sticky) {
            changes.clients.insert(frontend, is.clone());
        }
        // A flow that began before there was a Service is as wrong as one to an endpoint that is gone.
        if frontend.protocol == Protocol::Udp && (before.is_none() || gone) {
            changes.flows.insert(frontend, is);
        }
    }

    /// Whether a client that came to a frontend stays with its endpoint.
    pub(super) fn keeps(&self, frontend: Frontend, endpoint: SocketAddrV4) -> bool {
        let find = |frontend| self.services.get(self.owners.get(&frontend)?)?.get(&frontend);
        find(frontend)
            .or_else(|| find(frontend.as_node_port()))
            .is_some_and(|spread| spread.is_sticky() && spread.order.contains(&endpoint))
    }

    /// Everything, for a table that is made anew.
    pub(super) fn everything(&self) -> Changes {
        let mut changes = Changes {
            picks: self.picks.iter().copied().collect(),
            times: self.times.iter().copied().collect(),
            ..Changes::default()
        };
        for applied in self.services.values() {
            for (frontend, spread) in applied {
                for (element, data) in elements(*frontend, Some(spread)) {
                    changes.put(element, None, Some(data));
                }
                if frontend.protocol == Protocol::Udp {
                    changes.flows.insert(*frontend, spread.order.iter().copied().collect());
                }
            }
        }
        for address in self.hairpins.0.keys() {
            changes.put(Element::Hairpin(*address), None, Some(Data::None));
        }
        changes
    }
}

/// Endpoints keep their numbers where they can.
fn apply(wanted: Wanted, old: &Applied) -> Applied {
    let spread = |(frontend, fate): (Frontend, Fate)| {
        let before = old.get(&frontend).map(|spread| &spread.order[..]).unwrap_or_default();
        let order = match &fate {
            Fate::Spread { endpoints, .. } => arrange(before, endpoints),
            Fate::Refused | Fate::Dropped => Vec::new(),
        };
        (frontend, Spread { fate, order })
    };
    wanted.into_iter().map(spread).collect()
}

/// The endpoints in an order that differs from the old one in as few places as possible.
fn arrange(old: &[SocketAddrV4], new: &BTreeSet<SocketAddrV4>) -> Vec<SocketAddrV4> {
    let known: BTreeSet<&SocketAddrV4> = old.iter().collect();
    let mut added = new.iter().filter(|endpoint| !known.contains(endpoint)).copied();
    let mut places: Vec<Option<SocketAddrV4>> = old
        .iter()
        .map(|endpoint| {
            if new.contains(endpoint) {
                Some(*endpoint)
            } else {
                added.next()
            }
        })
        .collect();
    places.extend(added.map(Some));
    // What is left of holes is filled from the end.
    let mut order = Vec::with_capacity(new.len());
    let mut at = 0;
    while at < places.len() {
        match places[at] {
            Some(endpoint) => {
                order.push(endpoint);
                at += 1;
            }
            None => drop(places.swap_remove(at)),
        }
    }
    order
}

fn elements(frontend: Frontend, spread: Option<&Spread>) -> BTreeMap<Element, Data> {
    let mut elements = BTreeMap::new();
    let Some(Spread { fate, order }) = spread else {
        return elements;
    };
    match fate {
        Fate::Spread { affinity, .. } => {
            let pick = Pick {
                count: order.len() as u32,
                node_port: frontend.address.is_unspecified(),
                sticky: affinity.is_some(),
            };
            elements.insert(Element::Service(frontend), Data::Pick(pick));
            if let Some(seconds) = affinity {
                elements.insert(Element::Sticky(frontend), Data::Remember(*seconds));
            }
            for (number, endpoint) in order.iter().enumerate() {
                elements.insert(Element::Endpoint(frontend, number as u32), Data::Endpoint(*endpoint));
            }
        }
        Fate::Refused => drop(elements.insert(Element::Unserved(frontend), Data::Refuse)),
        Fate::Dropped => drop(elements.insert(Element::Unserved(frontend), Data::Drop)),
    }
    elements
}

/// How many have need of something.
struct Counted<K>(HashMap<K, usize>);

impl<K> Default for Counted<K> {
    fn default() -> Self {
        Counted(HashMap::new())
    }
}

impl<K: Hash + Eq> Counted<K> {
    /// Whether it is the first.
    fn add(&mut self, key: K) -> bool {
        let count = self.0.entry(key).or_default();
        *count += 1;
        *count == 1
    }

    /// Whether it was the last.
    fn remove(&mut self, key: &K) -> bool {
        let Some(count) = self.0.get_mut(key) else {
            return false;
        };
        *count -= 1;
        let last = *count == 0;
        if last {
            self.0.remove(key);
        }
        last
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "the cases are well-formed")]
    use proptest::prelude::*;

    use super::*;

    fn frontend(port: u16, protocol: Protocol) -> Frontend {
        Frontend {
            address: Ipv4Addr::new(10, 96, 0, 1),
            protocol,
            port,
        }
    }

    fn endpoint(last: u8) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(10, 244, 0, last), 80)
    }

    fn spread(endpoints: impl IntoIterator<Item = u8>, affinity: Option<u32>) -> Fate {
        let endpoints: BTreeSet<SocketAddrV4> = endpoints.into_iter().map(endpoint).collect();
        if endpoints.is_empty() {
            return Fate::Refused;
        }
        Fate::Spread { endpoints, affinity }
    }

    fn wanted(frontends: impl IntoIterator<Item = (Frontend, Fate)>) -> Wanted {
        frontends.into_iter().collect()
    }

    fn state() -> State {
        State::new("10.244.0.0/16".parse().unwrap())
    }

    #[test]
    fn one_endpoint_more_or_less_changes_few_elements() {
        let (mut state, at) = (state(), frontend(80, Protocol::Tcp));
        let name: Name = "n/s".into();
        let mut changes = Changes::default();
        state.set(&name, wanted([(at, spread(1..=10, None))]), &mut changes);
        assert_eq!(changes.added().count(), 1 + 10 + 10, "frontend, endpoints, hairpins");
        assert_eq!(changes.picks.len(), 1);

        let mut changes = Changes::default();
        state.set(
            &name,
            wanted([(at, spread((1..=10).filter(|n| *n != 3), None))]),
            &mut changes,
        );
        let removed: Vec<Element> = changes.removed().map(|(element, _)| element).collect();
        let hole = Element::Endpoint(at, 2);
        let last = Element::Endpoint(at, 9);
        assert_eq!(
            removed,
            [Element::Service(at), hole, last, Element::Hairpin(*endpoint(3).ip())]
        );
        let added: Vec<(Element, Data)> = changes.added().collect();
        assert_eq!(added[1..], [(hole, Data::Endpoint(endpoint(10)))]);

        let mut changes = Changes::default();
        state.set(&name, Wanted::default(), &mut changes);
        assert_eq!(changes.added().count(), 0);
        assert!(state.everything().elements.is_empty());
    }

    #[test]
    fn a_frontend_has_one_owner_and_passes_on() {
        let (mut state, at) = (state(), frontend(80, Protocol::Tcp));
        let mut changes = Changes::default();
        assert_eq!(
            state.set(&"n/a".into(), wanted([(at, spread([1], None))]), &mut changes),
            None
        );
        let taken = state.set(&"n/b".into(), wanted([(at, spread([2], None))]), &mut changes);
        assert_eq!(taken.as_deref(), Some("n/a"));
        let mut changes = Changes::default();
        state.set(&"n/a".into(), Wanted::default(), &mut changes);
        let added: Vec<(Element, Data)> = changes.added().collect();
        assert_eq!(
            added[0],
            (Element::Endpoint(at, 0), Data::Endpoint(endpoint(2))),
            "b has it at once"
        );
        assert_eq!(state.owners[&at], "n/b".into());
    }

    #[test]
    fn clients_of_an_endpoint_that_goes_are_forgotten() {
        let (mut state, at) = (state(), frontend(80, Protocol::Tcp));
        let name: Name = "n/s".into();
        let mut clients = |fate| {
            let mut changes = Changes::default();
            state.set(&name, wanted([(at, fate)]), &mut changes);
            changes.clients.remove(&at).map(|endpoints| endpoints.len())
        };
        assert_eq!(clients(spread([1, 2], Some(60))), None);
        assert_eq!(clients(spread([1, 2, 3], Some(60))), None);
        assert_eq!(clients(spread([1, 3], Some(60))), Some(2));
        assert_eq!(clients(spread([3], None)), Some(1));
        assert_eq!(clients(Fate::Refused), None);
    }

    #[test]
    fn udp_flows_are_looked_at_when_an_endpoint_goes() {
        let (mut state, at) = (state(), frontend(53, Protocol::Udp));
        let name: Name = "n/s".into();
        let mut flows = |fate| {
            let mut changes = Changes::default();
            state.set(&name, wanted([(at, fate)]), &mut changes);
            changes.flows.remove(&at).map(|endpoints| endpoints.len())
        };
        assert_eq!(flows(spread([1], None)), Some(1), "flows from before the Service");
        assert_eq!(flows(spread([1, 2], None)), None);
        assert_eq!(flows(spread([2], None)), Some(1));
        assert_eq!(flows(Fate::Refused), Some(0));
    }

    proptest! {
        /// Whatever happens, following the changes gives what making everything anew gives.
        #[test]
        fn changes_add_up(steps in prop::collection::vec((0u8..3, prop::collection::vec(1u8..8, 0..6), 0u8..3), 1..30)) {
            let mut state = state();
            let mut kernel: BTreeMap<Element, Data> = BTreeMap::new();
            let (mut picks, mut times) = (BTreeSet::new(), BTreeSet::new());
            for (service, endpoints, kind) in steps {
                let name: Name = format!("n/{service}").into();
                let wanted = match kind {
                    0 => Wanted::default(),
                    // Ports 80 are the same for all: they are in each other's way.
                    kind => wanted([
                        (frontend(80, Protocol::Tcp), spread(endpoints.iter().copied(), (kind == 2).then_some(60))),
                        (frontend(81 + u16::from(service), Protocol::Udp), spread(endpoints.iter().copied().skip(1), None)),
                    ]),
                };
                let mut changes = Changes::default();
                state.set(&name, wanted, &mut changes);
                for (element, data) in changes.removed() {
                    prop_assert_eq!(kernel.remove(&element), Some(data));
                }
                for (element, data) in changes.added() {
                    prop_assert_eq!(kernel.insert(element, data), None);
                }
                picks.extend(changes.picks);
                times.extend(changes.times);
                let anew: BTreeMap<Element, Data> = state.everything().added().collect();
                prop_assert_eq!(&kernel, &anew);
                prop_assert_eq!(&picks, &state.everything().picks);
                prop_assert_eq!(&times, &state.everything().times);
                for (element, data) in &kernel {
                    if let (Element::Service(at), Data::Pick(pick)) = (element, data) {
                        for number in 0..pick.count {
                            prop_assert!(kernel.contains_key(&Element::Endpoint(*at, number)));
                        }
                    }
                }
            }
        }
    }
}
