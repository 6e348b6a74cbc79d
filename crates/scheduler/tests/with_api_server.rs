//! The scheduler on a real API server and store, in one process: what it writes is what clients read.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apiserver::{ApiServer, Config, Identity, pki};
use client::{Informer, Informers, Selection};
use k8s_openapi::api::core::v1::{Event, Node, Pod, ServiceAccount};
use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use store::{Embedded, Window};
use tempfile::TempDir;

/// Longer than anything here takes, so that a test that hangs fails.
const PATIENCE: Duration = Duration::from_secs(20);

struct Cluster {
    pods: Api<Pod>,
    nodes: Api<Node>,
    seen: Informer<Pod>,
    events: Informer<Event>,
    _dir: TempDir,
}

impl Cluster {
    /// An API server with a scheduler, and no nodes.
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let names = pki::Names {
            node_name: "one".into(),
            addresses: vec![Ipv4Addr::LOCALHOST.into()],
            service_address: None,
            cluster_domain: "cluster.local".into(),
        };
        let config = Config {
            pki: pki::Pki::open(&dir.path().join("pki"), &names).unwrap(),
            addresses: names.addresses,
            https_port: 6443,
            service_cidr: "10.96.0.0/28".into(),
            cluster_dns: None,
            cluster_domain: names.cluster_domain,
            tokens: Vec::new(),
        };
        let store = Arc::new(Embedded::open(&dir.path().join("store"), Window::default()).unwrap());
        let server = ApiServer::new(config, store).await.unwrap();
        let connect = |identity| client::in_process(server.in_process(identity));
        let informers = Informers::new(connect(Identity::component("system:kube-scheduler")));
        tokio::spawn(scheduler::run(
            informers,
            scheduler::Config::default(),
            std::future::pending(),
        ));
        let client = connect(Identity::master("admin"));
        // Pods run as it; the controller that makes it is not here.
        let account = ServiceAccount {
            metadata: ObjectMeta {
                name: Some("default".into()),
                ..Default::default()
            },
            ..Default::default()
        };
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
        let made = accounts.create(&PostParams::default(), &account).await;
        assert!(matches!(made, Ok(_) | Err(kube::Error::Api(_))), "{made:?}");
        let cluster = Cluster {
            pods: Api::namespaced(client.clone(), "default"),
            nodes: Api::all(client.clone()),
            seen: Informer::start(client.clone(), Selection::default()),
            events: Informer::start(client, Selection::default()),
            _dir: dir,
        };
        cluster.seen.synced().await;
        cluster.events.synced().await;
        cluster
    }

    /// A ready node with 2 CPUs.
    async fn add_node(&self, name: &str) {
        let node = json!({
            "metadata": {"name": name},
            "status": {
                "allocatable": {"cpu": "2", "memory": "4Gi", "pods": "110"},
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        });
        let node: Node = serde_json::from_value(node).unwrap();
        self.nodes.create(&PostParams::default(), &node).await.unwrap();
    }

    async fn add_pod(&self, name: &str, spec: Value) {
        let mut pod = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        for (key, part) in spec.as_object().into_iter().flatten() {
            pod["spec"][key] = part.clone();
        }
        let pod: Pod = serde_json::from_value(pod).unwrap();
        self.pods.create(&PostParams::default(), &pod).await.unwrap();
    }

    /// Waits until the pod is as it should be, change by change.
    async fn until(&self, name: &str, is: impl Fn(&Pod) -> bool) -> Arc<Pod> {
        let mut changes = self.seen.subscribe();
        let wait = async {
            loop {
                let change = changes.next().await;
                let pod = change.object();
                if api::pod::name(pod) == name && is(pod) {
                    return pod.clone();
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .unwrap_or_else(|_| panic!("{name}: {:?}", self.seen.list()))
    }

    async fn node_of(&self, name: &str) -> String {
        let pod = self.until(name, |pod| api::pod::node_name(pod).is_some()).await;
        api::pod::node_name(&pod).unwrap().to_owned()
    }

    /// The message of the first event of that reason about the pod.
    async fn event(&self, pod: &str, reason: &str) -> String {
        let mut changes = self.events.subscribe();
        let wait = async {
            loop {
                let change = changes.next().await;
                let event = change.object();
                if event.involved_object.name.as_deref() == Some(pod) && event.reason.as_deref() == Some(reason) {
                    let from = event.source.as_ref().and_then(|source| source.component.as_deref());
                    assert_eq!(from, Some("default-scheduler"));
                    return event.message.clone().unwrap_or_default();
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .unwrap_or_else(|_| panic!("{pod}: {:?}", self.events.list()))
    }
}

fn asks(cpu: &str) -> Value {
    json!({"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}]})
}

#[tokio::test]
async fn a_pod_gets_a_node_at_once() {
    let cluster = Cluster::start().await;
    cluster.add_node("n1").await;
    cluster.add_pod("first", json!({})).await;
    assert_eq!(cluster.node_of("first").await, "n1");
    let begun = Instant::now();
    cluster.add_pod("web", json!({})).await;
    assert_eq!(cluster.node_of("web").await, "n1");
    println!("created and bound in {:?}", begun.elapsed());
    let pod = cluster.pods.get("web").await.unwrap();
    assert!(api::pod::condition_is_true(&pod, "PodScheduled"), "{pod:?}");
    assert_eq!(
        cluster.event("web", "Scheduled").await,
        "Successfully assigned default/web to n1"
    );
}

#[tokio::test]
async fn a_pod_that_does_not_fit_says_why_and_waits_for_room() {
    let cluster = Cluster::start().await;
    cluster.add_node("n1").await;
    cluster.add_pod("big", asks("1500m")).await;
    assert_eq!(cluster.node_of("big").await, "n1");
    cluster.add_pod("late", asks("1")).await;
    let why = "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.";
    let pod = cluster
        .until("late", |pod| api::pod::condition(pod, "PodScheduled").is_some())
        .await;
    let condition = api::pod::condition(&pod, "PodScheduled").unwrap();
    assert_eq!(
        (condition.status.as_str(), condition.reason.as_deref()),
        ("False", Some("Unschedulable"))
    );
    assert_eq!(condition.message.as_deref(), Some(why));
    assert_eq!(cluster.event("late", "FailedScheduling").await, why);
    let now = DeleteParams {
        grace_period_seconds: Some(0),
        ..Default::default()
    };
    cluster.pods.delete("big", &now).await.unwrap();
    assert_eq!(cluster.node_of("late").await, "n1");
    let pod = cluster.pods.get("late").await.unwrap();
    assert!(api::pod::condition_is_true(&pod, "PodScheduled"), "{pod:?}");
}

#[tokio::test]
async fn without_nodes_a_pod_waits_for_the_first() {
    let cluster = Cluster::start().await;
    cluster.add_pod("early", json!({})).await;
    assert_eq!(
        cluster.event("early", "FailedScheduling").await,
        "no nodes available to schedule pods"
    );
    cluster.add_node("n1").await;
    assert_eq!(cluster.node_of("early").await, "n1");
}

#[tokio::test]
async fn gates_and_other_schedulers_are_respected() {
    let cluster = Cluster::start().await;
    cluster.add_node("n1").await;
    cluster
        .add_pod("gated", json!({"schedulingGates": [{"name": "example.com/wait"}]}))
        .await;
    cluster.add_pod("foreign", json!({"schedulerName": "another"})).await;
    // Later than both, so that when it has its node, they had their chance.
    cluster.add_pod("plain", json!({})).await;
    assert_eq!(cluster.node_of("plain").await, "n1");
    let gated = cluster.pods.get("gated").await.unwrap();
    assert_eq!(api::pod::node_name(&gated), None);
    assert_eq!(
        api::pod::condition(&gated, "PodScheduled").unwrap().reason.as_deref(),
        Some("SchedulingGated")
    );
    assert_eq!(api::pod::node_name(&cluster.pods.get("foreign").await.unwrap()), None);
    let open = json!({"spec": {"schedulingGates": null}});
    cluster
        .pods
        .patch("gated", &PatchParams::default(), &Patch::Merge(open))
        .await
        .unwrap();
    assert_eq!(cluster.node_of("gated").await, "n1");
}

#[tokio::test]
async fn many_pods_fill_nodes_and_never_overfill_one() {
    let cluster = Cluster::start().await;
    for node in ["n1", "n2", "n3"] {
        cluster.add_node(node).await;
    }
    // Room for twelve.
    let names: Vec<String> = (0..30).map(|i| format!("p{i}")).collect();
    futures::future::join_all(names.iter().map(|name| cluster.add_pod(name, asks("500m")))).await;
    let all_tried = async {
        let mut changes = cluster.seen.subscribe();
        let mut tried = HashMap::new();
        while tried.len() < 30 {
            let change = changes.next().await;
            let pod = change.object();
            if api::pod::condition(pod, "PodScheduled").is_some() {
                tried.insert(
                    api::pod::name(pod).to_owned(),
                    api::pod::node_name(pod).map(str::to_owned),
                );
            }
        }
        tried
    };
    let tried = tokio::time::timeout(PATIENCE, all_tried).await.unwrap();
    let mut counts: BTreeMap<Option<String>, usize> = BTreeMap::new();
    for node in tried.into_values() {
        *counts.entry(node).or_default() += 1;
    }
    let on = |name: &str| Some(name.to_owned());
    assert_eq!(
        counts,
        BTreeMap::from([(None, 18), (on("n1"), 4), (on("n2"), 4), (on("n3"), 4)])
    );
}
