//! The server's end of a shim's connection, and of the zygote that makes shims.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect, listen, socket, socketpair,
};
use parking_lot::Mutex;
use tokio::io::unix::AsyncFd;
use tokio::sync::{oneshot, watch};

use crate::config::{Config, Layout};
use crate::shim::Fork;
use crate::shim::packet::{self, MAX_PACKET, Packet};
use crate::shim::protocol::{Answer, Call, Exit, Failure, Message, Request};

/// How long the end of a pod's processes may take once they are killed.
const CLOSING: std::time::Duration = std::time::Duration::from_secs(10);

/// What goes wrong between the server and a shim.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShimError {
    /// The shim did not do it.
    #[error(transparent)]
    Failed(#[from] Failure),
    #[error("the pod's shim has gone")]
    Gone,
    #[error("the pod's shim has not gone within {} s: a process of the pod cannot be ended", CLOSING.as_secs())]
    Stays,
    #[error("the pod's shim gave an answer that does not fit: {0}")]
    Answer(String),
    #[error("{action} {path}: {source}")]
    Io {
        action: &'static str,
        path: String,
        source: io::Error,
    },
}

/// What a shim tells unasked.
#[derive(Debug)]
pub(crate) enum News {
    Exited {
        id: String,
        exit: Exit,
    },
    /// The connection has ended: the shim has died, or was closed.
    Gone,
}

/// A connection to a shim. It is closed when the last copy is dropped.
#[derive(Clone, Debug)]
pub(crate) struct ShimClient(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    socket: Arc<AsyncFd<OwnedFd>>,
    number: AtomicU64,
    waiting: Arc<Mutex<Waiting>>,
    reader: tokio::task::AbortHandle,
    /// Becomes true when the shim has gone.
    gone: watch::Receiver<bool>,
}

type Reply = (Result<Answer, Failure>, Vec<OwnedFd>);

