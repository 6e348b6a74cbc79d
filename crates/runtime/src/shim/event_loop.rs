//! The shim's one loop: the server's requests, the containers' output, and their ends.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{MsgFlags, SockFlag, accept4};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use super::container::{Container, send};
use super::output::{CHUNK, Progress};
use super::packet::{self, MAX_PACKET, Packet};
use super::protocol::{Answer, Attach, Call, Exit, Failure, Message, Request};
use super::users::Held;
use super::{exec, logs, start};

const LISTENER: u64 = 0;
const SIGNALS: u64 = 1;
const CONNECTION: u64 = 2;
/// The first token for streams of containers.
const STREAMS: u64 = 16;

struct Shim {
    epoll: Epoll,
    listener: OwnedFd,
    signals: SignalFd,
    connection: Option<Connection>,
    next_token: u64,
    containers: BTreeMap<String, Container>,
    /// The server's names of running commands, by process.
    execs: BTreeMap<i32, u64>,
    buffer: Vec<u8>,
    closing: bool,
    /// The pod's own user namespace.
    held: Option<Held>,
}

struct Connection {
    socket: OwnedFd,
    outgoing: VecDeque<Packet>,
}

/// Serves until the server closes the pod.
pub(super) fn run(listener: OwnedFd) -> io::Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.thread_block()?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    epoll.add(&signals, EpollEvent::new(EpollFlags::EPOLLIN, SIGNALS))?;
    let mut shim = Shim {
        epoll,
        listener,
        signals,
        connection: None,
        next_token: STREAMS,
        containers: BTreeMap::new(),
        execs: BTreeMap::new(),
        buffer: Vec::new(),
        closing: false,
        held: None,
    };
    let mut events = [EpollEvent::empty(); 32];
    while !shim.finished() {
        let count = match shim.epoll.wait(&mut events, EpollTimeout::NONE) {
            Ok(count) => count,
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno.into()),
        };
        for event in &events[..count] {
            match event.data() {
                LISTENER => shim.accept()?,
                SIGNALS => shim.reap()?,
                CONNECTION => shim.serve(event.events())?,
                token => shim.stream(token, event.events()),
            }
        }
    }
    Ok(())
}

impl Shim {
    /// The pod is closed and nothing of it runs any more.
    fn finished(&self) -> bool {
        let answered = |connection: &Connection| connection.outgoing.is_empty();
        self.closing
            && self.containers.values().all(|container| container.exit.is_some())
            && self.connection.as_ref().is_none_or(answered)
    }

