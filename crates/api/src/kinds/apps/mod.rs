//! `apps/v1`: workloads, and what their kinds have in common.

pub mod deployment;
pub mod replica_set;
pub mod scale;
mod shared;

use crate::catalogue::Resource;

/// Every resource of the group.
pub static RESOURCES: [&Resource; 2] = [&deployment::RESOURCE, &replica_set::RESOURCE];
