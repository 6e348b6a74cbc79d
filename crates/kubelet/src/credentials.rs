//! Logins to registries, from the secrets that a pod names.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cri::v1::AuthConfig;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    username: String,
    password: String,
    auth: String,
    identitytoken: String,
    registrytoken: String,
}

/// The logins of a `.dockerconfigjson` (or, with `bare`, a `.dockercfg`) that are for an image's registry, the most specific first.
pub fn logins(config: &[u8], bare: bool, image: &str) -> Result<Vec<AuthConfig>, serde_json::Error> {
    let auths = if bare {
        serde_json::from_slice(config)?
    } else {
        serde_json::from_slice::<DockerConfig>(config)?.auths
    };
    let image = location(image);
    let mut fitting: Vec<(String, Entry)> = auths
        .into_iter()
        .map(|(key, entry)| (normal(&key), entry))
        .filter(|(key, _)| fits(key, &image))
        .collect();
    fitting.sort_by_key(|(key, _)| std::cmp::Reverse(key.len()));
    Ok(fitting.into_iter().map(|(key, entry)| auth(key, entry)).collect())
}

fn auth(server: String, entry: Entry) -> AuthConfig {
    let mut auth = AuthConfig {
        username: entry.username,
        password: entry.password,
        server_address: server,
        identity_token: entry.identitytoken,
        registry_token: entry.registrytoken,
        ..Default::default()
    };
    if auth.username.is_empty()
        && let Ok(decoded) = STANDARD.decode(entry.auth.trim())
        && let Ok(text) = String::from_utf8(decoded)
        && let Some((username, password)) = text.split_once(':')
    {
        auth.username = username.to_owned();
        auth.password = password.trim_end_matches('\0').to_owned();
    }
    auth
}

/// `host/path` of an image; Docker Hub's is unwritten.
fn location(image: &str) -> String {
    let name = image.split('@').next().unwrap_or(image);
    let (host, path) = match name.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (host, path.to_owned()),
        Some(_) => ("docker.io", name.to_owned()),
        None => ("docker.io", format!("library/{name}")),
    };
    let host = if host == "index.docker.io" { "docker.io" } else { host };
    let last = path.rfind('/').map_or(0, |at| at + 1);
    let end = path[last..].find(':').map_or(path.len(), |at| last + at);
    format!("{host}/{}", &path[..end])
}

/// `host[/path]` of a key, which may be a URL.
fn normal(key: &str) -> String {
    let key = key
        .trim_start_matches("https://")
        .trim_start_matches("http://")
        .trim_end_matches('/');
    let key = key.trim_end_matches("/v1").trim_end_matches("/v2");
    match key.strip_prefix("index.docker.io") {
        Some(rest) => format!("docker.io{rest}"),
        None => key.to_owned(),
    }
}

/// Each part of a host's name may be a `*`; a path is a prefix of whole parts.
fn fits(key: &str, image: &str) -> bool {
    let (key_host, key_path) = key.split_once('/').unwrap_or((key, ""));
    let (host, path) = image.split_once('/').unwrap_or((image, ""));
    let (key_parts, parts): (Vec<&str>, Vec<&str>) = (key_host.split('.').collect(), host.split('.').collect());
    let same_host = key_parts.len() == parts.len()
        && key_parts
            .iter()
            .zip(&parts)
            .all(|(key, part)| *key == "*" || key == part);
    let below = path
        .strip_prefix(key_path)
        .is_some_and(|rest| key_path.is_empty() || rest.is_empty() || rest.starts_with('/'));
    same_host && below
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;

    #[test]
    fn a_login_is_for_its_registry_only() {
        let config = br#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "aHViOnNlY3JldA=="},
            "registry.example:5000": {"username": "host", "password": "p"},
            "registry.example:5000/team": {"username": "team", "password": "p"},
            "*.wild.example": {"username": "wild", "password": "p"}
        }}"#;
        for (image, users) in [
            ("nginx", vec!["hub"]),
            ("docker.io/a/b:1", vec!["hub"]),
            ("registry.example:5000/other", vec!["host"]),
            ("registry.example:5000/team/app:1", vec!["team", "host"]),
            ("registry.example:5000/teams/app", vec!["host"]),
            ("a.wild.example/x", vec!["wild"]),
            ("a.b.wild.example/x", vec![]),
        ] {
            let found = logins(config, false, image).unwrap();
            assert_eq!(
                found.iter().map(|login| login.username.as_str()).collect::<Vec<_>>(),
                users,
                "{image}"
            );
        }
        assert_eq!(logins(config, false, "nginx").unwrap()[0].password, "secret");
    }
}
