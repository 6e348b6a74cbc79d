//! Commands and what they say.

use std::fmt;
use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// What a command said and how it ended.
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Output {
    /// Standard output of a command that must succeed.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self}");
        self.stdout
    }

    /// Standard error of a command that must fail.
    ///
    /// # Panics
    /// When it succeeded.
    #[track_caller]
    pub fn fails(self) -> String {
        assert_ne!(self.code, 0, "{self}");
        self.stderr
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "$ {}\nexit code {}\n{}{}",
            self.command, self.code, self.stdout, self.stderr
        )
    }
}

/// Runs a command to its end, with `input` on its standard input.
///
/// # Panics
/// When it cannot be started.
#[track_caller]
pub fn run(command: &mut Command, input: &str) -> Output {
    let line = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {line}: {error}"));
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let input = input.to_owned();
    // A command need not read its input; one that does may write a lot before it has read all.
    let writer = thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child
        .wait_with_output()
        .unwrap_or_else(|error| panic!("{line}: {error}"));
    let _ = writer.join();
    Output {
        command: line,
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The seconds that something which must come has to do so.
fn patience() -> u64 {
    let given = std::env::var("PODIUM_TEST_PATIENCE").ok();
    given.and_then(|seconds| seconds.parse().ok()).unwrap_or(USUAL_PATIENCE)
}

const USUAL_PATIENCE: u64 = 60;

/// A time that the product promises, as long as it is on a machine as slow as this one is said to be.
pub fn promised(time: Duration) -> Duration {
    time.mul_f64(patience().max(USUAL_PATIENCE) as f64 / USUAL_PATIENCE as f64)
}

/// Waits until `look` gives something, for what has no event to wait for; says `what` when it never does.
///
/// # Panics
/// After a minute, or the seconds that PODIUM_TEST_PATIENCE says: an emulated machine is slow.
#[track_caller]
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    let seconds = patience();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            start.elapsed() < Duration::from_secs(seconds),
            "not within {seconds} s: {what}"
        );
        #[expect(
            clippy::disallowed_methods,
            reason = "a test looks at other programs, which tell it nothing by themselves"
        )]
        thread::sleep(Duration::from_millis(30));
    }
}
