//! Tokens of ServiceAccounts for the pod's volumes, asked of the API server, each asked for anew long before it expires.

use std::collections::HashMap;

use client::Client;
use client::kube::Api;
use client::kube::api::PostParams;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};
use parking_lot::Mutex;

use crate::pods::pod::PodExt;

/// However long a token lives, it is renewed after this.
const LONGEST: SignedDuration = SignedDuration::from_hours(24);
/// Before asking again at the earliest.
const RETRY: SignedDuration = SignedDuration::from_secs(1);
/// What a token lives when its volume does not say.
const DEFAULT_SECONDS: i64 = 3600;

struct Token {
    token: String,
    renew_at: Timestamp,
    expires: Timestamp,
}

/// What makes one token different from another: its audience and its life in seconds.
type Key = (Option<String>, i64);

/// The tokens of one pod.
pub struct Tokens {
    client: Client,
    held: Mutex<HashMap<Key, Token>>,
}

/// When a token that is made now is to be replaced: after four fifths of its life, and within a day.
fn renew_at(now: Timestamp, expires: Timestamp) -> Timestamp {
    let life = expires.duration_since(now).max(SignedDuration::ZERO);
    now.saturating_add((life / 5 * 4).min(LONGEST))
        .unwrap_or(Timestamp::MAX)
}

