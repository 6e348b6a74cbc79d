//! Which container's log is meant: the one that runs, the last one, or the one before.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};

/// Whether the pod's specification has a container of that name, of any kind.
pub(super) fn is_in(pod: &Pod, name: &str) -> bool {
    let Some(spec) = &pod.spec else { return false };
    spec.containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
        .any(|container| container.name == name)
        || spec
            .ephemeral_containers
            .iter()
            .flatten()
            .any(|container| container.name == name)
}

fn status<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    [
        &status.container_statuses,
        &status.init_container_statuses,
        &status.ephemeral_container_statuses,
    ]
    .into_iter()
    .flatten()
    .flatten()
    .find(|status| status.name == name)
}

/// The id of the container, with its scheme, or why there is no log in upstream's words.
pub(super) fn with_log<'a>(pod: &'a Pod, name: &str, previous: bool) -> Result<&'a str, String> {
    let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
    let status = status(pod, name).ok_or_else(|| format!("container {name:?} in pod {pod_name:?} is not available"))?;
    let last = terminated_id(status.last_state.as_ref());
    if previous {
        return last.ok_or_else(|| format!("previous terminated container {name:?} in pod {pod_name:?} not found"));
    }
    let state = status.state.as_ref();
    if state.is_some_and(|state| state.running.is_some()) {
        return Ok(status.container_id.as_deref().unwrap_or_default());
    }
    let has_terminated = |state: Option<&ContainerState>| state.is_some_and(|state| state.terminated.is_some());
    if has_terminated(state) || has_terminated(status.last_state.as_ref()) {
        // A container that could not be started has no id; then the one before it had the last word.
        return terminated_id(state)
            .or(last)
            .ok_or_else(|| format!("container {name:?} in pod {pod_name:?} is terminated"));
    }
    let waiting = format!("container {name:?} in pod {pod_name:?} is waiting to start");
    Err(match state.and_then(|state| state.waiting.as_ref()) {
        Some(state) => match state.reason.as_deref().unwrap_or_default() {
            "ErrImagePull" => format!("{waiting}: image can't be pulled"),
            "ImagePullBackOff" => format!("{waiting}: trying and failing to pull image"),
            reason => format!("{waiting}: {reason}"),
        },
        None => format!("{waiting} - no logs yet"),
    })
}

fn terminated_id(state: Option<&ContainerState>) -> Option<&str> {
    state?
        .terminated
        .as_ref()?
        .container_id
        .as_deref()
        .filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says what it expects by failing")]

    use super::*;

    fn pod(status: serde_json::Value) -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "c"}], "initContainers": [{"name": "i"}]},
            "status": {"containerStatuses": [status]},
        }))
        .unwrap()
    }

    #[test]
    fn whose_log() {
        let base = serde_json::json!({"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0});
        let with = |more: serde_json::Value| {
            let mut status = base.clone();
            status
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            pod(status)
        };
        let dead = |id: &str| serde_json::json!({"terminated": {"exitCode": 1, "containerID": id}});
        let running = serde_json::json!({"running": {}});
        let waiting = |reason: &str| serde_json::json!({"waiting": {"reason": reason}});
        let is = |id: &'static str| Ok(id);
        let no = |reason: &str| Err(reason.to_owned());
        for (more, previous, expected) in [
            (
                serde_json::json!({"state": running, "containerID": "x://2"}),
                false,
                is("x://2"),
            ),
            (
                serde_json::json!({"state": running, "containerID": "x://2", "lastState": dead("x://1")}),
                true,
                is("x://1"),
            ),
            (
                serde_json::json!({"state": running, "containerID": "x://2"}),
                true,
                no(r#"previous terminated container "c" in pod "p" not found"#),
            ),
            (serde_json::json!({"state": dead("x://3")}), false, is("x://3")),
            (
                serde_json::json!({"state": dead(""), "lastState": dead("x://1")}),
                false,
                is("x://1"),
            ),
            (
                serde_json::json!({"state": dead("")}),
                false,
                no(r#"container "c" in pod "p" is terminated"#),
            ),
            (
                serde_json::json!({"state": waiting("CrashLoopBackOff"), "lastState": dead("x://1")}),
                false,
                is("x://1"),
            ),
            (
                serde_json::json!({"state": waiting("ContainerCreating")}),
                false,
                no(r#"container "c" in pod "p" is waiting to start: ContainerCreating"#),
            ),
            (
                serde_json::json!({"state": waiting("ErrImagePull")}),
                false,
                no(r#"container "c" in pod "p" is waiting to start: image can't be pulled"#),
            ),
            (
                serde_json::json!({"state": waiting("ImagePullBackOff")}),
                false,
                no(r#"container "c" in pod "p" is waiting to start: trying and failing to pull image"#),
            ),
            (
                serde_json::json!({}),
                false,
                no(r#"container "c" in pod "p" is waiting to start - no logs yet"#),
            ),
        ] {
            assert_eq!(
                with_log(&with(more.clone()), "c", previous),
                expected,
                "{more} {previous}"
            );
        }
        assert_eq!(
            with_log(&with(serde_json::json!({})), "i", false),
            no(r#"container "i" in pod "p" is not available"#)
        );
        assert!(is_in(&with(serde_json::json!({})), "i") && !is_in(&with(serde_json::json!({})), "x"));
    }
}
