//! Passing a session on: the request goes to the runtime's address, and after the upgrade bytes go both ways unread.

use std::time::Duration;

use http::header::HOST;
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::respond::{Body, plain};

/// What is copied at once.
const COPY: usize = 32 * 1024;

/// How long a client may go on sending after the runtime has said its last.
const LINGER: Duration = Duration::from_secs(30);

/// Why a session cannot be passed on.
#[derive(Debug, thiserror::Error)]
enum ProxyError {
    #[error("the runtime's streaming address {url:?} is not http://HOST:PORT/PATH")]
    Address { url: String },
    #[error("error dialing backend: dial tcp {authority}: {source}")]
    Dial { authority: String, source: std::io::Error },
    #[error("error dialing backend: {0}")]
    Http(#[from] hyper::Error),
    #[error("error dialing backend: {0}")]
    Request(#[from] http::Error),
}

/// Sends `request` to `url` and joins the two connections when both switch protocols.
pub(super) async fn forward(url: &str, mut request: Request<Incoming>) -> Response<Body> {
    let client = hyper::upgrade::on(&mut request);
    match ask(url, &request).await {
        Ok(mut response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            let backend = hyper::upgrade::on(&mut response);
            tokio::spawn(join(client, backend));
            response.map(|body| body.map_err(std::io::Error::other).boxed())
        }
        Ok(response) => response.map(|body| body.map_err(std::io::Error::other).boxed()),
        Err(error) => {
            tracing::warn!(%error, "streaming session cannot be passed to the runtime");
            plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
        }
    }
}

async fn ask(url: &str, request: &Request<Incoming>) -> Result<Response<Incoming>, ProxyError> {
    let address = || ProxyError::Address { url: url.to_owned() };
    let uri: Uri = url.parse().map_err(|_| address())?;
    let authority = uri
        .authority()
        .filter(|_| uri.scheme_str() == Some("http"))
        .ok_or_else(address)?;
    let target = uri.path_and_query().ok_or_else(address)?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let dial = async {
        let stream = TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    let dialled: std::io::Result<TcpStream> = dial.await;
    let stream = dialled.map_err(|source| ProxyError::Dial {
        authority: authority.to_string(),
        source,
    })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // The request's own outcome tells what went wrong with its connection.
    tokio::spawn(async move {
        let _ = connection.with_upgrades().await;
    });
    let mut passed = Request::builder()
        .method(request.method())
        .uri(target.as_str())
        .body(Empty::<Bytes>::new())?;
    *passed.headers_mut() = request.headers().clone();
    passed.headers_mut().remove(http::header::CONTENT_LENGTH);
    passed.headers_mut().insert(
        HOST,
        HeaderValue::from_str(authority.as_str()).map_err(http::Error::from)?,
    );
    Ok(sender.send_request(passed).await?)
}

async fn join(client: OnUpgrade, backend: OnUpgrade) {
    let (client, backend) = match tokio::try_join!(client, backend) {
        Ok(both) => both,
        Err(error) => {
            tracing::debug!(%error, "streaming connection was not upgraded");
            return;
        }
    };
    let (from_client, to_client) = tokio::io::split(TokioIo::new(client));
    let (from_backend, to_backend) = tokio::io::split(TokioIo::new(backend));
    let inward = copy(from_client, to_backend);
    let outward = copy(from_backend, to_client);
    tokio::pin!(inward, outward);
    tokio::select! {
        () = &mut inward => outward.await,
        // The runtime listens no more; a client that does not hang up is not waited for.
        () = &mut outward => drop(tokio::time::timeout(LINGER, inward).await),
    }
}

/// Copies to the end and passes the end on. A connection that breaks is the end as well: the parties of the session
/// see it for themselves.
async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let mut buffer = vec![0; COPY];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        // Without the flush TLS may sit on what it could not send at once.
        if to.write_all(&buffer[..length]).await.is_err() || to.flush().await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
