//! The environment of a container: Services, `envFrom`, `env`, in that order, the later winning.

mod file;

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod, Service};

use crate::expand::expand;
use crate::field::{self, Addresses, Capacity};
use crate::objects::{Kind, Objects};
use crate::pods::pod::PodExt;
use crate::volumes::Mounted;

/// What the environment can refer to besides objects.
pub struct Facts<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// Its addresses and its node's.
    pub addresses: &'a Addresses,
    /// What the node can give.
    pub capacity: Capacity,
    /// Variables of Services.
    pub services: Vec<(String, String)>,
    /// Where its volumes are on the node.
    pub volumes: &'a HashMap<String, Mounted>,
}

/// Resolves all of it; the error is what the container's status says.
pub async fn resolve(
    container: &Container,
    facts: &Facts<'_>,
    objects: &Objects,
) -> Result<Vec<(String, String)>, String> {
    let mut env = Variables(facts.services.clone());
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let reference = match (&source.config_map_ref, &source.secret_ref) {
            (Some(map), _) => Some((Kind::ConfigMap, &map.name, map.optional)),
            (None, Some(secret)) => Some((Kind::Secret, &secret.name, secret.optional)),
            (None, None) => None,
        };
        let Some((kind, name, optional)) = reference else {
            continue;
        };
        let Some(data) = objects.get(kind, name, optional.unwrap_or(false)).await? else {
            continue;
        };
        for (key, value) in data.variables() {
            env.set(format!("{prefix}{key}"), String::from_utf8_lossy(value).into_owned());
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value_from, &variable.value) {
            (Some(source), _) => from(source, container, facts, objects).await?,
            (None, Some(value)) => Some(expand(value, &env.0)),
            (None, None) => Some(String::new()),
        };
        if let Some(value) = value {
            env.set(variable.name.clone(), value);
        }
    }
    Ok(env.0)
}

async fn from(
    source: &EnvVarSource,
    container: &Container,
    facts: &Facts<'_>,
    objects: &Objects,
) -> Result<Option<String>, String> {
    if let Some(field) = &source.field_ref {
        return field::pod_field(facts.pod, facts.addresses, &field.field_path).map(Some);
    }
    if let Some(resource) = &source.resource_field_ref {
        return field::resource_field(facts.pod, &container.name, resource, facts.capacity).map(Some);
    }
    if let Some(key) = &source.file_key_ref {
        return file::variable(key, facts.volumes);
    }
    let (kind, name, key, optional) = match (&source.config_map_key_ref, &source.secret_key_ref) {
        (Some(map), _) => (Kind::ConfigMap, &map.name, &map.key, map.optional),
        (None, Some(secret)) => (Kind::Secret, &secret.name, &secret.key, secret.optional),
        (None, None) => return Ok(Some(String::new())),
    };
    let optional = optional.unwrap_or(false);
    let Some(data) = objects.get(kind, name, optional).await? else {
        return Ok(None);
    };
    match data.variables().find(|(known, _)| *known == key) {
        Some((_, value)) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
        None if optional => Ok(None),
        None => Err(format!(
            "couldn't find key {key} in {} {}/{name}",
            kind.name(),
            facts.pod.namespace()
        )),
    }
}

struct Variables(Vec<(String, String)>);

impl Variables {
    fn set(&mut self, name: String, value: String) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.0.push((name, value)),
        }
    }
}

/// The variables by which a pod finds the Services of its namespace, and always the API server.
pub fn services<'a>(pod: &Pod, services: impl Iterator<Item = &'a Service>) -> Vec<(String, String)> {
    let links = pod.spec().and_then(|spec| spec.enable_service_links).unwrap_or(true);
    let mut chosen: Vec<&Service> = services
        .filter(|service| {
            let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
            let name = service.metadata.name.as_deref().unwrap_or_default();
            let own = links && namespace == pod.namespace();
            own || (namespace == "default" && name == "kubernetes")
        })
        .collect();
    // The pod's own `kubernetes` wins over that of `default`, by coming later.
    chosen.sort_by_key(|service| {
        (
            service.metadata.namespace.as_deref() == Some(pod.namespace()),
            service.metadata.name.clone(),
        )
    });
    let mut variables = Variables(Vec::new());
    for service in chosen {
        let Some(spec) = &service.spec else { continue };
        let ip = spec.cluster_ip.as_deref().unwrap_or_default();
        let Some(first) = spec.ports.as_ref().and_then(|ports| ports.first()) else {
            continue;
        };
        if ip.is_empty() || ip == "None" {
            continue;
        }
        let name = upper(service.metadata.name.as_deref().unwrap_or_default());
        variables.set(format!("{name}_SERVICE_HOST"), ip.to_owned());
        variables.set(format!("{name}_SERVICE_PORT"), first.port.to_string());
        for port in spec.ports.iter().flatten() {
            if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
                variables.set(
                    format!("{name}_SERVICE_PORT_{}", upper(port_name)),
                    port.port.to_string(),
                );
            }
        }
        let host = if ip.contains(':') {
            format!("[{ip}]")
        } else {
            ip.to_owned()
        };
        let url = |protocol: &str, port: i32| format!("{}://{host}:{port}", protocol.to_lowercase());
        variables.set(
            format!("{name}_PORT"),
            url(first.protocol.as_deref().unwrap_or("TCP"), first.port),
        );
        for port in spec.ports.iter().flatten() {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let prefix = format!("{name}_PORT_{}_{}", port.port, protocol.to_uppercase());
            variables.set(prefix.clone(), url(protocol, port.port));
            variables.set(format!("{prefix}_PROTO"), protocol.to_lowercase());
            variables.set(format!("{prefix}_PORT"), port.port.to_string());
            variables.set(format!("{prefix}_ADDR"), ip.to_owned());
        }
    }
    variables.0
}

fn upper(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn services_become_variables() {
        let service = |namespace: &str, name: &str, ip: &str| -> Service {
            serde_json::from_value(json!({
                "metadata": {"namespace": namespace, "name": name},
                "spec": {"clusterIP": ip, "ports": [{"name": "https", "port": 443, "protocol": "TCP"}]},
            }))
            .unwrap()
        };
        let all = [
            service("default", "kubernetes", "10.96.0.1"),
            service("n", "my-db", "10.96.0.2"),
            service("n", "headless", "None"),
            service("other", "x", "10.96.0.3"),
        ];
        let pod = |links: bool| -> Pod {
            serde_json::from_value(
                json!({"metadata": {"namespace": "n"}, "spec": {"enableServiceLinks": links, "containers": []}}),
            )
            .unwrap()
        };
        let variables = services(&pod(true), all.iter());
        assert!(variables.contains(&("MY_DB_PORT_443_TCP".into(), "tcp://10.96.0.2:443".into())));
        assert!(variables.contains(&("KUBERNETES_SERVICE_PORT_HTTPS".into(), "443".into())));
        assert_eq!(variables.len(), 16);
        let variables = services(&pod(false), all.iter());
        assert_eq!(variables.len(), 8);
        assert_eq!(variables[0], ("KUBERNETES_SERVICE_HOST".into(), "10.96.0.1".into()));
    }
}
