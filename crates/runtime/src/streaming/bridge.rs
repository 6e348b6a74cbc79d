//! Between a client's streams and a process's: who copies what, and when a session is over.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use cri::streaming::{Connection, Reader, SessionError, Stdio, StreamingRuntime, TerminalSize, Writer};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::sync::mpsc;

use crate::{Command, Session, Sessions, Stream, Streams, Terminal};

/// What is read from a process at once: a pipe's whole content.
const COPY: usize = 64 * 1024;

/// Serves streaming sessions with what [`Sessions`] opens.
pub(super) struct Bridge {
    sessions: Arc<dyn Sessions>,
}

impl Bridge {
    pub(super) fn new(sessions: Arc<dyn Sessions>) -> Bridge {
        Bridge { sessions }
    }
}

fn streams(stdio: &Stdio, tty: bool) -> Streams {
    Streams {
        stdin: stdio.stdin.is_some(),
        stdout: stdio.stdout.is_some(),
        stderr: stdio.stderr.is_some(),
        tty,
    }
}

/// The clients of sessions are shown the message without a gRPC code, as upstream's are.
fn words(error: cri::Error) -> SessionError {
    SessionError::new(error.message)
}

#[async_trait]
impl StreamingRuntime for Bridge {
    async fn exec(&self, container_id: &str, command: &[String], tty: bool, stdio: Stdio) -> Result<i32, SessionError> {
        let command = Command {
            args: command.to_vec(),
            streams: streams(&stdio, tty),
        };
        let Session {
            stdin,
            stdout,
            stderr,
            terminal,
            exit,
        } = self.sessions.exec(container_id, command).await.map_err(words)?;
        let lost = stdio.client_lost.clone();
        let inputs = feed(stdio.stdin, stdin, stdio.resize, terminal);
        let outputs = async { tokio::join!(drain(stdout, stdio.stdout), drain(stderr, stdio.stderr)) };
        let running = async {
            tokio::select! {
                never = inputs => match never {},
                _ = outputs => {}
            }
        };
        if tty {
            // A terminal that nobody looks at is hung up, by dropping every descriptor of it.
            tokio::select! {
                () = running => {}
                () = lost.cancelled() => {}
            }
        } else {
            // The process is left to finish; what it writes goes nowhere.
            running.await;
        }
        exit.await
            .map_err(|_| SessionError::new("the process's exit code is unknown: its parent has ended"))
    }

    async fn attach(&self, container_id: &str, tty: bool, stdio: Stdio) -> Result<(), SessionError> {
        let streams = streams(&stdio, tty);
        let Session {
            stdin,
            stdout,
            stderr,
            terminal,
            exit,
        } = self.sessions.attach(container_id, streams).await.map_err(words)?;
        let inputs = feed(stdio.stdin, stdin, stdio.resize, terminal);
        let outputs = async { tokio::join!(drain(stdout, stdio.stdout), drain(stderr, stdio.stderr)) };
        let ended = async {
            outputs.await;
            // With no output to end, the container's end is the session's; a lost shim ends both.
            let _ = exit.await;
        };
        tokio::select! {
            never = inputs => match never {},
            () = ended => Ok(()),
        }
    }

    async fn port_forward(
        &self,
        pod_sandbox_id: &str,
        port: u16,
        mut connection: Box<dyn Connection>,
    ) -> Result<(), SessionError> {
        let mut socket = self.sessions.dial(pod_sandbox_id, port).await.map_err(words)?;
        match tokio::io::copy_bidirectional_with_sizes(&mut connection, &mut socket, COPY, COPY).await {
            Ok(_) => Ok(()),
            // Either side may hang up whenever it likes.
            Err(error) if is_hangup(&error) => Ok(()),
            Err(error) => Err(SessionError::new(format!("error copying data of port {port}: {error}"))),
        }
    }
}

fn is_hangup(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected
    )
}

/// Gives the process the client's stdin and its terminal the client's sizes, until this is dropped.
async fn feed(
    from: Option<Reader>,
    to: Option<Stream>,
    resize: Option<mpsc::Receiver<TerminalSize>>,
    terminal: Option<Terminal>,
) -> std::convert::Infallible {
    let stdin = async {
        if let (Some(from), Some(mut to)) = (from, to) {
            let mut from = BufReader::with_capacity(COPY, from);
            // A process that does not read its input to the end is no failure; dropping `to` is the end of file.
            let _ = tokio::io::copy_buf(&mut from, &mut to).await;
        }
    };
    let sizes = async {
        let (Some(mut resize), Some(terminal)) = (resize, terminal) else {
            return;
        };
        while let Some(size) = resize.recv().await {
            if let Err(error) = terminal.resize(size.width, size.height) {
                tracing::debug!(%error, ?size, "terminal cannot be resized");
            }
        }
    };
    tokio::join!(stdin, sizes);
    std::future::pending().await
}

/// Passes what the process writes until it has no writer left. A client that stops reading stops nothing: the rest
/// is thrown away, so that the process does not stand still.
async fn drain(from: Option<Stream>, to: Option<Writer>) {
    let Some(from) = from else { return };
    let mut from = BufReader::with_capacity(COPY, from);
    if let Some(mut to) = to
        && tokio::io::copy_buf(&mut from, &mut to).await.is_ok()
    {
        // The session's end says the same where the protocol cannot.
        let _ = to.shutdown().await;
        return;
    }
    // Reading fails only when nobody can write any more.
    let _ = tokio::io::copy_buf(&mut from, &mut tokio::io::sink()).await;
}
