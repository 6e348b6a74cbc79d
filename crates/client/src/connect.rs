//! Three ways to a [`Client`]: in process, from certificates, from a kubeconfig file.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use tower::{BoxError, Service};

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig file could not be read or understood.
    #[error("kubeconfig {}: {source}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: KubeconfigError,
    },
    /// The certificates given do not make a TLS configuration.
    #[error("client for {server}: {source}")]
    Certificates {
        /// The server's URL.
        server: String,
        /// What is wrong with them.
        source: KubeconfigError,
    },
    /// TLS could not be set up.
    #[error("client for {server}: {source}")]
    Tls {
        /// The server's URL.
        server: String,
        /// What the client library said.
        source: kube::Error,
    },
}

/// A client whose requests are handed to `service` in this process; the service attaches the identity. Needs a tokio runtime.
pub fn in_process<S, B>(service: S) -> Client
where
    S: Service<http::Request<Body>, Response = http::Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    Client::new(service, "default")
}

/// What a kubeconfig says of a connection. A proxy is taken from it alone: the environment's is one for the world outside, and kube asks
/// NO_PROXY whether the proxy itself is to be reached through one, and not the server.
///
/// # Errors
/// When the kubeconfig lacks what it refers to, or says what is no address, key or certificate.
pub async fn config(file: Kubeconfig, options: &KubeConfigOptions) -> Result<Config, KubeconfigError> {
    let named: Vec<Uri> = file
        .clusters
        .iter()
        .filter_map(|known| known.cluster.as_ref()?.proxy_url.as_ref()?.parse().ok())
        .collect();
    let mut config = Config::from_custom_kubeconfig(file, options).await?;
    config.proxy_url = config.proxy_url.filter(|proxy| named.contains(proxy));
    Ok(config)
}

/// A client as the kubeconfig's current context says.
pub async fn from_kubeconfig(path: &Path) -> Result<Client, ConnectError> {
    let failed = |source| ConnectError::Kubeconfig {
        path: path.to_owned(),
        source,
    };
    let file = Kubeconfig::read_from(path).map_err(failed)?;
    let config = config(file, &KubeConfigOptions::default()).await.map_err(failed)?;
    let server = config.cluster_url.to_string();
    Client::try_from(config).map_err(|source| ConnectError::Tls { server, source })
}

/// A client that trusts `ca` and shows `certificate` with `key` (all PEM).
pub async fn over_tls(server: &str, ca: &str, certificate: &str, key: &str) -> Result<Client, ConnectError> {
    let failed = |source| ConnectError::Certificates {
        server: server.to_owned(),
        source,
    };
    // JSON is YAML; the secret in a kubeconfig has no public constructor here.
    let file = Kubeconfig::from_yaml(&serde_json::json!({
        "clusters": [{"name": "podium", "cluster": {"server": server, "certificate-authority-data": STANDARD.encode(ca)}}],
        "users": [{"name": "podium", "user": {"client-certificate-data": STANDARD.encode(certificate), "client-key-data": STANDARD.encode(key)}}],
        "contexts": [{"name": "podium", "context": {"cluster": "podium", "user": "podium"}}],
        "current-context": "podium",
    }).to_string())
    .map_err(failed)?;
    let config = config(file, &KubeConfigOptions::default()).await.map_err(failed)?;
    Client::try_from(config).map_err(|source| ConnectError::Tls {
        server: server.to_owned(),
        source,
    })
}
