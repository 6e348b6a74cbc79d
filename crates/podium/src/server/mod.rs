//! `podium server`: the rooms, wired together.

mod node;
mod parts;
mod pod_network;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use apiserver::pki::{Names, Pki, write_kubeconfig};
use apiserver::{ApiServer, Identity};
use client::Informers;
use futures::FutureExt;
use nix::net::if_::InterfaceFlags;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

use self::parts::Parts;
use crate::check;
use crate::flags::Settings;

/// The administrator's kubeconfig, in the data directory; `podium kubectl` looks there by itself.
const KUBECONFIG: &str = "pki/admin.conf";

/// What is logged where RUST_LOG says nothing else. The DNS library would write two lines for each question.
const LOGGED: &str = "info,hickory_server=warn";

/// How long threads have to end what they are at when everything else has ended.
const LAST_THREADS: Duration = Duration::from_secs(5);

/// Runs the cluster until SIGTERM or SIGINT. Pods go on without it.
pub fn run(settings: Settings) -> Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOGGED)))
        .with_writer(std::io::stderr)
        .init();
    if settings.agent {
        check_machine(&settings.data_dir)?;
    }
    raise_open_files();
    limit_arenas();
    // Everything in this process that speaks TLS uses this one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = threads.block_on(serve(settings));
    // One of them may be in a file system whose server is dead, and would stay there.
    threads.shutdown_timeout(LAST_THREADS);
    served
}

/// Lets threads share their arenas. glibc would give each its own, up to eight for each core, and every one keeps the space that its thread needed
/// in a busy hour.
fn limit_arenas() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // SAFETY: it sets a number, before any thread is started.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, i32::try_from(cores).unwrap_or(i32::MAX)) };
}

/// Refuses a machine that a node cannot run on, with what to do about it.
fn check_machine(data_dir: &Path) -> Result<()> {
    let findings = check::findings(&check::observe(data_dir));
    match findings
        .iter()
        .find(|finding| finding.severity == check::Severity::Failure)
    {
        Some(finding) => bail!("{}: {}; {}", finding.what, finding.found, finding.remedy),
        None => Ok(()),
    }
}

/// Says what on this machine eats pods' packets: the node works, and its pods' traffic does not.
async fn warn_of_firewalls(cluster_cidr: String, service_cidr: String) {
    match network::check::observe(&cluster_cidr, &service_cidr).await {
        Ok(seen) => {
            for finding in network::check::findings(&seen) {
                warn!("{}; {}", finding.problem, finding.remedy);
            }
        }
        Err(error) => warn!(%error, "the machine's network rules cannot be read"),
    }
}

async fn serve(settings: Settings) -> Result<()> {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, settings.https_listen_port));
    std::fs::create_dir_all(&settings.data_dir).with_context(|| format!("create {}", settings.data_dir.display()))?;
    let store = {
        let dir = settings.data_dir.join("store");
        tokio::task::spawn_blocking(move || store::Embedded::open(&dir, store::Window::default())).await??
    };
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listen on port {} (--https-listen-port)", settings.https_listen_port))?;
    let node_ip = settings.node_ip.unwrap_or_else(own_address);
    let pki = Pki::open(&settings.data_dir.join("pki"), &names(&settings, node_ip))?;

    let ending = CancellationToken::new();
    let config = apiserver::Config {
        pki: pki.clone(),
        addresses: vec![node_ip],
        https_port: settings.https_listen_port,
        service_cidr: settings.service_cidr.clone(),
        cluster_dns: Some(settings.cluster_dns),
        cluster_domain: settings.cluster_domain.clone(),
        tokens: Vec::new(),
    };
    // The node's own parts need no API server to be opened: both at once.
    let opened = async {
        match settings.agent {
            true => node::open(&settings, node_ip, ending.clone()).await.map(Some),
            false => Ok(None),
        }
    };
    let (api, opened) = tokio::try_join!(
        async { anyhow::Ok(ApiServer::new(config, Arc::new(store)).await?) },
        opened
    )?;

    let mut parts = Parts::default();
    let port = api.clone().serve(listener, ending.clone().cancelled_owned());
    parts.start("the API server's port", async { Ok(port.await?) });
    if let Some(opened) = opened {
        let clients = node::Clients {
            kubelet: client::in_process(api.in_process(Identity::node(&settings.node_name))),
            proxy: client::in_process(api.in_process(Identity::component("system:kube-proxy"))),
        };
        node::start(opened, &settings, node_ip, clients, &pki, &ending, &mut parts)?;
        tokio::spawn(warn_of_firewalls(
            settings.cluster_cidr.clone(),
            settings.service_cidr.clone(),
        ));
    }
    start_control_plane(&api, &pki.ca_certificate, &settings, &ending, &mut parts);

    let url = format!("https://{node_ip}:{}", settings.https_listen_port);
    for path in settings
        .write_kubeconfig
        .iter()
        .chain([&settings.data_dir.join(KUBECONFIG)])
    {
        write_kubeconfig(path, &url, &pki.ca_certificate, &pki.admin, "kubernetes-admin")?;
    }
    info!(url, node = settings.node_name, "serving");

    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let ended = tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
        failure = parts.failed() => Err(failure),
    };
    if let Ok(signal) = ended {
        info!("{signal}: ending; pods go on");
    }
    ending.cancel();
    api.end_watches();
    let others = parts.end().await;
    ended.and(others)
}

