//! Proxying: a request goes on to a kubelet, pod or Service, and its bytes are passed both ways untouched.
//!
//! A request that upgrades its connection, to SPDY or WebSocket, is upgraded on both sides and becomes two byte
//! streams that are copied into each other. Nothing is parsed in the middle.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use api::{Status, status};
use http::{HeaderMap, HeaderName, Request, Response, StatusCode, Uri, header, request::Parts};
use http_body_util::BodyExt as _;
use hyper::{client::conn::http1, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite, copy_bidirectional},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::Body;

/// How long the other side may take to accept a connection and its TLS.
const DIAL: Duration = Duration::from_secs(10);

/// The most that is read of what the other side says of a failure.
const FAILURE_BYTES: usize = 2 << 10;

/// Headers that are about one connection, or that are for this server alone.
const NOT_PASSED_ON: &[HeaderName] = &[
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::HOST,
    header::AUTHORIZATION,
];

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub address: SocketAddr,
    /// Whether it is spoken to with TLS: a kubelet, whose certificate and this server's are the cluster's.
    pub tls: bool,
    /// Path and query.
    pub path: String,
}

/// Opens connections to kubelets, pods and Services.
pub(crate) struct Dialer {
    connector: TlsConnector,
}

impl Dialer {
    pub fn new(config: ClientConfig) -> Self {
        Self {
            connector: TlsConnector::from(Arc::new(config)),
        }
    }

    async fn dial(&self, target: &Target) -> Result<http1::SendRequest<Body>, Status> {
        let address = target.address;
        let failed = |error: String| status::internal(format!("error dialing backend: dial tcp {address}: {error}"));
        let stream = match timeout(DIAL, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(failed(format!("connect: {}", reason(&error)))),
            Err(_) => return Err(failed("i/o timeout".into())),
        };
        let _ = stream.set_nodelay(true);
        if !target.tls {
            return handshake(stream).await.map_err(|error| failed(error.to_string()));
        }
        let name = ServerName::from(address.ip());
        match timeout(DIAL, self.connector.connect(name, stream)).await {
            Ok(Ok(stream)) => handshake(stream).await.map_err(|error| failed(error.to_string())),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed("TLS handshake timeout".into())),
        }
    }

    /// Passes a request on, and returns what the other side answers.
    pub async fn forward(&self, target: &Target, parts: &Parts, body: Body) -> Result<Response<Body>, Status> {
        let client_side = parts.extensions.get::<OnUpgrade>().cloned();
        let upgrades = parts.headers.contains_key(header::UPGRADE);
        let mut sender = self.dial(target).await?;
        let uri: Uri = target
            .path
            .parse()
            .map_err(|error| status::bad_request(format!("{}: {error}", target.path)))?;
        let mut request = Request::new(if upgrades { Body::empty() } else { body });
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = passed_on(&parts.headers, upgrades);
        let host = target.address.to_string();
        let host = host
            .parse()
            .map_err(|_| status::internal(format!("{host} is no host name")))?;
        request.headers_mut().insert(header::HOST, host);
        let mut response = sender
            .send_request(request)
            .await
            .map_err(|error| status::internal(format!("error sending the request to {}: {error}", target.address)))?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS
            && let Some(client_side) = client_side
        {
            let other_side = hyper::upgrade::on(&mut response);
            tokio::spawn(join(client_side, other_side));
            let (head, _) = response.into_parts();
            return Ok(Response::from_parts(head, Body::empty()));
        }
        // A client in this process takes the other side's upgraded connection itself.
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response.headers_mut().remove(header::CONNECTION);
            response.headers_mut().remove(header::TRANSFER_ENCODING);
        }
        Ok(response.map(Body::stream))
    }

    /// As [`Dialer::forward`], for a stream of bytes: whatever the other side says of a failure is put in a
    /// Status.
    pub async fn stream(&self, target: &Target, parts: &Parts, subject: Subject<'_>) -> Result<Response<Body>, Status> {
        let response = self.forward(target, parts, Body::empty()).await?;
        if (200..=206).contains(&response.status().as_u16()) {
            return Ok(response);
        }
        let code = response.status().as_u16();
        Err(told(code, &beginning(response.into_body()).await, subject))
    }
}

