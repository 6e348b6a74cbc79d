//! What probes cost, and how soon their answers are seen.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, DeleteParams, PostParams, WatchEvent, WatchParams};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::{Options, cluster, median, milliseconds, pods, row, usage};

const MEASURED: Duration = Duration::from_secs(20);
const TIMES: usize = 20;

/// The rows about probes.
pub async fn measure(options: &Options, client: &Client, own: Option<&cluster::Podium>) -> Result<()> {
    let processes = || match own {
        Some(podium) => podium.processes(),
        None => usage::named(&options.processes),
    };
    for (kind, handler) in [
        ("HTTP", json!({"httpGet": {"path": "/healthz", "port": 8090}})),
        ("TCP", json!({"tcpSocket": {"port": 8090}})),
        ("exec", json!({"exec": {"command": ["true"]}})),
    ] {
        let what = format!(
            "CPU with {} pods, each with 2 {kind} probes a second (probes), % of a core over 20 s",
            options.many
        );
        if !options.wants(&what) || processes()?.is_empty() {
            continue;
        }
        if let Some(podium) = own {
            podium.import("web.tar")?;
        }
        pods::create_many(client, options.many, |n| {
            probed(&format!("many-{n}"), &options.web_image, &handler)
        })
        .await?;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let before = usage::cpu(&processes()?)?;
        tokio::time::sleep(MEASURED).await;
        let used = usage::cpu(&processes()?)?.saturating_sub(before);
        let share = used.as_secs_f64() / MEASURED.as_secs_f64() * 100.0;
        row(&what, format!("{share:.2} %"));
        pods::delete_many(client).await?;
    }
    let what = format!("readiness probe passed → READY seen by a watcher (probes), p50 of {TIMES}");
    if options.wants(&what) {
        row(
            &what,
            milliseconds(median(&mut until_seen(client, &options.image).await?)),
        );
    }
    Ok(())
}

fn probed(name: &str, image: &str, handler: &Value) -> Result<Pod> {
    let mut probe = handler.clone();
    probe["periodSeconds"] = json!(1);
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"app": "bench"}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
            "name": "c", "image": image, "command": ["web", "--quiet"], "livenessProbe": probe, "readinessProbe": probe,
        }]},
    }))?)
}

/// Times from a probe's good answer to the pod's being Ready. What is asked is this process, so that it knows when it answered.
async fn until_seen(client: &Client, image: &str) -> Result<Vec<Duration>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let well = Arc::new(AtomicBool::new(false));
    let (answered, mut answers) = mpsc::unbounded_channel();
    let answering = tokio::spawn(answer(listener, well.clone(), answered));

    let api: Api<Pod> = Api::default_namespaced(client.clone());
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "bench-probed", "labels": {"app": "bench"}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
            "name": "c", "image": image, "command": ["sleep", "100000"],
            "readinessProbe": {
                "httpGet": {"host": "127.0.0.1", "port": port}, "periodSeconds": 1, "failureThreshold": 1,
            },
        }]},
    }))?;
    let created = api.create(&PostParams::default(), &pod).await?;
    let from = created.metadata.resource_version.unwrap_or_default();
    let params = WatchParams::default().fields("metadata.name=bench-probed").timeout(280);
    let mut watch = pin!(api.watch(&params, &from).await?);
    let mut times = Vec::new();
    for _ in 0..TIMES {
        well.store(true, Ordering::Release);
        see(&mut watch, true).await?;
        let seen = Instant::now();
        let answer = answers.recv().await.context("nobody asked")?;
        times.push(seen.duration_since(answer));
        well.store(false, Ordering::Release);
        see(&mut watch, false).await?;
        // Those after the first were no news.
        while answers.try_recv().is_ok() {}
    }
    answering.abort();
    api.delete("bench-probed", &DeleteParams::default()).await?;
    Ok(times)
}

/// Waits until the pod is Ready, or is not.
async fn see(watch: &mut (impl Stream<Item = kube::Result<WatchEvent<Pod>>> + Unpin), ready: bool) -> Result<()> {
    loop {
        let event = watch.next().await.context("the watch ended")??;
        if let WatchEvent::Added(pod) | WatchEvent::Modified(pod) = event
            && pods::is_ready(&pod) == ready
        {
            return Ok(());
        }
    }
}

/// Answers probes as it is told to, and tells when an answer was a good one.
async fn answer(listener: TcpListener, well: Arc<AtomicBool>, answered: mpsc::UnboundedSender<Instant>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut request = [0; 4096];
        if stream.read(&mut request).await.is_err() {
            continue;
        }
        let is_well = well.load(Ordering::Acquire);
        let status = if is_well { "200 OK" } else { "503 Service Unavailable" };
        let now = Instant::now();
        let sent = stream
            .write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes())
            .await;
        if is_well && sent.is_ok() && answered.send(now).is_err() {
            return;
        }
    }
}
