//! Who a container runs as and what it may do.

use std::path::{Path, PathBuf};

use cri::v1::{
    Capability, Int64Value, LinuxContainerSecurityContext, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption,
    SeLinuxOption, SecurityProfile, SupplementalGroupsPolicy, UserNamespace, security_profile::ProfileType,
};
use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, Pod, PodSecurityContext, SELinuxOptions, SeccompProfile, SecurityContext,
};

use crate::pods::pod::PodExt;

/// What containers do not see, unless the pod asks for an unmasked /proc.
const MASKED: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// What they cannot write.
const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The user that an image asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageUser {
    /// Its number, if it is one.
    pub uid: Option<i64>,
    /// Its name, if it is one.
    pub name: String,
}

fn of_pod(pod: &Pod) -> Option<&PodSecurityContext> {
    pod.spec()?.security_context.as_ref()
}

/// The number that a container runs as, when the pod says so.
pub fn run_as_user(pod: &Pod, container: &Container) -> Option<i64> {
    let own = container
        .security_context
        .as_ref()
        .and_then(|context| context.run_as_user);
    own.or_else(|| of_pod(pod)?.run_as_user)
}

/// Refuses a container that must not run as root and would.
pub fn verify_non_root(pod: &Pod, container: &Container, image: &ImageUser) -> Result<(), String> {
    let own = container
        .security_context
        .as_ref()
        .and_then(|context| context.run_as_non_root);
    if !own.or_else(|| of_pod(pod)?.run_as_non_root).unwrap_or(false) {
        return Ok(());
    }
    let whom = format!("(pod: {:?}, container: {})", pod.full_name(), container.name);
    match (run_as_user(pod, container), image.uid) {
        (Some(0), _) => Err(format!("container's runAsUser breaks non-root policy {whom}")),
        (Some(_), _) => Ok(()),
        (None, Some(0)) => Err(format!("container has runAsNonRoot and image will run as root {whom}")),
        (None, Some(_)) => Ok(()),
        (None, None) if image.name.is_empty() => {
            Err(format!("container has runAsNonRoot and image will run as root {whom}"))
        }
        (None, None) => {
            let name = &image.name;
            Err(format!(
                "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root {whom}"
            ))
        }
    }
}

/// Which namespaces a pod shares with the node; `users` are its own users, if it has some.
fn namespaces(pod: &Pod, users: Option<&UserNamespace>) -> NamespaceOption {
    let spec = pod.spec();
    let node_or = |node: Option<bool>, other| {
        if node.unwrap_or(false) {
            NamespaceMode::Node
        } else {
            other
        }
    };
    let shared = spec.and_then(|spec| spec.share_process_namespace).unwrap_or(false);
    let pid = if shared {
        NamespaceMode::Pod
    } else {
        NamespaceMode::Container
    };
    NamespaceOption {
        network: node_or(spec.and_then(|spec| spec.host_network), NamespaceMode::Pod).into(),
        ipc: node_or(spec.and_then(|spec| spec.host_ipc), NamespaceMode::Pod).into(),
        pid: node_or(spec.and_then(|spec| spec.host_pid), pid).into(),
        userns_options: users.cloned(),
        ..Default::default()
    }
}

fn groups(pod: &Pod) -> (Vec<i64>, SupplementalGroupsPolicy) {
    let Some(context) = of_pod(pod) else {
        return (Vec::new(), SupplementalGroupsPolicy::Merge);
    };
    let groups = context
        .supplemental_groups
        .iter()
        .flatten()
        .chain(context.fs_group.iter())
        .copied()
        .collect();
    let policy = match context.supplemental_groups_policy.as_deref() {
        Some("Strict") => SupplementalGroupsPolicy::Strict,
        _ => SupplementalGroupsPolicy::Merge,
    };
    (groups, policy)
}

fn number(value: Option<i64>) -> Option<Int64Value> {
    value.map(|value| Int64Value { value })
}

/// `place` is where profiles of type Localhost are, if they are files.
fn profile(kind: Option<&str>, localhost: Option<&String>, place: &Path) -> SecurityProfile {
    let (kind, path) = match kind {
        Some("RuntimeDefault") => (ProfileType::RuntimeDefault, String::new()),
        Some("Localhost") => (
            ProfileType::Localhost,
            localhost
                .map(|name| place.join(name).to_string_lossy().into_owned())
                .unwrap_or_default(),
        ),
        _ => (ProfileType::Unconfined, String::new()),
    };
    SecurityProfile {
        profile_type: kind.into(),
        localhost_ref: path,
    }
}

