//! The cluster's names, by version 1.1 of the specification of DNS for Kubernetes. No I/O.
//!
//! ```text
//! web.default.svc                     the Service's address; of a headless one those of its ready endpoints
//! first.web.default.svc               the endpoint of that hostname, or of that address: 10-244-0-5
//! _http._tcp.web.default.svc          SRV: the port, and the Service's name or those of its endpoints
//! 10-244-0-5.default.pod              the address itself
//! 10.0.96.10.in-addr.arpa             PTR: whose the address is
//! dns-version                         TXT: the version of the specification
//! ```

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::Ipv4Addr,
    sync::Arc,
};

use hickory_proto::rr::{
    Name, RData, Record, RecordType,
    rdata::{A, CNAME, NS, PTR, SOA, SRV, TXT},
};
use ipnet::Ipv4Net;
use k8s_openapi::api::{
    core::v1::Service,
    discovery::v1::{Endpoint, EndpointSlice},
};

use crate::picture::{Name as ServiceName, Observed, Picture, key};

/// For how many seconds an answer may be kept.
const TTL: u32 = 5;

/// How long it may be kept that there is nothing.
const NEGATIVE_TTL: u32 = 5;

const VERSION: &str = "1.1.0";

/// As many names that stand for others are followed.
const CHAIN: usize = 8;

/// What DNS knows of the cluster.
pub(crate) struct Zone {
    domain: Name,
    /// The server's own address.
    address: Ipv4Addr,
    /// The ranges whose addresses nobody else can name.
    ranges: [Ipv4Net; 2],
    picture: Picture,
    namespaces: HashSet<String>,
    /// Whose an address is.
    owners: HashMap<Ipv4Addr, BTreeSet<Name>>,
    owned: HashMap<ServiceName, Vec<(Ipv4Addr, Name)>>,
}

/// What there is to answer.
#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    Found {
        answers: Vec<Record>,
        additionals: Vec<Record>,
    },
    /// The name stands for another one, which is to be looked up too.
    Alias(Box<Record>, Name),
    /// The name is there, but has nothing of that type.
    Nothing,
    /// There is no such name.
    NoName,
    /// Somebody else is to be asked.
    Elsewhere,
    /// Somebody else is to be asked, and this is the answer when they do not know the name: it is outside of the domain.
    ElsewhereOr(Box<Answer>),
}

/// What a name comes to by the names that it stands for.
pub(crate) struct Followed {
    /// From each name to the next.
    pub aliases: Vec<Record>,
    /// The last one.
    pub name: Name,
    /// What there is to answer for it. No [`Answer::Alias`], but for a chain that is too long, as a ring is.
    pub answer: Answer,
}

impl Answer {
    fn of(records: Vec<Record>) -> Answer {
        match records.is_empty() {
            true => Answer::Nothing,
            false => Answer::Found {
                answers: records,
                additionals: Vec::new(),
            },
        }
    }
}

/// An endpoint as it is named.
struct Named<'a> {
    /// Its hostname, or its address with dashes.
    label: String,
    address: Ipv4Addr,
    slice: &'a EndpointSlice,
}

impl Zone {
    pub(crate) fn new(domain: Name, address: Ipv4Addr, ranges: [Ipv4Net; 2]) -> Zone {
        Zone {
            domain,
            address,
            ranges,
            picture: Picture::default(),
            namespaces: HashSet::new(),
            owners: HashMap::new(),
            owned: HashMap::new(),
        }
    }

    /// Where what is observed is put; [`Zone::refresh`] is to follow for the Services that it names.
    pub(crate) fn picture(&mut self) -> &mut Picture {
        &mut self.picture
    }

    /// Takes in that there is a namespace, or no more.
    pub(crate) fn namespace(&mut self, name: &str, there: bool) {
        match there {
            true => self.namespaces.insert(name.to_owned()),
            false => self.namespaces.remove(name),
        };
    }

    /// Notes anew which addresses are a Service's.
    pub(crate) fn refresh(&mut self, service: &ServiceName) {
        for (address, name) in self.owned.remove(service).unwrap_or_default() {
            if let Some(names) = self.owners.get_mut(&address) {
                names.remove(&name);
                if names.is_empty() {
                    self.owners.remove(&address);
                }
            }
        }
        let owned = self.addresses_of(service);
        for (address, name) in &owned {
            self.owners.entry(*address).or_default().insert(name.clone());
        }
        if !owned.is_empty() {
            self.owned.insert(service.clone(), owned);
        }
    }

