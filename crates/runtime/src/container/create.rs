//! CreateContainer: the bundle and the record; no process yet.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cri::v1::security_profile::ProfileType;
use cri::v1::{
    ContainerConfig, ContainerEventType, CreateContainerRequest, CreateContainerResponse,
    LinuxContainerSecurityContext, Mount, NamespaceMode, PodSandboxConfig,
};
use cri::{Error, Result};
use oci_spec::image::ImageConfiguration;
use oci_spec::runtime::LinuxDevice;

use super::{declared_volume, image_volume};
use crate::images::image_ref;
use crate::record::{ContainerRecord, Proto, Status};
use crate::rootfs::Part;
use crate::runtime::{Container, Inner, Sandbox, new_id, now};
use crate::shim::protocol::Confinement;
use crate::spec::{self, Accounts, Image, PodUsers};
use crate::{host, pod_files, rootfs, signal, users, working_dir};

/// What a container has before its bundle is made.
struct Findings {
    /// Its own image's layers, the lowest first.
    layers: Vec<PathBuf>,
    /// What it has mounted of others.
    volumes: Vec<Part>,
    /// The volumes that its own declares.
    declared: Vec<Mount>,
    /// What it runs under.
    app_armor: Option<String>,
}

impl Inner {
    pub(crate) async fn create_container(&self, request: CreateContainerRequest) -> Result<CreateContainerResponse> {
        let sandbox = self.sandbox(&request.pod_sandbox_id).ok_or_else(|| {
            Error::not_found(format!(
                "failed to find sandbox id {:?}: not found",
                request.pod_sandbox_id
            ))
        })?;
        if !sandbox.ready() {
            return Err(Error::unknown(format!(
                "sandbox container {:?} is not running",
                sandbox.id
            )));
        }
        let config = request
            .config
            .ok_or_else(|| Error::invalid_argument("config: Required value"))?;
        let asked = config
            .image
            .as_ref()
            .map(|image| image.image.clone())
            .unwrap_or_default();
        let image = self
            .images
            .resolve_soon(&asked)
            .await?
            .ok_or_else(|| Error::not_found(format!("failed to resolve image {asked:?}: not found")))?;
        let context = spec::security_context(&config);
        let app_armor = self.app_armor_profile(&context).await?;
        let id = new_id();
        let image = self.images.hold(&image.id, &id)?;
        let said = image_said(&image.config);
        let layers = self.images.layers(&image.id)?;
        let accounts = rootfs::accounts(&layers);
        let identity = spec::identity(&context, &said.user, &accounts).map_err(|err| self.refused(&err))?;
        let volumes = self.hold_image_volumes(&id, &config).await?;
        let record = ContainerRecord {
            id: id.clone(),
            sandbox_id: sandbox.id.clone(),
            config: Proto(config),
            image_id: image.id.clone(),
            image_ref: image_ref(&image, &asked).to_owned(),
            created_at: now(),
            stop_signal: 0,
            uid: identity.uid,
            gid: identity.gid,
            groups: identity.groups,
            confinement: Confinement::default(),
            staging: None,
            status: Status::Created,
        };
        let dir = self.layout.container(&id);
        let declared = image
            .config
            .config()
            .as_ref()
            .and_then(|config| config.volumes().clone());
        let prepared = async {
            let declared = self.declare_volumes(declared, &record, &sandbox, &layers).await?;
            let found = Findings {
                layers,
                volumes,
                declared,
                app_armor,
            };
            self.prepare(record, &sandbox, &dir, &found, &said, &accounts)
        };
        match prepared.await {
            Ok(container) => {
                let container = Arc::new(container);
                container.save();
                self.containers.write().insert(id.clone(), container.clone());
                self.announce(&container, ContainerEventType::ContainerCreatedEvent);
                Ok(CreateContainerResponse { container_id: id })
            }
            Err(err) => {
                let _ = fs::remove_dir_all(&dir);
                let _ = fs::remove_dir_all(self.layout.writable(&id));
                if let Err(err) = self.images.release(&id).await {
                    tracing::error!(%err, "release the image of a container that could not be created");
                }
                Err(err)
            }
        }
    }

