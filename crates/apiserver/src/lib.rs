//! The API server: HTTP, authentication, authorization, admission, the registry of resources, watch, and proxying
//! to nodes.

mod body;
mod config;
mod identity;
pub mod pki;

pub use body::{Body, BoxError};
pub use config::{Config, StaticToken};
pub use identity::Identity;
