//! Rollouts over fixtures of Deployments and ReplicaSets.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-01-01T00:10:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn deployment(change: impl FnOnce(&mut Value)) -> Deployment {
    let mut value = json!({
        "metadata": {"name": "web", "namespace": "ns", "uid": "d", "generation": 1},
        "spec": {
            "replicas": 10,
            "revisionHistoryLimit": 10,
            "progressDeadlineSeconds": 600,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2, "maxSurge": 3}},
            "template": template("i:2"),
        },
        "status": {},
    });
    change(&mut value);
    serde_json::from_value(value).unwrap()
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

/// A set whose template has the image, of a size, with so many pods and so many of them available.
fn set(image: &str, revision: i64, counts: (i32, i32, i32)) -> Arc<ReplicaSet> {
    let (size, present, available) = counts;
    let value = json!({
        "metadata": {
            "name": format!("web-{}", image.replace(':', "")), "namespace": "ns", "uid": image, "generation": 1,
            "creationTimestamp": format!("2026-01-01T00:00:{:02}Z", revision),
            "annotations": {
                "deployment.kubernetes.io/revision": revision.to_string(),
                "deployment.kubernetes.io/desired-replicas": "10",
                "deployment.kubernetes.io/max-replicas": "13",
            },
        },
        "spec": {"replicas": size, "selector": {}, "template": template(image)},
        "status": {"replicas": present, "readyReplicas": available, "availableReplicas": available, "observedGeneration": 1},
    });
    Arc::new(serde_json::from_value(value).unwrap())
}

