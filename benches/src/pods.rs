//! Pods as a user sees them: created, running, gone, by a watch and not by asking again and again.

use std::collections::HashSet;
use std::path::Path;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt};
use serde_json::json;

/// A client for a kubeconfig.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    let config =
        Config::from_custom_kubeconfig(Kubeconfig::read_from(kubeconfig)?, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// Waits until some node is Ready.
pub async fn wait_for_node(client: &Client) -> Result<()> {
    let ready = |node: &Node| {
        let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
    };
    let nodes: Api<Node> = Api::all(client.clone());
    let listed = nodes.list(&ListParams::default()).await?;
    if listed.items.iter().any(ready) {
        return Ok(());
    }
    let from = listed.metadata.resource_version.unwrap_or_default();
    let mut watch = pin!(nodes.watch(&WatchParams::default().timeout(60), &from).await?);
    while let Some(event) = watch.try_next().await? {
        if let WatchEvent::Added(node) | WatchEvent::Modified(node) = event
            && ready(&node)
        {
            return Ok(());
        }
    }
    anyhow::bail!("no node became Ready")
}

/// A pod that does nothing.
pub fn pod(name: &str, image: &str, containers: usize) -> Result<Pod> {
    let containers: Vec<_> = (0..containers)
        .map(|n| json!({"name": format!("c{n}"), "image": image, "command": ["sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"]}))
        .collect();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "bench"}},
        "spec": {"containers": containers},
    });
    Ok(serde_json::from_value(pod)?)
}

/// Whether a pod is Ready.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
}

/// Times from create to Ready and from delete to gone, one pod after the other, as a watcher sees them.
pub async fn create_and_delete(
    client: &Client,
    image: &str,
    containers: usize,
    times: usize,
) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let (mut created, mut deleted) = (Vec::new(), Vec::new());
    for n in 0..times {
        let name = format!("bench-{containers}-{n}");
        let from = pods
            .list(&ListParams::default().limit(1))
            .await?
            .metadata
            .resource_version
            .unwrap_or_default();
        let params = WatchParams::default()
            .fields(&format!("metadata.name={name}"))
            .timeout(60);
        let mut watch = pin!(pods.watch(&params, &from).await?);
        let start = Instant::now();
        pods.create(&PostParams::default(), &pod(&name, image, containers)?)
            .await?;
        loop {
            let event = watch
                .next()
                .await
                .context("the watch ended before the pod was ready")??;
            if let WatchEvent::Added(pod) | WatchEvent::Modified(pod) = event
                && is_ready(&pod)
            {
                break;
            }
        }
        created.push(start.elapsed());
        // It runs, and obeys SIGTERM when its shell has come as far as the trap.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let start = Instant::now();
        pods.delete(&name, &DeleteParams::default()).await?;
        loop {
            let event = watch
                .next()
                .await
                .context("the watch ended before the pod was gone")??;
            if let WatchEvent::Deleted(_) = event {
                break;
            }
        }
        deleted.push(start.elapsed());
    }
    Ok((created, deleted))
}

