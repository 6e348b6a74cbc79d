//! From a request to its answer.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use cri::RuntimeService;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde::Serialize;

use super::access::{Access, Caller, Refusal};
use super::route::{NoRoute, Route, route};
use super::{NodeReports, PodLookup, logs, node_logs, session};
use crate::stats::prometheus;

/// The body of an answer.
pub(super) type Body = BoxBody<Bytes, io::Error>;

/// What answers are made from.
pub(super) struct Node {
    pub(super) runtime: Arc<dyn RuntimeService>,
    pub(super) pods: Arc<dyn PodLookup>,
    pub(super) reports: Arc<dyn NodeReports>,
    pub(super) access: Access,
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
        let (method, path) = (request.method(), request.uri().path());
        match self.access.check(caller, request.headers(), method, path).await {
            Ok(()) => {}
            Err(Refusal::Unauthorized) => return plain(StatusCode::UNAUTHORIZED, "Unauthorized"),
            Err(Refusal::Forbidden(why)) => return plain(StatusCode::FORBIDDEN, why),
            Err(Refusal::Unknown(why)) => return plain(StatusCode::INTERNAL_SERVER_ERROR, why),
        }
        let route = match route(method, path) {
            Ok(route) => route,
            Err(NoRoute::NotFound) => return plain(StatusCode::NOT_FOUND, "404: Page Not Found"),
            Err(NoRoute::MethodNotAllowed) => {
                return plain(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed");
            }
        };
        match route {
            Route::Healthz => plain(StatusCode::OK, "ok"),
            Route::Pods => list(self.pods.pods().iter().map(|pod| &**pod).collect()),
            Route::RunningPods => list(self.reports.running_pods().iter().collect()),
            Route::Configz => json(&serde_json::json!({"kubeletconfig": self.reports.configuration()})),
            Route::Summary => {
                let shallow = request.uri().query().is_some_and(asks_for_cpu_and_memory);
                match self.reports.summary(shallow).await {
                    Ok(summary) => json(&summary),
                    Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, error),
                }
            }
            Route::Metrics(report) => match self.reports.metrics(report).await {
                Ok(text) => with_type(text, prometheus::CONTENT_TYPE),
                Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, error),
            },
            Route::NodeLogs(_) if !self.reports.configuration().enable_system_log_handler => {
                plain(StatusCode::METHOD_NOT_ALLOWED, "logs endpoint is disabled.\n")
            }
            Route::NodeLogs(path) => node_logs::respond(Path::new(node_logs::DIRECTORY), &path).await,
            Route::Logs(path) => logs::respond(self, &path, request.uri().query()).await,
            Route::Exec(path) => session::exec(self, &path, request).await,
            Route::Attach(path) => session::attach(self, &path, request).await,
            Route::Run(path) => session::run(self, &path, request.uri().query()).await,
            Route::PortForward { namespace, pod, uid } => {
                session::port_forward(self, &namespace, &pod, uid.as_deref(), request).await
            }
        }
    }
}

fn asks_for_cpu_and_memory(query: &str) -> bool {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs.any(|(key, value)| key == "only_cpu_and_memory" && ["true", "1"].contains(&&*value))
}

fn list(items: Vec<&k8s_openapi::api::core::v1::Pod>) -> Response<Body> {
    json(&PodList {
        kind: "PodList",
        api_version: "v1",
        metadata: serde_json::json!({}),
        items,
    })
}

fn json(value: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(json) => with_type(json, "application/json"),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn with_type(body: impl Into<Bytes>, kind: &'static str) -> Response<Body> {
    let mut response = Response::new(whole(body));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
