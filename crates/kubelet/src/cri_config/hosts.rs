//! A pod's names: its hostname and its /etc/hosts.

use std::fmt::Write;

use k8s_openapi::api::core::v1::Pod;

use crate::pods::pod::PodExt;

const HEADER: &str = "# Kubernetes-managed hosts file.\n\
    127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::0\tip6-localnet\n\
    fe00::0\tip6-mcastprefix\n\
    fe00::1\tip6-allnodes\n\
    fe00::2\tip6-allrouters\n";

/// A kernel's hostname is no longer.
const LONGEST: usize = 63;

/// The hostname of a pod and the domain that completes it, if it has one.
pub fn names(pod: &Pod, node_name: &str, cluster_domain: &str) -> (String, Option<String>) {
    let spec = pod.spec();
    if let Some(name) = spec.and_then(|spec| spec.hostname_override.clone()) {
        return (name, None);
    }
    if pod.host_network() {
        return (node_name.to_owned(), None);
    }
    let hostname = spec
        .and_then(|spec| spec.hostname.clone())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| {
            let name = pod.name();
            // Names are ASCII, so that any place to cut is good.
            name.get(..LONGEST)
                .unwrap_or(name)
                .trim_end_matches(['-', '.'])
                .to_owned()
        });
    let subdomain = spec
        .and_then(|spec| spec.subdomain.as_deref())
        .filter(|name| !name.is_empty());
    let domain = subdomain.map(|subdomain| format!("{subdomain}.{}.svc.{cluster_domain}", pod.namespace()));
    (hostname, domain)
}

/// The hostname that the pod's processes see.
pub fn hostname(pod: &Pod, node_name: &str, cluster_domain: &str) -> String {
    let as_fqdn = pod.spec().and_then(|spec| spec.set_hostname_as_fqdn).unwrap_or(false);
    match names(pod, node_name, cluster_domain) {
        (hostname, Some(domain)) if as_fqdn => format!("{hostname}.{domain}"),
        (hostname, _) => hostname,
    }
}

/// The text of /etc/hosts. A pod on the node's network gets the node's, with its own aliases.
pub fn file(pod: &Pod, ips: &[String], node_hosts: &str, hostname: &str, domain: Option<&str>) -> String {
    let mut text = String::new();
    if pod.host_network() {
        text.push_str("# Kubernetes-managed hosts file (host network).\n");
        text.push_str(node_hosts);
    } else {
        text.push_str(HEADER);
        for ip in ips {
            // Writing into a string cannot fail.
            let _ = match domain {
                Some(domain) => writeln!(text, "{ip}\t{hostname}.{domain}\t{hostname}"),
                None => writeln!(text, "{ip}\t{hostname}"),
            };
        }
    }
    let aliases = pod
        .spec()
        .and_then(|spec| spec.host_aliases.as_deref())
        .unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            let _ = writeln!(
                text,
                "{}\t{}",
                alias.ip,
                alias.hostnames.as_deref().unwrap_or_default().join("\t")
            );
        }
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_finds_itself_and_its_aliases() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web-0", "namespace": "n"},
            "spec": {"subdomain": "web", "hostAliases": [{"ip": "192.0.2.1", "hostnames": ["a", "b"]}], "containers": []},
        }))
        .unwrap();
        let (hostname, domain) = names(&pod, "node", "cluster.local");
        let text = file(&pod, &["10.1.0.2".into()], "", &hostname, domain.as_deref());
        assert!(text.ends_with(
            "10.1.0.2\tweb-0.web.n.svc.cluster.local\tweb-0\n\n# Entries added by HostAliases.\n192.0.2.1\ta\tb\n"
        ));
    }
}
