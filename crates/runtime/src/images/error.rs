//! What can go wrong with images, in the words that upstream's users know from events.

use std::io;
use std::path::{Path, PathBuf};

use super::layers::LayerError;
use super::reference::InvalidReference;
use super::registry::RegistryError;

/// The result of what images do.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of the image store, a pull or an import.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name that no image can have.
    #[error(transparent)]
    Reference(#[from] InvalidReference),
    /// The node does not have the image.
    #[error("image {0:?} not found")]
    NotFound(String),
    /// Another process has the store open.
    #[error("the image store {} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// The store on disk is not what this version writes.
    #[error("{}: {reason}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The kernel refused.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// Upon which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A pull failed.
    #[error("failed to pull and unpack image {reference:?}: {source}")]
    Pull {
        /// The full name of the image.
        reference: String,
        /// Why.
        source: Box<Incomplete>,
    },
    /// An archive could not be imported.
    #[error("import {}: {source}", archive.display())]
    Import {
        /// The archive's file.
        archive: PathBuf,
        /// Why.
        source: Box<Incomplete>,
    },
}

/// Why an image could not be brought in, wherever it came from.
#[derive(Debug, thiserror::Error)]
pub enum Incomplete {
    /// The registry did not give the manifest.
    #[error("failed to resolve reference {reference:?}: {source}")]
    Resolve {
        /// The full name of the image.
        reference: String,
        /// The registry's answer.
        source: RegistryError,
    },
    /// The registry did not give something the manifest names.
    #[error("failed to copy: {0}")]
    Fetch(RegistryError),
    /// The index has no manifest for this machine.
    #[error("no match for platform in manifest: not found")]
    Platform,
    /// A manifest or configuration is not what it should be.
    #[error("{0}")]
    Malformed(String),
    /// A layer could not be brought in.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] Box<Error>),
}

impl From<Error> for Incomplete {
    fn from(error: Error) -> Self {
        Self::Store(Box::new(error))
    }
}

impl Error {
    pub(super) fn io(operation: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io {
            operation,
            path,
            source,
        }
    }
}

impl From<Error> for cri::Error {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Reference(_) => cri::Code::InvalidArgument,
            Error::NotFound(_) => cri::Code::NotFound,
            Error::Pull { source, .. } | Error::Import { source, .. } => match &**source {
                Incomplete::Resolve {
                    source: RegistryError::NotFound(_),
                    ..
                }
                | Incomplete::Fetch(RegistryError::NotFound(_))
                | Incomplete::Platform => cri::Code::NotFound,
                Incomplete::Layer(LayerError::Digest { .. } | LayerError::Size { .. }) => cri::Code::FailedPrecondition,
                _ => cri::Code::Unknown,
            },
            _ => cri::Code::Unknown,
        };
        Self::new(code, error.to_string())
    }
}
