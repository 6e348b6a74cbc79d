//! The plan, by tables: what stands on the left is what a worker sees, on the right what it does.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use serde_json::{Value, json};

use super::*;
use crate::cri_config::labels;
use crate::pods::fixtures::{NOW, at, observed, pod};
use crate::pods::memory::{End, Verdict};

fn words(plan: &Plan) -> String {
    let word = |action: &Action| match action {
        Action::CreateSandbox { attempt } => format!("sandbox{attempt}"),
        Action::StopSandbox { id } => format!("stop-{id}"),
        Action::Start { name, restarts, .. } => format!("start-{name}{restarts}"),
        Action::Resize => "resize".into(),
        Action::End { id, grace, hook, .. } => format!("end-{id}/{grace}{}", if *hook { "+hook" } else { "" }),
        Action::Stop { id, grace } => format!("stop-{id}/{grace}"),
        Action::RemoveInstance { id } => format!("rm-{id}"),
        Action::RemoveSandbox { id } => format!("rm-{id}"),
        Action::Release => "release".into(),
        Action::CleanUp => "clean".into(),
        Action::Forget => "forget".into(),
    };
    plan.actions.iter().map(word).collect::<Vec<_>>().join(" ")
}

fn planned(pod: &Pod, observed: &Observed, memory: &Memory) -> Plan {
    plan(pod, false, observed, memory, at(NOW))
}

#[test]
fn a_pod_comes_up_in_order() {
    let cases = [
        // sandbox first, then init containers one by one, then the apps together
        ("Always", "a b", "", "", "sandbox0"),
        ("Always", "a b", "s0", "", "start-a0 start-b0"),
        ("Always", "a b", "s0", "a:0@s0=run", "start-b0"),
        ("Always", "a b", "s0", "b:0@s0=run a:0@s0=run", ""),
        ("Always", "init a", "s0", "", "start-init0"),
        ("Always", "init a", "s0", "init:0@s0=run", ""),
        ("Always", "init a", "s0", "init:0@s0=0", "start-a0"),
        ("Always", "init init2 a", "s0", "init:0@s0=0", "start-init20"),
        ("Always", "init a", "s0", "init:0@s0=1", "start-init1"),
        ("Never", "init a", "s0", "init:0@s0=1", "stop-s0 release"),
        // a sidecar must run before what follows it, and is restarted beside the apps
        ("Always", "side init a", "s0", "", "start-side0"),
        ("Always", "side init a", "s0", "side:0@s0=run", "start-init0"),
        ("Always", "side init a", "s0", "init:0@s0=0 side:0@s0=run", "start-a0"),
        ("Never", "side a", "s0", "a:0@s0=run side:0@s0=1", "start-side1"),
        // an init container that was forgotten after the apps began is not run again
        ("Always", "init a", "s0", "a:0@s0=run", ""),
        // made and not started by an earlier kubelet
        ("Always", "a", "s0", "a:0@s0=new", "rm-a0"),
    ];
    for (policy, names, sandboxes, seen, expected) in cases {
        let plan = planned(&pod(policy, names), &observed(sandboxes, seen), &Memory::default());
        assert_eq!(words(&plan), expected, "{policy} {names} | {sandboxes} | {seen}");
    }
}

#[test]
fn ephemeral_containers_start_once() {
    let mut pod = pod("Always", "init a");
    pod.spec.as_mut().unwrap().ephemeral_containers =
        serde_json::from_value(json!([{"name": "debug"}, {"name": "more"}])).unwrap();
    for (seen, expected) in [
        ("", "start-debug0 start-more0 start-init0"),
        ("more:0@s0=run debug:0@s0=1", "start-init0"),
        ("a:0@s0=run debug:0@s0=0", "start-more0"),
        ("a:0@s0=run more:0@s0=new debug:0@s0=run", "rm-more0"),
    ] {
        let plan = planned(&pod, &observed("s0", seen), &Memory::default());
        assert_eq!(words(&plan), expected, "{seen}");
    }
    let mut over = pod.clone();
    over.spec.as_mut().unwrap().restart_policy = Some("Never".into());
    let plan = planned(
        &over,
        &observed("s0", "a:0@s0=0 init:0@s0=0 debug:0@s0=run"),
        &Memory::default(),
    );
    assert_eq!(
        words(&plan),
        "end-debug0/30 stop-debug0/30",
        "the pod does not wait for who looks around in it"
    );
}

