//! The `kubelet` room.

pub mod server;
