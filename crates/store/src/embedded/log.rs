//! Where a write goes first: one row of batches, each put on disk with one write and one fsync. redb's copy-on-write pages would take nine
//! scattered ones, and a small machine's flash that many times the wear. When the row is full, redb takes in all of it in one transaction,
//! and the row begins anew at the front of the same file.
//!
//! ```text
//! batch, at a multiple of 4096 bytes, so that no later write touches what was acknowledged:
//! |-- mark        u64, little endian: the file's present one, which redb's meta table holds
//! |-- newest      u64: the revision of the batch's last write
//! |-- length      u32, of the rest
//! |-- checksum    u32: CRC-32 of the three numbers above and the rest
//! `-- states      of one key each
//!     |-- key     u32 length, then UTF-8
//!     `-- entry   u32 length, then an entry ([`record`]); u32::MAX for a key that is gone
//! ```
//!
//! A mark is drawn at random each time the row begins anew, in the transaction that takes the last one in: so it is exactly the batches that
//! redb does not have which carry the present mark, and what clients wrote can not be mistaken for a batch, wherever it lies.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::{disk::State, record};
use crate::Revision;

/// As much as redb takes in at once.
const CAPACITY: usize = 4 << 20;
/// Room is made in pieces, with zeros: an fsync of bytes that are there already has no lengths or extents to write.
const PIECE: usize = 256 << 10;
const BLOCK: usize = 4096;
const HEAD: usize = 24;
const GONE: u32 = u32::MAX;

/// States that became durable together.
pub(super) struct Batch {
    pub(super) newest: Revision,
    pub(super) states: Vec<State>,
}

/// The row's file.
pub(super) struct Log {
    path: PathBuf,
    file: File,
    mark: u64,
    /// Where the next batch goes.
    end: usize,
    /// How far the file reaches.
    room: usize,
    buffer: Vec<u8>,
}

/// Why a log can not be read.
pub(super) enum Unreadable {
    Io(io::Error),
    /// There is more after a batch that is damaged: it was whole once, and acknowledged.
    Damaged {
        at: usize,
    },
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        Unreadable::Io(error)
    }
}

impl Log {
    /// Opens the file, which is made when it is not there, and gives the batches with the mark. A last one that was cut short was never
    /// acknowledged, and is not one.
    pub(super) fn open(path: &Path, mark: u64) -> Result<(Log, Vec<Batch>), Unreadable> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        let bytes = std::fs::read(path)?;
        let (batches, end) = read(&bytes, mark)?;
        let log = Log {
            path: path.to_owned(),
            file,
            mark,
            end,
            room: bytes.len(),
            buffer: Vec::new(),
        };
        Ok((log, batches))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Begins anew: all that was in it is elsewhere.
    pub(super) fn begin(&mut self, mark: u64) {
        self.mark = mark;
        self.end = 0;
    }

    /// Whether a batch of one state of so many bytes surely fits into what the file has already.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        // A block is more than a batch and an entry have beside their key and value.
        self.end + bytes + BLOCK <= self.room
    }

    /// Makes a batch durable, if there is room for it. After an error nobody knows whether it is.
    pub(super) fn append(&mut self, states: &[State], newest: Revision) -> io::Result<bool> {
        if !write(&mut self.buffer, states, newest, self.mark, CAPACITY - self.end) {
            return Ok(false);
        }
        let end = self.end + self.buffer.len();
        if end > self.room {
            let room = end.next_multiple_of(PIECE).min(CAPACITY);
            self.file.write_all_at(&vec![0; room - self.room], self.room as u64)?;
            self.file.sync_all()?;
            self.room = room;
        }
        self.file.write_all_at(&self.buffer, self.end as u64)?;
        self.file.sync_data()?;
        self.end = end;
        // One large batch does not hold its room for ever.
        self.buffer.shrink_to(PIECE);
        Ok(true)
    }
}

