//! Readers between a blob's source and its use: measured, and decompressed by what they begin with.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use oci_spec::image::{Digest, DigestAlgorithm};
use sha2::digest::DynDigest;
use sha2::{Sha256, Sha384, Sha512};

/// How much is read from a source at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// Counts and digests all that passes, and refuses to pass more than the limit.
pub(super) struct Measured<R> {
    inner: R,
    hasher: Box<dyn DynDigest + Send>,
    algorithm: DigestAlgorithm,
    limit: u64,
    /// Bytes that passed.
    pub count: u64,
    /// Whether the source had more than the limit.
    pub exceeded: bool,
    /// What the source itself failed with, for a message better than the decoder's.
    pub failure: Option<io::Error>,
}

impl<R: Read> Measured<R> {
    /// None when the algorithm is not one of those that OCI registers.
    pub fn new(inner: R, algorithm: &DigestAlgorithm, limit: u64) -> Option<Self> {
        let hasher: Box<dyn DynDigest + Send> = match algorithm {
            DigestAlgorithm::Sha256 => Box::new(Sha256::default()),
            DigestAlgorithm::Sha384 => Box::new(Sha384::default()),
            DigestAlgorithm::Sha512 => Box::new(Sha512::default()),
            _ => return None,
        };
        Some(Self {
            inner,
            hasher,
            algorithm: algorithm.clone(),
            limit,
            count: 0,
            exceeded: false,
            failure: None,
        })
    }

    /// Reads the rest. Failures are kept in the reader.
    pub fn drain(&mut self) {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match self.read(&mut buffer) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
    }

    /// The digest of all that passed.
    pub fn digest(self) -> String {
        format!("{}:{}", self.algorithm, hex::encode(self.hasher.finalize()))
    }
}

impl<R: Read> Read for Measured<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match self.inner.read(buffer) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                let again = io::Error::new(error.kind(), error.to_string());
                self.failure.get_or_insert(error);
                return Err(again);
            }
            other => other?,
        };
        self.count += count as u64;
        if self.count > self.limit {
            self.exceeded = true;
            return Err(io::Error::other("more bytes than announced"));
        }
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

/// The plain bytes of a stream that may be compressed with gzip or zstd.
pub(super) fn decompressed<'a>(source: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut source = BufReader::with_capacity(BUFFER_BYTES, source);
    let start = source.fill_buf()?;
    Ok(if start.starts_with(&[0x1f, 0x8b]) {
        Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(source)))
    } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Box::new(zstd::stream::read::Decoder::with_buffer(source)?)
    } else {
        Box::new(source)
    })
}

/// Whether bytes have a digest; an algorithm that OCI does not register never matches.
pub(super) fn matches(bytes: &[u8], digest: &Digest) -> bool {
    Measured::new(bytes, digest.algorithm(), u64::MAX).is_some_and(|mut measured| {
        measured.drain();
        measured.digest() == digest.as_ref()
    })
}
