//! The runtime as the kubelet asks for it: each call of CRI is a verb of its own elsewhere.

use std::collections::HashMap;

use async_trait::async_trait;
use cri::podium::{ImportArchiveRequest, ImportArchiveResponse};
use cri::v1::*;
use cri::{ContainerEvents, Error, ImageService, Result, RuntimeService};
use futures::StreamExt;
use tokio_stream::wrappers::BroadcastStream;

use crate::runtime::Runtime;
use crate::sandbox::run::HANDLERS;
use crate::streaming::StreamingServer;
use crate::{container, metrics, sandbox};

const NAME: &str = "podium";

/// What a verbose answer has more: a JSON document under the name that other runtimes give it.
fn details(verbose: bool, name: &str, of: impl FnOnce() -> serde_json::Value) -> HashMap<String, String> {
    verbose
        .then(|| (name.to_owned(), of().to_string()))
        .into_iter()
        .collect()
}

impl Runtime {
    fn streaming(&self) -> Result<&StreamingServer> {
        self.0
            .streaming
            .get()
            .ok_or_else(|| Error::new(cri::Code::Unavailable, "the runtime is starting"))
    }
}

#[async_trait]
impl RuntimeService for Runtime {
    async fn version(&self, _: VersionRequest) -> Result<VersionResponse> {
        Ok(VersionResponse {
            version: "0.1.0".into(),
            runtime_name: NAME.into(),
            runtime_version: env!("CARGO_PKG_VERSION").into(),
            runtime_api_version: "v1".into(),
        })
    }

    async fn run_pod_sandbox(&self, request: RunPodSandboxRequest) -> Result<RunPodSandboxResponse> {
        self.0.run_pod_sandbox(request).await
    }

    async fn stop_pod_sandbox(&self, request: StopPodSandboxRequest) -> Result<StopPodSandboxResponse> {
        self.0.stop_pod_sandbox(request).await
    }

    async fn remove_pod_sandbox(&self, request: RemovePodSandboxRequest) -> Result<RemovePodSandboxResponse> {
        self.0.remove_pod_sandbox(request).await
    }

    async fn pod_sandbox_status(&self, request: PodSandboxStatusRequest) -> Result<PodSandboxStatusResponse> {
        let found = self.0.sandbox(&request.pod_sandbox_id).ok_or_else(|| {
            Error::not_found(format!(
                "an error occurred when try to find sandbox {:?}: not found",
                request.pod_sandbox_id
            ))
        })?;
        let containers = self.0.containers_of(&found.id);
        Ok(PodSandboxStatusResponse {
            status: Some(sandbox::status(&found)),
            info: details(request.verbose, "info", || sandbox::details(&found)),
            containers_statuses: containers.iter().map(|found| container::status(found)).collect(),
            timestamp: crate::runtime::now(),
        })
    }

    async fn list_pod_sandbox(&self, request: ListPodSandboxRequest) -> Result<ListPodSandboxResponse> {
        let filter = request.filter.unwrap_or_default();
        let items = self
            .0
            .sandboxes
            .read()
            .values()
            .map(|found| sandbox::summary(found))
            .collect::<Vec<_>>();
        Ok(ListPodSandboxResponse {
            items: items
                .into_iter()
                .filter(|item| sandbox::matches(item, &filter))
                .collect(),
        })
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: UpdatePodSandboxResourcesRequest,
    ) -> Result<UpdatePodSandboxResourcesResponse> {
        self.0.update_pod_sandbox_resources(request)
    }

    async fn create_container(&self, request: CreateContainerRequest) -> Result<CreateContainerResponse> {
        self.0.create_container(request).await
    }

    async fn start_container(&self, request: StartContainerRequest) -> Result<StartContainerResponse> {
        self.0.start_container(request).await
    }

    async fn stop_container(&self, request: StopContainerRequest) -> Result<StopContainerResponse> {
        self.0.stop_container(request).await
    }

    async fn remove_container(&self, request: RemoveContainerRequest) -> Result<RemoveContainerResponse> {
        self.0.remove_container(request).await
    }

    async fn list_containers(&self, request: ListContainersRequest) -> Result<ListContainersResponse> {
        let filter = request.filter.unwrap_or_default();
        let items = self
            .0
            .containers
            .read()
            .values()
            .map(|found| container::list_entry(found))
            .collect::<Vec<_>>();
        Ok(ListContainersResponse {
            containers: items
                .into_iter()
                .filter(|item| container::matches(item, &filter))
                .collect(),
        })
    }

    async fn container_status(&self, request: ContainerStatusRequest) -> Result<ContainerStatusResponse> {
        let found = self.0.known_container(&request.container_id)?;
        Ok(ContainerStatusResponse {
            status: Some(container::status(&found)),
            info: details(request.verbose, "info", || container::details(&found)),
        })
    }

    async fn update_container_resources(
        &self,
        request: UpdateContainerResourcesRequest,
    ) -> Result<UpdateContainerResourcesResponse> {
        self.0.update_container_resources(request).await
    }

    async fn reopen_container_log(&self, request: ReopenContainerLogRequest) -> Result<ReopenContainerLogResponse> {
        self.0.reopen_container_log(request).await
    }

    async fn exec_sync(&self, request: ExecSyncRequest) -> Result<ExecSyncResponse> {
        self.0.exec_sync(request, container::MAX_OUTPUT).await
    }

