//! The project's own chores: `cargo xtask test | build | images | demo | bench`.

mod bench;
mod build;
mod demo;
mod images;
mod rules;
mod system;
mod test;
mod tools;
mod vm;

use clap::{Parser, Subcommand};

/// The project's own chores.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what tests need, then formatting, lints, rules, unit tests and end-to-end tests.
    Test(test::Options),
    /// Build the release binary, with libseccomp inside it, as target/release/podium.
    Build,
    /// Compose the images that tests and the demo use, from Debian packages, into target/images.
    Images,
    /// On a fresh Debian or Ubuntu machine: install, build, start a cluster and show a pod working.
    Demo(demo::Options),
    /// Measure the budgets of design.md, against Podium or any other cluster.
    Bench(bench::Options),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Test(options) => test::main(&options),
        Command::Build => build::release().map(|path| println!("{}", path.display())),
        Command::Images => images::all().map(|paths| {
            for path in paths {
                println!("{}", path.display());
            }
        }),
        Command::Demo(options) => demo::main(&options),
        Command::Bench(options) => bench::main(&options),
    }
}
