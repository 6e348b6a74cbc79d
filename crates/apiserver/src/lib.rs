//! The API server: HTTP, authentication, authorization, admission, the registry of resources, watch, and proxying
//! to nodes.
//!
//! A request's way through it is in `walk`; what objects are is the `api` crate's matter, and where they are kept
//! the `store` crate's. Everything is answered from the request's own task: nothing here polls, and nothing is
//! queued for a client that does not read.

mod admission;
mod answer;
mod authn;
mod authz;
mod body;
mod bootstrap;
mod call;
mod config;
mod documents;
mod event_expiry;
mod identity;
mod impersonation;
mod keep;
mod negotiate;
mod openapi_protobuf;
pub mod pki;
mod protobuf;
mod proxy;
mod query;
mod registry;
mod render;
mod request_info;
mod reviews;
mod serve;
mod server;
mod services;
mod subresources;
mod tls;
mod walk;

pub use authn::service_account::KeyError;
pub use body::{Body, BoxError};
pub use config::{Config, StaticToken};
pub use identity::Identity;
pub use server::{ApiServer, InProcess, StartError};
pub use services::RangeError;
pub use tls::TlsError;

/// The Kubernetes version that the server speaks.
pub const VERSION: &str = "v1.36.0";
