//! The catalogue's entries: one module a kind, its [`Resource`] and its strategy.

mod addresses;
pub mod apps;
pub mod config_map;
pub mod endpoint_slice;
pub mod endpoints;
pub mod event;
pub mod lease;
pub mod namespace;
pub mod node;
pub mod pod;
pub mod priority_class;
pub mod review;
pub mod runtime_class;
pub mod secret;
pub mod service;
pub mod service_account;
pub mod storage;
#[cfg(test)]
pub(crate) mod testing;

use crate::catalogue::Resource;

/// Every built-in resource, by group, version and plural.
pub fn all() -> Vec<&'static Resource> {
    let mut all = vec![
        &config_map::RESOURCE,
        &endpoint_slice::RESOURCE,
        &endpoints::RESOURCE,
        &event::CORE,
        &event::EVENTS,
        &lease::RESOURCE,
        &namespace::RESOURCE,
        &node::RESOURCE,
        &pod::RESOURCE,
        &priority_class::RESOURCE,
        &runtime_class::RESOURCE,
        &secret::RESOURCE,
        &service::RESOURCE,
        &service_account::RESOURCE,
        &storage::claim::RESOURCE,
        &storage::class::RESOURCE,
        &storage::volume::RESOURCE,
    ];
    all.extend(apps::RESOURCES);
    all.extend(review::RESOURCES);
    all.sort_by_key(|resource| (resource.group, resource.version, resource.plural));
    all
}
