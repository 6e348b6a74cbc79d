//! RemoveContainer: ended by force if it runs, and forgotten. Its log stays, it is the kubelet's.

use std::fs;
use std::io;
use std::path::Path;

use cri::Result;
use cri::v1::{ContainerEventType, RemoveContainerRequest, RemoveContainerResponse};

use crate::host;
use crate::runtime::{Container, Inner};
use crate::shim::protocol::Request;

impl Inner {
    pub(crate) async fn remove_container(&self, request: RemoveContainerRequest) -> Result<RemoveContainerResponse> {
        if let Some(container) = self.container(&request.container_id) {
            let _turn = container.verbs.lock().await;
            self.kill_and_wait(&container).await?;
            self.forget_container(&container).await;
        }
        Ok(RemoveContainerResponse {})
    }

    /// Takes away what the machine has of an ended container; goes on past what fails.
    pub(crate) async fn forget_container(&self, container: &Container) {
        if self.containers.write().remove(&container.id).is_none() {
            return;
        }
        if let Some(shim) = container.sandbox.shim()
            && let Err(err) = shim
                .run(Request::Forget {
                    id: container.id.clone(),
                })
                .await
        {
            tracing::error!(container = container.id, %err, "have a shim forget a container");
        }
        host::remove_cgroup(Path::new(&container.cgroup()));
        for dir in [container.dir.clone(), self.layout.writable(&container.id)] {
            // What a container wrote may be much.
            let removed = tokio::task::spawn_blocking({
                let dir = dir.clone();
                move || fs::remove_dir_all(dir)
            })
            .await;
            if let Ok(Err(err)) = removed
                && err.kind() != io::ErrorKind::NotFound
            {
                tracing::error!(dir = %dir.display(), %err, "remove a directory of a container");
            }
        }
        if let Err(err) = self.images.release(&container.id).await {
            tracing::error!(container = container.id, %err, "release the image of a container");
        }
        self.announce(container, ContainerEventType::ContainerDeletedEvent);
    }
}
