//! What a pod's resolv.conf says.

use std::net::IpAddr;

use cri::v1::DnsConfig;
use k8s_openapi::api::core::v1::Pod;

use crate::pods::pod::PodExt;

/// The most that the resolver takes.
const MOST_SERVERS: usize = 3;

/// Reads a resolv.conf.
pub fn parse(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => config.servers.extend(words.next().map(str::to_owned)),
            // The last line counts, as for the resolver.
            Some("search") => {
                config.searches = words
                    .map(|word| word.trim_end_matches('.').to_owned())
                    .filter(|word| !word.is_empty())
                    .collect()
            }
            Some("options") => config.options = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    config
}

/// By the pod's dnsPolicy and dnsConfig; `node` is the node's own resolv.conf.
pub fn config(pod: &Pod, node: &DnsConfig, cluster_dns: &[IpAddr], domain: &str) -> DnsConfig {
    let spec = pod.spec();
    let mut config = match spec
        .and_then(|spec| spec.dns_policy.as_deref())
        .unwrap_or("ClusterFirst")
    {
        "None" => DnsConfig::default(),
        "ClusterFirst" if pod.host_network() => node.clone(),
        "ClusterFirst" | "ClusterFirstWithHostNet" if !cluster_dns.is_empty() => {
            let searches = [
                format!("{}.svc.{domain}", pod.namespace()),
                format!("svc.{domain}"),
                domain.to_owned(),
            ];
            DnsConfig {
                servers: cluster_dns.iter().map(ToString::to_string).collect(),
                searches: searches.into_iter().chain(node.searches.iter().cloned()).collect(),
                options: vec!["ndots:5".into()],
            }
        }
        _ => node.clone(),
    };
    if let Some(own) = spec.and_then(|spec| spec.dns_config.as_ref()) {
        config.servers.extend(own.nameservers.iter().flatten().cloned());
        config.searches.extend(own.searches.iter().flatten().cloned());
        for option in own.options.iter().flatten() {
            let name = option.name.as_deref().unwrap_or_default();
            config.options.retain(|known| known.split(':').next() != Some(name));
            config.options.push(match &option.value {
                Some(value) => format!("{name}:{value}"),
                None => name.to_owned(),
            });
        }
    }
    for list in [&mut config.servers, &mut config.searches] {
        let mut seen = std::collections::HashSet::new();
        list.retain(|item| seen.insert(item.clone()));
    }
    config.servers.truncate(MOST_SERVERS);
    config
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn policies() {
        let node = parse("# comment\nnameserver 192.0.2.1\nsearch example.org. corp\noptions edns0\n");
        let cases: [(Value, &str); 5] = [
            (
                json!({}),
                "10.96.0.10 | n.svc.cluster.local svc.cluster.local cluster.local example.org corp | ndots:5",
            ),
            (json!({"dnsPolicy": "Default"}), "192.0.2.1 | example.org corp | edns0"),
            (json!({"hostNetwork": true}), "192.0.2.1 | example.org corp | edns0"),
            (
                json!({"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true, "dnsConfig": {"options": [{"name": "ndots", "value": "2"}]}}),
                "10.96.0.10 | n.svc.cluster.local svc.cluster.local cluster.local example.org corp | ndots:2",
            ),
            (
                json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.9"], "searches": ["a"]}}),
                "192.0.2.9 | a | ",
            ),
        ];
        for (spec, expected) in cases {
            let mut spec = spec;
            spec["containers"] = json!([]);
            let pod = serde_json::from_value(json!({"metadata": {"namespace": "n"}, "spec": spec})).unwrap();
            let config = config(&pod, &node, &["10.96.0.10".parse().unwrap()], "cluster.local");
            assert_eq!(
                [config.servers, config.searches, config.options]
                    .map(|list| list.join(" "))
                    .join(" | "),
                expected
            );
        }
    }
}