/// What a proxied request is about, for messages.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub resource: &'a str,
    pub name: &'a str,
}

/// A failure that a kubelet tells in plain text, as a Status.
fn told(code: u16, text: &str, subject: Subject<'_>) -> Status {
    match code {
        400 => status::bad_request(text),
        500 => status::internal(text),
        404 => {
            let mut missing = status::not_found("", subject.resource, subject.name).as_meta().clone();
            let told = format!("the server could not find the requested resource ({text})");
            missing.message = Some(if text.is_empty() {
                missing.message.unwrap_or_default()
            } else {
                told
            });
            missing.into()
        }
        503 => status::service_unavailable(text),
        _ => {
            let mut unknown = status::internal(text).as_meta().clone();
            unknown.code = Some(code.into());
            unknown.message = Some(format!("the kubelet answered with status {code}: {text}"));
            unknown.into()
        }
    }
}

async fn beginning(mut body: Body) -> String {
    let mut text = Vec::new();
    while text.len() < FAILURE_BYTES
        && let Some(Ok(frame)) = body.frame().await
    {
        if let Ok(data) = frame.into_data() {
            text.extend_from_slice(&data);
        }
    }
    text.truncate(FAILURE_BYTES);
    String::from_utf8_lossy(&text).trim().to_owned()
}

/// What the kernel says, in the words that kubectl's users know.
fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".into(),
        std::io::ErrorKind::HostUnreachable => "no route to host".into(),
        std::io::ErrorKind::NetworkUnreachable => "network is unreachable".into(),
        std::io::ErrorKind::TimedOut => "connection timed out".into(),
        _ => error.to_string(),
    }
}

async fn handshake<S>(stream: S) -> hyper::Result<http1::SendRequest<Body>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::Builder::new().handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "proxied connection");
        }
    });
    Ok(sender)
}

fn passed_on(headers: &HeaderMap, upgrades: bool) -> HeaderMap {
    let mut passed = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        let about_upgrade = upgrades && (name == header::CONNECTION || name == header::UPGRADE);
        if about_upgrade || !NOT_PASSED_ON.contains(name) {
            passed.append(name, value.clone());
        }
    }
    passed
}

/// Copies two upgraded connections into each other until both have ended, or one has failed.
async fn join(client_side: OnUpgrade, other_side: OnUpgrade) {
    let (client, other) = match tokio::try_join!(client_side, other_side) {
        Ok(both) => both,
        Err(error) => return tracing::debug!(%error, "upgrading a proxied connection"),
    };
    let (mut client, mut other) = (TokioIo::new(client), TokioIo::new(other));
    if let Err(error) = copy_bidirectional(&mut client, &mut other).await {
        tracing::debug!(%error, "proxied session");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_this_server_alone_is_not_passed_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer secret"),
            ("connection", "Upgrade"),
            ("upgrade", "SPDY/3.1"),
            ("host", "here"),
            ("x-stream-protocol-version", "v4.channel.k8s.io"),
            ("x-stream-protocol-version", "v3.channel.k8s.io"),
        ] {
            headers.append(name, header::HeaderValue::from_static(value));
        }
        let plain = passed_on(&headers, false);
        assert_eq!(plain.len(), 2);
        let upgraded = passed_on(&headers, true);
        assert_eq!(upgraded.len(), 4);
        assert!(!upgraded.contains_key("authorization"));
        assert_eq!(upgraded.get_all("x-stream-protocol-version").iter().count(), 2);
    }

    #[test]
    fn what_a_kubelet_says_becomes_a_status() {
        let subject = Subject {
            resource: "pods/log",
            name: "web",
        };
        let waiting = "container \"c\" in pod \"web\" is waiting to start: ContainerCreating";
        assert_eq!(
            (
                told(400, waiting, subject).code(),
                told(400, waiting, subject).message()
            ),
            (400, waiting)
        );
        assert_eq!(told(500, "x", subject).message(), "Internal error occurred: x");
        assert_eq!(told(404, "gone", subject).code(), 404);
        assert_eq!(told(418, "tea", subject).code(), 418);
    }
}
