//! Security contexts of pods and containers, and what is for one operating system only.

use k8s_openapi::api::core::v1::{
    AppArmorProfile, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext, WindowsSecurityContextOptions,
};

use super::spec::each_security_context;
use super::{Errors, descending_path, within};
use crate::field::{FieldError, Path};
use crate::pod::{SysctlNamespace, sysctl_namespace};

const PROFILES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];
const MAX_ID: i64 = i32::MAX as i64;
const MAX_SYSCTL: usize = 253;

pub(super) fn pod(spec: &PodSpec, spec_path: &Path<'_>, errors: &mut Errors) {
    let path = spec_path.child("securityContext");
    let Some(context) = &spec.security_context else { return };
    for (field, id) in [
        ("fsGroup", context.fs_group),
        ("runAsUser", context.run_as_user),
        ("runAsGroup", context.run_as_group),
    ] {
        if let Some(id) = id {
            within(id, 0, MAX_ID, &path.child(field), errors);
        }
    }
    for (i, id) in context.supplemental_groups.iter().flatten().enumerate() {
        within(*id, 0, MAX_ID, &path.child("supplementalGroups").index(i), errors);
    }
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(FieldError::invalid(&path.child("shareProcessNamespace"), true, detail));
    }
    sysctls(context, spec, &path.child("sysctls"), errors);
    for (field, value, supported) in [
        (
            "fsGroupChangePolicy",
            &context.fs_group_change_policy,
            &["Always", "OnRootMismatch"],
        ),
        (
            "supplementalGroupsPolicy",
            &context.supplemental_groups_policy,
            &["Merge", "Strict"],
        ),
        (
            "seLinuxChangePolicy",
            &context.se_linux_change_policy,
            &["MountOption", "Recursive"],
        ),
    ] {
        if let Some(value) = value.as_deref().filter(|value| !supported.contains(value)) {
            errors.push(FieldError::not_supported(&path.child(field), value, supported));
        }
    }
    if let Some(profile) = &context.seccomp_profile {
        seccomp(profile, &path.child("seccompProfile"), errors);
    }
    if let Some(options) = &context.windows_options {
        windows_options(options, &path.child("windowsOptions"), errors);
    }
    if let Some(profile) = &context.app_armor_profile {
        app_armor(profile, &path.child("appArmorProfile"), errors);
    }
}

pub(super) fn container(context: &SecurityContext, spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    for (field, id) in [("runAsUser", context.run_as_user), ("runAsGroup", context.run_as_group)] {
        if let Some(id) = id {
            within(id, 0, MAX_ID, &path.child(field), errors);
        }
    }
    if let Some(mount) = &context.proc_mount {
        let path = path.child("procMount");
        match mount.as_str() {
            "Default" => {}
            "Unmasked" if spec.host_users == Some(false) => {}
            "Unmasked" => {
                errors.push(FieldError::invalid(
                    &path,
                    mount,
                    "`hostUsers` must be false to use `Unmasked`",
                ));
            }
            other => errors.push(FieldError::not_supported(&path, other, &["Default", "Unmasked"])),
        }
    }
    if let Some(profile) = &context.seccomp_profile {
        seccomp(profile, &path.child("seccompProfile"), errors);
    }
    if context.allow_privilege_escalation == Some(false) {
        if context.privileged == Some(true) {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(FieldError::invalid(path, context, detail));
        }
        let added = context
            .capabilities
            .iter()
            .flat_map(|capabilities| capabilities.add.iter().flatten());
        for _ in added.filter(|capability| *capability == "CAP_SYS_ADMIN") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(FieldError::invalid(path, context, detail));
        }
    }
    if let Some(options) = &context.windows_options {
        windows_options(options, &path.child("windowsOptions"), errors);
    }
    if let Some(profile) = &context.app_armor_profile {
        app_armor(profile, &path.child("appArmorProfile"), errors);
    }
}

fn seccomp(profile: &SeccompProfile, path: &Path<'_>, errors: &mut Errors) {
    match profile.type_.as_str() {
        "" => errors.push(FieldError::required(
            &path.child("type"),
            "type is required when seccompProfile is set",
        )),
        known if PROFILES.contains(&known) => {}
        other => errors.push(FieldError::not_supported(&path.child("type"), other, PROFILES)),
    }
    let path = path.child("localhostProfile");
    match &profile.localhost_profile {
        Some(file) if profile.type_ == "Localhost" => descending_path(file, &path, errors),
        Some(_) => {
            let detail = "can only be set when seccomp type is Localhost";
            errors.push(FieldError::invalid(&path, profile, detail));
        }
        None if profile.type_ == "Localhost" => {
            errors.push(FieldError::required(
                &path,
                "must be set when seccomp type is Localhost",
            ));
        }
        None => {}
    }
}

