//! Pods that this node refuses before anything of them is started, in upstream's words.

use api::pod::{SysctlNamespace, sysctl_name, sysctl_namespace};
use k8s_openapi::api::core::v1::{AppArmorProfile, Node, Pod, Taint};

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

const OS: &str = "linux";
const OS_LABEL: &str = "kubernetes.io/os";

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
    /// Control groups limit huge pages.
    pub huge_pages: bool,
}

impl Kernel {
    /// Looks.
    pub fn look() -> Self {
        let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
        Self {
            app_armor: enabled.is_ok_and(|text| text.starts_with('Y')),
            selinux: std::path::Path::new("/sys/fs/selinux/enforce").exists(),
            huge_pages: std::path::Path::new("/sys/fs/cgroup/hugetlb").exists()
                || std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")
                    .is_ok_and(|all| all.contains("hugetlb")),
        }
    }
}

/// Why a pod is refused.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Such as `SysctlForbidden`.
    pub reason: String,
    /// Details for people.
    pub message: String,
}

impl Refusal {
    /// What a scheduler would have said, had it been asked.
    pub fn predicate(name: &str, why: &str) -> Self {
        Self {
            reason: name.into(),
            message: format!("Predicate {name} failed: {why}"),
        }
    }
}

/// Why the pod is not one for this node, whatever is free there.
pub fn misplaced(pod: &Pod, node: &Node) -> Option<Refusal> {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    if !api::pod::wants_node(pod, name, node.metadata.labels.as_ref()) {
        let why = "node(s) didn't match Pod's node affinity/selector";
        return Some(Refusal::predicate("NodeAffinity", why));
    }
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    let drives_off = |taint: &Taint| taint.effect == "NoExecute" && !api::pod::tolerates(pod, taint);
    let driven_off = !api::pod::is_static(pod) && taints.into_iter().flatten().any(drives_off);
    driven_off.then(|| Refusal::predicate("TaintToleration", "node(s) had taints that the pod didn't tolerate"))
}

/// Why the pod is for another operating system, if it is.
fn foreign(pod: &Pod) -> Option<Refusal> {
    let label = pod.metadata.labels.as_ref().and_then(|labels| labels.get(OS_LABEL));
    let field = pod.spec().and_then(|spec| spec.os.as_ref()).map(|os| &os.name);
    let (reason, message) = if label.is_some_and(|os| os != OS) {
        let message = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label";
        ("PodOSSelectorNodeLabelDoesNotMatch", message)
    } else if field.is_some_and(|os| os != OS) {
        let message = "Failed to admit pod as the OS field doesn't match node OS";
        ("PodOSNotSupported", message)
    } else {
        return None;
    };
    Some(Refusal {
        reason: reason.into(),
        message: message.into(),
    })
}

/// Whether the pod is refused for what it is, and why.
pub fn refusal(pod: &Pod, allowed: &UnsafeSysctls, kernel: Kernel) -> Option<Refusal> {
    forbidden_sysctl(pod, allowed)
        .map(|why| Refusal {
            reason: "SysctlForbidden".into(),
            message: format!("forbidden sysctl: {why}"),
        })
        .or_else(|| foreign(pod))
        .or_else(|| {
            // A named profile is a promise. The runtime's default is not always there upstream either, and its lack is told.
            let lacks = !kernel.app_armor && app_armor(pod).any(|profile| profile.type_ == "Localhost");
            lacks.then(|| Refusal {
                reason: "AppArmor".into(),
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
    fn pods_for_other_nodes() {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "n", "labels": {"disk": "fast", "cores": "8"}},
            "spec": {"taints": [{"key": "soft", "effect": "NoSchedule"}, {"key": "hard", "value": "x", "effect": "NoExecute"}]},
        }))
        .unwrap();
        let hard = json!([{"key": "hard", "operator": "Exists"}]);
        let affinity = |expression: Value| {
            let terms = json!({"nodeSelectorTerms": [{"matchExpressions": [expression]}]});
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}})
        };
        let of_file = json!({"kubernetes.io/config.source": "file"});
        let (affine, tolerant) = (Some("NodeAffinity"), Some("TaintToleration"));
        for (annotations, spec, expected) in [
            (json!({}), json!({"tolerations": hard}), None),
            (json!({}), json!({}), tolerant),
            (
                json!({}),
                json!({"tolerations": [{"key": "hard", "value": "y"}]}),
                tolerant,
            ),
            (
                json!({}),
                json!({"tolerations": [{"key": "hard", "value": "x", "effect": "NoSchedule"}]}),
                tolerant,
            ),
            (of_file.clone(), json!({}), None),
            (of_file, json!({"nodeSelector": {"disk": "slow"}}), affine),
            (
                json!({}),
                json!({"tolerations": hard, "nodeSelector": {"disk": "fast"}}),
                None,
            ),
            (
                json!({}),
                json!({"tolerations": hard, "nodeSelector": {"disk": "fast", "zone": "a"}}),
                affine,
            ),
            (json!({}), json!({"nodeSelector": {"disk": "slow"}}), affine),
            (
                json!({}),
                json!({"tolerations": hard, "affinity": affinity(json!({"key": "cores", "operator": "Gt", "values": ["4"]}))}),
                None,
            ),
            (
                json!({}),
                json!({"tolerations": hard, "affinity": affinity(json!({"key": "disk", "operator": "DoesNotExist"}))}),
                affine,
            ),
        ] {
            let mut spec = spec;
            spec["containers"] = json!([{"name": "c"}]);
            let pod = json!({"metadata": {"annotations": annotations}, "spec": spec});
            let refusal = misplaced(&serde_json::from_value(pod.clone()).unwrap(), &node);
            assert_eq!(
                refusal.as_ref().map(|refusal| refusal.reason.as_str()),
                expected,
                "{pod}"
            );
        }
        let message = |spec: Value| {
            misplaced(&serde_json::from_value(json!({"spec": spec})).unwrap(), &node)
                .unwrap()
                .message
        };
        assert_eq!(
            message(json!({"containers": [], "nodeSelector": {"disk": "slow"}})),
            "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"
        );
        assert_eq!(
            message(json!({"containers": []})),
            "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate"
        );
    }

    #[test]
    fn pods_for_other_systems() {
        let reason = |labels: Value, spec: Value| {
            let pod = json!({"metadata": {"labels": labels}, "spec": spec});
            foreign(&serde_json::from_value(pod).unwrap()).map(|refusal| refusal.reason)
        };
        let spec = |os: &str| json!({"containers": [], "os": {"name": os}});
        let nothing = json!({"containers": []});
        assert_eq!(reason(json!({}), nothing.clone()), None);
        assert_eq!(reason(json!({OS_LABEL: "linux"}), spec("linux")), None);
        assert_eq!(reason(json!({}), spec("windows")).as_deref(), Some("PodOSNotSupported"));
        assert_eq!(
            reason(json!({OS_LABEL: "windows"}), nothing).as_deref(),
            Some("PodOSSelectorNodeLabelDoesNotMatch")
        );
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
                reason: "AppArmor".into(),
                message: "Cannot enforce AppArmor: AppArmor is not enabled on the host".into(),
            }
        );
    }
}
