//! `/containerLogs`: a container's log files, as upstream shows them.
//!
//! ```text
//! query ──▶ options ─┐
//! pod's status ──▶ container id ──▶ the runtime's log path ──▶ tail: where to begin ──▶ stream ──▶ text ──▶ body
//!                                                                 inotify, container's end ──┘
//! ```
//!
//! Nothing is polled: a follower sleeps until the directory of the log changes, the container ends or the client
//! goes. Memory is bounded by one block of the file and one line, however long the log is.

mod container;
mod options;
mod stream;
mod tail;
mod text;

use std::path::PathBuf;

use bytes::Bytes;
use cri::v1::ContainerStatusRequest;
use futures::StreamExt;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::options::{LogOptions, OptionsError};
use self::stream::LogStream;
use super::query::Query;
use super::respond::{Body, Node, plain};
use super::route::ContainerPath;

/// Blocks of text that wait for the client.
const WAITING: usize = 2;

pub(super) async fn respond(node: &Node, path: &ContainerPath, query: Option<&str>) -> Response<Body> {
    let options = match LogOptions::parse(&Query::parse(query), jiff::Timestamp::now()) {
        Ok(options) => options,
        Err(OptionsError::Unreadable(reason)) => {
            tracing::debug!(reason, "log options cannot be read");
            return plain(StatusCode::BAD_REQUEST, r#"{"message": "Unable to decode query."}"#);
        }
        Err(OptionsError::Invalid(reason)) => {
            tracing::debug!(reason, "log options are invalid");
            return plain(StatusCode::UNPROCESSABLE_ENTITY, r#"{"message": "Invalid request."}"#);
        }
    };
    let Some(pod) = node.pods.pod(&path.namespace, &path.pod) else {
        return plain(StatusCode::NOT_FOUND, format!("pod {:?} not found\n", path.pod));
    };
    if !container::is_in(&pod, &path.container) {
        let words = format!("container {:?} not found in pod {:?}\n", path.container, path.pod);
        return plain(StatusCode::NOT_FOUND, words);
    }
    let container_id = match container::with_log(&pod, &path.container, options.previous) {
        Ok(id) => id,
        Err(reason) => return plain(StatusCode::BAD_REQUEST, reason),
    };
    match open(node, container_id, options).await {
        Ok(body) => {
            let mut response = Response::new(body);
            response.headers_mut().insert(
                http::header::CONTENT_TYPE,
                http::HeaderValue::from_static("text/plain; charset=utf-8"),
            );
            response
        }
        Err(reason) => plain(StatusCode::BAD_REQUEST, reason),
    }
}

/// Starts to read the log of a container, given as `RUNTIME://ID`.
async fn open(node: &Node, container_id: &str, options: LogOptions) -> Result<Body, String> {
    let id = container_id.split_once("://").map_or(container_id, |(_, id)| id);
    let asked = ContainerStatusRequest {
        container_id: id.to_owned(),
        verbose: false,
    };
    let status = node
        .runtime
        .container_status(asked)
        .await
        .ok()
        .and_then(|answer| answer.status)
        .ok_or_else(|| {
            // The runtime has forgotten the container, and its log with it.
            format!("unable to retrieve container logs for {container_id}")
        })?;
    let path = PathBuf::from(&status.log_path);
    let ended = CancellationToken::new();
    if options.follow && !options.previous {
        let (waiting, ended) = (node.pods.ended(id), ended.clone().drop_guard());
        tokio::spawn(async move {
            waiting.await;
            drop(ended);
        });
    } else {
        ended.cancel();
    }
    let stream = LogStream::open(&path, &options, ended).await.map_err(|error| {
        format!(
            "failed to try resolving symlinks in path {:?}: lstat {}: {}",
            status.log_path,
            status.log_path,
            words(&error)
        )
    })?;
    let (sender, receiver) = mpsc::channel::<std::io::Result<Bytes>>(WAITING);
    tokio::spawn(stream.run(sender));
    let frames = tokio_stream::wrappers::ReceiverStream::new(receiver).map(|text| text.map(Frame::data));
    Ok(BodyExt::boxed(StreamBody::new(frames)))
}

/// An error of the kernel in the words that Go programs print.
fn words(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_lowercase(),
        None => error.to_string(),
    }
}