    fn addresses_of(&self, service: &ServiceName) -> Vec<(Ipv4Addr, Name)> {
        let (Some(observed), Some((namespace, name))) = (self.picture.get(service), service.split_once('/')) else {
            return Vec::new();
        };
        let here = [name, namespace, "svc"];
        if is_headless(&observed.service) {
            let named = endpoints(&observed.slices);
            let names = named.iter().filter_map(|endpoint| {
                Some((
                    endpoint.address,
                    self.name([endpoint.label.as_str()].iter().chain(&here))?,
                ))
            });
            return names.collect();
        }
        let addresses = cluster_addresses(&observed.service);
        addresses
            .filter_map(|address| Some((address, self.name(&here)?)))
            .collect()
    }

    fn name<'a>(&self, labels: impl IntoIterator<Item = &'a &'a str>) -> Option<Name> {
        let relative = Name::from_labels(labels.into_iter().map(|label| label.as_bytes())).ok()?;
        relative.append_domain(&self.domain).ok()
    }

    /// The record that goes with an answer of nothing.
    pub(crate) fn authority(&self) -> Option<Record> {
        let (server, master) = (self.name(&["ns", "dns"])?, self.name(&["hostmaster"])?);
        let soa = SOA::new(server, master, 1, 7200, 1800, 86_400, NEGATIVE_TTL);
        Some(Record::from_rdata(self.domain.clone(), NEGATIVE_TTL, RData::SOA(soa)))
    }

    /// Answers a question. A name that stands for another is followed as far as the cluster's names go.
    pub(crate) fn follow(&self, question: &Name, kind: RecordType) -> Followed {
        let mut followed = Followed {
            aliases: Vec::new(),
            name: question.clone(),
            answer: self.answer(question, kind),
        };
        while followed.aliases.len() < CHAIN {
            let Answer::Alias(record, target) = followed.answer else {
                break;
            };
            followed.aliases.push(*record);
            followed.answer = match kind {
                RecordType::CNAME => Answer::Nothing,
                _ => self.answer(&target, kind),
            };
            followed.name = target;
        }
        followed
    }

    /// Answers a question.
    fn answer(&self, question: &Name, kind: RecordType) -> Answer {
        if !self.domain.zone_of(question) {
            return match self.unqualified(question, kind) {
                Some(answer) => answer,
                None => self.reverse(question, kind),
            };
        }
        let labels: Vec<String> = question
            .iter()
            .take(question.num_labels().saturating_sub(self.domain.num_labels()).into())
            .map(|label| String::from_utf8_lossy(label).to_ascii_lowercase())
            .collect();
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let record = |data| Record::from_rdata(question.clone(), TTL, data);
        match labels[..] {
            [] => match kind {
                RecordType::SOA => Answer::of(self.authority().into_iter().collect()),
                RecordType::NS => {
                    let server = self.name(&["ns", "dns"]).map(|server| record(RData::NS(NS(server))));
                    Answer::of(server.into_iter().collect())
                }
                _ => Answer::Nothing,
            },
            ["ns", "dns"] if kind == RecordType::A => Answer::of(vec![record(RData::A(A(self.address)))]),
            ["dns-version"] if kind == RecordType::TXT => {
                Answer::of(vec![record(RData::TXT(TXT::new(vec![VERSION.into()])))])
            }
            ["dns"] | ["ns", "dns"] | ["dns-version"] | ["svc"] | ["pod"] => Answer::Nothing,
            [namespace, "svc" | "pod"] if self.namespaces.contains(namespace) => Answer::Nothing,
            [address, namespace, "pod"] => match dashed(address) {
                Some(address) if self.namespaces.contains(namespace) => match kind {
                    RecordType::A => Answer::of(vec![record(RData::A(A(address)))]),
                    _ => Answer::Nothing,
                },
                _ => Answer::NoName,
            },
            [.., service, namespace, "svc"] => match self.picture.get(&key(Some(namespace), service)) {
                Some(observed) => {
                    let rest = &labels[..labels.len() - 3];
                    self.service(&observed, &[service, namespace, "svc"], rest, kind, &record)
                }
                None => Answer::NoName,
            },
            _ => Answer::NoName,
        }
    }

    /// Answers for `web.default` and `web.default.svc` as they are. Clients come to these names by their search list
    /// before they ask for them so, but for busybox' nslookup, which does not search for what has a dot. They are not in
    /// the cluster's domain: in a namespace `com` they may be somebody's, who goes before.
    fn unqualified(&self, question: &Name, kind: RecordType) -> Option<Answer> {
        let labels: Vec<String> = question
            .iter()
            .map(|label| String::from_utf8_lossy(label).to_ascii_lowercase())
            .collect();
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let ([service, namespace] | [service, namespace, "svc"]) = labels[..] else {
            return None;
        };
        let observed = self.picture.get(&key(Some(namespace), service))?;
        let record = |data| Record::from_rdata(question.clone(), TTL, data);
        let own = self.service(&observed, &[service, namespace, "svc"], &[], kind, &record);
        Some(Answer::ElsewhereOr(Box::new(own)))
    }

    /// Answers what is asked of a Service's name `here`, or a name below it.
    fn service(
        &self,
        observed: &Observed,
        here: &[&str],
        rest: &[&str],
        kind: RecordType,
        record: &dyn Fn(RData) -> Record,
    ) -> Answer {
        let spec = observed.service.spec.as_ref();
        if let (Some("ExternalName"), []) = (spec.and_then(|spec| spec.type_.as_deref()), rest) {
            let target = spec.and_then(|spec| Name::from_utf8(spec.external_name.as_deref()?).ok());
            let Some(mut target) = target else {
                return Answer::Nothing;
            };
            target.set_fqdn(true);
            return Answer::Alias(Box::new(record(RData::CNAME(CNAME(target.clone())))), target);
        }
        let addressed = |addresses: Vec<Ipv4Addr>| match kind {
            _ if addresses.is_empty() => Answer::NoName,
            RecordType::A => Answer::of(
                addresses
                    .into_iter()
                    .map(|address| record(RData::A(A(address))))
                    .collect(),
            ),
            _ => Answer::Nothing,
        };
        let headless = is_headless(&observed.service);
        match rest {
            [] if kind == RecordType::SRV => self.ports(observed, here, None, record),
            [] if headless => {
                let all: BTreeSet<Ipv4Addr> = endpoints(&observed.slices).iter().map(|named| named.address).collect();
                addressed(all.into_iter().collect())
            }
            [] => addressed(cluster_addresses(&observed.service).collect()),
            [label] => {
                let named = endpoints(&observed.slices);
                let all: BTreeSet<Ipv4Addr> = named
                    .iter()
                    .filter(|named| named.label == *label)
                    .map(|named| named.address)
                    .collect();
                addressed(all.into_iter().collect())
            }
            [port, protocol] => {
                let (Some(port), Some(protocol)) = (port.strip_prefix('_'), protocol.strip_prefix('_')) else {
                    return Answer::NoName;
                };
                match self.ports(observed, here, Some((port, protocol)), record) {
                    Answer::Found { .. } if kind != RecordType::SRV => Answer::Nothing,
                    Answer::Nothing => Answer::NoName,
                    found => found,
                }
            }
            _ => Answer::NoName,
        }
    }

    /// The SRV records of a Service, of one port or of all that have names.
    fn ports(
        &self,
        observed: &Observed,
        here: &[&str],
        wanted: Option<(&str, &str)>,
        record: &dyn Fn(RData) -> Record,
    ) -> Answer {
        let fits = |name: Option<&str>, protocol: Option<&str>| match wanted {
            Some(wanted) => {
                (name, protocol.unwrap_or("TCP").to_ascii_lowercase()) == (Some(wanted.0), wanted.1.to_owned())
            }
            None => true,
        };
        // Who has the port, under which name.
        let mut found: Vec<(Name, Ipv4Addr, u16)> = Vec::new();
        if is_headless(&observed.service) {
            for named in endpoints(&observed.slices) {
                let Some(target) = self.name([named.label.as_str()].iter().chain(here)) else {
                    continue;
                };
                let ports = named.slice.ports.iter().flatten();
                let fitting = ports.filter(|port| fits(port.name.as_deref(), port.protocol.as_deref()));
                for number in fitting.filter_map(|port| u16::try_from(port.port?).ok()) {
                    found.push((target.clone(), named.address, number));
                }
            }
        } else if let Some(target) = self.name(here) {
            let spec = observed.service.spec.as_ref();
            let ports = spec.and_then(|spec| spec.ports.as_ref()).into_iter().flatten();
            let fitting = ports.filter(|port| fits(port.name.as_deref(), port.protocol.as_deref()));
            for number in fitting.filter_map(|port| u16::try_from(port.port).ok()) {
                for address in cluster_addresses(&observed.service) {
                    found.push((target.clone(), address, number));
                }
            }
        }
        if found.is_empty() {
            return Answer::Nothing;
        }
        let weight = (100 / found.len()).max(1) as u16;
        let answers = found
            .iter()
            .map(|(target, _, port)| record(RData::SRV(SRV::new(0, weight, *port, target.clone()))))
            .collect();
        let targets: BTreeMap<&Name, Ipv4Addr> = found.iter().map(|(target, address, _)| (target, *address)).collect();
        let additionals = targets
            .into_iter()
            .map(|(target, address)| Record::from_rdata(target.clone(), TTL, RData::A(A(address))))
            .collect();
        Answer::Found { answers, additionals }
    }

    fn reverse(&self, question: &Name, kind: RecordType) -> Answer {
        let labels: Vec<String> = question
            .iter()
            .map(|label| String::from_utf8_lossy(label).to_ascii_lowercase())
            .collect();
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let [d, c, b, a, "in-addr", "arpa"] = labels[..] else {
            return Answer::Elsewhere;
        };
        let text = [a, b, c, d].join(".");
        let Ok(address) = text.parse::<Ipv4Addr>() else {
            return Answer::Elsewhere;
        };
        match self.owners.get(&address) {
            Some(names) if kind == RecordType::PTR => Answer::of(
                names
                    .iter()
                    .map(|name| Record::from_rdata(question.clone(), TTL, RData::PTR(PTR(name.clone()))))
                    .collect(),
            ),
            Some(_) => Answer::Nothing,
            None if self.ranges.iter().any(|range| range.contains(&address)) => Answer::NoName,
            None => Answer::Elsewhere,
        }
    }
}

