//! Sessions: what exec, attach and port-forward stand on, as byte streams.
//!
//! The streams are the kernel's own pipes and terminals: a byte of `kubectl exec` goes from the process to the
//! streaming server without passing through the shim. Dropping a [`Session`] closes the server's ends; the process
//! sees end-of-file or a hangup, as with any closed terminal.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use nix::errno::Errno;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

/// Opens sessions in running containers and pods. Implemented by [`Runtime`](crate::Runtime).
#[async_trait]
pub trait Sessions: Send + Sync {
    /// Starts a command in a running container.
    async fn exec(&self, container_id: &str, command: Command) -> Result<Session, cri::Error>;
    /// Joins the streams of a running container's own process.
    async fn attach(&self, container_id: &str, streams: Streams) -> Result<Session, cri::Error>;
    /// Connects to a TCP port on the loopback address of a pod.
    async fn dial(&self, sandbox_id: &str, port: u16) -> Result<tokio::net::TcpStream, cri::Error>;
}

/// A command to run in a container.
#[derive(Clone, Debug)]
pub struct Command {
    /// The program and its arguments.
    pub args: Vec<String>,
    /// Which streams are wanted, and whether they are a terminal.
    pub streams: Streams,
}

/// Which streams a session wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    /// Something will be written to the process.
    pub stdin: bool,
    /// The process's output is wanted.
    pub stdout: bool,
    /// The process's error output is wanted; with `tty` it comes with the output.
    pub stderr: bool,
    /// The process runs on a terminal.
    pub tty: bool,
}

/// The server's side of a session.
#[derive(Debug)]
pub struct Session {
    /// Writes to the process; dropping it is the process's end-of-file.
    pub stdin: Option<Stream>,
    /// Reads what the process writes, a terminal's output too.
    pub stdout: Option<Stream>,
    /// Reads the process's error output.
    pub stderr: Option<Stream>,
    /// The terminal, when there is one: resizing is all that it is for.
    pub terminal: Option<Terminal>,
    /// Resolves to the exit code when the process ends; for attach it is that of the container's own process.
    /// A dropped sender means that the shim is gone and the code is unknown.
    pub exit: oneshot::Receiver<i32>,
}

/// A terminal of a process in a container.
#[derive(Debug)]
pub struct Terminal(OwnedFd);

nix::ioctl_write_ptr_bad!(set_window_size, libc::TIOCSWINSZ, libc::winsize);

impl Terminal {
    pub(crate) fn new(master: OwnedFd) -> Self {
        Self(master)
    }

    /// Tells the processes on the terminal that it has another size now.
    pub fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        let size = libc::winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: the descriptor is open for as long as `self`, and `size` outlives the call.
        unsafe { set_window_size(self.0.as_raw_fd(), &size) }?;
        Ok(())
    }
}

/// One direction of a session's bytes: an end of a pipe, or a terminal.
#[derive(Debug)]
pub struct Stream(AsyncFd<OwnedFd>);

impl Stream {
    /// Takes over an end of a pipe or a terminal's master.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        let flags = nix::fcntl::OFlag::from_bits_retain(nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_GETFL)?);
        nix::fcntl::fcntl(
            &fd,
            nix::fcntl::FcntlArg::F_SETFL(flags | nix::fcntl::OFlag::O_NONBLOCK),
        )?;
        // SAFETY: an OwnedFd is open for as long as it lives, and always under the same number.
        Ok(Self(unsafe { AsyncFd::register(fd) }?))
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            let unfilled = buf.initialize_unfilled();
            match guard.try_io(|fd| nix::unistd::read(fd.get_ref().as_fd(), unfilled).map_err(io::Error::from)) {
                Ok(Ok(count)) => {
                    buf.advance(count);
                    return Poll::Ready(Ok(()));
                }
                // A terminal whose last process has gone answers EIO: that is its end of file.
                Ok(Err(err)) if err.raw_os_error() == Some(Errno::EIO as i32) => {
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(err)) if err.kind() == io::ErrorKind::Interrupted => continue,
                Ok(Err(err)) => return Poll::Ready(Err(err)),
                Err(_would_block) => continue,
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(cx))?;
            match guard.try_io(|fd| nix::unistd::write(fd.get_ref().as_fd(), data).map_err(io::Error::from)) {
                Ok(Err(err)) if err.kind() == io::ErrorKind::Interrupted => continue,
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => continue,
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
