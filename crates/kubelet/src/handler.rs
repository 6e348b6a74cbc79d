//! What a probe or a hook does: run a command in the container, or ask it over the network. What came of it is said in upstream's words.

use std::time::Duration;

use cri::RuntimeService;
use k8s_openapi::api::core::v1::{Container, ExecAction, GRPCAction, HTTPGetAction, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::words;

mod dial;
mod exec;
mod grpc;
pub mod http;
mod place;
mod tls;

/// As much of an answer as is read, and as a message shows.
pub const LONGEST_OUTPUT: usize = 10 << 10;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// As wanted.
    Success,
    /// As wanted, but for what its user should know.
    Warning(String),
    /// Not as wanted, with what was seen.
    Failure(String),
    /// It could not be done, or not to its end.
    Error {
        /// What that leaves of the answer: `unknown`, or `failure`.
        state: &'static str,
        /// Why.
        error: String,
    },
}

impl Outcome {
    fn unknown(error: impl Into<String>) -> Self {
        Self::Error {
            state: "unknown",
            error: error.into(),
        }
    }
}

/// The thing to do.
pub enum Handler<'a> {
    /// A command.
    Exec(&'a ExecAction),
    /// A request.
    Http(&'a HTTPGetAction),
    /// A connection.
    Tcp(&'a TCPSocketAction),
    /// The health service.
    Grpc(&'a GRPCAction),
}

/// The container it is done to.
pub struct Target<'a> {
    /// The runtime's id.
    pub id: &'a str,
    /// Its spec, for the names of ports and the variables in commands.
    pub container: &'a Container,
    /// The pod's address.
    pub ip: &'a str,
}

impl Handler<'_> {
    /// Does it, within the time.
    pub async fn run(&self, runtime: &dyn RuntimeService, target: &Target<'_>, timeout: Duration) -> Outcome {
        match self {
            Handler::Exec(action) => exec::run(runtime, target, action, timeout).await,
            Handler::Http(action) => http::probe(action, target, timeout).await,
            Handler::Tcp(action) => {
                let host = action.host.as_deref().filter(|host| !host.is_empty());
                match port(&action.port, target.container) {
                    Ok(port) => match dial::dial(&place::join(host.unwrap_or(target.ip), port), timeout).await {
                        Ok(_) => Outcome::Success,
                        Err(error) => Outcome::Failure(error),
                    },
                    Err(error) => Outcome::unknown(error),
                }
            }
            Handler::Grpc(action) => grpc::check(action, target.ip, timeout).await,
        }
    }
}

/// The number of a port that may be given by the name it has in the container.
fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            match ports.find(|port| port.name.as_ref() == Some(name)) {
                Some(port) => port.container_port,
                None => name
                    .parse()
                    .map_err(|_| format!("strconv.Atoi: parsing {}: invalid syntax", words::quote(name)))?,
            }
        }
    };
    u16::try_from(number)
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(|| format!("invalid port number: {number}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_by_name_and_number() {
        let container = Container {
            ports: serde_json::from_value(json!([{"name": "web", "containerPort": 8080}])).unwrap_or_default(),
            ..Container::default()
        };
        for (given, found) in [
            (IntOrString::String("web".into()), Ok(8080)),
            (IntOrString::String("81".into()), Ok(81)),
            (IntOrString::Int(70_000), Err("invalid port number: 70000")),
            (
                IntOrString::String("db".into()),
                Err("strconv.Atoi: parsing \"db\": invalid syntax"),
            ),
        ] {
            assert_eq!(port(&given, &container), found.map_err(str::to_owned));
        }
    }
}
