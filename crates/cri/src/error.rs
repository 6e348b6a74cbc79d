//! The one error of the interface: a gRPC code and a message.

pub use tonic::Code;
use tonic::Status;

/// The result of every call of the interface.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong in a call. It prints as gRPC clients in Go print it, because that is the text which
/// Kubernetes puts into events and statuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rpc error: code = {} desc = {message}", name(*code))]
pub struct Error {
    /// The kind of failure, for programs.
    pub code: Code,
    /// The failure, for people.
    pub message: String,
}

impl Error {
    /// An error of any code.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// The named sandbox, container or image does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, message)
    }

    /// The request itself is wrong.
    pub fn invalid_argument(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    /// The state of the object does not allow the call.
    pub fn failed_precondition(message: impl Into<String>) -> Self {
        Self::new(Code::FailedPrecondition, message)
    }

    /// A failure with no better code. Kubernetes prints these without the code.
    pub fn unknown(message: impl Into<String>) -> Self {
        Self::new(Code::Unknown, message)
    }

    /// The runtime broke a promise of its own.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, message)
    }

    /// The call took longer than its caller allowed.
    pub fn deadline_exceeded(message: impl Into<String>) -> Self {
        Self::new(Code::DeadlineExceeded, message)
    }

    /// The runtime does not have this call, named as in the service: `CheckpointContainer`.
    pub fn unimplemented(call: &str) -> Self {
        Self::new(Code::Unimplemented, format!("method {call} not implemented"))
    }

    /// Whether the object asked for does not exist, which a caller that removes takes for success.
    pub fn is_not_found(&self) -> bool {
        self.code == Code::NotFound
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::new(status.code(), status.message())
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        Status::new(error.code, error.message)
    }
}

/// The code as Go prints it.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}