impl Tokens {
    /// None yet.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            held: Mutex::default(),
        }
    }

    /// When the first of them is to be replaced.
    pub fn renewal(&self) -> Option<Timestamp> {
        self.held.lock().values().map(|token| token.renew_at).min()
    }

    /// The token that a volume asks for. One that cannot be renewed is good until it expires.
    pub async fn get(&self, pod: &Pod, wanted: &ServiceAccountTokenProjection) -> Result<String, String> {
        let audience = wanted.audience.clone().filter(|audience| !audience.is_empty());
        let key = (audience, wanted.expiration_seconds.unwrap_or(DEFAULT_SECONDS));
        let now = Timestamp::now();
        let current = {
            let held = self.held.lock();
            held.get(&key)
                .map(|token| (token.token.clone(), token.renew_at, token.expires))
        };
        if let Some((token, renew_at, _)) = &current
            && *renew_at > now
        {
            return Ok(token.clone());
        }
        match (self.request(pod, &key).await, current) {
            (Ok(token), _) => {
                let text = token.token.clone();
                self.held.lock().insert(key, token);
                Ok(text)
            }
            (Err(_), Some((token, _, expires))) if expires > now => {
                // Tried again in a while: what is left is a fifth of its life.
                if let Some(held) = self.held.lock().get_mut(&key) {
                    held.renew_at = renew_at(now, expires).max(now.saturating_add(RETRY).unwrap_or(Timestamp::MAX));
                }
                Ok(token)
            }
            (Err(error), _) => Err(format!("failed to fetch token: {error}")),
        }
    }

    async fn request(&self, pod: &Pod, (audience, seconds): &Key) -> Result<Token, String> {
        let spec = pod.spec();
        let account = spec
            .and_then(|spec| spec.service_account_name.as_deref())
            .unwrap_or("default");
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(audience.iter().cloned().collect()),
                expiration_seconds: Some(*seconds),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Pod".into()),
                    name: Some(pod.name().to_owned()),
                    uid: Some(pod.uid().to_owned()),
                }),
            }),
            ..Default::default()
        };
        let now = Timestamp::now();
        let answer = Api::<ServiceAccount>::namespaced(self.client.clone(), pod.namespace())
            .create_token_request(account, &PostParams::default(), &request)
            .await
            .map_err(|error| match error {
                client::kube::Error::Api(status) => status.message,
                error => error.to_string(),
            })?;
        let status = answer.status.unwrap_or_default();
        let expires = status
            .expiration_timestamp
            .map_or_else(
                || now.saturating_add(SignedDuration::from_secs(*seconds)),
                |time| Ok(time.0),
            )
            .unwrap_or(Timestamp::MAX);
        Ok(Token {
            token: status.token.unwrap_or_default(),
            renew_at: renew_at(now, expires),
            expires,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::{BodyExt, Full};
    use serde_json::{Value, json};
    use tower::service_fn;

    use super::*;

    /// An API server whose tokens are numbered; it refuses when the seconds that they live are below zero.
    fn server(lives: Arc<AtomicI64>, asked: Arc<AtomicUsize>) -> Client {
        client::in_process(service_fn(move |request: Request<client::kube::client::Body>| {
            let (lives, asked) = (lives.clone(), asked.clone());
            async move {
                assert_eq!(request.uri().path(), "/api/v1/namespaces/ns/serviceaccounts/bot/token");
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let mut request: Value = serde_json::from_slice(&body).unwrap();
                let seconds = lives.load(Ordering::Relaxed);
                let mut response = Response::builder();
                if seconds < 0 {
                    request = json!({"kind": "Status", "status": "Failure", "code": 500, "message": "not now"});
                    response = response.status(500);
                } else {
                    let number = asked.fetch_add(1, Ordering::Relaxed) + 1;
                    let expires = Timestamp::now() + SignedDuration::from_secs(seconds);
                    let uid = &request["spec"]["boundObjectRef"]["uid"];
                    let token = format!("token {number} of {}", uid.as_str().unwrap());
                    request["status"] = json!({"token": token, "expirationTimestamp": expires.to_string()});
                }
                Ok::<_, Infallible>(response.body(Full::new(Bytes::from(request.to_string()))).unwrap())
            }
        }))
    }

    #[tokio::test]
    async fn a_token_is_kept_while_it_is_good_and_replaced_before_it_expires() {
        let (lives, asked) = (Arc::new(AtomicI64::new(3600)), Arc::default());
        let tokens = Tokens::new(server(lives.clone(), asked));
        let pod = json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": {"serviceAccountName": "bot", "containers": []}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let wanted = |audience: &str| ServiceAccountTokenProjection {
            audience: Some(audience.into()),
            expiration_seconds: Some(3600),
            path: "token".into(),
        };
        let get = async |audience: &str| tokens.get(&pod, &wanted(audience)).await;
        assert_eq!(tokens.renewal(), None);
        assert_eq!(get("").await.unwrap(), "token 1 of u");
        assert_eq!(
            get("").await.unwrap(),
            "token 1 of u",
            "one that is good is not asked for again"
        );
        let renewal = tokens.renewal().unwrap().duration_since(Timestamp::now());
        assert!((2870..=2880).contains(&renewal.as_secs()), "{renewal:?}");

        // Another audience is another token, and this one lives no longer than it takes to ask for it.
        lives.store(0, Ordering::Relaxed);
        assert_eq!(get("vault").await.unwrap(), "token 2 of u");
        assert!(
            tokens.renewal().unwrap() <= Timestamp::now(),
            "the first to be renewed is what is waited for"
        );
        assert_eq!(get("vault").await.unwrap(), "token 3 of u");
        assert_eq!(get("").await.unwrap(), "token 1 of u");

        // The server does not answer: what is expired is no token, what is not is good for a while yet.
        lives.store(-1, Ordering::Relaxed);
        let failed = get("vault").await.unwrap_err();
        assert!(
            failed.starts_with("failed to fetch token: ") && failed.contains("not now"),
            "{failed}"
        );
        for token in tokens.held.lock().values_mut() {
            token.renew_at = Timestamp::UNIX_EPOCH;
        }
        assert_eq!(get("").await.unwrap(), "token 1 of u");
        let first = tokens.held.lock()[&(None, 3600)].renew_at;
        assert!(first > Timestamp::now(), "it is asked for again later");
    }

    #[test]
    fn tokens_are_renewed_in_time() {
        let now = Timestamp::UNIX_EPOCH;
        let after = |seconds| now + SignedDuration::from_secs(seconds);
        assert_eq!(renew_at(now, after(600)), after(480));
        assert_eq!(renew_at(now, after(30 * 86400)), after(86400));
        assert_eq!(renew_at(after(5), now), after(5));
    }
}