fn seccomp(profile_: Option<&SeccompProfile>, place: &Path) -> SecurityProfile {
    profile(
        profile_.map(|profile| profile.type_.as_str()),
        profile_.and_then(|profile| profile.localhost_profile.as_ref()),
        place,
    )
}

fn apparmor(profile_: Option<&AppArmorProfile>) -> Option<SecurityProfile> {
    profile_.map(|it| profile(Some(&it.type_), it.localhost_profile.as_ref(), Path::new("")))
}

fn selinux(options: Option<&SELinuxOptions>) -> Option<SeLinuxOption> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    options.map(|options| SeLinuxOption {
        user: text(&options.user),
        role: text(&options.role),
        r#type: text(&options.type_),
        level: text(&options.level),
    })
}

/// The security context of a pod's sandbox.
pub fn sandbox(pod: &Pod, users: Option<&UserNamespace>) -> LinuxSandboxSecurityContext {
    let context = of_pod(pod);
    let is_privileged = |container: &Container| {
        let context = container.security_context.as_ref();
        context.and_then(|context| context.privileged).unwrap_or(false)
    };
    // A runtime may refuse a privileged container, ephemeral ones too, in a sandbox that is not.
    let privileged = pod.containers().any(|(_, container)| is_privileged(container))
        || pod.ephemeral().any(|container| is_privileged(&container));
    let (supplemental_groups, policy) = groups(pod);
    LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod, users)),
        selinux_options: selinux(context.and_then(|context| context.se_linux_options.as_ref())),
        run_as_user: number(context.and_then(|context| context.run_as_user)),
        run_as_group: number(context.and_then(|context| context.run_as_group)),
        supplemental_groups,
        supplemental_groups_policy: policy.into(),
        privileged,
        // The pause container needs nothing, whatever its pod does.
        seccomp: Some(SecurityProfile {
            profile_type: ProfileType::RuntimeDefault.into(),
            localhost_ref: String::new(),
        }),
        apparmor: apparmor(context.and_then(|context| context.app_armor_profile.as_ref())),
        ..Default::default()
    }
}

/// What a node has of seccomp.
#[derive(Debug, Clone)]
pub struct Seccomp {
    /// Where profiles of type Localhost are.
    pub profiles: PathBuf,
    /// Whether containers that say nothing have the runtime's profile.
    pub default: bool,
}