#[derive(Debug, Default)]
struct Waiting {
    gone: bool,
    calls: HashMap<u64, oneshot::Sender<Reply>>,
    execs: HashMap<u64, oneshot::Sender<i32>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl ShimClient {
    /// Connects to the shim of the sandbox in `dir`; `news` is called in order, from one task.
    pub(crate) fn connect(dir: &Path, news: impl Fn(News) + Send + Sync + 'static) -> Result<Self, ShimError> {
        let socket = (|| -> io::Result<OwnedFd> {
            let socket = seqpacket()?;
            let (address, _dir) = address(dir)?;
            connect(socket.as_raw_fd(), &address)?;
            set_nonblocking(&socket)?;
            Ok(socket)
        })()
        .map_err(|source| ShimError::Io {
            action: "connect to the shim in",
            path: dir.display().to_string(),
            source,
        })?;
        // SAFETY: an OwnedFd is open for as long as it lives, and always under the same number.
        let socket = unsafe { AsyncFd::register(socket) }.map_err(|err| ShimError::Io {
            action: "watch the connection to the shim in",
            path: dir.display().to_string(),
            source: err.into(),
        })?;
        let socket = Arc::new(socket);
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let (sender, gone) = watch::channel(false);
        let reader = tokio::spawn({
            let (socket, waiting) = (socket.clone(), waiting.clone());
            async move {
                read(socket, waiting, &news).await;
                // Nobody may be waiting.
                let _ = sender.send(true);
                news(News::Gone);
            }
        });
        Ok(Self(Arc::new(Shared {
            socket,
            number: AtomicU64::new(1),
            waiting,
            reader: reader.abort_handle(),
            gone,
        })))
    }

    /// Asks, and waits for the answer.
    pub(crate) async fn call(
        &self,
        request: Request,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(Answer, Vec<OwnedFd>), ShimError> {
        let number = self.next();
        let packet = Packet::new(&Call { number, request }, descriptors).map_err(|source| ShimError::Io {
            action: "write a request to",
            path: "the shim".into(),
            source,
        })?;
        let (sender, receiver) = oneshot::channel();
        {
            let mut waiting = self.0.waiting.lock();
            if waiting.gone {
                return Err(ShimError::Gone);
            }
            waiting.calls.insert(number, sender);
        }
        let sent = loop {
            let Ok(mut guard) = self.0.socket.writable().await else {
                break Err(ShimError::Gone);
            };
            match guard.try_io(|socket| packet.send(socket.get_ref())) {
                Ok(Ok(())) => break Ok(()),
                Ok(Err(_)) => break Err(ShimError::Gone),
                Err(_would_block) => continue,
            }
        };
        drop(packet);
        if let Err(err) = sent {
            self.0.waiting.lock().calls.remove(&number);
            return Err(err);
        }
        let (answer, descriptors) = receiver.await.map_err(|_| ShimError::Gone)?;
        Ok((answer?, descriptors))
    }

    /// Asks for something that needs no answer but success.
    pub(crate) async fn run(&self, request: Request) -> Result<(), ShimError> {
        self.call(request, Vec::new()).await.map(drop)
    }

    /// Ends the pod and waits until its shim has gone too.
    pub(crate) async fn close(&self) -> Result<(), ShimError> {
        match self.run(Request::Close).await {
            Ok(()) | Err(ShimError::Gone) => {}
            Err(err) => return Err(err),
        }
        let mut gone = self.0.gone.clone();
        // A sender that is dropped has nothing more to say, and neither has the shim.
        let wait = async { drop(gone.wait_for(|gone| *gone).await) };
        tokio::time::timeout(CLOSING, wait).await.map_err(|_| ShimError::Stays)
    }

    /// A name for a command, and the promise of its exit code.
    pub(crate) fn exec(&self) -> (u64, oneshot::Receiver<i32>) {
        let number = self.next();
        let (sender, receiver) = oneshot::channel();
        self.0.waiting.lock().execs.insert(number, sender);
        (number, receiver)
    }

    /// Gives up a name whose command was never started.
    pub(crate) fn forget_exec(&self, number: u64) {
        self.0.waiting.lock().execs.remove(&number);
    }

    fn next(&self) -> u64 {
        self.0.number.fetch_add(1, Ordering::Relaxed)
    }
}

async fn read(socket: Arc<AsyncFd<OwnedFd>>, waiting: Arc<Mutex<Waiting>>, news: &(impl Fn(News) + Send + Sync)) {
    loop {
        let Ok(mut guard) = socket.readable().await else {
            break;
        };
        let received = guard.try_io(|socket| {
            // There are as many of these as pods, and they wait for hours: the buffer lives as long as a message.
            let mut buffer = vec![0; MAX_PACKET];
            packet::receive::<Message>(socket.get_ref().as_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT)
        });
        match received {
            Ok(Ok(Some((Message::Reply { number, answer }, descriptors)))) => {
                let call = waiting.lock().calls.remove(&number);
                if let Some(call) = call {
                    let _ = call.send((answer, descriptors));
                }
            }
            Ok(Ok(Some((Message::Exited { id, exit }, _)))) => news(News::Exited { id, exit }),
            Ok(Ok(Some((Message::ExecExited { exec, code }, _)))) => {
                let exec = waiting.lock().execs.remove(&exec);
                if let Some(exec) = exec {
                    let _ = exec.send(code);
                }
            }
            Ok(Ok(None)) => break,
            Ok(Err(err)) => {
                tracing::error!(%err, "read from a shim");
                break;
            }
            Err(_would_block) => {}
        }
    }
    let mut waiting = waiting.lock();
    waiting.gone = true;
    waiting.calls.clear();
    waiting.execs.clear();
}

/// Makes shims. It is started when first needed and again when it has died.
#[derive(Debug)]
pub(crate) struct Zygote {
    command: Vec<std::ffi::OsString>,
    log: std::path::PathBuf,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    socket: OwnedFd,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It ends by itself when the socket closes; killing it spares the wait, and harms no shim.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Zygote {
    pub(crate) fn new(config: &Config, layout: &Layout) -> Self {
        Self {
            command: config.shim.clone(),
            log: layout.shim_log(),
            running: Mutex::new(None),
        }
    }

    /// Starts it before it is needed.
    pub(crate) fn warm_up(&self) -> Result<(), ShimError> {
        let mut running = self.running.lock();
        if running.is_none() {
            *running = Some(self.start()?);
        }
        Ok(())
    }

    /// Makes the shim of the sandbox in `dir`.
    pub(crate) fn fork(&self, id: &str, dir: &Path) -> Result<(), ShimError> {
        let listener = listener(dir).map_err(|source| ShimError::Io {
            action: "make the shim's socket in",
            path: dir.display().to_string(),
            source,
        })?;
        let request = Fork { sandbox: id.to_owned() };
        let packet = Packet::new(&request, vec![listener]).map_err(|source| self.failure(source))?;
        let mut running = self.running.lock();
        if let Some(alive) = running.as_ref()
            && packet.send(&alive.socket).is_ok()
        {
            return Ok(());
        }
        let started = running.insert(self.start()?);
        packet.send(&started.socket).map_err(|source| self.failure(source))
    }

    fn start(&self) -> Result<Running, ShimError> {
        let start = || -> io::Result<Running> {
            let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
            let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
            let (program, args) = self
                .command
                .split_first()
                .ok_or_else(|| io::Error::other("no shim program is configured"))?;
            let child = Command::new(program)
                .args(args)
                .stdin(theirs)
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()?;
            Ok(Running { child, socket: ours })
        };
        start().map_err(|source| self.failure(source))
    }

    fn failure(&self, source: io::Error) -> ShimError {
        let program = self.command.first().map(|program| program.display().to_string());
        ShimError::Io {
            action: "start",
            path: program.unwrap_or_default(),
            source,
        }
    }
}

fn seqpacket() -> io::Result<OwnedFd> {
    Ok(socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?)
}

fn listener(dir: &Path) -> io::Result<OwnedFd> {
    let socket = seqpacket()?;
    let (address, _dir) = address(dir)?;
    bind(socket.as_raw_fd(), &address)?;
    listen(&socket, Backlog::new(4)?)?;
    set_nonblocking(&socket)?;
    Ok(socket)
}

/// A socket's name may be no longer than 107 bytes, a directory's may: the name goes through a descriptor.
fn address(dir: &Path) -> io::Result<(UnixAddr, std::fs::File)> {
    let dir = std::fs::File::open(dir)?;
    let name = format!("/proc/self/fd/{}/shim.sock", dir.as_raw_fd());
    Ok((UnixAddr::new(name.as_str())?, dir))
}

fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}
