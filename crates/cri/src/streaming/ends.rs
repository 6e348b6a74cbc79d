//! The ends of a session's byte streams: bounded queues that look like `AsyncRead` and `AsyncWrite`.
//!
//! A transport's reading task feeds [`Inbox`]es and waits when one is full; [`Outbox`]es feed the transport's
//! writing task and wait when it is behind. So back-pressure goes through to the process and to the client.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

/// Chunks that wait for a reader; a chunk is at most [`CHUNK`] bytes.
pub(crate) const INBOX_CHUNKS: usize = 8;

/// Messages that wait for the wire.
pub(crate) const OUTBOX_MESSAGES: usize = 8;

/// The most bytes that travel in one piece.
pub(crate) const CHUNK: usize = 32 * 1024;

/// What the peer sent, in order; reads end when the feeding side is dropped.
#[derive(Debug)]
pub(crate) struct Inbox {
    chunks: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Inbox {
    /// The feeding side and the reading side.
    pub(crate) fn channel() -> (mpsc::Sender<Bytes>, Inbox) {
        let (sender, chunks) = mpsc::channel(INBOX_CHUNKS);
        (
            sender,
            Inbox {
                chunks,
                current: Bytes::new(),
            },
        )
    }

    /// The next chunk as the wire brought it.
    pub(crate) async fn chunk(&mut self) -> Option<Bytes> {
        if self.current.has_remaining() {
            return Some(std::mem::take(&mut self.current));
        }
        self.chunks.recv().await
    }
}

impl AsyncRead for Inbox {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while !self.current.has_remaining() {
            match ready!(self.chunks.poll_recv(cx)) {
                Some(chunk) => self.current = chunk,
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.current.remaining().min(buffer.remaining());
        buffer.put_slice(&self.current.split_to(length));
        Poll::Ready(Ok(()))
    }
}

/// Turns what is written into messages of a transport.
pub(crate) struct Outbox<M: Send + 'static> {
    wire: PollSender<M>,
    label: u32,
    data: fn(u32, &[u8]) -> M,
    end: fn(u32) -> Option<M>,
    /// Set when the peer wants no more of this stream, though its connection stands.
    reset: Arc<AtomicBool>,
}

impl<M: Send + 'static> Outbox<M> {
    /// Writes go out as `data(label, bytes)`, shutdown as `end(label)` where the protocol can say it.
    pub(crate) fn new(
        wire: mpsc::Sender<M>,
        label: u32,
        data: fn(u32, &[u8]) -> M,
        end: fn(u32) -> Option<M>,
    ) -> Outbox<M> {
        Outbox {
            wire: PollSender::new(wire),
            label,
            data,
            end,
            reset: Arc::default(),
        }
    }

    /// Setting the flag makes all later writes fail.
    pub(crate) fn reset_flag(&self) -> Arc<AtomicBool> {
        self.reset.clone()
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, message: impl FnOnce(&Self) -> M) -> Poll<io::Result<()>> {
        if self.reset.load(Ordering::Relaxed) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let lost = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the client's connection is closed");
        ready!(self.wire.poll_reserve(cx)).map_err(lost)?;
        let message = message(self);
        Poll::Ready(self.wire.send_item(message).map_err(lost))
    }
}

impl<M: Send + 'static> AsyncWrite for Outbox<M> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let length = bytes.len().min(CHUNK);
        if length == 0 {
            return Poll::Ready(Ok(0));
        }
        ready!(self.poll_send(cx, |this| (this.data)(this.label, &bytes[..length])))?;
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The writing task flushes whenever it has nothing more to add.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(end) = (self.end)(self.label) else {
            return Poll::Ready(Ok(()));
        };
        self.poll_send(cx, |_| end)
    }
}
