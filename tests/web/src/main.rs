//! The web program that end-to-end tests run in pods: pages that answer as tests want them to, over HTTP and HTTPS, and gRPC's health service.
//!
//! It ends at once, with code 0, on SIGTERM. Every request is a line on standard output: method, path, status, user agent.

mod pages;
mod tls;

use std::convert::Infallible;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tonic_health::ServingStatus;

use pages::Site;

/// The web program that end-to-end tests run in pods.
#[derive(Parser)]
struct Options {
    /// Where it serves HTTP.
    #[arg(long, default_value_t = 8090)]
    port: u16,
    /// Where it serves HTTPS, with a certificate that it signs itself.
    #[arg(long)]
    tls_port: Option<u16>,
    /// Where it serves gRPC's health service: all is well, but for the service `down`.
    #[arg(long)]
    grpc_port: Option<u16>,
    /// The file that /login is made of; `{hostname}` and `{version}` in it are filled in.
    #[arg(long, default_value = "/srv/web/login.html")]
    template: PathBuf,
    /// Seconds until it listens, as a program that is slow to start.
    #[arg(long, default_value_t = 0)]
    start_after: u64,
    /// What / and /login call it.
    #[arg(long, env = "WEB_VERSION", default_value = "1")]
    version: String,
    /// Writes no line for a request.
    #[arg(long)]
    quiet: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let options = Options::parse();
    // The first process of a container is deaf to signals that it does not handle.
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        served = serve(options) => served,
        _ = terminate.recv() => Ok(()),
    }
}

async fn serve(options: Options) -> Result<()> {
    if options.start_after > 0 {
        println!("starting, which takes {} s", options.start_after);
        tokio::time::sleep(Duration::from_secs(options.start_after)).await;
    }
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").context("/proc/sys/kernel/hostname")?;
    let site = Arc::new(Site {
        hostname: hostname.trim().to_owned(),
        version: options.version,
        template: options.template,
        quiet: options.quiet,
    });
    let plain = http(listen(options.port).await?, site.clone());
    let secure = async {
        match options.tls_port {
            Some(port) => https(listen(port).await?, site.clone()).await,
            None => std::future::pending().await,
        }
    };
    let health = async {
        match options.grpc_port {
            Some(port) => grpc(port).await,
            None => std::future::pending().await,
        }
    };
    println!("web {} listens on port {}", site.version, options.port);
    tokio::try_join!(plain, secure, health).map(drop)
}

fn any_address(port: u16) -> SocketAddr {
    (Ipv6Addr::UNSPECIFIED, port).into()
}

async fn listen(port: u16) -> Result<TcpListener> {
    TcpListener::bind(any_address(port))
        .await
        .with_context(|| format!("listen on port {port}"))
}

async fn http(listener: TcpListener, site: Arc<Site>) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(talk(stream, site.clone()));
    }
}

async fn https(listener: TcpListener, site: Arc<Site>) -> Result<()> {
    let acceptor = tls::acceptor(&site.hostname)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let (acceptor, site) = (acceptor.clone(), site.clone());
        tokio::spawn(async move {
            match acceptor.accept(stream).await {
                Ok(stream) => talk(stream, site).await,
                Err(error) => eprintln!("TLS handshake: {error}"),
            }
        });
    }
}

async fn talk(stream: impl AsyncRead + AsyncWrite + Unpin, site: Arc<Site>) {
    let answer = service_fn(|request| {
        let site = site.clone();
        async move { Ok::<_, Infallible>(site.answer(&request).await) }
    });
    // Whoever asked may have left; that is nothing to say.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), answer)
        .await;
}

async fn grpc(port: u16) -> Result<()> {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("down", ServingStatus::NotServing).await;
    tonic::transport::Server::builder()
        .add_service(health)
        .serve(any_address(port))
        .await
        .with_context(|| format!("serve gRPC on port {port}"))
}
