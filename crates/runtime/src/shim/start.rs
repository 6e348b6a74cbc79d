//! Creating and starting a container, and opening the pod's namespaces.

use std::error::Error as _;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::error::LibcontainerError;
use libcontainer::syscall::syscall::SyscallType;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, unshare};
use nix::sys::epoll::Epoll;
use nix::unistd::{Uid, pipe2};

use super::container::Container;
use super::launcher::Launcher;
use super::logs::{LogFile, Origin};
use super::output::Output;
use super::protocol::{Failure, FailureKind, Namespaces, Start};
use super::staging;
use super::trace;
use super::users::{self, Held};

/// Moves the shim into new namespaces, which are then the pod's. The answer is its user namespace, if it has its own.
pub(super) fn open(namespaces: &Namespaces) -> Result<Option<Held>, Failure> {
    let mut flags = CloneFlags::empty();
    flags.set(CloneFlags::CLONE_NEWNET, namespaces.network);
    flags.set(CloneFlags::CLONE_NEWIPC, namespaces.ipc);
    flags.set(CloneFlags::CLONE_NEWUTS, namespaces.uts);
    let made = match namespaces.users {
        Some(users) => users::enter(users, flags).map(Some),
        None => unshare(flags).map(|()| None).map_err(io::Error::from),
    };
    let held = made.map_err(|err| Failure::other(format!("make the pod's namespaces: {err}")))?;
    if namespaces.uts {
        nix::unistd::sethostname(&namespaces.hostname)
            .map_err(|err| Failure::other(format!("set the host name {:?}: {err}", namespaces.hostname)))?;
    }
    for (name, value) in &namespaces.sysctls {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        fs::write(&path, value).map_err(|err| Failure::other(format!("set sysctl {name} to {value:?}: {err}")))?;
    }
    Ok(held)
}

/// The shim's ends of a container's streams, and the container's.
struct Streams {
    input: Option<OwnedFd>,
    outputs: Vec<(OwnedFd, Origin)>,
    child: Child,
}

enum Child {
    Pipes {
        stdin: OwnedFd,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    Console {
        listener: UnixListener,
        path: PathBuf,
    },
}

impl Streams {
    fn of(start: &Start) -> io::Result<Self> {
        if start.tty {
            let (listener, path) = console(&start.bundle)?;
            return Ok(Self {
                input: None,
                outputs: Vec::new(),
                child: Child::Console { listener, path },
            });
        }
        let null =
            || -> io::Result<OwnedFd> { Ok(fs::OpenOptions::new().read(true).write(true).open("/dev/null")?.into()) };
        let (stdin, input) = if start.stdin {
            let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
            give(&reader, start.uid)?;
            (reader, Some(writer))
        } else {
            (null()?, None)
        };
        let mut outputs = Vec::new();
        let mut output = |origin| -> io::Result<OwnedFd> {
            if start.log.is_none() {
                return null();
            }
            let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
            give(&writer, start.uid)?;
            outputs.push((reader, origin));
            Ok(writer)
        };
        let (stdout, stderr) = (output(Origin::Stdout)?, output(Origin::Stderr)?);
        Ok(Self {
            input,
            outputs,
            child: Child::Pipes { stdin, stdout, stderr },
        })
    }
}

/// Creates and starts a container. `token` numbers its streams in `epoll`.
pub(super) fn start(
    start: Start,
    epoll: &Epoll,
    held: Option<&Held>,
    mut token: impl FnMut() -> u64,
) -> Result<Container, Failure> {
    let log = match &start.log {
        Some(path) => Some(
            LogFile::open(path.clone())
                .map_err(|err| Failure::other(format!("open the log {}: {err}", path.display())))?,
        ),
        None => None,
    };
    let streams = Streams::of(&start).map_err(|err| Failure::other(format!("make the container's streams: {err}")))?;
    let builder = ContainerBuilder::new(start.id.clone(), SyscallType::default())
        .with_root_path(&start.root)
        .map_err(failure)?
        .with_executor(Launcher::new(&start.confinement, true, None).map_err(Failure::other)?);
    let (builder, listener) = match streams.child {
        Child::Pipes { stdin, stdout, stderr } => {
            (builder.with_stdin(stdin).with_stdout(stdout).with_stderr(stderr), None)
        }
        Child::Console { listener, path } => (builder.with_console_socket(Some(path)), Some(listener)),
    };
    let create = || {
        guarded(&start.bundle, || {
            builder
                .as_init(&start.bundle)
                .with_systemd(false)
                .with_detach(true)
                .build()
                .map_err(failure)
        })
    };
    let mut created = match &start.staging {
        Some(staging) => staging::staged(staging, &start.bundle, held, create)?,
        None => create()?,
    };
    let mut input = streams.input;
    let mut readers = streams.outputs;
    if let Some(listener) = listener {
        let master = receive_master(&listener, start.uid)?;
        let reader = master
            .try_clone()
            .map_err(|err| Failure::other(format!("duplicate the terminal: {err}")))?;
        readers.push((reader, Origin::Stdout));
        input = Some(master);
    }
    let outputs = readers
        .into_iter()
        .map(|(fd, origin)| Output::new(fd, origin, token(), epoll))
        .collect::<io::Result<Vec<_>>>()
        .map_err(|err| Failure::other(format!("watch the container's output: {err}")))?;
    created.start().map_err(failure)?;
    let pid = created
        .pid()
        .ok_or_else(|| Failure::other("the created container has no process"))?;
    Ok(Container {
        id: start.id,
        pid: pid.as_raw(),
        started_at: now(),
        exit: None,
        bundle: start.bundle,
        root: start.root,
        cgroup: start.cgroup,
        log,
        outputs,
        input,
        tty: start.tty,
        stdin: start.stdin,
        stdin_once: start.stdin_once,
        confinement: start.confinement,
    })
}

/// Nanoseconds since the epoch.
pub(super) fn now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

/// A socket that libcontainer connects to in order to hand over a terminal's master.
pub(super) fn console(dir: &Path) -> io::Result<(UnixListener, PathBuf)> {
    const NAME: &str = "console.sock";
    let path = dir.join(NAME);
    if let Err(err) = fs::remove_file(&path)
        && err.kind() != io::ErrorKind::NotFound
    {
        return Err(err);
    }
    // A socket's name may be no longer than 107 bytes, a directory's may: the name is taken from within.
    std::env::set_current_dir(dir)?;
    let listener = UnixListener::bind(NAME);
    std::env::set_current_dir("/")?;
    Ok((listener?, path))
}

/// Makes a pipe a user's, so that its process may open it anew as `/dev/stdout`.
pub(super) fn give(stream: &OwnedFd, uid: u32) -> io::Result<()> {
    if uid != 0 {
        nix::unistd::fchown(stream, Some(Uid::from_raw(uid)), None)?;
    }
    Ok(())
}

/// Makes a terminal a user's, by its other end, which needs no name.
fn give_terminal(master: &OwnedFd, uid: u32) -> io::Result<()> {
    // SAFETY: the call takes flags by value and makes a descriptor or an error.
    let slave = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, libc::O_RDWR | libc::O_NOCTTY) };
    let slave = nix::errno::Errno::result(slave)?;
    // SAFETY: the kernel has just made the descriptor for this process.
    let slave = unsafe { OwnedFd::from_raw_fd(slave) };
    give(&slave, uid)
}

