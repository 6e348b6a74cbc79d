//! The API server with its own store, asked as clients ask it: in process, and over TLS.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod cluster;
mod forms;
mod objects;
mod pods;
mod port;
mod services;
mod watches;