fn changes(deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> Changes {
    reconcile(&Observed {
        deployment,
        sets,
        with_pods: &[],
        now: now(),
    })
}

/// The events of a round, and what is deleted.
fn told(changes: &Changes) -> Vec<String> {
    let updates = changes.create.iter().chain(&changes.update);
    let events = updates.flat_map(|update| update.events.clone());
    events
        .chain(changes.delete.iter().map(|name| format!("delete {name}")))
        .collect()
}

fn condition(changes: &Changes, kind: &str) -> Value {
    let status = json!(changes.status.as_ref().unwrap().status);
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.into_iter().find(|condition| condition["type"] == kind);
    found.map_or(Value::Null, |found| {
        json!([found["status"], found["reason"], found["message"]])
    })
}

#[test]
fn the_first_set_is_made_at_its_full_size() {
    let changes = changes(&deployment(|_| {}), &[]);
    let made = &changes.create.as_ref().unwrap().set;
    let name = made.metadata.name.clone().unwrap();
    assert_eq!(told(&changes), [format!("Scaled up replica set {name} from 0 to 10")]);
    assert_eq!(
        json!(made.metadata.annotations),
        json!({
            "deployment.kubernetes.io/revision": "1",
            "deployment.kubernetes.io/desired-replicas": "10",
            "deployment.kubernetes.io/max-replicas": "13",
        })
    );
    let status = changes.status.as_ref().unwrap();
    assert_eq!(
        json!(status.metadata.annotations),
        json!({"deployment.kubernetes.io/revision": "1"})
    );
    assert_eq!(
        condition(&changes, "Progressing"),
        json!([
            "True",
            "NewReplicaSetCreated",
            format!("Created new replica set \"{name}\"")
        ])
    );
    assert_eq!(
        condition(&changes, "Available"),
        json!([
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability."
        ])
    );
    let status = status.status.as_ref().unwrap();
    assert_eq!(
        (status.unavailable_replicas, status.terminating_replicas),
        (Some(10), Some(0))
    );
}

#[test]
fn rounds() {
    let rolling = || deployment(|_| {});
    let paused = || deployment(|value| value["spec"]["paused"] = true.into());
    let recreate = || deployment(|value| value["spec"]["strategy"] = json!({"type": "Recreate"}));
    let scaled = |replicas: i32| deployment(move |value| value["spec"]["replicas"] = replicas.into());
    let short = || deployment(|value| value["spec"]["revisionHistoryLimit"] = 1.into());
    let up = |name: &str, from: i32, to: i32| format!("Scaled up replica set web-{name} from {from} to {to}");
    let down = |name: &str, from: i32, to: i32| format!("Scaled down replica set web-{name} from {from} to {to}");
    for (what, deployment, sets, want) in [
        (
            "the new one grows as far as the surge lets it",
            rolling(),
            vec![set("i:1", 1, (10, 10, 10)), set("i:2", 2, (0, 0, 0))],
            vec![up("i2", 0, 3)],
        ),
        (
            "the old one shrinks as far as availability lets it",
            rolling(),
            vec![set("i:1", 1, (10, 10, 10)), set("i:2", 2, (3, 3, 0))],
            vec![down("i1", 10, 8)],
        ),
        (
            "nothing while nobody is ready",
            rolling(),
            vec![set("i:1", 1, (8, 8, 8)), set("i:2", 2, (5, 5, 0))],
            vec![],
        ),
        (
            "a ready new pod makes an old one go",
            rolling(),
            vec![set("i:1", 1, (8, 8, 8)), set("i:2", 2, (5, 5, 1))],
            vec![down("i1", 8, 7)],
        ),
        (
            "the broken ones of the old go first",
            rolling(),
            vec![
                set("i:0", 1, (2, 2, 0)),
                set("i:1", 2, (8, 8, 8)),
                set("i:2", 3, (3, 3, 0)),
            ],
            vec![down("i0", 2, 0)],
        ),
        (
            "an old one loses its broken ones and then some: both are told",
            rolling(),
            vec![set("i:1", 1, (10, 10, 9)), set("i:2", 2, (3, 3, 3))],
            vec![down("i1", 10, 9), down("i1", 9, 5)],
        ),
        (
            "scaled in a rollout, the history stays",
            deployment(|value| {
                value["spec"]["replicas"] = 20.into();
                value["spec"]["revisionHistoryLimit"] = 0.into();
            }),
            vec![
                set("i:0", 1, (0, 0, 0)),
                set("i:1", 2, (8, 8, 8)),
                set("i:2", 3, (5, 5, 5)),
            ],
            vec![up("i1", 8, 14), up("i2", 5, 9)],
        ),
        (
            "paused, the history is cut",
            deployment(|value| {
                value["spec"]["paused"] = true.into();
                value["spec"]["revisionHistoryLimit"] = 0.into();
            }),
            vec![set("i:0", 1, (0, 0, 0)), set("i:2", 2, (10, 10, 10))],
            vec!["delete web-i0".into()],
        ),
        (
            "the rollout is over",
            rolling(),
            vec![set("i:1", 1, (0, 0, 0)), set("i:2", 2, (10, 10, 10))],
            vec![],
        ),
        (
            "the history is cut when it is over",
            short(),
            vec![
                set("i:0", 1, (0, 0, 0)),
                set("i:1", 2, (0, 0, 0)),
                set("i:2", 3, (10, 10, 10)),
            ],
            vec!["delete web-i0".into()],
        ),
        (
            "and not before",
            short(),
            vec![
                set("i:0", 1, (0, 0, 0)),
                set("i:1", 2, (0, 0, 0)),
                set("i:2", 3, (10, 10, 9)),
            ],
            vec![],
        ),
        (
            "paused, nothing rolls",
            paused(),
            vec![set("i:1", 1, (10, 10, 10))],
            vec![],
        ),
        (
            "scaled, one set takes all",
            scaled(4),
            vec![set("i:2", 1, (10, 10, 10))],
            vec![down("i2", 10, 4)],
        ),
        (
            "scaled to zero",
            scaled(0),
            vec![set("i:1", 1, (7, 7, 7)), set("i:2", 2, (3, 3, 3))],
            vec![down("i1", 7, 0), down("i2", 3, 0)],
        ),
        (
            "scaled in a rollout, each takes its share",
            scaled(20),
            vec![set("i:1", 1, (8, 8, 8)), set("i:2", 2, (5, 5, 5))],
            vec![up("i1", 8, 14), up("i2", 5, 9)],
        ),
        (
            "recreation, first all old ones go",
            recreate(),
            vec![set("i:1", 1, (10, 10, 10))],
            vec![down("i1", 10, 0)],
        ),
        (
            "then nothing until they are gone",
            recreate(),
            vec![set("i:1", 1, (0, 2, 0))],
            vec![],
        ),
        (
            "then the new one comes",
            recreate(),
            vec![set("i:1", 1, (0, 0, 0)), set("i:2", 2, (0, 0, 0))],
            vec![up("i2", 0, 10)],
        ),
    ] {
        assert_eq!(told(&changes(&deployment, &sets)), want, "{what}");
    }
}

#[test]
fn recreation_waits_for_pods_that_are_ending() {
    let deployment = deployment(|value| value["spec"]["strategy"] = json!({"type": "Recreate"}));
    let sets = [set("i:1", 1, (0, 0, 0))];
    let with = |pods: &[String]| {
        reconcile(&Observed {
            deployment: &deployment,
            sets: &sets,
            with_pods: pods,
            now: now(),
        })
        .create
        .is_some()
    };
    assert!(!with(&["i:1".into()]));
    assert!(with(&[]));
}

#[test]
fn rolled_back_to_a_set_takes_the_next_number() {
    let changes = changes(
        &deployment(|_| {}),
        &[set("i:2", 1, (0, 0, 0)), set("i:1", 2, (10, 10, 10))],
    );
    let annotations = json!(changes.update[0].set.metadata.annotations);
    assert_eq!(annotations["deployment.kubernetes.io/revision"], "3");
    assert_eq!(annotations["deployment.kubernetes.io/revision-history"], "1");
    let status = changes.status.unwrap();
    assert_eq!(
        json!(status.metadata.annotations),
        json!({"deployment.kubernetes.io/revision": "3"})
    );
}

#[test]
fn what_the_status_says_of_the_rollout() {
    let said = |reason: &str, at: &str, counts: Value| {
        let mut status = json!({"observedGeneration": 1, "conditions": [
            {"type": "Progressing", "status": "True", "reason": reason, "message": "m", "lastUpdateTime": at, "lastTransitionTime": at},
        ]});
        for (field, value) in counts.as_object().unwrap() {
            status[field] = value.clone();
        }
        deployment(move |value| {
            value["metadata"]["annotations"] = json!({"deployment.kubernetes.io/revision": "2"});
            value["status"] = status;
        })
    };
    let sets = |available: i32| [set("i:1", 1, (0, 0, 0)), set("i:2", 2, (10, 10, available))];
    let counts = json!({"replicas": 10, "updatedReplicas": 10, "readyReplicas": 9, "availableReplicas": 9});
    for (reason, at, available, want) in [
        (
            "ReplicaSetUpdated",
            NOW,
            10,
            json!([
                "True",
                "NewReplicaSetAvailable",
                "ReplicaSet \"web-i2\" has successfully progressed."
            ]),
        ),
        (
            "ReplicaSetUpdated",
            "2026-01-01T00:00:00Z",
            9,
            json!(["True", "ReplicaSetUpdated", "m"]),
        ),
        (
            "ReplicaSetUpdated",
            "2025-12-31T23:59:59Z",
            9,
            json!([
                "False",
                "ProgressDeadlineExceeded",
                "ReplicaSet \"web-i2\" has timed out progressing."
            ]),
        ),
        // A rollout that was over is over, whatever becomes of its pods.
        (
            "NewReplicaSetAvailable",
            "2025-12-31T23:59:59Z",
            8,
            json!(["True", "NewReplicaSetAvailable", "m"]),
        ),
    ] {
        let found = changes(&said(reason, at, counts.clone()), &sets(available));
        assert_eq!(condition(&found, "Progressing"), want, "{reason} {at} {available}");
    }
    let less = json!({"replicas": 10, "updatedReplicas": 10, "readyReplicas": 8, "availableReplicas": 8});
    let found = changes(&said("NewReplicaSetCreated", "2025-12-31T23:59:59Z", less), &sets(9));
    assert_eq!(
        condition(&found, "Progressing"),
        json!(["True", "ReplicaSetUpdated", "ReplicaSet \"web-i2\" is progressing."])
    );
}

#[test]
fn a_failing_set_is_a_condition_and_the_deadline_wakes() {
    let failing = {
        let mut set = ReplicaSet::clone(&set("i:2", 1, (10, 3, 3)));
        let condition =
            json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "no"}]);
        set.status.as_mut().unwrap().conditions = serde_json::from_value(condition).unwrap();
        Arc::new(set)
    };
    let first = changes(&deployment(|_| {}), std::slice::from_ref(&failing));
    assert_eq!(
        condition(&first, "ReplicaFailure"),
        json!(["True", "FailedCreate", "no"])
    );
    assert_eq!(first.again, None);
    let second = changes(first.status.as_ref().unwrap(), &[failing]);
    assert_eq!(
        second,
        Changes {
            again: Some(Duration::from_secs(601)),
            ..Changes::default()
        }
    );
}

