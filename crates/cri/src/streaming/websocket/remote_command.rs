//! Exec and attach over WebSocket channels.

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::{Channels, Encoding, input};
use crate::streaming::remote_command::{RemoteCommand, protocol_version, terminal_sizes};
use crate::streaming::{Reader, Stdio, Timeouts, Writer};

const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;

/// The protocols, newest first; a client that names none speaks the oldest.
pub(crate) const PROTOCOLS: &[&str] = &[
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
];

/// Serves one session on a connection that has been upgraded.
pub(crate) async fn serve<T>(io: T, protocol: &str, remote: RemoteCommand, timeouts: Timeouts)
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let wanted = remote.wanted;
    let (stdin_feed, stdin) = input(wanted.stdin);
    let (resize_feed, resize) = input(wanted.tty);
    // Channel 0 is stdin, 4 is resize; between them are those that the client reads.
    let inputs = vec![stdin_feed, None, None, None, resize_feed];
    let channels = Channels::start(io, Encoding::of(protocol), inputs, timeouts.idle).await;

    let stderr = wanted.stderr && !wanted.tty;
    let greeted = match (wanted.stdout, stderr) {
        (true, _) => STDOUT,
        (false, true) => STDERR,
        (false, false) => ERROR,
    };
    channels.greet(greeted).await;
    let output = |used: bool, channel| used.then(|| Box::new(channels.output(channel)) as Writer);
    let stdio = Stdio {
        stdin: stdin.map(|inbox| Box::new(inbox) as Reader),
        stdout: output(wanted.stdout, STDOUT),
        stderr: output(stderr, STDERR),
        resize: resize.map(terminal_sizes),
        client_lost: channels.lost().clone(),
    };
    let status = remote.run(stdio).await;
    let words = status.encode(protocol_version(protocol));
    // A client that is lost cannot be told.
    let _ = channels.output(ERROR).write_all(&words).await;
    channels.close().await;
}
