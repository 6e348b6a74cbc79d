//! A log file as a stream of text, through rotation to the end of its container.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use nix::sys::inotify::AddWatchFlags;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::options::LogOptions;
use super::tail::start_of_last;
use super::text::Text;
use crate::inotify::Watch;

/// What is read at once.
const BLOCK: usize = 64 * 1024;

/// The longest line that is shown; runtimes break lines at a sixtieth of it.
const MAX_LINE: usize = 1024 * 1024;

/// Writes, new files and renames in the directory of a log: a rotated log is renamed and a new file takes its name.
fn watch(directory: &Path) -> io::Result<Watch> {
    let events = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
    Watch::new(directory, events)
}

/// Where a reader is.
pub(super) struct LogStream {
    /// Where the newest file of the log is.
    path: PathBuf,
    file: Arc<File>,
    offset: u64,
    lines: Lines,
    /// Says that the container writes no more; said from the beginning when nobody follows.
    ended: CancellationToken,
    watch: Option<Watch>,
}

impl LogStream {
    /// Opens the log at `path` and finds where to begin.
    pub(super) async fn open(path: &Path, options: &LogOptions, ended: CancellationToken) -> io::Result<LogStream> {
        let path = path.to_owned();
        let options = options.clone();
        let begin = move || {
            let path = path.canonicalize()?;
            // Before the first look at the file, so that no change is missed.
            let watch = if ended.is_cancelled() {
                None
            } else {
                path.parent().map(watch).transpose()?
            };
            let file = File::open(&path)?;
            let size = file.metadata()?.len();
            let offset = options
                .tail_lines
                .map_or(Ok(0), |lines| start_of_last(&file, size, lines))?;
            Ok(LogStream {
                path,
                file: Arc::new(file),
                offset,
                lines: Lines::new(&options),
                ended,
                watch,
            })
        };
        blocking(begin).await
    }

    /// Sends text until all is sent, the container has ended, or nobody listens.
    pub(super) async fn run(mut self, to: mpsc::Sender<io::Result<Bytes>>) {
        if let Err(error) = self.follow(&to).await {
            tracing::warn!(%error, path = %self.path.display(), "log cannot be read");
            // Breaks the answer off, so that it is not taken for the whole log.
            let _ = to.send(Err(error)).await;
        }
    }

    async fn follow(&mut self, to: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
        loop {
            // Asked before the file is read: what is written before either is read for certain.
            let over = self.ended.is_cancelled();
            let successor = match self.watch {
                Some(_) => self.successor().await?,
                None => None,
            };
            let finished = self.read(to).await?;
            if finished {
                return Ok(());
            }
            if let Some(file) = successor {
                self.file = Arc::new(file);
                self.offset = 0;
                continue;
            }
            if over {
                return self.send_last(to).await;
            }
            let Some(watch) = &self.watch else { return Ok(()) };
            tokio::select! {
                changed = watch.events() => drop(changed?),
                () = self.ended.cancelled() => {}
                () = to.closed() => return Ok(()),
            }
        }
    }

