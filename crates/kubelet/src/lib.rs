//! The kubelet: the pods of one node, the node's own status, and the node's HTTPS port.
//!
//! - [`pods`]: a worker for each pod; what it should do and say is decided by pure functions.
//! - [`node`]: the Node object, its conditions and its heartbeat.
//! - `static_pods`: pods from files and from a web server, and their mirrors.
//! - `volumes`, `cgroup`, `image`, `env`, `cri_config`: what a container needs before it starts.
//! - [`eviction`], `image_gc`, `log_rotation`: what keeps the node from running out of something.
//! - `shutdown`: what ends pods before the machine ends.
//! - `stats`: what is used, for evictions and for whoever asks.
//! - [`server`]: the port that the API server asks for logs, exec, attach and port-forward, and that others ask for statistics.
//!
//! A pod that asks for what is not served is told so.

mod cgroup;
pub mod config;
pub mod configuration;
mod credentials;
mod cri_config;
mod env;
pub mod eviction;
mod expand;
mod field;
mod handler;
mod image;
mod image_access;
mod image_gc;
mod inotify;
mod log_rotation;
pub mod metrics;
pub mod node;
mod objects;
pub mod pods;
pub mod probes;
mod reports;
mod run;
pub mod server;
mod shutdown;
mod static_pods;
pub mod stats;
mod tokens;
mod volumes;
mod words;

pub use config::{Config, ManifestUrl};
pub use configuration::KubeletConfiguration;
pub use pods::admission::UnsafeSysctls;
pub use run::{Kubelet, RunError, run};