#[test]
fn what_ends_is_restarted_by_its_policy() {
    let cases = [
        ("Always", "a:0@s0=0", "start-a1", false),
        ("Always", "a:3@s0=1 a:2@s0=1", "start-a4 rm-a2", false),
        ("OnFailure", "a:0@s0=1", "start-a1", false),
        ("OnFailure", "a:0@s0=0", "stop-s0 release", true),
        ("Never", "a:0@s0=1", "stop-s0 release", true),
    ];
    for (policy, seen, expected, ended) in cases {
        let plan = planned(&pod(policy, "a"), &observed("s0", seen), &Memory::default());
        assert_eq!(
            (words(&plan).as_str(), plan.ended),
            (expected, ended),
            "{policy} {seen}"
        );
    }
    let both = planned(
        &pod("Never", "a b"),
        &observed("s0", "b:0@s0=run a:0@s0=0"),
        &Memory::default(),
    );
    assert_eq!(
        (words(&both).as_str(), both.ended),
        ("", false),
        "the pod is over with its last container"
    );
}

#[test]
fn a_container_that_keeps_failing_waits() {
    let mut memory = Memory::default();
    memory.restarts.next("a", at(NOW - 5), at(NOW - 5));
    let plan = planned(&pod("Always", "a"), &observed("s0", "a:1@s0=1"), &memory);
    assert_eq!(words(&plan), "");
    assert_eq!(plan.wake, Some(at(NOW + 9)));
    let (name, waiting) = &plan.held_back[0];
    assert_eq!((name.as_str(), waiting.reason.as_str()), ("a", "CrashLoopBackOff"));
    assert_eq!(waiting.message, "back-off 10s restarting failed container=a pod=p_n(u)");
    let later = super::plan(
        &pod("Always", "a"),
        false,
        &observed("s0", "a:1@s0=1"),
        &memory,
        at(NOW + 9),
    );
    assert_eq!(words(&later), "start-a2");
}

#[test]
fn what_cannot_start_yet_does_not_keep_others_away() {
    let mut memory = Memory::default();
    memory.retry_at.insert("a".into(), at(NOW + 7));
    let plan = planned(&pod("Always", "a b"), &observed("s0", ""), &memory);
    assert_eq!((words(&plan).as_str(), plan.wake), ("start-b0", Some(at(NOW + 7))));
}

#[test]
fn a_dead_sandbox_is_replaced_and_everything_starts_again() {
    let cases = [
        ("Always", "init a", "-s0", "a:0@s0=137 init:0@s0=0", "sandbox1"),
        ("Always", "init a", "s1 -s0", "a:0@s0=137 init:0@s0=0", "start-init1"),
        (
            "Always",
            "init a",
            "s1 -s0",
            "init:1@s1=0 a:0@s0=137 init:0@s0=0",
            "start-a1 rm-init0",
        ),
        ("Always", "a", "s1 -s0", "a:1@s1=run", "rm-s0"),
        ("OnFailure", "a b", "s1 -s0", "b:0@s0=0 a:0@s0=137", "start-a1"),
        ("Never", "a", "-s0", "a:0@s0=137", "release"),
        ("Always", "a", "-s0", "a:0@s0=run", "stop-s0"),
        ("Always", "a", "s1 s0", "", "stop-s0 start-a0"),
    ];
    for (policy, names, sandboxes, seen, expected) in cases {
        let plan = planned(&pod(policy, names), &observed(sandboxes, seen), &Memory::default());
        assert_eq!(words(&plan), expected, "{policy} {names} | {sandboxes} | {seen}");
    }
    let mut memory = Memory::default();
    memory.retry_at.insert(String::new(), at(NOW + 4));
    let plan = planned(&pod("Always", "a"), &observed("", ""), &memory);
    assert_eq!((words(&plan).as_str(), plan.wake), ("", Some(at(NOW + 4))));
}