    /// The file that has taken the name of the one being read.
    async fn successor(&self) -> io::Result<Option<File>> {
        let (path, current) = (self.path.clone(), self.file.clone());
        let look = move || {
            let file = match File::open(&path) {
                Ok(file) => file,
                // Renamed and not yet made anew, or removed with its pod.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
            let (new, old) = (file.metadata()?, current.metadata()?);
            Ok(((new.dev(), new.ino()) != (old.dev(), old.ino())).then_some(file))
        };
        blocking(look).await
    }

    /// Reads to the present end of the file; whether nothing more is wanted.
    async fn read(&mut self, to: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<bool> {
        let size = self.file.metadata()?.len();
        if size < self.offset {
            // Cut to nothing by a rotation that keeps the file.
            self.offset = 0;
        }
        let mut block = vec![0; if size > self.offset { BLOCK } else { 0 }];
        while self.offset < size {
            let (file, offset) = (self.file.clone(), self.offset);
            let wanted = block.len().min((size - offset) as usize);
            let (read, length) = blocking(move || {
                let length = file.read_at(&mut block[..wanted], offset)?;
                Ok((block, length))
            })
            .await?;
            block = read;
            if length == 0 {
                break;
            }
            self.offset += length as u64;
            let text = self.lines.take(&block[..length]);
            if !text.is_empty() && to.send(Ok(text.into())).await.is_err() {
                return Ok(true);
            }
            if self.lines.text.is_complete() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A line that was never ended is shown as it is.
    async fn send_last(&mut self, to: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
        let text = self.lines.take_unfinished();
        if !text.is_empty() {
            // Whoever does not listen has missed nothing more.
            let _ = to.send(Ok(text.into())).await;
        }
        Ok(())
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Cuts blocks of a file into lines.
struct Lines {
    text: Text,
    unfinished: Vec<u8>,
    /// Within a line that is too long to be shown.
    skipping: bool,
}

impl Lines {
    fn new(options: &LogOptions) -> Lines {
        Lines {
            text: Text::new(options),
            unfinished: Vec::new(),
            skipping: false,
        }
    }

    /// The text of the lines that end in `block`.
    fn take(&mut self, mut block: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(block.len());
        while let Some(at) = memchr::memchr(b'\n', block) {
            let line = &block[..at];
            block = &block[at + 1..];
            if self.skipping {
                self.skipping = false;
            } else if self.unfinished.is_empty() {
                self.text.append(line, &mut out);
            } else {
                self.unfinished.extend_from_slice(line);
                self.text.append(&self.unfinished, &mut out);
                self.unfinished.clear();
            }
            if self.text.is_complete() {
                return out;
            }
        }
        if !self.skipping {
            self.unfinished.extend_from_slice(block);
        }
        if self.unfinished.len() > MAX_LINE {
            tracing::warn!(limit = MAX_LINE, "log line is too long to be shown");
            self.unfinished = Vec::new();
            self.skipping = true;
        }
        out
    }

    fn take_unfinished(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let line = std::mem::take(&mut self.unfinished);
        if !line.is_empty() {
            self.text.append(&line, &mut out);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says what it expects by failing")]

    use std::io::Write;

    use jiff::Timestamp;

    use super::*;
    use crate::server::query::Query;

    struct Log {
        directory: tempfile::TempDir,
        file: File,
    }

    impl Log {
        fn new() -> Log {
            let directory = tempfile::tempdir().unwrap();
            let file = File::create(directory.path().join("0.log")).unwrap();
            Log { directory, file }
        }

        fn path(&self) -> PathBuf {
            self.directory.path().join("0.log")
        }

        fn write(&mut self, content: &str) {
            writeln!(self.file, "2024-01-01T00:00:01.000000000Z stdout F {content}").unwrap();
        }

        /// As kubelets rotate: away with the old name, then a new file.
        fn rotate(&mut self, generation: u32) {
            std::fs::rename(self.path(), self.directory.path().join(format!("0.log.{generation}"))).unwrap();
            self.write("written between");
            self.file = File::create(self.path()).unwrap();
        }
    }

    async fn open(log: &Log, query: &str) -> (mpsc::Receiver<io::Result<Bytes>>, CancellationToken) {
        let options = LogOptions::parse(&Query::parse(Some(query)), Timestamp::UNIX_EPOCH).unwrap();
        let ended = CancellationToken::new();
        if !options.follow {
            ended.cancel();
        }
        let stream = LogStream::open(&log.path(), &options, ended.clone()).await.unwrap();
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(stream.run(sender));
        (receiver, ended)
    }

    async fn rest(mut receiver: mpsc::Receiver<io::Result<Bytes>>) -> String {
        let mut text = Vec::new();
        while let Some(piece) = receiver.recv().await {
            text.extend_from_slice(&piece.unwrap());
        }
        String::from_utf8(text).unwrap()
    }

    async fn expect(receiver: &mut mpsc::Receiver<io::Result<Bytes>>, expected: &str) {
        let mut text = String::new();
        while text.len() < expected.len() {
            text.push_str(std::str::from_utf8(&receiver.recv().await.unwrap().unwrap()).unwrap());
        }
        assert_eq!(text, expected);
    }

    #[tokio::test]
    async fn a_whole_log_and_its_tail() {
        let mut log = Log::new();
        let lines: Vec<String> = (0..20_000).map(|index| format!("line {index}")).collect();
        for line in &lines {
            log.write(line);
        }
        write!(log.file, "2024-01-01T00:00:01.000000000Z stdout F not ended").unwrap();
        let all = lines.join("\n") + "\nnot ended\n";
        assert_eq!(rest(open(&log, "").await.0).await, all);
        assert_eq!(
            rest(open(&log, "tailLines=2").await.0).await,
            "line 19998\nline 19999\nnot ended\n"
        );
        assert_eq!(rest(open(&log, "limitBytes=70000").await.0).await, all[..70000]);
    }

    #[tokio::test]
    async fn a_follower_sees_what_is_written_until_the_container_ends() {
        let mut log = Log::new();
        log.write("one");
        let (mut receiver, ended) = open(&log, "follow=true").await;
        expect(&mut receiver, "one\n").await;
        log.write("two");
        expect(&mut receiver, "two\n").await;
        for generation in 0..3 {
            log.rotate(generation);
            log.write("in the new file");
            expect(&mut receiver, "written between\nin the new file\n").await;
        }
        log.write("last words");
        ended.cancel();
        assert_eq!(rest(receiver).await, "last words\n");
    }

    #[tokio::test]
    async fn a_follower_that_goes_is_not_kept() {
        let log = Log::new();
        let options = LogOptions::parse(&Query::parse(Some("follow=true")), Timestamp::UNIX_EPOCH).unwrap();
        let stream = LogStream::open(&log.path(), &options, CancellationToken::new())
            .await
            .unwrap();
        let (sender, receiver) = mpsc::channel(1);
        let reading = tokio::spawn(stream.run(sender));
        drop(receiver);
        reading.await.unwrap();
    }

    #[tokio::test]
    async fn a_log_that_is_cut_is_read_from_its_beginning() {
        let mut log = Log::new();
        log.write("a first line that is long enough");
        let (mut receiver, ended) = open(&log, "follow=true").await;
        expect(&mut receiver, "a first line that is long enough\n").await;
        std::fs::write(log.path(), "2024-01-01T00:00:02.000000000Z stdout F anew\n").unwrap();
        expect(&mut receiver, "anew\n").await;
        ended.cancel();
        assert_eq!(rest(receiver).await, "");
    }

    #[test]
    fn a_line_without_end_is_not_kept() {
        let options = LogOptions::parse(&Query::parse(None), Timestamp::UNIX_EPOCH).unwrap();
        let mut lines = Lines::new(&options);
        for _ in 0..64 {
            assert!(lines.take(&[b'x'; BLOCK]).is_empty());
            assert!(lines.unfinished.len() <= MAX_LINE);
        }
        let text = lines.take(b"x\n2024-01-01T00:00:01Z stdout F next\n");
        assert_eq!(text, b"next\n");
    }
}
