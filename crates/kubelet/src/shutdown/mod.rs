//! Graceful node shutdown: when the machine is about to be shut down, systemd-logind waits while the node's pods end, those of low priority
//! first. The end of the server itself is no such thing: pods run on.
//!
//! A machine without a system bus or without logind has nothing that would wait, and its kubelet says so once.

mod groups;
mod logind;

use std::sync::Arc;
use std::time::Duration;

use client::EventType::Normal;
use futures::StreamExt;
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use tracing::{info, warn};
use zbus::Connection;

use crate::node;
use crate::pods::memory::Verdict;
use crate::pods::pod::PodExt;
use crate::pods::{Context, Pods};
use groups::Group;
use logind::ManagerProxy;

const MESSAGE: &str = "Pod was terminated in response to imminent node shutdown.";
/// Before the bus is looked for again that was there before.
const PAUSE: Duration = Duration::from_secs(1);

/// Delays shutdowns until it is dropped.
pub async fn run(context: Arc<Context>, pods: Pods) {
    let groups = groups::configured(&context.config.configuration);
    if groups.is_empty() {
        return std::future::pending().await;
    }
    let guard = Guard { context, pods, groups };
    let mut known = false;
    loop {
        match guard.watch(&mut known).await {
            Err(error) if !known => {
                warn!(%error, "no systemd-logind: the machine's shutdown does not wait for pods");
                return std::future::pending().await;
            }
            Err(error) => warn!(%error, "systemd-logind is lost"),
            Ok(()) => warn!("systemd-logind is gone"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

struct Guard {
    context: Arc<Context>,
    pods: Pods,
    groups: Vec<Group>,
}

impl Guard {
    /// Holds the lock and follows the news until the bus is lost; `known` is set once logind was there.
    async fn watch(&self, known: &mut bool) -> zbus::Result<()> {
        let connection = Connection::system().await?;
        let manager = ManagerProxy::new(&connection).await?;
        let needed = self.groups.iter().map(|group| group.grace).sum();
        let allowed = logind::allow_delay(&connection, &manager, needed).await;
        let mut news = manager.receive_prepare_for_shutdown().await?;
        let take = || {
            manager.inhibit(
                "shutdown",
                "kubelet",
                "Kubelet needs time to handle node shutdown",
                "delay",
            )
        };
        let mut lock = Some(take().await?);
        *known = true;
        match allowed {
            Ok(()) => info!(?needed, "the machine's shutdown waits for pods"),
            Err(error) => warn!("the machine's shutdown does not wait as long as it should: {error}"),
        }
        while let Some(coming) = news.next().await {
            let start = coming.args()?.start;
            self.context.state.send_modify(|state| state.shutting_down = start);
            if start {
                self.tell("Shutdown manager detected shutdown event");
                self.end_pods().await;
                drop(lock.take());
            } else {
                self.tell("Shutdown manager detected shutdown cancellation");
                lock = Some(take().await?);
            }
        }
        Ok(())
    }

    fn tell(&self, message: &str) {
        info!("{message}");
        let about = node::reference(&self.context.config.node_name);
        self.context.events.record(&about, Normal, "Shutdown", message);
    }

    async fn end_pods(&self) {
        let mut members: Vec<Vec<Arc<Pod>>> = vec![Vec::new(); self.groups.len()];
        // Those that are ending already have no more time than the others.
        let alive = self.pods.views().into_iter().map(|view| view.pod);
        for pod in alive.filter(|pod| !api::pod::is_terminal(pod)) {
            members[groups::of(&self.groups, &pod)].push(pod);
        }
        for (group, pods) in self.groups.iter().zip(members) {
            let seconds = i64::try_from(group.grace.as_secs()).unwrap_or(i64::MAX);
            for pod in &pods {
                let verdict = Verdict {
                    reason: "Terminated".into(),
                    message: MESSAGE.into(),
                    grace: Some(seconds),
                    disrupts: true,
                };
                self.pods.end_early(pod.uid(), verdict);
            }
            let ended = join_all(pods.iter().map(|pod| self.pods.released(pod.uid())));
            if tokio::time::timeout(group.grace, ended).await.is_err() {
                warn!(priority = group.priority, "pods took too long to end");
            }
        }
    }
}
