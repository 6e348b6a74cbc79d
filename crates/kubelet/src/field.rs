//! The downward API: fields of a pod and resources of its containers, as text.

use k8s_openapi::api::core::v1::{Pod, ResourceFieldSelector};

use crate::cri_config::resources;
use crate::pods::pod::PodExt;
use crate::words;

/// What a container may use when it says nothing itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Thousandths of a CPU.
    pub cpu_millis: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes.
    pub ephemeral_storage: i64,
}

/// The addresses of a pod and its node, which its object may not have yet.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    /// The pod's.
    pub pod: Vec<String>,
    /// The node's.
    pub host: Vec<String>,
}

/// A field of a pod, such as `metadata.labels['app']`.
pub fn pod_field(pod: &Pod, addresses: &Addresses, path: &str) -> Result<String, String> {
    if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        let entries = match map {
            "metadata.labels" => &pod.metadata.labels,
            "metadata.annotations" => &pod.metadata.annotations,
            _ => return Err(format!("unsupported fieldPath: {path}")),
        };
        return Ok(entries
            .as_ref()
            .and_then(|entries| entries.get(key))
            .cloned()
            .unwrap_or_default());
    }
    let spec = pod.spec();
    let first = |list: &[String]| list.first().cloned().unwrap_or_default();
    Ok(match path {
        "metadata.name" => pod.name().to_owned(),
        "metadata.namespace" => pod.namespace().to_owned(),
        "metadata.uid" => pod.uid().to_owned(),
        "metadata.labels" => map_lines(pod.metadata.labels.iter().flatten()),
        "metadata.annotations" => map_lines(pod.metadata.annotations.iter().flatten()),
        "spec.nodeName" | "spec.host" => spec.and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
        "spec.serviceAccountName" => spec
            .and_then(|spec| spec.service_account_name.clone())
            .unwrap_or_default(),
        "status.hostIP" => first(&addresses.host),
        "status.hostIPs" => addresses.host.join(","),
        "status.podIP" => first(&addresses.pod),
        "status.podIPs" => addresses.pod.join(","),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// One `key="value"` a line, in order; the values are quoted.
fn map_lines<'a>(entries: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    let lines: Vec<String> = entries
        .map(|(key, value)| format!("{key}={}", words::quote(value)))
        .collect();
    lines.join("\n")
}

/// A request or limit of a container, divided and rounded up. A container without a limit has its pod's, and else the node's.
pub fn resource_field(
    pod: &Pod,
    container: &str,
    selector: &ResourceFieldSelector,
    capacity: Capacity,
) -> Result<String, String> {
    let name = selector
        .container_name
        .as_deref()
        .filter(|name| !name.is_empty())
        .unwrap_or(container);
    let (_, container) = pod
        .container(name)
        .ok_or_else(|| format!("container {name} not found"))?;
    let unsupported = || format!("Unsupported container resource : {}", selector.resource);
    let (list, resource) = selector.resource.split_once('.').ok_or_else(unsupported)?;
    let node = match resource {
        "cpu" => capacity.cpu_millis,
        "memory" => capacity.memory,
        "ephemeral-storage" => capacity.ephemeral_storage,
        _ if resource.starts_with("hugepages-") => 0,
        _ => return Err(unsupported()),
    };
    let amount = match list {
        "limits" => match resources::limit(pod, container, resource) {
            0 => node,
            limit => limit,
        },
        "requests" => resources::own_request(container, resource),
        _ => return Err(unsupported()),
    };
    let divisor = selector
        .divisor
        .as_ref()
        .and_then(|divisor| api::quantity::Quantity::of(divisor).ok());
    let divisor = match (divisor, resource) {
        (Some(divisor), "cpu") if divisor.millis() > 0 => divisor.millis(),
        (_, "cpu") => 1000,
        (Some(divisor), _) if divisor.value() > 0 => divisor.value(),
        _ => 1,
    };
    Ok((amount / divisor + i64::from(amount % divisor > 0)).to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_and_resources() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "labels": {"a": "1", "b": "say \"x\""}},
            "spec": {"nodeName": "n", "resources": {"limits": {"memory": "2Ki"}}, "containers": [{"name": "c", "resources": {"limits": {"cpu": "1500m"}, "requests": {"memory": "100"}}}]},
        }))
        .unwrap();
        let addresses = Addresses {
            pod: vec!["10.0.0.1".into(), "fd00::1".into()],
            host: vec![],
        };
        for (path, value) in [
            ("metadata.name", Ok("p")),
            ("metadata.labels", Ok("a=\"1\"\nb=\"say \\\"x\\\"\"")),
            ("metadata.labels['b']", Ok("say \"x\"")),
            ("metadata.annotations['none']", Ok("")),
            ("status.podIP", Ok("10.0.0.1")),
            ("status.podIPs", Ok("10.0.0.1,fd00::1")),
            ("spec.host", Ok("n")),
            ("spec.hosts", Err("unsupported fieldPath: spec.hosts")),
        ] {
            assert_eq!(
                pod_field(&pod, &addresses, path),
                value.map(str::to_owned).map_err(str::to_owned)
            );
        }
        let capacity = Capacity {
            cpu_millis: 4000,
            memory: 4096,
            ephemeral_storage: 7,
        };
        for (resource, divisor, value) in [
            ("limits.cpu", None, "2"),
            ("limits.cpu", Some("1m"), "1500"),
            ("requests.memory", Some("1Ki"), "1"),
            ("limits.memory", None, "2048"),
            ("limits.ephemeral-storage", None, "7"),
        ] {
            let selector = serde_json::from_value(json!({"resource": resource, "divisor": divisor})).unwrap();
            assert_eq!(resource_field(&pod, "c", &selector, capacity).unwrap(), value);
        }
    }
}
