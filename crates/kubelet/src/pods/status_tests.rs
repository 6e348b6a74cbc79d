//! The status, by tables: what a user reads in `kubectl get pods` and in the conditions.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use serde_json::json;

use super::*;
use crate::pods::fixtures::{NOW, at, observed, pod};
use crate::pods::memory::{Verdict, Waiting};
use crate::pods::plan::plan;
use crate::probes::Kind;

fn told(pod: &Pod, observed: &Observed, memory: &Memory) -> PodStatus {
    let plan = plan(pod, false, observed, memory, at(NOW));
    let facts = Facts {
        host_ips: &["192.0.2.1".into()],
        now: at(NOW),
    };
    status(pod, observed, memory, &plan, &facts)
}

/// `name=state`, the state being a reason or `run`, with `+` when ready and `~` before what was last.
fn containers(status: &PodStatus) -> String {
    let state = |state: &ContainerState| match (&state.waiting, &state.running, &state.terminated) {
        (Some(waiting), ..) => waiting.reason.clone().unwrap(),
        (_, Some(_), _) => "run".into(),
        (_, _, Some(ended)) => ended.reason.clone().unwrap(),
        _ => String::new(),
    };
    let one = |status: &ContainerStatus| {
        let last = state(status.last_state.as_ref().unwrap());
        let last = if last.is_empty() { last } else { format!("~{last}") };
        let ready = if status.ready { "+" } else { "" };
        format!("{}={}{last}{ready}", status.name, state(status.state.as_ref().unwrap()))
    };
    let inits = status.init_container_statuses.iter().flatten();
    inits
        .chain(status.container_statuses.iter().flatten())
        .map(one)
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn phases_and_containers() {
    let cases = [
        ("Always", "a", "", "", "Pending", "a=ContainerCreating"),
        (
            "Always",
            "init a",
            "s0",
            "",
            "Pending",
            "init=PodInitializing a=PodInitializing",
        ),
        (
            "Always",
            "init a",
            "s0",
            "init:0@s0=run",
            "Pending",
            "init=run a=PodInitializing",
        ),
        (
            "Always",
            "init a",
            "s0",
            "init:0@s0=0",
            "Pending",
            "init=Completed+ a=PodInitializing",
        ),
        (
            "Never",
            "init a",
            "s0",
            "init:0@s0=1",
            "Failed",
            "init=Error a=PodInitializing",
        ),
        (
            "Always",
            "init a",
            "s0",
            "init:1@s0=run init:0@s0=1",
            "Pending",
            "init=run~Error a=PodInitializing",
        ),
        (
            "Always",
            "side a",
            "s0",
            "side:0@s0=run",
            "Pending",
            "side=run+ a=PodInitializing",
        ),
        (
            "Always",
            "b a",
            "s0",
            "a:0@s0=run",
            "Pending",
            "a=run+ b=ContainerCreating",
        ),
        (
            "Always",
            "a b",
            "s0",
            "b:0@s0=run a:0@s0=run",
            "Running",
            "a=run+ b=run+",
        ),
        (
            "Always",
            "a b",
            "s0",
            "b:0@s0=1 a:0@s0=run",
            "Running",
            "a=run+ b=Error",
        ),
        ("Always", "a", "s0", "a:1@s0=run a:0@s0=1", "Running", "a=run~Error+"),
        (
            "Never",
            "a b",
            "s0",
            "b:0@s0=0 a:0@s0=run",
            "Running",
            "a=run+ b=Completed",
        ),
        (
            "Never",
            "a b",
            "s0",
            "b:0@s0=0 a:0@s0=0",
            "Succeeded",
            "a=Completed b=Completed",
        ),
        (
            "Never",
            "a b",
            "s0",
            "b:0@s0=0 a:0@s0=2",
            "Failed",
            "a=Error b=Completed",
        ),
        ("OnFailure", "a", "s0", "a:0@s0=2", "Running", "a=Error"),
        ("OnFailure", "a", "s0", "a:0@s0=0", "Succeeded", "a=Completed"),
        (
            "Never",
            "side a",
            "s0",
            "a:0@s0=0 side:0@s0=run",
            "Running",
            "side=run+ a=Completed",
        ),
        (
            "Never",
            "side a",
            "s0",
            "a:0@s0=0 side:0@s0=143",
            "Succeeded",
            "side=Error a=Completed",
        ),
    ];
    for (policy, names, sandboxes, seen, phase, expected) in cases {
        let status = told(&pod(policy, names), &observed(sandboxes, seen), &Memory::default());
        let case = format!("{policy} {names} | {sandboxes} | {seen}");
        assert_eq!(containers(&status), expected, "{case}");
        assert_eq!(status.phase.as_deref(), Some(phase), "{case}");
    }
}

#[test]
fn why_a_container_waits() {
    let mut memory = Memory::default();
    memory
        .waiting
        .insert("a".into(), Waiting::new("ErrImagePull", "no such image"));
    let status = told(&pod("Always", "a"), &observed("s0", ""), &memory);
    assert_eq!(
        (containers(&status).as_str(), status.phase.as_deref()),
        ("a=ErrImagePull", Some("Pending"))
    );

    let mut memory = Memory::default();
    memory.restarts.next("a", at(NOW - 5), at(NOW - 5));
    let status = told(&pod("Always", "a"), &observed("s0", "a:2@s0=1"), &memory);
    assert_eq!(
        (containers(&status).as_str(), status.phase.as_deref()),
        ("a=CrashLoopBackOff~Error", Some("Running"))
    );
    assert_eq!(status.container_statuses.unwrap()[0].restart_count, 2);
}

#[test]
fn a_container_is_not_up_before_its_hook_is_done() {
    let seen = observed("s0", "a:0@s0=run");
    let mut memory = Memory::default();
    memory.hooking.insert("a0".into());
    let status = told(&pod("Always", "a"), &seen, &memory);
    assert_eq!(
        (containers(&status).as_str(), status.phase.as_deref()),
        ("a=ContainerCreating", Some("Pending"))
    );
    let mut memory = Memory::default();
    memory.unhooked.insert("a0".into());
    memory
        .waiting
        .insert("a".into(), Waiting::new("PostStartHookError", "it failed"));
    let status = told(&pod("Always", "a"), &seen, &memory);
    assert_eq!(containers(&status), "a=PostStartHookError");
    let status = told(&pod("Always", "a"), &observed("s0", "a:0@s0=137"), &memory);
    assert_eq!(containers(&status), "a=PostStartHookError~Error");
    let status = told(&pod("Never", "a"), &observed("s0", "a:0@s0=137"), &memory);
    assert_eq!(
        (containers(&status).as_str(), status.phase.as_deref()),
        ("a=Error", Some("Failed"))
    );
}

#[test]
fn a_container_keeps_ready_until_it_ends() {
    let mut pod = pod("Always", "a");
    pod.metadata.deletion_timestamp = Some(Time(at(NOW)));
    let status = told(&pod, &observed("s0", "a:0@s0=run"), &Memory::default());
    assert_eq!(containers(&status), "a=run+");
}

#[test]
fn each_container_has_its_policy_and_rules() {
    let rule = |code| json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [code]}}]);
    for (pod_policy, own, rules, code, phase) in [
        ("Always", Some("Never"), None, 1, "Failed"),
        ("Always", Some("Never"), None, 0, "Succeeded"),
        ("Never", Some("Always"), None, 0, "Running"),
        ("Never", Some("OnFailure"), None, 1, "Running"),
        ("Never", Some("OnFailure"), None, 0, "Succeeded"),
        ("Never", Some("Never"), Some(rule(7)), 7, "Running"),
        ("Never", Some("Never"), Some(rule(7)), 8, "Failed"),
    ] {
        let mut pod = pod(pod_policy, "a");
        let container = &mut pod.spec.as_mut().unwrap().containers[0];
        container.restart_policy = own.map(str::to_owned);
        container.restart_policy_rules = rules.clone().map(|rules| serde_json::from_value(rules).unwrap());
        let status = told(&pod, &observed("s0", &format!("a:0@s0={code}")), &Memory::default());
        assert_eq!(
            status.phase.as_deref(),
            Some(phase),
            "{pod_policy} {own:?} {rules:?} {code}"
        );
    }
}

