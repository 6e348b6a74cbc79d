//! Where the last lines of a log file begin, found from its end.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::text::Entry;

/// What is read at once.
const BLOCK: usize = 64 * 1024;

/// Enough of a line to see whether it is whole: timestamp, stream and tag.
const HEAD: usize = 64;

/// The offset from which the last `lines` lines of the container are in the first `size` bytes of the file.
///
/// A line of the container may be several entries, the last of which says so; what follows the last such entry is
/// a line that is not complete yet, and is shown in any case.
pub(super) fn start_of_last(file: &File, size: u64, lines: u64) -> io::Result<u64> {
    // The block and, behind it, enough of the next for the head of a line that begins just before the boundary.
    let mut buffer = vec![0; BLOCK + HEAD];
    // The end of the entry whose beginning is looked for.
    let mut entry_end = None;
    let mut found = 0;
    let mut end = size;
    while end > 0 {
        let begin = end.saturating_sub(BLOCK as u64);
        let searched = (end - begin) as usize;
        let block = &mut buffer[..searched + HEAD.min((size - end) as usize)];
        file.read_exact_at(block, begin)?;
        let mut upto = searched;
        loop {
            let line_feed = memchr::memrchr(b'\n', &block[..upto]);
            let start = match line_feed {
                Some(at) => at + 1,
                None if begin == 0 => 0,
                None => break,
            };
            if let Some(entry_end) = entry_end
                && Entry::ends_line(head(&block[start..]))
            {
                if found == lines {
                    return Ok(entry_end);
                }
                found += 1;
            }
            let Some(at) = line_feed else { break };
            entry_end = Some(begin + start as u64);
            upto = at;
        }
        end = begin;
    }
    Ok(0)
}

fn head(rest: &[u8]) -> &[u8] {
    let head = &rest[..rest.len().min(HEAD)];
    &head[..memchr::memchr(b'\n', head).unwrap_or(head.len())]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says what it expects by failing")]

    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn entry(whole: bool, content: &str) -> String {
        format!(
            "2024-01-01T00:00:01.000000000Z stdout {} {content}\n",
            if whole { "F" } else { "P" }
        )
    }

    fn tail(content: &str, lines: u64) -> String {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content.as_bytes()).unwrap();
        let start = start_of_last(&file, content.len() as u64, lines).unwrap();
        content[start as usize..].to_owned()
    }

    #[test]
    fn last_lines() {
        let log = [
            entry(true, "one"),
            entry(false, "tw"),
            entry(true, "o"),
            entry(true, "three"),
        ];
        let [one, tw, o, three] = &log;
        let all = log.concat();
        for (lines, expected) in [
            (0, String::new()),
            (1, three.clone()),
            (2, [&tw[..], o, three].concat()),
            (3, all.clone()),
            (9, all.clone()),
        ] {
            assert_eq!(tail(&all, lines), expected, "{lines}");
        }
        assert_eq!(tail("", 3), "");
        assert_eq!(
            tail(&[&all[..], tw, "2024 cut"].concat(), 1),
            [&three[..], tw, "2024 cut"].concat()
        );
        assert_eq!(tail(one, 0), "");
        assert_eq!(tail(one, 1), *one);
    }

    proptest! {
        #[test]
        fn as_if_read_from_the_beginning(
            entries in prop::collection::vec((any::<bool>(), 0usize..30_000), 0..30), lines in 0u64..12,
        ) {
            let entries: Vec<(bool, String)> =
                entries.into_iter().map(|(whole, length)| (whole, entry(whole, &"x".repeat(length)))).collect();
            let ends: Vec<usize> =
                entries.iter().enumerate().filter(|(_, (whole, _))| *whole).map(|(index, _)| index + 1).collect();
            let first = ends.len().checked_sub(lines as usize + 1).map_or(0, |index| ends[index]);
            let text = |entries: &[(bool, String)]| entries.iter().map(|(_, text)| &text[..]).collect::<String>();
            prop_assert_eq!(tail(&text(&entries), lines), text(&entries[first..]));
        }
    }
}
