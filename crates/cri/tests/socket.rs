//! A round trip of the interface over a real socket: messages, errors, streams, and the socket's life.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use async_trait::async_trait;
use cri::v1::*;
use cri::{Code, ContainerEvents, Error, ImageService, Result, RuntimeService};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::oneshot;

/// A runtime that says back what it was asked, so that a mixed-up call or field would show.
struct Echo;

fn unused<T>() -> Result<T> {
    Err(Error::failed_precondition("not a part of this test"))
}

macro_rules! not_here {
    ($($method:ident($request:ident) -> $response:ident),* $(,)?) => {
        #[async_trait]
        impl RuntimeService for Echo {
            $(async fn $method(&self, _: $request) -> Result<$response> { unused() })*

            async fn version(&self, request: VersionRequest) -> Result<VersionResponse> {
                Ok(VersionResponse { version: request.version, ..Default::default() })
            }
            async fn run_pod_sandbox(&self, request: RunPodSandboxRequest) -> Result<RunPodSandboxResponse> {
                let uid = request.config.unwrap_or_default().metadata.unwrap_or_default().uid;
                Ok(RunPodSandboxResponse { pod_sandbox_id: uid })
            }
            async fn container_status(&self, request: ContainerStatusRequest) -> Result<ContainerStatusResponse> {
                Err(Error::not_found(format!("no container {}", request.container_id)))
            }
            async fn list_containers(&self, _: ListContainersRequest) -> Result<ListContainersResponse> {
                let containers = (0..150).map(|n| Container { id: n.to_string(), ..Default::default() }).collect();
                Ok(ListContainersResponse { containers })
            }
            async fn get_container_events(&self, _: GetEventsRequest) -> Result<ContainerEvents> {
                let event = |n: i64| ContainerEventResponse { created_at: n, ..Default::default() };
                Ok(stream::iter(vec![Ok(event(1)), Ok(event(2)), Err(Error::internal("shim gone"))]).boxed())
            }
        }
    };
}

not_here! {
    stop_pod_sandbox(StopPodSandboxRequest) -> StopPodSandboxResponse,
    remove_pod_sandbox(RemovePodSandboxRequest) -> RemovePodSandboxResponse,
    pod_sandbox_status(PodSandboxStatusRequest) -> PodSandboxStatusResponse,
    list_pod_sandbox(ListPodSandboxRequest) -> ListPodSandboxResponse,
    create_container(CreateContainerRequest) -> CreateContainerResponse,
    start_container(StartContainerRequest) -> StartContainerResponse,
    stop_container(StopContainerRequest) -> StopContainerResponse,
    remove_container(RemoveContainerRequest) -> RemoveContainerResponse,
    update_container_resources(UpdateContainerResourcesRequest) -> UpdateContainerResourcesResponse,
    reopen_container_log(ReopenContainerLogRequest) -> ReopenContainerLogResponse,
    exec_sync(ExecSyncRequest) -> ExecSyncResponse,
    exec(ExecRequest) -> ExecResponse,
    attach(AttachRequest) -> AttachResponse,
    port_forward(PortForwardRequest) -> PortForwardResponse,
    container_stats(ContainerStatsRequest) -> ContainerStatsResponse,
    list_container_stats(ListContainerStatsRequest) -> ListContainerStatsResponse,
    pod_sandbox_stats(PodSandboxStatsRequest) -> PodSandboxStatsResponse,
    list_pod_sandbox_stats(ListPodSandboxStatsRequest) -> ListPodSandboxStatsResponse,
    update_runtime_config(UpdateRuntimeConfigRequest) -> UpdateRuntimeConfigResponse,
    runtime_config(RuntimeConfigRequest) -> RuntimeConfigResponse,
    status(StatusRequest) -> StatusResponse,
}

#[async_trait]
impl ImageService for Echo {
    async fn list_images(&self, _: ListImagesRequest) -> Result<ListImagesResponse> {
        unused()
    }
    async fn image_status(&self, _: ImageStatusRequest) -> Result<ImageStatusResponse> {
        Ok(ImageStatusResponse::default())
    }
    async fn pull_image(&self, request: PullImageRequest) -> Result<PullImageResponse> {
        Ok(PullImageResponse {
            image_ref: request.image.unwrap_or_default().image,
        })
    }
    async fn remove_image(&self, _: RemoveImageRequest) -> Result<RemoveImageResponse> {
        unused()
    }
    async fn image_fs_info(&self, _: ImageFsInfoRequest) -> Result<ImageFsInfoResponse> {
        unused()
    }
}

