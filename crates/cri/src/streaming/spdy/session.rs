//! A SPDY session over a connection: one task reads, one writes, and streams are ends of bounded queues.
//!
//! The session ends in one of two ways. [`Session::close`] says GOAWAY behind everything that was written, closes
//! the sending side and goes on reading for a while, so that what the peer still sends does not destroy what is on
//! its way to it. Or the connection is lost (end of file, error, broken protocol, idle for too long): inboxes end,
//! writes fail, and [`Session::lost`] resolves.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Headers;
use super::frame::{Decoder, Encoder, Frame, PROTOCOL_ERROR, REFUSED_STREAM};
use crate::streaming::activity::Activity;
use crate::streaming::ends::{CHUNK, Inbox, OUTBOX_MESSAGES, Outbox};

/// Streams that may be open at once.
const MAX_STREAMS: usize = 2048;

/// New streams that wait to be looked at.
const NEW_STREAMS: usize = 16;

/// How long a closed session waits for the peer to close too.
const LINGER: Duration = Duration::from_secs(10);

/// Which side of the connection this is; it decides whose stream numbers are odd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Opens odd streams.
    Client,
    /// Opens even streams.
    Server,
}

/// What is known of a stream that is not closed on both sides.
struct Entry {
    /// Where its bytes go; `None` once the peer has sent its last.
    inbox: Option<mpsc::Sender<Bytes>>,
    /// Whether this side may still send.
    sending: bool,
    /// Who waits for the peer to take the stream.
    reply: Option<oneshot::Sender<()>>,
    /// Makes this side's writes fail.
    reset: Arc<AtomicBool>,
}

struct Shared {
    streams: Mutex<HashMap<u32, Entry>>,
    activity: Activity,
    lost: CancellationToken,
    closing: CancellationToken,
}

impl Shared {
    /// Whether a frame may go out, given what is known of its stream.
    fn may_send(&self, frame: &Frame) -> bool {
        let mut streams = self.streams.lock();
        match frame {
            Frame::Data { stream, fin, .. } => {
                let Some(entry) = streams.get_mut(stream).filter(|entry| entry.sending) else {
                    return false;
                };
                entry.sending = !fin;
                if *fin && entry.inbox.is_none() {
                    streams.remove(stream);
                }
            }
            Frame::RstStream { stream, .. } => {
                streams.remove(stream);
            }
            _ => {}
        }
        true
    }
}

/// A stream that the peer wants to open; it must be accepted or refused.
pub(crate) struct NewStream {
    pub(crate) stream: Stream,
}

/// One stream. Shutdown closes the sending side; dropping it discards what still comes.
pub(crate) struct Stream {
    pub(crate) id: u32,
    pub(crate) headers: Headers,
    inbox: Inbox,
    outbox: Outbox<Frame>,
}

impl Stream {
    /// The reading and the writing end.
    pub(crate) fn split(self) -> (Inbox, Outbox<Frame>) {
        (self.inbox, self.outbox)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inbox).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.outbox).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.outbox).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.outbox).poll_shutdown(cx)
    }
}

/// The session; clones are the same session.
#[derive(Clone)]
pub(crate) struct Session {
    wire: mpsc::Sender<Frame>,
    shared: Arc<Shared>,
    next_id: Arc<Mutex<u32>>,
}

