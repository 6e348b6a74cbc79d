//! Commands about the cluster and the way to it: version, api-resources, cluster-info, config.

use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::connection::{Ask, Connection, kubeconfig};
use crate::failure::{Failure, Result};
use crate::flags::{ApiResources, ConfigCommand, Global, Version};
use crate::mapping::{Kind, Mapping};
use crate::output;
use crate::print::Format;
use crate::print::columns::Columns;
use crate::terminal::is_terminal;

/// The Kubernetes version that this kubectl speaks.
pub const VERSION: &str = "v1.36.0";

/// What a program says of how it was built.
#[derive(Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Build {
    major: String,
    minor: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    emulation_major: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    emulation_minor: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    min_compatibility_major: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    min_compatibility_minor: String,
    git_version: String,
    git_commit: String,
    git_tree_state: String,
    build_date: String,
    go_version: String,
    compiler: String,
    platform: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Versions {
    client_version: Build,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_version: Option<Build>,
}

async fn server_build(global: &Global) -> Result<Build> {
    let version = Connection::open(global).await?.get("/version").await?;
    serde_json::from_value(version).map_err(|error| Failure::message(format!("/version: {error}")))
}

/// `kubectl version`.
pub async fn version(global: &Global, version: &Version) -> Result<()> {
    let client = Build {
        major: "1".into(),
        minor: "36".into(),
        git_version: VERSION.into(),
        compiler: "rustc".into(),
        platform: format!("linux/{}", architecture()),
        ..Build::default()
    };
    let mut failure = None;
    let mut server_version = None;
    let mut lines = format!("Client Version: {VERSION}\n");
    if !version.client {
        match server_build(global).await {
            Ok(server) => {
                lines += &format!(
                    "Server Version: {}
",
                    server.git_version
                );
                server_version = Some(server);
            }
            Err(error) => failure = Some(error),
        }
    }
    let both = Versions {
        client_version: client,
        server_version,
    };
    let mistake = |error: serde_json::Error| Failure::message(error.to_string());
    match version.output.as_deref() {
        None => output(&lines)?,
        // In the order of the fields and by two spaces, unlike every object.
        Some("json") => output(&(serde_json::to_string_pretty(&both).map_err(mistake)? + "\n"))?,
        Some("yaml") => output(&Format::Yaml.print(&serde_json::to_value(&both).map_err(mistake)?, true))?,
        Some(_) => return Err(Failure::message("--output must be 'yaml' or 'json'")),
    }
    failure.map_or(Ok(()), Err)
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// `kubectl api-resources`.
pub async fn api_resources(connection: &Connection, flags: &ApiResources) -> Result<()> {
    let wide = match flags.output.as_deref() {
        None | Some("") => false,
        Some("wide") => true,
        Some("name") => false,
        Some(other) => return Err(Failure::message(format!("--output {other} is not available"))),
    };
    let mapping = Mapping::default();
    let has_all = |wanted: &[String], of: &[String]| wanted.iter().all(|item| of.contains(item));
    let mut kinds: Vec<&Kind> = mapping
        .served(connection)
        .await?
        .iter()
        .filter(|kind| !kind.verbs.is_empty())
        .filter(|kind| flags.api_group.as_deref().is_none_or(|group| kind.group == group))
        .filter(|kind| flags.namespaced.is_none_or(|namespaced| kind.namespaced == namespaced))
        .filter(|kind| has_all(&flags.verbs, &kind.verbs) && has_all(&flags.categories, &kind.categories))
        .collect();
    kinds.sort_by(|a, b| (&a.group, &a.plural).cmp(&(&b.group, &b.plural)));
    if flags.output.as_deref() == Some("name") {
        let names: Vec<_> = kinds.iter().map(|kind| kind.group_resource()).collect();
        return output(&names.iter().map(|name| format!("{name}\n")).collect::<String>());
    }
    let mut lines = Vec::new();
    if !flags.no_headers {
        let mut headers = vec!["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"];
        if wide {
            headers.extend(["VERBS", "CATEGORIES"]);
        }
        lines.push(headers.into_iter().map(str::to_owned).collect());
    }
    for kind in kinds {
        let mut line = vec![
            kind.plural.clone(),
            kind.short_names.join(","),
            kind.api_version(),
            kind.namespaced.to_string(),
            kind.kind.clone(),
        ];
        if wide {
            line.extend([kind.verbs.join(","), kind.categories.join(",")]);
        }
        lines.push(line);
    }
    output(&Columns::default().align(&lines))
}

/// `kubectl cluster-info`.
pub async fn info(connection: &Connection) -> Result<()> {
    let selector = "?labelSelector=kubernetes.io%2Fcluster-service%3Dtrue";
    let path = format!("/api/v1/namespaces/kube-system/services{selector}");
    let services = connection.json(Method::GET, &path, Ask::default()).await?;
    let server = connection.server.trim_end_matches('/');
    let colours = is_terminal(std::io::stdout());
    let line = |what: &str, url: &str| {
        if colours {
            format!("\x1b[0;32m{what}\x1b[0m is running at \x1b[0;33m{url}\x1b[0m\n")
        } else {
            format!("{what} is running at {url}\n")
        }
    };
    let mut text = line("Kubernetes control plane", server);
    for service in services["items"].as_array().into_iter().flatten() {
        let metadata = &service["metadata"];
        let name = metadata["name"].as_str().unwrap_or_default();
        let shown = metadata["labels"]["kubernetes.io/name"].as_str().unwrap_or(name);
        let port = service["spec"]["ports"][0]["name"].as_str().unwrap_or_default();
        let port = if port.is_empty() {
            String::new()
        } else {
            format!(":{port}")
        };
        let url = format!("{server}/api/v1/namespaces/kube-system/services/{name}{port}/proxy");
        text += &line(shown, &url);
    }
    text += "\nTo further debug and diagnose cluster problems, use 'kubectl cluster-info dump'.\n";
    output(&text)
}

/// `kubectl config`.
pub fn config(global: &Global, command: &ConfigCommand) -> Result<()> {
    let file = kubeconfig(global)?;
    match command {
        ConfigCommand::CurrentContext => match file.current_context {
            Some(context) if !context.is_empty() => output(&format!("{context}\n")),
            _ => Err(Failure::message("current-context is not set")),
        },
        ConfigCommand::View {
            raw,
            minify,
            output: format,
        } => {
            let format = match format.as_deref() {
                None => Format::Yaml,
                other => Format::parse(other)?,
            };
            let value =
                serde_json::to_value(&file).map_err(|error| Failure::message(format!("kubeconfig: {error}")))?;
            output(&format.print(&view(value, *raw, *minify), true))
        }
    }
}

/// The kubeconfig as it is shown: secrets covered up, and at will only what the current context uses.
fn view(mut config: Value, raw: bool, minify: bool) -> Value {
    for key in ["apiVersion", "kind"] {
        if config[key].as_str().is_none() {
            config[key] = if key == "kind" { "Config".into() } else { "v1".into() };
        }
    }
    if minify {
        let current = config["current-context"].clone();
        let context = config["contexts"]
            .as_array()
            .and_then(|contexts| contexts.iter().find(|context| context["name"] == current))
            .cloned()
            .unwrap_or_default();
        let keep = |list: &mut Value, name: &Value| {
            if let Some(list) = list.as_array_mut() {
                list.retain(|entry| entry["name"] == *name);
            }
        };
        keep(&mut config["contexts"], &current);
        keep(&mut config["clusters"], &context["context"]["cluster"]);
        keep(&mut config["users"], &context["context"]["user"]);
    }
    if !raw {
        for (list, inner, fields) in [
            (
                "clusters",
                "cluster",
                &[("certificate-authority-data", "DATA+OMITTED")][..],
            ),
            (
                "users",
                "user",
                &[
                    ("client-certificate-data", "DATA+OMITTED"),
                    ("client-key-data", "DATA+OMITTED"),
                    ("token", "REDACTED"),
                    ("password", "REDACTED"),
                ][..],
            ),
        ] {
            for entry in config[list].as_array_mut().into_iter().flatten() {
                for (field, covered) in fields {
                    if entry[inner].get(*field).is_some_and(Value::is_string) {
                        entry[inner][*field] = (*covered).into();
                    }
                }
            }
        }
    }
    without_nulls(&mut config);
    for list in ["clusters", "contexts", "users"] {
        if config[list].as_array().is_none_or(Vec::is_empty) {
            config[list] = Value::Null;
        }
    }
    if config["current-context"].is_null() {
        config["current-context"] = "".into();
    }
    config
}

fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn secrets_are_covered() {
        let config = json!({
            "current-context": "a", "preferences": null,
            "contexts": [{"name": "a", "context": {"cluster": "c", "user": "u"}}, {"name": "b", "context": {}}],
            "clusters": [{"name": "c", "cluster": {"server": "https://x", "certificate-authority-data": "Zm9v"}}, {"name": "d", "cluster": {}}],
            "users": [{"name": "u", "user": {"client-key-data": "c2VjcmV0", "token": "t"}}],
        });
        let shown = view(config.clone(), false, true);
        assert_eq!(
            shown["clusters"],
            json!([{"name": "c", "cluster": {"server": "https://x", "certificate-authority-data": "DATA+OMITTED"}}])
        );
        assert_eq!(
            shown["users"][0]["user"],
            json!({"client-key-data": "DATA+OMITTED", "token": "REDACTED"})
        );
        assert_eq!(shown["contexts"].as_array().map(Vec::len), Some(1));
        assert_eq!(shown["kind"], "Config");
        let raw = view(config, true, false);
        assert_eq!(raw["users"][0]["user"]["token"], "t");
        assert_eq!(raw["clusters"].as_array().map(Vec::len), Some(2));
    }
}
