//! News of stalls from the kernel (PSI): programs waited for memory.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::debug;

const MEMORY: &str = "/proc/pressure/memory";
/// So many microseconds of stall within so many. A window of whole two seconds needs no privilege.
const TRIGGER: &[u8] = b"some 150000 2000000\0";

/// Waits for stalls; for ever, on a kernel that does not tell.
pub struct Stall(Option<AsyncFd<File>>);

impl Stall {
    /// Of memory.
    pub fn of_memory() -> Self {
        let opened = open();
        if let Err(error) = &opened {
            debug!(%error, "the kernel does not tell of stalls");
        }
        Self(opened.ok())
    }

    /// Resolves at the next one.
    pub async fn wait(&mut self) {
        if let Some(file) = &self.0
            && let Ok(mut ready) = file.ready(Interest::PRIORITY).await
        {
            ready.clear_ready();
            return;
        }
        std::future::pending().await
    }
}

fn open() -> io::Result<AsyncFd<File>> {
    let mut options = OpenOptions::new();
    let mut file = options
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(MEMORY)?;
    file.write_all(TRIGGER)?;
    // SAFETY: a File has one open descriptor, the same one until it is dropped, and it is dropped with the AsyncFd.
    Ok(unsafe { AsyncFd::register_with_interest(file, Interest::PRIORITY) }?)
}
