//! Frames: what is on the wire, as values.
//!
//! ```text
//! control: |1| version 15 | type 16 | flags 8 | length 24 | payload |
//! data:    |0| stream 31            | flags 8 | length 24 | payload |
//! ```
//!
//! The decoder never waits for a whole data frame (it may be 16 MiB long): whatever has come is handed on.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::headers::{Compressor, Decompressor, Headers};

const VERSION: u16 = 3;
const FIN: u8 = 0x01;
const HEADER_LENGTH: usize = 8;

/// The longest control frame taken.
const MAX_CONTROL: usize = 64 * 1024;

/// The status of RST_STREAM for a frame that breaks the protocol.
pub(crate) const PROTOCOL_ERROR: u32 = 1;
/// The status of RST_STREAM for a stream that is not wanted.
pub(crate) const REFUSED_STREAM: u32 = 3;

mod kind {
    pub(super) const SYN_STREAM: u16 = 1;
    pub(super) const SYN_REPLY: u16 = 2;
    pub(super) const RST_STREAM: u16 = 3;
    pub(super) const SETTINGS: u16 = 4;
    pub(super) const PING: u16 = 6;
    pub(super) const GOAWAY: u16 = 7;
    pub(super) const HEADERS: u16 = 8;
    pub(super) const WINDOW_UPDATE: u16 = 9;
}

/// One frame; the names are the protocol's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    /// Bytes of a stream; decoded, a piece of such a frame.
    Data { stream: u32, bytes: Bytes, fin: bool },
    /// A new stream.
    SynStream { stream: u32, fin: bool, headers: Headers },
    /// The other side takes the stream.
    SynReply { stream: u32, fin: bool, headers: Headers },
    /// The stream is no more.
    RstStream { stream: u32, status: u32 },
    /// Identifiers (with their flags) and values.
    Settings(Vec<(u32, u32)>),
    /// To be sent back by the side that did not begin.
    Ping(u32),
    /// No new streams after the named one.
    GoAway { last_stream: u32, status: u32 },
    /// More headers of a stream.
    Headers { stream: u32, fin: bool, headers: Headers },
    /// The other side could take so much more.
    WindowUpdate { stream: u32, delta: u32 },
}

/// Why bytes are no SPDY/3.1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("SPDY control frame of version {0}, expected {VERSION}")]
    Version(u16),
    #[error("SPDY control frame of type {kind} is {length} bytes long, which is not one of its lengths")]
    Length { kind: u16, length: usize },
    #[error("SPDY frame for stream 0")]
    StreamZero,
    #[error("SPDY header block does not decompress")]
    Compression,
    #[error("SPDY header block is longer than {} bytes", super::headers::MAX_BLOCK)]
    HeadersTooLong,
    #[error("SPDY header block ends within a header")]
    HeaderBlock,
}

/// Frames to bytes.
pub(crate) struct Encoder {
    compressor: Compressor,
}

impl Encoder {
    /// For one direction of a connection.
    pub(crate) fn new() -> Encoder {
        Encoder {
            compressor: Compressor::new(),
        }
    }

    /// Appends a frame.
    pub(crate) fn encode(&mut self, frame: &Frame, out: &mut BytesMut) {
        match frame {
            Frame::Data { stream, bytes, fin } => {
                out.reserve(HEADER_LENGTH + bytes.len());
                out.put_u32(*stream);
                out.put_u8(if *fin { FIN } else { 0 });
                out.put_uint(bytes.len() as u64, 3);
                out.put_slice(bytes);
            }
            Frame::SynStream { stream, fin, headers } => self.control(out, kind::SYN_STREAM, *fin, |this, out| {
                out.put_u32(*stream);
                out.put_u32(0); // associated with no other stream
                out.put_u16(0); // highest priority, no credential slot
                this.compressor.append(headers, out);
            }),
            Frame::SynReply { stream, fin, headers } => self.control(out, kind::SYN_REPLY, *fin, |this, out| {
                out.put_u32(*stream);
                this.compressor.append(headers, out);
            }),
            Frame::Headers { stream, fin, headers } => self.control(out, kind::HEADERS, *fin, |this, out| {
                out.put_u32(*stream);
                this.compressor.append(headers, out);
            }),
            Frame::RstStream { stream, status } => self.control(out, kind::RST_STREAM, false, |_, out| {
                out.put_u32(*stream);
                out.put_u32(*status);
            }),
            Frame::Settings(settings) => self.control(out, kind::SETTINGS, false, |_, out| {
                out.put_u32(settings.len() as u32);
                for (id, value) in settings {
                    out.put_u32(*id);
                    out.put_u32(*value);
                }
            }),
            Frame::Ping(id) => self.control(out, kind::PING, false, |_, out| out.put_u32(*id)),
            Frame::GoAway { last_stream, status } => self.control(out, kind::GOAWAY, false, |_, out| {
                out.put_u32(*last_stream);
                out.put_u32(*status);
            }),
            Frame::WindowUpdate { stream, delta } => self.control(out, kind::WINDOW_UPDATE, false, |_, out| {
                out.put_u32(*stream);
                out.put_u32(*delta);
            }),
        }
    }