#[test]
fn all_containers_start_anew() {
    let mut pod = pod("Never", "init a b");
    let rules = json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]);
    let container = &mut pod.spec.as_mut().unwrap().containers[0];
    container.restart_policy_rules = serde_json::from_value(rules).unwrap();
    let restarting = |status: &PodStatus| {
        conditions(status)
            .into_iter()
            .find(|condition| condition.starts_with("AllContainersRestarting"))
            .unwrap()
    };
    let mut see = |seen: &str| {
        let status = told(&pod, &observed("s0", seen), &Memory::default());
        pod.status = Some(status.clone());
        let counts: Vec<i32> = status
            .init_container_statuses
            .iter()
            .chain(&status.container_statuses)
            .flatten()
            .map(|status| status.restart_count)
            .collect();
        (
            containers(&status),
            counts,
            status.phase.clone().unwrap(),
            restarting(&status),
        )
    };
    const NO: &str = "AllContainersRestarting=False";
    const YES: &str =
        "AllContainersRestarting=True RestartAllContainersStarted: container exited with restart policy rule";
    const GONE: &str = "RestartingAllContainers~RestartingAllContainers";
    let running = "init=Completed+ a=run+ b=run+".to_owned();
    let first = see("b:0@s0=run a:0@s0=run init:0@s0=0");
    assert_eq!(first, (running, vec![0, 0, 0], "Running".into(), NO.into()));
    let second = see("b:0@s0=run a:0@s0=42 init:0@s0=0");
    let asked = "init=Completed+ a=Error b=run+".to_owned();
    assert_eq!(second, (asked, vec![0, 0, 0], "Running".into(), YES.into()));
    let third = see("a:0@s0=42");
    let going = format!("init={GONE} a=Error b={GONE}");
    assert_eq!(third, (going, vec![1, 0, 1], "Running".into(), YES.into()));
    for _ in 0..2 {
        let gone = format!("init={GONE} a={GONE} b={GONE}");
        assert_eq!(see("").1, vec![1, 1, 1]);
        assert_eq!(
            see("").0,
            gone.replace("=RestartingAllContainers~", "=PodInitializing~")
        );
    }
    let again = see("init:1@s0=run");
    assert_eq!((again.2.as_str(), again.3.as_str()), ("Pending", NO));
    let up = see("b:1@s0=run a:1@s0=run init:1@s0=0");
    let anew = "init=Completed~RestartingAllContainers+ a=run~RestartingAllContainers+ b=run~RestartingAllContainers+";
    assert_eq!(up, (anew.to_owned(), vec![1, 1, 1], "Running".into(), NO.into()));
}

