//! What the chores ask of the machine: commands, and packages where apt is the package manager.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// The workspace's root directory.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(PathBuf::from)
        .unwrap_or_default()
}

/// Cargo's target directory, where everything made lands.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// A command in the workspace's root.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    // What cargo says of this program to itself. ring's build looks at it too: a cargo started from here would compile it and all above it anew.
    for (name, _) in std::env::vars_os() {
        if ["CARGO_PKG_", "CARGO_MANIFEST_"]
            .iter()
            .any(|prefix| name.to_string_lossy().starts_with(prefix))
        {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command with its output on the terminal; an error names it when it fails.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

/// Runs a command and gives what it printed; an error carries what it said on standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?} ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Waits before looking again.
#[expect(
    clippy::disallowed_methods,
    reason = "a chore looks at other programs, which tell it nothing by themselves"
)]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Whether a program is on the PATH.
pub fn has(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path)
            .chain(["/usr/sbin".into(), "/sbin".into()])
            .any(|dir| dir.join(program).is_file())
    })
}

/// Sees to it that apt knows packages by version, which a fresh machine does not.
pub fn refresh_package_lists() -> Result<()> {
    let known = output(command("apt-cache").args(["policy", "busybox-static"]))?;
    if known.contains("Candidate:") && !known.contains("(none)\n  Version") {
        return Ok(());
    }
    run(apt_get().arg("update"))
}

/// Installs Debian packages that are not yet there. Elsewhere it says what is missing and lets the user act.
pub fn install(packages: &[&str]) -> Result<()> {
    if !has("dpkg-query") {
        eprintln!(
            "not a Debian or Ubuntu machine; please see to it that these are installed: {}",
            packages.join(" ")
        );
        return Ok(());
    }
    let missing: Vec<_> = packages.iter().filter(|package| !installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    run(apt_get().arg("update"))?;
    run(apt_get()
        .args(["install", "-y", "--no-install-recommends"])
        .args(&missing)
        .stdout(Stdio::null()))
}

/// apt-get as root, without questions.
fn apt_get() -> Command {
    let mut apt = if is_root() { command("apt-get") } else { command("sudo") };
    if !is_root() {
        apt.arg("apt-get");
    }
    apt.env("DEBIAN_FRONTEND", "noninteractive").arg("-qq");
    apt
}

/// Whether this process is root, and so needs no sudo.
pub fn is_root() -> bool {
    output(command("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

fn installed(package: &str) -> bool {
    output(command("dpkg-query").args(["-W", "-f=${db:Status-Status}", package]))
        .is_ok_and(|status| status == "installed")
}