/// The scheduler and the controllers, each under its own identity.
fn start_control_plane(
    api: &ApiServer,
    authority: &str,
    settings: &Settings,
    ending: &CancellationToken,
    parts: &mut Parts,
) {
    let connect = |user: &str| client::in_process(api.in_process(Identity::component(user)));
    let informers = Informers::new(connect("system:kube-scheduler"));
    let scheduler = scheduler::run(
        informers,
        scheduler::Config::default(),
        ending.clone().cancelled_owned(),
    );
    parts.start("the scheduler", scheduler.map(Ok));
    let informers = Informers::new(connect("system:kube-controller-manager"));
    let config = controllers::Config {
        cluster_cidr: settings.cluster_cidr.clone(),
        authority: authority.to_owned(),
    };
    let ending = ending.clone();
    parts.start("the controllers", async move {
        match ending.run_until_cancelled(controllers::run(&config, &informers)).await {
            Some(ended) => Ok(ended?),
            None => Ok(()),
        }
    });
}

fn names(settings: &Settings, node_ip: IpAddr) -> Names {
    Names {
        node_name: settings.node_name.clone(),
        addresses: vec![node_ip],
        service_address: first_address(&settings.service_cidr),
        cluster_domain: settings.cluster_domain.clone(),
    }
}

/// The first address of a range that can be given out.
fn first_address(cidr: &str) -> Option<IpAddr> {
    let address: Ipv4Addr = cidr.split('/').next()?.parse().ok()?;
    Some(Ipv4Addr::from(u32::from(address) + 1).into())
}

/// The address that packets to far away would leave from; without a way there, any of the machine's.
fn own_address() -> IpAddr {
    // Connecting a UDP socket asks the routing table and sends nothing.
    let routed = || {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((Ipv4Addr::new(203, 0, 113, 1), 9))?;
        socket.local_addr()
    };
    if let Ok(address) = routed() {
        return address.ip();
    }
    let any = nix::ifaddrs::getifaddrs().ok().and_then(|mut all| {
        all.find_map(|interface| {
            // The loopback link has addresses of ours, which lead nowhere else.
            let loopback = interface.flags.contains(InterfaceFlags::IFF_LOOPBACK);
            let address = interface.address?.as_sockaddr_in()?.ip();
            (!loopback && !address.is_loopback() && !address.is_link_local()).then_some(address)
        })
    });
    any.unwrap_or(Ipv4Addr::LOCALHOST).into()
}

/// As many open files as the machine lets us have: every watch, log and container's pipe is one.
fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        info!(%error, soft, "the limit of open files stays");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubernetes_service_has_the_first_address() {
        assert_eq!(first_address("10.96.0.0/12"), Some(IpAddr::from([10, 96, 0, 1])));
        assert_eq!(first_address("fd00::/108"), None);
    }
}
