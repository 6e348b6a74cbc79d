//! What load balancers ask a node: whether it has endpoints of a Service that wants no other node to be asked, at the
//! Service's `healthCheckNodePort`.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Response, StatusCode, header};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tracing::{debug, warn};

use super::frontends::HealthCheck;
use crate::picture::Name;

/// How long a connection may be without a question.
const IDLE: Duration = Duration::from_secs(30);

/// How long a failure is left alone.
const AGAIN: Duration = Duration::from_secs(1);

/// The checks that are answered, by their Services.
#[derive(Default)]
pub(super) struct Checks(HashMap<Name, Check>);

/// One port; it is closed when this is dropped.
struct Check {
    port: u16,
    endpoints: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl Checks {
    /// Makes a Service's check what it is to be.
    pub(super) async fn set(&mut self, service: &Name, wanted: Option<HealthCheck>) {
        let Some(HealthCheck { port, endpoints }) = wanted else {
            self.0.remove(service);
            return;
        };
        if let Some(check) = self.0.get(service).filter(|check| check.port == port) {
            check.endpoints.store(endpoints, Ordering::Relaxed);
            return;
        }
        self.0.remove(service);
        match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await {
            Ok(listener) => drop(
                self.0
                    .insert(service.clone(), Check::new(listener, service.clone(), port, endpoints)),
            ),
            Err(error) => warn!(%service, port, %error, "load balancers can not ask for this Service's endpoints"),
        }
    }
}

impl Check {
    fn new(listener: TcpListener, service: Name, port: u16, endpoints: usize) -> Check {
        let endpoints = Arc::new(AtomicUsize::new(endpoints));
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, service, endpoints.clone()));
        Check {
            port,
            endpoints,
            _serving: serving,
        }
    }
}

async fn serve(listener: TcpListener, service: Name, endpoints: Arc<AtomicUsize>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(answer(stream, service.clone(), endpoints.clone()))),
                Err(error) => {
                    debug!(%service, %error, "accepting a load balancer's connection");
                    // What is lacking now may be there later.
                    tokio::time::sleep(AGAIN).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer(stream: TcpStream, service: Name, endpoints: Arc<AtomicUsize>) {
    let respond = service_fn(|_| {
        let response = response(&service, endpoints.load(Ordering::Relaxed));
        async { Ok::<_, Infallible>(response) }
    });
    let mut connection = http1::Builder::new();
    let connection = connection.timer(TokioTimer::new()).header_read_timeout(IDLE);
    if let Err(error) = connection.serve_connection(TokioIo::new(stream), respond).await {
        debug!(%service, %error, "answering a load balancer");
    }
}

/// The words are kube-proxy's.
fn response(service: &str, endpoints: usize) -> Response<String> {
    let (namespace, name) = service.split_once('/').unwrap_or_default();
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": \"{namespace}\",\n\t\t\"name\": \"{name}\"\n\t}},\n\t\"localEndpoints\": {endpoints},\n\t\"serviceProxyHealthy\": true\n}}"
    );
    let mut response = Response::new(body);
    if endpoints == 0 {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json"),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        header::HeaderValue::from_static("nosniff"),
    );
    headers.insert("x-load-balancing-endpoint-weight", endpoints.into());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_without_endpoints_is_not_to_be_used() {
        let none = response("shop/web", 0);
        assert_eq!(none.status(), StatusCode::SERVICE_UNAVAILABLE);
        let two = response("shop/web", 2);
        assert_eq!(two.status(), StatusCode::OK);
        assert_eq!(two.headers()["x-load-balancing-endpoint-weight"], "2");
        assert_eq!(
            two.body(),
            "{\n\t\"service\": {\n\t\t\"namespace\": \"shop\",\n\t\t\"name\": \"web\"\n\t},\n\t\"localEndpoints\": 2,\n\t\"serviceProxyHealthy\": true\n}"
        );
    }
}
