//! The Container Runtime Interface v1: what a kubelet asks of a runtime.
//!
//! [`RuntimeService`] and [`ImageService`] are traits whose arguments and results are the messages of the
//! wire contract ([`v1`]). The built-in runtime implements them in process; [`grpc::serve`] puts an
//! implementation on a unix socket and [`grpc::connect`] is an implementation that asks a remote one, so
//! a caller never knows the difference.

mod error;
pub mod grpc;
mod redact;
mod service;
pub mod streaming;

pub use error::{Code, Error, Result};
pub use service::{ContainerEvents, ImageService, RuntimeService};

/// The messages and services of package `runtime.v1`, as of Kubernetes 1.36.
#[allow(missing_docs, clippy::all)] // generated
pub mod v1 {
    tonic::include_proto!("runtime.v1");
}

/// What Podium's runtime offers beside CRI: messages and service of package `podium.v1`.
#[allow(missing_docs, clippy::all)] // generated
pub mod podium {
    tonic::include_proto!("podium.v1");
}
