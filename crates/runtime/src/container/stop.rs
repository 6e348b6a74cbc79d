//! StopContainer: the container's stop signal, then SIGKILL when its time is up.

use std::time::Duration;

use cri::v1::{StopContainerRequest, StopContainerResponse};
use cri::{Error, Result};

use crate::client::ShimError;
use crate::record::Status;
use crate::runtime::{Container, Inner};
use crate::shim::protocol::Request;

impl Inner {
    pub(crate) async fn stop_container(&self, request: StopContainerRequest) -> Result<StopContainerResponse> {
        // What is not there does not run.
        if let Some(container) = self.container(&request.container_id) {
            self.stop(&container, request.timeout).await?;
        }
        Ok(StopContainerResponse {})
    }

    /// Takes no turn: a second request with less time must reach a container that the first one waits for.
    async fn stop(&self, container: &Container, seconds: i64) -> Result<()> {
        if let Ok(seconds @ 1..) = u64::try_from(seconds)
            && matches!(*container.status.borrow(), Status::Running { .. })
        {
            self.signal(container, container.record.stop_signal, false).await?;
            if tokio::time::timeout(Duration::from_secs(seconds), container.ended())
                .await
                .is_ok()
            {
                return Ok(());
            }
        }
        self.kill_and_wait(container).await
    }

    /// Ends a container by force, if it runs.
    pub(crate) async fn kill_and_wait(&self, container: &Container) -> Result<()> {
        if !matches!(*container.status.borrow(), Status::Running { .. }) {
            return Ok(());
        }
        self.signal(container, libc::SIGKILL, true).await?;
        container.ended().await;
        Ok(())
    }

    async fn signal(&self, container: &Container, signal: i32, all: bool) -> Result<()> {
        let Some(shim) = container.sandbox.shim() else {
            return Ok(());
        };
        let kill = Request::Kill {
            id: container.id.clone(),
            signal,
            all,
        };
        match shim.run(kill).await {
            // A shim that goes takes its containers along.
            Ok(()) | Err(ShimError::Gone) => Ok(()),
            Err(err) => Err(Error::unknown(format!(
                "failed to stop container {:?}: {err}",
                container.id
            ))),
        }
    }
}
