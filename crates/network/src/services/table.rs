//! The table `ip podium-services`, and how its elements are written.
//!
//! ```text
//! prerouting, output   -> services                                   where connections begin
//! services             destination, or the node port -> services map -> pick-…
//! pick-3               a number below 3 -> endpoints map -> destination translation
//! pick-3-sticky        the endpoint that the affinity map has for the client; else as above
//! postrouting, input   what was translated -> affinity
//! affinity             the frontend that it came to -> sticky map -> remember-…
//! remember-60          client and endpoint -> affinity map, for 60 seconds
//! postrouting          a pod that reaches itself, and what leaves the node for another endpoint: masquerade
//! input, forward, local-out -> turn-away
//! turn-away            what is for a Service and was not translated: refused or dropped, by the unserved map;
//!                      whatever else is for the Services' range is refused
//! ```
//!
//! There is no chain and no rule of one Service: `pick-…` chains are shared by all that have as many endpoints.
//! So a change of a Service is a change of elements, in one transaction.
//!
//! Clients are remembered after their packet was translated, and not where its endpoint is chosen: nft fails to list
//! rules that put into a map what they took from another one.

use std::net::{Ipv4Addr, SocketAddrV4};

use ipnet::Ipv4Net;
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, DataAttribute, Expressions, Hook, HookNumber, InetHookNumber, ListAttribute, MetaKey,
    NfTablesMessage, Operator, RuleAttribute, RuleMessage, SetAttribute, SetDescription, SetElementAttribute,
    SetElementList, SetElementMessage, SetFlags, SetMessage, TableAttribute, TableMessage,
};

use super::{
    elements::{Changes, Data, Element, Pick},
    expressions as e,
    frontends::Frontend,
    netfilter::Step,
};
use crate::{Protocol, plan::NODE_END};

pub(crate) const TABLE: &str = "podium-services";

const SERVICES: &str = "services";
const ENDPOINTS: &str = "endpoints";
const STICKY: &str = "sticky";
const UNSERVED: &str = "unserved";
const HAIRPIN: &str = "hairpin";
pub(super) const AFFINITY: &str = "affinity";
/// The chain that leads to those that remember; chains and maps have their names apart.
const REMEMBER: &str = AFFINITY;
const TURN_AWAY: &str = "turn-away";
const REFUSE: &str = "refuse";

/// Where the kernel does destination and source translation, and filters.
const DSTNAT: i32 = -100;
const SRCNAT: i32 = 100;
const FILTER: i32 = 0;

/// The registers of a rule that looks up a frontend, and of what follows it in a key or comes of it.
const CLIENT: u32 = 0;
const FRONTEND: u32 = 1;
const NUMBER: u32 = 4;
const ENDPOINT: u32 = 5;

/// As many clients are remembered; who comes when it is full is spread anew each time.
const MOST_CLIENTS: u32 = 1 << 18;

/// As many elements go in one message: attributes can be no longer than 64 KiB.
const ELEMENTS_IN_A_MESSAGE: usize = 256;

/// nft's numbers for types, which it shows keys by, joined by shifting.
mod types {
    pub(super) const ADDRESS: u32 = 7;
    pub(super) const PROTOCOL: u32 = 12;
    pub(super) const PORT: u32 = 13;
    pub(super) const MARK: u32 = 19;
    pub(super) const VERDICT: u32 = 0xffff_ff00;

    pub(super) fn joined(types: &[u32]) -> u32 {
        const BITS: u32 = 6;
        types.iter().fold(0, |joined, next| joined << BITS | next)
    }
}

/// The whole table with its elements and the clients that are still to be remembered, in place of whatever was there.
pub(super) fn whole(cluster: Ipv4Net, services: Ipv4Net, everything: &Changes, clients: &[Client]) -> Vec<Step> {
    let mut steps = absent();
    steps.push(Step::create(NfTablesMessage::NewTable(table())));
    steps.extend(sets());
    for (name, kind, hook, priority) in [
        ("prerouting", "nat", InetHookNumber::PreRouting, DSTNAT),
        ("output", "nat", InetHookNumber::LocalOut, DSTNAT),
        ("postrouting", "nat", InetHookNumber::PostRouting, SRCNAT),
        ("input", "filter", InetHookNumber::LocalIn, FILTER),
        ("forward", "filter", InetHookNumber::Forward, FILTER),
        ("local-out", "filter", InetHookNumber::LocalOut, FILTER),
    ] {
        steps.push(base(name, kind, hook, priority));
    }
    for name in [SERVICES, REMEMBER, TURN_AWAY, REFUSE] {
        steps.push(chain(name));
    }
    // Chains that are gone to have to be there before the rules and elements that go to them.
    steps.extend(shared(everything));
    steps.extend(rules(cluster, services));
    steps.extend(elements(everything));
    steps.extend(remembered(clients));
    steps
}

