//! From a container of the spec to a running instance: image, configuration, create, start. What fails is said in upstream's words, kept
//! for the pod's status, and tried again later.

use std::collections::HashMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use client::EventType::{Normal, Warning};
use cri::v1::{self, CreateContainerRequest, Mount, MountPropagation, StartContainerRequest};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Secret, VolumeMount};

use super::hooks;
use super::memory::Waiting;
use super::pod::{PodExt, Role};
use super::worker::Worker;
use crate::cri_config::container::{self, Inputs};
use crate::cri_config::{hosts, sandbox, security};
use crate::expand::expand_known;
use crate::handler::Target;
use crate::image::{self, Decision, Image, Login};
use crate::image_access::{Holder, credential_hash};
use crate::{credentials, env, volumes};

/// Why a container waits whose configuration cannot be made.
pub(super) const CONFIG_ERROR: &str = "CreateContainerConfigError";
/// Before looking again at what a container refers to.
const RETRY: SignedDuration = SignedDuration::from_secs(10);
/// `RunContainerError` stands so long before its back-off shows, that one can see it.
const RETRY_RUN: SignedDuration = SignedDuration::from_secs(1);
/// `ErrImagePull` stands so long before it becomes `ImagePullBackOff`, that one can see it.
pub(super) const SHOW_PULL_ERROR: SignedDuration = SignedDuration::from_secs(2);

/// What a container is started with.
struct Start<'a> {
    role: Role,
    container: &'a Container,
    image: &'a Image,
    volume_images: &'a HashMap<String, Image>,
}

/// The container for which an image is pulled: it is the key, or the part of it before the volume's name.
pub(super) fn image_owner(key: &str) -> &str {
    key.split_once('/').map_or(key, |(container, _)| container)
}

/// Whether what is mounted below the volume is to be read-only too.
fn wants_deep(mount: &VolumeMount) -> bool {
    matches!(mount.recursive_read_only.as_deref(), Some("Enabled" | "IfPossible"))
}

/// What of its volume a container mounts, if not all.
fn part(mount: &VolumeMount, env: &[(String, String)]) -> Result<Option<String>, String> {
    let part = match (&mount.sub_path_expr, &mount.sub_path) {
        (Some(expression), _) if !expression.is_empty() => expand_known(expression, env)?,
        (_, Some(part)) if !part.is_empty() => part.clone(),
        _ => return Ok(None),
    };
    // The API server has seen the expression and not what is in its variables.
    if part.starts_with('/') {
        return Err(format!("error SubPath `{part}` must not be an absolute path"));
    }
    if part.split('/').any(|step| step == "..") {
        return Err(format!("unable to provision SubPath `{part}`: must not contain '..'"));
    }
    Ok(Some(part))
}

fn image_mount(container_path: String, image: &Image, named: String, part: Option<String>) -> Mount {
    Mount {
        container_path,
        readonly: true,
        image: Some(v1::ImageSpec {
            image: image.id.clone(),
            user_specified_image: named,
            ..Default::default()
        }),
        image_sub_path: part.unwrap_or_default(),
        ..Default::default()
    }
}

impl Worker {
    /// Whether the round goes on with other containers; it always does, as each is on its own.
    pub(super) async fn start(&mut self, name: &str, restarts: u32, failed: Option<Timestamp>) -> bool {
        let pod = self.pod.clone();
        let ephemeral;
        let (role, container) = match pod.container(name) {
            Some(found) => found,
            None => {
                let Some(found) = pod.ephemeral().find(|container| container.name == name) else {
                    return true;
                };
                ephemeral = found;
                (Role::Ephemeral, &ephemeral)
            }
        };
        let Some(image) = self.ensure_image(container).await else {
            return true;
        };
        let Some(volume_images) = self.ensure_volume_images(container).await else {
            return true;
        };
        let inputs = Start {
            role,
            container,
            image: &image,
            volume_images: &volume_images,
        };
        match self.instantiate(inputs, restarts, failed).await {
            Ok(()) => {
                self.memory.waiting.remove(name);
                self.memory.retry_at.remove(name);
                self.memory.pulled.retain(|pulled, _| image_owner(pulled) != name);
                self.memory.reset.remove(name);
            }
            Err(waiting) => {
                self.tell(name, Warning, "Failed", format!("Error: {}", waiting.message));
                // A reference that appears wakes the worker before this. What was made and could not run has the restarts' back-off.
                let again = match waiting.reason.as_str() {
                    "RunContainerError" => RETRY_RUN,
                    _ => RETRY,
                };
                self.hold(name, waiting, again);
            }
        }
        true
    }

