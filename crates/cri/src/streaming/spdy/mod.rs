//! SPDY/3.1 as Kubernetes speaks it.
//!
//! [`headers`] and [`frame`] are the pure codec: bytes in, frames out. [`session`] moves them over a connection and
//! gives streams.
//!
//! No windows are kept. The library that every Kubernetes client and server shares neither sends WINDOW_UPDATE nor
//! waits for it, so a sender that honoured windows would stand still after the first 64 KiB. SETTINGS and
//! WINDOW_UPDATE are therefore read and passed over, and back-pressure is the connection's: a stream whose reader is
//! slow holds back the whole session, as upstream.

pub(crate) mod frame;
pub(crate) mod headers;
pub(crate) mod port_forward;
pub(crate) mod remote_command;
pub(crate) mod session;

pub(crate) use headers::Headers;
pub(crate) use session::{NewStream, Role, Session, Stream};
