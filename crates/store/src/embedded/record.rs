//! An entry as bytes on disk, without its key.
//!
//! ```text
//! revision    u64, little endian
//! created     u64, little endian: the revision that made the key
//! stamp       u64, little endian: offset of the hole in the value, u64::MAX for none
//! value       the rest, without its revision
//! ```

use std::sync::Arc;

use bytes::Bytes;

use crate::{Entry, Value};

const HEADER: usize = 24;

/// How many bytes an entry takes.
pub(super) fn length(entry: &Entry) -> usize {
    let (before, after) = entry.unstamped();
    HEADER + before.len() + after.len()
}

/// Fills a place of that length.
pub(super) fn encode(entry: &Entry, place: &mut [u8]) {
    let (before, after) = entry.unstamped();
    let stamp = entry.stamp().map_or(u64::MAX, |stamp| stamp as u64);
    let parts: [&[u8]; 5] = [
        &entry.revision.to_le_bytes(),
        &entry.create_revision.to_le_bytes(),
        &stamp.to_le_bytes(),
        before,
        after,
    ];
    let mut rest = place;
    for part in parts {
        let (place, others) = rest.split_at_mut(part.len());
        place.copy_from_slice(part);
        rest = others;
    }
}

/// None for bytes that no store wrote.
pub(super) fn decode(key: Arc<str>, record: &[u8]) -> Option<Entry> {
    let (header, bytes) = record.split_at_checked(HEADER)?;
    let number = |at: usize| header.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    let stamp = match number(16)? {
        u64::MAX => None,
        stamp => Some(usize::try_from(stamp).ok().filter(|stamp| *stamp <= bytes.len())?),
    };
    let value = Value {
        bytes: Bytes::copy_from_slice(bytes),
        stamp,
    };
    Some(Entry::new(key, number(0)?, number(8)?, value))
}
