//! A terminal for interactive commands: a pseudo-terminal whose other end the test types on and reads.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};
use std::os::fd::AsFd;

nix::ioctl_write_ptr_bad!(set_size, libc::TIOCSWINSZ, Winsize);

/// A command on a terminal of its own.
pub struct Terminal {
    child: Child,
    master: File,
    seen: String,
}

impl Terminal {
    /// Starts a command with the terminal as its standard streams and controlling terminal.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(command: Command, rows: u16, columns: u16) -> Self {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(Some(&size), None).expect("a pseudo-terminal");
        // setsid makes the terminal the controlling one, so that a resize sends SIGWINCH.
        let mut with_session = Command::new("setsid");
        // Who runs the tests in the background without job control has SIGINT ignored by all that they start.
        with_session
            .args(["--ctty", "--wait", "env", "--default-signal=INT"])
            .arg(command.get_program())
            .args(command.get_args());
        for (key, value) in command.get_envs() {
            if let Some(value) = value {
                with_session.env(key, value);
            }
        }
        let slave = |fd: &OwnedFd| Stdio::from(fd.try_clone().expect("the terminal's handle"));
        let child = with_session
            .stdin(slave(&pty.slave))
            .stdout(slave(&pty.slave))
            .stderr(slave(&pty.slave))
            .spawn()
            .expect("the command starts");
        Self {
            child,
            master: File::from(pty.master),
            seen: String::new(),
        }
    }

    /// Types.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn send(&mut self, text: &str) {
        self.master
            .write_all(text.as_bytes())
            .expect("the terminal takes input");
    }

    /// Changes the terminal's size, as dragging a window's corner does.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn resize(&mut self, rows: u16, columns: u16) {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: the descriptor is an open terminal and `size` outlives the call.
        unsafe { set_size(std::os::fd::AsRawFd::as_raw_fd(&self.master), &size) }.expect("TIOCSWINSZ");
    }

    /// Reads until the terminal has shown `text`; gives all that came up to then and forgets it.
    ///
    /// # Panics
    /// When it is not shown within half a minute.
    #[track_caller]
    pub fn expect(&mut self, text: &str) -> String {
        let start = Instant::now();
        loop {
            if let Some(at) = self.seen.find(text) {
                let rest = self.seen.split_off(at + text.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "the terminal did not show {text:?} but {:?}",
                self.seen
            );
            let mut ready = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
            poll(&mut ready, PollTimeout::from(500_u16)).expect("poll");
            if ready[0].revents().is_some_and(|events| !events.is_empty()) {
                let mut buffer = [0; 4096];
                match self.master.read(&mut buffer) {
                    Ok(0) | Err(_) => panic!("the terminal ended before it showed {text:?}: {:?}", self.seen),
                    Ok(read) => self.seen.push_str(&String::from_utf8_lossy(&buffer[..read])),
                }
            }
        }
    }

    /// The command's exit code, when it has ended.
    ///
    /// # Panics
    /// When it cannot be waited for.
    pub fn wait(mut self) -> i32 {
        self.child.wait().expect("wait").code().unwrap_or(-1)
    }
}
