//! Who asks: by client certificate, by a token that never changes, or by a ServiceAccount's token.

pub(crate) mod service_account;

use std::{collections::HashMap, sync::Arc};

use http::{HeaderMap, header};
use rustls::{
    pki_types::{CertificateDer, UnixTime},
    server::danger::ClientCertVerifier,
};
use sha2::{Digest as _, Sha256};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use crate::{Identity, StaticToken};
use service_account::TokenKey;

/// A credential was given, and it proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rejected;

/// What a connection's client certificate says, found once for each connection.
pub(crate) type Peer = Result<Option<Identity>, Rejected>;

/// Turns credentials into identities.
pub(crate) struct Authenticator {
    verifier: Arc<dyn ClientCertVerifier>,
    /// By digest, so that a lookup's time tells nothing of how close a guess is.
    tokens: HashMap<[u8; 32], Identity>,
    pub service_accounts: TokenKey,
}

/// What the Authorization header holds.
pub(crate) enum Bearer<'a> {
    /// No bearer token.
    None,
    /// A token that never changes.
    Known(Identity),
    /// A token to be checked as a ServiceAccount's.
    Other(&'a str),
}

impl Authenticator {
    pub fn new(verifier: Arc<dyn ClientCertVerifier>, tokens: &[StaticToken], service_accounts: TokenKey) -> Self {
        let tokens = tokens
            .iter()
            .map(|known| (digest(&known.token), known.identity.clone()))
            .collect();
        Self {
            verifier,
            tokens,
            service_accounts,
        }
    }

    /// The identity of a connection's client certificate: its common name, and its organizations as groups.
    pub fn peer(&self, chain: Option<&[CertificateDer<'_>]>) -> Peer {
        let Some([certificate, intermediates @ ..]) = chain else {
            return Ok(None);
        };
        self.verifier
            .verify_client_cert(certificate, intermediates, UnixTime::now())
            .map_err(|_| Rejected)?;
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| Rejected)?;
        let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| attribute.as_str().ok().map(String::from);
        let user = parsed
            .subject()
            .iter_common_name()
            .next()
            .and_then(text)
            .ok_or(Rejected)?;
        let groups: Vec<String> = parsed.subject().iter_organization().filter_map(text).collect();
        Ok(Some(Identity::authenticated(&user, groups)))
    }

    /// The bearer token of a request.
    pub fn bearer<'a>(&self, headers: &'a HeaderMap) -> Bearer<'a> {
        let token = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .filter(|token| !token.is_empty());
        match token {
            None => Bearer::None,
            Some(token) => self.known(token).map_or(Bearer::Other(token), Bearer::Known),
        }
    }

    /// Who a token that never changes stands for.
    pub fn known(&self, token: &str) -> Option<Identity> {
        self.tokens.get(&digest(token)).cloned()
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}
