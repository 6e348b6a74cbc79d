//! UDP flows that lead where they no longer should. A flow keeps the endpoint that its first packet was given,
//! for as long as packets come: a client that always uses the same port would talk to a pod that is gone. No I/O.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
};

use super::{frontends::Frontend, netfilter::Flow};
use crate::Protocol;

/// Whether a flow goes to one of these frontends, but not to one of the endpoints that it may lead to.
pub(super) fn is_stale(flow: &Flow, frontends: &BTreeMap<Frontend, BTreeSet<SocketAddrV4>>) -> bool {
    let frontend = |address| Frontend {
        address,
        protocol: Protocol::Udp,
        port: flow.to.port(),
    };
    match frontends.get(&frontend(*flow.to.ip())) {
        Some(endpoints) => !endpoints.contains(&flow.answers),
        // By a node port only what was translated: the rest may be for the same port of another machine.
        None => frontends
            .get(&frontend(Ipv4Addr::UNSPECIFIED))
            .is_some_and(|endpoints| flow.answers != flow.to && !endpoints.contains(&flow.answers)),
    }
}
