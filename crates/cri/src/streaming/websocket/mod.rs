//! Channels over WebSocket: each message begins with the number of its channel.
//!
//! Binary protocols carry one byte and the data; base64 protocols carry text, a digit and the data encoded. From
//! version 5 on a client ends a channel by a message on channel 255 that names it; before that stdin has no end.

pub(crate) mod port_forward;
pub(crate) mod remote_command;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::stream::SplitSink;
use futures::{SinkExt, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::CancellationToken;

use super::activity::Activity;
use super::ends::{CHUNK, Inbox, OUTBOX_MESSAGES, Outbox};

/// The channel on which version 5 ends others.
const CLOSE_CHANNEL: u8 = 255;

/// The longest message taken.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;

/// A connection that is quiet for this long is pinged, so that nothing on the way forgets it.
const PING_EVERY: Duration = Duration::from_secs(30);

/// How long a closed session waits for the peer's goodbye.
const LINGER: Duration = Duration::from_secs(10);

/// How data is put into messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Encoding {
    /// Text messages in base64.
    pub(crate) base64: bool,
    /// Clients can end a channel.
    pub(crate) close: bool,
}

impl Encoding {
    /// By the name of the protocol.
    pub(crate) fn of(protocol: &str) -> Encoding {
        Encoding {
            base64: protocol.contains("base64."),
            close: protocol.starts_with("v5."),
        }
    }
}

/// What a message of a client says.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Data(u8, Bytes),
    End(u8),
    Nothing,
    Goodbye,
}

/// What `message` says in this encoding; `None` for a message that breaks the protocol.
fn understand(message: Message, encoding: Encoding) -> Option<Said> {
    let said = match message {
        Message::Binary(mut bytes) if !encoding.base64 => {
            if bytes.is_empty() {
                return None;
            }
            let channel = bytes.split_to(1)[0];
            match (channel, bytes.first()) {
                (CLOSE_CHANNEL, Some(ended)) if encoding.close => Said::End(*ended),
                _ => Said::Data(channel, bytes),
            }
        }
        // Text is let through for binary protocols too, as upstream does.
        Message::Text(text) if !encoding.base64 => {
            return understand(Message::Binary(text.into()), encoding);
        }
        Message::Text(text) => {
            let (digit, data) = text.as_bytes().split_first()?;
            let channel = digit.checked_sub(b'0')?;
            Said::Data(channel, BASE64_STANDARD.decode(data).ok()?.into())
        }
        Message::Binary(_) => return None,
        Message::Close(_) => Said::Goodbye,
        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Said::Nothing,
    };
    Some(said)
}

fn binary(channel: u32, bytes: &[u8]) -> Message {
    let mut message = Vec::with_capacity(1 + bytes.len());
    message.push(channel as u8);
    message.extend_from_slice(bytes);
    Message::Binary(message.into())
}

fn base64(channel: u32, bytes: &[u8]) -> Message {
    let mut message = String::with_capacity(1 + bytes.len().div_ceil(3) * 4);
    message.push(char::from(b'0'.wrapping_add(channel as u8)));
    BASE64_STANDARD.encode_string(bytes, &mut message);
    Message::text(message)
}

fn settings() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
        .read_buffer_size(CHUNK)
}

/// Speaks WebSocket as the server on a connection that has been upgraded.
pub(crate) async fn accept<T: AsyncRead + AsyncWrite + Unpin>(io: T) -> WebSocketStream<T> {
    WebSocketStream::from_raw_socket(io, Role::Server, Some(settings())).await
}

/// A session of numbered channels.
pub(crate) struct Channels {
    wire: mpsc::Sender<Message>,
    encoding: Encoding,
    lost: CancellationToken,
}

struct Shared {
    activity: Activity,
    lost: CancellationToken,
    closing: CancellationToken,
}

impl Channels {
    /// Starts a session; `inputs[n]` takes the data of channel `n`, other channels are passed over.
    pub(crate) async fn start<T>(
        io: T,
        encoding: Encoding,
        inputs: Vec<Option<mpsc::Sender<Bytes>>>,
        idle: Duration,
    ) -> Channels
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (sink, stream) = accept(io).await.split();
        let (wire, messages) = mpsc::channel(OUTBOX_MESSAGES);
        let shared = Arc::new(Shared {
            activity: Activity::new(idle),
            lost: CancellationToken::new(),
            closing: CancellationToken::new(),
        });
        let lost = shared.lost.clone();
        tokio::spawn(write(sink, messages, shared.clone()));
        tokio::spawn(read(stream, encoding, inputs, shared));
        Channels { wire, encoding, lost }
    }

    /// The writing end of a channel. Nothing tells the client that it has ended.
    pub(crate) fn output(&self, channel: u8) -> Outbox<Message> {
        let encode = if self.encoding.base64 { base64 } else { binary };
        Outbox::new(self.wire.clone(), channel.into(), encode, |_| None)
    }

    /// An empty message, by which a client sees that the session stands.
    pub(crate) async fn greet(&self, channel: u8) {
        let encode = if self.encoding.base64 { base64 } else { binary };
        // A session that is lost has nobody to greet.
        let _ = self.wire.send(encode(channel.into(), &[])).await;
    }

    /// Cancelled when the connection is no more.
    pub(crate) fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// Says goodbye behind everything written so far.
    pub(crate) async fn close(self) {
        let goodbye = CloseFrame {
            code: CloseCode::Normal,
            reason: "".into(),
        };
        let _ = self.wire.send(Message::Close(Some(goodbye))).await;
    }
}

