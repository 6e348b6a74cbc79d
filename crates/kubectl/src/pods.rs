//! What logs and exec ask of a pod: which one is meant, and which of its containers.

use serde_json::Value;

use crate::connection::Connection;
use crate::failure::{Failure, Result};
use crate::fetch::Query;
use crate::mapping::Mapping;
use crate::selection::Target;

/// Which container is meant when several are there and none is named.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// The pod that `NAME` or `pod/NAME` means.
pub async fn find(connection: &Connection, target: &str) -> Result<Value> {
    let name = match target.split_once('/') {
        None => target,
        Some((resource, name)) => {
            let kind = Mapping::default().resource(connection, resource).await?;
            if kind.group_resource() != "pods" {
                return Err(Failure::message(format!(
                    "cannot attach to *{}.{}: selector for {} not implemented",
                    kind.version, kind.kind, kind.kind
                )));
            }
            name
        }
    };
    let pods = Mapping::default().resource(connection, "pods").await?;
    let target = Target {
        kind: pods,
        name: Some(name.to_owned()),
        namespace: None,
        source: None,
    };
    connection.fetch(&target, &Query::default()).await
}

/// Containers in the order they start: init, then the pod's own, then ephemeral ones.
pub fn containers(pod: &Value) -> Vec<&str> {
    ["initContainers", "containers", "ephemeralContainers"]
        .iter()
        .flat_map(|list| pod["spec"][list].as_array().into_iter().flatten())
        .filter_map(|container| container["name"].as_str())
        .collect()
}

/// The container to use; says on standard error which it took when nobody said.
pub fn container<'a>(pod: &'a Value, asked: Option<&'a str>, quiet: bool) -> Result<&'a str> {
    let all = containers(pod);
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    if let Some(asked) = asked {
        return if all.contains(&asked) {
            Ok(asked)
        } else {
            Err(Failure::message(format!(
                "container {asked} is not valid for pod {name}"
            )))
        };
    }
    let preferred = pod["metadata"]["annotations"][DEFAULT_CONTAINER].as_str();
    if let Some(preferred) = preferred.filter(|preferred| all.contains(preferred)) {
        return Ok(preferred);
    }
    let Some(first) = pod["spec"]["containers"][0]["name"].as_str() else {
        return Err(Failure::message(format!("pod {name} has no containers")));
    };
    if all.len() > 1 && !quiet {
        eprintln!("Defaulted container {first:?} out of: {}", described(pod).join(", "));
    }
    Ok(first)
}

/// The names of all containers, those that are not the pod's own marked.
fn described(pod: &Value) -> Vec<String> {
    [
        ("containers", ""),
        ("initContainers", " (init)"),
        ("ephemeralContainers", " (ephem)"),
    ]
    .iter()
    .flat_map(|(list, mark)| {
        let all = pod["spec"][list].as_array().into_iter().flatten();
        all.filter_map(move |container| Some(format!("{}{mark}", container["name"].as_str()?)))
    })
    .collect()
}