#[test]
fn a_changed_image_ends_its_container() {
    let pod = pod("Always", "a");
    let mut seen = observed("s0", "a:0@s0=run");
    seen.instances[0].hash = "other".into();
    let plan = planned(&pod, &seen, &Memory::default());
    let why = Some("Container a definition changed, will be restarted".to_owned());
    let (id, name) = ("a0".to_owned(), "a".to_owned());
    let end = Action::End {
        id: id.clone(),
        name,
        grace: 30,
        why,
        hook: false,
    };
    assert_eq!(plan.actions, [end, Action::Stop { id, grace: 30 }]);
    seen.instances[0].hash = labels::hash(pod.containers().next().unwrap().1);
    assert_eq!(words(&planned(&pod, &seen, &Memory::default())), "");
}

fn deleted(names: &str, grace: i64) -> Pod {
    let mut pod = pod("Always", names);
    pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(NOW)));
    pod.metadata.deletion_grace_period_seconds = Some(grace);
    pod
}

#[test]
fn a_deleted_pod_goes_step_by_step() {
    let cases: [(&str, &str, &str); 6] = [
        (
            "s0",
            "b:0@s0=run a:0@s0=run side:0@s0=run",
            "end-b0/30 stop-b0/30 end-a0/30 stop-a0/30 end-side0/30",
        ),
        (
            "s0",
            "b:0@s0=0 a:0@s0=run side:0@s0=run",
            "end-a0/30 stop-a0/30 end-side0/30",
        ),
        ("s0", "b:0@s0=0 a:0@s0=0 side:0@s0=run", "end-side0/30 stop-side0/30"),
        (
            "s0",
            "b:0@s0=0 a:0@s0=0 side:0@s0=0",
            "stop-s0 rm-b0 rm-a0 rm-side0 rm-s0 clean forget",
        ),
        ("", "", "clean forget"),
        ("-s0", "", "rm-s0 clean forget"),
    ];
    for (sandboxes, seen, expected) in cases {
        let plan = planned(&deleted("side a b", 30), &observed(sandboxes, seen), &Memory::default());
        assert_eq!(words(&plan), expected, "{sandboxes} | {seen}");
        assert!(plan.ended && !plan.finished);
    }
    let memory = Memory {
        cleaned: true,
        forgotten: true,
        ..Memory::default()
    };
    let waiting = planned(&deleted("a", 30), &observed("", ""), &memory);
    assert_eq!(
        (words(&waiting).as_str(), waiting.finished),
        ("", false),
        "the API server has not said that it is gone"
    );
    let gone = plan(&deleted("a", 30), true, &observed("", ""), &memory, at(NOW));
    assert!(gone.finished && gone.actions.is_empty());
}

#[test]
fn the_last_sidecar_ends_first() {
    let plan = planned(
        &deleted("side1 side2 a", 30),
        &observed("s0", "a:0@s0=0 side2:0@s0=run side1:0@s0=run"),
        &Memory::default(),
    );
    assert_eq!(words(&plan), "end-side20/30 stop-side20/30 end-side10/30");
}

/// Instances that were told to end and are killed at `deadline`, those after `+` with a hook that still runs.
fn told(ids: &str, deadline: i64) -> Memory {
    let one = |id: &str| {
        let deadline = at(deadline);
        let hooking = id.starts_with('+');
        (id.trim_start_matches('+').to_owned(), End { deadline, hooking })
    };
    Memory {
        ends: ids.split_whitespace().map(one).collect(),
        ..Memory::default()
    }
}

