//! How a session ended, in the words of its error stream.
//!
//! From protocol version 4 on it is a `Status` object in JSON, from which the client takes the exit code; before
//! that it is the message of a failure, and nothing for success.

use serde::Serialize;

use super::SessionError;

#[derive(Debug, Serialize)]
pub(crate) struct Status {
    metadata: Metadata,
    status: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
}

#[derive(Debug, Serialize)]
struct Metadata {}

#[derive(Debug, Serialize)]
struct Details {
    causes: Vec<Cause>,
}

#[derive(Debug, Serialize)]
struct Cause {
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'static str,
    message: String,
}

impl Status {
    pub(crate) fn success() -> Status {
        Status {
            metadata: Metadata {},
            status: "Success",
            message: String::new(),
            reason: "",
            details: None,
            code: None,
        }
    }

    /// How `command` ended.
    pub(crate) fn of_exec(result: Result<i32, SessionError>, command: &[String]) -> Status {
        match result {
            Ok(0) => Status::success(),
            Ok(code) => Status {
                message: format!(
                    "command terminated with non-zero exit code: error executing command [{}], exit code {code}",
                    command.join(" ")
                ),
                ..Status::failure(
                    "NonZeroExitCode",
                    Cause {
                        reason: "ExitCode",
                        message: code.to_string(),
                    },
                )
            },
            Err(error) => Status::internal(format!("error executing command in container: {error}")),
        }
    }

    /// How attaching ended.
    pub(crate) fn of_attach(result: Result<(), SessionError>) -> Status {
        match result {
            Ok(()) => Status::success(),
            Err(error) => Status::internal(format!("error attaching to container: {error}")),
        }
    }

    fn failure(reason: &'static str, cause: Cause) -> Status {
        Status {
            status: "Failure",
            reason,
            details: Some(Details { causes: vec![cause] }),
            ..Status::success()
        }
    }

    fn internal(error: String) -> Status {
        Status {
            message: format!("Internal error occurred: {error}"),
            code: Some(500),
            ..Status::failure(
                "InternalError",
                Cause {
                    reason: "",
                    message: error,
                },
            )
        }
    }

    /// What the error stream carries in this version of the protocol.
    pub(crate) fn encode(&self, version: u8) -> Vec<u8> {
        if version < 4 {
            return self.message.clone().into_bytes();
        }
        serde_json::to_vec(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_each_version() {
        let command = ["sh".to_owned(), "-c".to_owned(), "exit 3".to_owned()];
        let refused = || Err(SessionError::new("no such thing"));
        for (status, version, expected) in [
            (
                Status::of_exec(Ok(0), &command),
                4,
                r#"{"metadata":{},"status":"Success"}"#,
            ),
            (Status::of_exec(Ok(0), &command), 3, ""),
            (
                Status::of_exec(Ok(3), &command),
                5,
                r#"{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code: error executing command [sh -c exit 3], exit code 3","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#,
            ),
            (
                Status::of_exec(Err(SessionError::new("no such thing")), &command),
                4,
                r#"{"metadata":{},"status":"Failure","message":"Internal error occurred: error executing command in container: no such thing","reason":"InternalError","details":{"causes":[{"message":"error executing command in container: no such thing"}]},"code":500}"#,
            ),
            (
                Status::of_attach(refused()),
                1,
                "Internal error occurred: error attaching to container: no such thing",
            ),
        ] {
            assert_eq!(String::from_utf8_lossy(&status.encode(version)), expected);
        }
    }
}