/// Fills the buffer with a batch and pads it to whole blocks; false when it is longer than `room`.
fn write(buffer: &mut Vec<u8>, states: &[State], newest: Revision, mark: u64, room: usize) -> bool {
    buffer.clear();
    buffer.extend_from_slice(&mark.to_le_bytes());
    buffer.extend_from_slice(&newest.to_le_bytes());
    buffer.extend_from_slice(&[0; HEAD - 16]);
    for (key, entry) in states {
        let length = entry.as_ref().map_or(0, |entry| record::length(entry));
        if buffer.len() + key.len() + length + 8 > room {
            return false;
        }
        // Both are shorter than the room, which a u32 counts.
        buffer.extend_from_slice(&(key.len() as u32).to_le_bytes());
        buffer.extend_from_slice(key.as_bytes());
        match entry {
            Some(entry) => {
                buffer.extend_from_slice(&(length as u32).to_le_bytes());
                let at = buffer.len();
                buffer.resize(at + length, 0);
                record::encode(entry, &mut buffer[at..]);
            }
            None => buffer.extend_from_slice(&GONE.to_le_bytes()),
        }
    }
    let length = (buffer.len() - HEAD) as u32;
    buffer[16..20].copy_from_slice(&length.to_le_bytes());
    let checksum = checksum(&buffer[..20], &buffer[HEAD..]);
    buffer[20..HEAD].copy_from_slice(&checksum.to_le_bytes());
    buffer.resize(buffer.len().next_multiple_of(BLOCK), 0);
    buffer.len() <= room
}

fn checksum(head: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(body);
    hasher.finalize()
}

/// The batches at the front, and where they end.
fn read(bytes: &[u8], mark: u64) -> Result<(Vec<Batch>, usize), Unreadable> {
    let mut batches = Vec::new();
    let mut end = 0;
    while let Some((batch, length)) = bytes.get(end..).and_then(|rest| first(rest, mark)) {
        batches.push(batch);
        end += length;
    }
    let later = (end..bytes.len()).step_by(BLOCK).skip(1);
    match later.into_iter().any(|at| first(&bytes[at..], mark).is_some()) {
        true => Err(Unreadable::Damaged { at: end }),
        false => Ok((batches, end)),
    }
}

/// The batch at the front, and how far it reaches.
fn first(bytes: &[u8], mark: u64) -> Option<(Batch, usize)> {
    let (head, rest) = bytes.split_at_checked(HEAD)?;
    let number = |at: usize| head.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    if number(0)? != mark {
        return None;
    }
    let newest = number(8)?;
    let (length, sum) = (u32::from_le_bytes(head[16..20].try_into().ok()?), &head[20..]);
    let body = rest.get(..usize::try_from(length).ok()?)?;
    if checksum(&head[..20], body).to_le_bytes() != sum {
        return None;
    }
    let mut states = Vec::new();
    let mut left = body;
    while !left.is_empty() {
        let key = std::str::from_utf8(counted(&mut left)?).ok()?;
        let entry = match left.split_at_checked(4)? {
            (gone, after) if gone == GONE.to_le_bytes() => {
                left = after;
                None
            }
            _ => Some(record::decode(key.into(), counted(&mut left)?)?.into()),
        };
        states.push((key.into(), entry));
    }
    Some((Batch { newest, states }, (HEAD + body.len()).next_multiple_of(BLOCK)))
}