#[test]
fn paused_and_resumed_are_said_once() {
    let sets = [set("i:2", 1, (10, 10, 10))];
    let paused = changes(&deployment(|value| value["spec"]["paused"] = true.into()), &sets);
    assert_eq!(
        condition(&paused, "Progressing"),
        json!(["Unknown", "DeploymentPaused", "Deployment is paused"])
    );
    let mut resumed = paused.status.unwrap();
    assert_eq!(changes(&resumed, &sets), Changes::default());
    resumed.spec.as_mut().unwrap().paused = None;
    let resumed = changes(&resumed, &sets);
    assert_eq!(
        condition(&resumed, "Progressing"),
        json!([
            "True",
            "NewReplicaSetAvailable",
            "ReplicaSet \"web-i2\" has successfully progressed."
        ])
    );
}

proptest::proptest! {
    /// A rollout, with pods that become available one by one in any order, never leaves its bounds and always ends.
    #[test]
    fn a_rollout_keeps_its_bounds_and_ends(
        replicas in 0..12i32, unavailable in 0..4i32, surge in 0..4i32, order in proptest::collection::vec(0..3usize, 400),
    ) {
        let mut deployment = deployment(|value| {
            value["spec"]["replicas"] = replicas.into();
            value["spec"]["strategy"]["rollingUpdate"] = json!({"maxUnavailable": unavailable, "maxSurge": surge});
        });
        let mut sets = vec![set("i:1", 1, (replicas, replicas, replicas))];
        {
            let set = Arc::make_mut(&mut sets[0]);
            let annotations = set.metadata.annotations.as_mut().unwrap();
            annotations.insert("deployment.kubernetes.io/desired-replicas".into(), replicas.to_string());
        }
        let least = replicas - sets::max_unavailable(&deployment);
        let most = replicas + sets::max_surge(&deployment);
        let mut is_over = false;
        for step in order {
            let changes = changes(&deployment, &sets);
            for update in changes.update {
                let at = sets.iter().position(|set| set.metadata.name == update.set.metadata.name).unwrap();
                sets[at] = Arc::new(update.set);
            }
            if let Some(made) = changes.create {
                let mut made = made.set;
                made.metadata.uid = Some("new".into());
                made.metadata.creation_timestamp = Some(api::meta::time(now()));
                sets.push(Arc::new(made));
            }
            if let Some(new) = changes.status {
                deployment = new;
            }
            // What the ReplicaSet controller does at once, and then one pod at most that becomes available.
            for set in &mut sets {
                let set = Arc::make_mut(set);
                let size = sets::size(set);
                let status = set.status.get_or_insert_default();
                status.replicas = size;
                let available = status.available_replicas.unwrap_or(0).min(size);
                status.available_replicas = Some(available);
                status.ready_replicas = Some(available);
            }
            let waiting: Vec<usize> = (0..sets.len()).filter(|at| sets::available(&sets[*at]) < sets::size(&sets[*at])).collect();
            if !waiting.is_empty() && step < 2 {
                let set = Arc::make_mut(&mut sets[waiting[step % waiting.len()]]);
                let status = set.status.as_mut().unwrap();
                status.available_replicas = status.available_replicas.map(|count| count + 1);
                status.ready_replicas = status.available_replicas;
            }
            let available: i32 = sets.iter().map(|set| sets::available(set)).sum();
            let present = sets::sizes(sets.iter().map(|set| &**set));
            proptest::prop_assert!(available >= least, "{available} of at least {least}");
            proptest::prop_assert!(present <= most, "{present} of at most {most}");
            is_over = status::is_complete(&deployment, deployment.status.as_ref().unwrap());
            if is_over {
                break;
            }
        }
        proptest::prop_assert!(is_over);
    }
}