async fn write<T>(
    mut sink: SplitSink<WebSocketStream<T>, Message>,
    mut messages: mpsc::Receiver<Message>,
    shared: Arc<Shared>,
) where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let work = async {
        loop {
            let Ok(first) = tokio::time::timeout(PING_EVERY, messages.recv()).await else {
                sink.send(Message::Ping(Bytes::new())).await?;
                continue;
            };
            let mut next = first;
            if next.is_none() {
                return Ok(());
            }
            while let Some(message) = next {
                let last = matches!(message, Message::Close(_));
                sink.feed(message).await?;
                if last {
                    sink.flush().await?;
                    shared.closing.cancel();
                    return Ok(());
                }
                next = messages.try_recv().ok();
            }
            sink.flush().await?;
            shared.activity.touch();
        }
    };
    let result: Result<(), Error> = tokio::select! {
        result = work => result,
        () = shared.lost.cancelled() => Ok(()),
    };
    if let Err(error) = result {
        tracing::debug!(%error, "streaming connection cannot be written");
        shared.lost.cancel();
    }
}

async fn read(
    mut stream: impl Stream<Item = Result<Message, Error>> + Unpin,
    encoding: Encoding,
    mut inputs: Vec<Option<mpsc::Sender<Bytes>>>,
    shared: Arc<Shared>,
) {
    tokio::select! {
        () = dispatch(&mut stream, encoding, &mut inputs, &shared.activity) => {}
        () = shared.activity.expired() => tracing::debug!("streaming connection was idle for too long"),
        () = shared.lost.cancelled() => {}
        () = shared.closing.cancelled() => {
            inputs.clear();
            // What still comes is passed over until the peer says goodbye as well.
            let rest = async { while let Some(Ok(_)) = stream.next().await {} };
            let _ = tokio::time::timeout(LINGER, rest).await;
        }
    }
    shared.lost.cancel();
}

async fn dispatch(
    stream: &mut (impl Stream<Item = Result<Message, Error>> + Unpin),
    encoding: Encoding,
    inputs: &mut [Option<mpsc::Sender<Bytes>>],
    activity: &Activity,
) {
    while let Some(message) = stream.next().await {
        let said = match message {
            Ok(message) => understand(message, encoding),
            Err(error) => {
                tracing::debug!(%error, "streaming connection cannot be read");
                return;
            }
        };
        match said {
            Some(Said::Data(channel, mut bytes)) => {
                activity.touch();
                let Some(Some(input)) = inputs.get(usize::from(channel)) else {
                    continue;
                };
                while !bytes.is_empty() {
                    let piece = bytes.split_to(bytes.len().min(CHUNK));
                    // Nobody reads a channel whose end is dropped; its bytes are passed over.
                    let _ = input.send(piece).await;
                }
            }
            Some(Said::End(channel)) => {
                if let Some(input) = inputs.get_mut(usize::from(channel)) {
                    *input = None;
                }
            }
            Some(Said::Nothing) => {}
            Some(Said::Goodbye) => return,
            None => {
                tracing::debug!("streaming connection is closed: message without a channel");
                return;
            }
        }
    }
}

/// A channel's reading end, if it is used, and what feeds it.
fn input(used: bool) -> (Option<mpsc::Sender<Bytes>>, Option<Inbox>) {
    used.then(Inbox::channel).unzip()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_in_each_encoding() {
        let v5 = Encoding::of("v5.channel.k8s.io");
        let v4 = Encoding::of("v4.channel.k8s.io");
        let text = Encoding::of("v4.base64.channel.k8s.io");
        let data = |channel, bytes: &'static [u8]| Some(Said::Data(channel, Bytes::from_static(bytes)));
        for (message, encoding, said) in [
            (Message::binary(&b"\x00hi"[..]), v4, data(0, b"hi")),
            (Message::binary(&b"\x00"[..]), v4, data(0, b"")),
            (Message::binary(&b""[..]), v4, None),
            (Message::binary(&b"\xff\x00"[..]), v5, Some(Said::End(0))),
            (Message::binary(&b"\xff\x00"[..]), v4, data(255, b"\0")),
            (Message::text("0aGk="), text, data(0, b"hi")),
            (Message::text("0!"), text, None),
            (Message::text(""), text, None),
            (Message::binary(&b"\x00hi"[..]), text, None),
            (Message::Ping(Bytes::new()), v4, Some(Said::Nothing)),
            (Message::Close(None), v4, Some(Said::Goodbye)),
        ] {
            assert_eq!(understand(message.clone(), encoding), said, "{message:?}");
        }
        assert_eq!(binary(1, b"hi"), Message::binary(&b"\x01hi"[..]));
        assert_eq!(base64(1, b"hi"), Message::text("1aGk="));
    }
}