    fn control(&mut self, out: &mut BytesMut, kind: u16, fin: bool, payload: impl FnOnce(&mut Self, &mut BytesMut)) {
        out.put_u16(0x8000 | VERSION);
        out.put_u16(kind);
        out.put_u8(if fin { FIN } else { 0 });
        let length_at = out.len();
        out.put_uint(0, 3);
        payload(self, out);
        // The length is only known once the headers are compressed.
        let length = (out.len() - length_at - 3) as u32;
        out[length_at..length_at + 3].copy_from_slice(&length.to_be_bytes()[1..]);
    }
}

/// The data frame whose payload is coming in.
struct Open {
    stream: u32,
    fin: bool,
    remaining: usize,
}

/// Bytes to frames.
pub(crate) struct Decoder {
    decompressor: Decompressor,
    open: Option<Open>,
}

impl Decoder {
    /// For one direction of a connection.
    pub(crate) fn new() -> Decoder {
        Decoder {
            decompressor: Decompressor::new(),
            open: None,
        }
    }

    /// Takes the next frame, or the piece of a data frame that is there, out of `input`; `None` when more must come.
    pub(crate) fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        loop {
            if let Some(open) = &mut self.open {
                if input.is_empty() && open.remaining > 0 {
                    return Ok(None);
                }
                let bytes = input.split_to(open.remaining.min(input.len())).freeze();
                open.remaining -= bytes.len();
                let (stream, fin) = (open.stream, open.fin && open.remaining == 0);
                if open.remaining == 0 {
                    self.open = None;
                }
                return Ok(Some(Frame::Data { stream, bytes, fin }));
            }
            if input.len() < HEADER_LENGTH {
                return Ok(None);
            }
            let mut header = &input[..HEADER_LENGTH];
            let word = header.get_u32();
            let flags = header.get_u8();
            let length = header.get_uint(3) as usize;
            if word & 0x8000_0000 == 0 {
                if word == 0 {
                    return Err(FrameError::StreamZero);
                }
                input.advance(HEADER_LENGTH);
                self.open = Some(Open {
                    stream: word,
                    fin: flags & FIN != 0,
                    remaining: length,
                });
                continue;
            }
            let (version, kind) = ((word >> 16) as u16 & 0x7fff, word as u16);
            if version != VERSION {
                return Err(FrameError::Version(version));
            }
            if length > MAX_CONTROL {
                return Err(FrameError::Length { kind, length });
            }
            if input.len() < HEADER_LENGTH + length {
                return Ok(None);
            }
            input.advance(HEADER_LENGTH);
            let payload = input.split_to(length);
            if let Some(frame) = self.control(kind, flags & FIN != 0, &payload)? {
                return Ok(Some(frame));
            }
        }
    }

    /// `None` for a frame of a type that this version does not know, which is to be passed over.
    fn control(&mut self, kind: u16, fin: bool, mut payload: &[u8]) -> Result<Option<Frame>, FrameError> {
        let length = payload.len();
        let wrong = || FrameError::Length { kind, length };
        let word = |payload: &mut &[u8]| payload.try_get_u32().map_err(|_| wrong());
        let stream = |payload: &mut &[u8]| match word(payload)? & 0x7fff_ffff {
            0 => Err(FrameError::StreamZero),
            stream => Ok(stream),
        };
        let frame = match kind {
            kind::SYN_STREAM => {
                let stream = stream(&mut payload)?;
                payload = payload.get(6..).ok_or_else(wrong)?; // associated stream, priority, slot
                Frame::SynStream {
                    stream,
                    fin,
                    headers: self.decompressor.headers(payload)?,
                }
            }
            kind::SYN_REPLY => {
                let stream = stream(&mut payload)?;
                Frame::SynReply {
                    stream,
                    fin,
                    headers: self.decompressor.headers(payload)?,
                }
            }
            kind::HEADERS => {
                let stream = stream(&mut payload)?;
                Frame::Headers {
                    stream,
                    fin,
                    headers: self.decompressor.headers(payload)?,
                }
            }
            kind::RST_STREAM => Frame::RstStream {
                stream: stream(&mut payload)?,
                status: word(&mut payload)?,
            },
            kind::SETTINGS => {
                let count = word(&mut payload)? as usize;
                if payload.len() != count.saturating_mul(8) {
                    return Err(wrong());
                }
                Frame::Settings(
                    payload
                        .chunks_exact(8)
                        .map(|mut pair| (pair.get_u32(), pair.get_u32()))
                        .collect(),
                )
            }
            kind::PING => Frame::Ping(word(&mut payload)?),
            kind::GOAWAY => Frame::GoAway {
                last_stream: word(&mut payload)? & 0x7fff_ffff,
                status: word(&mut payload)?,
            },
            kind::WINDOW_UPDATE => Frame::WindowUpdate {
                stream: word(&mut payload)? & 0x7fff_ffff,
                delta: word(&mut payload)? & 0x7fff_ffff,
            },
            _ => return Ok(None),
        };
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says what it expects by failing")]

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn decode_all(decoder: &mut Decoder, input: &mut BytesMut) -> Result<Vec<Frame>, FrameError> {
        std::iter::from_fn(|| decoder.decode(input).transpose()).collect()
    }

    #[test]
    fn bytes_of_frames() {
        for (frame, bytes) in [
            (Frame::Ping(7), &[0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 7][..]),
            (
                Frame::RstStream {
                    stream: 5,
                    status: REFUSED_STREAM,
                },
                &[0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 5, 0, 0, 0, 3],
            ),
            (
                Frame::GoAway {
                    last_stream: 9,
                    status: 0,
                },
                &[0x80, 3, 0, 7, 0, 0, 0, 8, 0, 0, 0, 9, 0, 0, 0, 0],
            ),
            (
                Frame::WindowUpdate {
                    stream: 1,
                    delta: 0x1_0000,
                },
                &[0x80, 3, 0, 9, 0, 0, 0, 8, 0, 0, 0, 1, 0, 1, 0, 0],
            ),
            (
                Frame::Settings(vec![(7, 65536)]),
                &[0x80, 3, 0, 4, 0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 7, 0, 1, 0, 0],
            ),
            (
                Frame::Data {
                    stream: 3,
                    bytes: Bytes::from_static(b"hi"),
                    fin: true,
                },
                &[0, 0, 0, 3, 1, 0, 0, 2, b'h', b'i'],
            ),
            (
                Frame::Data {
                    stream: 3,
                    bytes: Bytes::new(),
                    fin: true,
                },
                &[0, 0, 0, 3, 1, 0, 0, 0],
            ),
        ] {
            let mut out = BytesMut::new();
            Encoder::new().encode(&frame, &mut out);
            assert_eq!(out, bytes, "{frame:?}");
            assert_eq!(decode_all(&mut Decoder::new(), &mut out), Ok(vec![frame]));
        }
    }

    #[test]
    fn what_is_refused() {
        for (bytes, error) in [
            (&[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 7][..], FrameError::Version(2)),
            (
                &[0x80, 3, 0, 6, 0, 0, 0, 2, 0, 7],
                FrameError::Length { kind: 6, length: 2 },
            ),
            (
                &[0x80, 3, 0, 1, 0, 2, 0, 0],
                FrameError::Length {
                    kind: 1,
                    length: 0x2_0000,
                },
            ),
            (
                &[0x80, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0, 1, 0, 0],
                FrameError::Length { kind: 1, length: 6 },
            ),
            (
                &[0x80, 3, 0, 4, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff],
                FrameError::Length { kind: 4, length: 4 },
            ),
            (&[0, 0, 0, 0, 0, 0, 0, 1], FrameError::StreamZero),
            (
                &[0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 3],
                FrameError::StreamZero,
            ),
            (
                &[0x80, 3, 0, 2, 0, 0, 0, 8, 0, 0, 0, 1, 1, 2, 3, 4],
                FrameError::Compression,
            ),
        ] {
            assert_eq!(
                decode_all(&mut Decoder::new(), &mut BytesMut::from(bytes)),
                Err(error),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn a_frame_of_unknown_type_is_passed_over() {
        let mut input = BytesMut::from(&[0x80, 3, 0, 99, 0, 0, 0, 1, 1, 0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 7][..]);
        assert_eq!(decode_all(&mut Decoder::new(), &mut input), Ok(vec![Frame::Ping(7)]));
    }

    fn headers() -> impl Strategy<Value = Headers> {
        vec(("[a-z-]{1,12}", "[ -~]{0,40}"), 0..6).prop_map(Headers)
    }

    fn frames() -> impl Strategy<Value = Frame> {
        let stream = 1u32..0x7fff_ffff;
        prop_oneof![
            (stream.clone(), vec(any::<u8>(), 1..300), any::<bool>()).prop_map(|(stream, bytes, fin)| Frame::Data {
                stream,
                bytes: bytes.into(),
                fin
            }),
            (stream.clone(), any::<bool>(), headers())
                .prop_map(|(stream, fin, headers)| { Frame::SynStream { stream, fin, headers } }),
            (stream.clone(), any::<bool>(), headers())
                .prop_map(|(stream, fin, headers)| { Frame::SynReply { stream, fin, headers } }),
            (stream.clone(), any::<bool>(), headers())
                .prop_map(|(stream, fin, headers)| { Frame::Headers { stream, fin, headers } }),
            (stream, any::<u32>()).prop_map(|(stream, status)| Frame::RstStream { stream, status }),
            vec(any::<(u32, u32)>(), 0..4).prop_map(Frame::Settings),
            any::<u32>().prop_map(Frame::Ping),
        ]
    }

    /// Pieces of one data frame put together again.
    fn joined(pieces: Vec<Frame>) -> Vec<Frame> {
        let mut frames: Vec<Frame> = Vec::new();
        for piece in pieces {
            match (frames.last_mut(), piece) {
                (
                    Some(Frame::Data {
                        stream: last,
                        bytes: head,
                        fin: end @ false,
                    }),
                    Frame::Data { stream, bytes, fin },
                ) if *last == stream => {
                    *head = [&head[..], &bytes].concat().into();
                    *end = fin;
                }
                (_, piece) => frames.push(piece),
            }
        }
        frames
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_however_it_is_cut(frames in vec(frames(), 0..12), cut in 1usize..64) {
            let mut encoder = Encoder::new();
            let mut wire = BytesMut::new();
            for frame in &frames {
                encoder.encode(frame, &mut wire);
            }
            let mut decoder = Decoder::new();
            let mut input = BytesMut::new();
            let mut pieces = Vec::new();
            for chunk in wire.chunks(cut) {
                input.extend_from_slice(chunk);
                pieces.extend(decode_all(&mut decoder, &mut input).unwrap());
            }
            prop_assert!(input.is_empty());
            prop_assert_eq!(joined(pieces), joined(frames));
        }

        #[test]
        fn arbitrary_bytes_end_in_frames_or_an_error(bytes in vec(any::<u8>(), 0..2000)) {
            let mut input = BytesMut::from(&bytes[..]);
            let _ = decode_all(&mut Decoder::new(), &mut input);
            prop_assert!(input.len() <= bytes.len());
        }

        #[test]
        fn damaged_frames_end_in_frames_or_an_error(
            frames in vec(frames(), 1..8), damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let mut encoder = Encoder::new();
            let mut wire = BytesMut::new();
            for frame in &frames {
                encoder.encode(frame, &mut wire);
            }
            for (index, byte) in damage {
                let at = index.index(wire.len());
                wire[at] = byte;
            }
            let _ = decode_all(&mut Decoder::new(), &mut wire);
        }
    }
}
