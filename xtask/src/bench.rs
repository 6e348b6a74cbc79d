//! `cargo xtask bench`: builds what is measured and the program that measures, then runs it.

use std::fs;

use anyhow::{Context, Result};
use clap::Args;

use crate::system::{self, command, run};
use crate::{build, images};

/// Options of `cargo xtask bench`.
#[derive(Args)]
pub struct Options {
    /// Measure this cluster instead of a Podium of our own.
    #[arg(long)]
    kubeconfig: Option<String>,
    /// What the measuring program takes beside these; `-- --help` lists it.
    #[arg(last = true)]
    more: Vec<String>,
}

/// Runs the measurements in release builds.
pub fn main(options: &Options) -> Result<()> {
    // What is wrong with it is to be said before the long build.
    let kubeconfig = options
        .kubeconfig
        .as_ref()
        .map(|kubeconfig| fs::canonicalize(kubeconfig).with_context(|| format!("--kubeconfig {kubeconfig}")));
    let kubeconfig = kubeconfig.transpose()?;
    let podium = build::release()?;
    let mut bench = command(podium.with_file_name("benches"));
    match kubeconfig {
        // Another cluster brings its own program and images.
        Some(kubeconfig) => {
            bench.arg("--kubeconfig").arg(kubeconfig);
        }
        None => {
            system::install(build::NODE_PACKAGES)?;
            images::all()?;
            bench.arg("--podium").arg(podium).arg("--images");
            bench.arg(system::target().join("images"));
        }
    }
    run(bench.args(&options.more))
}
