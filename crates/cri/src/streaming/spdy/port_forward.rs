//! Port-forward over SPDY: each connection is a data and an error stream that name the same request.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::remote_command::STREAM_TYPE;
use super::{Headers, Role, Session, Stream};
use crate::streaming::{StreamingRuntime, Timeouts, forward_error};

/// The protocol.
pub(crate) const PROTOCOL: &str = "portforward.k8s.io";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Data,
    Error,
}

/// What a stream is for.
#[derive(Debug, PartialEq, Eq)]
struct Purpose {
    kind: Kind,
    port: u16,
    request: String,
}

/// Reads the headers of a new stream.
fn purpose(id: u32, headers: &Headers) -> Result<Purpose, String> {
    let port = headers
        .get("port")
        .filter(|port| !port.is_empty())
        .ok_or(r#""port" header is required"#)?;
    let port = match port.parse::<i64>() {
        Ok(number) if number < 1 => return Err(format!("port {port:?} must be > 0")),
        Ok(number) => {
            u16::try_from(number).map_err(|_| format!("unable to parse {port:?} as a port: value out of range"))?
        }
        Err(_) => {
            return Err(format!("unable to parse {port:?} as a port: invalid syntax"));
        }
    };
    let kind = match headers.get(STREAM_TYPE).unwrap_or_default() {
        "data" => Kind::Data,
        "error" => Kind::Error,
        "" => return Err(r#""streamType" header is required"#.to_owned()),
        other => return Err(format!("invalid stream type {other:?}")),
    };
    let request = match headers.get("requestid").filter(|request| !request.is_empty()) {
        Some(request) => request.to_owned(),
        // The oldest clients name no request, and open the error stream just before the data stream.
        None => match kind {
            Kind::Error => id.to_string(),
            Kind::Data => id.saturating_sub(2).to_string(),
        },
    };
    Ok(Purpose { kind, port, request })
}

/// A connection of which a stream is still missing.
struct Half {
    kind: Kind,
    stream: Stream,
    deadline: Instant,
}

/// Serves one session on a connection that has been upgraded, or inside a tunnel.
pub(crate) async fn serve<T>(io: T, runtime: Arc<dyn StreamingRuntime>, pod_sandbox_id: String, timeouts: Timeouts)
where
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    let (session, mut opened) = Session::start(io, Role::Server, timeouts.idle);
    let mut halves: HashMap<String, Half> = HashMap::new();
    let mut forwards = JoinSet::new();
    loop {
        let deadline = halves.values().map(|half| half.deadline).min();
        tokio::select! {
            new = opened.recv() => {
                let Some(new) = new else { break };
                let purpose = match purpose(new.stream.id, &new.stream.headers) {
                    Ok(purpose) => purpose,
                    Err(reason) => {
                        tracing::debug!(reason, "port-forward stream is refused");
                        session.refuse(new).await;
                        continue;
                    }
                };
                if halves.get(&purpose.request).is_some_and(|half| half.kind == purpose.kind) {
                    tracing::debug!(request = purpose.request, "port-forward stream is already assigned");
                    session.refuse(new).await;
                    continue;
                }
                let stream = session.accept(new).await;
                match halves.remove(&purpose.request) {
                    None => {
                        let deadline = Instant::now() + timeouts.stream_creation;
                        halves.insert(purpose.request, Half { kind: purpose.kind, stream, deadline });
                    }
                    Some(other) => {
                        let (data, error) = match purpose.kind {
                            Kind::Data => (stream, other.stream),
                            Kind::Error => (other.stream, stream),
                        };
                        let (runtime, sandbox) = (runtime.clone(), pod_sandbox_id.clone());
                        forwards.spawn(forward(session.clone(), runtime, sandbox, purpose.port, data, error));
                    }
                }
            }
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                let now = Instant::now();
                for (request, half) in halves.extract_if(|_, half| half.deadline <= now) {
                    forwards.spawn(give_up(session.clone(), request, half));
                }
            }
            Some(_) = forwards.join_next() => {}
        }
    }
    // The client opens no more; connections that stand go on until they end or it is lost.
    while forwards.join_next().await.is_some() {}
    session.close().await;
}

/// One connection, from its two streams to both being finished.
async fn forward(
    session: Session,
    runtime: Arc<dyn StreamingRuntime>,
    pod_sandbox_id: String,
    port: u16,
    data: Stream,
    mut error: Stream,
) {
    let data_id = data.id;
    tokio::select! {
        result = runtime.port_forward(&pod_sandbox_id, port, Box::new(data)) => if let Err(reason) = result {
            // A client that is lost cannot be told.
            let _ = error.write_all(forward_error(&pod_sandbox_id, port, &reason).as_bytes()).await;
        },
        () = session.lost().cancelled() => {}
    }
    session.finish(data_id).await;
    session.finish(error.id).await;
}

/// Tells the client, where there is a stream for it, that the other stream never came.
async fn give_up(session: Session, request: String, mut half: Half) {
    tracing::debug!(request, "timed out waiting for port-forward streams");
    if half.kind == Kind::Error {
        let message = format!("(request={request}) timed out waiting for streams");
        let _ = half.stream.write_all(message.as_bytes()).await;
    }
    session.finish(half.stream.id).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_streams() {
        let told = |kind, port, request: &str| {
            Ok(Purpose {
                kind,
                port,
                request: request.to_owned(),
            })
        };
        let refused = |reason: &str| Err(reason.to_owned());
        for (headers, expected) in [
            (
                Headers::of([("port", "80"), ("streamtype", "data"), ("requestid", "7")]),
                told(Kind::Data, 80, "7"),
            ),
            (
                Headers::of([("port", "80"), ("streamtype", "error")]),
                told(Kind::Error, 80, "5"),
            ),
            (
                Headers::of([("port", "80"), ("streamtype", "data")]),
                told(Kind::Data, 80, "3"),
            ),
            (
                Headers::of([("streamtype", "data")]),
                refused(r#""port" header is required"#),
            ),
            (Headers::of([("port", "0")]), refused(r#"port "0" must be > 0"#)),
            (
                Headers::of([("port", "x")]),
                refused(r#"unable to parse "x" as a port: invalid syntax"#),
            ),
            (
                Headers::of([("port", "65536")]),
                refused(r#"unable to parse "65536" as a port: value out of range"#),
            ),
            (
                Headers::of([("port", "80")]),
                refused(r#""streamType" header is required"#),
            ),
            (
                Headers::of([("port", "80"), ("streamtype", "stdin")]),
                refused(r#"invalid stream type "stdin""#),
            ),
        ] {
            assert_eq!(purpose(5, &headers), expected, "{headers:?}");
        }
    }
}
