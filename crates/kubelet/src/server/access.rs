//! Who asks, and whether they may.
//!
//! A caller is known by a certificate of the cluster's CA, or by a bearer token, for which the API server is asked (TokenReview). Whether a
//! known caller may is the API server's to say too (SubjectAccessReview on the node's subresources); its answers hold for a while. What
//! paths need is fine-grained, as upstream since v1.36: who may `nodes/pods` may `/pods`, and so may who may `nodes/proxy`.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::time::Duration;

use client::Client;
use client::kube::Api;
use client::kube::api::PostParams;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::configuration::{AuthorizationMode, KubeletConfiguration};

/// The group that may do everything, whoever is asked.
const MASTERS: &str = "system:masters";
const AUTHENTICATED: &str = "system:authenticated";
const UNAUTHENTICATED: &str = "system:unauthenticated";
/// So many answers are remembered.
const REMEMBERED: usize = 4096;

/// Whom a credential names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Caller {
    pub(super) user: String,
    pub(super) uid: String,
    pub(super) groups: Vec<String>,
    pub(super) extra: BTreeMap<String, Vec<String>>,
}

impl Caller {
    fn new(user: String, groups: Vec<String>) -> Self {
        Self {
            user,
            uid: String::new(),
            groups,
            extra: BTreeMap::new(),
        }
    }

    /// Reads the subject of a certificate (DER) that TLS has verified.
    pub(super) fn of(certificate: &[u8]) -> Option<Caller> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let subject = certificate.subject();
        let user = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
        let groups = subject.iter_organization().filter_map(|name| name.as_str().ok());
        Some(Self::new(
            user,
            groups.chain([AUTHENTICATED]).map(str::to_owned).collect(),
        ))
    }

    fn anonymous() -> Self {
        Self::new("system:anonymous".into(), vec![UNAUTHENTICATED.into()])
    }
}

/// The verb of authorization for a method of HTTP.
fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}

/// The subresources of `nodes` of which one is needed for a path.
fn subresources(path: &str) -> &'static [&'static str] {
    let below = |root: &str| {
        path.strip_prefix(root)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    match () {
        () if below("/stats") => &["stats"],
        () if below("/metrics") => &["metrics"],
        () if below("/logs") => &["log"],
        () if below("/checkpoint") => &["checkpoint"],
        () if below("/pods") || below("/runningpods") => &["pods", "proxy"],
        () if below("/healthz") => &["healthz", "proxy"],
        () if below("/configz") => &["configz", "proxy"],
        () => &["proxy"],
    }
}

/// Answers that hold for a while.
struct Remembered<K, V>(Mutex<HashMap<K, (Instant, V)>>);

impl<K: Hash + Eq, V: Clone> Remembered<K, V> {
    fn new() -> Self {
        Self(Mutex::default())
    }

    fn get(&self, key: &K) -> Option<V> {
        let found = self.0.lock().get(key).cloned();
        found
            .filter(|(until, _)| *until > Instant::now())
            .map(|(_, value)| value)
    }

    fn put(&self, key: K, value: V, holds: Duration) {
        let mut all = self.0.lock();
        if all.len() >= REMEMBERED {
            let now = Instant::now();
            all.retain(|_, (until, _)| *until > now);
        }
        if all.len() < REMEMBERED {
            all.insert(key, (Instant::now() + holds, value));
        }
    }
}

/// Why a request is not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Nobody is known to ask.
    Unauthorized,
    /// They may not.
    Forbidden(String),
    /// The API server did not say.
    Unknown(String),
}

/// What decides.
pub struct Access {
    client: Client,
    node_name: String,
    configuration: KubeletConfiguration,
    tokens: Remembered<[u8; 32], Option<Caller>>,
    verdicts: Remembered<(Caller, &'static str, &'static str), bool>,
}

impl Access {
    /// Asks the API server with `client`, about the node of that name.
    pub fn new(client: Client, node_name: &str, configuration: &KubeletConfiguration) -> Self {
        Self {
            client,
            node_name: node_name.to_owned(),
            configuration: configuration.clone(),
            tokens: Remembered::new(),
            verdicts: Remembered::new(),
        }
    }

    /// Whether a request is to be answered. `certified` is whom the client's certificate names.
    pub(super) async fn check(
        &self,
        certified: Option<&Caller>,
        headers: &HeaderMap,
        method: &Method,
        path: &str,
    ) -> Result<(), Refusal> {
        let caller = match certified {
            Some(caller) => caller.clone(),
            None => self.identify(headers).await?,
        };
        self.authorize(&caller, method, path).await
    }