/// Only what changes.
pub(super) fn part(changes: &Changes) -> Vec<Step> {
    let mut steps = shared(changes);
    steps.extend(elements(changes));
    steps
}

/// Chains that Services share, where they are not there yet.
fn shared(changes: &Changes) -> Vec<Step> {
    let mut steps = Vec::new();
    for pick in &changes.picks {
        steps.push(chain(&pick.name()));
        steps.extend(pick_rules(pick));
    }
    for seconds in &changes.times {
        steps.push(chain(&remember_name(*seconds)));
        steps.push(remember_rule(*seconds));
    }
    steps
}

/// No table.
pub(crate) fn absent() -> Vec<Step> {
    // Made first: what is not there can not be deleted.
    vec![
        Step::create(NfTablesMessage::NewTable(table())),
        Step::plain(NfTablesMessage::DeleteTable(table())),
    ]
}

fn table() -> TableMessage {
    TableMessage {
        attributes: vec![TableAttribute::Name(TABLE.into())],
    }
}

fn sets() -> impl Iterator<Item = Step> {
    use types::{ADDRESS, MARK, PORT, PROTOCOL};
    let frontend = [ADDRESS, PROTOCOL, PORT];
    let endpoint = (types::joined(&[ADDRESS, PORT]), Some(8));
    let verdict = (types::VERDICT, None);
    let set = |name: &str, id: u32, key: &[u32], data: Option<(u32, Option<u32>)>| {
        let mut attributes = vec![
            SetAttribute::Table(TABLE.into()),
            SetAttribute::Name(name.into()),
            SetAttribute::KeyType(types::joined(key)),
            SetAttribute::KeyLen(4 * key.len() as u32),
            SetAttribute::Id(id),
        ];
        let mut flags = SetFlags::empty();
        if let Some((kind, length)) = data {
            flags |= SetFlags::Map;
            attributes.push(SetAttribute::DataType(kind));
            attributes.extend(length.map(SetAttribute::DataLen));
        }
        if name == AFFINITY {
            flags |= SetFlags::Timeout | SetFlags::Eval;
            attributes.push(SetAttribute::Description(vec![SetDescription::Size(MOST_CLIENTS)]));
        }
        attributes.push(SetAttribute::Flags(flags));
        Step::create(NfTablesMessage::NewSet(SetMessage { attributes }))
    };
    [
        set(SERVICES, 1, &frontend, Some(verdict)),
        set(ENDPOINTS, 2, &[ADDRESS, PROTOCOL, PORT, MARK], Some(endpoint)),
        set(STICKY, 3, &frontend, Some(verdict)),
        set(UNSERVED, 4, &frontend, Some(verdict)),
        set(HAIRPIN, 5, &[ADDRESS, ADDRESS], None),
        set(AFFINITY, 6, &[ADDRESS, ADDRESS, PROTOCOL, PORT], Some(endpoint)),
    ]
    .into_iter()
}

fn chain_attributes(name: &str) -> Vec<ChainAttribute> {
    vec![ChainAttribute::Table(TABLE.into()), ChainAttribute::Name(name.into())]
}

fn chain(name: &str) -> Step {
    let attributes = chain_attributes(name);
    Step::create(NfTablesMessage::NewChain(ChainMessage { attributes }))
}

fn base(name: &str, kind: &str, hook: InetHookNumber, priority: i32) -> Step {
    const NF_ACCEPT: u32 = 1;
    let mut attributes = chain_attributes(name);
    attributes.extend([
        ChainAttribute::Type(kind.into()),
        ChainAttribute::Hook(vec![
            Hook::Number(HookNumber::Inet(hook)),
            Hook::Priority(priority as u32),
        ]),
        ChainAttribute::Policy(NF_ACCEPT),
    ]);
    Step::create(NfTablesMessage::NewChain(ChainMessage { attributes }))
}

fn rule(chain: &str, expressions: impl IntoIterator<Item = Expressions>) -> Step {
    let attributes = vec![
        RuleAttribute::Table(TABLE.into()),
        RuleAttribute::Chain(chain.into()),
        RuleAttribute::Expressions(expressions.into_iter().map(ListAttribute::from).collect()),
    ];
    Step {
        flags: NLM_F_CREATE | NLM_F_APPEND,
        message: NfTablesMessage::NewRule(RuleMessage { attributes }),
    }
}

