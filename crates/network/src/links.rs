//! The pods' links on this node: attach, detach, reconcile.

use std::{fs::File, net::IpAddr, path::PathBuf, sync::Arc};

use ipnet::IpNet;
use parking_lot::Mutex;
use rtnetlink::Handle;

use crate::{
    Error, PodLink, Result, addresses, apply, netlink,
    owners::Owners,
    plan::{self, LinkPlan, Uplink},
    rules::{self, Exposed},
};

/// What is the same for all pods of a node.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the file of owners is kept: a directory that does not outlive the machine's start.
    pub run_dir: PathBuf,
    /// The range of all pods of the cluster, such as `10.244.0.0/16`.
    pub cluster_cidr: String,
    /// The range of all Services of the cluster, such as `10.96.0.0/12`.
    pub service_cidr: String,
    /// The node's address, when it is known: its link gives the MTU, and pods see it as the node's.
    pub node_ip: Option<IpAddr>,
}

/// The pods' links on this node. A clone is the same.
#[derive(Clone)]
pub struct Links(Arc<Inner>);

struct Inner {
    node: Handle,
    uplink: Uplink,
    state: Mutex<State>,
    /// Held while nftables is brought up to date, so that a later set of host ports is never overtaken by an
    /// earlier one.
    rules: tokio::sync::Mutex<()>,
}

struct State {
    owners: Owners,
    range: Option<IpNet>,
}

impl State {
    /// The host ports of all sandboxes but one that is about to go.
    fn exposed(&self, but: Option<&str>) -> Vec<Exposed> {
        let staying = self.owners.iter().filter(|(id, _)| but != Some(id.as_str()));
        staying
            .map(|(_, owner)| (owner.address, owner.host_ports.clone()))
            .collect()
    }
}

/// Prepares the machine for Services where pods have a network of somebody else's: forwarding, and the route that keeps the Services'
/// range inside. Needs a tokio runtime, and works in this thread's network namespace.
pub async fn prepare_for_services(service_cidr: &str, node_ip: Option<IpAddr>) -> Result<()> {
    prepare(service_cidr, node_ip).await.map(drop)
}

async fn prepare(service_cidr: &str, node_ip: Option<IpAddr>) -> Result<(Handle, Uplink)> {
    let services = addresses::range_v4(service_cidr)?;
    let node = netlink::connect()?;
    // One after the other: a netlink socket lists one thing at a time.
    let links = netlink::links(&node).await?;
    let addresses = netlink::addresses(&node).await?;
    let routes = netlink::routes(&node).await?;
    let addresses: Vec<(u32, IpAddr)> = addresses.into_iter().map(|(link, net)| (link, net.addr())).collect();
    let uplink = plan::uplink(&links, &addresses, &netlink::defaults(&routes), node_ip);
    apply::forward()?;
    apply::keep_inside(&node, services, uplink.source).await?;
    Ok((node, uplink))
}

impl Links {
    /// Prepares the machine: forwarding, the routes that keep the ranges inside, the nftables table with the host ports of
    /// the pods that are there already. Needs a tokio runtime, and works in this thread's network namespace.
    pub async fn open(settings: Settings) -> Result<Links> {
        let cluster = addresses::range_v4(&settings.cluster_cidr)?;
        let owners = Owners::open(&settings.run_dir)?;
        let (node, uplink) = prepare(&settings.service_cidr, settings.node_ip).await?;
        apply::make_unreachable(&node, cluster).await?;
        let state = State { owners, range: None };
        rules::apply(
            "setting up the rules",
            rules::whole(cluster.into(), &state.exposed(None)),
        )
        .await?;
        let inner = Inner {
            node,
            uplink,
            state: Mutex::new(state),
            rules: Default::default(),
        };
        Ok(Links(Arc::new(inner)))
    }

    /// Sets the range that this node's pods take their addresses from. Pods that are there keep theirs.
    pub fn set_pod_cidr(&self, cidr: &str) -> Result<()> {
        let range = addresses::range_v4(cidr)?;
        self.0.state.lock().range = Some(range.into());
        Ok(())
    }

    /// Whether pods can get addresses; the error says why they can not yet.
    pub fn ready(&self) -> Result<()> {
        match self.0.state.lock().range {
            Some(_) => Ok(()),
            None => Err(Error::NoPodCidr),
        }
    }

    /// Gives a pod its link, addresses and host ports; the first address is the pod's IP. A sandbox that was
    /// attached before is attached anew.
    pub async fn attach(&self, link: &PodLink) -> Result<Vec<IpAddr>> {
        self.detach(&link.sandbox_id).await?;
        let netns = File::open(&link.netns).map_err(|cause| Error::File {
            action: "opening",
            path: link.netns.clone(),
            cause,
        })?;
        let owner = {
            let mut state = self.0.state.lock();
            let range = state.range.ok_or(Error::NoPodCidr)?;
            state.owners.add(link, range)?
        };
        let made = async {
            let plan = LinkPlan::new(&owner, self.0.uplink);
            apply::make_link(&self.0.node, netns, &plan).await?;
            if owner.host_ports.is_empty() {
                return Ok(());
            }
            let _turn = self.0.rules.lock().await;
            let exposed = self.0.state.lock().exposed(None);
            rules::apply("adding host ports", rules::host_ports(&exposed)).await
        };
        if let Err(error) = made.await {
            let undone = self.detach(&link.sandbox_id).await;
            return Error::all([error].into_iter().chain(undone.err()).collect()).map(|()| Vec::new());
        }
        Ok(vec![owner.address.into()])
    }

    /// Takes a sandbox's link, addresses and host ports away; succeeds when there is nothing.
    pub async fn detach(&self, sandbox_id: &str) -> Result<()> {
        let Some(owner) = self.0.state.lock().owners.get(sandbox_id).cloned() else {
            return Ok(());
        };
        netlink::delete_link(&self.0.node, &plan::node_end(owner.address)).await?;
        if owner.host_ports.is_empty() {
            return self.0.state.lock().owners.remove(sandbox_id);
        }
        let _turn = self.0.rules.lock().await;
        let exposed = self.0.state.lock().exposed(Some(sandbox_id));
        rules::apply("removing host ports", rules::host_ports(&exposed)).await?;
        self.0.state.lock().owners.remove(sandbox_id)
    }

    /// Takes away what none of the live sandboxes owns: what a crash, or a detach that failed, left over.
    pub async fn reconcile(&self, live: &[String]) -> Result<()> {
        let gone: Vec<String> = {
            let state = self.0.state.lock();
            let ids = state.owners.iter().map(|(id, _)| id.clone());
            ids.filter(|id| !live.contains(id)).collect()
        };
        let mut errors = Vec::new();
        for sandbox in gone {
            errors.extend(self.detach(&sandbox).await.err());
        }
        errors.extend(self.delete_unowned().await.err());
        Error::all(errors)
    }

    async fn delete_unowned(&self) -> Result<()> {
        // First the links, then the owners: a link made in between has its owner already.
        let links = netlink::links(&netlink::connect()?).await?;
        let owned: Vec<String> = self
            .0
            .state
            .lock()
            .owners
            .iter()
            .map(|(_, owner)| plan::node_end(owner.address))
            .collect();
        let mut errors = Vec::new();
        for link in links
            .iter()
            .filter(|link| link.is_ours() && !owned.contains(&link.name))
        {
            errors.extend(netlink::delete_link(&self.0.node, &link.name).await.err());
        }
        Error::all(errors)
    }
}
