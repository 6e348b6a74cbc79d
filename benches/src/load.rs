//! Load on the API: many requests over a fixed number of connections, for a fixed time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http::Request;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, DeleteParams, PostParams};
use kube::{Client, Config};
use serde_json::json;

/// What is asked again and again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A new ConfigMap of 0.5 KiB each time.
    Create,
    /// One of 500 ConfigMaps.
    Get,
    /// All 500 ConfigMaps.
    List,
}

const NAMESPACE: &str = "bench-load";
const COUNT: usize = 500;

fn config_map(name: &str) -> Result<ConfigMap> {
    Ok(serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"text": "x".repeat(400)},
    }))?)
}

/// Requests answered in a second, over that many connections.
pub async fn run(client: &Client, config: &Config, connections: usize, kind: Kind, time: Duration) -> Result<f64> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace =
        serde_json::from_value(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}))?;
    if namespaces.get_opt(NAMESPACE).await?.is_none() {
        namespaces.create(&PostParams::default(), &namespace).await?;
    }
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    if kind != Kind::Create {
        maps.delete_collection(&DeleteParams::default(), &kube::api::ListParams::default())
            .await?;
        for n in 0..COUNT {
            maps.create(&PostParams::default(), &config_map(&format!("map-{n}"))?)
                .await?;
        }
    }
    let done = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..connections {
        // A client of its own is a connection of its own.
        let client = Client::try_from(config.clone())?;
        let done = done.clone();
        workers.spawn(async move {
            let mut n = 0_usize;
            while start.elapsed() < time {
                n += 1;
                let request = request(kind, worker, n, start)?;
                let answer = client.request_text(request).await.context("a request of the load")?;
                ensure!(!answer.is_empty(), "an empty answer");
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    let per_second = done.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64();
    maps.delete_collection(&DeleteParams::default(), &kube::api::ListParams::default())
        .await?;
    Ok(per_second)
}

fn request(kind: Kind, worker: usize, n: usize, start: Instant) -> Result<Request<Vec<u8>>> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    Ok(match kind {
        Kind::Create => {
            // Names that no earlier row has used.
            let name = format!("new-{:x}-{worker}-{n}", start.elapsed().as_nanos());
            Request::post(path)
                .header("content-type", "application/json")
                .body(serde_json::to_vec(&config_map(&name)?)?)?
        }
        Kind::Get => Request::get(format!("{path}/map-{}", n % COUNT)).body(Vec::new())?,
        Kind::List => Request::get(path).body(Vec::new())?,
    })
}
