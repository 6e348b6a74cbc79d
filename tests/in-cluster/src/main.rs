//! A client inside a pod, as kube-rs users write it: it finds the API by what the pod was given, lists the pods of its namespace, and watches until the
//! one that its argument names runs.

use anyhow::{Context, Result, bail};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, Client, Config, ResourceExt};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let wanted = std::env::args().nth(1).context("the name of a pod to wait for")?;
    // `Config::infer`, by which clients usually begin, comes to this inside a pod.
    let config = Config::incluster().context("what the pod was given")?;
    println!("asking {}", config.cluster_url);
    let client = Client::try_from(config)?;
    println!("version {}", client.apiserver_version().await?.git_version);
    let pods: Api<Pod> = Api::default_namespaced(client);
    let list = pods.list(&ListParams::default()).await?;
    let names: Vec<String> = list.items.iter().map(ResourceExt::name_any).collect();
    println!("listed {}", names.join(" "));
    let version = list.metadata.resource_version.unwrap_or_default();
    let mut events = Box::pin(pods.watch(&WatchParams::default(), &version).await?);
    while let Some(event) = events.try_next().await? {
        let (WatchEvent::Added(pod) | WatchEvent::Modified(pod)) = event else {
            continue;
        };
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if pod.name_any() == wanted && phase == Some("Running") {
            println!("saw {wanted} run");
            return Ok(());
        }
    }
    bail!("the watch ended before {wanted} ran")
}
