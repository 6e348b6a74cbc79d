//! StopPodSandbox: every process of the pod ends, and its network is given back.

use cri::v1::{StopPodSandboxRequest, StopPodSandboxResponse};
use cri::{Error, Result};

use super::on_host_network;
use crate::client::ShimError;
use crate::runtime::{Inner, Sandbox};
use crate::shim::protocol::Request;

impl Inner {
    pub(crate) async fn stop_pod_sandbox(&self, request: StopPodSandboxRequest) -> Result<StopPodSandboxResponse> {
        if let Some(sandbox) = self.sandbox(&request.pod_sandbox_id) {
            let _turn = sandbox.verbs.lock().await;
            self.stop_sandbox(&sandbox).await?;
        }
        Ok(StopPodSandboxResponse {})
    }

    pub(crate) async fn stop_sandbox(&self, sandbox: &Sandbox) -> Result<()> {
        let containers = self.containers_of(&sandbox.id);
        let ends = containers.iter().map(|container| self.kill_and_wait(container));
        futures::future::try_join_all(ends).await?;
        if let Some(shim) = sandbox.shim()
            && *sandbox.paused.borrow()
        {
            let kill = Request::Kill {
                id: sandbox.id.clone(),
                signal: libc::SIGKILL,
                all: false,
            };
            match shim.run(kill).await {
                Ok(()) => {
                    // The sender lives in the sandbox, so waiting cannot fail.
                    let _ = sandbox.paused.subscribe().wait_for(|runs| !runs).await;
                }
                Err(ShimError::Gone) => {}
                Err(err) => {
                    return Err(Error::unknown(format!(
                        "failed to stop sandbox container {:?}: {err}",
                        sandbox.id
                    )));
                }
            }
        }
        let attached = !on_host_network(&sandbox.record.lock().config.0);
        if attached {
            self.network.detach(&sandbox.id).await.map_err(|err| {
                Error::unknown(format!("failed to destroy network for sandbox {:?}: {err}", sandbox.id))
            })?;
        }
        Ok(())
    }
}
