//! Plans put into the kernel.

use std::{fs::File, io, net::Ipv4Addr, os::fd::AsRawFd};

use futures::{FutureExt, future::BoxFuture};
use ipnet::Ipv4Net;
use netlink_packet_route::{
    link::{InfoData, InfoVeth, LinkAttribute},
    route::{RouteProtocol, RouteScope, RouteType},
};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

use crate::{
    Error, Result,
    netlink::{self, Doing},
    plan::{GATEWAY, LOOPBACK, LinkPlan, NODE_MAC, POD_END, ROUTE_PROTOCOL},
};

/// Makes a pod's link. When it fails, what is left is the link at most, which [`netlink::delete_link`] takes
/// away with all its routes.
pub(crate) async fn make_link(node: &Handle, netns: File, plan: &LinkPlan) -> Result<()> {
    make_pair(node, &netns, plan).await?;
    let pod = async {
        let pod = netlink::connect_in(netns, &plan.name).await?;
        set_up_pod_end(&pod, plan).await
    };
    futures::try_join!(pod, set_up_node_end(node, plan))?;
    Ok(())
}

/// Both ends at once, each in its namespace, with their hardware addresses. The pod's end can not be up yet:
/// the kernel opens it before it knows its peer.
async fn make_pair(node: &Handle, netns: &File, plan: &LinkPlan) -> Result<()> {
    let action = || format!("adding link {}", plan.name);
    let peer = LinkMessageBuilder::<LinkUnspec>::new()
        .name(POD_END)
        .address(plan.pod_mac.into())
        .mtu(plan.mtu)
        .setns_by_fd(netns.as_raw_fd())
        .build();
    let pair = || {
        LinkVeth::new(&plan.name, POD_END)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer.clone())))
            .address(NODE_MAC.into())
            .mtu(plan.mtu)
            .up()
            .build()
    };
    match node.link().add(pair()).execute().await.doing(action) {
        // The address is this pod's alone, so a link of that name is what a crash left over.
        Err(Error::Netlink { cause, .. }) if cause.raw_os_error() == Some(libc::EEXIST) => {
            netlink::delete_link(node, &plan.name).await?;
            node.link().add(pair()).execute().await.doing(action)
        }
        outcome => outcome,
    }
}

/// The requests go out one behind the other without waiting for answers: `try_join!` starts what it is given
/// in order, and the kernel works it off in order.
async fn set_up_pod_end(pod: &Handle, plan: &LinkPlan) -> Result<()> {
    let index = netlink::index(pod, POD_END).await?;
    let step = |what: &str, answer| answered(format!("{what} in the pod of {}", plan.name), answer);
    let up = |link| {
        pod.link()
            .change(LinkUnspec::new_with_index(link).up().build())
            .execute()
    };
    let gateway = route(GATEWAY, 32)
        .output_interface(index)
        .scope(RouteScope::Link)
        .build();
    let gateway_mac = pod
        .neighbours()
        .add(index, GATEWAY.into())
        .link_layer_address(&NODE_MAC);
    let default = RouteMessageBuilder::<Ipv4Addr>::new()
        .gateway(GATEWAY)
        .output_interface(index)
        .build();
    futures::try_join!(
        step("setting the loopback link up", up(LOOPBACK).boxed()),
        step("setting the link up", up(index).boxed()),
        step(
            "adding the address",
            pod.address().add(index, plan.address.into(), 32).execute().boxed()
        ),
        step("adding the gateway's route", pod.route().add(gateway).execute().boxed()),
        step("adding the gateway's hardware address", gateway_mac.execute().boxed()),
        step("adding the default route", pod.route().add(default).execute().boxed()),
    )?;
    Ok(())
}

async fn set_up_node_end(node: &Handle, plan: &LinkPlan) -> Result<()> {
    let LinkPlan { name, address, .. } = plan;
    let index = netlink::index(node, name).await?;
    if plan.from_localhost {
        write_sysctl(&format!("net/ipv4/conf/{name}/route_localnet"), "1")?;
    }
    let step = |what: &str, answer| answered(format!("{what} {name}"), answer);
    let alias = LinkAttribute::IfAlias(plan.alias.clone());
    let alias = LinkUnspec::new_with_index(index).append_extra_attribute(alias).build();
    let pod_mac = node
        .neighbours()
        .add(index, (*address).into())
        .link_layer_address(&plan.pod_mac);
    let mut to_pod = route(*address, 32).output_interface(index).scope(RouteScope::Link);
    if let Some(source) = plan.source {
        to_pod = to_pod.pref_source(source);
    }
    futures::try_join!(
        step("naming link", node.link().change(alias).execute().boxed()),
        step("adding the pod's hardware address on", pod_mac.execute().boxed()),
        step(
            "adding the pod's route over",
            node.route().add(to_pod.build()).replace().execute().boxed()
        ),
    )?;
    Ok(())
}

async fn answered(action: String, answer: BoxFuture<'_, Result<(), rtnetlink::Error>>) -> Result<()> {
    answer.await.doing(|| action)
}

/// Makes what of a range has no route of its own unreachable.
pub(crate) async fn make_unreachable(node: &Handle, range: Ipv4Net) -> Result<()> {
    let unreachable = route(range.network(), range.prefix_len()).kind(RouteType::Unreachable);
    node.route()
        .add(unreachable.build())
        .replace()
        .execute()
        .await
        .doing(|| format!("making {range} unreachable"))
}

/// Leads the Services' range back to the machine itself: the rules of Services see packets that the node's own
/// processes send only if they have a route, and what these rules leave alone must not get out.
pub(crate) async fn keep_inside(node: &Handle, range: Ipv4Net, source: Option<Ipv4Addr>) -> Result<()> {
    let mut inside = route(range.network(), range.prefix_len())
        .output_interface(LOOPBACK)
        .scope(RouteScope::Link);
    if let Some(source) = source {
        inside = inside.pref_source(source);
    }
    node.route()
        .add(inside.build())
        .replace()
        .execute()
        .await
        .doing(|| format!("leading {range} to the loopback link"))
}

/// Lets the machine pass packets on between links, unless it does already.
pub(crate) fn forward() -> Result<()> {
    const FORWARD: &str = "net/ipv4/ip_forward";
    if read_sysctl(FORWARD)? == "1" {
        return Ok(());
    }
    write_sysctl(FORWARD, "1")
}

pub(crate) fn read_sysctl(name: &str) -> Result<String> {
    let path = std::path::Path::new("/proc/sys").join(name);
    let read: io::Result<String> = std::fs::read_to_string(&path);
    read.map(|value| value.trim().to_owned()).map_err(|cause| Error::File {
        action: "reading",
        path,
        cause,
    })
}

fn write_sysctl(name: &str, value: &str) -> Result<()> {
    let path = std::path::Path::new("/proc/sys").join(name);
    std::fs::write(&path, value).map_err(|cause| Error::File {
        action: "writing",
        path,
        cause,
    })
}

fn route(address: Ipv4Addr, length: u8) -> RouteMessageBuilder<Ipv4Addr> {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(address, length)
        .protocol(RouteProtocol::Other(ROUTE_PROTOCOL))
}
