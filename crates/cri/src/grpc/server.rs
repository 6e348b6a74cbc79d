//! An implementation of the traits, put on a unix socket.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener as StdListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt, TryStreamExt};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::{MAX_MESSAGE_BYTES, image_calls, runtime_calls};
use crate::podium::archive_service_server::{self, ArchiveServiceServer};
use crate::podium::{ImportArchiveRequest, ImportArchiveResponse};
use crate::v1::image_service_server::{self, ImageServiceServer};
use crate::v1::runtime_service_server::{self, RuntimeServiceServer};
use crate::v1::{self, *};
use crate::{Code, Error, ImageService, Result, RuntimeService};

/// How many entries of a list go into one message of its streamed form. A container's status stays
/// under 16 KiB, so that a message stays far under gRPC's limit.
const ENTRIES_PER_MESSAGE: usize = 64;

/// Serves both services on the socket until `shutdown` completes, then takes the socket away.
///
/// The socket is there, with mode 0600, when this returns; the returned future does the serving. A
/// socket that nobody listens on is replaced; one with a living server is an error.
pub fn serve<F>(
    path: &Path,
    runtime: Arc<dyn RuntimeService>,
    images: Arc<dyn ImageService>,
    shutdown: F,
) -> Result<impl Future<Output = Result<()>> + Send + use<F>>
where
    F: Future<Output = ()> + Send,
{
    let failed = |error: io::Error| Error::new(Code::Unavailable, format!("listen on {}: {error}", path.display()));
    let listener = bind(path).and_then(UnixListener::from_std).map_err(failed)?;
    let socket = Socket(path.to_owned());
    let router = Server::builder()
        .add_service(
            RuntimeServiceServer::new(Runtime(runtime))
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
        )
        .add_service(
            ImageServiceServer::new(Images(images.clone()))
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
        )
        .add_service(ArchiveServiceServer::new(Images(images)));
    Ok(async move {
        let served = router
            .serve_with_incoming_shutdown(UnixListenerStream::new(listener), shutdown)
            .await;
        let at = socket.0.display().to_string();
        drop(socket);
        served.map_err(|error| Error::internal(format!("serve on {at}: {error}")))
    })
}

/// Removes the socket's file at the end of its server.
struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        // It may be gone already, with the run directory.
        let _ = fs::remove_file(&self.0);
    }
}

fn bind(path: &Path) -> io::Result<StdListener> {
    if UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another server is listening there",
        ));
    }
    // Bound under another name and moved into place: nobody can connect before the mode is set, and
    // a stale socket is replaced in one step.
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let fresh = path.with_file_name(name);
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = StdListener::bind(&fresh)?;
    fs::set_permissions(&fresh, Permissions::from_mode(0o600))
        .and_then(|()| listener.set_nonblocking(true))
        .and_then(|()| fs::rename(&fresh, path))
        .inspect_err(|_| {
            let _ = fs::remove_file(&fresh);
        })?;
    Ok(listener)
}

struct Runtime(Arc<dyn RuntimeService>);
struct Images(Arc<dyn ImageService>);

type Answer<T> = std::result::Result<Response<T>, Status>;
type Answers<T> = BoxStream<'static, std::result::Result<T, Status>>;

/// A list, cut into messages.
fn pieces<T, M>(items: Vec<T>, message: fn(Vec<T>) -> M) -> Response<Answers<M>>
where
    T: Send + 'static,
    M: Send + 'static,
{
    let pieces: Box<dyn Stream<Item = _> + Send + Unpin> = Box::new(
        stream::iter(items)
            .chunks(ENTRIES_PER_MESSAGE)
            .map(move |items| Ok(message(items))),
    );
    Response::new(pieces.boxed())
}

