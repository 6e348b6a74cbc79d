//! Measures the budgets of the house plan on a cluster: a Podium of its own, in a network namespace that it makes and
//! removes, or any cluster whose kubeconfig is given.

mod cluster;
mod deployments;
mod load;
mod pods;
mod probes;
mod services;
mod usage;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// Measures the budgets of the house plan.
#[derive(Parser)]
pub struct Options {
    /// The binary to measure.
    #[arg(long, default_value = "target/release/podium")]
    podium: PathBuf,
    /// The directory with the images' archives.
    #[arg(long, default_value = "target/images")]
    images: PathBuf,
    /// Measure this cluster instead.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// The image of the measured pods; it must have `sh` and `sleep` and be on the node.
    #[arg(long, default_value = "localhost/busybox:1")]
    image: String,
    /// The image of pods that answer probes: `tests/web`.
    #[arg(long, default_value = "localhost/web:1")]
    web_image: String,
    /// Names of the processes that make up the cluster of --kubeconfig, such as kubelet, for the rows about processor time.
    #[arg(long, value_delimiter = ',')]
    processes: Vec<String>,
    /// Only rows whose name contains one of these.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// How many pods make "many".
    #[arg(long, default_value_t = 100)]
    many: usize,
    /// Seconds that each load row lasts.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

impl Options {
    fn wants(&self, row: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| row.contains(only.as_str()))
    }
}

/// One line of the table, printed as soon as it is known.
fn row(what: &str, value: impl std::fmt::Display) {
    println!("| {what} | {value} |");
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1e3)
}

fn main() -> Result<()> {
    let options = Options::parse();
    println!("| what | measured |\n|---|---|");
    let own = match options.kubeconfig {
        // Before any thread starts: a namespace is entered by a thread, and every later one inherits it.
        None => Some(cluster::Podium::prepare(&options)?),
        Some(_) => None,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(&options, own))
}

async fn measure(options: &Options, own: Option<cluster::Podium>) -> Result<()> {
    if let Some(podium) = &own {
        if options.wants("ready") {
            let mut times = Vec::new();
            for _ in 0..5 {
                times.push(podium.start_afresh().await?);
                podium.stop()?;
            }
            row(
                "empty data dir → node Ready (ready), p50 of 5",
                milliseconds(median(&mut times)),
            );
        }
        podium.start_afresh().await?;
    }
    let kubeconfig = options
        .kubeconfig
        .clone()
        .or(own.as_ref().map(cluster::Podium::kubeconfig))
        .context("no kubeconfig")?;
    let config =
        Config::from_custom_kubeconfig(Kubeconfig::read_from(&kubeconfig)?, &KubeConfigOptions::default()).await?;
    let client = Client::try_from(config.clone())?;

    pods::wait_for_node(&client).await?;
    for containers in [1, 2] {
        if options.wants("pod") {
            let (mut created, mut deleted) = pods::create_and_delete(&client, &options.image, containers, 20).await?;
            row(
                &format!("pod create → running, {containers} container(s) (pod), p50 of 20"),
                milliseconds(median(&mut created)),
            );
            row(
                &format!("pod delete → gone, {containers} container(s) (pod), p50 of 20"),
                milliseconds(median(&mut deleted)),
            );
        }
    }
    if options.wants("restart") {
        let mut restarted = pods::kill_and_restart(&client, &options.image, 20).await?;
        row(
            "container killed → running again, as a watcher sees it (restart), p50 of 20",
            milliseconds(median(&mut restarted)),
        );
    }
    if let Some(podium) = &own
        && options.wants("memory")
    {
        tokio::time::sleep(Duration::from_secs(3)).await;
        row(
            "memory (PSS, all processes), idle (memory)",
            usage::mebibytes(usage::pss(&podium.processes()?)?),
        );
    }
    if options.wants("many") || options.wants("memory") || options.wants("cpu") {
        let up = pods::create_many(&client, options.many, |n| {
            pods::pod(&format!("many-{n}"), &options.image, 1)
        })
        .await?;
        row(&format!("0 → {} pods ready (many)", options.many), milliseconds(up));
        if let Some(podium) = &own {
            tokio::time::sleep(Duration::from_secs(5)).await;
            row(
                &format!("memory (PSS, all processes), {} pods (memory)", options.many),
                usage::mebibytes(usage::pss(&podium.processes()?)?),
            );
            let before = usage::cpu(&podium.processes()?)?;
            tokio::time::sleep(Duration::from_secs(20)).await;
            let used = usage::cpu(&podium.processes()?)?.saturating_sub(before);
            row(
                &format!("CPU idle with {} pods (cpu), % of a core over 20 s", options.many),
                format!("{:.2} %", used.as_secs_f64() / 20.0 * 100.0),
            );
        }
        let gone = pods::delete_many(&client).await?;
        row(&format!("{} pods → 0 (many)", options.many), milliseconds(gone));
    }
    if options.wants("deployment") {
        let up = deployments::scale_up(&client, &options.image, options.many).await?;
        let what = format!("Deployment 0 → {} ready (deployment)", options.many);
        row(&what, milliseconds(up));
        let gone = deployments::delete(&client).await?;
        let what = format!("Deployment deleted → {} pods gone (deployment)", options.many);
        row(&what, milliseconds(gone));
    }
    probes::measure(options, &client, own.as_ref()).await?;
    let seconds = Duration::from_secs(options.seconds);
    for (name, connections, kind) in [
        ("durable creates (load), 1 connection", 1, load::Kind::Create),
        ("durable creates (load), 32 connections", 32, load::Kind::Create),
        ("gets (load), 32 connections", 32, load::Kind::Get),
        (
            "lists of 500 ConfigMaps of 0.5 KiB (load), 8 connections",
            8,
            load::Kind::List,
        ),
    ] {
        if options.wants(name) {
            let per_second = load::run(&client, &config, connections, kind, seconds).await?;
            row(name, format!("{per_second:.0} /s"));
        }
    }
    if own.is_some() && options.wants("services") {
        row(
            "DNS answer (services), p50 of 1,000",
            milliseconds(median(&mut services::names(1000).await?)),
        );
        let mut took = services::endpoints(&client, 50).await?;
        row(
            "pod's readiness written → connections taken (services), p50 of 50",
            milliseconds(median(&mut took)),
        );
        services::create_many(&client, 5000).await?;
        let mut took = services::endpoints(&client, 50).await?;
        row(
            "the same among 5,000 Services (services), p50 of 50",
            milliseconds(median(&mut took)),
        );
    }
    if let Some(podium) = &own {
        podium.stop()?;
    }
    Ok(())
}

/// The middle of the measured times.
fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
