//! The kernel's netfilter, over netlink: transactions of nftables, and the table of connections.
//!
//! `nft` is not run here: starting it costs more than the whole change, and what the table does with registers
//! its language can not say.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    conntrack::{ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Protocol, Tuple},
    nftables::{ListAttribute, NfTablesMessage, SetElementAttribute, SetElementList, SetElementMessage},
    none::ControlMessage,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::sys::socket::{
    setsockopt,
    sockopt::{ReceiveTimeout, SndBufForce},
};
use nix::sys::time::TimeVal;

/// `NFNL_SUBSYS_NFTABLES`: whom a batch is for.
const NFTABLES: u16 = 10;

/// The kernel answers before it returns from the request, but for a bug.
const PATIENCE: i64 = 10;

/// As much as one answer can bring of a dump.
const RECEIVE: usize = 64 * 1024;

/// One message of a transaction.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) flags: u16,
    pub(crate) message: NfTablesMessage,
}

impl Step {
    pub(crate) fn create(message: NfTablesMessage) -> Step {
        let flags = NLM_F_CREATE;
        Step { flags, message }
    }

    pub(crate) fn plain(message: NfTablesMessage) -> Step {
        Step { flags: 0, message }
    }
}

/// A flow of UDP packets, as the kernel tracks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flow {
    /// Where its packets were sent to.
    pub(crate) to: SocketAddrV4,
    /// Who answers them.
    pub(crate) answers: SocketAddrV4,
    /// What the kernel knows it by.
    original: Vec<Tuple>,
}

/// A connection to netfilter in the network namespace that it was opened in.
pub(crate) struct Netfilter {
    socket: Socket,
    sequence: u32,
    send_buffer: usize,
}

