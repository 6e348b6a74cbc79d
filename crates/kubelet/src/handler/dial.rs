//! Connections, and why there is none, in the words of Go's `net`.

use std::io;
use std::time::Duration;

use nix::errno::Errno;
use tokio::net::TcpStream;

/// Connects within the time.
pub async fn dial(address: &str, timeout: Duration) -> Result<TcpStream, String> {
    match tokio::time::timeout(timeout, TcpStream::connect(address)).await {
        Err(_) => Err(format!("dial tcp {address}: i/o timeout")),
        Ok(Err(error)) => Err(format!("dial tcp {address}: {}", refused(&error))),
        Ok(Ok(stream)) => Ok(stream),
    }
}

fn refused(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => format!("connect: {}", errno(code)),
        // A name that does not resolve.
        None => format!("lookup: {error}"),
    }
}

/// An error of the kernel: as glibc names it, with a small letter.
pub fn errno(code: i32) -> String {
    Errno::from_raw(code).desc().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_gos() {
        for (code, said) in [
            (Errno::ECONNREFUSED, "connect: connection refused"),
            (Errno::EHOSTUNREACH, "connect: no route to host"),
            (Errno::ENETUNREACH, "connect: network is unreachable"),
            (Errno::ETIMEDOUT, "connect: connection timed out"),
        ] {
            assert_eq!(refused(&io::Error::from_raw_os_error(code as i32)), said);
        }
    }
}