    async fn identify(&self, headers: &HeaderMap) -> Result<Caller, Refusal> {
        let authentication = &self.configuration.authentication;
        let token = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
            .map(str::trim)
            .filter(|token| !token.is_empty());
        match token {
            Some(token) if authentication.webhook.enabled => self.review(token).await?.ok_or(Refusal::Unauthorized),
            None if authentication.anonymous.enabled => Ok(Caller::anonymous()),
            _ => Err(Refusal::Unauthorized),
        }
    }

    async fn review(&self, token: &str) -> Result<Option<Caller>, Refusal> {
        let key: [u8; 32] = Sha256::digest(token).into();
        if let Some(known) = self.tokens.get(&key) {
            return Ok(known);
        }
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: token.to_owned(),
                audiences: None,
            },
            ..Default::default()
        };
        let api = Api::<TokenReview>::all(self.client.clone());
        let answer = api.create(&PostParams::default(), &review).await;
        let status = answer
            .map_err(|error| Refusal::Unknown(error.to_string()))?
            .status
            .unwrap_or_default();
        let user = status.user.filter(|_| status.authenticated == Some(true));
        let caller = user.map(|user| Caller {
            user: user.username.unwrap_or_default(),
            uid: user.uid.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default(),
        });
        let holds = self.configuration.authentication.webhook.cache_ttl.0;
        self.tokens.put(key, caller.clone(), holds);
        Ok(caller)
    }

    async fn authorize(&self, caller: &Caller, method: &Method, path: &str) -> Result<(), Refusal> {
        let masters = caller.groups.iter().any(|group| group == MASTERS);
        if masters || self.configuration.authorization.mode == AuthorizationMode::AlwaysAllow {
            return Ok(());
        }
        let (verb, subresources) = (verb(method), subresources(path));
        for subresource in subresources {
            if self.may(caller, verb, subresource).await? {
                return Ok(());
            }
        }
        Err(Refusal::Forbidden(format!(
            "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{}])\n",
            caller.user,
            subresources.join(" ")
        )))
    }

    async fn may(&self, caller: &Caller, verb: &'static str, subresource: &'static str) -> Result<bool, Refusal> {
        let key = (caller.clone(), verb, subresource);
        if let Some(known) = self.verdicts.get(&key) {
            return Ok(known);
        }
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: some(&caller.user),
                uid: some(&caller.uid),
                groups: Some(caller.groups.clone()),
                extra: Some(caller.extra.clone()).filter(|extra| !extra.is_empty()),
                resource_attributes: Some(ResourceAttributes {
                    verb: some(verb),
                    version: some("v1"),
                    resource: some("nodes"),
                    subresource: some(subresource),
                    name: some(&self.node_name),
                    ..Default::default()
                }),
                ..Default::default()
            },
            ..Default::default()
        };
        let api = Api::<SubjectAccessReview>::all(self.client.clone());
        let answer = api.create(&PostParams::default(), &review).await.map_err(|error| {
            let user = &caller.user;
            tracing::warn!(%error, %user, "the API server does not say what may be asked of this node");
            Refusal::Unknown(format!(
                "Authorization error (user={user}, verb={verb}, resource=nodes, subresource={subresource})"
            ))
        })?;
        let allowed = answer.status.is_some_and(|status| status.allowed);
        let webhook = &self.configuration.authorization.webhook;
        let holds = match allowed {
            true => webhook.cache_authorized_ttl,
            false => webhook.cache_unauthorized_ttl,
        };
        self.verdicts.put(key, allowed, holds.0);
        Ok(allowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_paths_need() {
        for (path, needed) in [
            ("/stats/summary", &["stats"][..]),
            ("/metrics", &["metrics"]),
            ("/metrics/cadvisor", &["metrics"]),
            ("/metricsx", &["proxy"]),
            ("/logs/x", &["log"]),
            ("/pods", &["pods", "proxy"]),
            ("/runningpods/", &["pods", "proxy"]),
            ("/healthz/ping", &["healthz", "proxy"]),
            ("/configz", &["configz", "proxy"]),
            ("/exec/ns/p/c", &["proxy"]),
            ("/containerLogs/ns/p/c", &["proxy"]),
        ] {
            assert_eq!(subresources(path), needed, "{path}");
        }
        assert_eq!(
            [Method::GET, Method::HEAD, Method::POST].map(|method| verb(&method)),
            ["get", "get", "create"]
        );
    }
}
