//! Exec and attach over SPDY: one stream for each of error, stdin, stdout, stderr and resize.
//!
//! All streams are bidirectional on the wire; each is used in one direction only.

use std::collections::HashMap;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::{NewStream, Role, Session, Stream};
use crate::streaming::remote_command::{RemoteCommand, protocol_version, terminal_sizes};
use crate::streaming::{Reader, Stdio, Timeouts, Wanted, Writer};

/// The header that says what a stream is for.
pub(crate) const STREAM_TYPE: &str = "streamtype";

/// The protocols, newest first.
pub(crate) const PROTOCOLS: &[&str] = &[
    "v4.channel.k8s.io",
    "v3.channel.k8s.io",
    "v2.channel.k8s.io",
    "channel.k8s.io",
];

/// The streams that the client of a protocol version opens.
pub(crate) fn expected(wanted: Wanted, version: u8) -> Vec<&'static str> {
    [
        ("error", true),
        ("stdin", wanted.stdin),
        ("stdout", wanted.stdout),
        ("stderr", wanted.stderr && !wanted.tty),
        ("resize", wanted.tty && version >= 3),
    ]
    .into_iter()
    .filter_map(|(name, there)| there.then_some(name))
    .collect()
}

/// Serves one session on a connection that has been upgraded.
pub(crate) async fn serve<T>(io: T, protocol: &str, remote: RemoteCommand, timeouts: Timeouts)
where
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    let version = protocol_version(protocol);
    let (session, mut opened) = Session::start(io, Role::Server, timeouts.idle);
    let names = expected(remote.wanted, version);
    let collected = tokio::time::timeout(timeouts.stream_creation, collect(&session, &mut opened, &names)).await;
    let mut streams = match collected {
        Ok(Some(streams)) => streams,
        Ok(None) => return,
        Err(_) => {
            tracing::debug!(?names, "timed out waiting for client to create streams");
            return session.close().await;
        }
    };
    // Whatever else the client opens is refused.
    drop(opened);

    let mut ids = Vec::new();
    let mut output = |name: &str| -> Option<Writer> {
        let stream = streams.remove(name)?;
        ids.push(stream.id);
        Some(Box::new(stream.split().1))
    };
    let (stdout, stderr, error) = (output("stdout"), output("stderr"), output("error"));
    let mut input = |name: &str| streams.remove(name).map(|stream| stream.split().0);
    let stdio = Stdio {
        stdin: input("stdin").map(|inbox| Box::new(inbox) as Reader),
        stdout,
        stderr,
        resize: input("resize").map(terminal_sizes),
        client_lost: session.lost().clone(),
    };
    let error_id = ids.pop();
    let status = remote.run(stdio).await;
    for id in ids {
        session.finish(id).await;
    }
    if let (Some(mut error), Some(id)) = (error, error_id) {
        // A client that is lost cannot be told.
        let _ = error.write_all(&status.encode(version)).await;
        session.finish(id).await;
    }
    session.close().await;
}

/// Waits until every stream of `names` is there; `None` when the connection is lost before.
async fn collect(
    session: &Session,
    opened: &mut mpsc::Receiver<NewStream>,
    names: &[&'static str],
) -> Option<HashMap<&'static str, Stream>> {
    let mut streams = HashMap::new();
    while streams.len() < names.len() {
        let new = opened.recv().await?;
        let name = new
            .stream
            .headers
            .get(STREAM_TYPE)
            .and_then(|name| names.iter().find(|have| **have == name));
        match name {
            Some(name) if !streams.contains_key(name) => {
                streams.insert(*name, session.accept(new).await);
            }
            _ => {
                tracing::debug!(headers = ?new.stream.headers, "unexpected stream type");
                session.refuse(new).await;
            }
        }
    }
    Some(streams)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_each_version() {
        let wanted = |stdin, stderr, tty| Wanted {
            stdin,
            stdout: true,
            stderr,
            tty,
        };
        for (wanted, version, names) in [
            (
                wanted(true, true, false),
                4,
                &["error", "stdin", "stdout", "stderr"][..],
            ),
            (wanted(true, true, true), 4, &["error", "stdin", "stdout", "resize"]),
            (wanted(false, false, true), 2, &["error", "stdout"]),
        ] {
            assert_eq!(expected(wanted, version), names);
        }
    }
}
