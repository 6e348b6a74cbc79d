//! Sessions from a client to real processes, over every transport and protocol.
#![allow(clippy::unwrap_used, reason = "a test says what it expects by failing")]

mod host;
mod kubectl;
mod spdy;
mod websocket;
