//! AppArmor: the profile that a container runs under.
//!
//! A named one has to be loaded already. The default one is Podium's own, and is loaded when a container asks for it and the kernel has not got
//! it yet: that takes `apparmor_parser`, which compiles it.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cri::v1::LinuxContainerSecurityContext;
use cri::v1::security_profile::ProfileType;
use parking_lot::Mutex;

/// What the default profile is called.
const DEFAULT: &str = "podium-default";
const PROFILE: &str = include_str!("podium-default.apparmor");
/// What is loaded, one a line: `name (mode)`.
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";
const PARSER: &str = "apparmor_parser";

/// Why a container cannot be confined as it asks.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppArmorError {
    #[error("failed to generate apparmor spec opts: apparmor is not supported")]
    Unsupported,
    #[error("failed to generate apparmor spec opts: apparmor profile not found {0}")]
    NotLoaded(String),
    #[error("failed to generate apparmor spec opts: read {LOADED}: {0}")]
    Unknown(io::Error),
    #[error("failed to generate apparmor spec opts: load the profile {DEFAULT}: {0}")]
    Default(String),
}

/// What a container asks for.
#[derive(Debug, PartialEq, Eq)]
enum Wish {
    Nothing,
    Default,
    Named(String),
}

fn wish(context: &LinuxContainerSecurityContext) -> Wish {
    match &context.apparmor {
        _ if context.privileged => Wish::Nothing,
        Some(profile) => match profile.profile_type() {
            ProfileType::RuntimeDefault => Wish::Default,
            ProfileType::Localhost => Wish::Named(profile.localhost_ref.clone()),
            ProfileType::Unconfined => Wish::Nothing,
        },
        None => Wish::Nothing,
    }
}

fn has(loaded: &str, name: &str) -> bool {
    let mut names = loaded
        .lines()
        .filter_map(|line| line.rsplit_once(" (").map(|(name, _)| name));
    names.any(|loaded| loaded == name)
}

fn is_loaded(name: &str) -> Result<bool, AppArmorError> {
    let loaded = fs::read_to_string(LOADED).map_err(AppArmorError::Unknown)?;
    Ok(has(&loaded, name))
}

/// AppArmor of this machine.
#[derive(Debug)]
pub(crate) struct AppArmor {
    enabled: bool,
    loading: Mutex<()>,
}

impl AppArmor {
    /// Looks whether the kernel has it.
    pub(crate) fn look() -> Self {
        let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
        Self {
            enabled: enabled.is_ok_and(|enabled| enabled.starts_with('Y')),
            loading: Mutex::default(),
        }
    }

    /// Whether there is anything to be done for a container.
    pub(crate) fn is_asked(&self, context: &LinuxContainerSecurityContext) -> bool {
        match wish(context) {
            Wish::Nothing => false,
            Wish::Default => self.enabled,
            Wish::Named(_) => true,
        }
    }

    /// The profile for a container, which the kernel has when this returns. It may start a program and wait for it.
    pub(crate) fn profile(&self, context: &LinuxContainerSecurityContext) -> Result<Option<String>, AppArmorError> {
        match wish(context) {
            Wish::Nothing => Ok(None),
            // The kubelet has told so.
            Wish::Default if !self.enabled => Ok(None),
            Wish::Default => {
                // Many containers start at once, and one of them loads it.
                let _loading = self.loading.lock();
                if !is_loaded(DEFAULT)? {
                    load()?;
                }
                Ok(Some(DEFAULT.to_owned()))
            }
            Wish::Named(_) if !self.enabled => Err(AppArmorError::Unsupported),
            Wish::Named(name) => match is_loaded(&name)? {
                true => Ok(Some(name)),
                false => Err(AppArmorError::NotLoaded(name)),
            },
        }
    }
}

/// Where the compiler of profiles is. A server's own search path often lacks the administrator's directories.
fn parser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let fixed = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let mut places = fixed.into_iter().chain(own).map(|directory| directory.join(PARSER));
    places.find(|path| path.is_file())
}

fn load() -> Result<(), AppArmorError> {
    let Some(parser) = parser() else {
        return Err(AppArmorError::Default(format!(
            "there is no {PARSER} on this machine; install the package apparmor"
        )));
    };
    run(&parser).map_err(|err| AppArmorError::Default(format!("{}: {err}", parser.display())))
}

fn run(parser: &Path) -> io::Result<()> {
    // Without its cache, which is the administrator's.
    let mut child = Command::new(parser)
        .args(["--skip-cache", "--replace"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let written = match child.stdin.take() {
        Some(mut stdin) => stdin.write_all(PROFILE.as_bytes()),
        None => Ok(()),
    };
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("{}: {}", output.status, said.trim())));
    }
    written
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use cri::v1::SecurityProfile;

    use super::*;

    fn asks(kind: ProfileType, name: &str) -> LinuxContainerSecurityContext {
        LinuxContainerSecurityContext {
            apparmor: Some(SecurityProfile {
                profile_type: kind.into(),
                localhost_ref: name.into(),
            }),
            ..Default::default()
        }
    }

    #[test]
    fn what_is_asked_for() {
        let none = LinuxContainerSecurityContext::default();
        assert_eq!(wish(&none), Wish::Nothing);
        for (kind, expected) in [
            (ProfileType::RuntimeDefault, Wish::Default),
            (ProfileType::Unconfined, Wish::Nothing),
            (ProfileType::Localhost, Wish::Named("x".into())),
        ] {
            let mut context = asks(kind, "x");
            assert_eq!(wish(&context), expected);
            context.privileged = true;
            assert_eq!(wish(&context), Wish::Nothing, "nothing confines a privileged container");
        }
    }

    #[test]
    fn profiles_are_known_by_their_whole_names() {
        let loaded = "podium-default (enforce)\n/usr/bin/man (complain)\nwith space (enforce)\n";
        for name in ["podium-default", "/usr/bin/man", "with space"] {
            assert!(has(loaded, name), "{name}");
        }
        for name in ["podium", "man", "", "enforce)"] {
            assert!(!has(loaded, name), "{name}");
        }
    }

    #[test]
    fn without_the_kernels_help() {
        let without = AppArmor {
            enabled: false,
            loading: Mutex::default(),
        };
        let profile = |kind| without.profile(&asks(kind, "x"));
        assert!(!without.is_asked(&asks(ProfileType::RuntimeDefault, "")));
        assert!(without.is_asked(&asks(ProfileType::Localhost, "x")));
        assert_eq!(profile(ProfileType::RuntimeDefault).unwrap(), None);
        assert_eq!(
            profile(ProfileType::Localhost).unwrap_err().to_string(),
            "failed to generate apparmor spec opts: apparmor is not supported"
        );
    }

    #[test]
    fn the_default_is_called_what_it_is_asked_for_as() {
        assert!(PROFILE.contains(&format!("profile {DEFAULT} ")));
    }
}