#[test]
fn what_the_runtime_has_forgotten_is_in_the_status() {
    let mut pod = pod("Always", "a");
    let status = |state| json!({"containerStatuses": [{"name": "a", "restartCount": 2, "state": state}]});
    pod.status = serde_json::from_value(status(json!({"running": {}}))).unwrap();
    let lost = told(&pod, &observed("s0", ""), &Memory::default());
    assert_eq!(
        (containers(&lost).as_str(), lost.phase.as_deref()),
        ("a=ContainerCreating~ContainerStatusUnknown", Some("Running"))
    );
    assert_eq!(lost.container_statuses.as_ref().unwrap()[0].restart_count, 3);
    pod.status = Some(lost.clone());
    let once = told(&pod, &observed("s0", ""), &Memory::default());
    assert_eq!(once.container_statuses, lost.container_statuses, "it is counted once");
    pod.status = serde_json::from_value(status(json!({"terminated": {"exitCode": 1, "reason": "Error"}}))).unwrap();
    let ended = told(&pod, &observed("s0", ""), &Memory::default());
    assert_eq!(containers(&ended), "a=Error");
}

#[test]
fn last_words_share_what_there_is() {
    let mut seen = observed("s0", "b:0@s0=1 a:0@s0=1");
    for instance in &mut seen.instances {
        instance.message = "é".repeat(5000);
    }
    let status = told(&pod("Never", "a b c"), &seen, &Memory::default());
    let words = |status: &ContainerStatus| {
        let ended = status.state.as_ref()?.terminated.as_ref()?;
        Some(ended.message.as_ref()?.len())
    };
    let lengths: Vec<_> = status.container_statuses.iter().flatten().map(words).collect();
    assert_eq!(lengths, [Some(4096), Some(4096), None]);
}

