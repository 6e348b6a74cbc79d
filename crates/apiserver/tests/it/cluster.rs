//! A server on a store in a temporary directory, and requests to it.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use apiserver::{ApiServer, Body, Config, Identity, StaticToken, pki};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use store::{Embedded, Store, Window};
use tempfile::TempDir;

/// Longer than anything here takes, so that a test that hangs fails.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Cluster {
    pub server: ApiServer,
    pub store: Arc<Embedded>,
    pub pki: pki::Pki,
    _dir: TempDir,
}

/// An answer, read to its end.
pub struct Answer {
    pub code: u16,
    pub headers: HeaderMap,
    pub bytes: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|_| panic!("no JSON: {:?}", self.bytes))
    }

    pub fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }
}

impl Cluster {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let names = pki::Names {
            node_name: "one".into(),
            addresses: vec![Ipv4Addr::new(192, 0, 2, 1).into()],
            service_address: None,
            cluster_domain: "cluster.local".into(),
        };
        let pki = pki::Pki::open(&dir.path().join("pki"), &names).unwrap();
        let store = Arc::new(Embedded::open(&dir.path().join("store"), Window::default()).unwrap());
        let config = Config {
            pki: pki.clone(),
            addresses: names.addresses,
            https_port: 6443,
            service_cidr: "10.96.0.0/28".into(),
            cluster_dns: None,
            cluster_domain: names.cluster_domain,
            tokens: vec![StaticToken {
                token: "secret".into(),
                identity: Identity::master("admin"),
            }],
        };
        let server = ApiServer::new(config, store.clone() as Arc<dyn Store>).await.unwrap();
        Self {
            server,
            store,
            pki,
            _dir: dir,
        }
    }

    /// Sends a request as an administrator, and returns the answer while it is still being sent.
    pub async fn open(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Body) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.server
            .handle(request.body(body).unwrap(), Identity::master("admin"))
            .await
    }

    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Body) -> Answer {
        read(self.open(method, path, headers, body).await).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], Body::empty()).await
    }

    pub async fn get_as(&self, path: &str, accept: &str) -> Answer {
        self.send(Method::GET, path, &[("accept", accept)], Body::empty()).await
    }

    pub async fn post(&self, path: &str, object: &Value) -> Answer {
        self.write(Method::POST, path, "application/json", object).await
    }

    pub async fn put(&self, path: &str, object: &Value) -> Answer {
        self.write(Method::PUT, path, "application/json", object).await
    }

    pub async fn patch(&self, path: &str, kind: &str, patch: &Value) -> Answer {
        self.write(Method::PATCH, path, &format!("application/{kind}+json"), patch)
            .await
    }

    pub async fn delete(&self, path: &str, options: &Value) -> Answer {
        self.write(Method::DELETE, path, "application/json", options).await
    }

    async fn write(&self, method: Method, path: &str, kind: &str, object: &Value) -> Answer {
        self.send(
            method,
            path,
            &[(header::CONTENT_TYPE.as_str(), kind)],
            object.to_string().into(),
        )
        .await
    }

    /// Starts a watch.
    pub async fn watch(&self, path: &str) -> Events {
        let response = self.open(Method::GET, path, &[], Body::empty()).await;
        assert_eq!(response.status(), 200, "{path}");
        Events {
            body: response.into_body(),
            rest: Vec::new(),
        }
    }
}

pub async fn read(response: Response<Body>) -> Answer {
    let (parts, body) = response.into_parts();
    let bytes = tokio::time::timeout(PATIENCE, body.collect())
        .await
        .expect("an answer that ends")
        .unwrap()
        .to_bytes();
    Answer {
        code: parts.status.as_u16(),
        headers: parts.headers,
        bytes,
    }
}

/// The events of a watch.
pub struct Events {
    body: Body,
    rest: Vec<u8>,
}

impl Events {
    /// The next event; none when the watch has ended.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame())
                .await
                .expect("an event");
            self.rest.extend_from_slice(&frame?.unwrap().into_data().unwrap());
        }
    }

    /// The next event's type, and its object's name.
    pub async fn summary(&mut self) -> (String, String) {
        let event = self.next().await.expect("an event, not the end");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&event["type"]), text(&event["object"]["metadata"]["name"]))
    }
}

pub const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

pub fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"x": "1"}})
}