fn rules(cluster: Ipv4Net, services: Ipv4Net) -> Vec<Step> {
    let mut rules = Vec::new();
    let mut add = |chain: &str, expressions: Vec<Expressions>| rules.push(rule(chain, expressions));
    add("prerouting", vec![e::goto(SERVICES)]);
    add("output", vec![e::goto(SERVICES)]);
    let look_up = |set| frontend(false).into_iter().chain([e::verdict_map(set, FRONTEND)]);
    let look_up_node_port = |set| {
        let here = [
            e::destination_type(CLIENT),
            e::compare(CLIENT, Operator::Equal, &e::LOCAL.to_ne_bytes()),
        ];
        here.into_iter()
            .chain(frontend(true))
            .chain([e::verdict_map(set, FRONTEND)])
    };
    add(SERVICES, look_up(SERVICES).collect());
    add(SERVICES, look_up_node_port(SERVICES).collect());

    let translated = || {
        [
            e::connection_status(CLIENT),
            e::mask(CLIENT, e::TRANSLATED.to_ne_bytes()),
            e::compare(CLIENT, Operator::NotEqual, &[0; 4]),
        ]
    };
    let new = || {
        [
            e::connection_state(CLIENT),
            e::mask(CLIENT, e::NEW.to_ne_bytes()),
            e::compare(CLIENT, Operator::NotEqual, &[0; 4]),
        ]
    };
    // A chain of translation sees only packets that open connections.
    add(
        "postrouting",
        translated().into_iter().chain([e::jump(REMEMBER)]).collect(),
    );
    add(
        "input",
        new()
            .into_iter()
            .chain(translated())
            .chain([e::jump(REMEMBER)])
            .collect(),
    );
    for node_port in [false, true] {
        let look_up = original_frontend(node_port)
            .into_iter()
            .chain([e::verdict_map(STICKY, FRONTEND)]);
        add(REMEMBER, look_up.collect());
    }

    add(
        "postrouting",
        vec![
            e::source(CLIENT),
            e::destination(FRONTEND),
            e::is_in(HAIRPIN, CLIENT),
            e::masquerade(),
        ],
    );
    let link = |name: &[u8]| {
        vec![
            e::meta(MetaKey::Oifname, FRONTEND),
            e::compare(FRONTEND, Operator::NotEqual, name),
        ]
    };
    let mut leaving: Vec<Expressions> = translated().into();
    leaving.extend(link(NODE_END.as_bytes()));
    leaving.extend(link(b"lo\0"));
    leaving.extend(within(e::source, cluster, Operator::NotEqual));
    leaving.push(e::masquerade());
    add("postrouting", leaving);

    for hook in ["input", "forward", "local-out"] {
        add(hook, new().into_iter().chain([e::goto(TURN_AWAY)]).collect());
    }
    add(TURN_AWAY, look_up_node_port(UNSERVED).collect());
    // What is for an address of the node's own is for a socket: that of Services is the DNS server's.
    add(
        TURN_AWAY,
        vec![
            e::destination_type(CLIENT),
            e::compare(CLIENT, Operator::Equal, &e::LOCAL.to_ne_bytes()),
            e::end(),
        ],
    );
    add(TURN_AWAY, look_up(UNSERVED).collect());
    let mut nobody = within(e::destination, services, Operator::Equal);
    nobody.push(e::goto(REFUSE));
    add(TURN_AWAY, nobody);
    let tcp = [libc::IPPROTO_TCP as u8];
    add(
        REFUSE,
        vec![
            e::meta(MetaKey::L4Proto, CLIENT),
            e::compare(CLIENT, Operator::Equal, &tcp),
            e::reset(),
        ],
    );
    add(REFUSE, vec![e::port_unreachable()]);
    rules
}

/// The packet's frontend: destination, protocol and port; for a node port any destination.
fn frontend(node_port: bool) -> [Expressions; 3] {
    let address = if node_port {
        e::constant(&Ipv4Addr::UNSPECIFIED.octets(), FRONTEND)
    } else {
        e::destination(FRONTEND)
    };
    [
        address,
        e::meta(MetaKey::L4Proto, FRONTEND + 1),
        e::destination_port(FRONTEND + 2),
    ]
}

/// The frontend that the connection came to, once its destination is another.
fn original_frontend(node_port: bool) -> [Expressions; 3] {
    let address = if node_port {
        e::constant(&Ipv4Addr::UNSPECIFIED.octets(), FRONTEND)
    } else {
        e::original_destination(FRONTEND)
    };
    [
        address,
        e::meta(MetaKey::L4Proto, FRONTEND + 1),
        e::original_destination_port(FRONTEND + 2),
    ]
}

