//! What is served beside resources: discovery, OpenAPI, version and health.

use std::sync::LazyLock;

use api::{Catalogue, Status, discovery, openapi, status};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, request::Parts};
use serde_json::{Value, json};

use crate::{
    Body, negotiate::Accept, openapi_protobuf, query::Query, render, request_info::ResourcePath, server::Server,
};

/// The checks behind the health paths, which all stand for the store: a server without it answers nothing.
const CHECKS: &[&str] = &["ping", "log", "etcd"];

/// Whether a path is that of the custom resources' definitions.
pub(crate) fn are_custom_resources(target: &ResourcePath) -> bool {
    target.group == "apiextensions.k8s.io" && target.version == "v1" && target.resource == "customresourcedefinitions"
}

/// There are no custom resources: kubectl asks, before it says that a kind is not known.
pub(crate) async fn no_custom_resources(accept: Accept) -> Response<Body> {
    let list = json!({
        "kind": "CustomResourceDefinitionList",
        "apiVersion": "apiextensions.k8s.io/v1",
        "metadata": {"resourceVersion": "1"},
        "items": [],
    });
    render::document(200, list.to_string().into(), accept).await
}

/// Answers a path that is no resource's.
pub(crate) async fn answer(server: &Server, parts: &Parts, accept: Result<Accept, Status>) -> Response<Body> {
    let shown = accept.as_ref().copied().unwrap_or(Accept::plain());
    match route(server, parts, accept).await {
        Ok(response) => response,
        Err(failure) => render::failure(&failure, shown).await,
    }
}

async fn route(server: &Server, parts: &Parts, accept: Result<Accept, Status>) -> Result<Response<Body>, Status> {
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        let known = matches!(parts.uri.path(), "/" | "/api" | "/apis" | "/version");
        return Err(if known {
            status::unsupported_method()
        } else {
            status::no_such_resource()
        });
    }
    let path = parts.uri.path();
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    if let ["healthz" | "livez" | "readyz", ..] = segments[..] {
        return health(server, &segments, &Query::parse(parts.uri.query().unwrap_or_default())).await;
    }
    if segments[..] == ["openapi", "v2"] && accepts(&parts.headers, openapi_protobuf::MEDIA_TYPE) {
        return protobuf();
    }
    let accept = accept?;
    let wants_aggregated = aggregated_wanted(&parts.headers);
    let catalogue = server.catalogue;
    match segments[..] {
        [""] => json(&json!({ "paths": paths(catalogue) }), accept).await,
        ["api"] if wants_aggregated => Ok(tagged(&CORE, discovery::AGGREGATED, parts)),
        ["apis"] if wants_aggregated => Ok(tagged(&NAMED, discovery::AGGREGATED, parts)),
        ["api"] => json(&discovery::core_versions(&host(server)), accept).await,
        ["apis"] => json(&discovery::groups(catalogue), accept).await,
        ["apis", group] => optional(discovery::group(catalogue, group), accept).await,
        ["api", version] => optional(discovery::resources(catalogue, "", version), accept).await,
        ["apis", group, version] => optional(discovery::resources(catalogue, group, version), accept).await,
        ["openapi", "v2"] => Ok(document(openapi::OpenApi::builtin().v2(), parts, accept).await),
        ["openapi", "v3"] => Ok(document(openapi::OpenApi::builtin().index(), parts, accept).await),
        ["openapi", "v3", ..] => {
            let name = path.trim_start_matches("/openapi/v3/");
            let found = openapi::OpenApi::builtin()
                .v3(name)
                .ok_or_else(status::no_such_resource)?;
            Ok(document(found, parts, accept).await)
        }
        ["version"] => json(&version(), accept).await,
        [".well-known", "openid-configuration"] => {
            let keys = format!("https://{}/openid/v1/jwks", host(server));
            let configuration = server.authenticator.service_accounts.configuration(&keys);
            Ok(plain(&configuration, "application/json"))
        }
        ["openid", "v1", "jwks"] => {
            let keys = server.authenticator.service_accounts.keys();
            Ok(plain(&keys, "application/jwk-set+json"))
        }
        _ => Err(status::no_such_resource()),
    }
}

async fn json(value: &Value, accept: Accept) -> Result<Response<Body>, Status> {
    Ok(render::document(200, value.to_string().into(), accept).await)
}

/// A document of a media type that nobody negotiates.
fn plain(value: &Value, content_type: &'static str) -> Response<Body> {
    let mut response = Response::new(Bytes::from(value.to_string()).into());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    response
}

async fn optional(value: Option<Value>, accept: Accept) -> Result<Response<Body>, Status> {
    json(&value.ok_or_else(status::no_such_resource)?, accept).await
}

/// A document with its entity tag.
struct Tagged {
    bytes: Bytes,
    tag: HeaderValue,
}

