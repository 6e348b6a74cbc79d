//! The sandbox of a pod, as the runtime is asked for it.

use cri::v1::{self, LinuxPodSandboxConfig, PodSandboxConfig, PodSandboxMetadata, PortMapping, Protocol};
use k8s_openapi::api::core::v1::Pod;

use super::{dns, hosts, labels, resources, security};
use crate::config::Config;
use crate::pods::pod::PodExt;

/// The directory of a pod's logs, below that of all.
pub fn log_directory(pod: &Pod) -> String {
    format!("{}_{}_{}", pod.namespace(), pod.name(), pod.uid())
}

/// All of it; `users` are the pod's own, if it has some, and `node_dns` is the node's own resolv.conf.
pub fn config(
    pod: &Pod,
    attempt: u32,
    users: Option<&v1::UserNamespace>,
    config: &Config,
    node_dns: &v1::DnsConfig,
) -> PodSandboxConfig {
    let mut labels: std::collections::HashMap<_, _> =
        pod.metadata.labels.clone().unwrap_or_default().into_iter().collect();
    labels.extend([
        (labels::POD_NAME.to_owned(), pod.name().to_owned()),
        (labels::POD_NAMESPACE.to_owned(), pod.namespace().to_owned()),
        (labels::POD_UID.to_owned(), pod.uid().to_owned()),
    ]);
    let mut annotations: std::collections::HashMap<_, _> = pod
        .metadata
        .annotations
        .clone()
        .unwrap_or_default()
        .into_iter()
        .collect();
    annotations
        .entry(labels::SOURCE.to_owned())
        .or_insert_with(|| "api".to_owned());
    annotations.insert(labels::GRACE.to_owned(), pod.grace().to_string());
    let sysctls = pod
        .spec()
        .and_then(|spec| spec.security_context.as_ref()?.sysctls.as_ref());
    let limits = resources::pod(pod);
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: pod.name().to_owned(),
            uid: pod.uid().to_owned(),
            namespace: pod.namespace().to_owned(),
            attempt,
        }),
        hostname: hosts::hostname(pod, &config.node_name, &config.cluster_domain),
        log_directory: config
            .pod_logs_dir
            .join(log_directory(pod))
            .to_string_lossy()
            .into_owned(),
        dns_config: Some(dns::config(pod, node_dns, &config.cluster_dns, &config.cluster_domain)),
        port_mappings: port_mappings(pod),
        labels,
        annotations,
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: resources::pod_cgroup(api::pod::stored_qos_class(pod), pod.uid()),
            security_context: Some(security::sandbox(pod, users)),
            sysctls: sysctls
                .into_iter()
                .flatten()
                .map(|sysctl| (sysctl.name.clone(), sysctl.value.clone()))
                .collect(),
            resources: Some(v1::LinuxContainerResources {
                cpu_shares: limits.cpu_shares,
                cpu_quota: limits.cpu_quota,
                memory_limit_in_bytes: limits.memory,
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Ports of the node that lead to ports of the pod; on the node's network there is nothing to lead.
fn port_mappings(pod: &Pod) -> Vec<PortMapping> {
    if pod.host_network() {
        return Vec::new();
    }
    let ports = pod
        .containers()
        .flat_map(|(_, container)| container.ports.iter().flatten());
    ports
        .filter(|port| port.host_port.is_some_and(|port| port > 0))
        .map(|port| PortMapping {
            protocol: match port.protocol.as_deref() {
                Some("UDP") => Protocol::Udp,
                Some("SCTP") => Protocol::Sctp,
                _ => Protocol::Tcp,
            }
            .into(),
            container_port: port.container_port,
            host_port: port.host_port.unwrap_or_default(),
            host_ip: port.host_ip.clone().unwrap_or_default(),
        })
        .collect()
}