fn within(field: fn(u32) -> Expressions, range: Ipv4Net, operator: Operator) -> Vec<Expressions> {
    vec![
        field(FRONTEND),
        e::mask(FRONTEND, range.netmask().octets()),
        e::compare(FRONTEND, operator, &range.network().octets()),
    ]
}

impl Pick {
    fn name(&self) -> String {
        let node = if self.node_port { "-node" } else { "" };
        let sticky = if self.sticky { "-sticky" } else { "" };
        format!("pick-{}{node}{sticky}", self.count)
    }
}

fn pick_rules(pick: &Pick) -> Vec<Step> {
    let chain = pick.name();
    let frontend = || frontend(pick.node_port);
    let choose = |number| [number, e::map(ENDPOINTS, FRONTEND, ENDPOINT)];
    let mut rules = Vec::new();
    if pick.sticky {
        let client = [e::source(CLIENT)].into_iter().chain(self::frontend(false));
        let known = client.chain([e::map(AFFINITY, CLIENT, ENDPOINT), e::destination_nat(ENDPOINT)]);
        rules.push(rule(&chain, known));
    }
    // The second is for a packet that chose while the number of endpoints went down: there is always a first.
    for number in [e::random(pick.count, NUMBER), e::constant(&0_u32.to_ne_bytes(), NUMBER)] {
        let expressions = frontend().into_iter().chain(choose(number));
        rules.push(rule(&chain, expressions.chain([e::destination_nat(ENDPOINT)])));
    }
    rules
}

fn remember_name(seconds: u32) -> String {
    format!("remember-{seconds}")
}

fn remember_rule(seconds: u32) -> Step {
    let mut expressions = vec![e::original_source(CLIENT)];
    expressions.extend(original_frontend(false));
    expressions.extend([
        e::destination(ENDPOINT),
        e::destination_port(ENDPOINT + 1),
        e::remember(AFFINITY, CLIENT, ENDPOINT, u64::from(seconds) * 1000),
    ]);
    rule(&remember_name(seconds), expressions)
}

/// Removals, then additions, each many in a message.
fn elements(changes: &Changes) -> Vec<Step> {
    let removed: Vec<_> = changes
        .removed()
        .map(|(element, _)| (set(&element), key(&element), None))
        .collect();
    let added: Vec<_> = changes
        .added()
        .map(|(element, data)| (set(&element), key(&element), value(&data)))
        .collect();
    let mut steps = Vec::new();
    for (all, remove) in [(removed, true), (added, false)] {
        for same_set in all.chunk_by(|(one, ..), (other, ..)| one == other) {
            for some in same_set.chunks(ELEMENTS_IN_A_MESSAGE) {
                let elements = some
                    .iter()
                    .map(|(_, key, value)| {
                        let key = SetElementAttribute::Key(DataAttribute::Value(key.clone()));
                        let value = value.clone().map(SetElementAttribute::Data);
                        ListAttribute::Element([key].into_iter().chain(value).collect())
                    })
                    .collect();
                let message = SetElementMessage {
                    attributes: vec![
                        SetElementList::Table(TABLE.into()),
                        SetElementList::Set(some[0].0.into()),
                        SetElementList::Elements(elements),
                    ],
                };
                steps.push(match remove {
                    true => Step::plain(NfTablesMessage::DeleteSetElement(message)),
                    false => Step::create(NfTablesMessage::NewSetElement(message)),
                });
            }
        }
    }
    steps
}

fn set(element: &Element) -> &'static str {
    match element {
        Element::Service(_) => SERVICES,
        Element::Endpoint(..) => ENDPOINTS,
        Element::Sticky(_) => STICKY,
        Element::Unserved(_) => UNSERVED,
        Element::Hairpin(_) => HAIRPIN,
    }
}

/// A key as registers hold it: each part in 32 bits, numbers of the network's in its order.
fn key(element: &Element) -> Vec<u8> {
    match element {
        Element::Service(frontend) | Element::Sticky(frontend) | Element::Unserved(frontend) => frontend_key(frontend),
        Element::Endpoint(frontend, number) => [frontend_key(frontend), number.to_ne_bytes().to_vec()].concat(),
        Element::Hairpin(address) => [address.octets(), address.octets()].concat(),
    }
}

fn frontend_key(frontend: &Frontend) -> Vec<u8> {
    let protocol = match frontend.protocol {
        Protocol::Tcp => libc::IPPROTO_TCP,
        Protocol::Udp => libc::IPPROTO_UDP,
        Protocol::Sctp => libc::IPPROTO_SCTP,
    };
    let [high, low] = frontend.port.to_be_bytes();
    [frontend.address.octets(), [protocol as u8, 0, 0, 0], [high, low, 0, 0]].concat()
}

