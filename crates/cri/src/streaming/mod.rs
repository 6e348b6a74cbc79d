//! Exec, attach and port-forward: the protocols that carry a container's streams over an upgraded HTTP connection.
//!
//! A client asks to leave HTTP (`Connection: Upgrade`) for one of two transports, and within it for one of several
//! protocols:
//!
//! | session | SPDY/3.1 | WebSocket |
//! |---|---|---|
//! | exec, attach | `v4.channel.k8s.io` … `channel.k8s.io`: one SPDY stream each for error, stdin, stdout, stderr, resize | `v5.channel.k8s.io`, `v4.channel.k8s.io`, `channel.k8s.io` and their base64 forms: a channel number before each message |
//! | port-forward | `portforward.k8s.io`: a data and an error stream for each connection | `SPDY/3.1+portforward.k8s.io`: the SPDY session inside binary messages; `v4.channel.k8s.io`: two channels for each port |
//!
//! [`serve`] answers such a request, and afterwards hands plain byte streams to a [`StreamingRuntime`], which never
//! sees a frame. Every hop before this one passes the upgraded connection's bytes unread.
//!
//! Invariants: buffers are bounded everywhere, a slow reader slows its writer; all of stdout and stderr is sent
//! before the status; a lost connection is the end of stdin and a broken stdout for the process, not its death.

mod activity;
mod client;
mod ends;
mod remote_command;
mod serve;
mod spdy;
mod status;
mod upgrade;
mod websocket;

pub use client::{ClientError, ForwardedConnection, PortForwardClient, RemoteStreams};
pub use serve::serve;

use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// What a process reads: the client's stdin.
pub type Reader = Box<dyn AsyncRead + Send + Sync + Unpin>;

/// What a process writes. `shutdown` tells the client that no more comes; so does the end of the session.
pub type Writer = Box<dyn AsyncWrite + Send + Sync + Unpin>;

/// Both directions of one forwarded connection.
pub trait Connection: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Connection for T {}

/// The size of a client's terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// The client's ends of a process's streams; those it did not ask for are `None`.
pub struct Stdio {
    /// Ends when the client closes it or is lost.
    pub stdin: Option<Reader>,
    /// Fails with `BrokenPipe` once the client is lost.
    pub stdout: Option<Writer>,
    /// Never there with a terminal, which has one output.
    pub stderr: Option<Writer>,
    /// New sizes of the client's terminal, with a terminal only; ends with the session.
    pub resize: Option<mpsc::Receiver<TerminalSize>>,
    /// Cancelled when nobody is at the other end any more, which is not so when a client only closes stdin.
    pub client_lost: CancellationToken,
}

/// Why a session could not be, in the words that the client is shown.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SessionError(String);

impl SessionError {
    /// An error whose message is `reason`.
    pub fn new(reason: impl std::fmt::Display) -> Self {
        SessionError(reason.to_string())
    }
}

/// What a container runtime does for sessions, in byte streams.
///
/// A lost client shows as the end of stdin, failing writes and [`Stdio::client_lost`]. `exec` then still runs to its
/// end; the other futures are dropped. Streams must not be used after the future is done.
#[async_trait]
pub trait StreamingRuntime: Send + Sync + 'static {
    /// Runs `command` in a running container until it exits; its exit code.
    async fn exec(&self, container_id: &str, command: &[String], tty: bool, stdio: Stdio) -> Result<i32, SessionError>;

    /// Joins a container's main process to `stdio` until the process or the client ends.
    async fn attach(&self, container_id: &str, tty: bool, stdio: Stdio) -> Result<(), SessionError>;

    /// Connects to `port` on the loopback of a sandbox's network and passes bytes until either side ends.
    async fn port_forward(
        &self,
        pod_sandbox_id: &str,
        port: u16,
        connection: Box<dyn Connection>,
    ) -> Result<(), SessionError>;
}

/// The streams that exec or attach was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// The client sends stdin.
    pub stdin: bool,
    /// The client receives stdout.
    pub stdout: bool,
    /// The client receives stderr.
    pub stderr: bool,
    /// There is a terminal between them.
    pub tty: bool,
}

/// A session that a client may open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Session {
    /// A new process in a container.
    Exec {
        /// The container.
        container_id: String,
        /// The program and its arguments.
        command: Vec<String>,
        /// Its streams.
        wanted: Wanted,
    },
    /// The main process of a container.
    Attach {
        /// The container.
        container_id: String,
        /// Its streams.
        wanted: Wanted,
    },
    /// Connections into a pod.
    PortForward {
        /// The sandbox.
        pod_sandbox_id: String,
        /// The ports of a WebSocket session; over SPDY each connection names its own.
        ports: Vec<u16>,
    },
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// A connection on which nothing moves for this long is closed.
    pub idle: Duration,
    /// The client opens the streams it announced within this time.
    pub stream_creation: Duration,
}

impl Default for Timeouts {
    /// Upstream's: four hours and thirty seconds.
    fn default() -> Self {
        Timeouts {
            idle: Duration::from_secs(4 * 60 * 60),
            stream_creation: Duration::from_secs(30),
        }
    }
}

/// What a client is told on the error stream of a connection that failed.
fn forward_error(pod_sandbox_id: &str, port: u16, reason: &SessionError) -> String {
    format!("error forwarding port {port} to pod {pod_sandbox_id}, uid : {reason}")
}
