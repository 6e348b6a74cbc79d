//! A runtime whose containers are the machine itself, and a server for it on a pipe in memory.

use std::convert::Infallible;
use std::process::Stdio as Pipes;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cri::streaming::{Connection, Session, SessionError, Stdio, StreamingRuntime, Timeouts, Wanted, serve};
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::process::Command;

/// Runs commands as they are. Port 7 echoes; nothing listens on others.
#[derive(Default)]
pub struct Host {
    /// Told when an exec is over.
    pub ended: Option<tokio::sync::mpsc::UnboundedSender<i32>>,
}

async fn pass<R, W>(from: Option<R>, to: Option<W>)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    if let (Some(from), Some(mut to)) = (from, to) {
        let mut from = tokio::io::BufReader::with_capacity(64 * 1024, from);
        let _ = tokio::io::copy_buf(&mut from, &mut to).await;
        let _ = to.shutdown().await;
    }
}

#[async_trait]
impl StreamingRuntime for Host {
    async fn exec(&self, _: &str, command: &[String], tty: bool, stdio: Stdio) -> Result<i32, SessionError> {
        if tty {
            return sizes(stdio).await;
        }
        let mut process = Command::new(&command[0])
            .args(&command[1..])
            .stdin(if stdio.stdin.is_some() {
                Pipes::piped()
            } else {
                Pipes::null()
            })
            .stdout(Pipes::piped())
            .stderr(Pipes::piped())
            .spawn()
            .map_err(SessionError::new)?;
        let (stdin, stdout, stderr) = (process.stdin.take(), process.stdout.take(), process.stderr.take());
        let input = tokio::spawn(pass(stdio.stdin, stdin));
        tokio::join!(pass(stdout, stdio.stdout), pass(stderr, stdio.stderr));
        let code = process.wait().await.map_err(SessionError::new)?.code().unwrap_or(-1);
        input.abort();
        if let Some(ended) = &self.ended {
            let _ = ended.send(code);
        }
        Ok(code)
    }

    async fn attach(&self, container: &str, _: bool, mut stdio: Stdio) -> Result<(), SessionError> {
        if container != "known" {
            return Err(SessionError::new("no such container"));
        }
        let mut stdout = stdio.stdout.take().unwrap();
        stdout.write_all(b"attached\n").await.map_err(SessionError::new)?;
        std::future::pending().await
    }

    async fn port_forward(&self, _: &str, port: u16, connection: Box<dyn Connection>) -> Result<(), SessionError> {
        if port != 7 {
            return Err(SessionError::new("connection refused"));
        }
        let (mut reading, mut writing) = tokio::io::split(connection);
        let _ = tokio::io::copy(&mut reading, &mut writing).await;
        Ok(())
    }
}

/// A "terminal" that says its sizes until it is 100 wide.
async fn sizes(stdio: Stdio) -> Result<i32, SessionError> {
    let (mut resize, mut stdout) = (stdio.resize.unwrap(), stdio.stdout.unwrap());
    while let Some(size) = resize.recv().await {
        stdout
            .write_all(format!("{}x{}\n", size.width, size.height).as_bytes())
            .await
            .map_err(SessionError::new)?;
        if size.width == 100 {
            break;
        }
    }
    Ok(0)
}

pub fn timeouts() -> Timeouts {
    Timeouts {
        idle: Duration::from_secs(60),
        stream_creation: Duration::from_secs(10),
    }
}

/// A connection to a server that has this session for whoever asks.
pub fn connect(host: Host, session: Session) -> DuplexStream {
    connect_with(host, session, timeouts())
}

pub fn connect_with(host: Host, session: Session, timeouts: Timeouts) -> DuplexStream {
    let (client, server) = tokio::io::duplex(64 * 1024);
    let runtime = Arc::new(host);
    let service = service_fn(move |request: Request<Incoming>| {
        let response = serve(runtime.clone(), session.clone(), timeouts, request);
        async move { Ok::<_, Infallible>(response) }
    });
    tokio::spawn(async move {
        hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(server), service)
            .with_upgrades()
            .await
            .unwrap();
    });
    client
}

pub fn exec(command: &[&str], wanted: Wanted) -> Session {
    Session::Exec {
        container_id: "any".to_owned(),
        command: command.iter().map(|word| word.to_string()).collect(),
        wanted,
    }
}

pub fn forward(ports: &[u16]) -> Session {
    Session::PortForward {
        pod_sandbox_id: "box".to_owned(),
        ports: ports.to_vec(),
    }
}

pub const ALL: Wanted = Wanted {
    stdin: true,
    stdout: true,
    stderr: true,
    tty: false,
};
pub const OUTPUT: Wanted = Wanted { stdin: false, ..ALL };
pub const TERMINAL: Wanted = Wanted {
    stdin: true,
    stdout: true,
    stderr: false,
    tty: true,
};

/// The exit code, or the message, of what an error stream said.
pub fn outcome(status: &[u8]) -> Result<i32, String> {
    let status: serde_json::Value = serde_json::from_slice(status).unwrap();
    if status["status"] == "Success" {
        return Ok(0);
    }
    match status["reason"].as_str() {
        Some("NonZeroExitCode") => Ok(status["details"]["causes"][0]["message"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap()),
        _ => Err(status["message"].as_str().unwrap().to_owned()),
    }
}

/// Bytes that are not the same anywhere, cheaply.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