    async fn app_armor_profile(&self, context: &LinuxContainerSecurityContext) -> Result<Option<String>> {
        // Most containers ask for none, and need not wait for another thread.
        if !self.app_armor.is_asked(context) {
            return Ok(None);
        }
        let (app_armor, context) = (self.app_armor.clone(), context.clone());
        let profile = tokio::task::spawn_blocking(move || app_armor.profile(&context)).await;
        profile
            .map_err(|err| Error::unknown(err.to_string()))?
            .map_err(|err| Error::unknown(format!("failed to generate container spec: {err}")))
    }

    /// Makes the volumes of the image's own wish.
    async fn declare_volumes(
        &self,
        declared: Option<Vec<String>>,
        record: &ContainerRecord,
        sandbox: &Sandbox,
        layers: &[PathBuf],
    ) -> Result<Vec<Mount>> {
        let Some(declared) = declared.filter(|declared| !declared.is_empty()) else {
            return Ok(Vec::new());
        };
        let pod = sandbox.record.lock().config.0.clone();
        let users = self.users_of(sandbox, &pod)?;
        let (mounts, layers) = (record.config.0.mounts.clone(), layers.to_vec());
        let dir = self.layout.writable(&record.id).join("volumes");
        // What an image has there may be much.
        let make = move || declared_volume::make(&declared, &mounts, &layers, &dir, users.as_ref());
        let made = tokio::task::spawn_blocking(make).await;
        made.map_err(std::io::Error::other)
            .and_then(|made| made)
            .map_err(|err| Error::unknown(format!("failed to set up volumes of the image: {err}")))
    }

    fn prepare(
        &self,
        mut record: ContainerRecord,
        sandbox: &Arc<Sandbox>,
        dir: &Path,
        found: &Findings,
        image: &Image,
        accounts: &Accounts,
    ) -> Result<Container> {
        let mut config = record.config.0.clone();
        config.mounts.extend(found.declared.iter().cloned());
        let config = &config;
        let pod = sandbox.record.lock().config.0.clone();
        record.stop_signal = signal::stop_signal(config.stop_signal(), &image.stop_signal);
        let users = self.users_of(sandbox, &pod)?;
        let users = users.as_ref();
        let names = rootfs::prepare(dir, &self.layout.writable(&record.id), &found.layers, users)
            .map_err(|err| failed("prepare the container's root in", dir, &err))?;
        let volumes = image_volume::link(dir, &found.volumes, users)
            .map_err(|err| failed("link the images of volumes in", dir, &err))?;
        make_sources(config)?;
        if let Some(log) = log_path(&pod, config)
            && let Some(parent) = log.parent()
        {
            fs::create_dir_all(parent).map_err(|err| failed("create", parent, &err))?;
        }
        let context = spec::security_context(config);
        let namespaces = context.namespace_options.clone().unwrap_or_default();
        let mut files = pod_files::names(&sandbox.dir, &pod, namespaces.ipc());
        files.rootfs = dir.join("rootfs");
        let seccomp_profile = match &context.seccomp {
            Some(profile) if profile.profile_type() == ProfileType::Localhost => {
                let path = Path::new(&profile.localhost_ref);
                Some(fs::read_to_string(path).map_err(|err| failed("read seccomp profile", path, &err))?)
            }
            _ => None,
        };
        let cgroup = PathBuf::from(format!("{}/{}", sandbox.cgroup_parent(), record.id));
        let specified = spec::spec(&spec::Request {
            config,
            image,
            accounts,
            host: &self.host,
            cgroup: &cgroup,
            layers: &names,
            volumes: &volumes,
            files: &files,
            pid_of: self.pid_of(sandbox, namespaces.pid(), &namespaces.target_id)?,
            devices: &devices(config, context.privileged)?,
            seccomp_profile: seccomp_profile.as_deref(),
            app_armor: found.app_armor.as_deref(),
            users,
        })
        .map_err(|err| self.refused(&err))?;
        if let Some(process) = specified.spec.process() {
            let upper = self.layout.writable(&record.id).join("upper");
            let made = working_dir::make(process.cwd(), &config.mounts, &found.layers, &upper, users);
            made.map_err(|err| failed("make the working directory", process.cwd(), &err))?;
        }
        record.confinement = specified.confinement;
        record.staging = specified.staging;
        let path = dir.join("config.json");
        specified
            .spec
            .save(&path)
            .map_err(|err| Error::unknown(format!("write {}: {err}", path.display())))?;
        Ok(Container::new(record, sandbox.clone(), dir.to_owned()))
    }

