//! The two doors of a runtime, as traits over the wire's messages.
//!
//! The streamed forms of the lists (`StreamContainers` and its like) carry the same answer in pieces, so
//! the traits have each list once and [`crate::grpc`] cuts it up for a client that wants it so.

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::podium::{ImportArchiveRequest, ImportArchiveResponse};
use crate::v1::*;
use crate::{Error, Result};

/// Lifecycle events of containers, as they happen.
pub type ContainerEvents = BoxStream<'static, Result<ContainerEventResponse>>;

/// Sandboxes, containers, their sessions and statistics.
#[async_trait]
pub trait RuntimeService: Send + Sync + 'static {
    /// Name and version of the runtime.
    async fn version(&self, request: VersionRequest) -> Result<VersionResponse>;

    /// Creates and starts a sandbox; it is ready when this returns.
    async fn run_pod_sandbox(&self, request: RunPodSandboxRequest) -> Result<RunPodSandboxResponse>;
    /// Ends every process of a sandbox and frees its network. Idempotent.
    async fn stop_pod_sandbox(&self, request: StopPodSandboxRequest) -> Result<StopPodSandboxResponse>;
    /// Stops a sandbox if need be and forgets it with its containers. Idempotent.
    async fn remove_pod_sandbox(&self, request: RemovePodSandboxRequest) -> Result<RemovePodSandboxResponse>;
    /// State of one sandbox; `NotFound` when there is none.
    async fn pod_sandbox_status(&self, request: PodSandboxStatusRequest) -> Result<PodSandboxStatusResponse>;
    /// Sandboxes that match the filter.
    async fn list_pod_sandbox(&self, request: ListPodSandboxRequest) -> Result<ListPodSandboxResponse>;
    /// Tells the sandbox the resources of its whole pod, after its cgroup has them.
    async fn update_pod_sandbox_resources(
        &self,
        _request: UpdatePodSandboxResourcesRequest,
    ) -> Result<UpdatePodSandboxResourcesResponse> {
        Err(Error::unimplemented("UpdatePodSandboxResources"))
    }

    /// Creates a container in a sandbox, without starting it.
    async fn create_container(&self, request: CreateContainerRequest) -> Result<CreateContainerResponse>;
    /// Starts a created container.
    async fn start_container(&self, request: StartContainerRequest) -> Result<StartContainerResponse>;
    /// Ends a container: its stop signal, then SIGKILL after the timeout in seconds. Idempotent.
    async fn stop_container(&self, request: StopContainerRequest) -> Result<StopContainerResponse>;
    /// Forgets a container, ending it by force if it runs. Idempotent.
    async fn remove_container(&self, request: RemoveContainerRequest) -> Result<RemoveContainerResponse>;
    /// Containers that match the filter.
    async fn list_containers(&self, request: ListContainersRequest) -> Result<ListContainersResponse>;
    /// State of one container; `NotFound` when there is none.
    async fn container_status(&self, request: ContainerStatusRequest) -> Result<ContainerStatusResponse>;
    /// Changes the resources of a container, all of them or none.
    async fn update_container_resources(
        &self,
        request: UpdateContainerResourcesRequest,
    ) -> Result<UpdateContainerResourcesResponse>;
    /// Closes the log file of a container and opens its path anew, after a rotation.
    async fn reopen_container_log(&self, request: ReopenContainerLogRequest) -> Result<ReopenContainerLogResponse>;
    /// Writes a container's state into an archive.
    async fn checkpoint_container(&self, _request: CheckpointContainerRequest) -> Result<CheckpointContainerResponse> {
        Err(Error::unimplemented("CheckpointContainer"))
    }

    /// Runs a command in a container and returns what it wrote and its exit code.
    async fn exec_sync(&self, request: ExecSyncRequest) -> Result<ExecSyncResponse>;
    /// The same for one who wants to know no more than the first `most` bytes of each output. The wire has no word for that: only a runtime
    /// in this process need not keep more.
    async fn exec_sync_in_brief(&self, request: ExecSyncRequest, most: usize) -> Result<ExecSyncResponse> {
        let mut answer = self.exec_sync(request).await?;
        answer.stdout.truncate(most);
        answer.stderr.truncate(most);
        Ok(answer)
    }
    /// Prepares a session with a command; the answer is where to connect.
    async fn exec(&self, request: ExecRequest) -> Result<ExecResponse>;
    /// Prepares a session with the container's own process; the answer is where to connect.
    async fn attach(&self, request: AttachRequest) -> Result<AttachResponse>;
    /// Prepares connections to ports of a sandbox; the answer is where to connect.
    async fn port_forward(&self, request: PortForwardRequest) -> Result<PortForwardResponse>;

    /// Usage of one container.
    async fn container_stats(&self, request: ContainerStatsRequest) -> Result<ContainerStatsResponse>;
    /// Usage of the running containers that match the filter.
    async fn list_container_stats(&self, request: ListContainerStatsRequest) -> Result<ListContainerStatsResponse>;
    /// Usage of one sandbox with its containers.
    async fn pod_sandbox_stats(&self, request: PodSandboxStatsRequest) -> Result<PodSandboxStatsResponse>;
    /// Usage of the sandboxes that match the filter.
    async fn list_pod_sandbox_stats(&self, request: ListPodSandboxStatsRequest) -> Result<ListPodSandboxStatsResponse>;
    /// Describes the metrics of [`Self::list_pod_sandbox_metrics`].
    async fn list_metric_descriptors(
        &self,
        _request: ListMetricDescriptorsRequest,
    ) -> Result<ListMetricDescriptorsResponse> {
        Err(Error::unimplemented("ListMetricDescriptors"))
    }
    /// Metrics of every sandbox, ready for scraping.
    async fn list_pod_sandbox_metrics(
        &self,
        _request: ListPodSandboxMetricsRequest,
    ) -> Result<ListPodSandboxMetricsResponse> {
        Err(Error::unimplemented("ListPodSandboxMetrics"))
    }

    /// Takes settings of the kubelet: the node's pod CIDR.
    async fn update_runtime_config(&self, request: UpdateRuntimeConfigRequest) -> Result<UpdateRuntimeConfigResponse>;
    /// Settings that the kubelet should follow: the cgroup driver.
    async fn runtime_config(&self, request: RuntimeConfigRequest) -> Result<RuntimeConfigResponse>;
    /// Conditions `RuntimeReady` and `NetworkReady`, and the features of the runtime.
    async fn status(&self, request: StatusRequest) -> Result<StatusResponse>;
    /// Every later lifecycle event of containers.
    async fn get_container_events(&self, request: GetEventsRequest) -> Result<ContainerEvents>;
}

/// The images of a node.
#[async_trait]
pub trait ImageService: Send + Sync + 'static {
    /// Images that match the filter.
    async fn list_images(&self, request: ListImagesRequest) -> Result<ListImagesResponse>;
    /// One image; the answer holds none when the node has none.
    async fn image_status(&self, request: ImageStatusRequest) -> Result<ImageStatusResponse>;
    /// Fetches an image; the answer names it by its id.
    async fn pull_image(&self, request: PullImageRequest) -> Result<PullImageResponse>;
    /// Forgets an image under all its names. Idempotent.
    async fn remove_image(&self, request: RemoveImageRequest) -> Result<RemoveImageResponse>;
    /// Usage of the file systems that hold images and containers.
    async fn image_fs_info(&self, request: ImageFsInfoRequest) -> Result<ImageFsInfoResponse>;
    /// Brings in and pins the images of an archive on the node's disk. CRI has no such call; a runtime
    /// that is not Podium's does not have it.
    async fn import_archive(&self, _request: ImportArchiveRequest) -> Result<ImportArchiveResponse> {
        Err(Error::unimplemented("ImportArchive"))
    }
}
