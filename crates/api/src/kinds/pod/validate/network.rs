//! Names, addresses and ports: host ports, DNS, host aliases.

use k8s_openapi::api::core::v1::PodSpec;

use super::{Errors, ip, one_of, refuse, subdomain};
use crate::field::{FieldError, Path};

const DNS_POLICIES: &[&str] = &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];

/// The limits of libc's resolver, which reads what a pod is given.
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARACTERS: usize = 2048;

/// A pod on the node's network listens on the node's own ports.
pub(super) fn host_ports(spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    if spec.host_network != Some(true) {
        return;
    }
    let path = path.child("containers");
    for (i, container) in spec.containers.iter().enumerate() {
        for (j, port) in container.ports.iter().flatten().enumerate() {
            let host_port = port.host_port.unwrap_or(0);
            if host_port != port.container_port {
                errors.push(FieldError::invalid(
                    &path.index(i).child("ports").index(j).child("hostPort"),
                    host_port,
                    "must match `containerPort` when `hostNetwork` is true",
                ));
            }
        }
    }
}

pub(super) fn dns_policy(spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    one_of(
        spec.dns_policy.as_deref().unwrap_or_default(),
        DNS_POLICIES,
        path,
        errors,
    );
}

pub(super) fn dns_config(spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    let needed = spec.dns_policy.as_deref() == Some("None");
    let Some(config) = &spec.dns_config else {
        if needed {
            errors.push(FieldError::required(
                path,
                "must provide `dnsConfig` when `dnsPolicy` is None",
            ));
        }
        return;
    };
    let nameservers = config.nameservers.as_deref().unwrap_or_default();
    if needed && nameservers.is_empty() {
        let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        errors.push(FieldError::required(&path.child("nameservers"), detail));
        return;
    }
    if nameservers.len() > MAX_NAMESERVERS {
        let detail = format!("must not have more than {MAX_NAMESERVERS} nameservers");
        errors.push(FieldError::invalid(&path.child("nameservers"), nameservers, detail));
    }
    for (i, nameserver) in nameservers.iter().enumerate() {
        ip(nameserver, &path.child("nameservers").index(i), errors);
    }
    let searches = config.searches.as_deref().unwrap_or_default();
    if searches.len() > MAX_SEARCHES {
        let detail = format!("must not have more than {MAX_SEARCHES} search paths");
        errors.push(FieldError::invalid(&path.child("searches"), searches, detail));
    }
    if searches.join(" ").len() > MAX_SEARCH_CHARACTERS {
        let detail =
            format!("must not have more than {MAX_SEARCH_CHARACTERS} characters (including spaces) in the search list");
        errors.push(FieldError::invalid(&path.child("searches"), searches, detail));
    }
    for (i, search) in searches.iter().enumerate() {
        if search != "." {
            let search = search.strip_suffix('.').unwrap_or(search);
            refuse(
                errors,
                &path.child("searches").index(i),
                search,
                underscored_subdomain(search),
            );
        }
    }
    for (i, option) in config.options.iter().flatten().enumerate() {
        if option.name.as_deref().is_none_or(str::is_empty) {
            errors.push(FieldError::required(
                &path.child("options").index(i),
                "must not be empty",
            ));
        }
    }
}

/// A subdomain whose labels may start with or hold underscores, as names of services in DNS do.
fn underscored_subdomain(s: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if s.len() > crate::meta::names::SUBDOMAIN_MAX {
        messages.push(format!(
            "must be no more than {} bytes",
            crate::meta::names::SUBDOMAIN_MAX
        ));
    }
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let fits = |label: &str| {
        let bytes = label.as_bytes();
        bytes.first().is_some_and(|b| alphanumeric(b) || *b == b'_')
            && bytes.last().is_some_and(alphanumeric)
            && bytes.iter().all(|b| alphanumeric(b) || matches!(b, b'-' | b'_'))
    };
    if !s.split('.').all(fits) {
        messages.push(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[_a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\.[_a-z0-9]([-_a-z0-9]*[a-z0-9])?)*')"
                .to_owned(),
        );
    }
    messages
}

pub(super) fn host_aliases(spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    for (i, alias) in spec.host_aliases.iter().flatten().enumerate() {
        let path = path.index(i);
        ip(&alias.ip, &path.child("ip"), errors);
        for (j, name) in alias.hostnames.iter().flatten().enumerate() {
            subdomain(name, &path.child("hostnames").index(j), errors);
        }
    }
}

pub(super) fn hostname_override(spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    let Some(name) = &spec.hostname_override else { return };
    let own = path.child("hostnameOverride");
    // The kernel's limit for a host name.
    if name.len() > 64 {
        errors.push(FieldError::invalid(&own, name, "must be no more than 64 bytes"));
    }
    subdomain(name, &own, errors);
    if spec.set_hostname_as_fqdn == Some(true) {
        let detail = "may not be set to true when `hostnameOverride` is set";
        errors.push(FieldError::forbidden(&path.child("setHostnameAsFQDN"), detail));
    }
    if spec.host_network == Some(true) {
        let detail = "may not be set when `hostnameOverride` is set";
        errors.push(FieldError::forbidden(&path.child("hostNetwork"), detail));
    }
}
