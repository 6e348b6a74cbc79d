//! The port: connections, their TLS, and a clean end.

use std::{future::Future, io, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::{ApiServer, Body, authn::Peer};

/// How long a client may take for the handshake, and for the head of a request.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long open requests may go on after shutdown began.
const DRAIN: Duration = Duration::from_secs(5);
/// The longest head of a request, as upstream's HTTP library has it.
const HEAD_BYTES: u32 = 1 << 20;
/// The streams that one HTTP/2 connection may have open at once.
const STREAMS: u32 = 250;

/// Accepts connections until `shutdown` resolves, then lets open requests end.
pub(crate) async fn serve(
    server: ApiServer,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let acceptor = TlsAcceptor::from(server.tls_config());
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(HEAD_BYTES as usize);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEAD_BYTES)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(15));
    let http = Arc::new(http);
    let connections = GracefulShutdown::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, as a rule: it passes when connections close, and a loop without a
                // pause would keep the processor from closing them.
                tracing::warn!(%error, "accepting a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        tokio::spawn(connection(
            server.clone(),
            acceptor.clone(),
            http.clone(),
            connections.watcher(),
            stream,
        ));
    }
    drop(listener);
    server.end_watches();
    if timeout(DRAIN, connections.shutdown()).await.is_err() {
        tracing::warn!(
            "some requests were still open after {} s and are cut off",
            DRAIN.as_secs()
        );
    }
    Ok(())
}

async fn connection(
    server: ApiServer,
    acceptor: TlsAcceptor,
    http: Arc<auto::Builder<TokioExecutor>>,
    watcher: hyper_util::server::graceful::Watcher,
    stream: TcpStream,
) {
    // Answers are written whole: waiting to fill a packet would only delay them.
    let _ = stream.set_nodelay(true);
    let stream = match timeout(PATIENCE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake"),
        Err(_) => return tracing::debug!("TLS handshake took too long"),
    };
    let peer = Arc::new(server.peer(stream.get_ref().1.peer_certificates()));
    let service = service_fn(move |request: Request<Incoming>| answer(server.clone(), peer.clone(), request));
    let connection = http.serve_connection_with_upgrades(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "connection");
    }
}

async fn answer(
    server: ApiServer,
    peer: Arc<Peer>,
    request: Request<Incoming>,
) -> Result<Response<Body>, std::convert::Infallible> {
    Ok(server.answer(&peer, request.map(Body::stream)).await)
}
