//! The kubelet: the pods of one node, the node's own status, and the node's HTTPS port.
//!
//! - [`pods`]: a worker for each pod; what it should do and say is decided by pure functions.
//! - [`node`]: the Node object, its conditions and its heartbeat.
//! - `volumes`, `cgroup`, `image`, `env`, `cri_config`: what a container needs before it starts.
//! - [`server`]: the port that the API server asks for logs, exec, attach and port-forward.
//!
//! Static pods and volumes beyond the basic ones have their place beside these modules when they come; until then a pod that asks for what
//! is not served is told so.

mod cgroup;
pub mod config;
mod credentials;
mod cri_config;
mod env;
mod expand;
mod field;
mod handler;
mod image;
pub mod node;
mod objects;
pub mod pods;
pub mod probes;
mod run;
pub mod server;
mod volumes;
mod words;

pub use config::Config;
pub use run::{Kubelet, RunError, run};
