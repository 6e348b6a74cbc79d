//! Containers as the kubelet sees them.

use std::path::Path;

use cri::v1::{
    Container as Listed, ContainerFilter, ContainerResources, ContainerState, ContainerStatus, ContainerUser,
    ImageSpec, LinuxContainerUser,
};

use serde_json::json;

use super::create::log_path;
use crate::record::Status;
use crate::runtime::Container;
use crate::sandbox::selected;

fn state(status: &Status) -> ContainerState {
    match status {
        Status::Created => ContainerState::ContainerCreated,
        Status::Running { .. } => ContainerState::ContainerRunning,
        Status::Exited(_) => ContainerState::ContainerExited,
    }
}

/// Everything about a container.
pub(crate) fn status(container: &Container) -> ContainerStatus {
    let record = &container.record;
    let config = &record.config.0;
    let status = container.status.borrow().clone();
    let log = log_path(&container.sandbox.record.lock().config.0, config);
    let (started_at, ended) = match &status {
        Status::Created => (0, None),
        Status::Running { started_at, .. } => (*started_at, None),
        Status::Exited(ended) => (ended.started_at, Some(ended.clone())),
    };
    let ended = ended.unwrap_or_default();
    ContainerStatus {
        id: record.id.clone(),
        metadata: config.metadata.clone(),
        state: state(&status).into(),
        created_at: record.created_at,
        started_at,
        finished_at: ended.finished_at,
        exit_code: ended.code,
        image: Some(ImageSpec {
            image: image_name(config.image.as_ref()),
            ..Default::default()
        }),
        image_ref: record.image_ref.clone(),
        reason: ended.reason,
        message: ended.message,
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        mounts: config.mounts.clone(),
        log_path: log.map(|path| path.display().to_string()).unwrap_or_default(),
        resources: Some(ContainerResources {
            linux: container.resources.lock().clone(),
            windows: None,
        }),
        image_id: record.image_id.clone(),
        user: Some(ContainerUser {
            linux: Some(LinuxContainerUser {
                uid: record.uid.into(),
                gid: record.gid.into(),
                supplemental_groups: record.groups.iter().map(|gid| i64::from(*gid)).collect(),
            }),
        }),
        stop_signal: config.stop_signal,
    }
}

/// What a verbose answer says beside the status: the process, and the specification that it was made from.
pub(crate) fn details(container: &Container) -> serde_json::Value {
    let pid = match &*container.status.borrow() {
        Status::Running { pid, .. } => *pid,
        Status::Created | Status::Exited(_) => 0,
    };
    json!({
        "sandboxID": container.record.sandbox_id,
        "pid": pid,
        "cgroup": container.cgroup(),
        "runtimeSpec": specification(&container.dir),
    })
}

/// What stands in a bundle; null when it is not there any more.
pub(crate) fn specification(bundle: &Path) -> serde_json::Value {
    let text = std::fs::read(bundle.join("config.json")).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// What lists say of a container.
pub(crate) fn list_entry(container: &Container) -> Listed {
    let record = &container.record;
    let config = &record.config.0;
    Listed {
        id: record.id.clone(),
        pod_sandbox_id: record.sandbox_id.clone(),
        metadata: config.metadata.clone(),
        image: config.image.clone(),
        image_ref: record.image_ref.clone(),
        state: state(&container.status.borrow()).into(),
        created_at: record.created_at,
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        image_id: record.image_id.clone(),
    }
}

/// Whether a list with this filter has the container.
pub(crate) fn matches(container: &Listed, filter: &ContainerFilter) -> bool {
    container.id.starts_with(&filter.id)
        && filter.state.is_none_or(|wanted| wanted.state == container.state)
        && container.pod_sandbox_id.starts_with(&filter.pod_sandbox_id)
        && selected(&container.labels, &filter.label_selector)
}

/// The name that the pod gave, when the kubelet has resolved it already.
fn image_name(image: Option<&ImageSpec>) -> String {
    image
        .map(|image| match image.user_specified_image.as_str() {
            "" => image.image.clone(),
            name => name.to_owned(),
        })
        .unwrap_or_default()
}
