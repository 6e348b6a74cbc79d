//! Which of the root user's powers a container's process has.

use caps::{Capability, CapsHashSet};
use cri::v1::LinuxContainerSecurityContext;
use oci_spec::runtime::{Capabilities, LinuxCapabilities, Process};

use super::{Host, SpecError};

/// What a container has when nobody says anything: the set that all runtimes agree on.
const DEFAULT: [Capability; 14] = [
    Capability::CAP_AUDIT_WRITE,
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_KILL,
    Capability::CAP_MKNOD,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_NET_RAW,
    Capability::CAP_SETFCAP,
    Capability::CAP_SETGID,
    Capability::CAP_SETPCAP,
    Capability::CAP_SETUID,
    Capability::CAP_SYS_CHROOT,
];

/// The sets of a container's process: `ALL` first, then the additions, then the removals.
pub(super) fn granted(context: &LinuxContainerSecurityContext, host: &Host) -> Result<LinuxCapabilities, SpecError> {
    let (set, ambient) = sets(context, host)?;
    let mut capabilities = none();
    let set = convert(&set);
    capabilities
        .set_bounding(Some(set.clone()))
        .set_effective(Some(set.clone()))
        .set_permitted(Some(set));
    if !ambient.is_empty() {
        let ambient = convert(&ambient);
        capabilities
            .set_inheritable(Some(ambient.clone()))
            .set_ambient(Some(ambient));
    }
    Ok(capabilities)
}

/// Lends the process what loading a filter takes, for as long as it has not loaded it; the answer is what it has to
/// give up then.
pub(super) fn borrow(process: &mut Process) -> Vec<String> {
    let mut capabilities = process.capabilities().clone().unwrap_or_else(none);
    let own = capabilities.bounding().clone().unwrap_or_default();
    let needed = [
        (Capability::CAP_SYS_ADMIN, oci_spec::runtime::Capability::SysAdmin),
        // It gives capabilities up.
        (Capability::CAP_SETPCAP, oci_spec::runtime::Capability::Setpcap),
    ];
    let lent: Vec<_> = needed.into_iter().filter(|(_, name)| !own.contains(name)).collect();
    let with = |set: &Option<Capabilities>| {
        let mut set = set.clone().unwrap_or_default();
        set.extend(lent.iter().map(|(_, name)| *name));
        Some(set)
    };
    let (bounding, effective, permitted) = (
        with(capabilities.bounding()),
        with(capabilities.effective()),
        with(capabilities.permitted()),
    );
    capabilities
        .set_bounding(bounding)
        .set_effective(effective)
        .set_permitted(permitted);
    process.set_capabilities(Some(capabilities));
    lent.iter().map(|(capability, _)| capability.to_string()).collect()
}

/// No power at all.
pub(super) fn none() -> LinuxCapabilities {
    let mut capabilities = LinuxCapabilities::default();
    let empty = Some(Capabilities::new());
    capabilities
        .set_bounding(empty.clone())
        .set_effective(empty.clone())
        .set_permitted(empty)
        .set_inheritable(None)
        .set_ambient(None);
    capabilities
}

/// The capabilities a container's process has, for those who judge by them.
pub(super) fn sets(
    context: &LinuxContainerSecurityContext,
    host: &Host,
) -> Result<(CapsHashSet, CapsHashSet), SpecError> {
    if context.privileged {
        return Ok((host.capabilities.clone(), CapsHashSet::new()));
    }
    let wish = context.capabilities.clone().unwrap_or_default();
    let all = |names: &[String]| names.iter().any(|name| name.eq_ignore_ascii_case("ALL"));
    let mut set: CapsHashSet = if all(&wish.drop_capabilities) {
        CapsHashSet::new()
    } else if all(&wish.add_capabilities) {
        host.capabilities.clone()
    } else {
        default(host)
    };
    set.extend(named(&wish.add_capabilities)?);
    for dropped in named(&wish.drop_capabilities)? {
        set.remove(&dropped);
    }
    let ambient: CapsHashSet = named(&wish.add_ambient_capabilities)?.into_iter().collect();
    set.extend(&ambient);
    Ok((set, ambient))
}

/// What a container has that asks for nothing.
pub(super) fn default(host: &Host) -> CapsHashSet {
    DEFAULT
        .into_iter()
        // libcgroups does not guard devices in version 2, so only who asks for it may make them.
        .filter(|capability| !host.unified() || *capability != Capability::CAP_MKNOD)
        .collect()
}

fn named(names: &[String]) -> Result<Vec<Capability>, SpecError> {
    names
        .iter()
        .filter(|name| !name.eq_ignore_ascii_case("ALL"))
        .map(|name| {
            let upper = name.to_ascii_uppercase();
            let full = if upper.starts_with("CAP_") {
                upper
            } else {
                format!("CAP_{upper}")
            };
            full.parse().map_err(|_| SpecError::UnknownCapability(full))
        })
        .collect()
}

fn convert(set: &CapsHashSet) -> Capabilities {
    set.iter()
        .filter_map(|capability| {
            let name = capability.to_string();
            // The two libraries know the same capabilities under the same names, but for the prefix.
            serde_json::from_value(serde_json::Value::String(name)).ok()
        })
        .collect()
}
