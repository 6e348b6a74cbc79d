//! From a request to a running session: negotiation, the answer, and the task that goes on after it.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper_util::rt::TokioIo;

use super::remote_command::{Command, RemoteCommand};
use super::upgrade::{Granted, Transport, negotiate, plain};
use super::websocket::port_forward::TUNNEL;
use super::{Session, StreamingRuntime, Timeouts, Wanted, spdy, websocket};

/// Answers a request to open `session`; when the answer is 101 (Switching Protocols), the session then runs in a task
/// of its own until it ends.
pub fn serve<B>(
    runtime: Arc<dyn StreamingRuntime>,
    session: Session,
    timeouts: Timeouts,
    mut request: Request<B>,
) -> Response<Full<Bytes>> {
    let (spdy_protocols, websocket_protocols) = match session {
        Session::Exec { .. } | Session::Attach { .. } => {
            (spdy::remote_command::PROTOCOLS, websocket::remote_command::PROTOCOLS)
        }
        Session::PortForward { .. } => (&[spdy::port_forward::PROTOCOL][..], websocket::port_forward::PROTOCOLS),
    };
    let Granted {
        transport,
        protocol,
        response,
    } = match negotiate(request.headers(), spdy_protocols, websocket_protocols) {
        Ok(granted) => granted,
        Err(refusal) => return *refusal,
    };
    if let Session::PortForward { ports, .. } = &session
        && transport == Transport::WebSocket
        && protocol != TUNNEL
        && (ports.is_empty() || ports.len() > usize::from(u8::MAX / 2))
    {
        return plain(
            StatusCode::BAD_REQUEST,
            r#"query parameter "port" is required, at most 127 times"#,
        );
    }
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => run(TokioIo::new(upgraded), transport, protocol, runtime, session, timeouts).await,
            Err(error) => tracing::debug!(%error, "streaming connection was not upgraded"),
        }
    });
    response
}

async fn run(
    io: TokioIo<hyper::upgrade::Upgraded>,
    transport: Transport,
    protocol: &'static str,
    runtime: Arc<dyn StreamingRuntime>,
    session: Session,
    timeouts: Timeouts,
) {
    let (command, wanted) = match session {
        Session::Exec {
            container_id,
            command,
            wanted,
        } => (Command::Exec { container_id, command }, wanted),
        Session::Attach { container_id, wanted } => (Command::Attach { container_id }, wanted),
        Session::PortForward { pod_sandbox_id, ports } => {
            return match transport {
                Transport::Spdy => spdy::port_forward::serve(io, runtime, pod_sandbox_id, timeouts).await,
                Transport::WebSocket if protocol == TUNNEL => {
                    let io = websocket::port_forward::tunnel(io).await;
                    spdy::port_forward::serve(io, runtime, pod_sandbox_id, timeouts).await;
                }
                Transport::WebSocket => {
                    websocket::port_forward::serve(io, protocol, runtime, pod_sandbox_id, ports, timeouts).await;
                }
            };
        }
    };
    // A terminal has one output.
    let wanted = Wanted {
        stderr: wanted.stderr && !wanted.tty,
        ..wanted
    };
    let remote = RemoteCommand {
        runtime,
        command,
        wanted,
    };
    match transport {
        Transport::Spdy => spdy::remote_command::serve(io, protocol, remote, timeouts).await,
        Transport::WebSocket => websocket::remote_command::serve(io, protocol, remote, timeouts).await,
    }
}