    /// The container's image, if it can be started with it now.
    async fn ensure_image(&mut self, container: &Container) -> Option<Image> {
        let image = container.image.as_deref().unwrap_or_default();
        let policy = container.image_pull_policy.as_deref().unwrap_or("IfNotPresent");
        self.ensure(&container.name, image, policy).await
    }

    /// The images that the container mounts, by the names of their volumes, if it can be started with all of them now.
    async fn ensure_volume_images(&mut self, container: &Container) -> Option<HashMap<String, Image>> {
        let pod = self.pod.clone();
        let volumes = pod.spec().and_then(|spec| spec.volumes.as_ref()).into_iter().flatten();
        let mut images = HashMap::new();
        for volume in volumes {
            let mut mounts = container.volume_mounts.iter().flatten();
            let Some(source) = volume
                .image
                .as_ref()
                .filter(|_| mounts.any(|mount| mount.name == volume.name))
            else {
                continue;
            };
            let image = source.reference.as_deref().unwrap_or_default();
            let policy = source.pull_policy.as_deref().unwrap_or("IfNotPresent");
            let key = format!("{}/{}", container.name, volume.name);
            images.insert(volume.name.clone(), self.ensure(&key, image, policy).await?);
        }
        Some(images)
    }

    /// An image for a container, `key` being its name, or its name and its volume's.
    async fn ensure(&mut self, key: &str, image: &str, policy: &str) -> Option<Image> {
        let name = image_owner(key);
        let reference = match image::reference(image) {
            Ok(reference) => reference,
            Err(error) => {
                let message = format!("Failed to apply default image tag {image:?}: {error}");
                self.refuse_image(name, "InspectFailed", "InvalidImageName", message);
                return None;
            }
        };
        let found = match self.context.images.find(&reference).await {
            Ok(found) => found,
            Err(error) => {
                let message = format!("Failed to inspect image {image:?}: {error}");
                self.refuse_image(name, "InspectFailed", "ImageInspectError", message);
                return None;
            }
        };
        if let Some(found) = found.as_ref().filter(|_| self.memory.pulled.contains_key(key)) {
            self.memory.its_images.insert((found.id.clone(), reference));
            return Some(found.clone());
        }
        // To a pod that could not pull it, an image is not there.
        let found = match found {
            Some(found) if policy == "Always" || self.may_have(&found, &reference).await => Some(found),
            _ => None,
        };
        match (image::decide(policy, found.is_some()), found) {
            (Decision::Use, Some(found)) => {
                let message =
                    format!("Container image {image:?} already present on machine and can be accessed by the pod");
                self.tell(name, Normal, "Pulled", message);
                Some(found)
            }
            (Decision::Never | Decision::Use, _) => {
                let message = format!("Container image {image:?} is not present with pull policy of Never");
                self.refuse_image(name, "ErrImageNeverPull", "ErrImageNeverPull", message);
                None
            }
            (Decision::Pull, _) => {
                self.pull(key, image, reference).await;
                None
            }
        }
    }

    fn refuse_image(&mut self, name: &str, event: &str, reason: &str, message: String) {
        self.tell(name, Warning, event, message.clone());
        self.tell(name, Warning, "Failed", format!("Error: {reason}"));
        self.hold(name, Waiting::new(reason, message), RETRY);
    }

    /// Sets a pull going, or says that it must wait.
    async fn pull(&mut self, key: &str, image: &str, reference: String) {
        let name = image_owner(key);
        let now = Timestamp::now();
        if let Some((failed, why)) = self.memory.failed_pulls.get(image).cloned()
            && let Some((until, _)) = self.memory.pulls.until(image, failed, now)
        {
            let message = format!("Back-off pulling image {image:?}");
            self.tell(name, Normal, "BackOff", message.clone());
            self.tell(name, Warning, "Failed", "Error: ImagePullBackOff");
            let waiting = Waiting::new("ImagePullBackOff", format!("{message}: ErrImagePull: {}", why.message));
            self.hold(name, waiting, until.duration_since(now));
            return;
        }
        self.tell(name, Normal, "Pulling", format!("Pulling image {image:?}"));
        let logins = self.logins(&reference).await;
        let config = sandbox::config(&self.pod, 0, None, &self.context.config, &self.context.node_dns);
        let (images, mailbox) = (self.context.images.clone(), self.mailbox.clone());
        let (key, image) = (key.to_owned(), image.to_owned());
        self.memory.pulling.insert(name.to_owned());
        tokio::spawn(async move {
            let pulled = images.pull(&reference, &logins, &config).await;
            mailbox.pulled(key, image, pulled);
        });
    }

