//! What the scheduler does with changes, without an API server.
#![allow(clippy::unwrap_used, reason = "the fixtures are constants")]

use super::*;

fn pod(conditions: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "uid": "u", "generation": 1},
        "status": {"conditions": conditions},
    }))
    .unwrap()
}

#[test]
fn a_condition_is_written_once() {
    let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
    let condition = |since: &str, message: &str| {
        json!({
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
            "lastTransitionTime": since, "observedGeneration": 1,
        })
    };
    let patched = |conditions: Value| condition_patch(&pod(conditions), "Unschedulable", "full", now);
    let want =
        |since: &str| Some(json!({"metadata": {"uid": "u"}, "status": {"conditions": [condition(since, "full")]}}));
    assert_eq!(patched(json!([])), want("2026-01-02T00:00:00Z"));
    assert_eq!(patched(json!([condition("2026-01-01T00:00:00Z", "full")])), None);
    assert_eq!(
        patched(json!([condition("2026-01-01T00:00:00Z", "other")])),
        want("2026-01-01T00:00:00Z")
    );
}

#[test]
fn long_messages_are_cut() {
    assert_eq!(shortened("short"), "short");
    let cut = shortened(&"é".repeat(1000));
    assert!(cut.len() <= LONGEST_MESSAGE && cut.ends_with("é ..."), "{}", cut.len());
}

#[test]
fn what_of_a_node_is_news() {
    let node = |value: Value| -> Node { serde_json::from_value(value).unwrap() };
    let base = json!({"status": {"allocatable": {"cpu": "1"}, "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]}});
    let mut heartbeat = base.clone();
    heartbeat["status"]["conditions"][0]["lastHeartbeatTime"] = json!("2026-01-01T00:01:00Z");
    let mut not_ready = base.clone();
    not_ready["status"]["conditions"][0]["status"] = json!("False");
    let mut larger = base.clone();
    larger["status"]["allocatable"]["cpu"] = json!("2");
    for (other, same) in [(heartbeat, true), (not_ready, false), (larger, false)] {
        assert_eq!(
            offers_the_same(&node(base.clone()), &node(other.clone())),
            same,
            "{other}"
        );
    }
}
