//! How every part of Podium reaches the API.
//!
//! A [`kube::Client`] is made by [`in_process`] (the API server's router called directly), by [`over_tls`] (from certificates) or by
//! [`from_kubeconfig`]. On it stand four things that every part needs: [`Informers`] (one shared watch a kind, with a typed cache and
//! subscriptions that miss nothing), [`Events`] (upstream's event correlator, never blocking its caller), [`lease`] (heartbeats) and
//! [`WorkQueue`] (each key once, by one worker at a time, retried with back-off).

mod connect;
pub mod events;
mod informer;
pub mod lease;
mod queue;

pub use connect::{ConnectError, config, from_kubeconfig, in_process, over_tls};
pub use events::{EventType, Events};
pub use informer::{Change, Informer, Informers, Selection, Subscription};
pub use kube;
pub use kube::Client;
pub use queue::{Claim, RetryDelay, WorkQueue};
