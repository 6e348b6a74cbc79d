//! Starting a command in a running container.
//!
//! The command's streams are the server's own pipes; its terminal's master goes to the server. The shim only waits
//! for the command to end.

use std::fs;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use oci_spec::runtime::{Capabilities, LinuxCapabilities, Process, Spec, User};

use super::container::Container;
use super::launcher::{Entry, Launcher};
use super::protocol::{Exec, Failure};
use super::start::{console, failure, give, guarded, receive_master};
use super::users::Held;

/// Starts a command; answers its process and, if it has one, its terminal's master.
pub(super) fn exec(
    container: &Container,
    exec: &Exec,
    held: Option<&Held>,
    streams: Vec<OwnedFd>,
) -> Result<(i32, Option<OwnedFd>), Failure> {
    let spec = Spec::load(container.bundle.join("config.json"))
        .map_err(|err| Failure::other(format!("read the container's configuration: {err}")))?;
    let mut process = spec.process().clone().unwrap_or_default();
    let uid = process.user().uid();
    let uid = held.and_then(|held| held.users.outer_uid(uid)).unwrap_or(uid);
    process.set_args(Some(exec.args.clone()));
    process.set_terminal(Some(exec.tty));
    let entry = held.map(|held| Entry {
        namespace: held.namespace.as_raw_fd(),
        process: process.clone(),
    });
    if entry.is_some() {
        process.set_user(User::default());
        process.set_capabilities(Some(all_powers().map_err(Failure::other)?));
    }
    let file =
        process_file(&process).map_err(|err| Failure::other(format!("write the command's description: {err}")))?;
    let launcher = Launcher::new(&container.confinement, false, entry).map_err(Failure::other)?;
    let mut builder = ContainerBuilder::new(container.id.clone(), SyscallType::default())
        .with_root_path(&container.root)
        .map_err(failure)?
        .with_executor(launcher);
    let mut listener = None;
    if exec.tty {
        let (socket, path) =
            console(&container.bundle).map_err(|err| Failure::other(format!("make the terminal's socket: {err}")))?;
        builder = builder.with_console_socket(Some(path));
        listener = Some(socket);
    } else {
        let mut streams = streams.into_iter();
        let mut stream = |wanted: bool| -> Result<OwnedFd, Failure> {
            match wanted.then(|| streams.next()) {
                Some(Some(fd)) => {
                    give(&fd, uid).map_err(|err| Failure::other(format!("give a stream to user {uid}: {err}")))?;
                    Ok(fd)
                }
                Some(None) => Err(Failure::other("a stream of the command is missing")),
                None => fs::OpenOptions::new()
                    .read(true)
                    .write(true)
                    .open("/dev/null")
                    .map(Into::into)
                    .map_err(|err| Failure::other(format!("open /dev/null: {err}"))),
            }
        };
        builder = builder
            .with_stdin(stream(exec.stdin)?)
            .with_stdout(stream(exec.stdout)?)
            .with_stderr(stream(exec.stderr)?);
    }
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let pid = guarded(&container.bundle, || {
        builder
            .as_tenant()
            .with_process(Some(path))
            .with_detach(true)
            .build()
            .map_err(failure)
    })?;
    let master = listener.map(|listener| receive_master(&listener, uid)).transpose()?;
    Ok((pid.as_raw(), master))
}

/// What a command has until it has entered the users of its pod: all that this process has.
fn all_powers() -> Result<LinuxCapabilities, String> {
    let own = caps::read(None, caps::CapSet::Permitted).map_err(|err| format!("read capabilities: {err}"))?;
    let all: Capabilities = own
        .iter()
        // The two libraries know the same capabilities under the same names.
        .filter_map(|capability| serde_json::from_value(capability.to_string().into()).ok())
        .collect();
    let mut powers = LinuxCapabilities::default();
    powers
        .set_bounding(Some(all.clone()))
        .set_effective(Some(all.clone()))
        .set_permitted(Some(all))
        .set_inheritable(None)
        .set_ambient(None);
    Ok(powers)
}

/// A file without a name, as libcontainer wants to read the description from a path.
fn process_file(process: &Process) -> std::io::Result<fs::File> {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    let mut file = fs::File::from(memfd_create(c"process", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(&serde_json::to_vec(process)?)?;
    Ok(file)
}
