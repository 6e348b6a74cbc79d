//! What a probe or a hook does: run a command in the container, or ask it over the network.

use std::time::Duration;

use cri::RuntimeService;
use cri::v1::ExecSyncRequest;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, ExecAction, GRPCAction, HTTPGetAction, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;

mod tls;

/// As much of an answer as a message shows.
const LONGEST_OUTPUT: usize = 10 << 10;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// As wanted.
    Success,
    /// Not as wanted, with what was seen.
    Failure(String),
    /// It could not be done at all.
    Error(String),
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
    /// Its spec, for the names of ports.
    pub container: &'a Container,
    /// The pod's address.
    pub ip: &'a str,
}

/// The number of a port that may be given by the name it has in the container.
fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = container
                .ports
                .iter()
                .flatten()
                .find(|port| port.name.as_ref() == Some(name));
            named.map(|port| port.container_port).or_else(|| name.parse().ok())
        }
    };
    let valid = number
        .and_then(|number| u16::try_from(number).ok())
        .filter(|number| *number > 0);
    valid.ok_or_else(|| match port {
        IntOrString::Int(number) => format!("invalid port number: {number}"),
        IntOrString::String(name) => format!("couldn't find port: {name:?}"),
    })
}

/// `host:port`, an IPv6 address in brackets.
fn join(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

impl Handler<'_> {
    /// Does it, within the time.
    pub async fn run(&self, runtime: &dyn RuntimeService, target: &Target<'_>, timeout: Duration) -> Outcome {
        let done = match self {
            Handler::Exec(action) => return exec(runtime, target.id, action, timeout).await,
            Handler::Http(action) => http(action, target, timeout).await,
            Handler::Tcp(action) => {
                let host = action
                    .host
                    .as_deref()
                    .filter(|host| !host.is_empty())
                    .unwrap_or(target.ip);
                match port(&action.port, target.container) {
                    Ok(port) => connect(&join(host, port), timeout).await.map(drop),
                    Err(error) => return Outcome::Error(error),
                }
            }
            Handler::Grpc(action) => grpc(action, target.ip, timeout).await,
        };
        done.map_or_else(Outcome::Failure, |()| Outcome::Success)
    }
}

async fn exec(runtime: &dyn RuntimeService, id: &str, action: &ExecAction, timeout: Duration) -> Outcome {
    let request = ExecSyncRequest {
        container_id: id.to_owned(),
        cmd: action.command.clone().unwrap_or_default(),
        timeout: timeout.as_secs() as i64,
    };
    match runtime.exec_sync(request).await {
        Ok(answer) if answer.exit_code == 0 => Outcome::Success,
        Ok(answer) => {
            let mut output = answer.stdout;
            output.extend_from_slice(&answer.stderr);
            output.truncate(LONGEST_OUTPUT);
            Outcome::Failure(String::from_utf8_lossy(&output).into_owned())
        }
        Err(error) if error.code == cri::Code::DeadlineExceeded => {
            let command = action
                .command
                .iter()
                .flatten()
                .map(|word| format!("{word:?}"))
                .collect::<Vec<_>>()
                .join(" ");
            Outcome::Failure(format!(
                "command timed out: [{command}] timed out after {}",
                crate::words::duration(timeout)
            ))
        }
        Err(error) => Outcome::Error(error.to_string()),
    }
}

/// The message is Go's, as it reaches events.
async fn connect(address: &str, timeout: Duration) -> Result<TcpStream, String> {
    match tokio::time::timeout(timeout, TcpStream::connect(address)).await {
        Err(_) => Err(format!("dial tcp {address}: i/o timeout")),
        Ok(Err(error)) => {
            let said = match error.kind() {
                std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
                std::io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
                std::io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
                _ => error.to_string(),
            };
            Err(format!("dial tcp {address}: {said}"))
        }
        Ok(Ok(stream)) => Ok(stream),
    }
}

async fn http(action: &HTTPGetAction, target: &Target<'_>, timeout: Duration) -> Result<(), String> {
    let port = port(&action.port, target.container)?;
    let host = action
        .host
        .as_deref()
        .filter(|host| !host.is_empty())
        .unwrap_or(target.ip);
    let secure = action
        .scheme
        .as_deref()
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
    let address = join(host, port);
    let path = action.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    };
    let url = format!("{}://{address}{path}", if secure { "https" } else { "http" });
    let failed = |said: String| format!("Get {url:?}: {said}");
    let asked = async {
        let stream = connect(&address, timeout).await.map_err(&failed)?;
        let request = request(action, &address, &path).map_err(&failed)?;
        let answer = if secure {
            let stream = tls::connect(stream, host)
                .await
                .map_err(|error| failed(error.to_string()))?;
            send(TokioIo::new(stream), request).await
        } else {
            send(TokioIo::new(stream), request).await
        };
        answer.map_err(|error| failed(error.to_string()))
    };
    let status = match tokio::time::timeout(timeout, asked).await {
        Ok(answer) => answer?,
        Err(_) => {
            return Err(failed(
                "context deadline exceeded (Client.Timeout exceeded while awaiting headers)".into(),
            ));
        }
    };
    match status.as_u16() {
        200..400 => Ok(()),
        code => Err(format!("HTTP probe failed with statuscode: {code}")),
    }
}

