//! Exec, attach and connections into a pod, as the byte streams of [`Sessions`].

use std::os::fd::OwnedFd;
use std::sync::Weak;

use async_trait::async_trait;
use cri::{Error, Result};
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::client::{ShimClient, ShimError};
use crate::record::Status;
use crate::runtime::{Container, Inner, Runtime};
use crate::session::{Command, Session, Sessions, Stream, Streams, Terminal};
use crate::shim::protocol::{Answer, Attach, Exec, FailureKind, Request};
use crate::streaming;

#[async_trait]
impl Sessions for Runtime {
    async fn exec(&self, container_id: &str, command: Command) -> Result<Session> {
        let container = self.0.known_container(container_id)?;
        let shim = running(&container)?;
        exec(&shim, &container, command).await.map(|(session, _)| session)
    }

    async fn attach(&self, container_id: &str, streams: Streams) -> Result<Session> {
        let container = self.0.known_container(container_id)?;
        let shim = running(&container)?;
        attach(&shim, &container, streams).await
    }

    async fn dial(&self, sandbox_id: &str, port: u16) -> Result<TcpStream> {
        let sandbox = self
            .0
            .sandbox(sandbox_id)
            .ok_or_else(|| Error::not_found(format!("failed to find sandbox {sandbox_id:?}: not found")))?;
        if !sandbox.ready() {
            return Err(Error::failed_precondition(format!(
                "sandbox container {sandbox_id:?} is not running"
            )));
        }
        let netns = sandbox.netns();
        streaming::dial(&netns, sandbox_id, port).await
    }
}

/// The sessions of a runtime that may be gone: the streaming server does not keep it alive.
pub(crate) struct Handle(pub Weak<Inner>);

impl Handle {
    fn runtime(&self) -> Result<Runtime> {
        let gone = || Error::new(cri::Code::Unavailable, "the runtime is closed");
        self.0.upgrade().map(Runtime).ok_or_else(gone)
    }
}

#[async_trait]
impl Sessions for Handle {
    async fn exec(&self, container_id: &str, command: Command) -> Result<Session> {
        Sessions::exec(&self.runtime()?, container_id, command).await
    }

    async fn attach(&self, container_id: &str, streams: Streams) -> Result<Session> {
        Sessions::attach(&self.runtime()?, container_id, streams).await
    }

    async fn dial(&self, sandbox_id: &str, port: u16) -> Result<TcpStream> {
        self.runtime()?.dial(sandbox_id, port).await
    }
}

/// The shim of a container that runs.
pub(super) fn running(container: &Container) -> Result<ShimClient> {
    let state = match &*container.status.borrow() {
        Status::Running { .. } => None,
        Status::Created => Some("CONTAINER_CREATED"),
        Status::Exited(_) => Some("CONTAINER_EXITED"),
    };
    match (state, container.sandbox.shim()) {
        (None, Some(shim)) => Ok(shim),
        (state, _) => Err(Error::failed_precondition(format!(
            "container is in {} state",
            state.unwrap_or("CONTAINER_UNKNOWN")
        ))),
    }
}

/// Starts a command; beside its session, the name by which the shim can signal it.
pub(super) async fn exec(shim: &ShimClient, container: &Container, command: Command) -> Result<(Session, u64)> {
    let wanted = command.streams;
    let mut ours: [Option<OwnedFd>; 3] = [None, None, None];
    let mut theirs = Vec::new();
    if !wanted.tty {
        for (slot, (wanted, input)) in
            ours.iter_mut()
                .zip([(wanted.stdin, true), (wanted.stdout, false), (wanted.stderr, false)])
        {
            if wanted {
                let (reader, writer) = pipe()?;
                let (mine, its) = if input { (writer, reader) } else { (reader, writer) };
                *slot = Some(mine);
                theirs.push(its);
            }
        }
    }
    let (name, exit) = shim.exec();
    let request = Request::Exec(Exec {
        id: container.id.clone(),
        exec: name,
        args: command.args,
        tty: wanted.tty,
        stdin: wanted.stdin,
        stdout: wanted.stdout,
        stderr: wanted.stderr,
    });
    let descriptors = match shim.call(request, theirs).await {
        Ok((_, descriptors)) => descriptors,
        Err(err) => {
            shim.forget_exec(name);
            return Err(not_executed(name, &err));
        }
    };
    let session = if wanted.tty {
        let master = descriptors
            .into_iter()
            .next()
            .ok_or_else(|| Error::internal("the shim sent no terminal"))?;
        on_terminal(master, wanted, exit)?
    } else {
        let [stdin, stdout, stderr] = ours;
        Session {
            stdin: stream(stdin)?,
            stdout: stream(stdout)?,
            stderr: stream(stderr)?,
            terminal: None,
            exit,
        }
    };
    Ok((session, name))
}

