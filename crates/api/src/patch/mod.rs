//! Patches: RFC 6902, RFC 7386 and strategic merge, as values in and a value out.

pub(crate) mod keys;

/// The merge keys of one kind, for strategic merge patches.
#[derive(Debug)]
pub struct MergeSchema {
    root: &'static str,
}

impl MergeSchema {
    /// The schema of a type, by its name in OpenAPI.
    pub const fn of(root: &'static str) -> Self {
        MergeSchema { root }
    }

    /// The type's name in OpenAPI.
    pub const fn root(&self) -> &'static str {
        self.root
    }
}
