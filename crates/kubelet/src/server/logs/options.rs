//! What a caller wants to see of a log.

use jiff::{SignedDuration, Timestamp};

use crate::server::query::Query;

/// Which of a container's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    All,
    Stdout,
    Stderr,
}

/// The options of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogOptions {
    pub(super) follow: bool,
    pub(super) previous: bool,
    pub(super) timestamps: bool,
    pub(super) since: Option<Timestamp>,
    pub(super) tail_lines: Option<u64>,
    pub(super) limit_bytes: Option<u64>,
    pub(super) shown: Shown,
}

/// What is wrong with options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum OptionsError {
    /// A value is not of its type.
    Unreadable(String),
    /// Values that may not be.
    Invalid(&'static str),
}

impl LogOptions {
    pub(super) fn parse(query: &Query, now: Timestamp) -> Result<LogOptions, OptionsError> {
        let tail_lines = number(query, "tailLines")?;
        let since_seconds = number(query, "sinceSeconds")?;
        let limit_bytes = number(query, "limitBytes")?;
        let given = |name| query.get(name).filter(|value| !value.is_empty());
        let since_time = given("sinceTime")
            .map(|text| {
                text.parse::<Timestamp>()
                    .map_err(|_| OptionsError::Unreadable(format!("sinceTime: {text}")))
            })
            .transpose()?;
        let invalid = |reason| Err(OptionsError::Invalid(reason));
        if tail_lines.is_some_and(|lines| lines < 0) {
            return invalid("tailLines: must be greater than or equal to 0");
        }
        if limit_bytes.is_some_and(|bytes| bytes < 1) {
            return invalid("limitBytes: must be greater than 0");
        }
        if since_seconds.is_some_and(|seconds| seconds < 1) {
            return invalid("sinceSeconds: must be greater than 0");
        }
        if since_seconds.is_some() && since_time.is_some() {
            return invalid("at most one of `sinceTime` or `sinceSeconds` may be specified");
        }
        let shown = match given("stream") {
            None | Some("All") => Shown::All,
            Some("Stdout") => Shown::Stdout,
            Some("Stderr") => Shown::Stderr,
            Some(_) => return invalid("stream: supported values: \"All\", \"Stderr\", \"Stdout\""),
        };
        if shown != Shown::All && tail_lines.is_some() {
            return invalid("`tailLines` and specific `stream` are mutually exclusive for now");
        }
        let ago = |seconds| {
            now.checked_sub(SignedDuration::from_secs(seconds))
                .unwrap_or(Timestamp::MIN)
        };
        Ok(LogOptions {
            follow: query.flag("follow"),
            previous: query.flag("previous"),
            timestamps: query.flag("timestamps"),
            since: since_time.or(since_seconds.map(ago)),
            tail_lines: tail_lines.map(i64::unsigned_abs),
            limit_bytes: limit_bytes.map(i64::unsigned_abs),
            shown,
        })
    }
}

fn number(query: &Query, name: &str) -> Result<Option<i64>, OptionsError> {
    match query.get(name).filter(|value| !value.is_empty()) {
        None => Ok(None),
        Some(text) => text
            .parse()
            .map(Some)
            .map_err(|_| OptionsError::Unreadable(format!("{name}: {text}"))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says what it expects by failing")]

    use super::*;

    fn parse(query: &str) -> Result<LogOptions, OptionsError> {
        LogOptions::parse(&Query::parse(Some(query)), Timestamp::from_second(1_000_000).unwrap())
    }

    #[test]
    fn given_options() {
        let none = LogOptions {
            follow: false,
            previous: false,
            timestamps: false,
            since: None,
            tail_lines: None,
            limit_bytes: None,
            shown: Shown::All,
        };
        let second = |second| Some(Timestamp::from_second(second).unwrap());
        for (query, expected) in [
            ("", none.clone()),
            (
                "follow=true&previous=1&timestamps=true&stream=All",
                LogOptions {
                    follow: true,
                    previous: true,
                    timestamps: true,
                    ..none.clone()
                },
            ),
            (
                "follow=false&timestamps=0&stream=Stderr",
                LogOptions {
                    shown: Shown::Stderr,
                    ..none.clone()
                },
            ),
            (
                "tailLines=0&limitBytes=1&sinceSeconds=10",
                LogOptions {
                    tail_lines: Some(0),
                    limit_bytes: Some(1),
                    since: second(999_990),
                    ..none.clone()
                },
            ),
            (
                "sinceTime=1970-01-01T00:00:05Z",
                LogOptions {
                    since: second(5),
                    ..none
                },
            ),
        ] {
            assert_eq!(parse(query), Ok(expected), "{query}");
        }
    }

    #[test]
    fn refused_options() {
        for query in ["tailLines=x", "sinceTime=yesterday"] {
            assert!(matches!(parse(query), Err(OptionsError::Unreadable(_))), "{query}");
        }
        for query in [
            "tailLines=-1",
            "limitBytes=0",
            "sinceSeconds=0",
            "sinceSeconds=1&sinceTime=1970-01-01T00:00:05Z",
            "stream=stdout",
            "stream=Stdout&tailLines=1",
        ] {
            assert!(matches!(parse(query), Err(OptionsError::Invalid(_))), "{query}");
        }
    }
}
