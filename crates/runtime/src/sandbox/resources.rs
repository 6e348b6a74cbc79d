//! UpdatePodSandboxResources.

use cri::v1::{UpdatePodSandboxResourcesRequest, UpdatePodSandboxResourcesResponse};
use cri::{Error, Result};

use crate::runtime::Inner;

impl Inner {
    /// Notes what the pod as a whole has: its cgroup is the kubelet's, who has changed it already.
    pub(crate) fn update_pod_sandbox_resources(
        &self,
        request: UpdatePodSandboxResourcesRequest,
    ) -> Result<UpdatePodSandboxResourcesResponse> {
        let sandbox = self.sandbox(&request.pod_sandbox_id).ok_or_else(|| {
            Error::not_found(format!(
                "failed to find sandbox id {:?}: not found",
                request.pod_sandbox_id
            ))
        })?;
        {
            let mut record = sandbox.record.lock();
            let linux = record.config.0.linux.get_or_insert_default();
            linux.overhead = request.overhead.or(linux.overhead.take());
            linux.resources = request.resources.or(linux.resources.take());
        }
        sandbox.save();
        Ok(UpdatePodSandboxResourcesResponse {})
    }
}
