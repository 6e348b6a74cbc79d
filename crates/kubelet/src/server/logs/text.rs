//! Lines of a CRI log file, and the text that they become.
//!
//! ```text
//! 2016-10-06T00:17:09.669794202Z stdout F a whole line, or the end of one
//! 2016-10-06T00:17:09.669794202Z stdout P a piece of a line that goes on in a later entry
//! ```

use jiff::Timestamp;

use super::options::{LogOptions, Shown};

/// One entry of a log file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    timestamp: &'a [u8],
    stderr: bool,
    /// Whether the line ends here.
    whole: bool,
    content: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Reads a line of the file without its line feed; `None` when it is no entry.
    pub(super) fn parse(line: &'a [u8]) -> Option<Entry<'a>> {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let timestamp = parts.next()?;
        let stderr = match parts.next()? {
            b"stdout" => false,
            b"stderr" => true,
            _ => return None,
        };
        // More tags may follow the first behind colons.
        let whole = match parts.next()?.split(|byte| *byte == b':').next()? {
            b"F" => true,
            b"P" => false,
            _ => return None,
        };
        let content = parts.next()?;
        Some(Entry {
            timestamp,
            stderr,
            whole,
            content,
        })
    }

    /// Whether a line, of which `head` is the beginning, ends a line of the container.
    pub(super) fn ends_line(head: &[u8]) -> bool {
        let tag = head.splitn(4, |byte| *byte == b' ').nth(2);
        tag.is_none_or(|tag| !tag.starts_with(b"P"))
    }
}

/// Turns entries into the text that a caller sees.
#[derive(Debug)]
pub(super) struct Text {
    timestamps: bool,
    since: Option<Timestamp>,
    shown: Shown,
    /// How much may still be shown.
    left: Option<u64>,
    at_line_start: bool,
}

impl Text {
    pub(super) fn new(options: &LogOptions) -> Text {
        Text {
            timestamps: options.timestamps,
            since: options.since,
            shown: options.shown,
            left: options.limit_bytes,
            at_line_start: true,
        }
    }

    /// Whether everything that may be shown has been.
    pub(super) fn is_complete(&self) -> bool {
        self.left == Some(0)
    }

    /// Appends what a line of the file (without its line feed) becomes.
    pub(super) fn append(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(entry) = Entry::parse(line) else {
            tracing::debug!(line = %String::from_utf8_lossy(&line[..line.len().min(100)]), "log line is no CRI entry");
            return;
        };
        let shown = match self.shown {
            Shown::All => true,
            Shown::Stdout => !entry.stderr,
            Shown::Stderr => entry.stderr,
        };
        if !shown || self.is_before(entry.timestamp) {
            return;
        }
        let start = out.len();
        if self.timestamps && self.at_line_start {
            append_timestamp(entry.timestamp, out);
            out.push(b' ');
        }
        out.extend_from_slice(entry.content);
        if entry.whole {
            out.push(b'\n');
        }
        self.at_line_start = entry.whole;
        if let Some(left) = &mut self.left {
            let allowed = usize::try_from(*left).unwrap_or(usize::MAX).min(out.len() - start);
            out.truncate(start + allowed);
            *left -= allowed as u64;
        }
    }

    fn is_before(&self, timestamp: &[u8]) -> bool {
        let Some(since) = self.since else { return false };
        let timestamp = std::str::from_utf8(timestamp)
            .ok()
            .and_then(|text| text.parse::<Timestamp>().ok());
        timestamp.is_some_and(|timestamp| timestamp < since)
    }
}

/// Timestamps are shown with nine digits of a second, as all Kubernetes' are; some runtimes leave zeros out.
fn append_timestamp(timestamp: &[u8], out: &mut Vec<u8>) {
    const WHOLE: usize = "2006-01-02T15:04:05".len();
    const DIGITS: usize = 9;
    let (whole, rest) = timestamp.split_at(timestamp.len().min(WHOLE));
    let fraction = rest.strip_prefix(b".").unwrap_or_default();
    let digits = fraction
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count()
        .min(DIGITS);
    let zone = if fraction.is_empty() { rest } else { &fraction[digits..] };
    out.extend_from_slice(whole);
    out.push(b'.');
    out.extend_from_slice(&fraction[..digits]);
    out.extend(std::iter::repeat_n(b'0', DIGITS - digits));
    out.extend_from_slice(zone);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says what it expects by failing")]

    use proptest::prelude::*;

    use super::*;
    use crate::server::query::Query;

    const LOG: &[&str] = &[
        "2024-01-01T00:00:01.000000000Z stdout F one",
        "2024-01-01T00:00:02.5Z stderr F two",
        "2024-01-01T00:00:03Z stdout P thr",
        "2024-01-01T00:00:04.000000001Z stdout F ee",
        "no entry at all",
        "2024-01-01T00:00:05.000000000+01:00 stdout F:tag  spaced ",
        "2024-01-01T00:00:06.000000000Z stdout F ",
    ];

    fn shown(query: &str) -> String {
        let options = LogOptions::parse(&Query::parse(Some(query)), Timestamp::UNIX_EPOCH).unwrap();
        let (mut text, mut out) = (Text::new(&options), Vec::new());
        for line in LOG {
            text.append(line.as_bytes(), &mut out);
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_of_a_log() {
        for (query, expected) in [
            ("", "one\ntwo\nthree\n spaced \n\n"),
            (
                "timestamps=true",
                "2024-01-01T00:00:01.000000000Z one\n2024-01-01T00:00:02.500000000Z two\n\
                 2024-01-01T00:00:03.000000000Z three\n2024-01-01T00:00:05.000000000+01:00  spaced \n\
                 2024-01-01T00:00:06.000000000Z \n",
            ),
            ("stream=Stderr", "two\n"),
            ("stream=Stdout", "one\nthree\n spaced \n\n"),
            ("limitBytes=6", "one\ntw"),
            ("limitBytes=8", "one\ntwo\n"),
            ("sinceTime=2024-01-01T00:00:02.5Z&limitBytes=100", "two\nthree\n\n"),
        ] {
            assert_eq!(shown(query), expected, "{query}");
        }
    }

    #[test]
    fn ends_of_lines() {
        for (line, ends) in [
            (LOG[0], true),
            (LOG[2], false),
            (LOG[4], true),
            (LOG[5], true),
            ("", true),
        ] {
            assert_eq!(Entry::ends_line(line.as_bytes()), ends, "{line}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_entries_or_not(line in prop::collection::vec(any::<u8>(), 0..200)) {
            let options = LogOptions::parse(&Query::parse(Some("timestamps=1&limitBytes=50")), Timestamp::UNIX_EPOCH).unwrap();
            let (mut text, mut out) = (Text::new(&options), Vec::new());
            text.append(&line, &mut out);
            text.append(&[b"x stdout F ", &line[..]].concat(), &mut out);
            text.append(&[&line[..], b" stdout F x"].concat(), &mut out);
            prop_assert!(out.len() <= 50);
        }
    }
}