/// The security context of a container.
pub fn container(
    pod: &Pod,
    container: &Container,
    image: &ImageUser,
    users: Option<&UserNamespace>,
    node: &Seccomp,
) -> LinuxContainerSecurityContext {
    let nothing = SecurityContext::default();
    let own = container.security_context.as_ref().unwrap_or(&nothing);
    let pods = of_pod(pod);
    let asked = run_as_user(pod, container);
    let privileged = own.privileged.unwrap_or(false);
    let capabilities = own.capabilities.as_ref().map(|capabilities| Capability {
        add_capabilities: capabilities.add.clone().unwrap_or_default(),
        drop_capabilities: capabilities.drop.clone().unwrap_or_default(),
        add_ambient_capabilities: Vec::new(),
    });
    let unmasked = own.proc_mount.as_deref() == Some("Unmasked");
    let paths = |paths: &[&str]| {
        if unmasked {
            Vec::new()
        } else {
            paths.iter().map(|path| (*path).to_owned()).collect()
        }
    };
    let (supplemental_groups, policy) = groups(pod);
    let runtime_default = SeccompProfile {
        type_: "RuntimeDefault".into(),
        localhost_profile: None,
    };
    LinuxContainerSecurityContext {
        capabilities,
        privileged,
        namespace_options: Some(namespaces(pod, users)),
        selinux_options: selinux(
            own.se_linux_options
                .as_ref()
                .or_else(|| pods?.se_linux_options.as_ref()),
        ),
        // An image that names nobody means root.
        run_as_user: number(asked.or(image.uid).or(image.name.is_empty().then_some(0))),
        run_as_group: number(own.run_as_group.or_else(|| pods?.run_as_group)),
        run_as_username: if asked.is_none() && image.uid.is_none() {
            image.name.clone()
        } else {
            String::new()
        },
        readonly_rootfs: own.read_only_root_filesystem.unwrap_or(false),
        supplemental_groups,
        supplemental_groups_policy: policy.into(),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: paths(MASKED),
        readonly_paths: paths(READ_ONLY),
        // A privileged container is never confined.
        seccomp: Some(seccomp(
            own.seccomp_profile
                .as_ref()
                .or_else(|| pods?.seccomp_profile.as_ref())
                .or_else(|| node.default.then_some(&runtime_default))
                .filter(|_| !privileged),
            &node.profiles,
        )),
        apparmor: apparmor(
            own.app_armor_profile
                .as_ref()
                .or_else(|| pods?.app_armor_profile.as_ref()),
        ),
        ..Default::default()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(pods: Value, own: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"securityContext": pods, "containers": [{"name": "c", "securityContext": own}]},
        }))
        .unwrap()
    }

    #[test]
    fn root_is_refused_where_it_must_not_be() {
        let root = ImageUser {
            uid: Some(0),
            name: String::new(),
        };
        let named = ImageUser {
            uid: None,
            name: "www".into(),
        };
        let cases = [
            (json!({}), json!({}), &root, None),
            (
                json!({"runAsNonRoot": true}),
                json!({"runAsNonRoot": false}),
                &root,
                None,
            ),
            (json!({"runAsNonRoot": true}), json!({"runAsUser": 7}), &root, None),
            (
                json!({"runAsNonRoot": true}),
                json!({"runAsUser": 0}),
                &named,
                Some("container's runAsUser breaks non-root policy"),
            ),
            (
                json!({}),
                json!({"runAsNonRoot": true}),
                &root,
                Some("container has runAsNonRoot and image will run as root"),
            ),
            (
                json!({}),
                json!({"runAsNonRoot": true}),
                &named,
                Some("container has runAsNonRoot and image has non-numeric user (www), cannot verify user is non-root"),
            ),
        ];
        for (pods, own, image, refused) in cases {
            let pod = pod(pods, own);
            let (_, container) = pod.containers().next().unwrap();
            let expected = refused.map_or(Ok(()), |refused| {
                Err(format!("{refused} (pod: \"p_n(u)\", container: c)"))
            });
            assert_eq!(verify_non_root(&pod, container, image), expected);
        }
    }

    #[test]
    fn a_containers_own_word_counts_before_its_pods() {
        let pod = pod(
            json!({"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4], "seccompProfile": {"type": "RuntimeDefault"}}),
            json!({"runAsUser": 9, "allowPrivilegeEscalation": false, "procMount": "Unmasked"}),
        );
        let context = super::container(
            &pod,
            pod.containers().next().unwrap().1,
            &ImageUser {
                uid: Some(5),
                name: String::new(),
            },
            None,
            &node(false),
        );
        assert_eq!(context.run_as_user.unwrap().value, 9);
        assert_eq!(context.run_as_group.unwrap().value, 2);
        assert_eq!(context.supplemental_groups, [4, 3]);
        assert_eq!(context.seccomp.unwrap().profile_type(), ProfileType::RuntimeDefault);
        assert!(context.no_new_privs && context.masked_paths.is_empty());

        let profile = json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "audit/a.json"}});
        let seccomp = |default: bool, pods: &Value, own: Value| {
            let pod = super::tests::pod(pods.clone(), own);
            let (_, container) = pod.containers().next().unwrap();
            let context = super::container(&pod, container, &ImageUser::default(), None, &node(default));
            context.seccomp.unwrap()
        };
        let reference = |own: Value| seccomp(false, &profile, own).localhost_ref;
        assert_eq!(reference(json!({})), "/k/seccomp/audit/a.json");
        assert_eq!(reference(json!({"privileged": true})), "");

        let nothing = json!({});
        let unconfined = json!({"seccompProfile": {"type": "Unconfined"}});
        for (default, pods, own, expected) in [
            (false, &nothing, json!({}), ProfileType::Unconfined),
            (true, &nothing, json!({}), ProfileType::RuntimeDefault),
            (true, &nothing, json!({"privileged": true}), ProfileType::Unconfined),
            (true, &unconfined, json!({}), ProfileType::Unconfined),
        ] {
            assert_eq!(seccomp(default, pods, own).profile_type(), expected, "{default} {pods}");
        }
    }

    fn node(default: bool) -> Seccomp {
        Seccomp {
            profiles: "/k/seccomp".into(),
            default,
        }
    }
}
