//! Containers. One verb a file.

mod create;
mod declared_volume;
mod exec_sync;
pub(crate) use exec_sync::MAX_OUTPUT;
pub(crate) mod image_volume;
mod remove;
mod resources;
mod sessions;
mod start;
mod status;
mod stop;

use std::sync::Arc;

use cri::{Error, Result};

pub(crate) use sessions::Handle;
pub(crate) use status::{details, list_entry, matches, specification, status};

use crate::runtime::{Container, Inner};

impl Inner {
    /// The container with this id, or the error that upstream's runtimes give.
    pub(crate) fn known_container(&self, id: &str) -> Result<Arc<Container>> {
        self.container(id).ok_or_else(|| {
            Error::not_found(format!(
                "an error occurred when try to find container {id:?}: not found"
            ))
        })
    }
}
