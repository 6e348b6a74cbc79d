//! The zygote: forks a shim for each listener that the server sends it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::prctl;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::socket::MsgFlags;
use nix::unistd::{ForkResult, fork, setgroups, setsid};
use serde::{Deserialize, Serialize};

use super::packet::{self, MAX_PACKET};
use super::{event_loop, filter, trace};

/// What the server asks of the zygote; the packet carries the new shim's listener.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Fork {
    /// The sandbox, for the name that process lists show.
    pub sandbox: String,
}

/// Serves until the server is gone.
pub(super) fn run() -> io::Result<()> {
    let server = io::stdin().as_fd().try_clone_to_owned()?;
    occupy_standard_descriptors()?;
    std::env::set_current_dir("/")?;
    nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    // Containers must not inherit the server's groups.
    setgroups(&[])?;
    trace::install()?;
    // What every shim would have to find out or to make for itself.
    let host = crate::host::read();
    if let Ok(profiles) = crate::spec::common_filters(&host) {
        filter::compile(profiles);
    }
    // Shims are nobody's to wait for: the kernel drops them when they end.
    disposition(Signal::SIGCHLD, SigHandler::SigIgn)?;

    let mut buffer = vec![0; MAX_PACKET];
    while let Some((fork_request, descriptors)) =
        packet::receive::<Fork>(server.as_fd(), &mut buffer, MsgFlags::empty())?
    {
        let Some(listener) = descriptors.into_iter().next() else {
            continue;
        };
        // SAFETY: this process has one thread.
        match unsafe { fork() }? {
            ForkResult::Parent { .. } => drop(listener),
            ForkResult::Child => {
                drop(server);
                drop(buffer);
                #[expect(
                    clippy::disallowed_methods,
                    reason = "a forked child ends here, and its parent drops what both have"
                )]
                std::process::exit(become_shim(&fork_request, listener));
            }
        }
    }
    Ok(())
}

/// A shim's life, from the fork on. A panic must not unwind into the zygote's loop.
fn become_shim(request: &Fork, listener: OwnedFd) -> i32 {
    let life = std::panic::AssertUnwindSafe(|| -> io::Result<()> {
        setsid()?;
        disposition(Signal::SIGCHLD, SigHandler::SigDfl)?;
        trace::open()?;
        prctl::set_child_subreaper(true)?;
        let name: String = format!("shim:{}", request.sandbox).chars().take(15).collect();
        prctl::set_name(&std::ffi::CString::new(name)?)?;
        event_loop::run(listener)
    });
    match std::panic::catch_unwind(life) {
        Ok(Ok(())) => 0,
        Ok(Err(err)) => {
            eprintln!("shim of {}: {err}", request.sandbox);
            1
        }
        Err(_) => 1,
    }
}

/// Descriptors 0 and 1 are /dev/null, 2 stays where the server put it.
fn occupy_standard_descriptors() -> io::Result<()> {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    Ok(())
}

fn disposition(signal: Signal, handler: SigHandler) -> io::Result<()> {
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: no handler of this program's is installed, only the kernel's own behaviours.
    unsafe { sigaction(signal, &action) }?;
    Ok(())
}
