//! Opening a runtime: finding what the last server left, going on with it, and sweeping what nobody owns.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cri::v1::{ContainerEventType, PodSandboxState};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, umount2};

use crate::client::{ShimClient, ShimError};
use crate::config::{Config, Layout};
use crate::container::Handle;
use crate::container::image_volume;
use crate::images::{self, Images};
use crate::record::{self, ContainerRecord, Ended, SandboxRecord, Status};
use crate::runtime::{Container, Inner, Runtime, Sandbox, now};
use crate::sandbox::{on_host_network, status};
use crate::shim::protocol::{Answer, Request};
use crate::streaming::StreamingServer;
use crate::{NetworkError, PodNetwork, pod_files};

/// Why a runtime cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The kernel cannot put layers upon each other.
    #[error("the kernel has no overlayfs: load the module (modprobe overlay) or use a kernel that has it")]
    NoOverlay,
    /// Another process is this runtime already.
    #[error("{0} is used by another Podium process")]
    InUse(PathBuf),
    /// The images cannot be used.
    #[error(transparent)]
    Images(#[from] images::Error),
    /// The network would not look at its leftovers.
    #[error("reconcile the pod network: {0}")]
    Network(#[source] NetworkError),
    /// A file or directory of the runtime cannot be used.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The server of exec, attach and port-forward does not listen.
    #[error("listen for sessions on loopback: {0}")]
    Streaming(#[source] io::Error),
    /// The shim's program does not start.
    #[error("start the shim: {0}")]
    Shim(String),
}

pub(crate) fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { action, path, source }
}

impl Runtime {
    /// Opens the runtime of a node. What ran before goes on.
    pub async fn open(config: Config, network: Arc<dyn PodNetwork>) -> Result<Self, OpenError> {
        check_overlay()?;
        let layout = Layout::new(&config.data_dir, &config.run_dir);
        for dir in [
            layout.sandboxes(),
            layout.containers(),
            layout.writable_all(),
            layout.pause(),
        ] {
            fs::create_dir_all(&dir).map_err(at("create", &dir))?;
        }
        let lock = lock(&layout)?;
        let images = Images::open(images::Config {
            data_dir: config.data_dir.clone(),
            registries_file: config.registries_file.clone(),
        })?;
        let inner = Inner::new(&config, images, network, lock);
        inner.zygote.warm_up().map_err(|err| OpenError::Shim(err.to_string()))?;
        inner.load()?;
        inner.reconnect().await;
        inner.sweep().await?;
        let sessions = Arc::new(Handle(Arc::downgrade(&inner)));
        let streaming = StreamingServer::start(sessions).await.map_err(OpenError::Streaming)?;
        // It is set here and nowhere else.
        let _ = inner.streaming.set(streaming);
        Ok(Self(inner))
    }

    /// The node's images.
    pub fn images(&self) -> &Images {
        &self.0.images
    }
}

/// One process at a time may have a run directory.
pub(crate) fn lock(layout: &Layout) -> Result<Flock<File>, OpenError> {
    let path = layout.run().join("runtime.lock");
    let file = File::create(&path).map_err(at("create", &path))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => OpenError::InUse(layout.run().to_owned()),
        errno => at("lock", &path)(errno.into()),
    })
}

/// Asks the kernel itself, which may load the module for it.
fn check_overlay() -> Result<(), OpenError> {
    // SAFETY: the name ends with a zero byte; the call makes a descriptor or an error.
    let result = unsafe { libc::syscall(libc::SYS_fsopen, c"overlay".as_ptr(), libc::FSOPEN_CLOEXEC) };
    match Errno::result(result) {
        Ok(fd) => {
            // SAFETY: the descriptor has just been made and nobody else has it.
            unsafe { libc::close(fd as i32) };
            Ok(())
        }
        Err(Errno::ENODEV) => Err(OpenError::NoOverlay),
        // A kernel that does not say cannot be asked this way.
        Err(_) => Ok(()),
    }
}

impl Inner {
    /// Reads the records. What has none, or one that cannot be read, is left to the sweep.
    fn load(&self) -> Result<(), OpenError> {
        for dir in subdirectories(&self.layout.sandboxes())? {
            if let Some(record) = readable::<SandboxRecord>(&dir.join("sandbox.json")) {
                let sandbox = Arc::new(Sandbox::new(record, dir));
                self.sandboxes.write().insert(sandbox.id.clone(), sandbox);
            }
        }
        for dir in subdirectories(&self.layout.containers())? {
            if let Some(record) = readable::<ContainerRecord>(&dir.join("container.json"))
                && let Some(sandbox) = self.sandbox(&record.sandbox_id)
            {
                let volumes = image_volume::holders(&record.id, &record.config.0, &self.images);
                for (holder, image) in std::iter::once((record.id.clone(), record.image_id.clone())).chain(volumes) {
                    if let Err(err) = self.images.hold(&image, &holder) {
                        tracing::warn!(container = record.id, %err, "hold an image of a container");
                    }
                }
                let container = Arc::new(Container::new(record, sandbox, dir));
                self.containers.write().insert(container.id.clone(), container);
            }
        }
        Ok(())
    }

    /// Learns from each shim what has happened.
    async fn reconnect(self: &Arc<Self>) {
        let sandboxes: Vec<_> = self.sandboxes.read().values().cloned().collect();
        let all = sandboxes.iter().map(|sandbox| async move {
            let state = match self.connect(sandbox) {
                Ok(shim) => shim.call(Request::State, Vec::new()).await,
                Err(err) => Err(err),
            };
            match state {
                Ok((Answer::State { containers }, _)) => self.follow(sandbox, &containers),
                Ok((other, _)) => tracing::error!(sandbox = sandbox.id, ?other, "a shim gave an unexpected answer"),
                Err(err) => {
                    if sandbox.ready() {
                        tracing::warn!(sandbox = sandbox.id, %err, "the shim of a sandbox has gone");
                    }
                    self.shim_gone(sandbox);
                }
            }
        });
        futures::future::join_all(all).await;
    }

