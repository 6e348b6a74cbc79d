//! Catches what libcontainer logs while it fails.
//!
//! The processes between the shim and a container report an error to the shim as one line without its cause; the
//! cause is only in their log events. Those go into a pipe that the shim reads when a creation has failed.

use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;

use nix::fcntl::OFlag;
use nix::unistd::{pipe2, read, write};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber, span};

struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
}

static PIPE: OnceLock<Pipe> = OnceLock::new();

/// Has events caught, from the moment that this process has a pipe.
pub(super) fn install() -> io::Result<()> {
    tracing::subscriber::set_global_default(Errors).map_err(io::Error::other)
}

/// The causes logged since the last call, the first one first.
pub(super) fn take() -> Vec<String> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    while let Some(pipe) = PIPE.get() {
        match read(&pipe.reader, &mut chunk) {
            Ok(count) if count > 0 => bytes.extend_from_slice(&chunk[..count]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect()
}

/// Makes this process's pipe: each shim has its own.
pub(super) fn open() -> io::Result<()> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    let _ = PIPE.set(Pipe { reader, writer });
    Ok(())
}

struct Errors;

impl Subscriber for Errors {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::ERROR)
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let Some(pipe) = PIPE.get() else { return };
        let mut line = Line::default();
        event.record(&mut line);
        let mut text = line.message;
        text.push_str(&line.fields);
        let mut text = text.replace('\n', " ");
        text.push('\n');
        // A full pipe holds enough causes already.
        let _ = write(pipe.writer.as_fd(), text.as_bytes());
    }
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, " {}={value:?}", field.name())
        };
    }
}
