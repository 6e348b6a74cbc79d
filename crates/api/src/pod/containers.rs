//! The containers of a pod: init, main and ephemeral ones in one sweep, with their field paths.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{
    Container, ContainerRestartRule, ContainerStatus, EphemeralContainer, Pod, PodSpec, PodStatus,
};

/// The action of a restart rule by which one container's end restarts them all.
const RESTART_ALL: &str = "RestartAllContainers";

/// Which of a pod's three lists a container is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ContainerKind {
    /// `initContainers`: run one after the other before the main ones, unless they are sidecars.
    Init,
    /// `containers`
    Main,
    /// `ephemeralContainers`: put into a running pod for debugging.
    Ephemeral,
}

impl ContainerKind {
    /// The name of the list in a PodSpec.
    pub const fn field(self) -> &'static str {
        match self {
            ContainerKind::Init => "initContainers",
            ContainerKind::Main => "containers",
            ContainerKind::Ephemeral => "ephemeralContainers",
        }
    }

    /// The field path by which events name a container: `spec.containers{nginx}`.
    pub fn event_path(self, name: &str) -> String {
        format!("spec.{}{{{name}}}", self.field())
    }

    /// The statuses of the containers of this kind.
    pub fn statuses(self, status: &PodStatus) -> &[ContainerStatus] {
        match self {
            ContainerKind::Init => &status.init_container_statuses,
            ContainerKind::Main => &status.container_statuses,
            ContainerKind::Ephemeral => &status.ephemeral_container_statuses,
        }
        .as_deref()
        .unwrap_or_default()
    }
}

/// An ephemeral container with the type of the others.
pub fn as_container(ephemeral: &EphemeralContainer) -> Container {
    let e = ephemeral.clone();
    Container {
        args: e.args,
        command: e.command,
        env: e.env,
        env_from: e.env_from,
        image: e.image,
        image_pull_policy: e.image_pull_policy,
        lifecycle: e.lifecycle,
        liveness_probe: e.liveness_probe,
        name: e.name,
        ports: e.ports,
        readiness_probe: e.readiness_probe,
        resize_policy: e.resize_policy,
        resources: e.resources,
        restart_policy: e.restart_policy,
        restart_policy_rules: e.restart_policy_rules,
        security_context: e.security_context,
        startup_probe: e.startup_probe,
        stdin: e.stdin,
        stdin_once: e.stdin_once,
        termination_message_path: e.termination_message_path,
        termination_message_policy: e.termination_message_policy,
        tty: e.tty,
        volume_devices: e.volume_devices,
        volume_mounts: e.volume_mounts,
        working_dir: e.working_dir,
    }
}

/// Every container of the pod with its list and its index there: init, main, then ephemeral ones.
pub fn containers(spec: &PodSpec) -> impl Iterator<Item = (ContainerKind, usize, Cow<'_, Container>)> {
    let borrowed = |kind| move |(index, container)| (kind, index, Cow::Borrowed(container));
    let init = spec
        .init_containers
        .iter()
        .flatten()
        .enumerate()
        .map(borrowed(ContainerKind::Init));
    let main = spec.containers.iter().enumerate().map(borrowed(ContainerKind::Main));
    let ephemeral = spec
        .ephemeral_containers
        .iter()
        .flatten()
        .enumerate()
        .map(|(index, e)| (ContainerKind::Ephemeral, index, Cow::Owned(as_container(e))));
    init.chain(main).chain(ephemeral)
}

/// The container of that name; names are unique in all three lists.
pub fn find_container<'a>(spec: &'a PodSpec, name: &str) -> Option<(ContainerKind, Cow<'a, Container>)> {
    containers(spec)
        .find(|(_, _, container)| container.name == name)
        .map(|(kind, _, container)| (kind, container))
}

/// The status of the container of that name.
pub fn container_status<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    [ContainerKind::Init, ContainerKind::Main, ContainerKind::Ephemeral]
        .into_iter()
        .flat_map(|kind| kind.statuses(status))
        .find(|status| status.name == name)
}

/// Whether an init container is a sidecar: it keeps running beside the main containers.
pub fn is_sidecar(init_container: &Container) -> bool {
    init_container.restart_policy.as_deref() == Some("Always")
}

/// The first of a container's restart rules that is about `exit_code`.
fn restart_rule(container: &Container, exit_code: i32) -> Option<&ContainerRestartRule> {
    container.restart_policy_rules.iter().flatten().find(|rule| {
        rule.exit_codes.as_ref().is_some_and(|codes| {
            let listed = codes.values.iter().flatten().any(|code| *code == exit_code);
            (codes.operator == "NotIn") != listed
        })
    })
}

/// Whether a container that ended with `exit_code` wants every container of its pod to start anew.
pub fn restarts_all(container: &Container, exit_code: i32) -> bool {
    restart_rule(container, exit_code).is_some_and(|rule| rule.action == RESTART_ALL)
}

/// Whether some container of the pod may want that.
pub fn may_restart_all(spec: &PodSpec) -> bool {
    let mut rules = containers(spec).flat_map(|(_, _, container)| container.into_owned().restart_policy_rules);
    rules.any(|rules| rules.iter().any(|rule| rule.action == RESTART_ALL))
}

/// Whether a container is started again after it ended with `exit_code`: its own rules first, then its own
/// policy, then the pod's.
pub fn is_restartable(spec: &PodSpec, kind: ContainerKind, container: &Container, exit_code: i32) -> bool {
    match kind {
        ContainerKind::Ephemeral => return false,
        ContainerKind::Init if is_sidecar(container) => return true,
        // A plain init container that succeeded is done, whatever rules and policies say.
        ContainerKind::Init if exit_code == 0 => return false,
        ContainerKind::Init | ContainerKind::Main => {}
    }
    if restart_rule(container, exit_code).is_some() {
        // Every action there is restarts it.
        return true;
    }
    let policy = container
        .restart_policy
        .as_deref()
        .or(spec.restart_policy.as_deref())
        .unwrap_or("Always");
    match policy {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => true,
    }
}

