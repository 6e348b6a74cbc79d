//! The built-in container runtime: implements the Container Runtime Interface with one small process a pod.
//!
//! [`Runtime`] is the server's side: it keeps the records, prepares bundles ([`spec`]) and asks the shims. A shim
//! ([`shim_main`]) is the parent of one pod's containers and outlives the server. [`images`] has the layers that
//! containers stand on, [`PodNetwork`] is the door to whoever connects pods, [`Sessions`] the streams of exec,
//! attach and port-forward. [`Config`] shows where everything is kept.

mod apparmor;
mod client;
mod config;
mod container;
mod host;
pub mod images;
mod metrics;
mod network;
mod open;
mod pod_files;
mod record;
mod reset;
mod rootfs;
mod runtime;
mod sandbox;
mod service;
mod session;
mod shim;
mod signal;
mod spec;
mod stats;
mod streaming;
mod users;
mod working_dir;

pub use config::Config;
pub use network::{HostPort, NetworkError, PodLink, PodNetwork, Protocol};
pub use open::OpenError;
pub use reset::{Listed, list, reset};
pub use runtime::Runtime;
pub use session::{Command, Session, Sessions, Stream, Streams, Terminal};
pub use shim::shim_main;
