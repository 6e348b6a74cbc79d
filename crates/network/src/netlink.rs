//! Netlink in words of this room: what is observed, and errors that say what was being done.

use std::{
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::AsFd,
};

use futures::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::{
    address::{AddressAttribute, AddressScope},
    link::LinkAttribute,
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType},
};
use nix::sched::{CloneFlags, setns};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use tokio::sync::oneshot;

use crate::{
    Error, Result,
    plan::{DefaultRoute, LOOPBACK, Link, OWN_ADDRESS, ROUTE_PROTOCOL},
};

/// Says what was being done when the kernel refused.
pub(crate) trait Doing<T> {
    fn doing(self, action: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Doing<T> for Result<T, rtnetlink::Error> {
    fn doing(self, action: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::Netlink {
            action: action(),
            cause: cause(error),
        })
    }
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, action: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|cause| Error::Netlink {
            action: action(),
            cause,
        })
    }
}

fn cause(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}

/// Whether the kernel says that there is no such thing.
pub(crate) fn is_absent(error: &Error) -> bool {
    let Error::Netlink { cause, .. } = error else {
        return false;
    };
    matches!(cause.raw_os_error(), Some(libc::ENODEV | libc::ESRCH | libc::ENOENT))
}

/// A connection in this thread's network namespace, until the handle is dropped.
pub(crate) fn connect() -> Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection().doing(|| "opening netlink".into())?;
    tokio::spawn(connection);
    Ok(handle)
}

/// A connection in another network namespace. Only a thread made for it ever enters there: the socket stays
/// in the namespace it was opened in.
pub(crate) async fn connect_in(netns: File, whose: &str) -> Result<Handle> {
    let action = || format!("opening netlink in the pod of {whose}");
    let runtime = tokio::runtime::Handle::current();
    let (sender, opened) = oneshot::channel();
    let enter = move || {
        let opened = setns(netns.as_fd(), CloneFlags::CLONE_NEWNET)
            .map_err(io::Error::from)
            .and_then(|()| {
                let _reactor = runtime.enter();
                rtnetlink::new_connection()
            });
        // Nobody waits any more when the attachment was given up.
        let _ = sender.send(opened);
    };
    std::thread::Builder::new()
        .name("netns".into())
        .spawn(enter)
        .doing(action)?;
    let opened = opened.await.map_err(io::Error::other).doing(action)?;
    let (connection, handle, _) = opened.doing(action)?;
    tokio::spawn(connection);
    Ok(handle)
}

/// The index of a link.
pub(crate) async fn index(netlink: &Handle, name: &str) -> Result<u32> {
    let action = || format!("looking for link {name}");
    let found = netlink
        .link()
        .get()
        .match_name(name)
        .execute()
        .try_next()
        .await
        .doing(action)?;
    let found = found
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
        .doing(action)?;
    Ok(found.header.index)
}

/// All links.
pub(crate) async fn links(netlink: &Handle) -> Result<Vec<Link>> {
    let found: Vec<_> = netlink
        .link()
        .get()
        .execute()
        .try_collect()
        .await
        .doing(|| "listing links".into())?;
    let links = found.into_iter().map(|message| {
        let mut link = Link {
            index: message.header.index,
            name: String::new(),
            alias: None,
            mtu: 0,
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                _ => {}
            }
        }
        link
    });
    Ok(links.collect())
}

/// All addresses with their prefix lengths and links' indices.
pub(crate) async fn addresses(netlink: &Handle) -> Result<Vec<(u32, IpNet)>> {
    let found: Vec<_> = netlink
        .address()
        .get()
        .execute()
        .try_collect()
        .await
        .doing(|| "listing addresses".into())?;
    let addresses = found.into_iter().filter_map(|message| {
        let local = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) => Some(*address),
            _ => None,
        });
        let any = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        });
        let address: IpAddr = local.or(any)?;
        Some((
            message.header.index,
            IpNet::new(address, message.header.prefix_len).ok()?,
        ))
    });
    Ok(addresses.collect())
}

/// Gives the loopback link an address of ours, unless it has it.
pub(crate) async fn add_own_address(netlink: &Handle, address: Ipv4Addr) -> Result<()> {
    let mut adding = netlink.address().add(LOOPBACK, address.into(), 32).replace();
    let message = adding.message_mut();
    // Of no use as a source to other machines, so that the kernel never chooses it as one.
    message.header.scope = AddressScope::Host;
    message.attributes.push(AddressAttribute::Label(OWN_ADDRESS.into()));
    adding.execute().await.doing(|| format!("adding the address {address}"))
}

/// Takes our addresses away from the loopback link.
pub(crate) async fn delete_own_addresses(netlink: &Handle) -> Result<()> {
    let found: Vec<_> = netlink
        .address()
        .get()
        .set_link_index_filter(LOOPBACK)
        .execute()
        .try_collect()
        .await
        .doing(|| "listing addresses".into())?;
    let label = AddressAttribute::Label(OWN_ADDRESS.into());
    for address in found.into_iter().filter(|address| address.attributes.contains(&label)) {
        let deleted = netlink.address().del(address).execute().await;
        match deleted.doing(|| "deleting an address of the loopback link".into()) {
            Err(error) if is_absent(&error) => {}
            outcome => outcome?,
        }
    }
    Ok(())
}

/// The IPv4 routes of the main table.
pub(crate) async fn routes(netlink: &Handle) -> Result<Vec<RouteMessage>> {
    let filter = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let found: Vec<_> = netlink
        .route()
        .get(filter)
        .execute()
        .try_collect()
        .await
        .doing(|| "listing routes".into())?;
    let main = |route: &RouteMessage| route.header.table == RouteHeader::RT_TABLE_MAIN;
    Ok(found.into_iter().filter(main).collect())
}

/// The default routes among routes.
pub(crate) fn defaults(routes: &[RouteMessage]) -> Vec<DefaultRoute> {
    let default = |route: &RouteMessage| {
        let unicast = route.header.kind == RouteType::Unicast && route.header.destination_prefix_length == 0;
        let link = route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Oif(link) => Some(*link),
            _ => None,
        });
        let metric = route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Priority(metric) => Some(*metric),
            _ => None,
        });
        unicast.then_some(DefaultRoute {
            link: link?,
            metric: metric.unwrap_or(0),
        })
    };
    routes.iter().filter_map(default).collect()
}

/// Whether Podium made the route.
pub(crate) fn is_our_route(route: &RouteMessage) -> bool {
    route.header.protocol == RouteProtocol::Other(ROUTE_PROTOCOL)
}

/// The destination of a route, for messages.
pub(crate) fn destination(route: &RouteMessage) -> String {
    let address = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
        _ => None,
    });
    format!(
        "{}/{}",
        address.unwrap_or(Ipv4Addr::UNSPECIFIED),
        route.header.destination_prefix_length
    )
}

/// Deletes a link and with it the other end and all routes over it; succeeds when it is gone already.
pub(crate) async fn delete_link(netlink: &Handle, name: &str) -> Result<()> {
    let message = LinkUnspec::new_with_name(name).build();
    let deleted = netlink.link().del_with_message(message).execute().await;
    match deleted.doing(|| format!("deleting link {name}")) {
        Err(error) if is_absent(&error) => Ok(()),
        outcome => outcome,
    }
}