macro_rules! runtime_server {
    ($($method:ident($request:ident) -> $response:ident,)*) => {
        #[tonic::async_trait]
        impl runtime_service_server::RuntimeService for Runtime {
            $(async fn $method(&self, request: Request<v1::$request>) -> Answer<v1::$response> {
                Ok(Response::new(self.0.$method(request.into_inner()).await?))
            })*

            type StreamPodSandboxesStream = Answers<StreamPodSandboxesResponse>;
            async fn stream_pod_sandboxes(&self, request: Request<StreamPodSandboxesRequest>) -> Answer<Self::StreamPodSandboxesStream> {
                let request = ListPodSandboxRequest { filter: request.into_inner().filter };
                let items = self.0.list_pod_sandbox(request).await?.items;
                Ok(pieces(items, |pod_sandboxes| StreamPodSandboxesResponse { pod_sandboxes }))
            }

            type StreamContainersStream = Answers<StreamContainersResponse>;
            async fn stream_containers(&self, request: Request<StreamContainersRequest>) -> Answer<Self::StreamContainersStream> {
                let request = ListContainersRequest { filter: request.into_inner().filter };
                let items = self.0.list_containers(request).await?.containers;
                Ok(pieces(items, |containers| StreamContainersResponse { containers }))
            }

            type StreamContainerStatsStream = Answers<StreamContainerStatsResponse>;
            async fn stream_container_stats(&self, request: Request<StreamContainerStatsRequest>) -> Answer<Self::StreamContainerStatsStream> {
                let request = ListContainerStatsRequest { filter: request.into_inner().filter };
                let items = self.0.list_container_stats(request).await?.stats;
                Ok(pieces(items, |container_stats| StreamContainerStatsResponse { container_stats }))
            }

            type StreamPodSandboxStatsStream = Answers<StreamPodSandboxStatsResponse>;
            async fn stream_pod_sandbox_stats(&self, request: Request<StreamPodSandboxStatsRequest>) -> Answer<Self::StreamPodSandboxStatsStream> {
                let request = ListPodSandboxStatsRequest { filter: request.into_inner().filter };
                let items = self.0.list_pod_sandbox_stats(request).await?.stats;
                Ok(pieces(items, |pod_sandbox_stats| StreamPodSandboxStatsResponse { pod_sandbox_stats }))
            }

            type StreamPodSandboxMetricsStream = Answers<StreamPodSandboxMetricsResponse>;
            async fn stream_pod_sandbox_metrics(&self, _: Request<StreamPodSandboxMetricsRequest>) -> Answer<Self::StreamPodSandboxMetricsStream> {
                let items = self.0.list_pod_sandbox_metrics(ListPodSandboxMetricsRequest {}).await?.pod_metrics;
                Ok(pieces(items, |pod_sandbox_metrics| StreamPodSandboxMetricsResponse { pod_sandbox_metrics }))
            }

            type GetContainerEventsStream = Answers<ContainerEventResponse>;
            async fn get_container_events(&self, request: Request<GetEventsRequest>) -> Answer<Self::GetContainerEventsStream> {
                let events = self.0.get_container_events(request.into_inner()).await?;
                Ok(Response::new(events.map_err(Status::from).boxed()))
            }
        }
    };
}
runtime_calls!(runtime_server);

macro_rules! image_server {
    ($($method:ident($request:ident) -> $response:ident,)*) => {
        #[tonic::async_trait]
        impl image_service_server::ImageService for Images {
            $(async fn $method(&self, request: Request<v1::$request>) -> Answer<v1::$response> {
                Ok(Response::new(self.0.$method(request.into_inner()).await?))
            })*

            type StreamImagesStream = Answers<StreamImagesResponse>;
            async fn stream_images(&self, request: Request<StreamImagesRequest>) -> Answer<Self::StreamImagesStream> {
                let request = ListImagesRequest { filter: request.into_inner().filter };
                let items = self.0.list_images(request).await?.images;
                Ok(pieces(items, |images| StreamImagesResponse { images }))
            }
        }
    };
}
image_calls!(image_server);

#[tonic::async_trait]
impl archive_service_server::ArchiveService for Images {
    async fn import_archive(&self, request: Request<ImportArchiveRequest>) -> Answer<ImportArchiveResponse> {
        Ok(Response::new(self.0.import_archive(request.into_inner()).await?))
    }
}
