//! StartContainer: the shim creates the process and lets it run.

use cri::v1::{ContainerEventType, StartContainerRequest, StartContainerResponse};
use cri::{Error, Result};

use super::create::log_path;
use crate::client::ShimError;
use crate::record::{Ended, Status};
use crate::runtime::{Container, Inner, now};
use crate::shim::protocol::{Answer, FailureKind, Request, Start};
use crate::users;

/// The exit code of a container whose process could not be started.
const START_ERROR: i32 = 128;

impl Inner {
    pub(crate) async fn start_container(&self, request: StartContainerRequest) -> Result<StartContainerResponse> {
        let container = self.known_container(&request.container_id)?;
        let _turn = container.verbs.lock().await;
        if *container.status.borrow() != Status::Created {
            return Err(Error::failed_precondition(format!(
                "failed to set starting state for container {:?}: container is already started",
                container.id
            )));
        }
        let pod = container.sandbox.record.lock().config.0.clone();
        let config = &container.record.config.0;
        let start = Start {
            id: container.id.clone(),
            bundle: container.dir.clone(),
            root: container.dir.join("state"),
            cgroup: container.cgroup().into(),
            log: Some(log_path(&pod, config).unwrap_or_else(|| "/dev/null".into())),
            tty: config.tty,
            stdin: config.stdin,
            stdin_once: config.stdin_once,
            uid: users::of_pod(&pod)?
                .and_then(|users| users.outer_uid(container.record.uid))
                .unwrap_or(container.record.uid),
            confinement: container.record.confinement.clone(),
            staging: container.record.staging.clone(),
        };
        let Some(shim) = container.sandbox.shim() else {
            return Err(self.not_started(&container, &ShimError::Gone));
        };
        match shim.call(Request::Start(Box::new(start)), Vec::new()).await {
            Ok((Answer::Started { pid, at }, _)) => {
                self.started(&container, pid, at);
                Ok(StartContainerResponse {})
            }
            Ok((other, _)) => Err(self.not_started(&container, &ShimError::Answer(format!("{other:?}")))),
            Err(err) => Err(self.not_started(&container, &err)),
        }
    }

    fn started(&self, container: &Container, pid: i32, at: i64) {
        // The news of a quick end may have come before the answer.
        container.status.send_modify(|status| match status {
            Status::Exited(ended) => ended.started_at = at,
            _ => *status = Status::Running { pid, started_at: at },
        });
        container.save();
        self.announce(container, ContainerEventType::ContainerStartedEvent);
    }

    /// Ends the container and says why in the words that users know.
    fn not_started(&self, container: &Container, err: &ShimError) -> Error {
        let reason = match err {
            ShimError::Failed(failure) if matches!(failure.kind, FailureKind::Executable | FailureKind::Mount) => {
                format!("runc create failed: unable to start container process: error during container init: {failure}")
            }
            other => other.to_string(),
        };
        let message = format!(
            "failed to create containerd task: failed to create shim task: OCI runtime create failed: {reason}"
        );
        let ended = Ended {
            started_at: 0,
            finished_at: now(),
            code: START_ERROR,
            reason: "StartError".into(),
            message: message.clone(),
        };
        if container.set_status(Status::Exited(ended)) {
            self.announce(container, ContainerEventType::ContainerStoppedEvent);
        }
        Error::unknown(message)
    }
}
