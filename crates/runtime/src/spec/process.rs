//! The container's process: its arguments, environment, directory and identity.

use std::collections::HashMap;
use std::path::PathBuf;

use cri::v1::{ContainerConfig, LinuxContainerSecurityContext};
use oci_spec::runtime::{Process, User};

use super::user::identity;
use super::{Host, Image, Request, SpecError, capabilities, selinux};
use crate::shim::protocol::Users;

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) fn process(request: &Request<'_>, context: &LinuxContainerSecurityContext) -> Result<Process, SpecError> {
    let identity = identity(context, &request.image.user, request.accounts)?;
    if let Some(pod) = request.users
        && (pod.users.outer_uid(identity.uid).is_none() || pod.users.outer_gid(identity.gid).is_none())
    {
        return Err(SpecError::NotMapped(identity.uid, identity.gid));
    }
    let mut user = User::default();
    user.set_uid(identity.uid)
        .set_gid(identity.gid)
        .set_additional_gids(Some(identity.groups.clone()));
    let mut process = Process::default();
    process
        .set_args(Some(command(request.config, request.image)?))
        .set_env(Some(environment(request, identity.uid)))
        .set_cwd(working_directory(request))
        .set_terminal(Some(request.config.tty))
        .set_user(user)
        .set_capabilities(Some(capabilities::granted(context, request.host)?))
        .set_rlimits(None)
        .set_oom_score_adj(oom_score(request))
        .set_apparmor_profile(request.app_armor.map(str::to_owned))
        .set_selinux_label(selinux::labels(context, request.host).process)
        // libcontainer takes any value, `false` too, for a wish to load the filter when it is too late for a process
        // that gave its capabilities up.
        .set_no_new_privileges((context.no_new_privs && !context.privileged).then_some(true));
    Ok(process)
}

/// The pause program, as root of nothing.
pub(super) fn pause(host: &Host, users: Option<Users>) -> Result<Process, SpecError> {
    const NOBODY: u32 = 65535;
    let uid = users.map_or(NOBODY, |users| NOBODY.min(users.uids.saturating_sub(1)));
    let gid = users.map_or(NOBODY, |users| NOBODY.min(users.gids.saturating_sub(1)));
    let mut process = Process::default();
    process
        .set_args(Some(vec!["/pause".into()]))
        .set_env(Some(vec![DEFAULT_PATH.into(), "HOME=/".into()]))
        .set_cwd(PathBuf::from("/"))
        .set_terminal(Some(false))
        .set_capabilities(Some(capabilities::none()))
        .set_rlimits(None)
        // Losing it is losing the pod.
        .set_oom_score_adj(Some(clamp(-998, host)))
        .set_apparmor_profile(None)
        .set_no_new_privileges(Some(true));
    let mut user = User::default();
    user.set_uid(uid).set_gid(gid).set_additional_gids(None);
    process.set_user(user);
    Ok(process)
}

/// A command of the pod replaces the image's entrypoint and its arguments; arguments alone replace the arguments.
fn command(config: &ContainerConfig, image: &Image) -> Result<Vec<String>, SpecError> {
    let (command, args) = match (config.command.as_slice(), config.args.as_slice()) {
        ([], []) => (image.entrypoint.as_slice(), image.command.as_slice()),
        ([], args) => (image.entrypoint.as_slice(), args),
        (command, args) => (command, args),
    };
    let command = [command, args].concat();
    if command.is_empty() {
        return Err(SpecError::NoCommand);
    }
    Ok(command)
}

/// The image's variables, then the host name, then the pod's; a later one takes an earlier one's place.
fn environment(request: &Request<'_>, uid: u32) -> Vec<String> {
    let mut env: Vec<String> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut set = |entry: String| {
        let key = entry.split('=').next().unwrap_or_default().to_owned();
        match places.get(&key) {
            Some(&place) => env[place] = entry,
            None => {
                places.insert(key, env.len());
                env.push(entry);
            }
        }
    };
    set(DEFAULT_PATH.into());
    set(format!("HOME={}", request.accounts.home(uid)));
    set(format!("HOSTNAME={}", request.files.hostname_text));
    if request.config.tty {
        set("TERM=xterm".into());
    }
    for entry in &request.image.env {
        set(entry.clone());
    }
    for variable in &request.config.envs {
        set(format!("{}={}", variable.key, variable.value));
    }
    env
}

fn working_directory(request: &Request<'_>) -> PathBuf {
    [&request.config.working_dir, &request.image.working_dir]
        .into_iter()
        .find(|dir| !dir.is_empty())
        .map_or_else(|| PathBuf::from("/"), |dir| PathBuf::from("/").join(dir))
}

fn oom_score(request: &Request<'_>) -> Option<i32> {
    let resources = request.config.linux.as_ref()?.resources.as_ref()?;
    Some(clamp(resources.oom_score_adj, request.host))
}

/// A process without CAP_SYS_RESOURCE may not make its children harder to kill than it is itself.
fn clamp(score: i64, host: &Host) -> i32 {
    let score = host.oom_score_floor.map_or(score, |floor| score.max(floor));
    score.clamp(-1000, 1000) as i32
}
