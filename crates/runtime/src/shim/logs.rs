//! The CRI log format: `2026-11-23T20:00:00.123456789Z stdout F line`, and the file that it goes to.
//!
//! A line longer than [`MAX_LINE`] is cut into pieces tagged `P`; the piece that ends the line is tagged `F`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// The longest piece of a line, as other runtimes cut them.
const MAX_LINE: usize = 16 * 1024;

/// Where output came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Stdout,
    Stderr,
}

impl Origin {
    fn name(self) -> &'static [u8] {
        match self {
            Origin::Stdout => b"stdout",
            Origin::Stderr => b"stderr",
        }
    }
}

/// Cuts a stream of bytes into log lines.
#[derive(Debug)]
pub(super) struct Lines {
    origin: Origin,
    /// The beginning of a line whose end has not come.
    pending: Vec<u8>,
}

impl Lines {
    pub(super) fn new(origin: Origin) -> Self {
        Self {
            origin,
            pending: Vec::new(),
        }
    }

    /// Appends to `out` the log lines that `chunk` completes. `time` is formatted already.
    pub(super) fn push(&mut self, mut chunk: &[u8], time: &str, out: &mut Vec<u8>) {
        while !chunk.is_empty() {
            let end = memchr::memchr(b'\n', chunk);
            let piece = &chunk[..end.unwrap_or(chunk.len())];
            let room = MAX_LINE - self.pending.len();
            if piece.len() > room {
                self.record(b"P", &piece[..room], time, out);
                chunk = &chunk[room..];
                continue;
            }
            match end {
                Some(end) => {
                    self.record(b"F", piece, time, out);
                    chunk = &chunk[end + 1..];
                }
                None => {
                    self.pending.extend_from_slice(piece);
                    return;
                }
            }
        }
    }

    /// Appends the line that the stream ended in the middle of.
    pub(super) fn finish(&mut self, time: &str, out: &mut Vec<u8>) {
        if !self.pending.is_empty() {
            self.record(b"F", b"", time, out);
        }
    }

    fn record(&mut self, tag: &[u8], tail: &[u8], time: &str, out: &mut Vec<u8>) {
        for part in [
            time.as_bytes(),
            b" ",
            self.origin.name(),
            b" ",
            tag,
            b" ",
            &self.pending,
            tail,
            b"\n",
        ] {
            out.extend_from_slice(part);
        }
        // Most lines come whole: the memory of the rare piece is given back.
        self.pending = Vec::new();
    }
}

/// The time of a log line.
pub(super) fn timestamp() -> String {
    format!("{:.9}", jiff::Timestamp::now())
}

/// A container's log.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
}

impl LogFile {
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let file = open(&path)?;
        Ok(Self { path, file })
    }

    /// Opens the path anew; the old file stays in use when that fails.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        self.file = open(&self.path)?;
        Ok(())
    }

    /// Writes records. A slow disk slows the container; a disk that refuses loses the records, as there is
    /// nowhere to keep them.
    pub(super) fn write(&mut self, records: &[u8]) {
        let _ = self.file.write_all(records);
    }
}

fn open(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed call fails the test

    use super::*;

    fn log(chunks: &[&[u8]], ended: bool) -> String {
        let mut lines = Lines::new(Origin::Stdout);
        let mut out = Vec::new();
        for chunk in chunks {
            lines.push(chunk, "T", &mut out);
        }
        if ended {
            lines.finish("E", &mut out);
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_put_together_and_cut() {
        let cases: &[(&[&[u8]], &str)] = &[
            (&[b""], ""),
            (&[b"one\n"], "T stdout F one\n"),
            (&[b"\n"], "T stdout F \n"),
            (&[b"o", b"n", b"e\ntwo\n"], "T stdout F one\nT stdout F two\n"),
            (&[b"one\ntwo"], "T stdout F one\nE stdout F two\n"),
            (&[b"one\r\n"], "T stdout F one\r\n"),
        ];
        for (chunks, expected) in cases {
            assert_eq!(log(chunks, true), *expected, "{chunks:?}");
        }
    }

    #[test]
    fn long_lines_are_partial() {
        let line = "x".repeat(2 * MAX_LINE + 3);
        let full = "x".repeat(MAX_LINE);
        let expected = format!("T stdout P {full}\nT stdout P {full}\nT stdout F xxx\nT stdout F y\n");
        assert_eq!(log(&[format!("{line}\ny\n").as_bytes()], false), expected);
        let (head, tail) = line.split_at(MAX_LINE - 1);
        assert_eq!(log(&[head.as_bytes(), tail.as_bytes(), b"\ny\n"], false), expected);
        // Exactly as long as a piece may be: one record.
        assert_eq!(log(&[full.as_bytes(), b"\n"], false), format!("T stdout F {full}\n"));
    }

    #[test]
    fn the_memory_of_a_piece_is_given_back() {
        let mut lines = Lines::new(Origin::Stderr);
        let mut out = Vec::new();
        lines.push(b"head", "T", &mut out);
        assert!(out.is_empty());
        lines.push(b" tail\n", "T", &mut out);
        assert_eq!(out, b"T stderr F head tail\n");
        assert_eq!(lines.pending.capacity(), 0);
    }

    #[test]
    fn time_has_nanoseconds_and_no_offset() {
        let time = timestamp();
        assert_eq!(time.len(), "2026-11-23T20:00:00.123456789Z".len(), "{time}");
        assert!(time.ends_with('Z'));
    }
}
