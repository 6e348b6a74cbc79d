//! nftables' expressions: what rules are made of. Each reads and writes the registers of the rule that is being
//! worked off; a register here is one of the sixteen of 32 bits, by its number.

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, Expressions, Immediate, Lookup, Meta, MetaKey, Operator, Payload, Register, Verdict,
    VerdictAttribute,
};

/// `NFT_REG32_00`.
const FIRST_REGISTER: u32 = 8;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;

fn register(slot: u32) -> Register {
    Register::from(FIRST_REGISTER + slot)
}

fn load(base: u32, offset: u32, length: u32, to: u32) -> Expressions {
    Expressions::Payload(vec![
        Payload::DestinationRegister(register(to)),
        Payload::Base(base),
        Payload::Offset(offset),
        Payload::Len(length),
    ])
}

/// The packet's source address.
pub(super) fn source(to: u32) -> Expressions {
    load(NETWORK_HEADER, 12, 4, to)
}

/// The packet's destination address.
pub(super) fn destination(to: u32) -> Expressions {
    load(NETWORK_HEADER, 16, 4, to)
}

/// The packet's destination port.
pub(super) fn destination_port(to: u32) -> Expressions {
    load(TRANSPORT_HEADER, 2, 2, to)
}

/// Something of the packet that is not in its headers.
pub(super) fn meta(key: MetaKey, to: u32) -> Expressions {
    Expressions::Meta(vec![Meta::Key(key), Meta::DestinationRegister(register(to))])
}

/// A value.
pub(super) fn constant(value: &[u8], to: u32) -> Expressions {
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(register(to)),
        Immediate::Data(DataAttribute::Value(value.to_vec())),
    ])
}

/// Whether registers, from one on, hold a value.
pub(super) fn compare(from: u32, operator: Operator, value: &[u8]) -> Expressions {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(register(from)),
        Cmp::Op(operator),
        Cmp::Data(DataAttribute::Value(value.to_vec())),
    ])
}

/// Keeps those bits of a register that are set in the mask.
pub(super) fn mask(slot: u32, mask: [u8; 4]) -> Expressions {
    Expressions::Bitwise(vec![
        Bitwise::SourceRegister(register(slot)),
        Bitwise::DestinationRegister(register(slot)),
        Bitwise::Length(4),
        Bitwise::Mask(DataAttribute::Value(mask.to_vec())),
        Bitwise::Xor(DataAttribute::Value(vec![0; 4])),
    ])
}

/// Goes on if the key is in the set.
pub(super) fn is_in(set: &str, key: u32) -> Expressions {
    Expressions::Lookup(vec![Lookup::Set(set.into()), Lookup::SourceRegister(register(key))])
}

/// Goes on with what the map has for the key, if it has.
pub(super) fn map(set: &str, key: u32, to: u32) -> Expressions {
    Expressions::Lookup(vec![
        Lookup::Set(set.into()),
        Lookup::SourceRegister(register(key)),
        Lookup::DestinationRegister(register(to)),
    ])
}

/// Does what the map has for the key.
pub(super) fn verdict_map(set: &str, key: u32) -> Expressions {
    Expressions::Lookup(vec![
        Lookup::Set(set.into()),
        Lookup::SourceRegister(register(key)),
        Lookup::DestinationRegister(Register::Verdict),
    ])
}

/// Goes to a chain and does not come back.
pub(super) fn goto(chain: &str) -> Expressions {
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(goto_verdict(chain)),
    ])
}

/// Goes to a chain and comes back at its end.
pub(super) fn jump(chain: &str) -> Expressions {
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(vec![
            VerdictAttribute::Code(Verdict::Jump),
            VerdictAttribute::Chain(chain.into()),
        ])),
    ])
}

pub(super) fn goto_verdict(chain: &str) -> DataAttribute {
    DataAttribute::Verdict(vec![
        VerdictAttribute::Code(Verdict::Goto),
        VerdictAttribute::Chain(chain.into()),
    ])
}

pub(super) fn drop_verdict() -> DataAttribute {
    const NF_DROP: u32 = 0;
    DataAttribute::Verdict(vec![VerdictAttribute::Code(Verdict::Other(NF_DROP))])
}

/// Back to the chain that jumped here, or the base chain's policy.
pub(super) fn end() -> Expressions {
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(vec![VerdictAttribute::Code(Verdict::Return)])),
    ])
}

