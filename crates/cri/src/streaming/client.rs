//! The client's side of SPDY sessions, for streaming servers that speak nothing else.

use bytes::Bytes;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_util::sync::DropGuard;

use super::spdy::remote_command::{PROTOCOLS, STREAM_TYPE, expected};
use super::spdy::{Headers, Role, Session, port_forward};
use super::upgrade::{SPDY, STREAM_PROTOCOL};
use super::{Connection, Reader, TerminalSize, Timeouts, Wanted, Writer};

/// Why a session could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The request could not be sent or answered.
    #[error("streaming request to {uri}")]
    Http {
        /// What was asked for.
        uri: Uri,
        /// Why it failed.
        source: hyper::Error,
    },
    /// The address is none.
    #[error("streaming request to {uri}")]
    Request {
        /// What was asked for.
        uri: Uri,
        /// What is wrong with it.
        source: http::Error,
    },
    /// The server did not switch protocols.
    #[error("streaming request to {uri}: {status}: {message}")]
    Refused {
        /// What was asked for.
        uri: Uri,
        /// The status.
        status: StatusCode,
        /// What the server said.
        message: String,
    },
    /// The server did not take a stream.
    #[error("streaming session at {uri}: the server did not take the {stream} stream")]
    Stream {
        /// What was asked for.
        uri: Uri,
        /// The stream.
        stream: &'static str,
    },
}

/// The longest refusal that is read.
const MAX_REFUSAL: usize = 16 * 1024;

/// Sends the request over `io` and starts the session on what remains of it.
async fn dial<T>(io: T, uri: &Uri, protocols: &[&'static str]) -> Result<Session, ClientError>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let http_error = |source| ClientError::Http {
        uri: uri.clone(),
        source,
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io))
        .await
        .map_err(http_error)?;
    // The request's own outcome tells what went wrong with its connection.
    tokio::spawn(async move {
        let _ = connection.with_upgrades().await;
    });
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(target)
        .header(
            HOST,
            uri.authority().map_or("localhost", |authority| authority.as_str()),
        )
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, SPDY);
    for protocol in protocols {
        request = request.header(STREAM_PROTOCOL, *protocol);
    }
    let request = request
        .body(Empty::<Bytes>::new())
        .map_err(|source| ClientError::Request {
            uri: uri.clone(),
            source,
        })?;
    let response = sender.send_request(request).await.map_err(http_error)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_REFUSAL).collect().await;
        let message = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).trim().to_owned());
        return Err(ClientError::Refused {
            uri: uri.clone(),
            status,
            message: message.unwrap_or_default(),
        });
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(http_error)?;
    let (session, _) = Session::start(TokioIo::new(upgraded), Role::Client, Timeouts::default().idle);
    Ok(session)
}

/// The streams of an exec or attach session, which ends when this is dropped.
pub struct RemoteStreams {
    /// Shutdown is the end of stdin.
    pub stdin: Option<Writer>,
    /// What the process writes.
    pub stdout: Option<Reader>,
    /// What the process writes to stderr.
    pub stderr: Option<Reader>,
    /// Ends with the session and says how it went: a `Status` object in JSON.
    pub error: Option<Reader>,
    resize: Option<Writer>,
    _ends_session: DropGuard,
}

impl RemoteStreams {
    /// Opens the session that `uri` stands for, over a connection to its server.
    pub async fn open<T>(io: T, uri: &Uri, wanted: Wanted) -> Result<RemoteStreams, ClientError>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let session = dial(io, uri, &PROTOCOLS[..1]).await?;
        let (mut stdin, mut stdout, mut stderr, mut error, mut resize) = (None, None, None, None, None);
        for name in expected(wanted, 4) {
            let stream = session
                .open(Headers::of([(STREAM_TYPE, name)]))
                .await
                .ok_or_else(|| ClientError::Stream {
                    uri: uri.clone(),
                    stream: name,
                })?;
            let (inbox, outbox) = stream.split();
            match name {
                "stdin" => stdin = Some(Box::new(outbox) as Writer),
                "resize" => resize = Some(Box::new(outbox) as Writer),
                "stdout" => stdout = Some(Box::new(inbox) as Reader),
                "stderr" => stderr = Some(Box::new(inbox) as Reader),
                _ => error = Some(Box::new(inbox) as Reader),
            }
        }
        Ok(RemoteStreams {
            stdin,
            stdout,
            stderr,
            error,
            resize,
            _ends_session: session.end_on_drop(),
        })
    }

    /// Tells the process's terminal its size; nothing without a terminal.
    pub async fn resize(&mut self, size: TerminalSize) -> std::io::Result<()> {
        let Some(resize) = &mut self.resize else {
            return Ok(());
        };
        resize.write_all(&serde_json::to_vec(&size)?).await
    }
}

/// A session of forwarded connections, which end with it.
pub struct PortForwardClient {
    session: Session,
    uri: Uri,
    next_request: Mutex<u64>,
    _ends_session: DropGuard,
}

/// One connection into a pod.
pub struct ForwardedConnection {
    /// The connection's bytes.
    pub data: Box<dyn Connection>,
    /// Ends with the connection; anything on it says why it failed.
    pub error: Reader,
}

impl PortForwardClient {
    /// Opens the session that `uri` stands for, over a connection to its server.
    pub async fn open<T>(io: T, uri: &Uri) -> Result<PortForwardClient, ClientError>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let session = dial(io, uri, &[port_forward::PROTOCOL]).await?;
        let _ends_session = session.end_on_drop();
        Ok(PortForwardClient {
            session,
            uri: uri.clone(),
            next_request: Mutex::new(0),
            _ends_session,
        })
    }

    /// Connects to a port of the pod.
    pub async fn connect(&self, port: u16) -> Result<ForwardedConnection, ClientError> {
        let request = {
            let mut next = self.next_request.lock();
            *next += 1;
            next.to_string()
        };
        let port = port.to_string();
        let open = async |stream: &'static str| {
            let headers = Headers::of([(STREAM_TYPE, stream), ("port", &port), ("requestid", &request)]);
            let refused = || ClientError::Stream {
                uri: self.uri.clone(),
                stream,
            };
            self.session.open(headers).await.ok_or_else(refused)
        };
        let (error, mut unused) = open("error").await?.split();
        // The client has nothing to say there; a session that is lost shows at the next stream.
        let _ = unused.shutdown().await;
        let data = open("data").await?;
        Ok(ForwardedConnection {
            data: Box::new(data),
            error: Box::new(error),
        })
    }
}