fn endpoint_bytes(endpoint: &SocketAddrV4) -> [u8; 8] {
    let [a, b, c, d] = endpoint.ip().octets();
    let [high, low] = endpoint.port().to_be_bytes();
    [a, b, c, d, high, low, 0, 0]
}

fn value(data: &Data) -> Option<DataAttribute> {
    match data {
        Data::None => None,
        Data::Pick(pick) => Some(e::goto_verdict(&pick.name())),
        Data::Endpoint(endpoint) => Some(DataAttribute::Value(endpoint_bytes(endpoint).to_vec())),
        Data::Remember(seconds) => Some(e::goto_verdict(&remember_name(*seconds))),
        Data::Refuse => Some(e::goto_verdict(REFUSE)),
        Data::Drop => Some(e::drop_verdict()),
    }
}

/// A client that the kernel remembers, with its endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Client {
    key: Vec<u8>,
    value: Vec<u8>,
    /// For how many milliseconds it is remembered, each time that it comes.
    timeout: u64,
    /// How many are left.
    left: u64,
    /// Where it came to: by a node port the node's address that it used.
    pub(super) frontend: Frontend,
    pub(super) endpoint: SocketAddrV4,
}

/// Reads one element of the affinity map.
pub(super) fn client(attributes: &[SetElementAttribute]) -> Option<Client> {
    let (mut key, mut data, mut timeout, mut left) = (None, None, 0, 0);
    for attribute in attributes {
        match attribute {
            SetElementAttribute::Key(DataAttribute::Value(bytes)) => key = Some(bytes),
            SetElementAttribute::Data(DataAttribute::Value(bytes)) => data = Some(bytes),
            SetElementAttribute::Timeout(milliseconds) => timeout = *milliseconds,
            SetElementAttribute::Expiration(milliseconds) => left = *milliseconds,
            _ => {}
        }
    }
    let (key, value) = (key?, data?);
    let address = |bytes: &[u8]| Some(Ipv4Addr::from(*bytes.first_chunk::<4>()?));
    let port = |bytes: &[u8]| Some(u16::from_be_bytes(*bytes.first_chunk::<2>()?));
    let protocol = match i32::from(*key.get(8)?) {
        libc::IPPROTO_TCP => Protocol::Tcp,
        libc::IPPROTO_UDP => Protocol::Udp,
        libc::IPPROTO_SCTP => Protocol::Sctp,
        _ => return None,
    };
    Some(Client {
        key: key.clone(),
        value: value.clone(),
        timeout,
        left,
        frontend: Frontend {
            address: address(key.get(4..)?)?,
            protocol,
            port: port(key.get(12..)?)?,
        },
        endpoint: SocketAddrV4::new(address(value)?, port(value.get(4..)?)?),
    })
}

/// Forgets clients.
pub(super) fn forget(clients: &[Client]) -> Vec<Step> {
    let element = |client: &Client| vec![SetElementAttribute::Key(DataAttribute::Value(client.key.clone()))];
    let messages = affinity_elements(clients, element);
    messages
        .map(|message| Step::plain(NfTablesMessage::DeleteSetElement(message)))
        .collect()
}

/// Remembers clients for as long as they were to be remembered.
fn remembered(clients: &[Client]) -> Vec<Step> {
    // Less would be no time at all: the kernel counts in ticks of its own.
    const LEAST: u64 = 10;
    let element = |client: &Client| {
        let left = client.left.clamp(LEAST, client.timeout.max(LEAST));
        vec![
            SetElementAttribute::Key(DataAttribute::Value(client.key.clone())),
            SetElementAttribute::Data(DataAttribute::Value(client.value.clone())),
            SetElementAttribute::Timeout(client.timeout.max(LEAST)),
            SetElementAttribute::Expiration(left),
        ]
    };
    let messages = affinity_elements(clients, element);
    messages
        .map(|message| Step::create(NfTablesMessage::NewSetElement(message)))
        .collect()
}

fn affinity_elements(
    clients: &[Client],
    element: impl Fn(&Client) -> Vec<SetElementAttribute>,
) -> impl Iterator<Item = SetElementMessage> {
    clients
        .chunks(ELEMENTS_IN_A_MESSAGE)
        .map(move |some| SetElementMessage {
            attributes: vec![
                SetElementList::Table(TABLE.into()),
                SetElementList::Set(AFFINITY.into()),
                SetElementList::Elements(
                    some.iter()
                        .map(|client| ListAttribute::Element(element(client)))
                        .collect(),
                ),
            ],
        })
}
