//! `cargo xtask bench`: builds what is measured and the program that measures, then runs it.

use anyhow::Result;
use clap::Args;

use crate::system::{self, command, run};
use crate::{build, images};

/// Options of `cargo xtask bench`.
#[derive(Args)]
pub struct Options {
    /// Measure this cluster instead of a Podium of our own.
    #[arg(long)]
    kubeconfig: Option<String>,
    /// Only the rows whose name contains this.
    #[arg(long)]
    only: Option<String>,
}

/// Runs the measurements in release builds.
pub fn main(options: &Options) -> Result<()> {
    system::install(build::NODE_PACKAGES)?;
    images::all()?;
    let podium = build::release()?;
    let mut bench = command("cargo");
    bench
        .args(["run", "--quiet", "--release", "--package", "benches", "--", "--podium"])
        .arg(podium);
    bench.arg("--images").arg(system::target().join("images"));
    if let Some(kubeconfig) = &options.kubeconfig {
        bench.args(["--kubeconfig", kubeconfig]);
    }
    if let Some(only) = &options.only {
        bench.args(["--only", only]);
    }
    run(&mut bench)
}
