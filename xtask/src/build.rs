//! Builds the binary.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::system;

/// Packages that building needs.
pub const PACKAGES: &[&str] = &["build-essential", "pkg-config", "libseccomp-dev"];

/// Packages that a running node needs beside the binary.
pub const NODE_PACKAGES: &[&str] = &["nftables", "iproute2"];

/// Builds the release binary, and the program that measures it: built apart, they would want most dependencies with other features. libseccomp
/// goes into the binary, so that it runs where that library is not installed.
pub fn release() -> Result<PathBuf> {
    system::install(PACKAGES)?;
    let archive = system::output(system::command("cc").arg("-print-file-name=libseccomp.a"))?;
    let archive = PathBuf::from(archive.trim());
    ensure!(
        archive.is_absolute(),
        "the compiler does not find libseccomp.a: install libseccomp-dev"
    );
    let mut cargo = system::command("cargo");
    cargo.args(["build", "--release", "--package", "podium", "--package", "benches"]);
    cargo.env("LIBSECCOMP_LINK_TYPE", "static");
    if let Some(dir) = archive.parent() {
        cargo.env("LIBSECCOMP_LIB_PATH", dir);
    }
    system::run(&mut cargo)?;
    Ok(system::target().join("release/podium"))
}