impl Session {
    /// Starts a session on a connection that has been upgraded; new streams of the peer come through the receiver,
    /// which ends with the session.
    pub(crate) fn start<T>(io: T, role: Role, idle: Duration) -> (Session, mpsc::Receiver<NewStream>)
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (wire, frames) = mpsc::channel(OUTBOX_MESSAGES);
        let (opened, new_streams) = mpsc::channel(NEW_STREAMS);
        let shared = Arc::new(Shared {
            streams: Mutex::default(),
            activity: Activity::new(idle),
            lost: CancellationToken::new(),
            closing: CancellationToken::new(),
        });
        let (reading, writing) = tokio::io::split(io);
        tokio::spawn(write(writing, frames, shared.clone()));
        let reader = Reader {
            wire: wire.clone(),
            shared: shared.clone(),
            role,
            opened: Some(opened),
            last_stream: 0,
        };
        tokio::spawn(reader.run(reading));
        let next_id = Arc::new(Mutex::new(if role == Role::Client { 1 } else { 2 }));
        (Session { wire, shared, next_id }, new_streams)
    }

    /// Takes a stream that the peer opened.
    pub(crate) async fn accept(&self, new: NewStream) -> Stream {
        self.send(Frame::SynReply {
            stream: new.stream.id,
            fin: false,
            headers: Headers::default(),
        })
        .await;
        new.stream
    }

    /// Turns a stream of the peer away.
    pub(crate) async fn refuse(&self, new: NewStream) {
        self.send(Frame::RstStream {
            stream: new.stream.id,
            status: REFUSED_STREAM,
        })
        .await;
    }

    /// Opens a stream; `None` when the peer refuses it or is lost.
    pub(crate) async fn open(&self, headers: Headers) -> Option<Stream> {
        let id = {
            let mut next = self.next_id.lock();
            let id = *next;
            *next = id.checked_add(2).filter(|next| *next < 1 << 31)?;
            id
        };
        let (reply, replied) = oneshot::channel();
        let stream = self
            .shared
            .add(id, headers.clone(), self.wire.clone(), false, Some(reply))?;
        self.send(Frame::SynStream {
            stream: id,
            fin: false,
            headers,
        })
        .await;
        replied.await.ok()?;
        Some(stream)
    }

    /// Ends the sending side of a stream, if it has not ended.
    pub(crate) async fn finish(&self, stream: u32) {
        self.send(end(stream)).await;
    }

    /// Says goodbye behind everything written so far and closes.
    pub(crate) async fn close(self) {
        self.send(Frame::GoAway {
            last_stream: 0,
            status: 0,
        })
        .await;
    }

    /// Cancelled when the connection is no more.
    pub(crate) fn lost(&self) -> &CancellationToken {
        &self.shared.lost
    }

    /// Cuts the connection when the guard is dropped.
    pub(crate) fn end_on_drop(&self) -> DropGuard {
        self.shared.lost.clone().drop_guard()
    }

    /// A session that is lost has nobody to send to.
    async fn send(&self, frame: Frame) {
        let _ = self.wire.send(frame).await;
    }
}

fn data(stream: u32, bytes: &[u8]) -> Frame {
    Frame::Data {
        stream,
        bytes: Bytes::copy_from_slice(bytes),
        fin: false,
    }
}

fn end(stream: u32) -> Frame {
    Frame::Data {
        stream,
        bytes: Bytes::new(),
        fin: true,
    }
}

impl Shared {
    /// `None` when there are too many streams already.
    fn add(
        &self,
        id: u32,
        headers: Headers,
        wire: mpsc::Sender<Frame>,
        peer_done: bool,
        reply: Option<oneshot::Sender<()>>,
    ) -> Option<Stream> {
        let (feed, inbox) = Inbox::channel();
        let mut streams = self.streams.lock();
        if streams.len() >= MAX_STREAMS || self.lost.is_cancelled() {
            return None;
        }
        let outbox = Outbox::new(wire, id, data, |id| Some(end(id)));
        let inbox_feed = (!peer_done).then_some(feed);
        streams.insert(
            id,
            Entry {
                inbox: inbox_feed,
                sending: true,
                reply,
                reset: outbox.reset_flag(),
            },
        );
        Some(Stream {
            id,
            headers,
            inbox,
            outbox,
        })
    }
}

/// Writes frames until GOAWAY or loss, as many in one system call as wait.
async fn write(mut io: impl AsyncWrite + Unpin, mut frames: mpsc::Receiver<Frame>, shared: Arc<Shared>) {
    let mut encoder = Encoder::new();
    let mut buffer = BytesMut::with_capacity(2 * CHUNK);
    let work = async {
        while let Some(first) = frames.recv().await {
            let mut next = Some(first);
            let mut last = false;
            while let Some(frame) = next {
                last = matches!(frame, Frame::GoAway { .. });
                if shared.may_send(&frame) {
                    encoder.encode(&frame, &mut buffer);
                }
                next = if last || buffer.len() >= 2 * CHUNK {
                    None
                } else {
                    frames.try_recv().ok()
                };
            }
            io.write_all(&buffer).await?;
            io.flush().await?;
            buffer.clear();
            shared.activity.touch();
            if last {
                shared.closing.cancel();
                return io.shutdown().await;
            }
        }
        Ok(())
    };
    tokio::select! {
        result = work => if let Err(error) = result {
            tracing::debug!(%error, "streaming connection cannot be written");
            shared.lost.cancel();
        },
        () = shared.lost.cancelled() => {}
    }
}

struct Reader {
    wire: mpsc::Sender<Frame>,
    shared: Arc<Shared>,
    role: Role,
    opened: Option<mpsc::Sender<NewStream>>,
    last_stream: u32,
}

