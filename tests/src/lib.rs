//! The end-to-end harness: a real server in a network namespace of its own, real containers, upstream's kubectl.
//!
//! A [`Cluster`] makes its namespace and directories, starts the built binary in it and takes everything away when it is
//! dropped. Nothing in it reaches past the namespace: it has an uplink of its own whose other end is in a second
//! namespace, the [outside](Cluster::outside), and no route beyond.

pub mod ceph;
mod cluster;
mod command;
mod image;
mod netns;
mod registry;
mod terminal;

pub use cluster::{Cluster, NODE_IP, Options};
pub use command::{Output, eventually, run};
pub use image::variant;
pub use netns::Netns;
pub use registry::Registry;
pub use terminal::Terminal;

use std::path::PathBuf;

/// Cargo's target directory, where the binary, the images and the tools are.
pub fn target() -> PathBuf {
    let own = || {
        PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .map(|root| root.join("target"))
            .unwrap_or_default()
    };
    ["PODIUM_TARGET", "CARGO_TARGET_DIR"]
        .iter()
        .find_map(std::env::var_os)
        .map_or_else(own, PathBuf::from)
}

/// The archive of an image that `cargo xtask images` composes.
pub fn image(name: &str) -> PathBuf {
    target().join("images").join(format!("{name}.tar"))
}

/// The binary under test.
pub fn podium() -> PathBuf {
    std::env::var_os("PODIUM").map_or_else(|| target().join("debug/podium"), PathBuf::from)
}
