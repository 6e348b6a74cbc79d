//! Removes pods that nobody else will: those bound to a node that is gone, and those deleted before any node had them.

use std::collections::HashMap;
use std::time::Duration;

use client::kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use client::{Change, Informers, WorkQueue};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use crate::controller;

/// How long a node must be gone before its pods are, as upstream: it may only be registering anew.
const QUARANTINE: Duration = Duration::from_secs(40);

/// What becomes of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Keep,
    /// Look again after this time.
    Later(Duration),
    /// It never ran and is to go: it goes now.
    Remove,
    /// Its node is gone: it has failed, and goes now.
    FailAndRemove,
}

/// Decides on a pod; `node_gone_for` is how long the node that it names has been gone, none when the node is there.
pub fn reconcile(pod: &Pod, node_gone_for: Option<Duration>) -> Verdict {
    let node = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.node_name.as_deref())
        .unwrap_or_default();
    match (node.is_empty(), node_gone_for) {
        (true, _) if pod.metadata.deletion_timestamp.is_some() => Verdict::Remove,
        (true, _) | (false, None) => Verdict::Keep,
        (false, Some(gone)) if gone < QUARANTINE => Verdict::Later(QUARANTINE - gone),
        (false, Some(_)) => Verdict::FailAndRemove,
    }
}

/// Runs until it is dropped.
pub async fn run(informers: &Informers) {
    let (nodes, pods) = (informers.all::<Node>(), informers.all::<Pod>());
    nodes.synced().await;
    pods.synced().await;
    let queue = WorkQueue::<String>::default();
    let gone_since: Mutex<HashMap<String, Instant>> = Mutex::default();
    let concerns = |pod: &Pod| {
        let node = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.node_name.as_deref())
            .unwrap_or_default();
        if node.is_empty() {
            pod.metadata.deletion_timestamp.is_some()
        } else {
            nodes.get(None, node).is_none()
        }
    };
    let key = |pod: &Pod| {
        Some(format!(
            "{}/{}",
            pod.metadata.namespace.as_deref()?,
            pod.metadata.name.as_deref()?
        ))
    };
    let feed_pods = controller::feed(&pods, &queue, |change| match change {
        Change::Applied { object, .. } if concerns(object) => key(object),
        _ => None,
    });
    let feed_nodes = async {
        let mut changes = nodes.subscribe();
        loop {
            let change = changes.next().await;
            let name = change.object().metadata.name.clone().unwrap_or_default();
            match change {
                Change::Applied { .. } => drop(gone_since.lock().remove(&name)),
                Change::Deleted(_) => {
                    pods.list()
                        .iter()
                        .filter(|pod| concerns(pod))
                        .filter_map(|pod| key(pod))
                        .for_each(|key| queue.add(key));
                }
            }
        }
    };
    let work = controller::work("pod-gc", &queue, async |name: String| {
        let Some(pod) = name
            .split_once('/')
            .and_then(|(namespace, name)| pods.get(Some(namespace), name))
        else {
            return Ok(());
        };
        let node = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.node_name.clone())
            .unwrap_or_default();
        let gone = nodes
            .get(None, &node)
            .is_none()
            .then(|| gone_since.lock().entry(node).or_insert_with(Instant::now).elapsed());
        match reconcile(&pod, gone) {
            Verdict::Keep => Ok(()),
            Verdict::Later(after) => {
                queue.add_after(name, after);
                Ok(())
            }
            Verdict::Remove => remove(informers, &pod).await,
            Verdict::FailAndRemove => {
                fail(informers, &pod).await?;
                remove(informers, &pod).await
            }
        }
    });
    tokio::join!(feed_pods, feed_nodes, work);
}

fn api(informers: &Informers, pod: &Pod) -> (Api<Pod>, String) {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    (
        Api::namespaced(informers.client().clone(), namespace),
        pod.metadata.name.clone().unwrap_or_default(),
    )
}

async fn fail(informers: &Informers, pod: &Pod) -> Result<(), client::kube::Error> {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default();
    if phase == "Succeeded" || phase == "Failed" {
        return Ok(());
    }
    let (api, name) = api(informers, pod);
    let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"phase": "Failed", "conditions": [{
        "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC", "lastTransitionTime": Timestamp::now().to_string(),
        "message": "PodGC: node no longer exists",
    }]}});
    controller::ignore_gone(
        api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch))
            .await,
    )
}

async fn remove(informers: &Informers, pod: &Pod) -> Result<(), client::kube::Error> {
    let (api, name) = api(informers, pod);
    let now = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions {
            uid: pod.metadata.uid.clone(),
            resource_version: None,
        }),
        ..Default::default()
    };
    controller::ignore_gone(api.delete(&name, &now).await)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;

    #[test]
    fn only_pods_without_anyone_go() {
        let pod = |value: serde_json::Value| serde_json::from_value::<Pod>(value).unwrap();
        let waiting = pod(json!({"metadata": {}, "spec": {"containers": []}}));
        let ending =
            pod(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"containers": []}}));
        let bound = pod(json!({"metadata": {}, "spec": {"containers": [], "nodeName": "a"}}));
        assert_eq!(reconcile(&waiting, None), Verdict::Keep);
        assert_eq!(reconcile(&ending, None), Verdict::Remove);
        assert_eq!(reconcile(&bound, None), Verdict::Keep);
        assert_eq!(
            reconcile(&bound, Some(Duration::from_secs(10))),
            Verdict::Later(Duration::from_secs(30))
        );
        assert_eq!(reconcile(&bound, Some(QUARANTINE)), Verdict::FailAndRemove);
    }
}
