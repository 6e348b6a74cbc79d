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
    /// The image of the measured pods there; it must have `sh` and `sleep`.
    #[arg(long, requires = "kubeconfig")]
    image: Option<String>,
    /// Only the rows whose name contains this.
    #[arg(long)]
    only: Option<String>,
}

/// Runs the measurements in release builds.
pub fn main(options: &Options) -> Result<()> {
    let mut bench = match &options.kubeconfig {
        // Another cluster brings its own program and images.
        Some(kubeconfig) => {
            let kubeconfig = fs::canonicalize(kubeconfig).with_context(|| format!("--kubeconfig {kubeconfig}"))?;
            let mut bench = command("cargo");
            bench.args([
                "run",
                "--quiet",
                "--release",
                "--package",
                "benches",
                "--",
                "--kubeconfig",
            ]);
            bench.arg(kubeconfig);
            bench
        }
        None => {
            system::install(build::NODE_PACKAGES)?;
            images::all()?;
            let podium = build::release(&["benches"])?;
            let mut bench = command(podium.with_file_name("benches"));
            bench.arg("--podium").arg(podium).arg("--images");
            bench.arg(system::target().join("images"));
            bench
        }
    };
    if let Some(image) = &options.image {
        bench.args(["--image", image]);
    }
    if let Some(only) = &options.only {
        bench.args(["--only", only]);
    }
    run(&mut bench)
}
