//! What is mounted in a container, and in which order.

use std::path::{Path, PathBuf};

use cri::v1::{ContainerConfig, LinuxContainerSecurityContext, Mount as CriMount, MountPropagation};
use oci_spec::runtime::{Mount, MountBuilder};

use super::{ImageVolume, PodUsers, Request, SpecError};
use crate::users;

/// The longest value that the kernel takes for one parameter of a mount.
const MAX_VALUE: usize = 255;

/// The files of a pod that its containers see, and the place for a container's root.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodFiles {
    /// Where a container's root is put together.
    pub rootfs: PathBuf,
    pub hosts: PathBuf,
    pub hostname: PathBuf,
    /// What is in `hostname`.
    pub hostname_text: String,
    pub resolv_conf: PathBuf,
    /// The memory that the pod's containers share.
    pub shm: PathBuf,
}

pub(super) fn mounts(request: &Request<'_>, context: &LinuxContainerSecurityContext) -> Result<Vec<Mount>, SpecError> {
    let wished = &request.config.mounts;
    let taken = |mount: &Mount| {
        wished
            .iter()
            .any(|wish| Path::new(&wish.container_path) == mount.destination())
    };
    let mut mounts = vec![overlay(request.layers, request.host.unified())?];
    let mut own = kernel(context.privileged)?;
    own.extend(control_groups(request, context.privileged)?);
    own.extend(pod(request.files, context.readonly_rootfs)?);
    own.retain(|mount| !taken(mount));
    mounts.extend(own);
    let mut images = request.volumes.iter();
    for wish in wished {
        mounts.push(match wish.image.as_ref().and_then(|_| images.next()) {
            Some(image) => image_volume(wish, image)?,
            None => volume(wish, request.users)?,
        });
    }
    // What is mounted in a directory comes after the directory.
    mounts.sort_by_key(|mount| mount.destination().components().count());
    Ok(mounts)
}

/// The mounts of the pause container: enough for libcontainer to find its way.
pub(super) fn pause() -> Result<Vec<Mount>, SpecError> {
    Ok(vec![
        mount("proc", "proc", "/proc", &["nosuid", "noexec", "nodev"])?,
        mount("tmpfs", "tmpfs", "/dev", &["nosuid", "noexec", "mode=755", "size=64k"])?,
    ])
}

/// The container's root: the image's layers under a directory of its own.
///
/// It is mounted by the container's own first process, so it is nobody else's to see and goes when the container
/// does. All names are relative to the bundle, where short links stand for the layers; `volatile` spares the
/// disk, as nobody reads a container's root after a crash of the machine.
///
/// Where devices are not the control groups' to refuse, those that an image brings along are no devices.
pub(super) fn overlay(layers: &[String], no_devices: bool) -> Result<Mount, SpecError> {
    let mut options = lower(layers);
    options.extend(["upperdir=upper".into(), "workdir=work".into(), "volatile".into()]);
    options.extend(no_devices.then(|| "nodev".into()));
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    mount("overlay", "overlay", "/", &options)
}

/// The options that name an overlay's layers, the uppermost first.
fn lower(layers: &[String]) -> Vec<String> {
    let joined = layers.join(":");
    if joined.len() <= MAX_VALUE {
        vec![format!("lowerdir={joined}")]
    } else {
        layers.iter().map(|layer| format!("lowerdir+={layer}")).collect()
    }
}

