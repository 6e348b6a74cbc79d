//! `cargo xtask test`: everything that must hold before a change lands.

use std::ffi::OsString;
use std::fs;
use std::time::Instant;

use anyhow::Result;
use clap::Args;

use crate::system::{self, command, run};
use crate::{build, images, rules, tools, vm};

/// What tests need beside the packages that building and running need.
const PACKAGES: &[&str] = &[
    "busybox-static",
    "curl",
    "dbus-daemon",
    "procps",
    "python3",
    "util-linux",
];

/// A storage cluster for volumes, with the client for kernels that have none.
const CEPH_PACKAGES: &[&str] = &["ceph-common", "ceph-fuse", "ceph-mds", "ceph-mon", "ceph-osd"];

/// Options of `cargo xtask test`.
#[derive(Args)]
pub struct Options {
    /// Only the end-to-end tests whose name contains this.
    #[arg(long)]
    e2e: Option<String>,
    /// Only the tests in the virtual machine with cgroup v2.
    #[arg(long)]
    vm: bool,
}

/// Runs every check in the order in which they fail fastest.
fn everything() -> Result<()> {
    step("format", || run(command("cargo").args(["fmt", "--all", "--check"])))?;
    step("rules", rules::check)?;
    step("clippy", || {
        run(command("cargo").args([
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ]))
    })?;
    let mut path = OsString::new();
    step("tools", || {
        // Tests of pulls want a registry, and find it as anything else is found.
        let dirs = std::env::var_os("PATH").unwrap_or_default();
        let dirs = std::iter::once(tools::all()?).chain(std::env::split_paths(&dirs));
        path = std::env::join_paths(dirs)?;
        Ok(())
    })?;
    step("unit tests", || {
        let mut cargo = command("cargo");
        cargo.args(["test", "--workspace", "--exclude", "tests", "--locked", "--quiet"]);
        run(cargo.env("PATH", &path))
    })?;
    end_to_end(None)?;
    step("cgroup v2, in a virtual machine", vm::run_tests)
}

/// `cargo xtask test`.
pub fn main(options: &Options) -> Result<()> {
    step("packages", || {
        system::install(build::PACKAGES)?;
        system::install(build::NODE_PACKAGES)?;
        system::install(PACKAGES)?;
        system::install(CEPH_PACKAGES)
    })?;
    match &options.e2e {
        Some(name) => end_to_end(Some(name)),
        None if options.vm => {
            step("binary", build_binary)?;
            step("cgroup v2, in a virtual machine", vm::run_tests)
        }
        None => everything(),
    }
}

fn end_to_end(name: Option<&str>) -> Result<()> {
    step("images", || images::all().map(drop))?;
    step("tools", || tools::all().map(drop))?;
    step("binary", build_binary)?;
    step("end-to-end tests", || {
        let mut cargo = command("cargo");
        cargo.args(["test", "--no-fail-fast"]).args(SELECTED);
        cargo.args(files()?.iter().flat_map(|file| ["--test", file])).args(name);
        cargo.env("PODIUM_TARGET", system::target());
        // Two clusters at a time: each has a server, a node and its pods, and the machine may have two cores.
        run(cargo.args(["--", "--test-threads", "2"]))
    })
}

/// What end-to-end tests are selected with. `podium` is among it because cargo resolves features by what is selected: with it they are those of
/// the whole workspace, and what the unit tests were built with is not built a second time.
pub const SELECTED: [&str; 5] = ["--package", "podium", "--package", "tests", "--locked"];

fn build_binary() -> Result<()> {
    run(command("cargo")
        .args(["build", "--quiet", "--all-targets"])
        .args(SELECTED))
}

/// The end-to-end tests' files, without their ending.
fn files() -> Result<Vec<String>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(system::root().join("tests/tests"))? {
        let path = entry?.path();
        if let Some(name) = path
            .file_stem()
            .filter(|_| path.extension().is_some_and(|end| end == "rs"))
        {
            files.push(name.to_string_lossy().into_owned());
        }
    }
    files.sort();
    Ok(files)
}

fn step(name: &str, action: impl FnOnce() -> Result<()>) -> Result<()> {
    eprintln!("==> {name}");
    let start = Instant::now();
    action()?;
    eprintln!("    {name}: {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}