#[test]
fn probes_decide_on_ready_and_started() {
    let mut pod = pod("Always", "a");
    let container = &mut pod.spec.as_mut().unwrap().containers[0];
    container.readiness_probe = Some(Default::default());
    container.startup_probe = Some(Default::default());
    let mut memory = Memory::default();
    for (found, started, ready) in [
        (None, false, false),
        (Some((Kind::Startup, true)), true, false),
        (Some((Kind::Readiness, true)), true, true),
        (Some((Kind::Readiness, false)), true, false),
    ] {
        if let Some((kind, good)) = found {
            memory.probes.set("a0", kind, good);
        }
        let status = told(&pod, &observed("s0", "a:0@s0=run"), &memory);
        let container = &status.container_statuses.as_ref().unwrap()[0];
        assert_eq!(
            (container.started, container.ready),
            (Some(started), ready),
            "{found:?}"
        );
    }
}

/// `Type=True|False(reason)message` of each condition of the kubelet, but PodScheduled.
fn conditions(status: &PodStatus) -> Vec<String> {
    let conditions = status
        .conditions
        .iter()
        .flatten()
        .filter(|condition| condition.type_ != "PodScheduled");
    let one = |condition: &k8s_openapi::api::core::v1::PodCondition| {
        let reason = condition
            .reason
            .as_ref()
            .map(|reason| format!(" {reason}"))
            .unwrap_or_default();
        let message = condition
            .message
            .as_ref()
            .map(|message| format!(": {message}"))
            .unwrap_or_default();
        format!("{}={}{reason}{message}", condition.type_, condition.status)
    };
    conditions.map(one).collect()
}

#[test]
fn conditions_say_what_is_missing() {
    let cases: [(&str, &str, &str, &str, [&str; 4]); 6] = [
        (
            "Always",
            "init a",
            "",
            "",
            [
                "PodReadyToStartContainers=False",
                "Initialized=False ContainersNotInitialized: containers with incomplete status: [init]",
                "Ready=False ContainersNotReady: containers with unready status: [a]",
                "ContainersReady=False ContainersNotReady: containers with unready status: [a]",
            ],
        ),
        (
            "Always",
            "a b",
            "s0",
            "b:0@s0=1 a:0@s0=1",
            [
                "PodReadyToStartContainers=True",
                "Initialized=True",
                "Ready=False ContainersNotReady: containers with unready status: [a b]",
                "ContainersReady=False ContainersNotReady: containers with unready status: [a b]",
            ],
        ),
        (
            "Always",
            "side a",
            "s0",
            "a:0@s0=run side:0@s0=1",
            [
                "PodReadyToStartContainers=True",
                "Initialized=True",
                "Ready=False ContainersNotReady: containers with unready status: [side]",
                "ContainersReady=False ContainersNotReady: containers with unready status: [side]",
            ],
        ),
        (
            "Always",
            "a",
            "s0",
            "a:0@s0=run",
            [
                "PodReadyToStartContainers=True",
                "Initialized=True",
                "Ready=True",
                "ContainersReady=True",
            ],
        ),
        (
            "Never",
            "a",
            "-s0",
            "a:0@s0=0",
            [
                "PodReadyToStartContainers=False",
                "Initialized=True PodCompleted",
                "Ready=False PodCompleted",
                "ContainersReady=False PodCompleted",
            ],
        ),
        (
            "Never",
            "a",
            "-s0",
            "a:0@s0=1",
            [
                "PodReadyToStartContainers=False",
                "Initialized=True",
                "Ready=False PodFailed",
                "ContainersReady=False PodFailed",
            ],
        ),
    ];
    for (policy, names, sandboxes, seen, expected) in cases {
        let status = told(&pod(policy, names), &observed(sandboxes, seen), &Memory::default());
        assert_eq!(conditions(&status), expected, "{policy} {names} | {sandboxes} | {seen}");
    }
}

#[test]
fn a_condition_keeps_its_time_and_others_keep_theirs() {
    let mut pod = pod("Always", "a");
    pod.status = serde_json::from_value(serde_json::json!({"conditions": [
        {"type": "Ready", "status": "True", "lastTransitionTime": at(5)},
        {"type": "example.org/mine", "status": "True", "lastTransitionTime": at(6)},
    ]}))
    .unwrap();
    let status = told(&pod, &observed("s0", "a:0@s0=run"), &Memory::default());
    let since = |kind: &str| {
        let found = status
            .conditions
            .iter()
            .flatten()
            .find(|condition| condition.type_ == kind)
            .unwrap();
        found.last_transition_time.as_ref().unwrap().0
    };
    assert_eq!(
        (since("Ready"), since("example.org/mine"), since("Initialized")),
        (at(5), at(6), at(NOW))
    );
}

