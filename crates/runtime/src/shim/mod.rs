//! The shim: one small single-threaded process a pod, parent of the pod's containers.
//!
//! ```text
//! server ──starts──▶ zygote ──forks──▶ shim of pod A ──libcontainer──▶ pause, containers, commands
//!                       └─────forks──▶ shim of pod B …
//! ```
//!
//! The zygote is the server's own binary, started again as `podium shim`. It is loaded and relocated once, so a
//! shim costs a fork (its pages are shared until written), not the start of a large program. It ends with its
//! server; the shims do not: each has a session of its own, no controlling terminal and no descriptor of the server.
//!
//! A shim lives in its pod's network, IPC and UTS namespaces, so containers inherit them, and they last as long as
//! anything of the pod does. It is the subreaper of its containers. It holds the reading ends of their output,
//! writes their logs itself, and keeps the exits that nobody has asked for.
//!
//! Nothing here waits for anything but [`epoll`](event_loop), and nothing here has a second thread: libcontainer
//! forks, and a fork of a process with threads may do very little.

mod container;
mod event_loop;
mod exec;
mod filter;
mod launcher;
mod logs;
mod output;
pub(crate) mod packet;
pub(crate) mod protocol;
mod staging;
mod start;
mod trace;
mod users;
mod zygote;

pub(crate) use zygote::Fork;

/// The hidden `podium shim` command. Its standard input is the server's socket; it has no flags.
pub fn shim_main() -> ! {
    let code = match zygote::run() {
        Ok(()) => 0,
        Err(err) => {
            eprintln!("podium shim: {err}");
            1
        }
    };
    #[expect(clippy::disallowed_methods, reason = "a shim's main never returns")]
    std::process::exit(code)
}
