//! Label and field selectors: which objects a list, a watch or a controller means.

mod fields;
mod labels;
mod parse;

pub use fields::{FieldSelector, FieldTerm};
pub use labels::{LabelSelector, Operator, Requirement};

/// A text or an object is no selector, in upstream's words. It becomes a 400 for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub(crate) String);

impl From<SelectorError> for crate::Status {
    fn from(error: SelectorError) -> Self {
        crate::status::bad_request(error.0)
    }
}