fn app_armor(profile: &AppArmorProfile, path: &Path<'_>, errors: &mut Errors) {
    let name_path = path.child("localhostProfile");
    match profile.type_.as_str() {
        "Localhost" => {
            let name = profile.localhost_profile.as_deref().unwrap_or_default();
            if name.trim() != name {
                errors.push(FieldError::invalid(
                    &name_path,
                    name,
                    "must not be padded with whitespace",
                ));
            } else if name.is_empty() {
                errors.push(FieldError::required(
                    &name_path,
                    "must be set when AppArmor type is Localhost",
                ));
            }
            // The longest path that the kernel takes.
            if name.len() > 4095 {
                errors.push(FieldError::too_long(&name_path, 4095));
            }
        }
        "RuntimeDefault" | "Unconfined" => {
            if let Some(name) = &profile.localhost_profile {
                let detail = "can only be set when AppArmor type is Localhost";
                errors.push(FieldError::invalid(&name_path, name, detail));
            }
        }
        "" => errors.push(FieldError::required(
            &path.child("type"),
            "type is required when appArmorProfile is set",
        )),
        other => errors.push(FieldError::not_supported(&path.child("type"), other, PROFILES)),
    }
}

fn sysctls(context: &PodSecurityContext, spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    let sysctls = context.sysctls.as_deref().unwrap_or_default();
    for (i, sysctl) in sysctls.iter().enumerate() {
        let path = path.index(i);
        let path = path.child("name");
        let name = sysctl.name.as_str();
        if name.is_empty() {
            errors.push(FieldError::required(&path, ""));
        } else if !is_sysctl_name(name) {
            let detail = format!(
                "must have at most {MAX_SYSCTL} characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
            );
            errors.push(FieldError::invalid(&path, name, detail));
        } else if sysctls[..i].iter().any(|other| other.name == name) {
            errors.push(FieldError::duplicate(&path, name));
        }
        match sysctl_namespace(name) {
            Some(SysctlNamespace::Net) if spec.host_network == Some(true) => {
                let detail = "may not be specified when 'hostNetwork' is true";
                errors.push(FieldError::invalid(&path, name, detail));
            }
            Some(SysctlNamespace::Ipc) if spec.host_ipc == Some(true) => {
                errors.push(FieldError::invalid(
                    &path,
                    name,
                    "may not be specified when 'hostIPC' is true",
                ));
            }
            _ => {}
        }
    }
}

fn is_sysctl_name(name: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let segment = |s: &str| {
        let bytes = s.as_bytes();
        bytes.first().is_some_and(alphanumeric)
            && bytes.last().is_some_and(alphanumeric)
            && bytes.iter().all(|b| alphanumeric(b) || matches!(b, b'-' | b'_'))
    };
    name.len() <= MAX_SYSCTL && name.split(['.', '/']).all(segment)
}

/// A pod in a user namespace of its own cannot be in other namespaces of the host.
pub(super) fn host_users(spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    if spec.host_users != Some(false) {
        return;
    }
    for (field, is_set) in [
        ("hostNetwork", spec.host_network),
        ("HostPID", spec.host_pid),
        ("HostIPC", spec.host_ipc),
    ] {
        if is_set == Some(true) {
            errors.push(FieldError::forbidden(&path.child(field), "when `hostUsers` is false"));
        }
    }
}

fn windows_options(options: &WindowsSecurityContextOptions, path: &Path<'_>, errors: &mut Errors) {
    if let Some(name) = &options.gmsa_credential_spec_name {
        super::subdomain(name, &path.child("gmsaCredentialSpecName"), errors);
    }
    if let Some(spec) = &options.gmsa_credential_spec {
        const MAX_KIB: usize = 64;
        if spec.is_empty() {
            errors.push(FieldError::invalid(
                &path.child("gmsaCredentialSpec"),
                spec,
                "gmsaCredentialSpec cannot be an empty string",
            ));
        } else if spec.len() > MAX_KIB * 1024 {
            let detail = format!("gmsaCredentialSpec size must be under {MAX_KIB} KiB");
            errors.push(FieldError::invalid(&path.child("gmsaCredentialSpec"), spec, detail));
        }
    }
    if options.run_as_user_name.as_deref() == Some("") {
        let detail = "runAsUserName cannot be an empty string";
        errors.push(FieldError::invalid(&path.child("runAsUserName"), "", detail));
    }
}