    /// The pod's own users, whose namespace its pause process keeps.
    fn users_of(&self, sandbox: &Sandbox, pod: &PodSandboxConfig) -> Result<Option<PodUsers>> {
        let pause = sandbox.record.lock().pause_pid;
        Ok(users::of_pod(pod)?.map(|users| PodUsers {
            users,
            namespace: PathBuf::from(format!("/proc/{pause}/ns/user")),
            layers: self.images.layers_dir().to_owned(),
        }))
    }

    /// The process whose PID namespace the container will share.
    fn pid_of(&self, sandbox: &Sandbox, mode: NamespaceMode, target: &str) -> Result<Option<i32>> {
        match mode {
            NamespaceMode::Pod => Ok(Some(sandbox.record.lock().pause_pid)),
            NamespaceMode::Target => match &*self.known_container(target)?.status.borrow() {
                Status::Running { pid, .. } => Ok(Some(*pid)),
                _ => Err(Error::failed_precondition(format!(
                    "target container {target:?} is not running"
                ))),
            },
            NamespaceMode::Container | NamespaceMode::Node => Ok(None),
        }
    }

    fn refused(&self, err: &spec::SpecError) -> Error {
        Error::unknown(format!("failed to generate container spec: {err}"))
    }
}

/// Where the container's output goes.
pub(super) fn log_path(pod: &PodSandboxConfig, config: &ContainerConfig) -> Option<PathBuf> {
    let named = !pod.log_directory.is_empty() && !config.log_path.is_empty();
    named.then(|| Path::new(&pod.log_directory).join(&config.log_path))
}

fn image_said(config: &ImageConfiguration) -> Image {
    let Some(config) = config.config() else {
        return Image::default();
    };
    Image {
        entrypoint: config.entrypoint().clone().unwrap_or_default(),
        command: config.cmd().clone().unwrap_or_default(),
        env: config.env().clone().unwrap_or_default(),
        working_dir: config.working_dir().clone().unwrap_or_default(),
        user: config.user().clone().unwrap_or_default(),
        stop_signal: config.stop_signal().clone().unwrap_or_default(),
    }
}

/// A path of the node that does not exist is made, as a directory; other runtimes do so too.
fn make_sources(config: &ContainerConfig) -> Result<()> {
    for mount in config.mounts.iter().filter(|mount| mount.image.is_none()) {
        let source = Path::new(&mount.host_path);
        if !source.exists() {
            fs::create_dir_all(source).map_err(|err| failed("create", source, &err))?;
        }
    }
    Ok(())
}

fn devices(config: &ContainerConfig, privileged: bool) -> Result<Vec<(LinuxDevice, String)>> {
    let mut found = Vec::new();
    if privileged {
        let dev = Path::new("/dev");
        let all = host::devices(dev, dev).map_err(|err| failed("list the devices in", dev, &err))?;
        found.extend(all.into_iter().map(|device| (device, "rwm".to_owned())));
    }
    for wish in &config.devices {
        let path = Path::new(&wish.host_path);
        let some = host::devices(path, Path::new(&wish.container_path))
            .map_err(|err| failed("look at the device", path, &err))?;
        if some.is_empty() {
            return Err(Error::invalid_argument(format!("{}: not a device", path.display())));
        }
        found.extend(some.into_iter().map(|device| (device, wish.permissions.clone())));
    }
    Ok(found)
}

fn failed(action: &str, path: &Path, err: &std::io::Error) -> Error {
    Error::unknown(format!("{action} {}: {err}", path.display()))
}