/// The bytes that come after their number, which are taken off.
fn counted<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_at_checked(4)?;
    let length = u32::from_le_bytes(length.try_into().ok()?);
    let (counted, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    Some(counted)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
    use std::sync::Arc;

    use super::*;
    use crate::{Entry, Value};

    const MARK: u64 = 0x1122_3344_5566_7788;

    fn state(key: &str, revision: Revision, value: Option<&str>) -> State {
        let entry =
            value.map(|value| Arc::new(Entry::new(key.into(), revision, 1, Value::stamped(value.to_owned(), 0))));
        (key.into(), entry)
    }

    fn shown(batches: &[Batch]) -> Vec<String> {
        let state = |(key, entry): &State| match entry {
            Some(entry) => format!("{key}={}", String::from_utf8_lossy(&entry.value)),
            None => format!("-{key}"),
        };
        let batch = |batch: &Batch| {
            let states: Vec<String> = batch.states.iter().map(state).collect();
            format!("{}: {}", batch.newest, states.join(" "))
        };
        batches.iter().map(batch).collect()
    }

    /// A file of three batches of one, two and one block.
    fn three() -> Vec<u8> {
        let long = "x".repeat(BLOCK);
        let mut bytes = Vec::new();
        for (newest, states) in [
            (3, vec![state("a", 2, Some("<a")), state("b", 3, Some(""))]),
            (4, vec![state("long", 4, Some(&long))]),
            (6, vec![state("a", 6, None)]),
        ] {
            let mut buffer = Vec::new();
            assert!(write(&mut buffer, &states, newest, MARK, CAPACITY));
            bytes.extend(buffer);
        }
        assert_eq!(bytes.len(), 4 * BLOCK);
        bytes
    }

    #[test]
    fn batches_are_read_as_they_were_written() {
        let (batches, end) = read(&three(), MARK).ok().unwrap();
        let long = format!("4: long=4{}", "x".repeat(BLOCK));
        assert_eq!(shown(&batches), ["3: a=2<a b=3", &long, "6: -a"]);
        assert_eq!(end, 4 * BLOCK);
        for other in [0, MARK + 1] {
            assert!(
                read(&three(), other).ok().unwrap().0.is_empty(),
                "another mark's are none"
            );
        }
    }

    #[test]
    fn a_last_batch_that_is_cut_short_is_none() {
        let bytes = three();
        let mut seen = 0;
        for length in 0..=bytes.len() {
            let (batches, end) = read(&bytes[..length], MARK).ok().unwrap();
            assert!(batches.len() >= seen, "cut to {length}");
            assert!(length + BLOCK > end, "a batch that is not there, cut to {length}");
            seen = batches.len();
        }
        assert_eq!(seen, 3);
    }

    #[test]
    fn a_flipped_bit_costs_no_acknowledged_batch_unseen() {
        let bytes = three();
        for at in (0..bytes.len()).step_by(7) {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            match read(&bad, MARK) {
                Err(Unreadable::Damaged { at: found }) => {
                    assert!(found <= at && at < found + 2 * BLOCK, "{at}: {found}")
                }
                Err(Unreadable::Io(error)) => panic!("{error}"),
                // In what pads a batch, or in the last one, which could have been cut short.
                Ok((batches, _)) => assert!(batches.len() == 3 || (batches.len() == 2 && at >= 3 * BLOCK), "{at}"),
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_left_to_redb() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, batches) = Log::open(&dir.path().join("log"), MARK).ok().unwrap();
        assert!(batches.is_empty());
        let large = "x".repeat(CAPACITY);
        assert!(!log.append(&[state("large", 2, Some(&large))], 2).unwrap());
        let mut taken = 0;
        while log.append(&[state("small", taken, Some("value"))], taken).unwrap() {
            taken += 1;
        }
        assert_eq!(taken, (CAPACITY / BLOCK) as u64);
        assert_eq!(log.file.metadata().unwrap().len(), CAPACITY as u64);
        log.begin(MARK + 1);
        assert!(log.append(&[state("next", 9999, Some("value"))], 9999).unwrap());
        drop(log);
        let (_, batches) = Log::open(&dir.path().join("log"), MARK + 1).ok().unwrap();
        assert_eq!(
            shown(&batches),
            ["9999: next=9999value"],
            "those before it were another mark's"
        );
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = read(&bytes, MARK);
            // The same as the states of a batch whose head is right.
            let mut head = Vec::from(MARK.to_le_bytes());
            head.extend([0; 8]);
            head.extend((bytes.len() as u32).to_le_bytes());
            head.extend(checksum(&head, &bytes).to_le_bytes());
            head.append(&mut bytes);
            let _ = read(&head, MARK);
        }
    }
}
