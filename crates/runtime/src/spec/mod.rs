//! From CRI to OCI: what a container is asked to be becomes what libcontainer makes, as one pure function.
//!
//! Whatever is read from the machine or the image comes in as a value ([`Host`], [`Image`], [`Accounts`]), so every
//! rule has its table of cases.

mod capabilities;
mod mounts;
mod process;
mod resources;
mod seccomp;
mod selinux;
mod staging;
mod user;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use cri::v1::{ContainerConfig, LinuxContainerSecurityContext, NamespaceMode};
use oci_spec::runtime::{Linux, LinuxDevice, LinuxNamespace, LinuxNamespaceType, Root, RootBuilder, Spec, SpecBuilder};

pub(crate) use mounts::PodFiles;
pub(crate) use resources::{device, resources};
pub(crate) use seccomp::common as common_filters;
pub(crate) use staging::LAYERS;
pub(crate) use user::{Accounts, identity};

use crate::shim::protocol::{Confinement, Staging, Users};

/// What the image says of its containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Image {
    pub entrypoint: Vec<String>,
    pub command: Vec<String>,
    pub env: Vec<String>,
    pub working_dir: String,
    pub user: String,
    pub stop_signal: String,
}

/// What the machine offers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Host {
    /// The controllers of cgroup version 1, by the names of their directories; none for version 2.
    pub controllers: Vec<String>,
    /// Swap is accounted for.
    pub swap: bool,
    /// The lowest out-of-memory score that this process may give; none when any.
    pub oom_score_floor: Option<i64>,
    /// The capabilities that this process has to give.
    pub capabilities: caps::CapsHashSet,
    /// Pods can have users of their own.
    pub user_namespaces: bool,
    /// SELinux is on.
    pub selinux: bool,
}

impl Host {
    pub(crate) fn unified(&self) -> bool {
        self.controllers.is_empty()
    }
}

/// What an image volume is in the bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ImageVolume {
    /// Names of layers to be put over each other, the uppermost first.
    Layers(Vec<String>),
    /// One layer, or a file of one.
    Path(PathBuf),
}

/// Everything that decides what a container is.
pub(crate) struct Request<'a> {
    pub config: &'a ContainerConfig,
    pub image: &'a Image,
    pub accounts: &'a Accounts,
    pub host: &'a Host,
    /// The container's cgroup, from the root of the hierarchies.
    pub cgroup: &'a Path,
    /// The layers' names in the bundle, the lowest last.
    pub layers: &'a [String],
    /// The images that are mounted, in the order of the mounts that ask for them.
    pub volumes: &'a [ImageVolume],
    pub files: &'a PodFiles,
    /// The process whose PID namespace the container shares.
    pub pid_of: Option<i32>,
    /// The devices of the machine that it gets, and what it may do with each.
    pub devices: &'a [(LinuxDevice, String)],
    /// The text of the seccomp profile, when it is a file's.
    pub seccomp_profile: Option<&'a str>,
    /// The AppArmor profile that it runs under, which is loaded.
    pub app_armor: Option<&'a str>,
    /// The pod's own users, when it has some.
    pub users: Option<&'a PodUsers>,
}

impl Request<'_> {
    /// The directory in which the container's root is, and all that belongs to it.
    fn bundle(&self) -> &Path {
        self.files.rootfs.parent().unwrap_or(Path::new("/"))
    }
}

/// The users of a pod that are not the node's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodUsers {
    pub users: Users,
    /// What opens their namespace.
    pub namespace: PathBuf,
    /// The node's directory of all layers.
    pub layers: PathBuf,
}

/// Why a container cannot be what it is asked to be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum SpecError {
    #[error("no command specified")]
    NoCommand,
    #[error("unable to find user {0}: no matching entries in passwd file")]
    UnknownUser(String),
    #[error("unable to find group {0}: no matching entries in group file")]
    UnknownGroup(String),
    #[error("user group {0:?} is specified without user")]
    GroupWithoutUser(i64),
    #[error("mount at {0:?}: a recursive read-only mount must be read-only and private")]
    RecursiveReadOnly(String),
    #[error("unknown capability {0:?}")]
    UnknownCapability(String),
    #[error("seccomp profile {path:?} cannot be used: {reason}")]
    Seccomp { path: String, reason: String },
    #[error("mount at {0:?}: its users must be mapped as the pod's are")]
    IdMappedMount(String),
    #[error("user {0} or group {1} is none of the pod's user namespace")]
    NotMapped(u32, u32),
    #[error("CDI device {0:?}: the built-in runtime has no Container Device Interface")]
    Cdi(String),
    #[error("the specification cannot be put together: {0}")]
    Build(String),
}

impl From<oci_spec::OciSpecError> for SpecError {
    fn from(err: oci_spec::OciSpecError) -> Self {
        SpecError::Build(err.to_string())
    }
}

/// A container's specification, and what has to be done beside it.
pub(crate) struct Specified {
    pub spec: Spec,
    /// What its processes add themselves.
    pub confinement: Confinement,
    /// What is mounted for it beforehand.
    pub staging: Option<Staging>,
}

