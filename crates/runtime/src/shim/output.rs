//! A container's output: from its pipe or terminal into its log and to whoever is attached.
//!
//! Nothing is dropped and nothing is gathered: when an attached client does not keep up, the container's pipe is not
//! read until it does, as with any pipe. A client that goes away holds nobody up.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::unistd::{read, write};

use super::logs::{Lines, LogFile, Origin, timestamp};

/// How much is read at once.
pub(super) const CHUNK: usize = 16 * 1024;

/// One stream of output.
#[derive(Debug)]
pub(super) struct Output {
    fd: OwnedFd,
    pub(super) origin: Origin,
    lines: Lines,
    token: u64,
    sinks: Vec<Sink>,
}

/// An attached client's pipe.
#[derive(Debug)]
struct Sink {
    fd: OwnedFd,
    token: u64,
    /// What the pipe had no room for.
    pending: Vec<u8>,
}

/// What became of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing to read now.
    Idle,
    /// There was something; there may be more.
    Read,
    /// Nobody has the writing end any more.
    Ended,
}

impl Output {
    pub(super) fn new(fd: OwnedFd, origin: Origin, token: u64, epoll: &Epoll) -> io::Result<Self> {
        set_nonblocking(&fd)?;
        epoll.add(&fd, EpollEvent::new(EpollFlags::EPOLLIN, token))?;
        Ok(Self {
            fd,
            origin,
            lines: Lines::new(origin),
            token,
            sinks: Vec::new(),
        })
    }

    pub(super) fn token(&self) -> u64 {
        self.token
    }

    /// Whether the token is one of this stream's clients.
    pub(super) fn has_sink(&self, token: u64) -> bool {
        self.sinks.iter().any(|sink| sink.token == token)
    }

    /// From now on the client gets what the log gets.
    pub(super) fn add_sink(&mut self, fd: OwnedFd, token: u64, epoll: &Epoll) -> io::Result<()> {
        set_nonblocking(&fd)?;
        // No event but the error that every descriptor reports: the client has closed its end.
        epoll.add(&fd, EpollEvent::new(EpollFlags::empty(), token))?;
        self.sinks.push(Sink {
            fd,
            token,
            pending: Vec::new(),
        });
        Ok(())
    }

    /// Reads once and passes on.
    pub(super) fn pump(&mut self, buffer: &mut [u8], log: Option<&mut LogFile>, epoll: &Epoll) -> Progress {
        if self.sinks.iter().any(|sink| !sink.pending.is_empty()) {
            return Progress::Idle;
        }
        let count = match read(&self.fd, buffer) {
            // A terminal that nobody has open any more answers EIO.
            Ok(0) | Err(Errno::EIO) => {
                self.finish(log, epoll);
                return Progress::Ended;
            }
            Ok(count) => count,
            Err(_) => return Progress::Idle,
        };
        let chunk = &buffer[..count];
        if let Some(log) = log {
            let mut records = Vec::with_capacity(count + 64);
            self.lines.push(chunk, &timestamp(), &mut records);
            log.write(&records);
        }
        for sink in &mut self.sinks {
            sink.pending.extend_from_slice(chunk);
        }
        self.flush(epoll);
        Progress::Read
    }

    /// Goes on with a client whose pipe has room again, or has gone.
    pub(super) fn flush(&mut self, epoll: &Epoll) {
        self.sinks.retain_mut(|sink| {
            let keep = sink.flush();
            if !keep {
                let _ = epoll.delete(&sink.fd);
            }
            keep
        });
        let mut held_up = false;
        for sink in &self.sinks {
            let waits = !sink.pending.is_empty();
            held_up |= waits;
            let _ = modify(epoll, sink.fd.as_fd(), waits, EpollFlags::EPOLLOUT, sink.token);
        }
        let _ = modify(epoll, self.fd.as_fd(), !held_up, EpollFlags::EPOLLIN, self.token);
    }

    /// Drops the client whose end is closed.
    pub(super) fn drop_sink(&mut self, token: u64, epoll: &Epoll) {
        self.sinks.retain(|sink| {
            if sink.token == token {
                let _ = epoll.delete(&sink.fd);
            }
            sink.token != token
        });
        self.flush(epoll);
    }

    fn finish(&mut self, log: Option<&mut LogFile>, epoll: &Epoll) {
        if let Some(log) = log {
            let mut records = Vec::new();
            self.lines.finish(&timestamp(), &mut records);
            log.write(&records);
        }
        let _ = epoll.delete(&self.fd);
        for sink in self.sinks.drain(..) {
            let _ = epoll.delete(&sink.fd);
        }
    }
}

impl Sink {
    /// Whether the client is still there.
    fn flush(&mut self) -> bool {
        while !self.pending.is_empty() {
            match write(&self.fd, &self.pending) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(Errno::EAGAIN) => return true,
                Err(_) => return false,
            }
        }
        self.pending = Vec::new();
        true
    }
}

fn modify(epoll: &Epoll, fd: BorrowedFd<'_>, wanted: bool, flags: EpollFlags, token: u64) -> nix::Result<()> {
    let flags = if wanted { flags } else { EpollFlags::empty() };
    epoll.modify(fd, &mut EpollEvent::new(flags, token))
}

fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}