impl Netfilter {
    /// In this thread's network namespace.
    pub(crate) fn open() -> io::Result<Netfilter> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Answers need not repeat the question.
        socket.set_cap_ack(true)?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::new(PATIENCE, 0))?;
        Ok(Netfilter {
            socket,
            sequence: 0,
            send_buffer: 0,
        })
    }

    /// Carries out all steps or none.
    pub(crate) fn commit(&mut self, steps: Vec<Step>) -> io::Result<()> {
        if steps.is_empty() {
            return Ok(());
        }
        let first = self.sequence + 1;
        let mut bytes = Vec::new();
        let ipv4 = || NetfilterHeader::new(NetfilterProtoFamily::IPv4, 0, 0);
        let batch = || NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, NFTABLES);
        self.write(
            &mut bytes,
            0,
            NetfilterMessage::new(batch(), ControlMessage::BatchBegin),
        );
        let last = steps.len() - 1;
        for (index, Step { flags, message }) in steps.into_iter().enumerate() {
            // One answer is enough: it comes when all is done.
            let answer = if index == last { NLM_F_ACK } else { 0 };
            self.write(&mut bytes, flags | answer, NetfilterMessage::new(ipv4(), message));
        }
        let last = self.sequence;
        self.write(&mut bytes, 0, NetfilterMessage::new(batch(), ControlMessage::BatchEnd));
        // A batch is one packet of netlink's.
        if bytes.len() > self.send_buffer {
            setsockopt(&self.socket, SndBufForce, &bytes.len())?;
            self.send_buffer = bytes.len();
        }
        self.socket.send(&bytes, 0)?;
        self.answer(first, last)
    }

    /// The flows of UDP packets over IPv4.
    pub(crate) fn flows(&mut self) -> io::Result<Vec<Flow>> {
        let mut flows = Vec::new();
        self.dump(ConntrackMessage::Get(vec![]).into(), |answer| {
            if let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) = answer {
                flows.extend(flow(attributes));
            }
        })?;
        Ok(flows)
    }

    /// The elements of a set, as the kernel writes them.
    pub(crate) fn elements(&mut self, table: &str, set: &str) -> io::Result<Vec<Vec<SetElementAttribute>>> {
        let attributes = vec![SetElementList::Table(table.into()), SetElementList::Set(set.into())];
        let question = NfTablesMessage::GetSetElement(SetElementMessage { attributes });
        let mut found = Vec::new();
        self.dump(question.into(), |answer| {
            let NetfilterMessageInner::NfTables(NfTablesMessage::NewSetElement(message)) = answer else {
                return;
            };
            for attribute in message.attributes {
                if let SetElementList::Elements(elements) = attribute {
                    found.extend(elements.into_iter().filter_map(|element| match element {
                        ListAttribute::Element(attributes) => Some(attributes),
                        _ => None,
                    }));
                }
            }
        })?;
        Ok(found)
    }

    fn dump(&mut self, question: NetfilterMessageInner, mut take: impl FnMut(NetfilterMessageInner)) -> io::Result<()> {
        let header = NetfilterHeader::new(NetfilterProtoFamily::IPv4, 0, 0);
        let mut bytes = Vec::new();
        self.write(&mut bytes, NLM_F_DUMP, NetfilterMessage::new(header, question));
        self.socket.send(&bytes, 0)?;
        loop {
            for message in self.receive()? {
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::InnerMessage(message) => take(message.inner),
                    _ => {}
                }
            }
        }
    }

    /// Forgets a flow: its next packet is looked at anew. One that is gone already is forgotten.
    pub(crate) fn forget(&mut self, flow: &Flow) -> io::Result<()> {
        let header = NetfilterHeader::new(NetfilterProtoFamily::IPv4, 0, 0);
        let attributes = vec![ConntrackAttribute::CtaTupleOrig(flow.original.clone())];
        let mut bytes = Vec::new();
        let message = NetfilterMessage::new(header, ConntrackMessage::Delete(attributes));
        self.write(&mut bytes, NLM_F_ACK, message);
        self.socket.send(&bytes, 0)?;
        match self.answer(self.sequence, self.sequence) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            answer => answer,
        }
    }

    fn write(&mut self, bytes: &mut Vec<u8>, flags: u16, message: NetfilterMessage) {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let start = bytes.len();
        // Messages are padded to four bytes; those of netfilter are so by themselves.
        bytes.resize(start + message.buffer_len(), 0);
        message.serialize(&mut bytes[start..]);
    }

    /// Waits for the answer to the last message; what was wrong with an earlier one comes before it.
    fn answer(&mut self, first: u32, last: u32) -> io::Result<()> {
        let mut outcome = Ok(());
        loop {
            for message in self.receive()? {
                let sequence = message.header.sequence_number;
                let NetlinkPayload::Error(error) = message.payload else {
                    continue;
                };
                if !(first..=last).contains(&sequence) {
                    continue;
                }
                if error.code.is_some() && outcome.is_ok() {
                    outcome = Err(error.to_io());
                }
                // What fails as a whole is told as the first message's failure, and nothing need follow.
                if sequence == last || (sequence == first && error.code.is_some()) {
                    return outcome;
                }
            }
        }
    }

    fn receive(&mut self) -> io::Result<Vec<NetlinkMessage<NetfilterMessage>>> {
        let mut bytes = Vec::with_capacity(RECEIVE);
        self.socket.recv(&mut bytes, 0)?;
        let mut messages = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let message = NetlinkMessage::<NetfilterMessage>::deserialize(rest).map_err(io::Error::other)?;
            let length = (message.header.length as usize).next_multiple_of(4);
            if length == 0 {
                break;
            }
            messages.push(message);
            rest = rest.get(length..).unwrap_or_default();
        }
        Ok(messages)
    }
}

fn flow(attributes: Vec<ConntrackAttribute>) -> Option<Flow> {
    let (mut original, mut reply) = (None, None);
    for attribute in attributes {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(tuple) => original = Some(tuple),
            ConntrackAttribute::CtaTupleReply(tuple) => reply = Some(tuple),
            _ => {}
        }
    }
    let original = original?;
    let (_, to) = ends(&original)?;
    let (answers, _) = ends(&reply?)?;
    Some(Flow { to, answers, original })
}

/// Source and destination of a tuple, if it is one of UDP over IPv4.
fn ends(tuple: &[Tuple]) -> Option<(SocketAddrV4, SocketAddrV4)> {
    let (mut addresses, mut ports) = ([Ipv4Addr::UNSPECIFIED; 2], [0; 2]);
    let mut udp = false;
    for part in tuple {
        match part {
            Tuple::Ip(parts) => {
                for part in parts {
                    match part {
                        IPTuple::SourceAddress(IpAddr::V4(address)) => addresses[0] = *address,
                        IPTuple::DestinationAddress(IpAddr::V4(address)) => addresses[1] = *address,
                        _ => return None,
                    }
                }
            }
            Tuple::Proto(parts) => {
                for part in parts {
                    match part {
                        ProtoTuple::Protocol(protocol) => udp = *protocol == Protocol::Udp,
                        ProtoTuple::SourcePort(port) => ports[0] = *port,
                        ProtoTuple::DestinationPort(port) => ports[1] = *port,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    udp.then(|| {
        (
            SocketAddrV4::new(addresses[0], ports[0]),
            SocketAddrV4::new(addresses[1], ports[1]),
        )
    })
}