    /// Whether the pod may have an image that is on the node. What it had it may have again, though nobody can be asked for its Secrets now.
    async fn may_have(&mut self, found: &Image, reference: &str) -> bool {
        let its = (found.id.clone(), reference.to_owned());
        if self.memory.its_images.contains(&its) {
            return true;
        }
        let who = self.context.images.who(found, reference);
        let may = who.includes(&[]) || {
            let own = self.logins(reference).await.into_iter().map(|login| login.holder);
            who.includes(&own.collect::<Vec<_>>())
        };
        if may {
            self.memory.its_images.insert(its);
        }
        may
    }

    /// The logins that the pod's secrets have for an image.
    async fn logins(&self, image: &str) -> Vec<Login> {
        let api = client::kube::Api::<Secret>::namespaced(self.context.client.clone(), self.pod.namespace());
        let mut logins = Vec::new();
        let mut missing = Vec::new();
        for reference in self
            .pod
            .spec()
            .and_then(|spec| spec.image_pull_secrets.as_ref())
            .into_iter()
            .flatten()
        {
            let secret = api.get(&reference.name).await.unwrap_or_default();
            let data = secret.data.unwrap_or_default();
            let config = data
                .get(".dockerconfigjson")
                .map(|config| (config, false))
                .or_else(|| Some((data.get(".dockercfg")?, true)));
            match config.map(|(config, bare)| credentials::logins(&config.0, bare, image)) {
                Some(Ok(found)) => logins.extend(found.into_iter().map(|auth| Login {
                    holder: Holder {
                        uid: secret.metadata.uid.clone().unwrap_or_default(),
                        namespace: self.pod.namespace().to_owned(),
                        name: reference.name.clone(),
                        credential_hash: credential_hash(&auth),
                    },
                    auth,
                })),
                _ => missing.push(reference.name.as_str()),
            }
        }
        if !missing.is_empty() {
            let names = missing.join(", ");
            let message = format!(
                "Unable to retrieve some image pull secrets ({names}); attempting to pull the image may not succeed."
            );
            self.context.events.record(
                &self.pod.reference(),
                Warning,
                "FailedToRetrieveImagePullSecret",
                message,
            );
        }
        logins
    }

