//! The scheduler: it gives every pod that has no node one that suits it.
//!
//! A *snapshot* ([`Snapshot`]) is the nodes and the pods on them, those included that were promised a node a
//! moment ago. *Filters* say which nodes a pod can run on and why not on the others, *scores* which of them is
//! best; [`decide`] puts both together, a pure function. The *queue* holds pods that wait: by priority, with
//! back-off after a failure, and set aside until something happens that may help them.
//!
//! [`run`] is the thin edge: changes of pods and nodes come in as they happen, decisions go out as bindings,
//! conditions and events. Nothing polls; a pod that was just created is bound within the same turn of the loop.

mod decide;
mod demand;
mod filters;
mod queue;
mod run;
mod scores;
mod snapshot;
mod volumes;

pub use decide::{Placement, Refusal, decide};
pub use demand::Demand;
pub use filters::{Filter, Rejection};
pub use queue::{Attempt, Event, Queue};
pub use run::{Config, run};
pub use snapshot::{NodeInfo, Snapshot, Storage};
