//! From a request to its answer.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use cri::RuntimeService;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde::Serialize;

use super::access::{Allowed, Caller};
use super::route::{NoRoute, Route, route};
use super::{PodLookup, logs, session};

/// The body of an answer.
pub(super) type Body = BoxBody<Bytes, io::Error>;

/// What answers are made from.
pub(super) struct Node {
    pub(super) runtime: Arc<dyn RuntimeService>,
    pub(super) pods: Arc<dyn PodLookup>,
    pub(super) allowed: Allowed,
}

/// A body that is known whole.
pub(super) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// A plain answer.
pub(super) fn plain(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(whole(text.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PodList<'a> {
    kind: &'a str,
    api_version: &'a str,
    metadata: serde_json::Value,
    items: Vec<&'a k8s_openapi::api::core::v1::Pod>,
}

impl Node {
    pub(super) async fn respond(&self, caller: Option<&Caller>, request: Request<Incoming>) -> Response<Body> {
        let Some(caller) = caller else {
            return plain(StatusCode::UNAUTHORIZED, "Unauthorized");
        };
        if let Err(reason) = caller.authorize(&self.allowed, request.method()) {
            return plain(StatusCode::FORBIDDEN, reason);
        }
        let route = match route(request.method(), request.uri().path()) {
            Ok(route) => route,
            Err(NoRoute::NotFound) => return plain(StatusCode::NOT_FOUND, "404: Page Not Found"),
            Err(NoRoute::MethodNotAllowed) => {
                return plain(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed");
            }
        };
        match route {
            Route::Healthz => plain(StatusCode::OK, "ok"),
            Route::Pods => self.list_pods(),
            Route::Logs(path) => logs::respond(self, &path, request.uri().query()).await,
            Route::Exec(path) => session::exec(self, &path, request).await,
            Route::Attach(path) => session::attach(self, &path, request).await,
            Route::Run(path) => session::run(self, &path, request.uri().query()).await,
            Route::PortForward { namespace, pod, uid } => {
                session::port_forward(self, &namespace, &pod, uid.as_deref(), request).await
            }
        }
    }

    fn list_pods(&self) -> Response<Body> {
        let pods = self.pods.pods();
        let list = PodList {
            kind: "PodList",
            api_version: "v1",
            metadata: serde_json::json!({}),
            items: pods.iter().map(|pod| &**pod).collect(),
        };
        match serde_json::to_vec(&list) {
            Ok(json) => {
                let mut response = Response::new(whole(json));
                response
                    .headers_mut()
                    .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                response
            }
            Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }
}
