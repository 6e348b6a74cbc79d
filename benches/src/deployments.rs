//! A Deployment as a user sees it: created, and all of its pods ready.

use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;

const NAME: &str = "bench";

/// Creates a Deployment; gives the time until its status says that all replicas are available.
pub async fn scale_up(client: &Client, image: &str, replicas: usize) -> Result<Duration> {
    let api: Api<Deployment> = Api::default_namespaced(client.clone());
    let deployment = json!({
        "metadata": {"name": NAME},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "bench"}},
            "template": {
                "metadata": {"labels": {"app": "bench"}},
                "spec": {"containers": [
                    {"name": "c", "image": image, "command": ["sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"]},
                ]},
            },
        },
    });
    let from = api
        .list(&ListParams::default().limit(1))
        .await?
        .metadata
        .resource_version;
    let params = WatchParams::default()
        .fields(&format!("metadata.name={NAME}"))
        .timeout(280);
    let mut watch = pin!(api.watch(&params, &from.unwrap_or_default()).await?);
    let start = Instant::now();
    api.create(&PostParams::default(), &serde_json::from_value(deployment)?)
        .await?;
    loop {
        let event = watch
            .next()
            .await
            .context("the watch ended before all replicas were there")??;
        if let WatchEvent::Added(deployment) | WatchEvent::Modified(deployment) = event {
            let available = deployment
                .status
                .and_then(|status| status.available_replicas)
                .unwrap_or(0);
            if usize::try_from(available) == Ok(replicas) {
                return Ok(start.elapsed());
            }
        }
    }
}

/// Deletes it; gives the time until its last pod is gone.
pub async fn delete(client: &Client) -> Result<Duration> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let listed = pods.list(&ListParams::default().labels("app=bench")).await?;
    let mut left = listed.items.len();
    let params = WatchParams::default().labels("app=bench").timeout(280);
    let mut watch = pin!(
        pods.watch(&params, &listed.metadata.resource_version.unwrap_or_default())
            .await?
    );
    let start = Instant::now();
    let api: Api<Deployment> = Api::default_namespaced(client.clone());
    api.delete(NAME, &DeleteParams::default()).await?;
    while left > 0 {
        if let WatchEvent::Deleted(_) = watch
            .next()
            .await
            .context("the watch ended before all pods were gone")??
        {
            left -= 1;
        }
    }
    Ok(start.elapsed())
}
