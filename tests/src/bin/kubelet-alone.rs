//! A kubelet with the built-in runtime in a process that has no API server: `kubelet-alone DIRECTORY MANIFESTS API-SERVER`.
//!
//! The directory is a [`tests::Cluster`]'s, whose authority has been made already. Pods have the node's network.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use kubelet::{KubeletConfiguration, UnsafeSysctls};
use runtime::{NetworkError, PodLink, PodNetwork, Runtime};
use tests::NODE_IP;

/// There is none: whoever wants a link is refused.
struct NoNetwork;

#[async_trait::async_trait]
impl PodNetwork for NoNetwork {
    async fn set_pod_cidr(&self, _: &str) -> Result<(), NetworkError> {
        Ok(())
    }

    async fn ready(&self) -> Result<(), NetworkError> {
        Ok(())
    }

    async fn attach(&self, link: &PodLink) -> Result<Vec<IpAddr>, NetworkError> {
        Err(format!("no network for {}", link.pod_name).into())
    }

    async fn detach(&self, _: &str) -> Result<(), NetworkError> {
        Ok(())
    }

    async fn reconcile(&self, _: &[String]) -> Result<(), NetworkError> {
        Ok(())
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, manifests, server] = arguments.as_slice() else {
        anyhow::bail!("usage: kubelet-alone DIRECTORY MANIFESTS API-SERVER");
    };
    let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    threads.block_on(run(directory.into(), manifests.into(), server))
}

async fn run(directory: PathBuf, manifests: PathBuf, server: &str) -> Result<()> {
    let data = directory.join("data");
    let pem = |name: &str| {
        let path = data.join("pki").join(name);
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    };
    let (authority, certificate, key) = (pem("ca.crt")?, pem("kubelet-client.crt")?, pem("kubelet-client.key")?);
    let client = client::over_tls(server, &authority, &certificate, &key).await?;

    let mut config = runtime::Config::new(&data, directory.join("run"));
    config.shim = vec![tests::podium().into(), "shim".into()];
    std::fs::create_dir_all(&config.run_dir)?;
    let runtime = Arc::new(Runtime::open(config, Arc::new(NoNetwork)).await?);
    for error in runtime.images().preload().await {
        eprintln!("{error}");
    }
    let address: IpAddr = NODE_IP.parse()?;
    let config = kubelet::Config {
        node_name: "node".into(),
        node_ips: vec![address],
        root_dir: data.join("kubelet"),
        pod_logs_dir: directory.join("pods"),
        cluster_dns: Vec::new(),
        cluster_domain: "cluster.local".into(),
        port: 10250,
        configuration: KubeletConfiguration::default(),
        allowed_unsafe_sysctls: UnsafeSysctls::default(),
        pod_manifest_path: Some(manifests),
        manifest_url: None,
    };
    kubelet::run(config, client, runtime.clone(), runtime, std::future::pending()).await?;
    Ok(())
}