impl Tagged {
    fn new(value: &Value) -> Self {
        use sha2::Digest as _;
        let text = value.to_string();
        let hash = sha2::Sha512::digest(text.as_bytes());
        let tag: String = hash.iter().map(|byte| format!("{byte:02X}")).collect();
        let tag = HeaderValue::from_str(&format!("\"{tag}\"")).unwrap_or(HeaderValue::from_static("\"\""));
        Self {
            bytes: text.into(),
            tag,
        }
    }
}

static CORE: LazyLock<Tagged> = LazyLock::new(|| Tagged::new(&discovery::aggregated(Catalogue::builtin(), true)));
static NAMED: LazyLock<Tagged> = LazyLock::new(|| Tagged::new(&discovery::aggregated(Catalogue::builtin(), false)));

fn tagged(document: &Tagged, content_type: &'static str, parts: &Parts) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::ETAG, document.tag.clone());
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    if is_known(&parts.headers, &document.tag) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        *response.body_mut() = document.bytes.clone().into();
    }
    response
}

fn is_known(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    headers.get(header::IF_NONE_MATCH).is_some_and(|known| known == tag)
}

/// An OpenAPI document. Asked for by its hash it may be kept for ever, for then its address changes with it.
async fn document(document: &openapi::Document, parts: &Parts, accept: Accept) -> Response<Body> {
    let tag = HeaderValue::from_str(&format!("\"{}\"", document.hash)).unwrap_or(HeaderValue::from_static("\"\""));
    let mut response = if is_known(&parts.headers, &tag) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        render::document(200, document.bytes.clone(), accept).await
    };
    let by_hash = Query::parse(parts.uri.query().unwrap_or_default()).get("hash") == Some(&document.hash);
    let headers = response.headers_mut();
    headers.insert(header::ETAG, tag);
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    let keep = if by_hash {
        "public, immutable, max-age=31536000"
    } else {
        "no-cache, private"
    };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(keep));
    response
}

/// The OpenAPI v2 document for kubectl, made at its first use.
fn protobuf() -> Result<Response<Body>, Status> {
    static PATHS: LazyLock<Result<Bytes, serde_json::Error>> =
        LazyLock::new(|| openapi_protobuf::encode(&openapi::OpenApi::builtin().v2().bytes));
    let bytes = PATHS.as_ref().map_err(status::internal)?;
    let mut response = Response::new(bytes.clone().into());
    let content_type = HeaderValue::from_static("application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    Ok(response)
}

fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|accept| accept.contains(media_type))
}

fn aggregated_wanted(headers: &HeaderMap) -> bool {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    accept.split(',').any(|range| {
        let has = |wanted: &str| range.split(';').any(|piece| piece.trim() == wanted);
        has("application/json") && has("as=APIGroupDiscoveryList") && has("g=apidiscovery.k8s.io") && has("v=v2")
    })
}

fn host(server: &Server) -> String {
    let address = server
        .config
        .addresses
        .first()
        .copied()
        .unwrap_or(std::net::Ipv4Addr::LOCALHOST.into());
    std::net::SocketAddr::new(address, server.config.https_port).to_string()
}

fn paths(catalogue: &Catalogue) -> Vec<String> {
    let mut paths: Vec<String> = ["/api", "/api/v1", "/apis"].map(String::from).into();
    for (group, versions) in catalogue.groups().into_iter().filter(|(group, _)| !group.is_empty()) {
        paths.push(format!("/apis/{group}"));
        paths.extend(versions.iter().map(|version| format!("/apis/{group}/{version}")));
    }
    paths.extend(
        [
            "/healthz",
            "/livez",
            "/openapi/v2",
            "/openapi/v3",
            "/readyz",
            "/version",
        ]
        .map(String::from),
    );
    paths
}

fn version() -> Value {
    json!({
        "major": "1",
        "minor": "36",
        "emulationMajor": "1",
        "emulationMinor": "36",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35",
        "gitVersion": crate::VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "rustc",
        "platform": format!("linux/{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }),
    })
}

/// `ok`, or what is not.
async fn health(server: &Server, segments: &[&str], query: &Query) -> Result<Response<Body>, Status> {
    let which = segments[0];
    let failure = match server.store.revision().await {
        Ok(_) if which == "readyz" && server.ending.is_cancelled() => Some(String::from("the server is shutting down")),
        Ok(_) => None,
        Err(error) => Some(error.to_string()),
    };
    let (code, text) = match (&segments[1..], failure) {
        ([], None) if query.get("verbose").is_some() || query.flag("verbose") => {
            let checks: String = CHECKS.iter().map(|check| format!("[+]{check} ok\n")).collect();
            (200, format!("{checks}{which} check passed\n"))
        }
        ([], None) => (200, String::from("ok")),
        ([check], None) if CHECKS.contains(check) => (200, String::from("ok")),
        ([], Some(why)) => (500, format!("[-]etcd failed: {why}\n{which} check failed\n")),
        ([check], Some(why)) if CHECKS.contains(check) => (500, format!("internal server error: {why}")),
        _ => return Err(status::no_such_resource()),
    };
    let mut response = Response::new(text.into());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    Ok(response)
}
