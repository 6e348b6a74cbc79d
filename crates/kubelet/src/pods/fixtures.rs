//! Pods and what is seen of them, written short, for the tests of what is decided about them.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::observed::{Instance, Observed, Sandbox, State};

/// Now, in seconds.
pub const NOW: i64 = 10_000;

/// A time in seconds.
pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// A pod with the containers `init…` (init), `side…` (sidecar) and others (app), each named by a word.
pub fn pod(policy: &str, names: &str) -> Pod {
    let of = |role: fn(&str) -> bool| {
        names
            .split_whitespace()
            .filter(move |name| role(name))
            .map(|name| match name.starts_with("side") {
                true => json!({"name": name, "restartPolicy": "Always"}),
                false => json!({"name": name}),
            })
    };
    let init = of(|name| name.starts_with("init") || name.starts_with("side")).collect::<Vec<_>>();
    let apps = of(|name| !name.starts_with("init") && !name.starts_with("side")).collect::<Vec<_>>();
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "u"},
        "spec": {"restartPolicy": policy, "initContainers": init, "containers": apps, "terminationGracePeriodSeconds": 30},
    }))
    .unwrap()
}

/// `s0`, `s1`: the number is the attempt.
pub fn sandbox(id: &str, ready: bool) -> Sandbox {
    let attempt = id[1..].parse().unwrap();
    Sandbox {
        id: id.into(),
        attempt,
        ready,
        created_at: i64::from(attempt),
        ips: vec!["10.0.0.1".into()],
        host_network: false,
    }
}

/// `name:restarts@sandbox=state`, the state being `run`, `new`, `unknown` or an exit code; newest first.
pub fn instances(text: &str) -> Vec<Instance> {
    let one = |word: &str| {
        let (name, rest) = word.split_once(':').unwrap();
        let (restarts, rest) = rest.split_once('@').unwrap();
        let (sandbox, state) = rest.split_once('=').unwrap();
        let exit = state.parse();
        Instance {
            id: format!("{name}{restarts}"),
            runtime: "podium".into(),
            name: name.into(),
            sandbox: sandbox.into(),
            restarts: restarts.parse().unwrap(),
            state: match (state, &exit) {
                ("run", _) => State::Running,
                ("new", _) => State::Created,
                (_, Ok(_)) => State::Exited,
                _ => State::Unknown,
            },
            created_at: 1,
            started_at: 1,
            finished_at: if exit.is_ok() { (NOW - 1) * 1_000_000_000 } else { 0 },
            exit_code: exit.unwrap_or(0),
            reason: String::new(),
            message: String::new(),
            image: String::new(),
            image_ref: String::new(),
            hash: String::new(),
            user: None,
            message_file: None,
            log_path: String::new(),
            resources: None,
        }
    };
    text.split_whitespace().map(one).collect()
}

/// Sandboxes (`-` before one that is not ready) and instances.
pub fn observed(sandboxes: &str, text: &str) -> Observed {
    let sandboxes = sandboxes.split_whitespace().map(|word| match word.strip_prefix('-') {
        Some(id) => sandbox(id, false),
        None => sandbox(word, true),
    });
    Observed {
        sandboxes: sandboxes.collect(),
        instances: instances(text),
    }
}
