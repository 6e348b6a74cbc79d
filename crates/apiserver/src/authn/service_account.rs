//! ServiceAccount tokens: JSON Web Tokens that this cluster's key signs (ES256) and checks.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
    },
};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// An object that a token names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reference {
    pub name: String,
    pub uid: String,
}

/// What Kubernetes says in a token beside the standard claims.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bound {
    pub namespace: String,
    pub serviceaccount: Reference,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    pub aud: Vec<String>,
    pub exp: i64,
    pub iat: i64,
    pub iss: String,
    #[serde(default)]
    pub jti: String,
    #[serde(rename = "kubernetes.io")]
    pub bound: Bound,
    pub nbf: i64,
    pub sub: String,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
}

/// The key can not sign.
#[derive(Debug, thiserror::Error)]
#[error("the ServiceAccount key sa.key can not be used: {0}")]
pub struct KeyError(String);

/// Signs and checks tokens.
pub(crate) struct TokenKey {
    key: EcdsaKeyPair,
    random: SystemRandom,
    /// The key's name, by which others find it among the cluster's keys.
    kid: String,
    header: String,
    /// Who issues the tokens, and for whom they are when nobody else is named.
    pub issuer: String,
}

impl TokenKey {
    pub fn from_pem(pem: &str, cluster_domain: &str) -> Result<Self, KeyError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| KeyError(error.to_string()))?;
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der(), &random)
            .map_err(|error| KeyError(error.to_string()))?;
        let kid = BASE64_URL_SAFE_NO_PAD.encode(ring::digest::digest(&ring::digest::SHA256, key.public_key().as_ref()));
        let header = BASE64_URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"ES256","kid":"{kid}"}}"#));
        Ok(Self {
            key,
            random,
            kid,
            header,
            issuer: format!("https://kubernetes.default.svc.{cluster_domain}"),
        })
    }

    /// A signed token.
    pub fn sign(&self, claims: &Claims) -> Result<String, KeyError> {
        let claims = serde_json::to_vec(claims).map_err(|error| KeyError(error.to_string()))?;
        let mut token = format!("{}.{}", self.header, BASE64_URL_SAFE_NO_PAD.encode(claims));
        let signature = self
            .key
            .sign(&self.random, token.as_bytes())
            .map_err(|error| KeyError(error.to_string()))?;
        token.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    /// Where others find the keys, and what they need to know to check tokens: OpenID Connect's discovery.
    pub fn configuration(&self, keys: &str) -> Value {
        json!({
            "issuer": self.issuer,
            "jwks_uri": keys,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }

    /// The public keys with which tokens are checked, as a JSON Web Key Set.
    pub fn keys(&self) -> Value {
        // A point of the curve without compression: a byte that says so, and two numbers of 32 bytes.
        let point = self.key.public_key().as_ref();
        let number = |at: std::ops::Range<usize>| BASE64_URL_SAFE_NO_PAD.encode(point.get(at).unwrap_or_default());
        json!({"keys": [{
            "use": "sig",
            "kty": "EC",
            "kid": self.kid,
            "crv": "P-256",
            "alg": "ES256",
            "x": number(1..33),
            "y": number(33..65),
        }]})
    }

    /// What a token says, when this cluster signed it for one of the audiences and `now` lies in its time.
    pub fn verify(&self, token: &str, audiences: &[String], now: i64) -> Option<Claims> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let header: Header = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
        if header.alg != "ES256" {
            return None;
        }
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key())
            .verify(signed.as_bytes(), &signature)
            .ok()?;
        let claims: Claims = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        let good = claims.iss == self.issuer
            && audiences.iter().any(|audience| claims.aud.contains(audience))
            && (claims.nbf..claims.exp).contains(&now)
            && claims.sub
                == format!(
                    "system:serviceaccount:{}:{}",
                    claims.bound.namespace, claims.bound.serviceaccount.name
                );
        good.then_some(claims)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test fails by panicking.
    use super::*;

    fn key() -> TokenKey {
        TokenKey::from_pem(&rcgen::KeyPair::generate().unwrap().serialize_pem(), "cluster.local").unwrap()
    }

    impl TokenKey {
        fn verify_own(&self, token: &str, now: i64) -> Option<Claims> {
            self.verify(token, std::slice::from_ref(&self.issuer), now)
        }
    }

    #[test]
    fn others_can_check_tokens_with_the_published_key() {
        let key = key();
        let token = key.sign(&claims(&key)).unwrap();
        let published = key.keys()["keys"][0].clone();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let decode = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).unwrap();
        let header: Value = serde_json::from_slice(&decode(signed.split('.').next().unwrap())).unwrap();
        assert_eq!(header["kid"], published["kid"]);
        let number = |name: &str| decode(published[name].as_str().unwrap());
        let point = [vec![4], number("x"), number("y")].concat();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
            .verify(signed.as_bytes(), &decode(signature))
            .unwrap();
        assert_eq!(key.configuration("https://k")["issuer"], key.issuer);
    }

    fn claims(key: &TokenKey) -> Claims {
        Claims {
            aud: vec![key.issuer.clone()],
            exp: 2000,
            iat: 1000,
            iss: key.issuer.clone(),
            jti: "one".into(),
            bound: Bound {
                namespace: "a".into(),
                serviceaccount: Reference {
                    name: "default".into(),
                    uid: "u".into(),
                },
                pod: None,
                node: None,
                secret: None,
            },
            nbf: 1000,
            sub: "system:serviceaccount:a:default".into(),
        }
    }

    #[test]
    fn only_this_clusters_tokens_in_their_time_are_good() {
        let key = key();
        let good = claims(&key);
        let token = key.sign(&good).unwrap();
        assert_eq!(key.verify_own(&token, 1500), Some(good.clone()));
        assert_eq!(key.verify_own(&token, 999), None, "not yet");
        assert_eq!(key.verify_own(&token, 2000), None, "over");
        assert_eq!(self::key().verify_own(&token, 1500), None, "another cluster's");
        let for_others = Claims {
            aud: vec!["vault".into()],
            ..good.clone()
        };
        let for_others = key.sign(&for_others).unwrap();
        assert_eq!(key.verify_own(&for_others, 1500), None);
        assert!(key.verify(&for_others, &["vault".into()], 1500).is_some());
        let for_another = Claims {
            sub: "system:serviceaccount:a:admin".into(),
            ..good
        };
        assert_eq!(key.verify_own(&key.sign(&for_another).unwrap(), 1500), None);
        let (rest, _) = token.rsplit_once('.').unwrap();
        for broken in [rest, "", ".", "a.b.c", &format!("{rest}."), &token[1..]] {
            assert_eq!(key.verify_own(broken, 1500), None, "{broken}");
        }
        let unsigned = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        assert_eq!(
            key.verify_own(&format!("{unsigned}.{}.", token.split('.').nth(1).unwrap()), 1500),
            None
        );
    }
}