/// The master of a terminal that a created process has sent.
pub(super) fn receive_master(listener: &UnixListener, uid: u32) -> Result<OwnedFd, Failure> {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};
    let receive = || -> io::Result<Option<OwnedFd>> {
        let (connection, _) = listener.accept()?;
        let mut name = [0; 64];
        let mut parts = [io::IoSliceMut::new(&mut name)];
        let mut space = nix::cmsg_space!([i32; 1]);
        let message = recvmsg::<UnixAddr>(
            connection.as_raw_fd(),
            &mut parts,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        )?;
        let mut master = None;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(descriptors) = control {
                // SAFETY: the kernel has just made these descriptors for this process.
                master = descriptors
                    .into_iter()
                    .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
                    .next();
            }
        }
        Ok(master)
    };
    let master = receive()
        .map_err(|err| Failure::other(format!("receive the terminal: {err}")))?
        .ok_or_else(|| Failure::other("the container sent no terminal"))?;
    give_terminal(&master, uid).map_err(|err| Failure::other(format!("give the terminal to user {uid}: {err}")))?;
    Ok(master)
}

/// Runs libcontainer in a directory, and undoes what it leaves behind in this process: the out-of-memory score that
/// it takes on for its children, and, when it fails, the descriptors that it forgets.
pub(super) fn guarded<T>(dir: &Path, create: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    const SCORE: &str = "/proc/self/oom_score_adj";
    let score = fs::read_to_string(SCORE).unwrap_or_default();
    let before = descriptors();
    trace::take();
    std::env::set_current_dir(dir).map_err(|err| Failure::other(format!("enter {}: {err}", dir.display())))?;
    let result = create();
    let _ = std::env::set_current_dir("/");
    if fs::read_to_string(SCORE).unwrap_or_default() != score {
        // Without CAP_SYS_RESOURCE a score that was raised can still be lowered to where it was.
        let _ = fs::write(SCORE, score.trim());
    }
    if result.is_err() {
        for fd in descriptors() {
            if !before.contains(&fd) {
                // SAFETY: opened by the failed call, whose values are all gone: nobody uses the number any more.
                unsafe { libc::close(fd) };
            }
        }
    }
    result
}

