//! The node of this machine: runtime, network, kubelet and its port.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use anyhow::{Context, Result};
use apiserver::pki::Pki;
use client::{Client, Informers};
use cri::{ImageService, RuntimeService};
use futures::FutureExt;
use futures::future::BoxFuture;
use kubelet::Kubelet;
use kubelet::server::{Access, Server, ServerConfig};
use network::dns::{self, Dns};
use network::services::{self, Proxy};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::parts::Parts;
use super::pod_network::Joined;
use crate::flags::Settings;
use crate::node::SOCKET;

/// The port that the API server asks a node on.
const PORT: u16 = 10250;

/// What a node stands on, opened and not yet at work.
pub struct Opened {
    runtime: Arc<dyn RuntimeService>,
    images: Arc<dyn ImageService>,
    listener: TcpListener,
    /// Serves the built-in runtime on its socket.
    socket: Option<BoxFuture<'static, Result<()>>>,
    proxy: Proxy,
    dns: Dns,
}

/// Opens the runtime and the network, or connects to the runtime that the settings name.
pub async fn open(settings: &Settings, node_ip: IpAddr, ending: CancellationToken) -> Result<Opened> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))
        .await
        .with_context(|| format!("listen on port {PORT}, the kubelet's"))?;
    if let Some(endpoint) = &settings.container_runtime_endpoint {
        let remote = cri::grpc::connect(endpoint)
            .await
            .with_context(|| format!("--container-runtime-endpoint {endpoint}"))?;
        let remote = Arc::new(remote);
        // A remote runtime brings a network of its own for its pods; Services and DNS are the cluster's.
        network::prepare_for_services(&settings.service_cidr, Some(node_ip)).await?;
        let (proxy, dns) = open_services(settings).await?;
        return Ok(Opened {
            runtime: remote.clone(),
            images: remote,
            listener,
            socket: None,
            proxy,
            dns,
        });
    }
    let run_dir = &settings.run_dir;
    std::fs::create_dir_all(run_dir).with_context(|| format!("create {}", run_dir.display()))?;
    let links = network::Links::open(network::Settings {
        run_dir: run_dir.join("network"),
        cluster_cidr: settings.cluster_cidr.clone(),
        service_cidr: settings.service_cidr.clone(),
        node_ip: Some(node_ip),
    })
    .await?;
    let (proxy, dns) = open_services(settings).await?;
    let config = runtime::Config::new(&settings.data_dir, run_dir);
    let runtime = Arc::new(runtime::Runtime::open(config, Arc::new(Joined(links))).await?);

    let preload = runtime.images().preload();
    tokio::spawn(async move {
        for error in preload.await {
            warn!("{error}");
        }
    });
    let socket = run_dir.join(SOCKET);
    let served = cri::grpc::serve(&socket, runtime.clone(), runtime.clone(), ending.cancelled_owned())?;
    Ok(Opened {
        runtime: runtime.clone(),
        images: runtime,
        listener,
        socket: Some(async { Ok(served.await?) }.boxed()),
        proxy,
        dns,
    })
}

async fn open_services(settings: &Settings) -> Result<(Proxy, Dns)> {
    let proxy = Proxy::open(&services::Settings {
        node_name: settings.node_name.clone(),
        cluster_cidr: settings.cluster_cidr.clone(),
        service_cidr: settings.service_cidr.clone(),
    })?;
    let dns = Dns::bind(&dns::Settings {
        address: settings.cluster_dns,
        domain: settings.cluster_domain.clone(),
        cluster_cidr: settings.cluster_cidr.clone(),
        service_cidr: settings.service_cidr.clone(),
        resolv_conf: settings.kubelet.resolv_conf.clone().into(),
    })
    .await?;
    Ok((proxy, dns))
}

/// The clients of a node's parts, each under its own identity.
pub struct Clients {
    /// The kubelet's.
    pub kubelet: Client,
    /// That of Services and DNS.
    pub proxy: Client,
}

/// Starts the kubelet, its port, the CRI socket, Services and DNS; all end with `ending`, containers do not.
pub fn start(
    opened: Opened,
    settings: &Settings,
    node_ip: IpAddr,
    clients: Clients,
    pki: &Pki,
    ending: &CancellationToken,
    parts: &mut Parts,
) -> Result<()> {
    let Opened {
        runtime,
        images,
        listener,
        socket,
        proxy,
        dns,
    } = opened;
    let config = kubelet::Config {
        node_name: settings.node_name.clone(),
        node_ips: vec![node_ip],
        root_dir: settings.data_dir.join("kubelet"),
        pod_logs_dir: settings.pod_logs_dir.clone(),
        cluster_dns: vec![settings.cluster_dns],
        cluster_domain: settings.cluster_domain.clone(),
        port: PORT,
        configuration: settings.kubelet.clone(),
        allowed_unsafe_sysctls: settings.allowed_unsafe_sysctls.clone(),
        pod_manifest_path: Some(settings.pod_manifest_path.clone()),
        manifest_url: settings.manifest_url.clone().map(|url| kubelet::ManifestUrl {
            url,
            headers: settings.manifest_url_headers.clone(),
            interval: settings.http_check_frequency,
        }),
    };
    let access = Access::new(clients.kubelet.clone(), &settings.node_name, &settings.kubelet);
    let kubelet = Kubelet::new(config, clients.kubelet, runtime.clone(), images)?;
    let config = server_config(pki, access)?;
    let server = Server::new(config, runtime, Arc::new(kubelet.pods()), kubelet.reports())?;
    if let Some(socket) = socket {
        parts.start("the CRI socket", socket);
    }
    let informers = Informers::new(clients.proxy);
    let (proxied, told) = (informers.clone(), ending.clone());
    parts.start("Services", async move {
        told.run_until_cancelled(services::run(proxy, &proxied)).await;
        Ok(())
    });
    let told = ending.clone();
    parts.start("DNS", async move {
        told.run_until_cancelled(dns.run(&informers)).await;
        Ok(())
    });
    parts.start("the kubelet's port", server.serve(listener, ending.clone()).map(Ok));
    parts.start("the kubelet", kubelet.run(ending.clone().cancelled_owned()).map(Ok));
    Ok(())
}

fn server_config(pki: &Pki, access: Access) -> Result<ServerConfig> {
    let certificates = |pem: &str| CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    Ok(ServerConfig {
        certificate: certificates(&pki.kubelet.certificate).context("the kubelet's certificate")?,
        key: PrivateKeyDer::from_pem_slice(pki.kubelet.key.as_bytes()).context("the kubelet's key")?,
        client_ca: certificates(&pki.ca_certificate).context("the authority's certificate")?,
        access,
    })
}