fn kernel(privileged: bool) -> Result<Vec<Mount>, SpecError> {
    let safe = ["nosuid", "noexec", "nodev"];
    let sys: &[&str] = if privileged {
        &["nosuid", "noexec", "nodev", "rw"]
    } else {
        &["nosuid", "noexec", "nodev", "ro"]
    };
    Ok(vec![
        mount("proc", "proc", "/proc", &safe)?,
        mount(
            "tmpfs",
            "tmpfs",
            "/dev",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        )?,
        mount(
            "devpts",
            "devpts",
            "/dev/pts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        )?,
        mount("mqueue", "mqueue", "/dev/mqueue", &safe)?,
        mount("sysfs", "sysfs", "/sys", sys)?,
    ])
}

/// The container's own part of the control groups. Version 1 has no namespace that would show only that part, so its
/// directories are bound one by one.
fn control_groups(request: &Request<'_>, privileged: bool) -> Result<Vec<Mount>, SpecError> {
    const ROOT: &str = "/sys/fs/cgroup";
    let mode = if privileged { "rw" } else { "ro" };
    if request.host.unified() {
        let options = ["nosuid", "noexec", "nodev", "relatime", mode];
        return Ok(vec![mount("cgroup", "cgroup", ROOT, &options)?]);
    }
    let mut mounts = vec![mount(
        "tmpfs",
        "tmpfs",
        ROOT,
        &["nosuid", "noexec", "nodev", "mode=755"],
    )?];
    let own = request.cgroup.strip_prefix("/").unwrap_or(request.cgroup);
    for controller in &request.host.controllers {
        let dir = Path::new(ROOT).join(controller);
        let options = ["bind", "nosuid", "noexec", "nodev", "relatime", mode];
        mounts.push(bind(&dir.join(own), &dir, &options)?);
    }
    Ok(mounts)
}

fn pod(files: &PodFiles, readonly: bool) -> Result<Vec<Mount>, SpecError> {
    let mode = if readonly { "ro" } else { "rw" };
    let file = |source: &Path, target: &str| bind(source, Path::new(target), &["rbind", mode]);
    Ok(vec![
        file(&files.hosts, "/etc/hosts")?,
        file(&files.hostname, "/etc/hostname")?,
        file(&files.resolv_conf, "/etc/resolv.conf")?,
        bind(
            &files.shm,
            Path::new("/dev/shm"),
            &["rbind", "rw", "nosuid", "nodev", "noexec"],
        )?,
    ])
}

/// An image's files: read by everyone, run by nobody.
fn image_volume(wish: &CriMount, image: &ImageVolume) -> Result<Mount, SpecError> {
    const FLAGS: [&str; 4] = ["ro", "nosuid", "nodev", "noexec"];
    match image {
        ImageVolume::Path(path) => {
            let options = [&["rbind"], &FLAGS[..]].concat();
            bind(path, Path::new(&wish.container_path), &options)
        }
        ImageVolume::Layers(layers) => {
            let layers = lower(layers);
            let options: Vec<&str> = layers.iter().map(String::as_str).chain(FLAGS).collect();
            mount("overlay", "overlay", &wish.container_path, &options)
        }
    }
}

fn volume(wish: &CriMount, pod: Option<&PodUsers>) -> Result<Mount, SpecError> {
    let mapped = !wish.uid_mappings.is_empty() || !wish.gid_mappings.is_empty();
    if mapped && pod.map(|pod| pod.users) != users::of(&wish.uid_mappings, &wish.gid_mappings).ok() {
        return Err(SpecError::IdMappedMount(wish.container_path.clone()));
    }
    if wish.recursive_read_only && !(wish.readonly && wish.propagation() == MountPropagation::PropagationPrivate) {
        return Err(SpecError::RecursiveReadOnly(wish.container_path.clone()));
    }
    let mode = match (wish.readonly, wish.recursive_read_only) {
        (true, true) => "rro",
        (true, false) => "ro",
        (false, _) => "rw",
    };
    bind(
        Path::new(&wish.host_path),
        Path::new(&wish.container_path),
        &["rbind", mode],
    )
}

/// How far mounts travel between the container and the node in any of its volumes.
pub(super) fn widest(config: &ContainerConfig) -> MountPropagation {
    let wishes = config.mounts.iter().map(|mount| mount.propagation());
    wishes.max().unwrap_or(MountPropagation::PropagationPrivate)
}

/// The same for libcontainer, which has one answer for a whole container; volumes that want less are seen to before.
pub(super) fn propagation(config: &ContainerConfig) -> &'static str {
    match widest(config) {
        MountPropagation::PropagationPrivate => "private",
        MountPropagation::PropagationHostToContainer => "slave",
        MountPropagation::PropagationBidirectional => "shared",
    }
}

pub(super) fn bind(source: &Path, target: &Path, options: &[&str]) -> Result<Mount, SpecError> {
    build("bind", source, target, options)
}

/// The same bind of something else.
pub(super) fn rebound(mount: &Mount, source: &Path) -> Result<Mount, SpecError> {
    let options = mount.options().clone().unwrap_or_default();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    bind(source, mount.destination(), &options)
}

fn mount(typ: &str, source: &str, target: &str, options: &[&str]) -> Result<Mount, SpecError> {
    build(typ, Path::new(source), Path::new(target), options)
}

fn build(typ: &str, source: &Path, target: &Path, options: &[&str]) -> Result<Mount, SpecError> {
    Ok(MountBuilder::default()
        .typ(typ)
        .source(source)
        .destination(target)
        .options(options.iter().map(ToString::to_string).collect::<Vec<_>>())
        .build()?)
}
