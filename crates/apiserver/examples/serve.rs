//! An API server by itself, to be tried by hand:
//!
//! ```text
//! cargo run -p apiserver --example serve -- DIR [PORT]
//! kubectl --kubeconfig DIR/admin.conf get namespaces
//! ```

use std::{net::Ipv4Addr, path::PathBuf, sync::Arc};

use apiserver::{ApiServer, Config, pki};
use store::{Embedded, Window};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().ok_or("usage: serve DIR [PORT]")?);
    let port: u16 = arguments.next().map_or(Ok(6443), |port| port.parse())?;
    let names = pki::Names {
        node_name: "local".into(),
        addresses: vec![Ipv4Addr::LOCALHOST.into()],
        service_address: Some(Ipv4Addr::new(10, 96, 0, 1).into()),
        cluster_domain: "cluster.local".into(),
    };
    let pki = pki::Pki::open(&dir.join("pki"), &names)?;
    let url = format!("https://127.0.0.1:{port}");
    pki::write_kubeconfig(
        &dir.join("admin.conf"),
        &url,
        &pki.ca_certificate,
        &pki.admin,
        "kubernetes-admin",
    )?;
    let store = Arc::new(Embedded::open(&dir.join("store"), Window::default())?);
    let config = Config {
        pki,
        addresses: names.addresses,
        https_port: port,
        service_cidr: "10.96.0.0/12".into(),
        cluster_dns: None,
        cluster_domain: names.cluster_domain,
        tokens: Vec::new(),
    };
    let server = ApiServer::new(config, store).await?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    println!("export KUBECONFIG={}", dir.join("admin.conf").display());
    server
        .serve(listener, async { drop(tokio::signal::ctrl_c().await) })
        .await?;
    Ok(())
}
