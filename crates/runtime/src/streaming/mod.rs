//! The streaming server of the runtime: where the addresses that `Exec`, `Attach` and `PortForward` answer lead to.
//!
//! ```text
//! CRI Exec ──▶ validate ──▶ token ──▶ http://127.0.0.1:PORT/exec/TOKEN
//! GET or POST of that address ──▶ session under the token, once ──▶ cri::streaming ──▶ Sessions
//! ```
//!
//! It listens on loopback in the node's network namespace. A token is random, good for one request within a minute,
//! and all that authorizes it: whoever was told the address may have the session.

mod bridge;
mod netns;
mod server;
mod tokens;

pub(crate) use netns::dial;
pub use server::StreamingServer;
