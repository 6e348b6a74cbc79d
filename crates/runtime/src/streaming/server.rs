//! The HTTP server, and the CRI calls that hand out its addresses.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use cri::streaming::{Session, StreamingRuntime, Timeouts, Wanted, serve};
use cri::v1::{AttachRequest, AttachResponse, ExecRequest, ExecResponse, PortForwardRequest, PortForwardResponse};
use cri::{Code, Error};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::bridge::Bridge;
use super::tokens::Tokens;
use crate::Sessions;

/// The streaming server; it listens for as long as this lives.
pub struct StreamingServer {
    address: SocketAddr,
    tokens: Arc<Mutex<Tokens>>,
    _listens: DropGuard,
}

impl StreamingServer {
    /// Listens on a free port of loopback for sessions with what `sessions` opens.
    pub async fn start(sessions: Arc<dyn Sessions>) -> io::Result<StreamingServer> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let tokens = Arc::new(Mutex::new(Tokens::default()));
        let stop = CancellationToken::new();
        let runtime: Arc<dyn StreamingRuntime> = Arc::new(Bridge::new(sessions));
        let accepting = accept(listener, tokens.clone(), runtime);
        tokio::spawn(stop.clone().run_until_cancelled_owned(accepting));
        Ok(StreamingServer {
            address,
            tokens,
            _listens: stop.drop_guard(),
        })
    }

    /// Where to open a session with a new process.
    pub fn exec(&self, request: ExecRequest) -> Result<ExecResponse, Error> {
        let session = exec_session(request)?;
        Ok(ExecResponse {
            url: self.url("exec", session)?,
        })
    }

    /// Where to open a session with a container's own process.
    pub fn attach(&self, request: AttachRequest) -> Result<AttachResponse, Error> {
        let session = attach_session(request)?;
        Ok(AttachResponse {
            url: self.url("attach", session)?,
        })
    }

    /// Where to open connections to ports of a sandbox.
    pub fn port_forward(&self, request: PortForwardRequest) -> Result<PortForwardResponse, Error> {
        let session = port_forward_session(request)?;
        Ok(PortForwardResponse {
            url: self.url("portforward", session)?,
        })
    }

    fn url(&self, verb: &str, session: Session) -> Result<String, Error> {
        let token = self
            .tokens
            .lock()
            .insert(session, Instant::now())
            .ok_or_else(|| Error::new(Code::ResourceExhausted, "maximum number of in-flight requests exceeded"))?;
        Ok(format!("http://{}/{verb}/{token}", self.address))
    }
}

fn exec_session(request: ExecRequest) -> Result<Session, Error> {
    let ExecRequest {
        container_id,
        cmd,
        tty,
        stdin,
        stdout,
        stderr,
        ..
    } = request;
    let wanted = wanted(
        &container_id,
        Wanted {
            stdin,
            stdout,
            stderr,
            tty,
        },
    )?;
    Ok(Session::Exec {
        container_id,
        command: cmd,
        wanted,
    })
}

fn attach_session(request: AttachRequest) -> Result<Session, Error> {
    let AttachRequest {
        container_id,
        tty,
        stdin,
        stdout,
        stderr,
        ..
    } = request;
    let wanted = wanted(
        &container_id,
        Wanted {
            stdin,
            stdout,
            stderr,
            tty,
        },
    )?;
    Ok(Session::Attach { container_id, wanted })
}

fn wanted(container_id: &str, wanted: Wanted) -> Result<Wanted, Error> {
    if container_id.is_empty() {
        return Err(Error::invalid_argument("missing required container_id"));
    }
    if wanted.tty && wanted.stderr {
        return Err(Error::invalid_argument("tty and stderr cannot both be true"));
    }
    if !wanted.stdin && !wanted.stdout && !wanted.stderr {
        return Err(Error::invalid_argument("one of stdin, stdout, or stderr must be set"));
    }
    Ok(wanted)
}

fn port_forward_session(request: PortForwardRequest) -> Result<Session, Error> {
    let PortForwardRequest { pod_sandbox_id, port } = request;
    if pod_sandbox_id.is_empty() {
        return Err(Error::invalid_argument("missing required pod_sandbox_id"));
    }
    let number = |port| match u16::try_from(port) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(Error::invalid_argument(format!(
            "port {port} is not between 1 and 65535"
        ))),
    };
    let ports = port.into_iter().map(number).collect::<Result<_, _>>()?;
    Ok(Session::PortForward { pod_sandbox_id, ports })
}

async fn accept(listener: TcpListener, tokens: Arc<Mutex<Tokens>>, runtime: Arc<dyn StreamingRuntime>) {
    loop {
        match listener.accept().await {
            Ok((connection, _)) => {
                tokio::spawn(answer(connection, tokens.clone(), runtime.clone()));
            }
            Err(error) => {
                // Out of file descriptors, most likely; those that are open must end first.
                tracing::warn!(%error, "streaming server cannot accept a connection");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(connection: TcpStream, tokens: Arc<Mutex<Tokens>>, runtime: Arc<dyn StreamingRuntime>) {
    // Key presses should not wait for each other.
    if let Err(error) = connection.set_nodelay(true) {
        tracing::debug!(%error, "streaming connection keeps its delay");
    }
    let service = service_fn(|request: Request<Incoming>| {
        let response = respond(&tokens, runtime.clone(), request);
        async move { Ok::<_, Infallible>(response) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(connection), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "streaming request failed");
    }
}

fn respond(
    tokens: &Mutex<Tokens>,
    runtime: Arc<dyn StreamingRuntime>,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let plain = |status: StatusCode, text: &'static str| {
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status;
        response
    };
    if !matches!(*request.method(), Method::GET | Method::POST) {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed\n");
    }
    let token = match request.uri().path().split('/').collect::<Vec<_>>()[..] {
        ["", "exec" | "attach" | "portforward", token] => token,
        _ => return plain(StatusCode::NOT_FOUND, "404: Page Not Found\n"),
    };
    match tokens.lock().take(token, Instant::now()) {
        Some(session) => serve(runtime, session, Timeouts::default(), request),
        None => plain(StatusCode::NOT_FOUND, "404: Page Not Found\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(container_id: &str, tty: bool, streams: [bool; 3]) -> ExecRequest {
        let [stdin, stdout, stderr] = streams;
        ExecRequest {
            container_id: container_id.to_owned(),
            cmd: vec!["ls".to_owned()],
            tty,
            stdin,
            stdout,
            stderr,
            ..Default::default()
        }
    }

    #[test]
    fn what_exec_refuses() {
        for (request, message) in [
            (request("", false, [true; 3]), "missing required container_id"),
            (request("c", true, [true; 3]), "tty and stderr cannot both be true"),
            (
                request("c", false, [false; 3]),
                "one of stdin, stdout, or stderr must be set",
            ),
        ] {
            assert_eq!(exec_session(request), Err(Error::invalid_argument(message)));
        }
    }

    #[test]
    fn what_port_forward_refuses() {
        for (pod_sandbox_id, port, message) in [
            ("", vec![80], "missing required pod_sandbox_id"),
            ("box", vec![80, 0], "port 0 is not between 1 and 65535"),
            ("box", vec![70000], "port 70000 is not between 1 and 65535"),
        ] {
            let request = PortForwardRequest {
                pod_sandbox_id: pod_sandbox_id.to_owned(),
                port,
            };
            assert_eq!(port_forward_session(request), Err(Error::invalid_argument(message)));
        }
    }
}