    async fn instantiate(
        &mut self,
        Start {
            role,
            container,
            image,
            volume_images,
        }: Start<'_>,
        restarts: u32,
        failed: Option<Timestamp>,
    ) -> Result<(), Waiting> {
        let refused = |message: String| Waiting::new(CONFIG_ERROR, message);
        let pod = self.pod.clone();
        let Some(sandbox) = self.observed.sandbox().cloned() else {
            return Err(Waiting::new("ContainerCreating", "the pod has no sandbox"));
        };
        if self.volumes.is_none() {
            self.set_up_volumes()
                .await
                .map_err(|failure| refused(failure.to_string()))?;
        }
        security::verify_non_root(&pod, container, &image.user).map_err(refused)?;
        let addresses = self.addresses();
        let volumes = self.volumes.clone().unwrap_or_default();
        // A static pod runs without an API server.
        if !api::pod::is_static(&pod) {
            self.context.services.synced().await;
        }
        let services = self.context.services.list();
        let facts = env::Facts {
            pod: &pod,
            addresses: &addresses,
            capacity: self.context.capacity,
            services: env::services(&pod, services.iter().map(|service| &**service)),
            volumes: &volumes,
        };
        let env = env::resolve(container, &facts, &self.objects).await.map_err(refused)?;
        let deep = match container.volume_mounts.iter().flatten().any(wants_deep) {
            true => {
                let handler = self.runtime_handler().await.map_err(refused)?;
                let features = self.features(&handler).await.map_err(refused)?;
                features.recursive_read_only_mounts
            }
            false => false,
        };
        let mounts = self
            .mounts(container, &env, &addresses.pod, volume_images, deep)
            .map_err(refused)?;
        let users = self.users().await.map_err(refused)?;
        let (attempt, dns) = (sandbox.attempt, &self.context.node_dns);
        let sandbox_config = sandbox::config(&pod, attempt, users.as_ref(), &self.context.config, dns);
        let logs = Path::new(&sandbox_config.log_directory).join(&container.name);
        std::fs::create_dir_all(&logs)
            .map_err(|error| refused(format!("create container log directory: {}: {error}", logs.display())))?;
        let inputs = Inputs {
            restarts,
            image_ref: image.id.clone(),
            image_user: image.user.clone(),
            env,
            mounts,
            devices: volumes::devices(container, &volumes).map_err(refused)?,
            memory_capacity: self.context.memory_capacity,
            users,
            seccomp: self.context.config.seccomp(),
            unified: self.context.cgroups.unified(),
            target: self.target(&container.name).map_err(refused)?,
            role,
            pod: &pod,
        };
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.id,
            config: Some(container::config(container, inputs)),
            sandbox_config: Some(sandbox_config),
        };
        if let Some(failed) = failed {
            self.memory.restarts.next(&container.name, failed, Timestamp::now());
        }
        let created = self.context.runtime.create_container(request).await;
        let container_id = created
            .map_err(|error| Waiting::new("CreateContainerError", error.message))?
            .container_id;
        self.tell(&container.name, Normal, "Created", "Container created");
        let id = container_id.clone();
        let started = self
            .context
            .runtime
            .start_container(StartContainerRequest { container_id })
            .await;
        started.map_err(|error| Waiting::new("RunContainerError", error.message))?;
        self.container_has_resources(&container.name);
        self.tell(&container.name, Normal, "Started", "Container started");
        if let Some(hook) = container
            .lifecycle
            .as_ref()
            .and_then(|lifecycle| lifecycle.post_start.clone())
        {
            let (runtime, mailbox, container) = (self.context.runtime.clone(), self.mailbox.clone(), container.clone());
            let ip = self.ip();
            self.memory.hooking.insert(id.clone());
            tokio::spawn(async move {
                let (id_, spec) = (&id, &container);
                let target = Target {
                    id: id_,
                    container: spec,
                    ip: &ip,
                };
                let outcome = hooks::run(&hook, &*runtime, &target, &pod, None).await;
                mailbox.hooked(container.name, id, outcome);
            });
        }
        Ok(())
    }

    /// The instance whose processes an ephemeral container is to see.
    fn target(&self, name: &str) -> Result<Option<String>, String> {
        let ephemeral = self.pod.spec().and_then(|spec| spec.ephemeral_containers.as_ref());
        let target = ephemeral
            .into_iter()
            .flatten()
            .find(|container| container.name == name)
            .and_then(|container| container.target_container_name.as_deref())
            .filter(|target| !target.is_empty());
        target
            .map(|target| {
                let instance = self.observed.latest(target);
                instance
                    .map(|instance| instance.id.clone())
                    .ok_or_else(|| format!("unable to find target container {target}"))
            })
            .transpose()
    }

    /// Volumes, /etc/hosts, and the file for the container's last words. `deep` says that the runtime can make what is mounted below a
    /// volume read-only too.
    fn mounts(
        &self,
        container: &Container,
        env: &[(String, String)],
        ips: &[String],
        images: &HashMap<String, Image>,
        deep: bool,
    ) -> Result<Vec<Mount>, String> {
        let none = Default::default();
        let paths = self.volumes.as_ref().unwrap_or(&none);
        let mut mounts = Vec::new();
        for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
            let part = part(mount, env)?;
            if mount.recursive_read_only.as_deref() == Some("Enabled") && !deep {
                return Err(format!(
                    "volume {:?} requested recursive read-only mount, but it is not supported by the runtime",
                    mount.name
                ));
            }
            let container_path = Path::new("/").join(&mount.mount_path).to_string_lossy().into_owned();
            if let Some(image) = images.get(&mount.name) {
                let volumes = self.pod.spec().and_then(|spec| spec.volumes.as_ref());
                let mut volumes = volumes.into_iter().flatten();
                let volume = volumes.find(|volume| volume.name == mount.name);
                let named = volume.and_then(|volume| volume.image.as_ref()?.reference.clone());
                mounts.push(image_mount(container_path, image, named.unwrap_or_default(), part));
                continue;
            }
            let volume = paths
                .get(&mount.name)
                .ok_or_else(|| format!("volume {:?} is not set up", mount.name))?;
            let host_path = match part {
                Some(part) => {
                    let target = self
                        .pod_dir()
                        .join("volume-subpaths")
                        .join(&mount.name)
                        .join(&container.name)
                        .join(index.to_string());
                    volumes::bind_subpath(&volume.path, &part, &target).map_err(|error| {
                        format!(
                            "failed to prepare subPath for volumeMount {:?} of container {:?}: {error}",
                            mount.name, container.name
                        )
                    })?
                }
                None => volume.path.clone(),
            };
            let propagation = match mount.mount_propagation.as_deref() {
                Some("HostToContainer") => MountPropagation::PropagationHostToContainer,
                Some("Bidirectional") => MountPropagation::PropagationBidirectional,
                _ => MountPropagation::PropagationPrivate,
            };
            mounts.push(Mount {
                container_path,
                host_path: host_path.to_string_lossy().into_owned(),
                readonly: volume.read_only || mount.read_only.unwrap_or(false),
                propagation: propagation.into(),
                recursive_read_only: deep && wants_deep(mount),
                ..Default::default()
            });
        }
        let taken = |path: &str| mounts.iter().any(|mount| mount.container_path == path);
        let hosts_file = (!taken("/etc/hosts")).then(|| self.hosts_file(ips)).transpose()?;
        let words = container
            .termination_message_path
            .as_deref()
            .filter(|path| !path.is_empty() && !taken(path));
        let words_file = words.map(|path| self.words_file(container, path)).transpose()?;
        mounts.extend(hosts_file.into_iter().chain(words_file));
        Ok(mounts)
    }

    fn hosts_file(&self, ips: &[String]) -> Result<Mount, String> {
        let config = &self.context.config;
        let (hostname, domain) = hosts::names(&self.pod, &config.node_name, &config.cluster_domain);
        let node_hosts = if self.pod.host_network() {
            std::fs::read_to_string("/etc/hosts").unwrap_or_default()
        } else {
            String::new()
        };
        let text = hosts::file(&self.pod, ips, &node_hosts, &hostname, domain.as_deref());
        let path = self.pod_dir().join("etc-hosts");
        write(&path, text.as_bytes(), 0o644)?;
        Ok(Mount {
            container_path: "/etc/hosts".into(),
            host_path: path.to_string_lossy().into_owned(),
            ..Default::default()
        })
    }

    fn words_file(&self, container: &Container, container_path: &str) -> Result<Mount, String> {
        let path = self
            .pod_dir()
            .join("containers")
            .join(&container.name)
            .join(format!("{:08x}", rand::random::<u32>()));
        write(&path, b"", 0o666)?;
        Ok(Mount {
            container_path: container_path.to_owned(),
            host_path: path.to_string_lossy().into_owned(),
            ..Default::default()
        })
    }
}