#[test]
fn hooks_run_at_once_and_stops_wait_for_them_and_for_their_turn() {
    let mut pod = deleted("side1 side2 a b", 30);
    for name in ["side1", "a"] {
        let spec = pod.spec.as_mut().unwrap();
        let mut all = spec.init_containers.iter_mut().flatten().chain(&mut spec.containers);
        let container = all.find(|container| container.name == name).unwrap();
        container.lifecycle = serde_json::from_value(json!({"preStop": {"sleep": {"seconds": 5}}})).unwrap();
    }
    let all = "b:0@s0=run a:0@s0=run side2:0@s0=run side1:0@s0=run";
    let sides = "b:0@s0=0 a:0@s0=0 side2:0@s0=run side1:0@s0=run";
    let side1 = "b:0@s0=0 a:0@s0=0 side2:0@s0=0 side1:0@s0=run";
    let ids = "b0 a0 side20 side10";
    let cases = [
        (
            all,
            "",
            30,
            "end-b0/30 stop-b0/30 end-a0/30+hook end-side20/30 end-side10/30+hook",
        ),
        (all, "b0 +a0 side20 +side10", 30, "stop-b0/30"),
        (all, "b0 a0 side20 +side10", 30, "stop-b0/30 stop-a0/30"),
        (sides, ids, 30, "stop-side20/30"),
        (side1, "b0 a0 side20 +side10", 30, ""),
        (side1, ids, 30, "stop-side10/30"),
        // when the time is over, neither hooks nor turns matter
        (
            all,
            "b0 +a0 side20 +side10",
            0,
            "stop-b0/2 stop-a0/2 stop-side20/2 stop-side10/2",
        ),
    ];
    for (seen, ends, left, expected) in cases {
        let mut memory = told(ends, NOW + left);
        memory.ending = Some((at(NOW + left - 30), 30));
        let plan = planned(&pod, &observed("s0", seen), &memory);
        assert_eq!(words(&plan), expected, "{seen} | {ends} | {left}");
    }
}

#[test]
fn a_container_that_ends_alone_has_its_own_time() {
    let mut pod = pod("Always", "a b");
    let container = &mut pod.spec.as_mut().unwrap().containers[0];
    container.lifecycle = serde_json::from_value(json!({"preStop": {"exec": {"command": ["x"]}}})).unwrap();
    let mut seen = observed("s0", "b:0@s0=run a:0@s0=run");
    seen.instances[1].hash = "other".into();
    for (ends, deadline, stopping, expected) in [
        ("", 0, false, "end-a0/30+hook"),
        ("+a0", NOW + 12, false, ""),
        ("a0", NOW + 12, false, "stop-a0/12"),
        ("a0", NOW + 12, true, ""),
        ("+a0", NOW - 1, false, "stop-a0/2"),
    ] {
        let mut memory = told(ends, deadline);
        if stopping {
            memory.stopping.insert("a0".into(), at(deadline));
        }
        let plan = planned(&pod, &seen, &memory);
        assert_eq!(words(&plan), expected, "{ends} {deadline} {stopping}");
    }
}

/// `a` wants all to start anew when it ends with 42.
fn resetting(policy: &str, names: &str) -> Pod {
    let mut pod = pod(policy, names);
    let rules = json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]);
    let spec = pod.spec.as_mut().unwrap();
    let container = spec
        .containers
        .iter_mut()
        .find(|container| container.name == "a")
        .unwrap();
    container.restart_policy = Some("Never".into());
    container.restart_policy_rules = serde_json::from_value(rules).unwrap();
    pod
}

#[test]
fn one_container_starts_all_anew() {
    let cases = [
        // whatever runs is ended, without a hook and with the least grace; then all go, the one that asked last
        (
            "Never",
            "init side a b",
            "b:0@s0=run a:0@s0=42 side:0@s0=run init:0@s0=0",
            "end-b0/0 stop-b0/2 end-side0/0 stop-side0/2",
        ),
        (
            "Never",
            "init side a b",
            "b:0@s0=137 a:0@s0=42 side:0@s0=137 init:0@s0=0",
            "rm-b0 rm-side0 rm-init0 rm-a0",
        ),
        ("Never", "init side a b", "a:0@s0=42", "rm-a0"),
        ("Never", "init side a b", "", "start-init0"),
        // another end is one for good
        ("Never", "a b", "b:0@s0=run a:0@s0=1", ""),
        ("Never", "a", "a:0@s0=1", "stop-s0 release"),
    ];
    for (policy, names, seen, expected) in cases {
        let plan = planned(&resetting(policy, names), &observed("s0", seen), &Memory::default());
        assert_eq!(words(&plan), expected, "{policy} {names} | {seen}");
    }
    let mut begun = resetting("Never", "a b");
    begun.status = serde_json::from_value(json!({
        "conditions": [{"type": "AllContainersRestarting", "status": "True"}],
        "containerStatuses": [{"name": "a", "restartCount": 3, "state": {"waiting": {}}}],
    }))
    .unwrap();
    let going_on = planned(&begun, &observed("s0", "b:0@s0=0"), &Memory::default());
    assert_eq!(words(&going_on), "rm-b0", "a new kubelet goes on");
    let done = planned(&begun, &observed("s0", ""), &Memory::default());
    assert_eq!(words(&done), "start-a3 start-b0", "and counts on");
}

