//! Sockets in another network namespace.
//!
//! A socket belongs for ever to the namespace of the thread that made it, and to nothing else of that thread. So a
//! thread of its own enters the namespace, makes the sockets and ends; it is never given back to a pool, where its
//! namespace would be a trap. Connecting and copying then happen on the ordinary event loop.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::path::Path;

use cri::Error;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;

/// A socket of each family, where the namespace has it.
struct Sockets {
    v4: io::Result<OwnedFd>,
    v6: io::Result<OwnedFd>,
}

/// Connects to `port` on loopback in the namespace at `netns`, by IPv4 and, should that fail, by IPv6; errors in the
/// words that port-forward shows.
pub(crate) async fn dial(netns: &Path, sandbox_id: &str, port: u16) -> Result<TcpStream, Error> {
    let failed = |reason: String| {
        Error::unknown(format!(
            "failed to execute portforward in network namespace {:?}: {reason}",
            netns.display().to_string()
        ))
    };
    let sockets = sockets_in(netns).await.map_err(|error| failed(error.to_string()))?;
    let v4 = match connect(sockets.v4, IpAddr::V4(Ipv4Addr::LOCALHOST), port).await {
        Ok(stream) => return Ok(stream),
        Err(reason) => reason,
    };
    let v6 = match connect(sockets.v6, IpAddr::V6(Ipv6Addr::LOCALHOST), port).await {
        Ok(stream) => return Ok(stream),
        Err(reason) => reason,
    };
    Err(failed(format!(
        "failed to connect to localhost:{port} inside namespace {sandbox_id:?}, IPv4: {v4} IPv6 {v6}"
    )))
}

async fn connect(socket: io::Result<OwnedFd>, address: IpAddr, port: u16) -> Result<TcpStream, String> {
    let address = SocketAddr::new(address, port);
    let network = if address.is_ipv4() { "tcp4" } else { "tcp6" };
    let connecting = async {
        // SAFETY: the descriptor is a TCP socket that nobody else owns.
        let socket = unsafe { TcpSocket::from_raw_fd(socket?.into_raw_fd()) };
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    connecting
        .await
        .map_err(|error: io::Error| format!("dial {network} {address}: connect: {}", errno(&error)))
}

/// An error of the kernel in the words that Go programs print.
fn errno(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_lowercase(),
        None => error.to_string(),
    }
}

async fn sockets_in(netns: &Path) -> io::Result<Sockets> {
    let namespace = File::open(netns)?;
    let (made, sockets) = oneshot::channel();
    std::thread::Builder::new()
        .name("netns-dial".to_owned())
        .spawn(move || {
            let result = setns(&namespace, CloneFlags::CLONE_NEWNET)
                .map_err(io::Error::from)
                .map(|()| Sockets {
                    v4: tcp_socket(AddressFamily::Inet),
                    v6: tcp_socket(AddressFamily::Inet6),
                });
            // Whoever asked may have gone.
            let _ = made.send(result);
        })?;
    sockets.await.unwrap_or_else(|_| Err(io::ErrorKind::Interrupted.into()))
}

fn tcp_socket(family: AddressFamily) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    Ok(socket(family, SockType::Stream, flags, None)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says what it expects by failing")]

    use std::net::TcpListener;
    use std::path::PathBuf;
    use std::sync::mpsc;

    use nix::sched::unshare;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A network namespace that lives as long as this: a thread that keeps it, with its loopback up.
    struct Namespace {
        path: PathBuf,
        _keep: mpsc::Sender<()>,
    }

    /// The port of a listener inside, when one is wanted.
    fn namespace(listener: Option<IpAddr>) -> (Namespace, u16) {
        let (keep, released) = mpsc::channel::<()>();
        let (ready, is_ready) = mpsc::channel();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            assert!(
                std::process::Command::new("ip")
                    .args(["link", "set", "lo", "up"])
                    .status()
                    .unwrap()
                    .success()
            );
            let listener = listener.map(|address| TcpListener::bind((address, 0)).unwrap());
            let port = listener
                .as_ref()
                .map_or(81, |listener| listener.local_addr().unwrap().port());
            ready
                .send((
                    PathBuf::from(format!("/proc/self/task/{}/ns/net", nix::unistd::gettid())),
                    port,
                ))
                .unwrap();
            if let Some(listener) = listener {
                let (mut connection, _) = listener.accept().unwrap();
                let mut writing = connection.try_clone().unwrap();
                io::copy(&mut connection, &mut writing).unwrap();
            }
            // Ends when the sender is dropped.
            let _ = released.recv();
        });
        let (path, port) = is_ready.recv().unwrap();
        (Namespace { path, _keep: keep }, port)
    }

    #[tokio::test]
    async fn bytes_go_into_the_namespace_and_come_back() {
        for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
            let (namespace, port) = namespace(Some(address));
            let mut stream = dial(&namespace.path, "box", port).await.unwrap();
            stream.write_all(b"hello").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut echo = Vec::new();
            stream.read_to_end(&mut echo).await.unwrap();
            assert_eq!(echo, b"hello");
        }
    }

    #[tokio::test]
    async fn words_when_nobody_listens() {
        let (namespace, port) = namespace(None);
        let error = dial(&namespace.path, "box", port).await.unwrap_err();
        assert_eq!(
            error.message,
            format!(
                "failed to execute portforward in network namespace {:?}: failed to connect to localhost:81 inside \
                 namespace \"box\", IPv4: dial tcp4 127.0.0.1:81: connect: connection refused \
                 IPv6 dial tcp6 [::1]:81: connect: connection refused",
                namespace.path.display().to_string()
            )
        );
    }

    #[tokio::test]
    async fn words_when_the_namespace_is_gone() {
        let error = dial(Path::new("/no/such/netns"), "box", 80).await.unwrap_err();
        assert!(
            error
                .message
                .starts_with(r#"failed to execute portforward in network namespace "/no/such/netns": "#)
        );
    }
}
