//! The way to the API server: which kubeconfig, and requests whose answers are plain values.

use std::io::Write;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use http::header::{ACCEPT, CONTENT_TYPE, WARNING};
use http::{Method, Request, Response};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;

use crate::failure::{Failure, Result, root_cause};
use crate::flags::Global;

/// The administrator's kubeconfig of a server on this machine, when there is no other.
const ADMIN_KUBECONFIG: &str = "/var/lib/podium/pki/admin.conf";

/// A server and the namespace that commands mean when they name none.
#[derive(Clone)]
pub struct Connection {
    /// For what the library knows better: exec and attach.
    pub client: Client,
    /// The namespace of the flags or of the context.
    pub namespace: String,
    /// The server's URL.
    pub server: String,
}

/// What a request wants beside its path.
#[derive(Default)]
pub struct Ask<'a> {
    /// The form of the answer; JSON by default.
    pub accept: Option<&'a str>,
    /// The body and its type.
    pub body: Option<(&'a str, Vec<u8>)>,
}

/// The kubeconfig that the flags and the environment mean, and where it is.
pub fn kubeconfig(global: &Global) -> Result<Kubeconfig> {
    let read = |path: &Path| Kubeconfig::read_from(path).map_err(|error| Failure::message(root_cause(&error)));
    if let Some(path) = &global.kubeconfig {
        return if path.exists() {
            read(path)
        } else {
            Err(Failure::message(format!(
                "stat {}: no such file or directory",
                path.display()
            )))
        };
    }
    if let Some(list) = std::env::var_os("KUBECONFIG").filter(|list| !list.is_empty()) {
        // A file of the list that is not there is as if it were not named.
        let there = std::env::split_paths(&list).filter(|path| path.exists());
        return there
            .map(|path| read(&path))
            .try_fold(Kubeconfig::default(), |merged, next| {
                merged
                    .merge(next?)
                    .map_err(|error| Failure::message(root_cause(&error)))
            });
    }
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".kube/config"));
    let admin = PathBuf::from(ADMIN_KUBECONFIG);
    match home.into_iter().chain([admin]).find(|path| path.exists()) {
        Some(path) => read(&path),
        None => Ok(Kubeconfig::default()),
    }
}

impl Connection {
    /// Prepares a connection; nothing is sent yet.
    pub async fn open(global: &Global) -> Result<Self> {
        let file = kubeconfig(global)?;
        let mut config = if file.clusters.is_empty() && file.current_context.is_none() {
            let server = global.server.clone().unwrap_or("http://localhost:8080".into());
            Config::new(uri(&server)?)
        } else {
            let context = global
                .context
                .clone()
                .or_else(|| file.current_context.clone())
                .unwrap_or_default();
            if !context.is_empty() && !file.contexts.iter().any(|known| known.name == context) {
                return Err(Failure::message(format!("context {context:?} does not exist")));
            }
            let options = KubeConfigOptions {
                context: global.context.clone(),
                cluster: global.cluster.clone(),
                user: global.user.clone(),
            };
            client::config(file, &options)
                .await
                .map_err(|error| Failure::message(root_cause(&error)))?
        };
        if let Some(server) = &global.server {
            config.cluster_url = uri(server)?;
        }
        if let Some(token) = &global.token {
            config.auth_info.token = Some(token.clone().into());
        }
        config.accept_invalid_certs |= global.insecure_skip_tls_verify;
        let namespace = global
            .namespace
            .clone()
            .unwrap_or_else(|| config.default_namespace.clone());
        let server = config.cluster_url.to_string();
        let client = Client::try_from(config).map_err(|error| Failure::message(root_cause(&error)))?;
        Ok(Self {
            client,
            namespace,
            server,
        })
    }

    /// An answer as JSON.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.json(Method::GET, path, Ask::default()).await
    }

    /// An answer as JSON to any request.
    pub async fn json(&self, method: Method, path: &str, ask: Ask<'_>) -> Result<Value> {
        let bytes = self.bytes(method, path, ask).await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Failure::message(format!("the server answered what is not JSON: {error}")))
    }

    /// The answer's bytes.
    pub async fn bytes(&self, method: Method, path: &str, ask: Ask<'_>) -> Result<Vec<u8>> {
        let chunks: Vec<Bytes> = self.stream(method, path, ask).await?.try_collect().await?;
        Ok(chunks.concat())
    }

    /// The answer as it comes.
    pub async fn stream(
        &self,
        method: Method,
        path: &str,
        ask: Ask<'_>,
    ) -> Result<impl Stream<Item = Result<Bytes>> + Send + Unpin + use<>> {
        use http_body_util::BodyExt;
        let response = self.send(method, path, ask).await?;
        warn(&response);
        let refused = !response.status().is_success();
        let code = response.status();
        let server = self.server.clone();
        let broken = move |error: kube::Error| Failure::Unreachable {
            server: server.clone(),
            reason: root_cause(&error),
        };
        let body = response.into_body();
        if refused {
            let bytes = body.collect().await.map_err(broken)?.to_bytes();
            return Err(refusal(code, &bytes));
        }
        Ok(Box::pin(body.into_data_stream().map_err(broken)))
    }

    async fn send(&self, method: Method, path: &str, ask: Ask<'_>) -> Result<Response<Body>> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(ACCEPT, ask.accept.unwrap_or("application/json"));
        let body = match ask.body {
            Some((content_type, body)) => {
                request = request.header(CONTENT_TYPE, content_type);
                Body::from(body)
            }
            None => Body::empty(),
        };
        let request = request
            .body(body)
            .map_err(|error| Failure::message(error.to_string()))?;
        self.client.send(request).await.map_err(|error| self.failed(error))
    }

    /// A failure of the library in kubectl's words.
    pub fn failed(&self, error: kube::Error) -> Failure {
        match error {
            kube::Error::Api(status) => Failure::Status(Box::new(
                serde_json::to_value(&status)
                    .and_then(serde_json::from_value)
                    .unwrap_or_default(),
            )),
            other => Failure::Unreachable {
                server: self.server.clone(),
                reason: root_cause(&other),
            },
        }
    }
}

fn uri(server: &str) -> Result<http::Uri> {
    let full = if server.contains("://") {
        server.to_owned()
    } else {
        format!("http://{server}")
    };
    full.parse()
        .map_err(|error| Failure::message(format!("--server {server:?}: {error}")))
}

/// What the server said with its refusal, or what its code says.
fn refusal(code: http::StatusCode, body: &[u8]) -> Failure {
    let status = serde_json::from_slice::<Status>(body)
        .ok()
        .filter(|status| status.message.is_some());
    Failure::Status(Box::new(status.unwrap_or_else(|| {
        let text = String::from_utf8_lossy(body);
        let text = text.trim();
        Status {
            code: Some(code.as_u16().into()),
            message: Some(if text.is_empty() {
                format!("the server answered {code}")
            } else {
                text.chars().take(1024).collect()
            }),
            ..Status::default()
        }
    })))
}

/// Prints the warnings that came with an answer, each once.
fn warn(response: &Response<Body>) {
    for header in response.headers().get_all(WARNING) {
        let Ok(text) = header.to_str() else { continue };
        // 299 - "the text"
        if let Some((_, quoted)) = text.split_once('"') {
            let text = quoted
                .strip_suffix('"')
                .unwrap_or(quoted)
                .replace("\\\"", "\"")
                .replace("\\\\", "\\");
            // Standard error may be closed; a warning is not worth failing for.
            let _ = writeln!(std::io::stderr(), "Warning: {text}");
        }
    }
}
