//! The interface over gRPC on a unix socket, from both ends.

mod client;
mod server;

pub use client::{Client, connect};
pub use server::serve;

/// The largest message either side takes. Lists of a full node pass gRPC's default of 4 MiB; this is what
/// upstream's kubelet allows.
const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// Calls that ask once and answer once, as a table: from it follow the client's and the server's halves.
macro_rules! runtime_calls {
    ($apply:ident) => {
        $apply! {
            version(VersionRequest) -> VersionResponse,
            run_pod_sandbox(RunPodSandboxRequest) -> RunPodSandboxResponse,
            stop_pod_sandbox(StopPodSandboxRequest) -> StopPodSandboxResponse,
            remove_pod_sandbox(RemovePodSandboxRequest) -> RemovePodSandboxResponse,
            pod_sandbox_status(PodSandboxStatusRequest) -> PodSandboxStatusResponse,
            list_pod_sandbox(ListPodSandboxRequest) -> ListPodSandboxResponse,
            update_pod_sandbox_resources(UpdatePodSandboxResourcesRequest) -> UpdatePodSandboxResourcesResponse,
            create_container(CreateContainerRequest) -> CreateContainerResponse,
            start_container(StartContainerRequest) -> StartContainerResponse,
            stop_container(StopContainerRequest) -> StopContainerResponse,
            remove_container(RemoveContainerRequest) -> RemoveContainerResponse,
            list_containers(ListContainersRequest) -> ListContainersResponse,
            container_status(ContainerStatusRequest) -> ContainerStatusResponse,
            update_container_resources(UpdateContainerResourcesRequest) -> UpdateContainerResourcesResponse,
            reopen_container_log(ReopenContainerLogRequest) -> ReopenContainerLogResponse,
            checkpoint_container(CheckpointContainerRequest) -> CheckpointContainerResponse,
            exec_sync(ExecSyncRequest) -> ExecSyncResponse,
            exec(ExecRequest) -> ExecResponse,
            attach(AttachRequest) -> AttachResponse,
            port_forward(PortForwardRequest) -> PortForwardResponse,
            container_stats(ContainerStatsRequest) -> ContainerStatsResponse,
            list_container_stats(ListContainerStatsRequest) -> ListContainerStatsResponse,
            pod_sandbox_stats(PodSandboxStatsRequest) -> PodSandboxStatsResponse,
            list_pod_sandbox_stats(ListPodSandboxStatsRequest) -> ListPodSandboxStatsResponse,
            list_metric_descriptors(ListMetricDescriptorsRequest) -> ListMetricDescriptorsResponse,
            list_pod_sandbox_metrics(ListPodSandboxMetricsRequest) -> ListPodSandboxMetricsResponse,
            update_runtime_config(UpdateRuntimeConfigRequest) -> UpdateRuntimeConfigResponse,
            runtime_config(RuntimeConfigRequest) -> RuntimeConfigResponse,
            status(StatusRequest) -> StatusResponse,
        }
    };
}

/// As [`runtime_calls`], for images.
macro_rules! image_calls {
    ($apply:ident) => {
        $apply! {
            list_images(ListImagesRequest) -> ListImagesResponse,
            image_status(ImageStatusRequest) -> ImageStatusResponse,
            pull_image(PullImageRequest) -> PullImageResponse,
            remove_image(RemoveImageRequest) -> RemoveImageResponse,
            image_fs_info(ImageFsInfoRequest) -> ImageFsInfoResponse,
        }
    };
}

use image_calls;
use runtime_calls;