// The library has no types for the expressions below; the numbers are those of linux/netfilter/nf_tables.h.

fn other(name: &str, attributes: impl IntoIterator<Item = (u16, u32)>) -> Expressions {
    let number = |(kind, value): (u16, u32)| DefaultNla::new(kind, value.to_be_bytes().to_vec());
    Expressions::Other {
        expression_type: name.into(),
        attributes: attributes.into_iter().map(number).collect(),
    }
}

/// A random number below the modulus.
pub(super) fn random(modulus: u32, to: u32) -> Expressions {
    const RANDOM: u32 = 1;
    other("numgen", [(1, register(to).into()), (2, modulus), (3, RANDOM)])
}

/// Destination translation to an address and the port in the register after it.
pub(super) fn destination_nat(address: u32) -> Expressions {
    const DNAT: u32 = 1;
    let (address, port) = (register(address).into(), register(address + 1).into());
    let family = libc::AF_INET as u32;
    other("nat", [(1, DNAT), (2, family), (3, address), (5, port)])
}

/// The source becomes the address of the link that the packet leaves by. Ports are chosen at random, or two
/// clients that ask for the same one at once lose a packet.
pub(super) fn masquerade() -> Expressions {
    const FULLY_RANDOM: u32 = 16;
    other("masq", [(1, FULLY_RANDOM)])
}

/// What kind of address the destination is; compare with [`LOCAL`].
pub(super) fn destination_type(to: u32) -> Expressions {
    const ADDRESS_TYPE: u32 = 3;
    const OF_DESTINATION: u32 = 2;
    other(
        "fib",
        [(1, register(to).into()), (2, ADDRESS_TYPE), (3, OF_DESTINATION)],
    )
}

/// `RTN_LOCAL`: an address of this machine.
pub(super) const LOCAL: u32 = 2;

/// The state of the packet's connection; compare with [`NEW`].
pub(super) fn connection_state(to: u32) -> Expressions {
    other("ct", [(1, register(to).into()), (2, 0)])
}

/// The bit of a packet that opens a connection.
pub(super) const NEW: u32 = 8;

/// The status of the packet's connection; compare with [`TRANSLATED`].
pub(super) fn connection_status(to: u32) -> Expressions {
    other("ct", [(1, register(to).into()), (2, 2)])
}

/// The bit of a connection whose destination was translated.
pub(super) const TRANSLATED: u32 = 32;

/// Where the connection's first packet came from, before any translation.
pub(super) fn original_source(to: u32) -> Expressions {
    original(19, to)
}

/// Where it was sent to.
pub(super) fn original_destination(to: u32) -> Expressions {
    original(20, to)
}

/// The port that it was sent to.
pub(super) fn original_destination_port(to: u32) -> Expressions {
    original(12, to)
}

fn original(key: u32, to: u32) -> Expressions {
    const DIRECTION: u16 = 3;
    let mut expression = other("ct", [(1, register(to).into()), (2, key)]);
    if let Expressions::Other { attributes, .. } = &mut expression {
        attributes.push(DefaultNla::new(DIRECTION, vec![0]));
    }
    expression
}

/// Answers with a TCP reset.
pub(super) fn reset() -> Expressions {
    other("reject", [(1, 1)])
}

/// Answers with ICMP that the port is unreachable.
pub(super) fn port_unreachable() -> Expressions {
    const PORT_UNREACHABLE: u8 = 3;
    Expressions::Other {
        expression_type: "reject".into(),
        attributes: vec![
            DefaultNla::new(1, vec![0; 4]),
            DefaultNla::new(2, vec![PORT_UNREACHABLE]),
        ],
    }
}

/// Remembers a value for a key, for a while; a key that is known keeps its value and lives on.
pub(super) fn remember(map: &str, key: u32, value: u32, milliseconds: u64) -> Expressions {
    const UPDATE: u32 = 1;
    let mut name = map.as_bytes().to_vec();
    name.push(0);
    let number = |kind, value: u32| DefaultNla::new(kind, value.to_be_bytes().to_vec());
    Expressions::Other {
        expression_type: "dynset".into(),
        attributes: vec![
            DefaultNla::new(1, name),
            number(3, UPDATE),
            number(4, register(key).into()),
            number(5, register(value).into()),
            DefaultNla::new(6, milliseconds.to_be_bytes().to_vec()),
        ],
    }
}