/// All that a container is.
pub(crate) fn spec(request: &Request<'_>) -> Result<Specified, SpecError> {
    let context = security_context(request.config);
    let namespaces = context.namespace_options.clone().unwrap_or_default();
    if let Some(device) = request.config.cdi_devices.first() {
        return Err(SpecError::Cdi(device.name.clone()));
    }
    let mut linux = Linux::default();
    linux
        .set_namespaces(Some(own_namespaces(request, namespaces.pid())))
        .set_cgroups_path(Some(request.cgroup.to_owned()))
        .set_resources(Some(resources::of_container(request, &context)?))
        .set_devices(resources::devices(request))
        .set_rootfs_propagation(Some(mounts::propagation(request.config).to_owned()))
        .set_mount_label(selinux::labels(&context, request.host).mounts);
    let (masked, readonly) = if context.privileged {
        (Vec::new(), Vec::new())
    } else {
        (context.masked_paths.clone(), context.readonly_paths.clone())
    };
    linux
        .set_masked_paths(Some(masked))
        .set_readonly_paths(Some(readonly))
        .set_sysctl(None);
    let mut process = process::process(request, &context)?;
    let seccomp = seccomp::filter(request, &context)?;
    let borrowed = match &seccomp {
        // Only an administrator or a process that can gain nothing may load a filter.
        Some(_) if process.no_new_privileges() != Some(true) => capabilities::borrow(&mut process),
        _ => Vec::new(),
    };
    let mounts = mounts::mounts(request, &context)?;
    let (mounts, staging) = match request.users {
        Some(users) => {
            let (mounts, staging) = staging::stage(mounts, request, users)?;
            (mounts, Some(staging))
        }
        None => staging::spread(mounts, request)?,
    };
    let mut spec = SpecBuilder::default()
        .version("1.0.2")
        .root(root(&request.files.rootfs, context.readonly_rootfs)?)
        .mounts(mounts)
        .process(process)
        .linux(linux)
        .build()?;
    spec.set_hostname(None);
    let annotations: HashMap<_, _> = request.config.annotations.clone().into_iter().collect();
    spec.set_annotations(Some(annotations));
    Ok(Specified {
        spec,
        confinement: Confinement { seccomp, borrowed },
        staging,
    })
}

/// The specification of the pause container: nothing but its program and a PID namespace of its own. `users` opens the
/// pod's user namespace and says how many users there are.
pub(crate) fn pause(
    rootfs: &Path,
    cgroup: &Path,
    host: &Host,
    host_pid: bool,
    users: Option<(&Path, Users)>,
) -> Result<Spec, SpecError> {
    let mut linux = Linux::default();
    let mut namespaces = vec![namespace(LinuxNamespaceType::Mount, None)];
    if let Some((path, _)) = users {
        namespaces.push(namespace(LinuxNamespaceType::User, Some(path.to_owned())));
    }
    if !host_pid {
        namespaces.push(namespace(LinuxNamespaceType::Pid, None));
    }
    let mut resources = oci_spec::runtime::LinuxResources::default();
    let mut cpu = oci_spec::runtime::LinuxCpu::default();
    cpu.set_shares(Some(2));
    resources.set_cpu(Some(cpu)).set_devices(Some(resources::denied()));
    linux
        .set_namespaces(Some(namespaces))
        .set_cgroups_path(Some(cgroup.to_owned()))
        .set_resources(Some(resources))
        .set_masked_paths(None)
        .set_readonly_paths(None)
        .set_devices(None)
        .set_sysctl(None);
    let mut spec = SpecBuilder::default()
        .version("1.0.2")
        .root(root(rootfs, true)?)
        .mounts(mounts::pause()?)
        .process(process::pause(host, users.map(|(_, users)| users))?)
        .linux(linux)
        .build()?;
    spec.set_hostname(None);
    Ok(spec)
}

pub(crate) fn security_context(config: &ContainerConfig) -> LinuxContainerSecurityContext {
    config
        .linux
        .as_ref()
        .and_then(|linux| linux.security_context.clone())
        .unwrap_or_default()
}

fn root(path: &Path, readonly: bool) -> Result<Root, SpecError> {
    Ok(RootBuilder::default().path(path).readonly(readonly).build()?)
}

/// The namespaces that the container does not share with its shim. Network, IPC and UTS are the pod's, which the
/// shim lives in.
fn own_namespaces(request: &Request<'_>, pid: NamespaceMode) -> Vec<LinuxNamespace> {
    let mut namespaces = vec![namespace(LinuxNamespaceType::Mount, None)];
    if let Some(users) = request.users {
        namespaces.push(namespace(LinuxNamespaceType::User, Some(users.namespace.clone())));
    }
    match (pid, request.pid_of) {
        (NamespaceMode::Node, _) => {}
        (NamespaceMode::Pod | NamespaceMode::Target, Some(pid)) => namespaces.push(namespace(
            LinuxNamespaceType::Pid,
            Some(PathBuf::from(format!("/proc/{pid}/ns/pid"))),
        )),
        _ => namespaces.push(namespace(LinuxNamespaceType::Pid, None)),
    }
    if request.host.unified() && !security_context(request.config).privileged {
        namespaces.push(namespace(LinuxNamespaceType::Cgroup, None));
    }
    namespaces
}

fn namespace(typ: LinuxNamespaceType, path: Option<PathBuf>) -> LinuxNamespace {
    let mut namespace = LinuxNamespace::default();
    namespace.set_typ(typ).set_path(path);
    namespace
}

#[cfg(test)]
mod tests;
