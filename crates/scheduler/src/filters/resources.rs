//! What a node has left.

use api::pod::HostPort;

use super::{Filter, Rejection};
use crate::demand::Demand;
use crate::snapshot::NodeInfo;

pub(super) fn ports(wanted: &[HostPort], info: &NodeInfo) -> Result<(), Rejection> {
    if wanted.is_empty()
        || !info
            .used_ports()
            .any(|used| wanted.iter().any(|port| port.conflicts(used)))
    {
        return Ok(());
    }
    Err(Rejection::passing(
        Filter::NodePorts,
        "node(s) didn't have free ports for the requested pod ports",
    ))
}

pub(super) fn fit(demand: &Demand, info: &NodeInfo) -> Result<(), Rejection> {
    let mut reasons = Vec::new();
    // More than the node has at all: no other pod's going would help.
    let mut hopeless = false;
    if i64::try_from(info.pods.len()).unwrap_or(i64::MAX) >= info.max_pods {
        reasons.push("Too many pods".to_owned());
    }
    let mut check = |name: &str, wanted: i64, allocatable: i64, used: i64| {
        if wanted > 0 && wanted > allocatable.saturating_sub(used) {
            reasons.push(format!("Insufficient {name}"));
            hopeless |= wanted > allocatable;
        }
    };
    let (has, used) = (&info.allocatable, &info.requested);
    check("cpu", demand.milli_cpu, has.milli_cpu, used.milli_cpu);
    check("memory", demand.memory, has.memory, used.memory);
    check(
        "ephemeral-storage",
        demand.ephemeral_storage,
        has.ephemeral_storage,
        used.ephemeral_storage,
    );
    for (name, wanted) in &demand.scalars {
        let of = |demand: &Demand| demand.scalars.get(name).copied().unwrap_or(0);
        check(name, *wanted, of(has), of(used));
    }
    if reasons.is_empty() {
        return Ok(());
    }
    Err(Rejection {
        filter: Filter::NodeResourcesFit,
        reasons,
        preemptible: !hopeless,
    })
}
