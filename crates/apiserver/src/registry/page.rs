//! Continue tokens: where a list's next page begins, and at which revision.

use api::{Status, status};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

/// The version of the token's form, which is upstream's.
const VERSION: &str = "meta.k8s.io/v1";

#[derive(Deserialize, Serialize)]
struct Token {
    #[serde(default, rename = "v")]
    version: String,
    #[serde(default, rename = "rv")]
    revision: i64,
    #[serde(default, rename = "start")]
    start: String,
}

/// A place in a list.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The revision that the list shows; none for a list that goes on with the newest after its own was
    /// compacted.
    pub revision: Option<u64>,
    /// The key after which the page begins, relative to the list's prefix.
    pub after: String,
}

impl Place {
    pub fn encode(&self) -> String {
        let token = Token {
            version: VERSION.into(),
            revision: self.revision.map_or(-1, u64::cast_signed),
            // The smallest key after the last one of this page.
            start: format!("{}\0", self.after),
        };
        // Strings and a number: this can not fail.
        BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
    }

    pub fn decode(text: &str) -> Result<Self, Status> {
        let invalid = |why: &str| status::bad_request(format!("continue key is not valid: {why}"));
        let bytes = BASE64_URL_SAFE_NO_PAD
            .decode(text.trim_end_matches('='))
            .map_err(|error| invalid(&error.to_string()))?;
        let token: Token = serde_json::from_slice(&bytes).map_err(|error| invalid(&error.to_string()))?;
        if token.version != VERSION {
            return Err(invalid("server does not recognize this encoded version"));
        }
        let revision = match token.revision {
            0 => {
                return Err(invalid(
                    "incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
                ));
            }
            negative if negative < 0 => None,
            revision => Some(revision.cast_unsigned()),
        };
        let start = token.start.strip_suffix('\0').unwrap_or(&token.start);
        if start.is_empty() || start.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(invalid("incorrect encoded start key"));
        }
        Ok(Self {
            revision,
            after: start.to_owned(),
        })
    }
}

/// The answer to a token whose revision was compacted: it carries a token to go on with, at the newest revision.
pub(crate) fn too_old(place: &Place) -> Status {
    let next = Place {
        revision: None,
        after: place.after.clone(),
    }
    .encode();
    let mut expired = status::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list \
         without the continue parameter, or use the continue token in this response to retrieve the remainder of \
         the results. Continuing with the provided token results in an inconsistent list - objects that were \
         created, modified, or deleted between the time the first chunk was returned and now may show up in the \
         list.",
    )
    .as_meta()
    .clone();
    expired.metadata.continue_ = Some(next);
    expired.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test fails by panicking.
    use super::*;

    #[test]
    fn places_survive_their_token() {
        for place in [
            Place {
                revision: Some(1),
                after: "a/b".into(),
            },
            Place {
                revision: Some(u64::MAX >> 1),
                after: "x".into(),
            },
            Place {
                revision: None,
                after: "a/b-c.d".into(),
            },
        ] {
            assert_eq!(Place::decode(&place.encode()).unwrap(), place);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_token_is_a_place_or_an_error(text in ".{0,80}", json in r#"\{"v":"meta.k8s.io/v1","rv":-?[0-9]{1,20},"start":"[a-z/.]{0,9}"\}"#) {
            for text in [text, BASE64_URL_SAFE_NO_PAD.encode(json)] {
                if let Ok(place) = Place::decode(&text) {
                    proptest::prop_assert!(!place.after.contains(".."));
                }
            }
        }
    }

    #[test]
    fn broken_tokens_are_refused() {
        let token = |json: &str| BASE64_URL_SAFE_NO_PAD.encode(json);
        for text in [
            String::from("***"),
            token("{}"),
            token("nonsense"),
            token(r#"{"v":"meta.k8s.io/v1","rv":0,"start":"a\u0000"}"#),
            token(r#"{"v":"meta.k8s.io/v1","rv":5,"start":""}"#),
            token(r#"{"v":"meta.k8s.io/v1","rv":5,"start":"../a\u0000"}"#),
            token(r#"{"v":"meta.k8s.io/v1","rv":5,"start":"/a\u0000"}"#),
            token(r#"{"v":"meta.k8s.io/v2","rv":5,"start":"a\u0000"}"#),
        ] {
            let error = Place::decode(&text).unwrap_err();
            assert_eq!(error.code(), 400, "{text}");
            assert!(
                error.message().starts_with("continue key is not valid: "),
                "{text}: {error}"
            );
        }
    }
}
