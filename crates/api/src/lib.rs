//! What Kubernetes objects are, with no I/O and nothing that waits.
//!
//! The [`Catalogue`] lists every built-in [`Resource`]; each points to its [`Strategy`], the rules of one
//! kind: how it is decoded, defaulted, validated, printed and merged. Routing, discovery, OpenAPI and
//! tables are derived from it, so a new kind is one entry in [`kinds`] and its strategy.
//!
//! A write passes through here in this order: [`Strategy::decode`] → [`Strategy::default`] → (admission)
//! → [`lifecycle::before_create`] or [`lifecycle::before_update`] → [`Object::encode`].

pub mod catalogue;
pub mod decode;
pub mod discovery;
pub mod field;
pub mod kinds;
pub mod lifecycle;
pub mod meta;
pub mod object;
pub mod openapi;
pub mod patch;
pub mod pod;
pub mod quantity;
pub mod schema;
pub mod selector;
pub mod status;
pub mod storage;
pub mod strategy;
pub mod table;

pub use catalogue::{Catalogue, Resource, Subresource, Verb};
pub use decode::{Decoded, FieldValidation, Format};
pub use field::{FieldError, Path};
pub use object::{Encoded, Object};
pub use status::Status;
pub use strategy::{Grace, Strategy, Typed, TypedStrategy};
pub use table::Column;

/// The types of Kubernetes v1.36, as every room names them.
pub use k8s_openapi;