    fn follow(&self, sandbox: &Arc<Sandbox>, states: &[crate::shim::protocol::ContainerState]) {
        let state = |id: &str| states.iter().find(|state| state.id == id);
        if state(&sandbox.id).is_none_or(|pause| pause.exit.is_some()) {
            self.pause_ended(sandbox);
        }
        for container in self.containers_of(&sandbox.id) {
            let recorded = container.status.borrow().clone();
            match (state(&container.id), recorded) {
                (_, Status::Exited(_)) | (None, Status::Created) => {}
                (Some(state), recorded) => {
                    if recorded == Status::Created {
                        container.set_status(Status::Running {
                            pid: state.pid,
                            started_at: state.started_at,
                        });
                    }
                    if let Some(exit) = state.exit {
                        self.container_ended(&container, exit);
                    }
                }
                (None, Status::Running { started_at, .. }) => {
                    let ended = Ended {
                        started_at,
                        finished_at: now(),
                        code: 255,
                        reason: "Unknown".into(),
                        message: "the pod's shim does not know the container".into(),
                    };
                    container.set_status(Status::Exited(ended));
                    self.announce(&container, ContainerEventType::ContainerStoppedEvent);
                }
            }
        }
    }

    /// Takes away what belongs to no sandbox and no container.
    async fn sweep(&self) -> Result<(), OpenError> {
        let (sandboxes, containers): (BTreeSet<_>, BTreeSet<_>) = (
            self.sandboxes.read().keys().cloned().collect(),
            self.containers.read().keys().cloned().collect(),
        );
        for dir in unknown(&self.layout.sandboxes(), &sandboxes)? {
            tracing::info!(dir = %dir.display(), "sweep what is left of a sandbox");
            close(&dir).await;
            pod_files::unmount(&dir);
            remove(&dir);
        }
        for known in [self.layout.containers(), self.layout.writable_all()] {
            for dir in unknown(&known, &containers)? {
                tracing::info!(dir = %dir.display(), "sweep what is left of a container");
                remove(&dir);
            }
        }
        let live: Vec<String> = self
            .sandboxes
            .read()
            .values()
            .filter(|sandbox| status(sandbox).state() == PodSandboxState::SandboxReady)
            .filter(|sandbox| !on_host_network(&sandbox.record.lock().config.0))
            .map(|sandbox| sandbox.id.clone())
            .collect();
        self.network.reconcile(&live).await.map_err(OpenError::Network)?;
        self.images.settle().await?;
        Ok(())
    }
}

/// Ends the pod whose shim listens in a directory, if one does.
pub(crate) async fn close(dir: &Path) {
    match ShimClient::connect(dir, |_| {}) {
        Ok(shim) => {
            if let Err(err) = shim.close().await {
                tracing::error!(dir = %dir.display(), %err, "end a pod");
            }
        }
        Err(ShimError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        Err(ShimError::Io { source, .. }) if source.kind() == io::ErrorKind::ConnectionRefused => {}
        Err(err) => tracing::error!(dir = %dir.display(), %err, "reach a shim"),
    }
}

pub(crate) fn subdirectories(dir: &Path) -> Result<Vec<PathBuf>, OpenError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(err) => return Err(at("read", dir)(err)),
    };
    entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<_>>()
        .map_err(at("read", dir))
}

fn unknown(dir: &Path, known: &BTreeSet<String>) -> Result<Vec<PathBuf>, OpenError> {
    let mut dirs = subdirectories(dir)?;
    dirs.retain(|dir| {
        dir.file_name()
            .is_none_or(|name| !known.contains(&*name.to_string_lossy()))
    });
    Ok(dirs)
}

fn readable<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    match record::load(path) {
        Ok(record) => Some(record),
        Err(err) => {
            if err.kind() != io::ErrorKind::NotFound {
                tracing::error!(path = %path.display(), %err, "read a record");
            }
            None
        }
    }
}

/// Removes a directory with what is mounted in it.
pub(crate) fn remove(dir: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for point in mounted_below(&mounts, dir).iter().rev() {
        let _ = umount2(point, MntFlags::MNT_DETACH);
    }
    if let Err(err) = fs::remove_dir_all(dir)
        && err.kind() != io::ErrorKind::NotFound
    {
        tracing::error!(dir = %dir.display(), %err, "remove a directory");
    }
}

/// Mount points in a directory, of a mount table, in the order they were mounted.
fn mounted_below(mountinfo: &str, dir: &Path) -> Vec<PathBuf> {
    mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        // Spaces and the like are written in octal.
        .map(|point| {
            PathBuf::from(
                point
                    .replace("\\040", " ")
                    .replace("\\011", "\t")
                    .replace("\\134", "\\"),
            )
        })
        .filter(|point| point.starts_with(dir))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_below_a_directory_are_found() {
        let table = "\
1 0 0:1 / / rw - ext4 /dev/sda rw
2 1 0:2 / /run/podium/sandboxes/a/shm rw - tmpfs shm rw
3 1 0:3 / /run/podium/sandboxes/ab/shm rw - tmpfs shm rw
4 1 0:4 / /run/podium/sandboxes/a/with\\040space rw - tmpfs shm rw
";
        let found = mounted_below(table, Path::new("/run/podium/sandboxes/a"));
        assert_eq!(
            found,
            [
                Path::new("/run/podium/sandboxes/a/shm"),
                Path::new("/run/podium/sandboxes/a/with space")
            ]
        );
    }
}
