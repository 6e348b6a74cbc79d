//! Gives each node its part of the pods' address range.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use client::kube::api::{Api, Patch, PatchParams};
use client::{Informers, WorkQueue};
use k8s_openapi::api::core::v1::Node;
use tracing::warn;

use crate::controller;

/// Bits of a node's part: 254 pods' addresses, as upstream's default.
const NODE_BITS: u8 = 24;

/// A range of pods' addresses that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cluster CIDR {0:?}: expected an IPv4 range of at least a /{NODE_BITS}, such as 10.244.0.0/16")]
pub struct CidrError(String);

/// The cluster's range, cut into one part a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    first: u32,
    bits: u8,
}

impl Range {
    /// Reads `10.244.0.0/16`.
    pub fn parse(text: &str) -> Result<Self, CidrError> {
        let wrong = || CidrError(text.to_owned());
        let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
        let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
        let bits: u8 = bits
            .parse()
            .ok()
            .filter(|bits| (1..=NODE_BITS).contains(bits))
            .ok_or_else(wrong)?;
        let mask = u32::MAX << (32 - bits);
        Ok(Self {
            first: u32::from(address) & mask,
            bits,
        })
    }

    /// The parts, in order.
    fn parts(self) -> impl Iterator<Item = String> {
        let count = 1_u32 << (NODE_BITS - self.bits);
        (0..count).map(move |n| format!("{}/{NODE_BITS}", Ipv4Addr::from(self.first + (n << (32 - NODE_BITS)))))
    }
}

/// What is seen of a node: its name, and the range it already has.
pub type Observed = (String, Option<String>);

/// The nodes without a range, each with the first one that is free; the second is the nodes for which none is left.
pub fn reconcile(range: Range, nodes: &[Observed]) -> (Vec<(String, String)>, Vec<String>) {
    let taken: HashSet<&str> = nodes.iter().filter_map(|(_, cidr)| cidr.as_deref()).collect();
    let mut free = range.parts().filter(|part| !taken.contains(part.as_str()));
    let (mut given, mut without) = (Vec::new(), Vec::new());
    for (name, _) in nodes.iter().filter(|(_, cidr)| cidr.is_none()) {
        match free.next() {
            Some(part) => given.push((name.clone(), part)),
            None => without.push(name.clone()),
        }
    }
    (given, without)
}

/// Runs until it is dropped. One worker on one key: two nodes must never be decided at once.
pub async fn run(range: Range, informers: &Informers) {
    let nodes = informers.all::<Node>();
    nodes.synced().await;
    let queue = WorkQueue::<&'static str>::default();
    let feed = controller::feed(&nodes, &queue, |change| match change {
        client::Change::Applied { object, .. } => object
            .spec
            .as_ref()
            .is_none_or(|spec| spec.pod_cidr.is_none())
            .then_some("nodes"),
        // A range has become free.
        client::Change::Deleted(_) => Some("nodes"),
    });
    let work = controller::work("node-ipam", &queue, async |_| {
        // From the server and not the cache: the cache may lag behind what was given just before.
        let api = Api::<Node>::all(informers.client().clone());
        let listed = api.list(&Default::default()).await?;
        let mut seen: Vec<Observed> = listed
            .items
            .into_iter()
            .map(|node| {
                (
                    node.metadata.name.unwrap_or_default(),
                    node.spec.and_then(|spec| spec.pod_cidr),
                )
            })
            .collect();
        seen.sort();
        let (given, without) = reconcile(range, &seen);
        for node in without {
            warn!(node, "no pod addresses left for it in the cluster's range");
        }
        for (node, cidr) in given {
            let patch = serde_json::json!({"spec": {"podCIDR": cidr, "podCIDRs": [cidr]}});
            controller::ignore_gone(
                api.patch(&node, &PatchParams::default(), &Patch::Strategic(patch))
                    .await,
            )?;
        }
        Ok(())
    });
    tokio::join!(feed, work);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_or_refused() {
        assert_eq!(Range::parse("10.244.0.0/16").unwrap().parts().count(), 256);
        assert_eq!(
            Range::parse("10.244.7.9/24").unwrap().parts().collect::<Vec<_>>(),
            ["10.244.7.0/24"]
        );
        for wrong in [
            "10.244.0.0",
            "10.244.0.0/25",
            "10.244.0.0/0",
            "fd00::/48",
            "nonsense/16",
        ] {
            let error = Range::parse(wrong).unwrap_err().to_string();
            assert!(error.contains(wrong) && error.contains("10.244.0.0/16"), "{error}");
        }
    }

    #[test]
    fn every_node_gets_a_part_of_its_own() {
        let range = Range::parse("10.244.0.0/22").unwrap();
        let node = |name: &str, cidr: Option<&str>| (name.to_owned(), cidr.map(String::from));
        let seen = [
            node("a", None),
            node("b", Some("10.244.0.0/24")),
            node("c", None),
            node("d", Some("10.244.2.0/24")),
        ];
        let (given, without) = reconcile(range, &seen);
        assert_eq!(
            given,
            [
                ("a".into(), "10.244.1.0/24".into()),
                ("c".into(), "10.244.3.0/24".into())
            ]
        );
        assert!(without.is_empty());
        let (given, without) = reconcile(
            Range::parse("10.0.0.0/24").unwrap(),
            &[node("a", None), node("b", None)],
        );
        assert_eq!(given, [("a".into(), "10.0.0.0/24".into())]);
        assert_eq!(without, ["b"]);
    }
}
