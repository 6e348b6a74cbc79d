//! The `podium` binary: flags, configuration file, wiring, nothing else.

mod check;
mod flags;
mod node;
mod reset;
mod server;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use flags::{Cli, Command};

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_default();
    let args: Vec<OsString> = args.collect();
    // Before anything that starts a thread: a shim has one, and forks.
    if args.first().is_some_and(|first| first == "shim") {
        runtime::shim_main();
    }
    if Path::new(&name).file_stem().is_some_and(|stem| stem == "kubectl") {
        return kubectl(args);
    }
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("podium: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Server(flags) => {
            let hostname = nix::unistd::gethostname().context("the machine's name")?;
            let settings = flags.settings(&hostname.to_string_lossy())?;
            server::run(settings)?;
        }
        Command::Kubectl { args } => return Ok(kubectl(args)),
        Command::Image { dirs, action } => node::image(&dirs.run_dir, &action)?,
        Command::Ps { all, dirs } => node::ps(&dirs.run_dir, all)?,
        Command::Check => return check::run(),
        Command::Reset { data_dir, dirs } => reset::run(&data_dir, &dirs.run_dir)?,
        Command::Version => println!("podium {} (Kubernetes v1.36.0)", env!("CARGO_PKG_VERSION")),
    }
    Ok(ExitCode::SUCCESS)
}

/// kubectl's own arguments, without the program's name.
fn kubectl(args: impl IntoIterator<Item = impl Into<OsString>>) -> ExitCode {
    kubectl::main(args.into_iter().map(Into::into))
}