fn write(path: &Path, data: &[u8], mode: u32) -> Result<(), String> {
    let parent = path.parent().unwrap_or(path);
    std::fs::create_dir_all(parent)
        // Written in place, as running containers have it mounted.
        .and_then(|()| std::fs::write(path, data))
        .and_then(|()| std::fs::set_permissions(path, Permissions::from_mode(mode)))
        .map_err(|error| format!("write {}: {error}", path.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parts_of_volumes() {
        let env = [("UP", "../x"), ("ABS", "/x"), ("NAME", "p")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        for (field, text, expected) in [
            ("subPath", "a/$(NAME)", Ok(Some("a/$(NAME)"))),
            ("subPathExpr", "a/$(NAME)", Ok(Some("a/p"))),
            ("subPathExpr", "", Ok(None)),
            ("subPathExpr", "$(NONE)/a", Err("missing value for \"NONE\"")),
            (
                "subPathExpr",
                "$(ABS)",
                Err("error SubPath `/x` must not be an absolute path"),
            ),
            (
                "subPathExpr",
                "a/$(UP)",
                Err("unable to provision SubPath `a/../x`: must not contain '..'"),
            ),
        ] {
            let mount = serde_json::from_value(json!({"name": "v", "mountPath": "/m", field: text})).unwrap();
            let expected = expected.map(|part| part.map(str::to_owned)).map_err(str::to_owned);
            assert_eq!(part(&mount, &env), expected, "{text}");
        }
    }
}