    /// A new server takes the place of the old.
    fn accept(&mut self) -> io::Result<()> {
        let fd = match accept4(
            std::os::fd::AsRawFd::as_raw_fd(&self.listener),
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        ) {
            Ok(fd) => fd,
            Err(_) => return Ok(()),
        };
        // SAFETY: the kernel has just made the descriptor for this process.
        let socket = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd) };
        self.disconnect();
        self.epoll
            .add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, CONNECTION))?;
        self.connection = Some(Connection {
            socket,
            outgoing: VecDeque::new(),
        });
        Ok(())
    }

    fn disconnect(&mut self) {
        if let Some(connection) = self.connection.take() {
            let _ = self.epoll.delete(&connection.socket);
        }
    }

    fn serve(&mut self, events: EpollFlags) -> io::Result<()> {
        if events.contains(EpollFlags::EPOLLOUT) {
            self.flush();
        }
        let Some(connection) = &self.connection else {
            return Ok(());
        };
        // The buffer is large and requests are rare: it lives as long as a request.
        let mut buffer = vec![0; MAX_PACKET];
        match packet::receive::<Call>(connection.socket.as_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(Some((call, descriptors))) => {
                drop(buffer);
                let (answer, descriptors) = match self.answer(call.request, descriptors) {
                    Ok((answer, descriptors)) => (Ok(answer), descriptors),
                    Err(failure) => (Err(failure), Vec::new()),
                };
                self.say(
                    &Message::Reply {
                        number: call.number,
                        answer,
                    },
                    descriptors,
                );
                // What ended while libcontainer was at work has sent its signal already, but a server wants the
                // answer to its request first.
                trim();
            }
            Ok(None) => self.disconnect(),
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.disconnect(),
        }
        Ok(())
    }

    fn say(&mut self, message: &Message, descriptors: Vec<OwnedFd>) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        match Packet::new(message, descriptors) {
            Ok(packet) => {
                connection.outgoing.push_back(packet);
                self.flush();
            }
            // The server cannot go on without the answer; it gets the whole state when it comes back.
            Err(_) => self.disconnect(),
        }
    }

    fn flush(&mut self) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        while let Some(packet) = connection.outgoing.front() {
            match packet.send(&connection.socket) {
                Ok(()) => drop(connection.outgoing.pop_front()),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return self.disconnect(),
            }
        }
        let mut flags = EpollFlags::EPOLLIN;
        flags.set(EpollFlags::EPOLLOUT, !connection.outgoing.is_empty());
        let _ = self
            .epoll
            .modify(&connection.socket, &mut EpollEvent::new(flags, CONNECTION));
    }

    fn answer(&mut self, request: Request, descriptors: Vec<OwnedFd>) -> Result<(Answer, Vec<OwnedFd>), Failure> {
        let answer = match request {
            Request::Open(namespaces) => {
                self.held = start::open(&namespaces)?;
                Answer::Opened {
                    pid: nix::unistd::getpid().as_raw(),
                    users: self.held.as_ref().map(|held| held.namespace.as_raw_fd()),
                }
            }
            Request::State => Answer::State {
                containers: self.containers.values().map(Container::state).collect(),
            },
            Request::Start(request) => {
                if self.containers.contains_key(&request.id) {
                    return Err(Failure::other(format!("container {} was started already", request.id)));
                }
                let next = &mut self.next_token;
                let container = start::start(*request, &self.epoll, self.held.as_ref(), || {
                    *next += 1;
                    *next
                })?;
                let answer = Answer::Started {
                    pid: container.pid,
                    at: container.started_at,
                };
                self.containers.insert(container.id.clone(), container);
                answer
            }
            Request::Kill { id, signal, all } => {
                self.container(&id)?.kill(signal, all)?;
                Answer::Done
            }
            Request::Forget { id } => {
                if let Some(container) = self.containers.get(&id) {
                    if container.exit.is_none() {
                        return Err(Failure::other(format!("container {id} is running")));
                    }
                    self.containers.remove(&id);
                }
                Answer::Done
            }
            Request::Exec(request) => {
                let held = self.held.take();
                let executed = self
                    .running(&request.id)
                    .and_then(|container| exec::exec(container, &request, held.as_ref(), descriptors));
                self.held = held;
                let (pid, master) = executed?;
                self.execs.insert(pid, request.exec);
                return Ok((Answer::Executed { pid }, master.into_iter().collect()));
            }
            Request::KillExec { exec, signal } => {
                if let Some((pid, _)) = self.execs.iter().find(|(_, name)| **name == exec) {
                    send(*pid, signal)
                        .map_err(|err| Failure::other(format!("signal {signal} to process {pid}: {err}")))?;
                }
                Answer::Done
            }
            Request::Attach(request) => return self.attach(&request, descriptors),
            Request::ReopenLog { id } => {
                if let Some(log) = &mut self.container(&id)?.log {
                    log.reopen()
                        .map_err(|err| Failure::other(format!("reopen the log: {err}")))?;
                }
                Answer::Done
            }
            Request::Close => {
                for container in self.containers.values() {
                    if container.exit.is_none() {
                        container.kill(Signal::SIGKILL as i32, true)?;
                    }
                }
                self.closing = true;
                Answer::Done
            }
        };
        Ok((answer, Vec::new()))
    }

    fn container(&mut self, id: &str) -> Result<&mut Container, Failure> {
        self.containers.get_mut(id).ok_or_else(|| Failure::not_running(id))
    }

    fn running(&mut self, id: &str) -> Result<&mut Container, Failure> {
        self.containers
            .get_mut(id)
            .filter(|container| container.exit.is_none())
            .ok_or_else(|| Failure::not_running(id))
    }

    fn attach(&mut self, request: &Attach, descriptors: Vec<OwnedFd>) -> Result<(Answer, Vec<OwnedFd>), Failure> {
        let mut tokens = [0; 2];
        for token in &mut tokens {
            self.next_token += 1;
            *token = self.next_token;
        }
        let epoll = &self.epoll;
        let container = self
            .containers
            .get_mut(&request.id)
            .filter(|container| container.exit.is_none())
            .ok_or_else(|| Failure::not_running(&request.id))?;
        let mut sinks = descriptors.into_iter();
        let wanted = [
            (logs::Origin::Stdout, request.stdout),
            (logs::Origin::Stderr, request.stderr),
        ];
        for ((origin, wanted), token) in wanted.into_iter().zip(tokens) {
            let Some(sink) = wanted.then(|| sinks.next()).flatten() else {
                continue;
            };
            let output = container.outputs.iter_mut().find(|output| output.origin == origin);
            if let Some(output) = output {
                output
                    .add_sink(sink, token, epoll)
                    .map_err(|err| Failure::other(format!("join the container's output: {err}")))?;
            }
        }
        let tty = container.tty;
        let input = match &container.input {
            Some(input) if tty => Some(input.try_clone()),
            Some(_) if request.stdin && container.stdin && container.stdin_once => {
                // The first client has the input for itself: when it is done, so is the input.
                container.input.take().map(Ok)
            }
            Some(input) if request.stdin && container.stdin => Some(input.try_clone()),
            _ => None,
        };
        let input = input
            .transpose()
            .map_err(|err| Failure::other(format!("duplicate the container's input: {err}")))?;
        Ok((Answer::Attached { tty }, input.into_iter().collect()))
    }

    /// Output to pass on, or a client that has room again or has gone.
    fn stream(&mut self, token: u64, events: EpollFlags) {
        let epoll = &self.epoll;
        for container in self.containers.values_mut() {
            let Container { outputs, log, .. } = container;
            let found = outputs
                .iter()
                .position(|output| output.token() == token || output.has_sink(token));
            let Some(index) = found else { continue };
            let output = &mut outputs[index];
            if output.token() != token {
                if events.contains(EpollFlags::EPOLLERR) {
                    output.drop_sink(token, epoll);
                } else {
                    output.flush(epoll);
                }
            } else {
                self.buffer.resize(CHUNK, 0);
                if output.pump(&mut self.buffer, log.as_mut(), epoll) == Progress::Ended {
                    outputs.remove(index);
                }
            }
            return;
        }
    }

    /// Collects every process that has ended.
    fn reap(&mut self) -> io::Result<()> {
        while self.signals.read_signal()?.is_some() {}
        loop {
            let (pid, code) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid.as_raw(), code),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid.as_raw(), 128 + signal as i32),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(()),
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            if let Some(exec) = self.execs.remove(&pid) {
                self.say(&Message::ExecExited { exec, code }, Vec::new());
            } else {
                self.ended(pid, code);
            }
        }
    }

    fn ended(&mut self, pid: i32, code: i32) {
        let epoll = &self.epoll;
        let Some(container) = self
            .containers
            .values_mut()
            .find(|container| container.pid == pid && container.exit.is_none())
        else {
            return;
        };
        // The last words first: whoever learns of the end may read the log.
        self.buffer.resize(CHUNK, 0);
        let Container { outputs, log, .. } = container;
        outputs.retain_mut(|output| {
            // A pipe holds far less than this: what comes after it is from a process that outlived its container.
            for _ in 0..64 {
                match output.pump(&mut self.buffer, log.as_mut(), epoll) {
                    Progress::Read => {}
                    Progress::Idle => return true,
                    Progress::Ended => return false,
                }
            }
            true
        });
        let exit: Exit = container.ended(code, start::now());
        let id = container.id.clone();
        self.say(&Message::Exited { id: id.clone(), exit }, Vec::new());
        if let Some(container) = self.containers.get(&id) {
            container.clean_up();
        }
        trim();
    }
}

/// Gives free memory back to the kernel: there are as many shims as pods, and they do nothing for hours.
fn trim() {
    // SAFETY: the allocator's own function; there is one thread.
    unsafe { libc::malloc_trim(0) };
}
