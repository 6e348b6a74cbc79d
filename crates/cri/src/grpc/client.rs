//! A runtime on another side of a socket, as an implementation of the traits.

use std::path::PathBuf;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::{MAX_MESSAGE_BYTES, image_calls, runtime_calls};
use crate::podium::archive_service_client::ArchiveServiceClient;
use crate::podium::{ImportArchiveRequest, ImportArchiveResponse};
use crate::v1::image_service_client::ImageServiceClient;
use crate::v1::runtime_service_client::RuntimeServiceClient;
use crate::v1::{self, GetEventsRequest};
use crate::{Code, ContainerEvents, Error, ImageService, Result, RuntimeService};

/// A remote runtime. It reconnects by itself; clones share the connection.
#[derive(Debug, Clone)]
pub struct Client {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    archives: ArchiveServiceClient<Channel>,
}

/// Connects to a runtime at `unix:///run/some.sock`, or the bare path of a socket.
pub async fn connect(endpoint: &str) -> Result<Client> {
    let path = socket_path(endpoint)?;
    // The address only fills the authority header; what is dialled is the socket.
    let channel = Endpoint::from_static("http://localhost")
        .connect_with_connector(service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        }))
        .await
        .map_err(|error| {
            let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            Error::new(
                Code::Unavailable,
                format!("connect to the container runtime at {endpoint:?}: {cause}"),
            )
        })?;
    Ok(Client {
        runtime: RuntimeServiceClient::new(channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES),
        archives: ArchiveServiceClient::new(channel.clone()),
        images: ImageServiceClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES),
    })
}

fn socket_path(endpoint: &str) -> Result<PathBuf> {
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
    if path.starts_with('/') {
        Ok(path.into())
    } else {
        Err(Error::invalid_argument(format!(
            "container runtime endpoint {endpoint:?}: expected unix:// and an absolute path"
        )))
    }
}

macro_rules! runtime_client {
    ($($method:ident($request:ident) -> $response:ident,)*) => {
        #[async_trait]
        impl RuntimeService for Client {
            $(async fn $method(&self, request: v1::$request) -> Result<v1::$response> {
                Ok(self.runtime.clone().$method(request).await?.into_inner())
            })*

            async fn get_container_events(&self, request: GetEventsRequest) -> Result<ContainerEvents> {
                let events = self.runtime.clone().get_container_events(request).await?;
                Ok(events.into_inner().map_err(Error::from).boxed())
            }
        }
    };
}
runtime_calls!(runtime_client);

macro_rules! image_client {
    ($($method:ident($request:ident) -> $response:ident,)*) => {
        #[async_trait]
        impl ImageService for Client {
            $(async fn $method(&self, request: v1::$request) -> Result<v1::$response> {
                Ok(self.images.clone().$method(request).await?.into_inner())
            })*

            async fn import_archive(&self, request: ImportArchiveRequest) -> Result<ImportArchiveResponse> {
                Ok(self.archives.clone().import_archive(request).await?.into_inner())
            }
        }
    };
}
image_calls!(image_client);

#[cfg(test)]
mod tests {
    use super::socket_path;

    #[test]
    fn endpoints() {
        for (endpoint, path) in [
            ("unix:///run/podium/cri.sock", Some("/run/podium/cri.sock")),
            ("/run/podium/cri.sock", Some("/run/podium/cri.sock")),
            ("unix://run/podium.sock", None),
            ("tcp://127.0.0.1:1", None),
            ("", None),
        ] {
            assert_eq!(
                socket_path(endpoint).ok().as_deref(),
                path.map(std::path::Path::new),
                "{endpoint}"
            );
        }
    }
}
