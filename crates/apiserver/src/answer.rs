//! What a verb answers, before it takes the form that the client wants.

use std::sync::Arc;

use api::Status;
use bytes::Bytes;
use http::Response;
use store::Entry;

use crate::{Body, registry::watch::Events};

/// The answer to a request.
pub(crate) struct Answer {
    /// The HTTP status.
    pub code: u16,
    /// The texts of `Warning` headers.
    pub warnings: Vec<String>,
    pub content: Content,
}

/// What is answered.
pub(crate) enum Content {
    /// One object of the call's resource, as it is stored.
    Object(Bytes),
    /// Objects of the call's resource.
    List(List),
    /// Their changes.
    Watch(Events),
    /// A JSON object of another kind: it has no table and is never cut down to its metadata.
    Other(Bytes),
    /// How it went.
    Status(Status),
    /// An answer that somebody else has given.
    Response(Response<Body>),
}

/// Objects, and what is said of them together.
pub(crate) struct List {
    pub entries: Vec<Arc<Entry>>,
    /// The revision that the list shows.
    pub revision: u64,
    /// Where the next page begins, when there is one.
    pub next: Option<String>,
    /// How many objects follow this page, when that is known.
    pub remaining: Option<u64>,
}

impl Answer {
    pub const fn new(code: u16, content: Content) -> Self {
        Self {
            code,
            warnings: Vec::new(),
            content,
        }
    }

    /// 200 with one object.
    pub const fn object(bytes: Bytes) -> Self {
        Self::new(200, Content::Object(bytes))
    }

    pub fn warning(mut self, warnings: Vec<String>) -> Self {
        self.warnings = warnings;
        self
    }
}

impl From<Status> for Answer {
    fn from(status: Status) -> Self {
        // A success of 200 does not say so in its body.
        let succeeded = status.as_meta().status.as_deref() == Some("Success");
        let code = if succeeded && status.as_meta().code.is_none() {
            200
        } else {
            status.code()
        };
        Self::new(code, Content::Status(status))
    }
}