#[test]
fn starting_all_anew_has_a_back_off_too() {
    let mut memory = Memory::default();
    memory.restarts.next("a", at(NOW - 5), at(NOW - 5));
    memory.reset.insert("a".into(), at(NOW - 1));
    let plan = planned(&resetting("Never", "a b"), &observed("s0", ""), &memory);
    assert_eq!((words(&plan).as_str(), plan.wake), ("start-b0", Some(at(NOW + 9))));
    assert_eq!(plan.held_back[0].1.reason, "CrashLoopBackOff");
}

#[test]
fn restarts_are_counted_on_when_the_runtime_has_forgotten_them() {
    for (state, next) in [
        ("waiting", "start-a4"),
        ("running", "start-a5"),
        ("terminated", "start-a5"),
    ] {
        let mut pod = pod("Always", "a");
        let state = json!({state: if state == "terminated" { json!({"exitCode": 1}) } else { json!({}) }});
        let status = json!({"containerStatuses": [{"name": "a", "restartCount": 4, "state": state}]});
        pod.status = serde_json::from_value(status).unwrap();
        let plan = planned(&pod, &observed("s0", ""), &Memory::default());
        assert_eq!(words(&plan), next, "{state}");
    }
}

#[test]
fn a_grace_period_is_shortened_and_never_lengthened() {
    let seen = observed("s0", "a:0@s0=run");
    let told = |grace: i64| Memory {
        ending: Some((at(NOW - 10), 30)),
        stopping: [("a0".to_owned(), at(NOW - 10 + grace))].into(),
        ..told("a0", NOW - 10 + grace)
    };
    for (asked, expected) in [
        (30, ""),
        (60, ""),
        (15, "stop-a0/5"),
        (1, "stop-a0/2"),
        (0, "stop-a0/2"),
    ] {
        assert_eq!(
            words(&planned(&deleted("a", asked), &seen, &told(30))),
            expected,
            "{asked}"
        );
    }
    assert_eq!(
        words(&planned(&deleted("a", 0), &seen, &told(11))),
        "",
        "it is about to be killed"
    );
}

#[test]
fn a_verdict_ends_the_pod_and_leaves_it_to_be_seen() {
    let verdict = |grace| {
        Some(Verdict {
            reason: "Evicted".into(),
            message: String::new(),
            grace,
            disrupts: false,
        })
    };
    let memory = Memory {
        verdict: verdict(Some(1)),
        ..Memory::default()
    };
    assert_eq!(
        words(&planned(&pod("Always", "a"), &observed("s0", "a:0@s0=run"), &memory)),
        "end-a0/1 stop-a0/2"
    );
    let over = planned(&pod("Always", "a"), &observed("s0", "a:0@s0=137"), &memory);
    // An evicted pod leaves nothing on the node's disk.
    assert_eq!((words(&over).as_str(), over.ended), ("stop-s0 release rm-a0", true));
    let memory = Memory {
        verdict: verdict(None),
        ..Memory::default()
    };
    assert_eq!(
        words(&planned(&pod("Always", "a"), &observed("s0", "a:0@s0=run"), &memory)),
        "end-a0/30 stop-a0/30"
    );
}

#[test]
fn a_phase_that_is_final_stays() {
    let mut over = pod("Always", "a");
    over.status = serde_json::from_value::<Value>(json!({"phase": "Failed"}))
        .ok()
        .and_then(|status| serde_json::from_value(status).ok());
    assert_eq!(
        words(&planned(&over, &observed("", ""), &Memory::default())),
        "release",
        "nothing is started"
    );
}

#[test]
fn a_pod_wakes_at_its_deadline() {
    let mut pod = pod("Always", "a");
    pod.spec.as_mut().unwrap().active_deadline_seconds = Some(60);
    pod.status = serde_json::from_value(json!({"startTime": at(NOW - 20)})).unwrap();
    assert_eq!(
        planned(&pod, &observed("s0", "a:0@s0=run"), &Memory::default()).wake,
        Some(at(NOW + 40))
    );
}
