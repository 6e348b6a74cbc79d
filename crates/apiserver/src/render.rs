//! Answers as HTTP responses, in the form that the client wants.

use std::{borrow::Cow, io::Write as _};

use api::{
    Format, Status, status,
    table::{self, IncludeObject, ListHead},
};
use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderValue, Response, header};
use http_body::Frame;
use http_body_util::StreamBody;
use jiff::Timestamp;

use crate::{
    Body, BoxError,
    answer::{Answer, Content, List},
    call::Call,
    negotiate::{Accept, Shape},
};

/// Answers of at least this size are compressed for clients that take it, as upstream.
const COMPRESS_BYTES: usize = 128 << 10;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const YAML: HeaderValue = HeaderValue::from_static("application/yaml");

/// The response to a call for a resource.
pub(crate) async fn resource(call: &Call<'_>, answer: Answer) -> Response<Body> {
    let Answer {
        code,
        warnings,
        content,
    } = answer;
    let rendered = match content {
        Content::Response(response) => return response,
        Content::Watch(events) => {
            let frames = events.into_stream().map(|bytes| Ok::<_, BoxError>(Frame::data(bytes)));
            let mut response = Response::new(Body::stream(StreamBody::new(frames)));
            response.headers_mut().insert(header::CONTENT_TYPE, JSON);
            warn(call, &mut response, &warnings);
            return response;
        }
        Content::Object(stored) => object(call, stored),
        Content::List(list) => self::list(call, &list),
        Content::Other(bytes) => Ok(bytes),
        Content::Status(status) => Ok(status.to_json().into()),
    };
    let mut response = match rendered {
        Ok(json) => document(code, json, call.accept).await,
        Err(error) => failure(&error, call.accept).await,
    };
    warn(call, &mut response, &warnings);
    response
}

