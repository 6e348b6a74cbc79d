//! Token authentication as public registries do it: the registry sends the client to a token server.
//!
//! docker-registry checks tokens against a certificate, so the registry here is a few lines of our own.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use cri::v1::AuthConfig;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::compose::{Image, Layer, digest};
use crate::open;
use crate::registry::{HOST, isolated};

/// What the registry has, by path, and the requests it answered.
struct Registry {
    content: HashMap<String, Vec<u8>>,
    asked: Mutex<Vec<String>>,
}

impl Registry {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
        let header = request
            .headers()
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let said = header.unwrap_or("nothing").to_owned();
        self.asked.lock().unwrap().push(format!("{path}?{query} {said}"));
        let status = |status, body: &[u8]| {
            Response::builder()
                .status(status)
                .body(Full::new(Bytes::copy_from_slice(body)))
                .unwrap()
        };
        // ada:secret
        if path == "/token" {
            return if header == Some("Basic YWRhOnNlY3JldA==") {
                status(StatusCode::OK, br#"{"token": "t0ken", "expires_in": 300}"#)
            } else {
                status(StatusCode::UNAUTHORIZED, b"who are you?")
            };
        }
        if header != Some("Bearer t0ken") {
            let mut refused = status(StatusCode::UNAUTHORIZED, b"");
            let challenge = format!("Bearer realm=\"http://{HOST}/token\",service=\"test\"");
            refused
                .headers_mut()
                .insert(WWW_AUTHENTICATE, challenge.parse().unwrap());
            return refused;
        }
        match self.content.get(path) {
            Some(body) => status(StatusCode::OK, body),
            None => status(StatusCode::NOT_FOUND, b"{}"),
        }
    }
}

async fn serve(image: &Image) -> Arc<Registry> {
    let blobs = image.layers.iter().map(|layer| &layer.blob).chain([&image.config]);
    let mut content: HashMap<_, _> = blobs
        .map(|blob| (format!("/v2/me/app/blobs/{}", digest(blob)), blob.clone()))
        .collect();
    content.insert("/v2/me/app/manifests/v1".into(), image.manifest.clone());
    let registry = Arc::new(Registry {
        content,
        asked: Mutex::default(),
    });
    let listener = TcpListener::bind(HOST).await.unwrap();
    let serving = registry.clone();
    tokio::spawn(async move {
        loop {
            let (connection, _) = listener.accept().await.unwrap();
            let registry = serving.clone();
            tokio::spawn(async move {
                let answer = service_fn(|request| {
                    let answer = registry.answer(&request);
                    async move { Ok::<_, Infallible>(answer) }
                });
                // A client that speaks TLS is cut off.
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(connection), answer)
                    .await;
            });
        }
    });
    registry
}

#[test]
fn a_token_is_fetched_with_the_credentials() {
    isolated(async || {
        let image = Image::new(vec![Layer::new(&[("a", b"a")])]);
        let registry = serve(&image).await;
        let data = tempfile::tempdir().unwrap();
        let images = open(data.path());
        let name = format!("{HOST}/me/app:v1");
        let error = images.pull(&name, None).await.unwrap_err().to_string();
        assert!(
            error.contains("pull access denied, repository does not exist or may require authorization"),
            "{error}"
        );
        let auth = AuthConfig {
            username: "ada".into(),
            password: "secret".into(),
            ..Default::default()
        };
        let pulled = images.pull(&name, Some(&auth)).await.unwrap();
        assert_eq!(pulled.id, image.id());
        let asked = registry.asked.lock().unwrap();
        let tokens = asked
            .iter()
            .filter(|line| line.contains("/token?") && line.contains("Basic"));
        assert_eq!(tokens.count(), 1, "one token serves the whole pull: {asked:?}");
        assert!(
            asked
                .iter()
                .any(|line| line.contains("scope=repository%3Ame%2Fapp%3Apull")),
            "{asked:?}"
        );
        let sent = |line: &&String| line.contains("/v2/me") && line.contains("Basic");
        assert_eq!(
            asked.iter().filter(sent).count(),
            0,
            "the password is for the token server"
        );
    });
}
