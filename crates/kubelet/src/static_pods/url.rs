//! Static pods from a web server, which cannot tell of changes and so is asked at an interval, as upstream documents it.

use std::time::Duration;

use client::Client;
use client::kube::Config;
use k8s_openapi::api::core::v1::Pod;

use super::manifest::{Origin, parse};
use crate::config::ManifestUrl;

/// However often it is asked, an answer has this long.
const PATIENCE: Duration = Duration::from_secs(10);

/// Tells what the server has, first and after every change of its answer; the error says why there is nothing new.
pub async fn follow(source: &ManifestUrl, node: &str, mut tell: impl FnMut(Result<Vec<Pod>, String>)) {
    let mut last = None;
    loop {
        let answer = fetch(source).await;
        if last.as_ref() != Some(&answer) {
            tell(
                answer
                    .clone()
                    .and_then(|text| parse(text.as_bytes(), Origin::Url(&source.url), node)),
            );
            last = Some(answer);
        }
        tokio::time::sleep(source.interval).await;
    }
}

async fn fetch(source: &ManifestUrl) -> Result<String, String> {
    let url = &source.url;
    let failed = |error: &dyn std::fmt::Display| format!("{url}: {error}");
    let uri: http::Uri = url.parse().map_err(|error: http::uri::InvalidUri| failed(&error))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let mut base = uri.into_parts();
    base.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
    let base = http::Uri::from_parts(base).map_err(|error| failed(&error))?;
    let client = Client::try_from(Config::new(base)).map_err(|error| failed(&error))?;
    let mut request = http::Request::get(path);
    for (name, value) in &source.headers {
        request = request.header(name, value);
    }
    let request = request.body(Vec::new()).map_err(|error| failed(&error))?;
    match tokio::time::timeout(PATIENCE, client.request_text(request)).await {
        Err(_) => Err(failed(&"no answer in time")),
        Ok(Err(error)) => Err(failed(&error)),
        Ok(Ok(text)) if text.trim().is_empty() => Err(failed(&"zero-length data received")),
        Ok(Ok(text)) => Ok(text),
    }
}