    async fn exec_sync_in_brief(&self, request: ExecSyncRequest, most: usize) -> Result<ExecSyncResponse> {
        self.0.exec_sync(request, most).await
    }

    async fn exec(&self, request: ExecRequest) -> Result<ExecResponse> {
        self.streaming()?.exec(request)
    }

    async fn attach(&self, request: AttachRequest) -> Result<AttachResponse> {
        self.streaming()?.attach(request)
    }

    async fn port_forward(&self, request: PortForwardRequest) -> Result<PortForwardResponse> {
        self.streaming()?.port_forward(request)
    }

    async fn container_stats(&self, request: ContainerStatsRequest) -> Result<ContainerStatsResponse> {
        self.0.container_stats(request).await
    }

    async fn list_container_stats(&self, request: ListContainerStatsRequest) -> Result<ListContainerStatsResponse> {
        self.0.list_container_stats(request).await
    }

    async fn pod_sandbox_stats(&self, request: PodSandboxStatsRequest) -> Result<PodSandboxStatsResponse> {
        self.0.pod_sandbox_stats(request).await
    }

    async fn list_pod_sandbox_stats(&self, request: ListPodSandboxStatsRequest) -> Result<ListPodSandboxStatsResponse> {
        self.0.list_pod_sandbox_stats(request).await
    }

    async fn list_metric_descriptors(&self, _: ListMetricDescriptorsRequest) -> Result<ListMetricDescriptorsResponse> {
        Ok(metrics::descriptors())
    }

    async fn list_pod_sandbox_metrics(&self, _: ListPodSandboxMetricsRequest) -> Result<ListPodSandboxMetricsResponse> {
        Ok(self.0.metrics())
    }

    async fn update_runtime_config(&self, request: UpdateRuntimeConfigRequest) -> Result<UpdateRuntimeConfigResponse> {
        let cidr = request
            .runtime_config
            .and_then(|config| config.network_config)
            .map(|network| network.pod_cidr)
            .filter(|cidr| !cidr.is_empty());
        if let Some(cidr) = cidr {
            self.0
                .network
                .set_pod_cidr(&cidr)
                .await
                .map_err(|err| Error::unknown(format!("set the pod CIDR {cidr:?}: {err}")))?;
        }
        Ok(UpdateRuntimeConfigResponse {})
    }

    async fn runtime_config(&self, _: RuntimeConfigRequest) -> Result<RuntimeConfigResponse> {
        Ok(RuntimeConfigResponse {
            linux: Some(LinuxRuntimeConfiguration {
                cgroup_driver: CgroupDriver::Cgroupfs.into(),
            }),
        })
    }

    async fn status(&self, request: StatusRequest) -> Result<StatusResponse> {
        let condition = |kind: &str, result: std::result::Result<(), (&str, String)>| {
            let (reason, message) = result.as_ref().err().cloned().unwrap_or_default();
            RuntimeCondition {
                r#type: kind.into(),
                status: result.is_ok(),
                reason: reason.into(),
                message,
            }
        };
        let network = self.0.network.ready().await.map_err(|err| {
            let message = format!("Network plugin returns error: {err}");
            ("NetworkPluginNotReady", message)
        });
        Ok(StatusResponse {
            status: Some(RuntimeStatus {
                conditions: vec![condition("RuntimeReady", Ok(())), condition("NetworkReady", network)],
            }),
            runtime_handlers: HANDLERS
                .map(|name| RuntimeHandler {
                    name: name.into(),
                    features: Some(RuntimeHandlerFeatures {
                        recursive_read_only_mounts: true,
                        user_namespaces: self.0.host.user_namespaces,
                    }),
                })
                .into(),
            features: Some(RuntimeFeatures {
                supplemental_groups_policy: true,
                ..Default::default()
            }),
            info: details(request.verbose, "config", || self.0.layout.details()),
        })
    }

    async fn get_container_events(&self, _: GetEventsRequest) -> Result<ContainerEvents> {
        let events = BroadcastStream::new(self.0.events.subscribe());
        // Who has lost events must look at everything anew: the end of the stream says so.
        let events = events.map(|event| event.map_err(|lag| Error::new(cri::Code::DataLoss, lag.to_string())));
        Ok(events.boxed())
    }
}

#[async_trait]
impl ImageService for Runtime {
    async fn list_images(&self, request: ListImagesRequest) -> Result<ListImagesResponse> {
        self.0.images.list_images(request).await
    }

    async fn image_status(&self, request: ImageStatusRequest) -> Result<ImageStatusResponse> {
        self.0.images.image_status(request).await
    }

    async fn pull_image(&self, request: PullImageRequest) -> Result<PullImageResponse> {
        self.0.images.pull_image(request).await
    }

    async fn remove_image(&self, request: RemoveImageRequest) -> Result<RemoveImageResponse> {
        self.0.images.remove_image(request).await
    }

    async fn image_fs_info(&self, request: ImageFsInfoRequest) -> Result<ImageFsInfoResponse> {
        self.0.images.image_fs_info(request).await
    }

    async fn import_archive(&self, request: ImportArchiveRequest) -> Result<ImportArchiveResponse> {
        self.0.images.import_archive(request).await
    }
}
