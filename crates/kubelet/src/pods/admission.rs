//! Pods that this node refuses before anything of them is started, in upstream's words.

use api::pod::{SysctlNamespace, sysctl_name, sysctl_namespace};
use k8s_openapi::api::core::v1::{AppArmorProfile, Pod};

use super::pod::PodExt;

/// What harms neither other pods nor the node.
const SAFE: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// Sysctls that the node's administrator allows beside the safe ones: names, and beginnings of names with `*` behind them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnsafeSysctls(Vec<String>);

impl UnsafeSysctls {
    /// Takes patterns; the error says which is none.
    pub fn new(patterns: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut known = Vec::new();
        for pattern in patterns {
            let pattern = sysctl_name(&pattern);
            let stem = pattern.strip_suffix('*').unwrap_or(&pattern);
            if stem.is_empty() || stem.contains('*') {
                return Err(format!(
                    "{pattern:?} is neither a sysctl nor the beginning of some with * behind it"
                ));
            }
            if sysctl_namespace(stem).is_none() {
                return Err(format!("the sysctls {pattern:?} are not known to be namespaced"));
            }
            known.push(pattern);
        }
        Ok(Self(known))
    }

    fn allows(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(stem) => name.starts_with(stem),
            None => name == pattern,
        })
    }
}

/// What the node's kernel has for those who confine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kernel {
    /// AppArmor is on.
    pub app_armor: bool,
    /// SELinux is on.
    pub selinux: bool,
}

impl Kernel {
    /// Looks.
    pub fn look() -> Self {
        let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
        Self {
            app_armor: enabled.is_ok_and(|text| text.starts_with('Y')),
            selinux: std::path::Path::new("/sys/fs/selinux/enforce").exists(),
        }
    }
}

/// Why a pod is refused.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Such as `SysctlForbidden`.
    pub reason: &'static str,
    /// Details for people.
    pub message: String,
}

/// Whether the pod is refused, and why.
pub fn refusal(pod: &Pod, allowed: &UnsafeSysctls, kernel: Kernel) -> Option<Refusal> {
    forbidden_sysctl(pod, allowed)
        .map(|why| Refusal {
            reason: "SysctlForbidden",
            message: format!("forbidden sysctl: {why}"),
        })
        .or_else(|| {
            // A named profile is a promise. The runtime's default is not always there upstream either, and its lack is told.
            let lacks = !kernel.app_armor && app_armor(pod).any(|profile| profile.type_ == "Localhost");
            lacks.then(|| Refusal {
                reason: "AppArmor",
                message: "Cannot enforce AppArmor: AppArmor is not enabled on the host".into(),
            })
        })
}

/// The AppArmor profiles that a pod asks for.
pub(super) fn app_armor(pod: &Pod) -> impl Iterator<Item = &AppArmorProfile> {
    let of_pod = pod
        .spec()
        .and_then(|spec| spec.security_context.as_ref()?.app_armor_profile.as_ref());
    let own = pod
        .containers()
        .filter_map(|(_, container)| container.security_context.as_ref()?.app_armor_profile.as_ref());
    of_pod.into_iter().chain(own)
}

fn forbidden_sysctl(pod: &Pod, allowed: &UnsafeSysctls) -> Option<String> {
    let spec = pod.spec()?;
    let sysctls = spec.security_context.as_ref()?.sysctls.as_ref()?;
    sysctls.iter().find_map(|sysctl| {
        let name = sysctl_name(&sysctl.name);
        if !SAFE.contains(&name.as_str()) && !allowed.allows(&name) {
            return Some(format!("{name:?} not allowlisted"));
        }
        let namespace = sysctl_namespace(&name)?;
        let shared = match namespace {
            SysctlNamespace::Ipc => spec.host_ipc,
            SysctlNamespace::Net => spec.host_network,
        };
        (shared == Some(true)).then(|| format!("{name:?} not allowed with host {} enabled", namespace.as_str()))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn refused(spec: Value) -> Option<Refusal> {
        let mut spec = spec;
        spec["containers"] = json!([{"name": "c"}]);
        let pod = serde_json::from_value(json!({"spec": spec})).unwrap();
        let allowed = UnsafeSysctls::new(["kernel.msg*".to_owned(), "net/core/somaxconn".to_owned()]).unwrap();
        refusal(&pod, &allowed, Kernel::default())
    }

    #[test]
    fn sysctls() {
        let cases = [
            ("kernel.shm_rmid_forced", json!({}), None),
            ("net/ipv4/tcp_syncookies", json!({}), None),
            ("kernel.msgmax", json!({}), None),
            ("net.core.somaxconn", json!({}), None),
            (
                "kernel.shmmax",
                json!({}),
                Some("forbidden sysctl: \"kernel.shmmax\" not allowlisted"),
            ),
            (
                "vm.swappiness",
                json!({}),
                Some("forbidden sysctl: \"vm.swappiness\" not allowlisted"),
            ),
            (
                "kernel.msgmax",
                json!({"hostIPC": true}),
                Some("forbidden sysctl: \"kernel.msgmax\" not allowed with host IPC enabled"),
            ),
            (
                "net.ipv4.tcp_syncookies",
                json!({"hostNetwork": true}),
                Some("forbidden sysctl: \"net.ipv4.tcp_syncookies\" not allowed with host Net enabled"),
            ),
        ];
        for (name, mut spec, expected) in cases {
            spec["securityContext"] = json!({"sysctls": [{"name": name, "value": "1"}]});
            let refusal = refused(spec);
            assert_eq!(
                refusal.as_ref().map(|refusal| refusal.message.as_str()),
                expected,
                "{name}"
            );
            assert!(refusal.is_none_or(|refusal| refusal.reason == "SysctlForbidden"));
        }
    }

    #[test]
    fn patterns_are_checked() {
        let error = |pattern: &str| UnsafeSysctls::new([pattern.to_owned()]).unwrap_err();
        assert_eq!(error("vm.*"), "the sysctls \"vm.*\" are not known to be namespaced");
        for pattern in ["*", "", "net.*.x"] {
            assert!(error(pattern).contains("neither a sysctl nor"), "{pattern}");
        }
    }

    #[test]
    fn a_named_profile_is_a_promise() {
        let with = |kind: &str| refused(json!({"securityContext": {"appArmorProfile": {"type": kind}}}));
        assert_eq!(with("RuntimeDefault"), None);
        assert_eq!(
            with("Localhost").unwrap(),
            Refusal {
                reason: "AppArmor",
                message: "Cannot enforce AppArmor: AppArmor is not enabled on the host".into(),
            }
        );
    }
}
