//! Sandboxes as the kubelet sees them.

use std::collections::HashMap;

use cri::v1::{
    LinuxPodSandboxStatus, Namespace, PodIp, PodSandbox, PodSandboxFilter, PodSandboxNetworkStatus, PodSandboxState,
    PodSandboxStatus,
};

use serde_json::json;

use super::namespace_options;
use crate::container;
use crate::runtime::Sandbox;

fn state(ready: bool) -> PodSandboxState {
    if ready {
        PodSandboxState::SandboxReady
    } else {
        PodSandboxState::SandboxNotready
    }
}

/// Everything about a sandbox.
pub(crate) fn status(sandbox: &Sandbox) -> PodSandboxStatus {
    let record = sandbox.record.lock();
    let config = &record.config.0;
    let mut ips = record.ips.iter();
    PodSandboxStatus {
        id: record.id.clone(),
        metadata: config.metadata.clone(),
        state: state(record.ready).into(),
        created_at: record.created_at,
        network: Some(PodSandboxNetworkStatus {
            ip: ips.next().cloned().unwrap_or_default(),
            additional_ips: ips.map(|ip| PodIp { ip: ip.clone() }).collect(),
        }),
        linux: Some(LinuxPodSandboxStatus {
            namespaces: Some(Namespace {
                options: Some(namespace_options(config)),
            }),
        }),
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        runtime_handler: record.runtime_handler.clone(),
    }
}

/// What a verbose answer says beside the status: the pause process, and the specification that it was made from.
pub(crate) fn details(sandbox: &Sandbox) -> serde_json::Value {
    let (pid, ready) = {
        let record = sandbox.record.lock();
        (record.pause_pid, record.ready)
    };
    json!({
        "pid": if ready { pid } else { 0 },
        "cgroup": sandbox.cgroup(),
        "netns": sandbox.netns(),
        "runtimeSpec": container::specification(&sandbox.dir),
    })
}

/// What lists say of a sandbox.
pub(crate) fn summary(sandbox: &Sandbox) -> PodSandbox {
    let record = sandbox.record.lock();
    let config = &record.config.0;
    PodSandbox {
        id: record.id.clone(),
        metadata: config.metadata.clone(),
        state: state(record.ready).into(),
        created_at: record.created_at,
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        runtime_handler: record.runtime_handler.clone(),
    }
}

/// Whether a list with this filter has the sandbox.
pub(crate) fn matches(sandbox: &PodSandbox, filter: &PodSandboxFilter) -> bool {
    sandbox.id.starts_with(&filter.id)
        && filter.state.is_none_or(|wanted| wanted.state == sandbox.state)
        && selected(&sandbox.labels, &filter.label_selector)
}

/// Whether labels have every one that is wanted.
pub(crate) fn selected(labels: &HashMap<String, String>, wanted: &HashMap<String, String>) -> bool {
    wanted.iter().all(|(name, value)| labels.get(name) == Some(value))
}

#[cfg(test)]
mod tests {
    use cri::v1::PodSandboxStateValue;

    use super::*;

    #[test]
    fn filters_narrow() {
        let sandbox = PodSandbox {
            id: "abc".into(),
            state: PodSandboxState::SandboxReady.into(),
            labels: HashMap::from([("app".into(), "web".into())]),
            ..Default::default()
        };
        let labels = |value: &str| HashMap::from([("app".to_owned(), value.to_owned())]);
        let state = |state: PodSandboxState| Some(PodSandboxStateValue { state: state.into() });
        let filter = |id: &str, state, label_selector| PodSandboxFilter {
            id: id.into(),
            state,
            label_selector,
        };
        let none = HashMap::new;
        let cases = [
            (PodSandboxFilter::default(), true),
            (filter("ab", None, none()), true),
            (filter("b", None, none()), false),
            (filter("", state(PodSandboxState::SandboxReady), none()), true),
            (filter("", state(PodSandboxState::SandboxNotready), none()), false),
            (filter("", None, labels("web")), true),
            (filter("", None, labels("db")), false),
        ];
        for (filter, expected) in cases {
            assert_eq!(matches(&sandbox, &filter), expected, "{filter:?}");
        }
    }
}
