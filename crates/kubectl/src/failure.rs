//! Why a command failed, said as upstream's kubectl says it, and the exit code that goes with it.

use std::error::Error as StdError;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;

/// The result of what a command does.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// A failed command.
#[derive(Debug, Clone)]
pub enum Failure {
    /// The command itself is wrong, or something on this machine.
    Message(String),
    /// As it is, where upstream's words do not begin with `error: `.
    Usage(String),
    /// The server said no.
    Status(Box<Status>),
    /// The server could not be reached.
    Unreachable {
        /// Its URL.
        server: String,
        /// What the connection said.
        reason: String,
    },
    /// Several at once, each already said in full.
    Several(Vec<Failure>),
    /// A remote command ended with a code of its own.
    Exit(i32),
    /// Everything was said already.
    Silent,
}

impl Failure {
    /// A failure with upstream's `error: ` before it.
    pub fn message(text: impl Into<String>) -> Self {
        Self::Message(text.into())
    }

    /// The same failure, saying what was being done with which file.
    pub fn while_doing(self, verb: &str, source: &str) -> Self {
        let prefix = |text: &str| format!("error when {verb} {source:?}: {text}");
        match self {
            Self::Message(text) => Self::Message(prefix(&text)),
            Self::Status(mut status) => {
                status.message = Some(prefix(status.message.as_deref().unwrap_or_default()));
                Self::Status(status)
            }
            other => other,
        }
    }

    /// Whether the server does not have what was asked for.
    pub fn is_not_found(&self) -> bool {
        self.is("NotFound")
    }

    /// Whether the server gave this reason.
    pub fn is(&self, reason: &str) -> bool {
        matches!(self, Self::Status(status) if status.reason.as_deref() == Some(reason))
    }

    /// What goes to standard error, with its line break; empty when all is said.
    pub fn text(&self) -> String {
        match self {
            Self::Message(text) if text.starts_with("error: ") => format!("{text}\n"),
            Self::Message(text) => format!("error: {text}\n"),
            Self::Usage(text) => format!("{text}\n"),
            Self::Status(status) => status_text(status),
            Self::Unreachable { server, reason } if reason.contains("refused") => format!(
                "The connection to the server {} was refused - did you specify the right host or port?\n",
                host(server)
            ),
            Self::Unreachable { reason, .. } => format!("Unable to connect to the server: {reason}\n"),
            Self::Several(failures) => failures.iter().map(Self::text).collect(),
            Self::Exit(code) => format!("command terminated with exit code {code}\n"),
            Self::Silent => String::new(),
        }
    }

    /// The exit code of the process.
    pub fn code(&self) -> u8 {
        match self {
            Self::Exit(code) => u8::try_from(*code).unwrap_or(1),
            _ => 1,
        }
    }
}

fn status_text(status: &Status) -> String {
    let message = status.message.as_deref().unwrap_or_default();
    let reason = status.reason.as_deref().unwrap_or_default();
    match reason {
        "Invalid" => invalid_text(status),
        "Unauthorized" => format!("error: You must be logged in to the server ({message})\n"),
        "" => format!("Error from server: {message}\n"),
        reason => format!("Error from server ({reason}): {message}\n"),
    }
}

fn invalid_text(status: &Status) -> String {
    let details = status.details.clone().unwrap_or_default();
    let (kind, name) = (details.kind.unwrap_or_default(), details.name.unwrap_or_default());
    let causes = details.causes.unwrap_or_default();
    let subject = if !kind.is_empty() || !name.is_empty() {
        format!("The {kind} {name:?} is invalid")
    } else if causes.is_empty() && status.message.is_some() {
        let message = status.message.as_deref().unwrap_or_default();
        format!("The request is invalid: {message}")
    } else {
        "The request is invalid".to_owned()
    };
    let mut lines: Vec<String> = Vec::new();
    for cause in causes {
        let (field, message) = (cause.field.unwrap_or_default(), cause.message.unwrap_or_default());
        let line = format!("{field}: {message}");
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    match lines.as_slice() {
        [] => format!("{subject}\n"),
        [only] => format!("{subject}: {only}\n"),
        lines => {
            let lines: String = lines.iter().map(|line| format!("* {line}\n")).collect();
            format!("{subject}: \n{lines}")
        }
    }
}

fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

/// The innermost reason of an error, which is what went wrong.
pub fn root_cause(error: &(dyn StdError + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(status: serde_json::Value) -> String {
        let status = serde_json::from_value(status).unwrap_or_default();
        Failure::Status(Box::new(status)).text()
    }

    #[test]
    fn as_upstream_says() {
        assert_eq!(
            said(json!({"reason": "NotFound", "message": "pods \"x\" not found"})),
            "Error from server (NotFound): pods \"x\" not found\n"
        );
        assert_eq!(
            said(
                json!({"reason": "Invalid", "message": "…", "details": {"kind": "Pod", "name": "x", "causes": [
                {"field": "spec.containers[0].name", "message": "Required value"}]}})
            ),
            "The Pod \"x\" is invalid: spec.containers[0].name: Required value\n"
        );
        assert_eq!(
            said(
                json!({"reason": "Invalid", "message": "…", "details": {"kind": "Pod", "name": "x", "causes": [
                {"field": "a", "message": "Required value"}, {"field": "b", "message": "Forbidden"}]}})
            ),
            "The Pod \"x\" is invalid: \n* a: Required value\n* b: Forbidden\n"
        );
        let refused = Failure::Unreachable {
            server: "https://127.0.0.1:6443/".into(),
            reason: "Connection refused (os error 111)".into(),
        };
        assert_eq!(
            refused.text(),
            "The connection to the server 127.0.0.1:6443 was refused - did you specify the right host or port?\n"
        );
        assert_eq!(Failure::message("error: x").text(), "error: x\n");
        assert_eq!(Failure::Exit(3).text(), "command terminated with exit code 3\n");
    }
}
