//! RemovePodSandbox: the sandbox is stopped if need be, and forgotten with its containers.

use cri::Result;
use cri::v1::{ContainerEventType, RemovePodSandboxRequest, RemovePodSandboxResponse};

use crate::runtime::Inner;

impl Inner {
    pub(crate) async fn remove_pod_sandbox(
        &self,
        request: RemovePodSandboxRequest,
    ) -> Result<RemovePodSandboxResponse> {
        let Some(sandbox) = self.sandbox(&request.pod_sandbox_id) else {
            return Ok(RemovePodSandboxResponse {});
        };
        let _turn = sandbox.verbs.lock().await;
        self.stop_sandbox(&sandbox).await?;
        for container in self.containers_of(&sandbox.id) {
            let _turn = container.verbs.lock().await;
            self.forget_container(&container).await;
        }
        self.sandboxes.write().remove(&sandbox.id);
        self.tear_down(&sandbox).await;
        self.announce_sandbox(&sandbox, ContainerEventType::ContainerDeletedEvent);
        Ok(RemovePodSandboxResponse {})
    }
}
