//! The Service proxy: packets to a Service's address, or to a node port, go to one of its endpoints.
//!
//! ```text
//! Service, EndpointSlices --frontends--> what it asks for --elements--> what changes --table--> one transaction
//! ```
//!
//! `frontends` and `elements` decide without I/O; `table` says what nftables is told, `netfilter` tells it. The
//! first time, and whenever a transaction fails because somebody else was at the table, the table is made anew as
//! a whole, in one transaction too: until then the old one serves.
//!
//! Clients with session affinity are remembered by the kernel, in the table; one that is made anew in place of another
//! takes over those of its clients whose endpoints are there. `health` answers load balancers.

mod elements;
mod expressions;
mod flows;
mod frontends;
mod health;
mod netfilter;
mod run;
mod table;

use std::{io, sync::Arc};

use ipnet::Ipv4Net;

use crate::{Error, Result, addresses};
use elements::{Changes, State};
use frontends::Wanted;
use netfilter::Netfilter;
use table::Client;

pub use crate::picture::Observed;
pub use run::run;

/// What the proxy of a node has to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The node's name: which endpoints are its own.
    pub node_name: String,
    /// The range of all pods of the cluster.
    pub cluster_cidr: String,
    /// The range of all Services of the cluster.
    pub service_cidr: String,
}

/// The Services' part of the kernel's rules.
pub struct Proxy {
    node: String,
    cluster: Ipv4Net,
    services: Ipv4Net,
    netfilter: Netfilter,
    state: State,
    /// Whether the table is there with what `state` says.
    installed: bool,
}

impl Proxy {
    /// A proxy in this thread's network namespace. What a server before left there stays until the first update.
    pub fn open(settings: &Settings) -> Result<Proxy> {
        let cluster = addresses::range_v4(&settings.cluster_cidr)?;
        Ok(Proxy {
            node: settings.node_name.clone(),
            cluster,
            services: addresses::range_v4(&settings.service_cidr)?,
            netfilter: Netfilter::open().map_err(failed("opening netfilter"))?,
            state: State::new(cluster),
            installed: false,
        })
    }

    /// Brings Services, by `namespace/name`, to what they are now, or takes them away. All in one transaction.
    /// The result names Services that can not have all they ask for, with one that has it.
    pub fn update<'a>(
        &mut self,
        changed: impl IntoIterator<Item = (&'a Arc<str>, Option<Observed>)>,
    ) -> Result<Vec<(Arc<str>, Arc<str>)>> {
        let mut changes = Changes::default();
        let mut taken = Vec::new();
        for (name, observed) in changed {
            let wanted = observed.map_or_else(Wanted::default, |observed| frontends::wanted(&observed, &self.node));
            taken.extend(
                self.state
                    .set(name, wanted, &mut changes)
                    .map(|owner| (name.clone(), owner)),
            );
        }
        if self.installed && changes.is_empty() {
            return Ok(taken);
        }
        // Somebody may have taken the table away: then all of it is made anew.
        let applied = self.installed && self.netfilter.commit(table::part(&changes)).is_ok();
        if !applied {
            self.installed = false;
            changes = self.state.everything();
            let clients = self.remembered_clients();
            let steps = table::whole(self.cluster, self.services, &changes, &clients);
            self.netfilter
                .commit(steps)
                .map_err(failed("changing the rules of Services"))?;
            self.installed = true;
        }
        if !changes.flows.is_empty() {
            self.clear_flows(&changes)
                .map_err(failed("clearing connections to endpoints that are gone"))?;
        }
        if !changes.clients.is_empty() {
            self.forget_clients(&changes)
                .map_err(failed("forgetting clients of endpoints that are gone"))?;
        }
        Ok(taken)
    }

    fn clear_flows(&mut self, changes: &Changes) -> io::Result<()> {
        let flows = self.netfilter.flows()?;
        let stale = flows.iter().filter(|flow| flows::is_stale(flow, &changes.flows));
        for flow in stale {
            self.netfilter.forget(flow)?;
        }
        Ok(())
    }

    /// Those whom the table in the kernel remembers, if there is one, and who may stay with their endpoints.
    fn remembered_clients(&mut self) -> Vec<Client> {
        // Without a table, or with one that has no such map, there is nobody to remember.
        let known = self
            .netfilter
            .elements(table::TABLE, table::AFFINITY)
            .unwrap_or_default();
        let mut clients: Vec<Client> = known.iter().filter_map(|element| table::client(element)).collect();
        clients.retain(|client| self.state.keeps(client.frontend, client.endpoint));
        clients
    }

    fn forget_clients(&mut self, changes: &Changes) -> io::Result<()> {
        let known = self.netfilter.elements(table::TABLE, table::AFFINITY)?;
        let mut stale: Vec<Client> = known.iter().filter_map(|element| table::client(element)).collect();
        stale.retain(|client| {
            let frontend = client.frontend;
            let endpoints = changes
                .clients
                .get(&frontend)
                .or_else(|| changes.clients.get(&frontend.as_node_port()));
            endpoints.is_some_and(|endpoints| !endpoints.contains(&client.endpoint))
        });
        let gone = |error: &io::Error| error.raw_os_error() == Some(libc::ENOENT);
        match self.netfilter.commit(table::forget(&stale)) {
            // The time of one has come meanwhile, and none of them was taken.
            Err(error) if gone(&error) => {
                for client in stale.chunks(1) {
                    match self.netfilter.commit(table::forget(client)) {
                        Err(error) if gone(&error) => {}
                        outcome => outcome?,
                    }
                }
                Ok(())
            }
            outcome => outcome,
        }
    }
}

/// Removes the table, if it is there.
pub(crate) fn teardown() -> Result<()> {
    let mut netfilter = match Netfilter::open() {
        // A kernel without netfilter's netlink has no table.
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(()),
        opened => opened.map_err(failed("opening netfilter"))?,
    };
    match netfilter.commit(table::absent()) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL)) => Ok(()),
        outcome => outcome.map_err(failed("removing the rules of Services")),
    }
}

fn failed(action: &'static str) -> impl Fn(io::Error) -> Error {
    move |cause| Error::Netlink {
        action: action.into(),
        cause,
    }
}
