//! How to reach registries: `registries.yaml`, read anew for every pull, so that a change needs no restart.
//!
//! ```yaml
//! # Where to ask for the images of a registry, in order, before the registry itself. An http:// endpoint
//! # is asked without TLS; the registry's own address may be listed to ask it so.
//! mirrors:
//!   docker.io:
//!     endpoint: ["https://mirror.example:5000"]
//!   plain.example:5000:
//!     endpoint: ["http://plain.example:5000"]
//! # How to talk to a host, be it registry or mirror.
//! configs:
//!   mirror.example:5000:
//!     auth: {username: ada, password: secret}   # or {token: …}
//!     tls: {caFile: /etc/ssl/mirror.pem}        # or {insecureSkipVerify: true}
//! ```
//!
//! A registry on this machine's loopback is asked with TLS and, if it does not speak that, without.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use oci_client::secrets::RegistryAuth;
use serde::Deserialize;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Registries {
    mirrors: BTreeMap<String, Mirror>,
    configs: BTreeMap<String, HostConfig>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Mirror {
    endpoint: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct HostConfig {
    auth: Option<Auth>,
    tls: Tls,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Auth {
    username: String,
    password: String,
    token: String,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Tls {
    pub ca_file: Option<PathBuf>,
    pub insecure_skip_verify: bool,
}

/// One place to ask for an image.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Endpoint {
    /// Host and port.
    pub host: String,
    /// Without TLS.
    pub plain: bool,
    pub tls: Tls,
    pub auth: RegistryAuth,
    /// Not the registry of the image's name, so the credentials of the request are not for it.
    pub mirror: bool,
}

impl Registries {
    /// The file's settings; none when there is no file.
    pub fn load(file: &Path) -> Result<Self, String> {
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(format!("{}: {error}", file.display())),
        };
        Self::parse(&text).map_err(|reason| format!("{}: {reason}", file.display()))
    }

    fn parse(text: &str) -> Result<Self, String> {
        if text.lines().all(|line| {
            let line = line.trim();
            line.is_empty() || line.starts_with('#')
        }) {
            return Ok(Self::default());
        }
        let registries: Self = serde_yaml_ng::from_str(text).map_err(|error| error.to_string())?;
        for (registry, mirror) in &registries.mirrors {
            for endpoint in &mirror.endpoint {
                parse_endpoint(endpoint).map_err(|reason| format!("mirrors.{registry}.endpoint: {reason}"))?;
            }
        }
        Ok(registries)
    }

    /// Where to ask for an image of the registry, in order. `auth` came with the request.
    pub fn endpoints(&self, registry: &str, auth: &RegistryAuth) -> Vec<Endpoint> {
        let own = address(registry);
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for endpoint in self
            .mirrors
            .get(registry)
            .into_iter()
            .flat_map(|mirror| &mirror.endpoint)
        {
            if let Ok((host, plain)) = parse_endpoint(endpoint) {
                endpoints.push(self.endpoint(host, plain, own, auth));
            }
        }
        if endpoints.iter().all(|endpoint| endpoint.mirror) {
            endpoints.push(self.endpoint(own, false, own, auth));
            if is_loopback(own) {
                endpoints.push(self.endpoint(own, true, own, auth));
            }
        }
        endpoints
    }

    fn endpoint(&self, host: &str, plain: bool, own: &str, auth: &RegistryAuth) -> Endpoint {
        let config = self.configs.get(host);
        let mirror = host != own;
        let auth = if mirror || *auth == RegistryAuth::Anonymous {
            config
                .and_then(|config| config.auth.as_ref())
                .map_or(RegistryAuth::Anonymous, |auth| {
                    if auth.token.is_empty() {
                        RegistryAuth::Basic(auth.username.clone(), auth.password.clone())
                    } else {
                        RegistryAuth::Bearer(auth.token.clone())
                    }
                })
        } else {
            auth.clone()
        };
        Endpoint {
            host: host.to_owned(),
            plain,
            tls: config.map(|config| config.tls.clone()).unwrap_or_default(),
            auth,
            mirror,
        }
    }
}

/// The host that serves a registry's images, where that is not its name.
fn address(registry: &str) -> &str {
    match registry {
        "docker.io" => "index.docker.io",
        other => other,
    }
}

/// Host and whether to do without TLS.
fn parse_endpoint(endpoint: &str) -> Result<(&str, bool), String> {
    let (plain, rest) = if let Some(rest) = endpoint.strip_prefix("http://") {
        (true, rest)
    } else if let Some(rest) = endpoint.strip_prefix("https://") {
        (false, rest)
    } else {
        return Err(format!("{endpoint:?} must begin with http:// or https://"));
    };
    let host = rest.trim_end_matches('/');
    if host.is_empty() || host.contains(['/', '?', '#', '@']) {
        return Err(format!("{endpoint:?} must be a scheme, a host and at most a port"));
    }
    Ok((host, plain))
}

fn is_loopback(host: &str) -> bool {
    let name = if let Some(rest) = host.strip_prefix('[') {
        rest.split(']').next().unwrap_or_default()
    } else {
        host.rsplit_once(':').map_or(host, |(name, _)| name)
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test fails by panicking
mod tests {
    use super::*;

    const FILE: &str = r#"
mirrors:
  docker.io:
    endpoint: ["https://mirror.example:5000", "http://other.example"]
  plain.example:5000:
    endpoint: ["http://plain.example:5000/"]
configs:
  mirror.example:5000:
    auth: {username: ada, password: secret}
    tls: {caFile: /ca.pem}
"#;

    fn asked(file: &str, registry: &str, auth: &RegistryAuth) -> Vec<(String, bool, RegistryAuth)> {
        Registries::parse(file)
            .unwrap()
            .endpoints(registry, auth)
            .into_iter()
            .map(|endpoint| (endpoint.host, endpoint.plain, endpoint.auth))
            .collect()
    }

    #[test]
    fn where_to_ask() {
        let none = RegistryAuth::Anonymous;
        let own = RegistryAuth::Basic("me".into(), "mine".into());
        let ada = RegistryAuth::Basic("ada".into(), "secret".into());
        let hub = "index.docker.io".to_owned();
        for (file, registry, auth, endpoints) in [
            ("", "docker.io", &none, vec![(hub.clone(), false, none.clone())]),
            (
                "# nothing\n",
                "r.io",
                &own,
                vec![("r.io".to_owned(), false, own.clone())],
            ),
            (
                "",
                "127.0.0.1:5000",
                &own,
                vec![
                    ("127.0.0.1:5000".into(), false, own.clone()),
                    ("127.0.0.1:5000".into(), true, own.clone()),
                ],
            ),
            (
                FILE,
                "docker.io",
                &own,
                vec![
                    ("mirror.example:5000".into(), false, ada),
                    ("other.example".into(), true, none.clone()),
                    (hub, false, own.clone()),
                ],
            ),
            (
                FILE,
                "plain.example:5000",
                &own,
                vec![("plain.example:5000".into(), true, own.clone())],
            ),
        ] {
            assert_eq!(asked(file, registry, auth), endpoints, "{registry}");
        }
    }

    #[test]
    fn loopback() {
        for (host, expected) in [
            ("localhost:5000", true),
            ("127.0.0.1", true),
            ("127.8.9.1:80", true),
            ("[::1]:5000", true),
            ("10.0.0.1:5000", false),
            ("localhost.example", false),
        ] {
            assert_eq!(is_loopback(host), expected, "{host}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (file, reason) in [
            ("mirror: {}", "unknown field `mirror`"),
            (
                "mirrors: {r.io: {endpoint: [r.io]}}",
                r#"mirrors.r.io.endpoint: "r.io" must begin with http:// or https://"#,
            ),
            (
                "mirrors: {r.io: {endpoint: ['https://r.io/v2']}}",
                "must be a scheme, a host and at most a port",
            ),
            ("configs: {r.io: {tls: {caFile: [1]}}}", "configs.r.io.tls.caFile"),
        ] {
            let error = Registries::parse(file).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