fn descriptors() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else {
        return Vec::new();
    };
    // The directory's own descriptor is in the list and closed after it; closing it again does nothing.
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// What a user should read of libcontainer's error.
pub(super) fn failure(err: LibcontainerError) -> Failure {
    let mut text = err.to_string();
    let mut source = err.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    words(&text, &trace::take())
}

fn words(error: &str, causes: &[String]) -> Failure {
    // libcontainer appends what it could not clear away; that is cleared away here, and is no user's matter.
    let error = error.split(". error during cleanup").next().unwrap_or(error);
    let error = error.trim_end_matches('\0');
    if let Some(at) = error.find("exec: \"").or_else(|| error.find("exec /")) {
        return Failure {
            kind: FailureKind::Executable,
            message: error[at..].to_owned(),
        };
    }
    if let Some(message) = causes.iter().find_map(|cause| not_mounted(cause)) {
        return Failure {
            kind: FailureKind::Mount,
            message,
        };
    }
    Failure::other(match causes.first() {
        Some(cause) if !error.contains(cause.as_str()) => format!("{error}: {cause}"),
        _ => error.to_owned(),
    })
}

/// What could not be mounted where, if that is what a cause tells: libcontainer writes the mount as its program would, and leaves out what
/// the kernel said.
fn not_mounted(cause: &str) -> Option<String> {
    let rest = cause.strip_prefix("failed to mount Mount { destination: \"")?;
    let (destination, rest) = rest.split_once("\", typ: Some(\"")?;
    let (kind, rest) = rest.split_once("\"), source: Some(\"")?;
    let (source, rest) = rest.split_once("\"), options: ")?;
    let reason = rest.split_once("}: ").map_or(rest, |(_, reason)| reason);
    let reason = match reason {
        _ if kind == "bind" && destination.starts_with("/proc/") => {
            format!("{destination:?} cannot be mounted because it is inside /proc")
        }
        // A directory's path ends at a file, or what is no directory would cover one.
        "syscall" if kind == "bind" => "not a directory".into(),
        reason if reason.ends_with(" with O_DIRECTORY") => "not a directory".into(),
        reason => reason.to_owned(),
    };
    Some(format!(
        "error mounting {source:?} to rootfs at {destination:?}: {reason}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_keep_what_matters() {
        let cases = [
            (
                "failed to create container: exec process failed with error error in executing process : exec: \"x\": executable file not found in $PATH",
                vec!["validation failed".to_owned()],
                FailureKind::Executable,
                "exec: \"x\": executable file not found in $PATH",
            ),
            (
                "exec /run.sh: exec format error\0\0",
                vec![],
                FailureKind::Executable,
                "exec /run.sh: exec format error",
            ),
            (
                "failed to prepare rootfs",
                vec!["failed to mount /x: ENOENT".to_owned(), "failed".to_owned()],
                FailureKind::Other,
                "failed to prepare rootfs: failed to mount /x: ENOENT",
            ),
            (
                "exec: \"/x\": stat /x: no such file or directory. error during cleanup: failed to cleanup container: busy",
                vec![],
                FailureKind::Executable,
                "exec: \"/x\": stat /x: no such file or directory",
            ),
            ("cgroup error", vec![], FailureKind::Other, "cgroup error"),
            (
                "failed to prepare rootfs",
                vec![
                    "failed to mount Mount { destination: \"/etc/app.conf\", typ: Some(\"bind\"), source: Some(\"/pods/v\"), options: Some([\"rbind\", \"ro\"]), uid_mappings: None, gid_mappings: None }: cannot re-open [13]<\"/c/rootfs/etc/app.conf\"> with O_DIRECTORY".to_owned(),
                    "failed".to_owned(),
                ],
                FailureKind::Mount,
                "error mounting \"/pods/v\" to rootfs at \"/etc/app.conf\": not a directory",
            ),
            (
                "failed to prepare rootfs",
                vec!["failed to mount Mount { destination: \"/etc\", typ: Some(\"bind\"), source: Some(\"/pods/file\"), options: None, uid_mappings: None, gid_mappings: None }: syscall".to_owned()],
                FailureKind::Mount,
                "error mounting \"/pods/file\" to rootfs at \"/etc\": not a directory",
            ),
            (
                "failed to prepare rootfs",
                vec!["failed to mount Mount { destination: \"/proc/x\", typ: Some(\"bind\"), source: Some(\"/pods/v\"), options: None, uid_mappings: None, gid_mappings: None }: create next directory component failed".to_owned()],
                FailureKind::Mount,
                "error mounting \"/pods/v\" to rootfs at \"/proc/x\": \"/proc/x\" cannot be mounted because it is inside /proc",
            ),
        ];
        for (error, causes, kind, message) in cases {
            let failure = words(error, &causes);
            assert_eq!((failure.kind, failure.message.as_str()), (kind, message));
        }
    }
}