/// How often the pod's containers were started again, main ones and sidecars together.
pub fn restarts(pod: &Pod) -> i32 {
    let Some(status) = &pod.status else { return 0 };
    let sidecars = pod
        .spec
        .iter()
        .flat_map(|spec| spec.init_containers.iter().flatten())
        .filter(|c| is_sidecar(c));
    let of_sidecars: i32 = sidecars
        .filter_map(|c| ContainerKind::Init.statuses(status).iter().find(|s| s.name == c.name))
        .map(|s| s.restart_count)
        .sum();
    of_sidecars
        + ContainerKind::Main
            .statuses(status)
            .iter()
            .map(|s| s.restart_count)
            .sum::<i32>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ContainerRestartRuleOnExitCodes;

    fn named(name: &str) -> Container {
        Container {
            name: name.into(),
            ..Default::default()
        }
    }

    #[test]
    fn all_three_lists_in_order() {
        let spec = PodSpec {
            init_containers: Some(vec![named("i")]),
            containers: vec![named("a"), named("b")],
            ephemeral_containers: Some(vec![EphemeralContainer {
                name: "e".into(),
                ..Default::default()
            }]),
            ..Default::default()
        };
        let seen: Vec<_> = containers(&spec)
            .map(|(kind, index, c)| (kind.field(), index, c.name.clone()))
            .collect();
        assert_eq!(
            seen,
            [
                ("initContainers", 0, "i".to_owned()),
                ("containers", 0, "a".to_owned()),
                ("containers", 1, "b".to_owned()),
                ("ephemeralContainers", 0, "e".to_owned()),
            ]
        );
        assert_eq!(
            find_container(&spec, "e").map(|(kind, _)| kind),
            Some(ContainerKind::Ephemeral)
        );
        assert_eq!(find_container(&spec, "x"), None);
        assert_eq!(ContainerKind::Main.event_path("nginx"), "spec.containers{nginx}");
    }

    #[test]
    fn who_is_started_again() {
        use ContainerKind::{Ephemeral, Init, Main};
        for (pod_policy, own_policy, kind, exit_code, want) in [
            ("Always", None, Main, 0, true),
            ("Always", None, Main, 1, true),
            ("OnFailure", None, Main, 0, false),
            ("OnFailure", None, Main, 1, true),
            ("Never", None, Main, 1, false),
            ("Always", None, Init, 0, false),
            ("Always", None, Init, 1, true),
            ("Never", Some("Always"), Init, 0, true),
            ("Never", Some("Always"), Main, 0, true),
            ("Always", Some("Never"), Main, 1, false),
            ("Always", None, Ephemeral, 1, false),
        ] {
            let spec = PodSpec {
                restart_policy: Some(pod_policy.into()),
                ..Default::default()
            };
            let container = Container {
                restart_policy: own_policy.map(Into::into),
                ..Default::default()
            };
            let got = is_restartable(&spec, kind, &container, exit_code);
            assert_eq!(got, want, "{pod_policy} {own_policy:?} {kind:?} {exit_code}");
        }
    }

    #[test]
    fn rules_go_before_policies() {
        let rule = |operator: &str, values: Vec<i32>| ContainerRestartRule {
            action: "Restart".into(),
            exit_codes: Some(ContainerRestartRuleOnExitCodes {
                operator: operator.into(),
                values: Some(values),
            }),
        };
        let spec = PodSpec {
            restart_policy: Some("Never".into()),
            ..Default::default()
        };
        for (rule, exit_code, want) in [
            (rule("In", vec![42]), 42, true),
            (rule("In", vec![42]), 1, false),
            (rule("NotIn", vec![42]), 1, true),
            (rule("NotIn", vec![42]), 42, false),
        ] {
            let container = Container {
                restart_policy: Some("Never".into()),
                restart_policy_rules: Some(vec![rule.clone()]),
                ..Default::default()
            };
            let got = is_restartable(&spec, ContainerKind::Main, &container, exit_code);
            assert_eq!(got, want, "{rule:?} {exit_code}");
            let init = is_restartable(&spec, ContainerKind::Init, &container, exit_code);
            assert_eq!(init, want, "an init container by {rule:?} {exit_code}");
        }
        let anything = Container {
            restart_policy_rules: Some(vec![rule("NotIn", vec![])]),
            ..Default::default()
        };
        assert!(
            !is_restartable(&spec, ContainerKind::Init, &anything, 0),
            "an init container that succeeded is done"
        );
    }

    #[test]
    fn one_may_restart_them_all() {
        let rule = |action: &str, code| ContainerRestartRule {
            action: action.into(),
            exit_codes: Some(ContainerRestartRuleOnExitCodes {
                operator: "In".into(),
                values: Some(vec![code]),
            }),
        };
        let container = Container {
            restart_policy_rules: Some(vec![rule("Restart", 1), rule(RESTART_ALL, 1), rule(RESTART_ALL, 42)]),
            ..Default::default()
        };
        assert!(restarts_all(&container, 42));
        assert!(!restarts_all(&container, 1), "the first rule that matches decides");
        assert!(!restarts_all(&container, 2));
        let spec = |container| PodSpec {
            init_containers: Some(vec![container]),
            ..Default::default()
        };
        assert!(may_restart_all(&spec(container)) && !may_restart_all(&spec(named("plain"))));
    }
}