/// What the client is told beside its answer: of the kind, then of the object.
fn warn(call: &Call<'_>, response: &mut Response<Body>, warnings: &[String]) {
    let of_kind = call.resource.strategy.deprecation();
    for warning in of_kind.into_iter().chain(warnings.iter().map(String::as_str)) {
        if let Ok(value) = HeaderValue::from_str(&format!("299 - {warning:?}")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}

/// A failure as a response.
pub(crate) async fn failure(failure: &Status, accept: Accept) -> Response<Body> {
    let mut response = document(failure.code(), failure.to_json().into(), accept).await;
    if let Some(seconds) = failure.retry_after_seconds() {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// JSON in the format that the client wants.
pub(crate) async fn document(code: u16, json: Bytes, accept: Accept) -> Response<Body> {
    let (content_type, bytes) = match accept.format {
        Format::Json if accept.pretty => (JSON, indent(&json).into()),
        Format::Json => (JSON, json),
        Format::Yaml => match yaml(&json) {
            Ok(yaml) => (YAML, yaml.into()),
            Err(error) => (JSON, error.to_json().into()),
        },
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    let bytes = if accept.gzip && bytes.len() >= COMPRESS_BYTES {
        match compress(bytes.clone()).await {
            Some(compressed) => {
                headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
                compressed
            }
            None => bytes,
        }
    } else {
        bytes
    };
    *response.body_mut() = bytes.into();
    response
}

fn yaml(json: &[u8]) -> Result<String, Status> {
    let value: serde_json::Value = serde_json::from_slice(json).map_err(status::internal)?;
    serde_yaml_ng::to_string(&value).map_err(status::internal)
}

/// Milliseconds of work, which must not keep other requests from being answered.
async fn compress(bytes: Bytes) -> Option<Bytes> {
    let work = move || {
        let mut encoder =
            flate2::write::GzEncoder::new(Vec::with_capacity(bytes.len() / 4), flate2::Compression::fast());
        encoder.write_all(&bytes).and_then(|()| encoder.finish())
    };
    tokio::task::spawn_blocking(work).await.ok()?.ok().map(Bytes::from)
}

fn object(call: &Call<'_>, stored: Bytes) -> Result<Bytes, Status> {
    match call.accept.shape {
        Shape::Whole => Ok(match call.resource.strategy.wire(&stored)? {
            Cow::Borrowed(_) => stored,
            Cow::Owned(bytes) => bytes.into(),
        }),
        Shape::Metadata => table::partial_object(&stored).map(Bytes::from),
        Shape::Table => {
            let object = call.resource.strategy.load(&stored)?;
            let version = object.metadata().resource_version.clone().unwrap_or_default();
            let head = ListHead {
                resource_version: version,
                ..ListHead::default()
            };
            rows(call, std::iter::once(&stored[..]), &head)
        }
    }
}

fn rows<'a>(call: &Call<'_>, stored: impl Iterator<Item = &'a [u8]>, head: &ListHead) -> Result<Bytes, Status> {
    let include = IncludeObject::parse(call.query.get("includeObject"))?;
    table::table(call.resource, stored, head, include, true, Timestamp::now()).map(Bytes::from)
}

fn list(call: &Call<'_>, list: &List) -> Result<Bytes, Status> {
    let head = ListHead {
        resource_version: list.revision.to_string(),
        continue_token: list.next.clone(),
        remaining_item_count: list.remaining,
    };
    let stored = list.entries.iter().map(|entry| &entry.value[..]);
    match call.accept.shape {
        Shape::Whole => whole(call, list, &head),
        Shape::Metadata => table::partial_list(stored, &head).map(Bytes::from),
        Shape::Table => rows(call, stored, &head),
    }
}

/// A list of whole objects: their stored bytes, one after the other.
fn whole(call: &Call<'_>, list: &List, head: &ListHead) -> Result<Bytes, Status> {
    let resource = call.resource;
    let api_version = resource.api_version();
    let bytes: usize = list.entries.iter().map(|entry| entry.value.len() + 1).sum();
    let mut out = Vec::with_capacity(bytes + 256);
    let head = serde_json::to_string(head).map_err(status::internal)?;
    let kind = resource.list_kind;
    let begin = format!(r#"{{"kind":"{kind}","apiVersion":"{api_version}","metadata":{head},"items":["#);
    out.extend_from_slice(begin.as_bytes());
    // A list says once what its items are, so they do not say it again. Stored objects begin with it.
    let said = format!(r#"{{"apiVersion":"{api_version}","kind":"{}","#, resource.kind);
    for (index, entry) in list.entries.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let wire = resource.strategy.wire(&entry.value)?;
        match wire.strip_prefix(said.as_bytes()) {
            Some(rest) => {
                out.push(b'{');
                out.extend_from_slice(rest);
            }
            None => out.extend_from_slice(&wire),
        }
    }
    out.extend_from_slice(b"]}");
    Ok(out.into())
}

/// JSON with two spaces for each level, its fields in their order.
fn indent(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() * 2);
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut escaped = false;
    let new_line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.extend(std::iter::repeat_n(b' ', depth * 2));
    };
    let mut bytes = json.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if in_string {
            out.push(byte);
            in_string = escaped || byte != b'"';
            escaped = byte == b'\\' && !escaped;
            continue;
        }
        match byte {
            b'"' => {
                in_string = true;
                out.push(byte);
            }
            b'{' | b'[' => {
                out.push(byte);
                if bytes.peek().is_some_and(|next| matches!(next, b'}' | b']')) {
                    out.extend(bytes.next());
                } else {
                    depth += 1;
                    new_line(&mut out, depth);
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut out, depth);
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                new_line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            byte if byte.is_ascii_whitespace() => {}
            byte => out.push(byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test fails by panicking.
    use super::*;

    #[test]
    fn indented_json_is_as_others_write_it() {
        let value = serde_json::json!({"a": {}, "b": [], "c": [1, {"d": "x \"y\": {,} \\"}], "e": null, "f": [[true]]});
        assert_eq!(
            String::from_utf8(indent(value.to_string().as_bytes())).unwrap(),
            serde_json::to_string_pretty(&value).unwrap()
        );
    }
}
