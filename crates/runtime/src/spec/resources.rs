//! How much of the machine a container may have, and which of its devices.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use cri::v1::{LinuxContainerResources, LinuxContainerSecurityContext};
use oci_spec::runtime::{
    LinuxCpu, LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
    LinuxHugepageLimit, LinuxMemory, LinuxResources,
};

use super::{Host, Request, SpecError};

pub(super) fn of_container(
    request: &Request<'_>,
    context: &LinuxContainerSecurityContext,
) -> Result<LinuxResources, SpecError> {
    let wish = request.config.linux.as_ref().and_then(|linux| linux.resources.as_ref());
    let mut limits = resources(wish.unwrap_or(&LinuxContainerResources::default()), request.host)?;
    let mut rules = if context.privileged { allowed() } else { denied() };
    for (device, access) in request.devices {
        let mut rule = LinuxDeviceCgroup::default();
        rule.set_allow(true)
            .set_typ(Some(device.typ()))
            .set_major(Some(device.major()))
            .set_minor(Some(device.minor()))
            .set_access(Some(access.clone()));
        rules.push(rule);
    }
    limits.set_devices(Some(rules));
    Ok(limits)
}

/// The limits of a container or a pod; what is zero is not limited.
pub(crate) fn resources(wish: &LinuxContainerResources, host: &Host) -> Result<LinuxResources, SpecError> {
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(positive(wish.cpu_shares))
        .set_quota(Some(wish.cpu_quota).filter(|quota| *quota != 0))
        .set_period(positive(wish.cpu_period))
        .set_cpus(named(&wish.cpuset_cpus))
        .set_mems(named(&wish.cpuset_mems));
    let mut memory = LinuxMemory::default();
    memory.set_limit(Some(wish.memory_limit_in_bytes).filter(|limit| *limit != 0));
    if host.swap {
        memory.set_swap(Some(wish.memory_swap_limit_in_bytes).filter(|limit| *limit != 0));
    }
    let mut resources = LinuxResources::default();
    resources
        .set_devices(None)
        .set_cpu((cpu != LinuxCpu::default()).then_some(cpu))
        .set_memory((memory != LinuxMemory::default()).then_some(memory));
    // As containerd, whose default is to do without the controller. The pages are the node's to give either way.
    if host.unified() || host.controllers.iter().any(|name| name == "hugetlb") {
        let limits: Vec<LinuxHugepageLimit> = wish
            .hugepage_limits
            .iter()
            .map(|limit| {
                let mut huge = LinuxHugepageLimit::default();
                huge.set_page_size(limit.page_size.clone())
                    .set_limit(i64::try_from(limit.limit).unwrap_or(i64::MAX));
                huge
            })
            .collect();
        resources.set_hugepage_limits(Some(limits).filter(|limits| !limits.is_empty()));
    }
    if host.unified() && !wish.unified.is_empty() {
        resources.set_unified(Some(wish.unified.clone().into_iter().collect()));
    }
    Ok(resources)
}

fn positive(value: i64) -> Option<u64> {
    u64::try_from(value).ok().filter(|value| *value > 0)
}

fn named(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

/// No device but those that every container has, which libcgroups adds.
pub(super) fn denied() -> Vec<LinuxDeviceCgroup> {
    vec![every_device(false)]
}

fn allowed() -> Vec<LinuxDeviceCgroup> {
    vec![every_device(true)]
}

fn every_device(allow: bool) -> LinuxDeviceCgroup {
    LinuxDeviceCgroupBuilder::default()
        .allow(allow)
        .typ(LinuxDeviceType::A)
        .access("rwm")
        .build()
        .unwrap_or_default()
}

pub(super) fn devices(request: &Request<'_>) -> Option<Vec<LinuxDevice>> {
    let devices: Vec<_> = request.devices.iter().map(|(device, _)| device.clone()).collect();
    (!devices.is_empty()).then_some(devices)
}

/// A device of the machine under the name it is to have in a container; none when the path is something else.
pub(crate) fn device(path: &Path, name: &Path) -> std::io::Result<Option<LinuxDevice>> {
    let metadata = std::fs::metadata(path)?;
    let typ = match metadata.file_type() {
        kind if kind.is_block_device() => LinuxDeviceType::B,
        kind if kind.is_char_device() => LinuxDeviceType::C,
        _ => return Ok(None),
    };
    let number = metadata.rdev();
    LinuxDeviceBuilder::default()
        .path(PathBuf::from(name))
        .typ(typ)
        .major(i64::try_from(nix::sys::stat::major(number)).unwrap_or_default())
        .minor(i64::try_from(nix::sys::stat::minor(number)).unwrap_or_default())
        .file_mode(metadata.permissions().mode() & 0o7777)
        .uid(metadata.uid())
        .gid(metadata.gid())
        .build()
        .map(Some)
        .map_err(std::io::Error::other)
}
