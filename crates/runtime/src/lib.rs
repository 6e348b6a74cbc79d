//! The built-in container runtime: implements the Container Runtime Interface with one small process a pod.

pub mod images;
mod network;
mod session;
mod shim;
mod streaming;

pub use network::{HostPort, NetworkError, PodLink, PodNetwork, Protocol};
pub use session::{Command, Session, Sessions, Stream, Streams, Terminal};
pub use shim::shim_main;
pub use streaming::StreamingServer;
