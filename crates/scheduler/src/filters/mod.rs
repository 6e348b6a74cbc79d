//! Filters: whether a pod can run on a node, and if not, why.

mod affinity;
mod node;
mod resources;
mod spread;
mod volumes;

use std::sync::Arc;

use api::pod::{self, HostPort, host_ports};
use k8s_openapi::api::core::v1::{PersistentVolume, Pod};

pub(crate) use self::affinity::PodTerms;
pub(crate) use self::node::matches_node_term;
use self::spread::Spread;
use self::volumes::Volumes;
use crate::demand::Demand;
use crate::queue::Event;
use crate::snapshot::{NodeInfo, Snapshot};

/// The filters, in the order in which they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names are upstream's, which its documentation explains")]
pub enum Filter {
    NodeUnschedulable,
    NodeName,
    TaintToleration,
    NodeAffinity,
    NodePorts,
    NodeResourcesFit,
    VolumeBinding,
    DynamicResources,
    PodTopologySpread,
    InterPodAffinity,
}

impl Filter {
    /// Whether a node may pass this filter after the event, where it did not before.
    pub(crate) fn is_helped_by(self, event: Event) -> bool {
        match self {
            Filter::NodeUnschedulable | Filter::NodeName | Filter::TaintToleration | Filter::NodeAffinity => {
                event == Event::Node
            }
            Filter::NodePorts | Filter::NodeResourcesFit => matches!(event, Event::Node | Event::PodGone),
            Filter::PodTopologySpread | Filter::InterPodAffinity => event != Event::Storage,
            Filter::VolumeBinding => matches!(event, Event::Node | Event::Storage),
            // These claims are objects that nobody can create yet.
            Filter::DynamicResources => false,
        }
    }
}

/// Why a pod cannot run on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Who says so.
    pub filter: Filter,
    /// In upstream's words.
    pub reasons: Vec<String>,
    /// Whether taking other pods off the node could help.
    pub preemptible: bool,
}

impl Rejection {
    fn lasting(filter: Filter, reason: impl Into<String>) -> Self {
        Rejection {
            filter,
            reasons: vec![reason.into()],
            preemptible: false,
        }
    }

    fn passing(filter: Filter, reason: impl Into<String>) -> Self {
        Rejection {
            preemptible: true,
            ..Self::lasting(filter, reason)
        }
    }
}

/// A pod to place, with what only has to be worked out once for all nodes.
pub(crate) struct Candidate<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) demand: Demand,
    ports: Vec<HostPort>,
    terms: PodTerms,
    spread: Spread,
    volumes: Volumes,
}

impl<'a> Candidate<'a> {
    pub(crate) fn new(pod: &'a Pod, snapshot: &Snapshot) -> Self {
        Candidate {
            demand: Demand::of(pod),
            ports: host_ports(pod),
            terms: PodTerms::new(pod, snapshot),
            spread: Spread::new(pod, snapshot),
            volumes: Volumes::new(pod, snapshot),
            pod,
        }
    }

    /// The volumes that the pod's claims get if it runs on the node: the key of each claim, and the volume.
    pub(crate) fn volumes_on(&self, info: &NodeInfo) -> Vec<(String, Arc<PersistentVolume>)> {
        self.volumes.on(info)
    }

    /// Whether the pod can run on the node.
    pub(crate) fn check(&self, info: &NodeInfo) -> Result<(), Rejection> {
        node::unschedulable(self.pod, info)?;
        node::name(self.pod, info)?;
        node::taints(self.pod, info)?;
        node::affinity(self.pod, info)?;
        resources::ports(&self.ports, info)?;
        resources::fit(&self.demand, info)?;
        self.volumes.check(info)?;
        self.spread.check(info)?;
        self.terms.check(info)
    }
}

/// What keeps a pod from running on any node, before nodes are looked at.
pub(crate) fn everywhere(pod: &Pod, snapshot: &Snapshot) -> Option<(Filter, String)> {
    let spec = pod.spec.as_ref()?;
    if let Some(why) = volumes::missing(pod, snapshot) {
        return Some((Filter::VolumeBinding, why));
    }
    let claim = spec.resource_claims.iter().flatten().next()?;
    let why = match &claim.resource_claim_name {
        Some(name) => format!("resourceclaim.resource.k8s.io \"{name}\" not found"),
        None => format!(
            "pod \"{}/{}\": ResourceClaim not created yet",
            pod::namespace(pod),
            pod::name(pod)
        ),
    };
    Some((Filter::DynamicResources, why))
}
