//! `kubectl`: the command line for the API, in upstream's words.
//!
//! [`main`] reads the arguments, runs one command and gives its exit code. Objects are plain JSON values
//! from the server and go out through [`print`]; what the server has is known from the catalogue and, for
//! the rest, from discovery ([`mapping`]). A [`failure::Failure`] is printed once, here.

mod apply;
mod cluster;
mod connection;
mod create;
mod delete;
mod describe;
mod duration;
mod exec;
mod failure;
mod fetch;
mod flags;
mod get;
mod logs;
mod manifest;
mod mapping;
mod pods;
mod print;
mod selection;
mod terminal;
mod three_way;
mod write;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::FromArgMatches;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use connection::Connection;
use failure::{Failure, Result};
use flags::{Cli, Command};

/// Runs kubectl with its arguments, the program's name not among them.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = std::iter::once("kubectl".into()).chain(arguments).collect();
    let parsed = flags::command()
        .try_get_matches_from(&arguments)
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return misused(&error, &arguments),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(run(&cli));
    // Reading from a terminal cannot be interrupted; it must not hold up the end.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprint!("{}", failure.text());
            ExitCode::from(failure.code())
        }
    }
}

async fn run(cli: &Cli) -> Result<()> {
    let global = &cli.global;
    let namespace = global.namespace.as_deref();
    match &cli.command {
        Command::Version(flags) => return cluster::version(global, flags).await,
        Command::Config(command) => return cluster::config(global, command),
        _ => {}
    }
    let connection = Connection::open(global).await?;
    match &cli.command {
        Command::Create(flags) => create::run(&connection, namespace, flags).await,
        Command::Get(flags) => get::run(&connection, flags).await,
        Command::Describe(flags) => describe::run(&connection, flags).await,
        Command::Logs(flags) => logs::run(&connection, flags).await,
        Command::Exec(flags) => exec::run(&connection, flags).await,
        Command::Delete(flags) => delete::run(&connection, flags).await,
        Command::Apply(flags) => apply::run(&connection, namespace, flags).await,
        Command::ApiResources(flags) => cluster::api_resources(&connection, flags).await,
        Command::ClusterInfo => cluster::info(&connection).await,
        Command::Version(_) | Command::Config(_) => Ok(()),
    }
}

/// Says what is wrong with the arguments, or helps.
fn misused(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        print!("{error}");
        return ExitCode::SUCCESS;
    }
    let argument = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        _ => String::new(),
    };
    let text = match error.kind() {
        ErrorKind::UnknownArgument => {
            let flag = argument(ContextKind::InvalidArg);
            match flag.strip_prefix("--") {
                Some(_) => format!("error: unknown flag: {flag}"),
                None => match flag.strip_prefix('-') {
                    Some(short) => format!("error: unknown shorthand flag: '{short}' in {flag}"),
                    None => format!("error: unexpected argument {flag:?}"),
                },
            }
        }
        ErrorKind::InvalidSubcommand => format!(
            "error: unknown command {:?} for \"kubectl\"",
            argument(ContextKind::InvalidSubcommand)
        ),
        _ => error.to_string().trim_end().to_owned(),
    };
    let known = flags::command();
    let mut words = arguments.iter().skip(1).filter_map(|argument| argument.to_str());
    let command = words.find(|word| known.find_subcommand(word).is_some());
    let command = command.map(|command| format!(" {command}")).unwrap_or_default();
    eprintln!("{text}\nSee 'kubectl{command} --help' for usage.");
    ExitCode::FAILURE
}

/// Writes to standard output. A reader that has enough ends the command.
fn output(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|_| Failure::Silent)
}

/// Writes a warning to standard error.
fn warning(text: &str) {
    eprintln!("Warning: {text}");
}
