//! The listener: TLS, who calls, and one task a connection.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use cri::RuntimeService;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::access::{Access, Caller};
use super::respond::Node;
use super::{NodeReports, PodLookup};

/// How long a client may take for the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What the server needs to be trusted and to trust.
pub struct ServerConfig {
    /// The node's serving certificate and those between it and the CA.
    pub certificate: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
    /// The CA (or several) of those who may call.
    pub client_ca: Vec<CertificateDer<'static>>,
    /// Who may what.
    pub access: Access,
}

/// Why the server cannot be.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A CA certificate cannot be used.
    #[error("client CA of the kubelet's port")]
    ClientCa(#[source] rustls::Error),
    /// There is no usable CA certificate at all.
    #[error("client CA of the kubelet's port")]
    ClientVerifier(#[source] rustls::server::VerifierBuilderError),
    /// Certificate and key do not make a pair, or cannot be used.
    #[error("serving certificate of the kubelet's port")]
    Certificate(#[source] rustls::Error),
    /// TLS itself cannot be set up.
    #[error("TLS of the kubelet's port")]
    Tls(#[source] rustls::Error),
}

/// The node's HTTPS server.
pub struct Server {
    tls: TlsAcceptor,
    node: Arc<Node>,
}

impl Server {
    /// A server for the pods of `pods`, which run in `runtime`, and the node that they run on.
    pub fn new(
        config: ServerConfig,
        runtime: Arc<dyn RuntimeService>,
        pods: Arc<dyn PodLookup>,
        reports: Arc<dyn NodeReports>,
    ) -> Result<Server, ServerError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        for certificate in config.client_ca {
            roots.add(certificate).map_err(ServerError::ClientCa)?;
        }
        // Who has no certificate is told so in HTTP, as upstream does.
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(ServerError::ClientVerifier)?;
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(ServerError::Tls)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(config.certificate, config.key)
            .map_err(ServerError::Certificate)?;
        let node = Arc::new(Node {
            runtime,
            pods,
            reports,
            access: config.access,
        });
        Ok(Server {
            tls: TlsAcceptor::from(Arc::new(tls)),
            node,
        })
    }

    /// Answers on `listener` until `shutdown`; sessions that stand then go on.
    pub async fn serve(self, listener: TcpListener, shutdown: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = shutdown.cancelled() => return,
            };
            match accepted {
                Ok((connection, peer)) => {
                    let (tls, node) = (self.tls.clone(), self.node.clone());
                    tokio::spawn(async move {
                        if let Err(error) = answer(connection, tls, node).await {
                            tracing::debug!(%error, %peer, "connection to the kubelet's port failed");
                        }
                    });
                }
                Err(error) => {
                    // Out of file descriptors, most likely; those that are open must end first.
                    tracing::warn!(%error, "the kubelet's port cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn answer(connection: TcpStream, tls: TlsAcceptor, node: Arc<Node>) -> io::Result<()> {
    // Key presses should not wait for each other.
    connection.set_nodelay(true)?;
    let stream = tokio::time::timeout(HANDSHAKE, tls.accept(connection)).await??;
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let caller = certificate.and_then(|certificate| Caller::of(certificate));
    let service = service_fn(|request| {
        let (node, caller) = (node.clone(), caller.clone());
        async move { Ok::<_, Infallible>(node.respond(caller.as_ref(), request).await) }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await
        .map_err(io::Error::other)
}
