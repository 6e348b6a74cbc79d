//! Services and names as who uses them sees them, inside the measured Podium's namespace.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt};
use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RecordType};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// Where the endpoint of the measured Service listens: the node itself.
const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const PORT: u16 = 18090;
const NAME: &str = "bench-service";

/// As long a change is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// As long many Services take to settle.
const SETTLED: Duration = Duration::from_secs(300);

/// Makes many Services, with one pod that is the endpoint of all of them.
pub async fn create_many(client: &Client, many: usize) -> Result<()> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    create_pod(&pods, "bench-many").await?;
    set_ready(&pods, "bench-many", true).await?;
    let services: Api<Service> = Api::default_namespaced(client.clone());
    let made = futures::stream::iter(0..many).map(|n| {
        let services = services.clone();
        async move {
            let service = serde_json::from_value(service(&format!("bench-many-{n}"), "bench-many"))?;
            services.create(&PostParams::default(), &service).await?;
            anyhow::Ok(())
        }
    });
    made.buffer_unordered(32).try_collect::<()>().await?;
    // The controllers are still at it.
    let slices: Api<EndpointSlice> = Api::default_namespaced(client.clone());
    let start = Instant::now();
    while slices.list_metadata(&ListParams::default()).await?.items.len() <= many {
        ensure!(
            start.elapsed() < SETTLED,
            "the Services did not get their EndpointSlices"
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    Ok(())
}

fn service(name: &str, app: &str) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": app}, "ports": [{"port": 80, "targetPort": PORT}]},
    })
}

/// No node has the pod: what its status says is the bench's own to write.
async fn create_pod(pods: &Api<Pod>, name: &str) -> Result<()> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"schedulerName": "nobody", "containers": [{"name": "main", "image": "none"}]},
    });
    pods.create(&PostParams::default(), &serde_json::from_value(pod)?)
        .await?;
    Ok(())
}

/// The times from writing that a pod is ready until connections to its Service's address are taken.
pub async fn endpoints(client: &Client, times: usize) -> Result<Vec<Duration>> {
    let listener = TcpListener::bind((NODE, PORT)).await?;
    let accepting = tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let services: Api<Service> = Api::default_namespaced(client.clone());
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let made = services
        .create(&PostParams::default(), &serde_json::from_value(service(NAME, NAME))?)
        .await?;
    let address = made
        .spec
        .and_then(|spec| spec.cluster_ip)
        .context("the Service has no address")?;
    let address: SocketAddr = format!("{address}:80").parse()?;
    create_pod(&pods, NAME).await?;
    let mut took = Vec::with_capacity(times);
    for _ in 0..times {
        let start = Instant::now();
        set_ready(&pods, NAME, true).await?;
        reaches(address, true, start).await?;
        took.push(start.elapsed());
        set_ready(&pods, NAME, false).await?;
        reaches(address, false, Instant::now()).await?;
    }
    pods.delete(NAME, &kube::api::DeleteParams::default().grace_period(0))
        .await?;
    services
        .delete(&made.metadata.name.unwrap_or_default(), &Default::default())
        .await?;
    accepting.abort();
    Ok(took)
}

async fn set_ready(pods: &Api<Pod>, name: &str, ready: bool) -> Result<()> {
    let status = if ready { "True" } else { "False" };
    let patch = json!({"status": {
        "phase": "Running", "podIP": NODE, "podIPs": [{"ip": NODE}],
        "conditions": [{"type": "Ready", "status": status}],
    }});
    let written = pods
        .patch_status(name, &PatchParams::default(), &Patch::Strategic(patch))
        .await?;
    ensure!(written.name_any() == name);
    Ok(())
}

/// Waits until connections are taken, or no more. Asking costs less than a tenth of a millisecond.
async fn reaches(address: SocketAddr, wanted: bool, start: Instant) -> Result<()> {
    while TcpStream::connect(address).await.is_ok() != wanted {
        ensure!(start.elapsed() < PATIENCE, "the change did not reach the node's rules");
        tokio::time::sleep(Duration::from_micros(100)).await;
    }
    Ok(())
}

/// The times of answers to a question for a Service's name.
pub async fn names(times: usize) -> Result<Vec<Duration>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.connect((Ipv4Addr::new(10, 96, 0, 10), 53)).await?;
    let mut question = Message::query();
    question.add_query(Query::query(
        Name::from_ascii("kubernetes.default.svc.cluster.local.")?,
        RecordType::A,
    ));
    let question = question.to_vec()?;
    let mut answer = [0; 512];
    let mut took = Vec::with_capacity(times);
    for _ in 0..times {
        let start = Instant::now();
        socket.send(&question).await?;
        let length = tokio::time::timeout(PATIENCE, socket.recv(&mut answer)).await??;
        took.push(start.elapsed());
        ensure!(
            Message::from_vec(&answer[..length])?.answers.len() == 1,
            "an answer with one address"
        );
    }
    Ok(took)
}
