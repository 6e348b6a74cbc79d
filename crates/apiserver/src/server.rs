//! The server: what every request works with, and the ways in.

use std::{
    future::Future,
    io,
    panic::AssertUnwindSafe,
    sync::{Arc, Weak},
    task::{Context, Poll},
};

use api::{Catalogue, Status, status};
use bytes::Bytes;
use futures::FutureExt as _;
use http::{Request, Response};
use rustls::{ServerConfig, pki_types::CertificateDer};
use store::Store;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    Body, BoxError, Config, Identity,
    admission::Admission,
    authn::{
        Authenticator, Peer,
        service_account::{KeyError, TokenKey},
    },
    authz::{Authorizer, KnownUsers},
    bootstrap, event_expiry, keep,
    negotiate::Accept,
    proxy::Dialer,
    registry, render, serve,
    services::{Range, RangeError, Services},
    tls::{self, TlsError},
    walk,
};

/// Why the server can not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The range of Service addresses is none.
    #[error(transparent)]
    ServiceRange(#[from] RangeError),
    /// A certificate or key can not be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The key of ServiceAccount tokens can not be used.
    #[error(transparent)]
    TokenKey(#[from] KeyError),
    /// The objects that every cluster has could not be made.
    #[error("making {what}: {source}")]
    Bootstrap {
        /// Which object.
        what: String,
        /// Why.
        source: Status,
    },
}

/// What every request works with.
pub(crate) struct Server {
    pub config: Config,
    pub store: Arc<dyn Store>,
    pub catalogue: &'static Catalogue,
    pub authenticator: Authenticator,
    pub authorizer: Box<dyn Authorizer>,
    pub admission: Admission,
    pub services: Services,
    pub dialer: Dialer,
    /// Cancelled when watches have to end because the server does.
    pub ending: CancellationToken,
    tls: ServerConfig,
}

impl Drop for Server {
    fn drop(&mut self) {
        // What the server started must not hold the store when the server is gone.
        self.ending.cancel();
    }
}

/// The API server. Clones are handles on one server.
#[derive(Clone)]
pub struct ApiServer(Arc<Server>);

impl ApiServer {
    /// A server on a store, after the objects that every cluster has are there.
    pub async fn new(config: Config, store: Arc<dyn Store>) -> Result<Self, StartError> {
        let verifier = tls::client_verifier(&config.pki)?;
        let range: Range = config.service_cidr.parse()?;
        let token_key = TokenKey::from_pem(&config.pki.service_account_key, &config.cluster_domain)?;
        let server = Server {
            store,
            catalogue: Catalogue::builtin(),
            authenticator: Authenticator::new(verifier.clone(), &config.tokens, token_key),
            authorizer: Box::new(KnownUsers),
            admission: Admission::builtin(),
            services: Services { range },
            dialer: Dialer::new(tls::kubelet_client(&config.pki)?),
            ending: CancellationToken::new(),
            tls: tls::server(&config.pki, verifier)?,
            config,
        };
        let server = Self(Arc::new(server));
        bootstrap::run(&server).await?;
        server.expire_events();
        tokio::spawn(keep::run(Arc::downgrade(&server.0)));
        Ok(server)
    }

    /// Starts the task that deletes old Events; it ends with the server's watches.
    fn expire_events(&self) {
        if let Some(events) = self.0.catalogue.find("", "v1", "events") {
            let (store, ending) = (self.0.store.clone(), self.0.ending.clone());
            let prefix = registry::prefix(events, None);
            tokio::spawn(async move { event_expiry::run(store, &prefix, event_expiry::KEPT_FOR, ending).await });
        }
    }

    /// The whole walk, with the identity known: what a client in this process calls.
    pub async fn handle(&self, request: Request<Body>, identity: Identity) -> Response<Body> {
        // One request's panic is that request's failure.
        match AssertUnwindSafe(walk::walk(&self.0, request, &identity))
            .catch_unwind()
            .await
        {
            Ok(response) => response,
            Err(panic) => {
                let what = panic
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| panic.downcast_ref::<&str>().copied())
                    .unwrap_or("unknown");
                tracing::error!(panic = what, "a request panicked");
                render::failure(&status::internal("the request could not be answered"), Accept::plain()).await
            }
        }
    }

    /// A service for clients in this process, who are all of one identity.
    #[must_use]
    pub fn in_process(&self, identity: Identity) -> InProcess {
        InProcess {
            server: self.clone(),
            identity,
        }
    }

    /// Answers HTTPS until `shutdown` resolves, then lets open requests end.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) -> io::Result<()> {
        serve::serve(self, listener, shutdown).await
    }

    /// Ends every watch, so that clients in this process come to an end too.
    pub fn end_watches(&self) {
        self.0.ending.cancel();
    }

    /// The server, if it is still there.
    pub(crate) fn upgrade(server: &Weak<Server>) -> Option<Self> {
        server.upgrade().map(Self)
    }

    pub(crate) fn inner(&self) -> &Arc<Server> {
        &self.0
    }

    pub(crate) fn tls_config(&self) -> Arc<ServerConfig> {
        Arc::new(self.0.tls.clone())
    }

    pub(crate) fn peer(&self, chain: Option<&[CertificateDer<'_>]>) -> Peer {
        self.0.authenticator.peer(chain)
    }

    /// Authenticates a request of a connection and takes it on its walk.
    pub(crate) async fn answer(&self, peer: &Peer, request: Request<Body>) -> Response<Body> {
        match walk::identify(&self.0, peer, request.headers()).await {
            Ok(identity) => self.handle(request, identity).await,
            Err(failure) => render::failure(&failure, Accept::plain()).await,
        }
    }
}

/// The server as a `tower` service for clients in this process.
#[derive(Clone)]
pub struct InProcess {
    server: ApiServer,
    identity: Identity,
}

impl<B> tower::Service<Request<B>> for InProcess
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = futures::future::BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let Self { server, identity } = self.clone();
        Box::pin(async move { Ok(server.handle(request.map(Body::stream), identity).await) })
    }
}