fn is_headless(service: &Service) -> bool {
    service
        .spec
        .as_ref()
        .is_some_and(|spec| spec.cluster_ip.as_deref() == Some("None"))
}

fn cluster_addresses(service: &Service) -> impl Iterator<Item = Ipv4Addr> {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.cluster_ips.as_ref())
        .into_iter()
        .flatten()
        .filter_map(|address| address.parse().ok())
}

/// The endpoints that are ready, or are published all the same.
fn endpoints(slices: &[Arc<EndpointSlice>]) -> Vec<Named<'_>> {
    slices.iter().flat_map(|slice| endpoints_of(slice)).collect()
}

fn endpoints_of(slice: &EndpointSlice) -> impl Iterator<Item = Named<'_>> {
    let ready = |endpoint: &&Endpoint| {
        let conditions = endpoint.conditions.as_ref();
        conditions.and_then(|conditions| conditions.ready).unwrap_or(true)
    };
    let endpoints = slice.endpoints.iter().flatten().filter(ready);
    let addresses = endpoints.flat_map(|endpoint| endpoint.addresses.iter().map(move |address| (endpoint, address)));
    addresses.filter_map(move |(endpoint, address)| {
        let address: Ipv4Addr = address.parse().ok()?;
        let hostname = endpoint.hostname.clone().filter(|name| !name.is_empty());
        Some(Named {
            label: hostname.unwrap_or_else(|| address.to_string().replace('.', "-")),
            address,
            slice,
        })
    })
}

/// An address with dashes for dots.
fn dashed(label: &str) -> Option<Ipv4Addr> {
    label.replace('-', ".").parse().ok()
}

#[cfg(test)]
#[path = "zone_tests.rs"]
mod tests;
