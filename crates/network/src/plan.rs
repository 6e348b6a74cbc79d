//! What a pod's link and a node's routes are made of, as values.

use std::net::{IpAddr, Ipv4Addr};

use crate::owners::Owner;

/// The pods' gateway: link-local, the same for all, and on no machine.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// The hardware address of every link's end on the node. Each is alone on its link with its pod.
pub(crate) const NODE_MAC: [u8; 6] = [0xee, 0xee, 0xee, 0xee, 0xee, 0xee];

/// The name of the link in the pod.
pub(crate) const POD_END: &str = "eth0";

/// How every link's end on the node begins, which rules match on.
pub(crate) const NODE_END: &str = "pod";

/// How the alias of each of our links begins: what tells them from everyone else's.
pub(crate) const ALIAS: &str = "podium ";

/// What marks our routes, in the range that the kernel leaves to administrators.
pub(crate) const ROUTE_PROTOCOL: u8 = 80;

/// What marks our addresses on the loopback link.
pub(crate) const OWN_ADDRESS: &str = "lo:podium";

/// A link's index in a namespace where nothing but the loopback link was ever made.
pub(crate) const LOOPBACK: u32 = 1;

/// The longest alias that the kernel takes.
const ALIAS_MAX: usize = 255;

const ETHERNET_MTU: u32 = 1500;

/// The link of the node that leads to other machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Uplink {
    pub(crate) mtu: u32,
    /// The node's address that pods are to see, when it is known to be on this machine.
    pub(crate) source: Option<Ipv4Addr>,
}

/// A pod's veth pair and all that goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinkPlan {
    /// The end on the node.
    pub(crate) name: String,
    pub(crate) alias: String,
    pub(crate) mtu: u32,
    pub(crate) address: Ipv4Addr,
    pub(crate) pod_mac: [u8; 6],
    /// Where the node's own packets to the pod come from; the kernel chooses when none is given.
    pub(crate) source: Option<Ipv4Addr>,
    /// Whether the node's 127.0.0.1 leads to host ports of the pod.
    pub(crate) from_localhost: bool,
}

impl LinkPlan {
    pub(crate) fn new(owner: &Owner, uplink: Uplink) -> Self {
        let [a, b, c, d] = owner.address.octets();
        let mut alias = format!("{ALIAS}{}", owner.pod);
        alias.truncate(alias.floor_char_boundary(ALIAS_MAX));
        LinkPlan {
            name: node_end(owner.address),
            alias,
            mtu: uplink.mtu,
            address: owner.address,
            // Locally administered, and as unique on the node as the address.
            pod_mac: [0x02, 0x00, a, b, c, d],
            source: uplink.source,
            from_localhost: !owner.host_ports.is_empty(),
        }
    }
}

/// The name of a link's end on the node: unique as long as the address is.
pub(crate) fn node_end(address: Ipv4Addr) -> String {
    format!("{NODE_END}{:08x}", address.to_bits())
}

/// One link of the machine, as observed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) alias: Option<String>,
    pub(crate) mtu: u32,
}

impl Link {
    /// Whether Podium made it.
    pub(crate) fn is_ours(&self) -> bool {
        self.name.starts_with(NODE_END) && self.alias.as_deref().is_some_and(|alias| alias.starts_with(ALIAS))
    }
}

/// A default route, as observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DefaultRoute {
    pub(crate) link: u32,
    pub(crate) metric: u32,
}

/// The uplink: where the node's address is, else where the best default route leads.
pub(crate) fn uplink(
    links: &[Link],
    addresses: &[(u32, IpAddr)],
    defaults: &[DefaultRoute],
    node_ip: Option<IpAddr>,
) -> Uplink {
    let here = node_ip.and_then(|ip| addresses.iter().find(|(_, address)| *address == ip));
    let index = here.map(|(link, _)| *link);
    let default = || defaults.iter().min_by_key(|route| route.metric).map(|route| route.link);
    let link = index
        .or_else(default)
        .and_then(|index| links.iter().find(|link| link.index == index));
    Uplink {
        // The loopback link may hold the node's address; its MTU says nothing of the way out.
        mtu: link
            .filter(|link| link.name != "lo")
            .map_or(ETHERNET_MTU, |link| link.mtu),
        source: match here {
            Some((_, IpAddr::V4(address))) if !address.is_loopback() => Some(*address),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "the cases are well-formed")]
    use super::*;
    use crate::{HostPort, Protocol};

    fn owner(pod: &str, host_ports: Vec<HostPort>) -> Owner {
        Owner {
            pod: pod.into(),
            address: Ipv4Addr::new(10, 244, 0, 5),
            host_ports,
        }
    }

    #[test]
    fn a_link_is_named_and_numbered_after_its_address() {
        let uplink = Uplink {
            mtu: 1400,
            source: Some(Ipv4Addr::new(192, 168, 0, 2)),
        };
        let plan = LinkPlan::new(&owner("default/web", vec![]), uplink);
        let expected = LinkPlan {
            name: "pod0af40005".into(),
            alias: "podium default/web".into(),
            mtu: 1400,
            address: Ipv4Addr::new(10, 244, 0, 5),
            pod_mac: [2, 0, 10, 244, 0, 5],
            source: Some(Ipv4Addr::new(192, 168, 0, 2)),
            from_localhost: false,
        };
        assert_eq!(plan, expected);

        let port = HostPort {
            protocol: Protocol::Tcp,
            container_port: 80,
            host_port: 8080,
            host_ip: None,
        };
        let plan = LinkPlan::new(&owner(&format!("default/{}", "ü".repeat(200)), vec![port]), uplink);
        assert!(plan.from_localhost);
        assert!(
            (254..=255).contains(&plan.alias.len()),
            "cut between characters to what the kernel takes"
        );
    }

    #[test]
    fn our_links_are_told_from_others() {
        for (name, alias, ours) in [
            ("pod0af40005", Some("podium default/web"), true),
            ("pod0af40005", Some("mine"), false),
            ("pod0af40005", None, false),
            ("eth0", Some("podium of the winners"), false),
        ] {
            let link = Link {
                index: 1,
                name: name.into(),
                alias: alias.map(Into::into),
                mtu: 1500,
            };
            assert_eq!(link.is_ours(), ours, "{link:?}");
        }
    }

    #[test]
    fn the_uplink_is_found() {
        let link = |index, name: &str, mtu| Link {
            index,
            name: name.into(),
            alias: None,
            mtu,
        };
        let links = [link(1, "lo", 65536), link(2, "eth0", 1400), link(3, "wlan0", 1280)];
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let addresses = [
            (1, ip("127.0.0.1")),
            (2, ip("10.0.0.2")),
            (3, ip("10.1.0.2")),
            (1, ip("10.9.9.9")),
        ];
        let defaults = [
            DefaultRoute { link: 3, metric: 600 },
            DefaultRoute { link: 2, metric: 100 },
        ];
        for (defaults, node_ip, mtu, source) in [
            (&defaults[..], None, 1400, None),
            (&defaults[..1], None, 1280, None),
            (&[], None, 1500, None),
            (&defaults, Some("10.1.0.2"), 1280, Some("10.1.0.2")),
            (&defaults, Some("203.0.113.1"), 1400, None),
            (&defaults, Some("127.0.0.1"), 1500, None),
            (&defaults, Some("10.9.9.9"), 1500, Some("10.9.9.9")),
        ] {
            let found = uplink(&links, &addresses, defaults, node_ip.map(ip));
            let source = source.map(|source| source.parse().unwrap());
            assert_eq!(found, Uplink { mtu, source }, "{defaults:?} {node_ip:?}");
        }
    }
}
