//! Name/value header blocks and their compression.
//!
//! A block is a count, then for each header the length and bytes of its name and of its value, all lengths 32 bits.
//! All blocks of one direction pass through one zlib stream that starts from a dictionary fixed by the protocol and
//! is flushed after each block; so even a block that nobody wants must be decompressed.

use std::sync::LazyLock;

use bytes::{Buf, BufMut, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::frame::FrameError;

/// The most a block may be when decompressed; sessions use a few hundred bytes.
pub(crate) const MAX_BLOCK: usize = 64 * 1024;

/// The dictionary's words that stand each behind its length.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language \
    accept-ranges age allow authorization cache-control connection content-base content-encoding content-language \
    content-length content-location content-md5 content-range content-type date etag expect expires from host \
    if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma \
    proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
    user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie \
    keep-alive origin";

/// The dictionary's end, without lengths.
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 \
    Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 \
    Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept \
    Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,\
    application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,\
    sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

/// The dictionary of SPDY/3 (draft-mbelshe-httpbis-spdy-00, section 2.6.10.1).
static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut dictionary = Vec::with_capacity(1423);
    for word in WORDS.split_ascii_whitespace() {
        let word = word.replace('_', " ");
        dictionary.put_u32(word.len() as u32);
        dictionary.put_slice(word.as_bytes());
    }
    dictionary.put_slice(TAIL.as_bytes());
    dictionary
});

/// Headers of a stream, names in lower case, in the order of the wire.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Headers(pub(crate) Vec<(String, String)>);

impl Headers {
    /// Headers of these names and values.
    pub(crate) fn of<const N: usize>(headers: [(&str, &str); N]) -> Headers {
        Headers(
            headers
                .iter()
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_string()))
                .collect(),
        )
    }

    /// The (first) value of a header, its name in lower case.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(have, _)| have == name)?;
        // Several values of one name are joined by NUL.
        value.split('\0').next()
    }

    fn encode(&self) -> BytesMut {
        let mut block = BytesMut::new();
        block.put_u32(self.0.len() as u32);
        for text in self.0.iter().flat_map(|(name, value)| [name, value]) {
            block.put_u32(text.len() as u32);
            block.put_slice(text.as_bytes());
        }
        block
    }

    fn decode(mut block: &[u8]) -> Result<Headers, FrameError> {
        let text = |block: &mut &[u8]| -> Result<String, FrameError> {
            let length = block.try_get_u32().map_err(|_| FrameError::HeaderBlock)? as usize;
            let bytes = block.split_off(..length).ok_or(FrameError::HeaderBlock)?;
            Ok(String::from_utf8_lossy(bytes).into_owned())
        };
        let count = block.try_get_u32().map_err(|_| FrameError::HeaderBlock)?;
        let mut headers = Vec::new();
        for _ in 0..count {
            let name = text(&mut block)?.to_ascii_lowercase();
            headers.push((name, text(&mut block)?));
        }
        Ok(Headers(headers))
    }
}

/// Compresses the blocks of one direction.
pub(crate) struct Compressor(Compress);

impl Compressor {
    /// A stream that has seen the dictionary only.
    pub(crate) fn new() -> Compressor {
        // 2 KiB of window hold the dictionary and keep a session small.
        let mut compress = Compress::new_with_window_bits(Compression::fast(), true, 11);
        compress
            .set_dictionary(&DICTIONARY)
            .expect("a fresh zlib stream takes a dictionary");
        Compressor(compress)
    }

    /// Appends the compressed block of `headers`.
    pub(crate) fn append(&mut self, headers: &Headers, out: &mut BytesMut) {
        let block = headers.encode();
        let mut piece = Vec::with_capacity(block.len() + 64);
        let start = self.0.total_in();
        loop {
            let consumed = (self.0.total_in() - start) as usize;
            self.0
                .compress_vec(&block[consumed..], &mut piece, FlushCompress::Sync)
                .expect("compression into memory has no other failure");
            // Room left over means that the flush is complete.
            let complete = piece.len() < piece.capacity();
            out.put_slice(&piece);
            piece.clear();
            if complete {
                return;
            }
        }
    }
}

/// Decompresses the blocks of one direction.
pub(crate) struct Decompressor(Decompress);

impl Decompressor {
    /// A stream that has seen nothing.
    pub(crate) fn new() -> Decompressor {
        Decompressor(Decompress::new(true))
    }

    /// The headers in one compressed block.
    pub(crate) fn headers(&mut self, compressed: &[u8]) -> Result<Headers, FrameError> {
        let mut block = Vec::with_capacity(1024);
        let start = self.0.total_in();
        loop {
            if block.len() == block.capacity() {
                if block.len() >= MAX_BLOCK {
                    return Err(FrameError::HeadersTooLong);
                }
                block.reserve(block.len());
            }
            let consumed = (self.0.total_in() - start) as usize;
            let before = block.len();
            match self
                .0
                .decompress_vec(&compressed[consumed..], &mut block, FlushDecompress::Sync)
            {
                Ok(Status::StreamEnd) => return Err(FrameError::Compression),
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0
                        .set_dictionary(&DICTIONARY)
                        .map_err(|_| FrameError::Compression)?;
                    continue;
                }
                Err(_) => return Err(FrameError::Compression),
            }
            let all_read = (self.0.total_in() - start) as usize == compressed.len();
            if all_read && block.len() < block.capacity() {
                return Headers::decode(&block);
            }
            if !all_read && block.len() == before && block.len() < block.capacity() {
                return Err(FrameError::Compression);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says what it expects by failing")]

    use super::*;

    #[test]
    fn the_dictionary_is_the_one_that_everybody_has() {
        // zlib streams name their dictionary by its Adler-32; SPDY/3's is well known.
        let mut compressor = Compressor::new();
        let mut out = BytesMut::new();
        compressor.append(&Headers::default(), &mut out);
        assert_eq!(DICTIONARY.len(), 1423);
        assert_eq!(out[2..6], [0xe3, 0xc6, 0xa7, 0xc2]);
    }

    #[test]
    fn blocks_follow_each_other_in_one_stream() {
        let mut compressor = Compressor::new();
        let mut decompressor = Decompressor::new();
        let long = "x".repeat(40_000);
        for headers in [
            Headers::of([("streamType", "error")]),
            Headers::of([("streamtype", "stdin"), ("port", "80"), ("requestid", "0")]),
            Headers::default(),
            Headers::of([("long", &long)]),
            Headers::of([("streamtype", "stdin"), ("port", "80"), ("requestid", "1")]),
        ] {
            let mut out = BytesMut::new();
            compressor.append(&headers, &mut out);
            assert_eq!(decompressor.headers(&out).unwrap(), headers);
        }
    }

    #[test]
    fn a_block_that_swells_is_refused() {
        let mut out = BytesMut::new();
        Compressor::new().append(&Headers::of([("bomb", &"0".repeat(1 << 20))]), &mut out);
        assert!(out.len() < MAX_BLOCK);
        assert!(matches!(
            Decompressor::new().headers(&out),
            Err(FrameError::HeadersTooLong)
        ));
    }

    #[test]
    fn a_block_that_lies_about_its_lengths_is_refused() {
        for block in [&[][..], &[0, 0, 0, 1], &[0, 0, 0, 1, 0, 0, 0, 9, b'x'], &[255; 12]] {
            assert!(
                matches!(Headers::decode(block), Err(FrameError::HeaderBlock)),
                "{block:?}"
            );
        }
    }
}
