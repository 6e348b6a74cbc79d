//! From a pod to what the runtime is asked for: pure functions from API objects to CRI messages.

pub mod container;
pub mod dns;
pub mod hosts;
pub mod labels;
pub mod resources;
pub mod sandbox;
pub mod security;