#[tokio::test]
async fn round_trip() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("cri.sock");
    // What a killed server leaves behind.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());

    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async { stopped.await.unwrap_or_default() };
    let server = cri::grpc::serve(&socket, Arc::new(Echo), Arc::new(Echo), shutdown).unwrap();
    let server = tokio::spawn(server);
    assert_eq!(socket.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let busy = cri::grpc::serve(&socket, Arc::new(Echo), Arc::new(Echo), async {})
        .err()
        .unwrap();
    assert_eq!(busy.code, Code::Unavailable);
    assert!(busy.message.contains("another server is listening there"), "{busy}");

    let client = cri::grpc::connect(&format!("unix://{}", socket.display()))
        .await
        .unwrap();
    let version = client
        .version(VersionRequest {
            version: "0.1.0".into(),
        })
        .await
        .unwrap();
    assert_eq!(version.version, "0.1.0");
    let config = PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            uid: "u1".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let run = RunPodSandboxRequest {
        config: Some(config),
        ..Default::default()
    };
    assert_eq!(client.run_pod_sandbox(run).await.unwrap().pod_sandbox_id, "u1");

    let missing = client
        .container_status(ContainerStatusRequest {
            container_id: "c9".into(),
            verbose: false,
        })
        .await
        .unwrap_err();
    assert!(missing.is_not_found());
    assert_eq!(missing.to_string(), "rpc error: code = NotFound desc = no container c9");
    let absent = client.checkpoint_container(Default::default()).await.unwrap_err();
    assert_eq!(absent.code, Code::Unimplemented);

    let mut events = client.get_container_events(GetEventsRequest {}).await.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap().created_at, 1);
    assert_eq!(events.next().await.unwrap().unwrap().created_at, 2);
    assert_eq!(events.next().await.unwrap().unwrap_err(), Error::internal("shim gone"));

    let spec = ImageSpec {
        image: "busybox".into(),
        ..Default::default()
    };
    let pull = PullImageRequest {
        image: Some(spec),
        ..Default::default()
    };
    assert_eq!(client.pull_image(pull).await.unwrap().image_ref, "busybox");
    assert_eq!(client.image_status(Default::default()).await.unwrap().image, None);

    assert_eq!(
        streamed_ids(&socket).await,
        (0..150).map(|n| n.to_string()).collect::<Vec<_>>()
    );

    drop(client);
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
    assert!(!socket.exists());
    assert_eq!(
        cri::grpc::connect(socket.to_str().unwrap()).await.unwrap_err().code,
        Code::Unavailable
    );
}

/// The streamed form of a list, which only other kubelets ask for.
async fn streamed_ids(socket: &std::path::Path) -> Vec<String> {
    let path = socket.to_owned();
    let channel = tonic::transport::Endpoint::from_static("http://localhost")
        .connect_with_connector(tower::service_fn(move |_| {
            let path = path.clone();
            async move {
                tokio::net::UnixStream::connect(path)
                    .await
                    .map(hyper_util::rt::TokioIo::new)
            }
        }))
        .await
        .unwrap();
    let answer = runtime_service_client::RuntimeServiceClient::new(channel)
        .stream_containers(StreamContainersRequest::default())
        .await
        .unwrap();
    let parts: Vec<_> = answer.into_inner().try_collect().await.unwrap();
    assert!(parts.len() > 1);
    parts
        .into_iter()
        .flat_map(|part| part.containers)
        .map(|container| container.id)
        .collect()
}

#[test]
fn credentials_do_not_print() {
    let auth = AuthConfig {
        username: "ada".into(),
        password: "secret".into(),
        ..Default::default()
    };
    let printed = format!(
        "{:?}",
        PullImageRequest {
            auth: Some(auth),
            ..Default::default()
        }
    );
    assert!(printed.contains("ada") && !printed.contains("secret"), "{printed}");
}
