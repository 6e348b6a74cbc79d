//! What the server and a shim say to each other.
//!
//! A connection is a unix socket of packets: one packet is one JSON message, with descriptors beside it where the
//! message says so. The server numbers its requests; the shim answers each with the same number, in order, and puts
//! events between the answers. A shim serves one connection; a new one takes the place of the old, and its first
//! request is [`Request::State`], whose answer is everything that happened while nobody was there.
//!
//! A new server must understand an old shim: fields are only ever added, with defaults, and requests only to the end.

use std::collections::BTreeMap;
use std::path::PathBuf;

use oci_spec::runtime::LinuxSeccomp;
use serde::{Deserialize, Serialize};

/// A numbered request.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Call {
    pub number: u64,
    pub request: Request,
}

/// What a server asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Request {
    /// Makes the pod's namespaces. Answer: [`Answer::Opened`].
    Open(Namespaces),
    /// Answer: [`Answer::State`].
    State,
    /// Creates and starts a container. Answer: [`Answer::Started`].
    Start(Box<Start>),
    /// Sends a signal to a container's own process, or to every process in its cgroup. Answer: [`Answer::Done`].
    Kill { id: String, signal: i32, all: bool },
    /// Drops what is kept of an ended container. Answer: [`Answer::Done`].
    Forget { id: String },
    /// Starts a command in a container. The packet carries the process's ends of its streams, in the order stdin,
    /// stdout, stderr. Answer: [`Answer::Executed`], with the terminal's master when there is one.
    Exec(Exec),
    /// Sends a signal to a command. Answer: [`Answer::Done`].
    KillExec { exec: u64, signal: i32 },
    /// Joins the streams of a container. The packet carries the writing ends of pipes for the wanted outputs, in the
    /// order stdout, stderr. Answer: [`Answer::Attached`], with the writing end of stdin or the terminal's master.
    Attach(Attach),
    /// Opens the log's path anew. Answer: [`Answer::Done`].
    ReopenLog { id: String },
    /// Ends whatever still runs in the pod, and then the shim. Answer: [`Answer::Done`]; the end of the connection
    /// says that it is done.
    Close,
}

/// Which namespaces the pod has for itself, and what is set in them.
#[derive(Debug, Default, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct Namespaces {
    pub network: bool,
    pub ipc: bool,
    pub uts: bool,
    pub hostname: String,
    /// Kernel parameters of the pod, dotted names.
    pub sysctls: BTreeMap<String, String>,
    /// The users of the pod, when it has some of its own: the other namespaces are then these users'.
    #[serde(default)]
    pub users: Option<Users>,
}

/// How the users of a pod are those of the node: its first user and group, 0 in the pod, and how many there are.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct Users {
    pub uid: u32,
    pub uids: u32,
    pub gid: u32,
    pub gids: u32,
}

impl Users {
    /// The node's user that is this one in the pod; none when the pod has no such user.
    pub(crate) fn outer_uid(&self, uid: u32) -> Option<u32> {
        (uid < self.uids).then(|| self.uid.checked_add(uid)).flatten()
    }

    /// The same for groups.
    pub(crate) fn outer_gid(&self, gid: u32) -> Option<u32> {
        (gid < self.gids).then(|| self.gid.checked_add(gid)).flatten()
    }
}

/// What is mounted for a container beforehand: where its users may not, its root, and where its volumes come from. All
/// of it is in a mount namespace that nobody keeps but the container.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct Staging {
    /// The node's directory of all layers, which appears in the bundle under this name.
    pub layers: Option<(PathBuf, PathBuf)>,
    pub mounts: Vec<Staged>,
}

/// A mount below the bundle.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct Staged {
    pub what: Stage,
    /// Relative to the bundle.
    pub target: PathBuf,
}

/// What is mounted.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Stage {
    /// A tree of the node; its files belong to the pod's users if they are to be mapped.
    Tree {
        source: PathBuf,
        mapped: bool,
        /// None: mounts travel both ways between it and the node, as far as the node lets them.
        #[serde(default)]
        spread: Option<Spread>,
    },
    /// An overlay, with mount(8)'s options; names are relative to the bundle.
    Overlay { options: Vec<String> },
}

/// How mounts travel between the node and a tree of it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Spread {
    /// They do not.
    Private,
    /// From the node.
    Slave,
}

/// A container to create and start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Start {
    pub id: String,
    /// The directory with `config.json`; also where relative names of layers are looked up.
    pub bundle: PathBuf,
    /// The directory under which libcontainer keeps its state.
    pub root: PathBuf,
    /// The container's cgroup, from the root of the hierarchies.
    pub cgroup: PathBuf,
    /// None: the output goes nowhere (the pause container).
    pub log: Option<PathBuf>,
    pub tty: bool,
    pub stdin: bool,
    pub stdin_once: bool,
    /// Whose process it is: its streams are made this user's.
    pub uid: u32,
    pub confinement: Confinement,
    #[serde(default)]
    pub staging: Option<Staging>,
}

/// What a container's processes put themselves under last of all: not in the specification, because libcontainer
/// would compile the filter for each container, and would leave it out for commands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Confinement {
    pub seccomp: Option<LinuxSeccomp>,
    /// Capabilities that the specification grants only for loading the filter; they are given up with it.
    pub borrowed: Vec<String>,
}

/// A command to run in a container.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Exec {
    pub id: String,
    /// The server's name for the command, unique as long as the shim lives.
    pub exec: u64,
    pub args: Vec<String>,
    pub tty: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// Streams of a container to join.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Attach {
    pub id: String,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// What a shim says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Message {
    Reply {
        number: u64,
        answer: Result<Answer, Failure>,
    },
    /// A container's own process has ended.
    Exited { id: String, exit: Exit },
    /// A command has ended.
    ExecExited { exec: u64, code: i32 },
}

/// The answer to a request that succeeded.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Answer {
    Done,
    /// `users` is the shim's descriptor of the pod's user namespace.
    Opened {
        pid: i32,
        #[serde(default)]
        users: Option<i32>,
    },
    State {
        containers: Vec<ContainerState>,
    },
    Started {
        pid: i32,
        at: i64,
    },
    Executed {
        pid: i32,
    },
    Attached {
        tty: bool,
    },
}

/// A request that failed.
#[derive(Debug, Clone, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    pub kind: FailureKind,
    pub message: String,
}

/// Why a request failed, for programs.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(crate) enum FailureKind {
    /// There is no such container, or it does not run.
    NotRunning,
    /// The program to run is not there or cannot be run.
    Executable,
    /// Something could not be mounted where the container wants it.
    Mount,
    /// Anything else.
    Other,
}

/// What the shim knows of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ContainerState {
    pub id: String,
    pub pid: i32,
    /// Nanoseconds since the epoch.
    pub started_at: i64,
    pub exit: Option<Exit>,
}

/// How a container ended.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct Exit {
    /// The exit code, or 128 and the signal's number.
    pub code: i32,
    /// Nanoseconds since the epoch.
    pub at: i64,
    /// The kernel killed a process of the container for want of memory.
    pub oom_killed: bool,
}

impl Failure {
    pub(crate) fn other(message: impl Into<String>) -> Self {
        Self {
            kind: FailureKind::Other,
            message: message.into(),
        }
    }

    pub(crate) fn not_running(id: &str) -> Self {
        Self {
            kind: FailureKind::NotRunning,
            message: format!("container {id} is not running"),
        }
    }
}