impl Reader {
    async fn run(mut self, mut io: impl AsyncRead + Unpin) {
        let shared = self.shared.clone();
        let (closing, lost) = (&shared.closing, &shared.lost);
        tokio::select! {
            () = self.read(&mut io) => {}
            () = shared.activity.expired() => tracing::debug!("streaming connection was idle for too long"),
            () = lost.cancelled() => {}
            () = closing.cancelled() => {
                shared.streams.lock().clear();
                let mut sink = tokio::io::sink();
                let _ = tokio::time::timeout(LINGER, tokio::io::copy(&mut io, &mut sink)).await;
            }
        }
        lost.cancel();
        // Inboxes end, and whoever waits for a reply learns that none comes.
        shared.streams.lock().clear();
    }

    async fn read(&mut self, io: &mut (impl AsyncRead + Unpin)) {
        let mut decoder = Decoder::new();
        let mut input = BytesMut::new();
        loop {
            loop {
                match decoder.decode(&mut input) {
                    Ok(Some(frame)) => self.handle(frame).await,
                    Ok(None) => break,
                    Err(error) => {
                        tracing::debug!(%error, "streaming connection is closed");
                        return;
                    }
                }
            }
            input.reserve(CHUNK);
            match read_up_to(io, &mut input, CHUNK).await {
                Ok(0) => return,
                Ok(_) => self.shared.activity.touch(),
                Err(error) => {
                    tracing::debug!(%error, "streaming connection cannot be read");
                    return;
                }
            }
        }
    }

    async fn handle(&mut self, frame: Frame) {
        match frame {
            Frame::SynStream { stream, fin, headers } => self.open(stream, fin, headers).await,
            Frame::SynReply { stream, fin, .. } => {
                let reply = self
                    .shared
                    .streams
                    .lock()
                    .get_mut(&stream)
                    .and_then(|entry| entry.reply.take());
                if let Some(reply) = reply {
                    // Whoever asked may have given up.
                    let _ = reply.send(());
                }
                if fin {
                    self.peer_finished(stream);
                }
            }
            Frame::Data { stream, bytes, fin } => {
                let inbox = self
                    .shared
                    .streams
                    .lock()
                    .get(&stream)
                    .and_then(|entry| entry.inbox.clone());
                if let Some(inbox) = inbox
                    && !bytes.is_empty()
                {
                    // Nobody reads a stream whose end is dropped; its bytes are passed over.
                    let _ = inbox.send(bytes).await;
                }
                if fin {
                    self.peer_finished(stream);
                }
            }
            Frame::Headers { stream, fin, .. } => {
                if fin {
                    self.peer_finished(stream);
                }
            }
            Frame::RstStream { stream, .. } => {
                if let Some(entry) = self.shared.streams.lock().remove(&stream) {
                    entry.reset.store(true, Ordering::Relaxed);
                }
            }
            // Pings of this side are odd like its streams; only the other side's are answered.
            Frame::Ping(id) if (id % 2 == 1) == (self.role == Role::Server) => {
                let _ = self.wire.send(Frame::Ping(id)).await;
            }
            // The peer opens no more streams; those that are open go on.
            Frame::GoAway { .. } => self.opened = None,
            Frame::Ping(_) | Frame::Settings(_) | Frame::WindowUpdate { .. } => {}
        }
    }

    async fn open(&mut self, id: u32, fin: bool, headers: Headers) {
        let theirs = (id % 2 == 1) == (self.role == Role::Server);
        if !theirs || id <= self.last_stream {
            let _ = self
                .wire
                .send(Frame::RstStream {
                    stream: id,
                    status: PROTOCOL_ERROR,
                })
                .await;
            return;
        }
        self.last_stream = id;
        let stream = self.shared.add(id, headers, self.wire.clone(), fin, None);
        let refused = match (stream, &self.opened) {
            (Some(stream), Some(opened)) => opened.send(NewStream { stream }).await.is_err(),
            _ => true,
        };
        if refused {
            let _ = self
                .wire
                .send(Frame::RstStream {
                    stream: id,
                    status: REFUSED_STREAM,
                })
                .await;
        }
    }

    fn peer_finished(&self, stream: u32) {
        let mut streams = self.shared.streams.lock();
        let Some(entry) = streams.get_mut(&stream) else {
            return;
        };
        entry.inbox = None;
        if !entry.sending {
            streams.remove(&stream);
        }
    }
}

/// Reads what is there, at most `limit` bytes, so that one piece never holds more.
async fn read_up_to(io: &mut (impl AsyncRead + Unpin), input: &mut BytesMut, limit: usize) -> std::io::Result<usize> {
    use bytes::BufMut;
    io.read_buf(&mut input.limit(limit)).await
}