fn not_executed(name: u64, err: &ShimError) -> Error {
    let reason = match err {
        ShimError::Failed(failure) if failure.kind == FailureKind::Executable => {
            format!("unable to start container process: {failure}: unknown")
        }
        other => other.to_string(),
    };
    Error::unknown(format!(
        "failed to exec in container: failed to start exec \"{name}\": OCI runtime exec failed: exec failed: {reason}"
    ))
}

async fn attach(shim: &ShimClient, container: &Container, wanted: Streams) -> Result<Session> {
    let tty = container.record.config.0.tty;
    let mut ours: [Option<OwnedFd>; 2] = [None, None];
    let mut theirs = Vec::new();
    for (slot, wanted) in ours.iter_mut().zip([wanted.stdout, wanted.stderr && !tty]) {
        if wanted {
            let (reader, writer) = pipe()?;
            *slot = Some(reader);
            theirs.push(writer);
        }
    }
    let request = Request::Attach(Attach {
        id: container.id.clone(),
        stdin: wanted.stdin,
        stdout: wanted.stdout,
        stderr: wanted.stderr && !tty,
    });
    let (answer, descriptors) = shim
        .call(request, theirs)
        .await
        .map_err(|err| Error::unknown(format!("failed to attach container: {err}")))?;
    let (sender, exit) = oneshot::channel();
    let mut status = container.status.subscribe();
    tokio::spawn(async move {
        if let Ok(status) = status.wait_for(|status| status.exited().is_some()).await
            && let Some(ended) = status.exited()
        {
            // Whoever was attached may have left.
            let _ = sender.send(ended.code);
        }
    });
    let input = descriptors.into_iter().next();
    let (input, terminal) = match (answer, input) {
        (Answer::Attached { tty: true }, Some(master)) => {
            let input = if wanted.stdin { Some(duplicate(&master)?) } else { None };
            (input, Some(Terminal::new(master)))
        }
        (_, input) => (input, None),
    };
    let [stdout, stderr] = ours;
    Ok(Session {
        stdin: stream(input)?,
        stdout: stream(stdout)?,
        stderr: stream(stderr)?,
        terminal,
        exit,
    })
}

fn on_terminal(master: OwnedFd, wanted: Streams, exit: oneshot::Receiver<i32>) -> Result<Session> {
    let copy = |wanted: bool| wanted.then(|| duplicate(&master)).transpose();
    let (input, output) = (copy(wanted.stdin)?, copy(wanted.stdout || wanted.stderr)?);
    Ok(Session {
        stdin: stream(input)?,
        stdout: stream(output)?,
        stderr: None,
        terminal: Some(Terminal::new(master)),
        exit,
    })
}

fn duplicate(fd: &OwnedFd) -> Result<OwnedFd> {
    fd.try_clone()
        .map_err(|err| Error::unknown(format!("duplicate a terminal: {err}")))
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    pipe2(OFlag::O_CLOEXEC).map_err(|err| Error::unknown(format!("make a pipe: {err}")))
}

fn stream(fd: Option<OwnedFd>) -> Result<Option<Stream>> {
    fd.map(Stream::new)
        .transpose()
        .map_err(|err| Error::unknown(format!("watch a stream: {err}")))
}
