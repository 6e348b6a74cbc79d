//! The catalogue's entries: one module a kind, its [`Resource`] and its strategy.

pub mod config_map;

use crate::catalogue::Resource;

/// Every built-in resource, by group, version and plural.
pub fn all() -> Vec<&'static Resource> {
    let mut all = vec![&config_map::RESOURCE];
    all.sort_by_key(|resource| (resource.group, resource.version, resource.plural));
    all
}