/// Host processes are for whole pods, and need the node's network.
pub(super) fn windows_host_process(spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    let of_pod = spec
        .security_context
        .as_ref()
        .and_then(|context| context.windows_options.as_ref())
        .and_then(|options| options.host_process);
    let mut hosts = 0;
    let mut others = 0;
    for (_, _, container) in crate::pod::containers(spec) {
        let options = container
            .security_context
            .as_ref()
            .and_then(|context| context.windows_options.as_ref());
        match options.and_then(|options| options.host_process).or(of_pod) {
            Some(true) => hosts += 1,
            _ => others += 1,
        }
    }
    if hosts > 0 && others > 0 {
        let detail = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.push(FieldError::invalid(path, "", detail));
    }
    if hosts > 0 && spec.host_network != Some(true) {
        let detail = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.push(FieldError::invalid(
            &path.child("hostNetwork"),
            spec.host_network == Some(true),
            detail,
        ));
    }
}

pub(super) fn only_linux(spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    const DETAIL: &str = "windows options cannot be set for a linux pod";
    if spec
        .security_context
        .as_ref()
        .is_some_and(|context| context.windows_options.is_some())
    {
        errors.push(FieldError::forbidden(
            &path.child("securityContext").child("windowsOptions"),
            DETAIL,
        ));
    }
    each_security_context(spec, path, |context, path| {
        if context.windows_options.is_some() {
            errors.push(FieldError::forbidden(&path.child("windowsOptions"), DETAIL));
        }
    });
}

pub(super) fn only_windows(spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    const DETAIL: &str = "cannot be set for a windows pod";
    let refuse_set = |path: &Path<'_>, fields: &[(&str, bool)], errors: &mut Errors| {
        for (field, _) in fields.iter().filter(|(_, is_set)| *is_set) {
            errors.push(FieldError::forbidden(&path.child(field), DETAIL));
        }
    };
    if let Some(context) = &spec.security_context {
        let own = path.child("securityContext");
        refuse_set(
            &own,
            &[
                ("appArmorProfile", context.app_armor_profile.is_some()),
                ("seLinuxOptions", context.se_linux_options.is_some()),
            ],
            errors,
        );
        refuse_set(
            path,
            &[
                ("hostUsers", spec.host_users.is_some()),
                ("hostPID", spec.host_pid == Some(true)),
                ("hostIPC", spec.host_ipc == Some(true)),
            ],
            errors,
        );
        refuse_set(
            &own,
            &[
                ("seccompProfile", context.seccomp_profile.is_some()),
                ("fsGroup", context.fs_group.is_some()),
                ("fsGroupChangePolicy", context.fs_group_change_policy.is_some()),
                (
                    "sysctls",
                    context.sysctls.as_ref().is_some_and(|sysctls| !sysctls.is_empty()),
                ),
            ],
            errors,
        );
        refuse_set(
            path,
            &[("shareProcessNamespace", spec.share_process_namespace.is_some())],
            errors,
        );
        refuse_set(
            &own,
            &[
                ("runAsUser", context.run_as_user.is_some()),
                ("runAsGroup", context.run_as_group.is_some()),
                ("supplementalGroups", context.supplemental_groups.is_some()),
                ("supplementalGroupsPolicy", context.supplemental_groups_policy.is_some()),
                ("seLinuxChangePolicy", context.se_linux_change_policy.is_some()),
            ],
            errors,
        );
    }
    each_security_context(spec, path, |context, path| {
        refuse_set(
            path,
            &[
                ("appArmorProfile", context.app_armor_profile.is_some()),
                ("seLinuxOptions", context.se_linux_options.is_some()),
                ("seccompProfile", context.seccomp_profile.is_some()),
                ("capabilities", context.capabilities.is_some()),
                ("readOnlyRootFilesystem", context.read_only_root_filesystem.is_some()),
                ("privileged", context.privileged.is_some()),
                ("allowPrivilegeEscalation", context.allow_privilege_escalation.is_some()),
                ("procMount", context.proc_mount.is_some()),
                ("runAsUser", context.run_as_user.is_some()),
                ("runAsGroup", context.run_as_group.is_some()),
            ],
            errors,
        );
    });
}