fn request(action: &HTTPGetAction, address: &str, path: &str) -> Result<http::Request<Empty<Bytes>>, String> {
    let mut request = http::Request::get(path);
    let headers = action.http_headers.as_deref().unwrap_or_default();
    let own = |name: &str| headers.iter().any(|header| header.name.eq_ignore_ascii_case(name));
    for (name, value) in [
        ("host", address),
        ("user-agent", "kube-probe/1.36"),
        ("accept", "*/*"),
        ("connection", "close"),
    ] {
        if !own(name) {
            request = request.header(name, value);
        }
    }
    for header in headers.iter().filter(|header| !header.value.is_empty()) {
        request = request.header(&header.name, &header.value);
    }
    request.body(Empty::new()).map_err(|error| error.to_string())
}

async fn send<S>(stream: S, request: http::Request<Empty<Bytes>>) -> Result<http::StatusCode, hyper::Error>
where
    S: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    let ask = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        // The container may count on its answer being read.
        let _ = Limited::new(answer.into_body(), LONGEST_OUTPUT).collect().await;
        Ok(status)
    };
    tokio::pin!(ask);
    tokio::select! {
        answer = &mut ask => answer,
        ended = connection => match ended {
            Err(error) => Err(error),
            Ok(()) => ask.await,
        },
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

async fn grpc(action: &GRPCAction, ip: &str, timeout: Duration) -> Result<(), String> {
    const SERVING: i32 = 1;
    let address = join(
        ip,
        u16::try_from(action.port).map_err(|_| format!("invalid port number: {}", action.port))?,
    );
    let service = action.service.clone().unwrap_or_default();
    let late = || {
        format!(
            "timeout: failed to connect service {address:?} within {}: context deadline exceeded",
            crate::words::duration(timeout)
        )
    };
    let endpoint =
        tonic::transport::Endpoint::from_shared(format!("http://{address}")).map_err(|error| error.to_string())?;
    let asked = async {
        let channel = endpoint.connect().await.map_err(|_| late())?;
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.map_err(|_| late())?;
        let path = http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/Check");
        let codec: tonic_prost::ProstCodec<HealthCheckRequest, HealthCheckResponse> =
            tonic_prost::ProstCodec::default();
        let answer = client
            .unary(tonic::Request::new(HealthCheckRequest { service }), path, codec)
            .await;
        answer
            .map(|answer| answer.into_inner().status)
            .map_err(|status| format!("service unhealthy (responded with {status})"))
    };
    match tokio::time::timeout(timeout, asked).await {
        Err(_) => Err(late()),
        Ok(Err(error)) => Err(error),
        Ok(Ok(SERVING)) => Ok(()),
        Ok(Ok(status)) => {
            let name = match status {
                0 => "UNKNOWN".to_owned(),
                2 => "NOT_SERVING".to_owned(),
                3 => "SERVICE_UNKNOWN".to_owned(),
                other => other.to_string(),
            };
            Err(format!("service unhealthy (responded with {name:?})"))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one request on a port of the loopback, and returns what it was asked.
    async fn answering(answer: &'static str) -> (u16, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = vec![0; 4096];
            let read = stream.read(&mut buffer).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&buffer[..read]).into_owned()
        });
        (port, task)
    }

    fn container(port: u16) -> Container {
        serde_json::from_value(json!({"name": "c", "ports": [{"name": "web", "containerPort": port}]})).unwrap()
    }

    #[tokio::test]
    async fn a_request_is_judged_by_its_status() {
        let cases = [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", Ok(())),
            ("HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n", Ok(())),
            (
                "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n",
                Err("HTTP probe failed with statuscode: 503".to_owned()),
            ),
        ];
        for (answer, expected) in cases {
            let (port, asked) = answering(answer).await;
            let container = container(port);
            let target = Target {
                id: "",
                container: &container,
                ip: "127.0.0.1",
            };
            let action = serde_json::from_value(
                json!({"port": "web", "path": "/healthz", "httpHeaders": [{"name": "X-A", "value": "b"}]}),
            )
            .unwrap();
            assert_eq!(http(&action, &target, Duration::from_secs(5)).await, expected);
            let asked = asked.await.unwrap();
            assert!(
                asked.starts_with("GET /healthz HTTP/1.1\r\n")
                    && asked.contains("kube-probe/1.36")
                    && asked.contains("b\r\n"),
                "{asked}"
            );
        }
    }

    #[tokio::test]
    async fn a_closed_port_is_said_in_gos_words() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let container = container(port);
        let target = Target {
            id: "",
            container: &container,
            ip: "127.0.0.1",
        };
        let action = serde_json::from_value(json!({"port": "web"})).unwrap();
        let refused = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
        let said = http(&action, &target, Duration::from_secs(5)).await;
        assert_eq!(said, Err(format!("Get \"http://127.0.0.1:{port}/\": {refused}")));
        assert_eq!(
            connect(&join("127.0.0.1", port), Duration::from_secs(5))
                .await
                .map(drop),
            Err(refused)
        );
    }

    #[test]
    fn ports_by_name_and_number() {
        let container = container(8080);
        assert_eq!(port(&IntOrString::String("web".into()), &container), Ok(8080));
        assert_eq!(
            port(&IntOrString::Int(70_000), &container),
            Err("invalid port number: 70000".into())
        );
        assert_eq!(
            port(&IntOrString::String("db".into()), &container),
            Err("couldn't find port: \"db\"".into())
        );
    }
}