/// Times from the death of a container to its restart (the first, which has no back-off), one pod after the other, as a watcher sees
/// them. The container's process is killed from outside, so the node must be this machine.
pub async fn kill_and_restart(client: &Client, image: &str, times: usize) -> Result<Vec<Duration>> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let mut restarted = Vec::new();
    for n in 0..times {
        let name = format!("bench-restart-{n}");
        // Nobody else sleeps for that long.
        let command = ["sleep".to_owned(), format!("{}", 7_777_000_000 + n)];
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name},
            "spec": {"containers": [{"name": "c0", "image": image, "command": command}], "terminationGracePeriodSeconds": 1},
        });
        let from = pods
            .list(&ListParams::default().limit(1))
            .await?
            .metadata
            .resource_version
            .unwrap_or_default();
        let params = WatchParams::default()
            .fields(&format!("metadata.name={name}"))
            .timeout(60);
        let mut watch = pin!(pods.watch(&params, &from).await?);
        pods.create(&PostParams::default(), &serde_json::from_value(pod)?)
            .await?;
        let mut killed = None;
        loop {
            let event = watch
                .next()
                .await
                .context("the watch ended before the container was restarted")??;
            let (WatchEvent::Added(pod) | WatchEvent::Modified(pod)) = event else {
                continue;
            };
            match killed {
                None if is_ready(&pod) => {
                    let pid = await_process(&command).await?;
                    killed = Some(Instant::now());
                    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL)?;
                }
                Some(at) if is_ready(&pod) && restarts(&pod) > 0 => {
                    restarted.push(at.elapsed());
                    break;
                }
                _ => {}
            }
        }
        pods.delete(&name, &DeleteParams::default().grace_period(0)).await?;
    }
    Ok(restarted)
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref());
    statuses.map_or(0, |all| all.iter().map(|one| one.restart_count).sum())
}

/// Waits for the process of a container that has been started: it may be about to become its command.
async fn await_process(command: &[String]) -> Result<nix::unistd::Pid> {
    for _ in 0..1000 {
        if let Some(pid) = process(command)? {
            return Ok(pid);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    bail!("no process of the container on this machine")
}

/// The process of this machine that runs a command.
fn process(command: &[String]) -> Result<Option<nix::unistd::Pid>> {
    let wanted: Vec<u8> = command.iter().flat_map(|word| word.bytes().chain([0])).collect();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let runs = |path: std::path::PathBuf| std::fs::read(path).is_ok_and(|line| line == wanted);
        if let Some(pid) = pid
            && runs(entry.path().join("cmdline"))
        {
            return Ok(Some(nix::unistd::Pid::from_raw(pid)));
        }
    }
    Ok(None)
}

/// Creates many pods at once; gives the time until all are ready.
pub async fn create_many(client: &Client, many: usize, make: impl Fn(usize) -> Result<Pod>) -> Result<Duration> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let from = pods
        .list(&ListParams::default().limit(1))
        .await?
        .metadata
        .resource_version
        .unwrap_or_default();
    let mut watch = pin!(
        pods.watch(&WatchParams::default().labels("app=bench").timeout(280), &from)
            .await?
    );
    let start = Instant::now();
    let create = async {
        futures::stream::iter(0..many)
            .map(|n| {
                let (pods, pod) = (pods.clone(), make(n));
                async move { anyhow::Ok(pods.create(&PostParams::default(), &pod?).await?) }
            })
            .buffer_unordered(16)
            .try_for_each(|_| async { Ok(()) })
            .await
    };
    let ready = async {
        let mut ready = HashSet::new();
        while ready.len() < many {
            let event = watch
                .next()
                .await
                .context("the watch ended before all pods were ready")??;
            if let WatchEvent::Added(pod) | WatchEvent::Modified(pod) = event
                && is_ready(&pod)
            {
                ready.insert(pod.name_any());
            }
        }
        anyhow::Ok(())
    };
    futures::try_join!(create, ready)?;
    Ok(start.elapsed())
}

/// Deletes every measured pod; gives the time until all are gone.
pub async fn delete_many(client: &Client) -> Result<Duration> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let list = ListParams::default().labels("app=bench");
    let listed = pods.list(&list).await?;
    let from = listed.metadata.resource_version.unwrap_or_default();
    let mut left: HashSet<String> = listed.items.iter().map(ResourceExt::name_any).collect();
    let mut watch = pin!(
        pods.watch(&WatchParams::default().labels("app=bench").timeout(280), &from)
            .await?
    );
    let start = Instant::now();
    pods.delete_collection(&DeleteParams::default(), &list).await?;
    while !left.is_empty() {
        let event = watch
            .next()
            .await
            .context("the watch ended before all pods were gone")??;
        if let WatchEvent::Deleted(pod) = event {
            left.remove(&pod.name_any());
        }
    }
    Ok(start.elapsed())
}