#[test]
fn a_verdict_is_said_when_the_last_container_has_ended() {
    let verdict = Verdict {
        reason: "Evicted".into(),
        message: "too much".into(),
        grace: None,
        disrupts: true,
    };
    let memory = Memory {
        verdict: Some(verdict),
        ..Memory::default()
    };
    let still = told(&pod("Always", "a"), &observed("s0", "a:0@s0=run"), &memory);
    assert_eq!(
        (still.phase.as_deref(), still.reason.as_deref()),
        (Some("Running"), None)
    );
    let over = told(&pod("Always", "a"), &observed("s0", "a:0@s0=137"), &memory);
    assert_eq!(
        (over.phase.as_deref(), over.reason.as_deref(), over.message.as_deref()),
        (Some("Failed"), Some("Evicted"), Some("too much"))
    );
    assert!(conditions(&over).contains(&"DisruptionTarget=True TerminationByKubelet: too much".to_owned()));
}

#[test]
fn containers_of_a_pod_that_is_over_are_over_too() {
    let mut deleted = Memory::default();
    let late = Memory {
        verdict: Some(Verdict {
            reason: "DeadlineExceeded".into(),
            message: "late".into(),
            grace: None,
            disrupts: false,
        }),
        ..Memory::default()
    };
    deleted.waiting.insert("a".into(), Waiting::new("ErrImagePull", "no"));
    for (names, instances, expected) in [
        ("a b", "", "a=ContainerStatusUnknown b=ContainerStatusUnknown"),
        ("a b", "a:0@s0=0", "a=Completed b=ContainerStatusUnknown"),
        // What was not tried has nothing to show.
        (
            "init1 init2 a",
            "",
            "init1=ContainerStatusUnknown init2=PodInitializing a=PodInitializing",
        ),
        (
            "init1 init2 a",
            "init1:0@s0=1",
            "init1=Error init2=PodInitializing a=PodInitializing",
        ),
        (
            "init1 init2 a",
            "init2:0@s0=0 init1:0@s0=0",
            "init1=Completed+ init2=Completed+ a=ContainerStatusUnknown",
        ),
    ] {
        let over = told(&pod("Always", names), &observed("s0", instances), &late);
        assert_eq!(containers(&over), expected, "{names} {instances}");
        assert_eq!(over.phase.as_deref(), Some("Failed"));
    }
    // It was deleted while it waited for its image.
    let mut pod = pod("Always", "a");
    let waits = told(&pod, &observed("s0", ""), &deleted);
    assert_eq!(
        (containers(&waits).as_str(), waits.phase.as_deref()),
        ("a=ErrImagePull", Some("Pending"))
    );
    pod.metadata.deletion_timestamp = Some(Time(at(NOW)));
    let over = told(&pod, &observed("s0", ""), &deleted);
    assert_eq!(
        (containers(&over).as_str(), over.phase.as_deref()),
        ("a=ContainerStatusUnknown", Some("Failed"))
    );
}

#[test]
fn a_deleted_pod_that_has_ended_is_over_whatever_its_policy() {
    for (code, phase) in [(0, "Succeeded"), (137, "Failed")] {
        let mut pod = pod("Always", "a");
        pod.metadata.deletion_timestamp = Some(Time(at(NOW)));
        let status = told(&pod, &observed("s0", &format!("a:0@s0={code}")), &Memory::default());
        assert_eq!(status.phase.as_deref(), Some(phase));
    }
}

#[test]
fn addresses() {
    let status = told(&pod("Always", "a"), &observed("s0", ""), &Memory::default());
    assert_eq!(
        (status.pod_ip.as_deref(), status.host_ip.as_deref()),
        (Some("10.0.0.1"), Some("192.0.2.1"))
    );
    let mut pod = pod("Never", "a");
    pod.status = Some(PodStatus {
        pod_ip: Some("10.0.0.9".into()),
        ..Default::default()
    });
    let over = told(&pod, &observed("-s0", "a:0@s0=0"), &Memory::default());
    assert_eq!(over.pod_ip.as_deref(), Some("10.0.0.9"), "where it was");
}
