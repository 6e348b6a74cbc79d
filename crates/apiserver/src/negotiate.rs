//! Which form an answer takes, and which form a request's body has.

use api::{Format, Status, status};
use http::{HeaderMap, header};

/// What the server can send.
const ACCEPTABLE: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];

/// What the server can read as an object.
const READABLE: &[&str] = &["application/json", "application/yaml"];

/// How an object is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// As it is.
    Whole,
    /// As rows of a table.
    Table,
    /// Its metadata alone.
    Metadata,
}

/// The form that the client wants its answer in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accept {
    pub format: Format,
    pub shape: Shape,
    /// Whether JSON is indented.
    pub pretty: bool,
    /// Whether the answer may be compressed.
    pub gzip: bool,
}

/// One media range of an Accept header.
struct Range<'a> {
    media: &'a str,
    quality: f32,
    parameters: Vec<(&'a str, &'a str)>,
}

impl Range<'_> {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| *value)
    }
}

fn ranges(header: &str) -> Vec<Range<'_>> {
    let mut ranges: Vec<Range<'_>> = header
        .split(',')
        .filter_map(|part| {
            let mut pieces = part.split(';').map(str::trim);
            let media = pieces.next().filter(|media| !media.is_empty())?;
            let parameters: Vec<(&str, &str)> = pieces
                .filter_map(|piece| piece.split_once('='))
                .map(|(k, v)| (k.trim(), v.trim()))
                .collect();
            let quality = parameters
                .iter()
                .find(|(key, _)| *key == "q")
                .and_then(|(_, q)| q.parse().ok())
                .unwrap_or(1.0);
            Some(Range {
                media,
                quality,
                parameters,
            })
        })
        .collect();
    // Stable: ranges of one quality keep the client's order.
    ranges.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    ranges
}

impl Accept {
    /// The first form in the client's order that the server can send.
    pub fn negotiate(headers: &HeaderMap, pretty: bool) -> Result<Self, Status> {
        let gzip = headers
            .get_all(header::ACCEPT_ENCODING)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|coding| coding.split(';').next().is_some_and(|name| name.trim() == "gzip"));
        let accept = headers
            .get(header::ACCEPT)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("*/*");
        for range in ranges(accept) {
            let format = match range.media {
                "*/*" | "application/*" | "application/json" => Format::Json,
                "application/yaml" => Format::Yaml,
                _ => continue,
            };
            let shape = match (range.parameter("as"), range.parameter("g"), range.parameter("v")) {
                (None, ..) => Shape::Whole,
                (Some("Table"), Some("meta.k8s.io"), Some("v1" | "v1beta1")) => Shape::Table,
                (
                    Some("PartialObjectMetadata" | "PartialObjectMetadataList"),
                    Some("meta.k8s.io"),
                    Some("v1" | "v1beta1"),
                ) => Shape::Metadata,
                _ => continue,
            };
            return Ok(Self {
                format,
                shape,
                pretty,
                gzip,
            });
        }
        Err(status::not_acceptable(ACCEPTABLE))
    }

    /// JSON, whole: the form of errors when the client accepts nothing that there is.
    pub const fn plain() -> Self {
        Self {
            format: Format::Json,
            shape: Shape::Whole,
            pretty: false,
            gzip: false,
        }
    }
}

/// The form of a request's body.
pub(crate) fn body_format(headers: &HeaderMap) -> Result<Format, Status> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Ok(Format::Json);
    };
    let media = value
        .to_str()
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim();
    match media {
        "application/json" | "" => Ok(Format::Json),
        "application/yaml" => Ok(Format::Yaml),
        _ => Err(unreadable()),
    }
}

/// The refusal of a body that the server does not read.
pub(crate) fn unreadable() -> Status {
    status::unsupported_media_type(READABLE)
}

/// The media type of a request's body, without parameters.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .map_or("", str::trim)
}

/// Whether the client asks for indented JSON: by saying so, or by being a person's tool.
pub(crate) fn wants_pretty(headers: &HeaderMap, query: &crate::query::Query) -> bool {
    match query.get("pretty") {
        Some(value) => !matches!(value, "0" | "false"),
        None => headers
            .get(header::USER_AGENT)
            .and_then(|agent| agent.to_str().ok())
            .is_some_and(|agent| {
                ["curl", "Wget", "Mozilla/5.0"]
                    .iter()
                    .any(|tool| agent.starts_with(tool))
            }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test fails by panicking.
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_first_acceptable_form_is_taken() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        for (header, format, shape) in [
            ("", Format::Json, Shape::Whole),
            ("*/*", Format::Json, Shape::Whole),
            ("application/json", Format::Json, Shape::Whole),
            ("application/yaml", Format::Yaml, Shape::Whole),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                Format::Json,
                Shape::Whole,
            ),
            ("application/json;q=0.5, application/yaml", Format::Yaml, Shape::Whole),
            (table, Format::Json, Shape::Table),
            (
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                Format::Json,
                Shape::Metadata,
            ),
            (
                "application/json;as=Unknown;g=meta.k8s.io;v=v1,application/json",
                Format::Json,
                Shape::Whole,
            ),
        ] {
            let mut headers = HeaderMap::new();
            if !header.is_empty() {
                headers.insert(header::ACCEPT, HeaderValue::from_str(header).unwrap());
            }
            let accept = Accept::negotiate(&headers, false).unwrap();
            assert_eq!((accept.format, accept.shape), (format, shape), "{header}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("text/html"));
        let refused = Accept::negotiate(&headers, false).unwrap_err();
        assert_eq!(refused.code(), 406);
        assert!(
            refused
                .message()
                .starts_with("only the following media types are accepted: application/json, ")
        );
    }
}
