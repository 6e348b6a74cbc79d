//! Mirrors: what the API shows of static pods. A mirror that is deleted comes back, and one whose pod is gone goes.

use client::Client;
use client::kube::Error;
use client::kube::api::{Api, DeleteParams, PostParams, Preconditions};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::pods::pod::PodExt;

/// What a mirror needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It is as it should be.
    Nothing,
    /// It is not there.
    Create,
    /// It is to go: its pod is gone or another one, or somebody deleted it.
    Delete,
}

/// Decides, given the static pod that runs and the mirror of that name.
pub fn step(pod: Option<&Pod>, mirror: Option<&Pod>) -> Step {
    match (pod, mirror) {
        (None, None) => Step::Nothing,
        (Some(_), None) => Step::Create,
        (None, Some(_)) => Step::Delete,
        (Some(pod), Some(mirror)) if !is_of(mirror, pod) || mirror.deletion().is_some() => Step::Delete,
        (Some(_), Some(_)) => Step::Nothing,
    }
}

/// Whether a mirror shows this very pod.
pub fn is_of(mirror: &Pod, pod: &Pod) -> bool {
    let annotation = |pod: &Pod, key: &str| pod.metadata.annotations.as_ref()?.get(key).cloned();
    annotation(mirror, api::pod::CONFIG_MIRROR_ANNOTATION) == annotation(pod, api::pod::CONFIG_HASH_ANNOTATION)
}

/// The mirror of a pod on a node.
fn mirror_of(pod: &Pod, node: &Node) -> Pod {
    let mut mirror = pod.clone();
    let annotations = mirror.metadata.annotations.get_or_insert_default();
    if let Some(hash) = annotations.get(api::pod::CONFIG_HASH_ANNOTATION).cloned() {
        annotations.insert(api::pod::CONFIG_MIRROR_ANNOTATION.into(), hash);
    }
    mirror.metadata.uid = None;
    mirror.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: node.metadata.name.clone().unwrap_or_default(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    }]);
    mirror.status = None;
    mirror
}

/// Shows a pod.
pub async fn create(client: &Client, pod: &Pod, node_name: &str) -> Result<(), Error> {
    let node = Api::<Node>::all(client.clone()).get(node_name).await?;
    let api = Api::<Pod>::namespaced(client.clone(), pod.namespace());
    match api.create(&PostParams::default(), &mirror_of(pod, &node)).await {
        // The watch will bring it.
        Err(Error::Api(status)) if status.code == 409 => Ok(()),
        created => created.map(drop),
    }
}

/// Shows a pod no more.
pub async fn delete(client: &Client, mirror: &Pod) -> Result<(), Error> {
    let now = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions {
            uid: mirror.metadata.uid.clone(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match Api::<Pod>::namespaced(client.clone(), mirror.namespace())
        .delete(mirror.name(), &now)
        .await
    {
        Err(Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        deleted => deleted.map(drop),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(annotations: serde_json::Value, deleted: bool) -> Pod {
        let deletion = deleted.then_some("2026-01-01T00:00:00Z");
        serde_json::from_value(json!({
            "metadata": {"name": "p", "uid": "a", "annotations": annotations, "deletionTimestamp": deletion}, "spec": {"containers": []},
        }))
        .unwrap()
    }

    #[test]
    fn mirrors_follow_their_pods() {
        let of_a = pod(json!({"kubernetes.io/config.hash": "a"}), false);
        let shows_a = pod(json!({"kubernetes.io/config.mirror": "a"}), false);
        let shows_b = pod(json!({"kubernetes.io/config.mirror": "b"}), false);
        let deleted = pod(json!({"kubernetes.io/config.mirror": "a"}), true);
        for (pod, mirror, expected) in [
            (None, None, Step::Nothing),
            (Some(&of_a), None, Step::Create),
            (Some(&of_a), Some(&shows_a), Step::Nothing),
            (Some(&of_a), Some(&shows_b), Step::Delete),
            (Some(&of_a), Some(&deleted), Step::Delete),
            (None, Some(&shows_a), Step::Delete),
        ] {
            assert_eq!(step(pod, mirror), expected);
        }
    }

    #[test]
    fn a_mirror_is_its_nodes() {
        let node = serde_json::from_value(json!({"metadata": {"name": "n", "uid": "nu"}})).unwrap();
        let mirror = mirror_of(&pod(json!({"kubernetes.io/config.hash": "a"}), false), &node);
        assert_eq!(
            mirror.metadata.annotations.as_ref().unwrap()["kubernetes.io/config.mirror"],
            "a"
        );
        let owner = &mirror.metadata.owner_references.as_ref().unwrap()[0];
        assert_eq!(
            (owner.kind.as_str(), owner.uid.as_str(), owner.controller),
            ("Node", "nu", Some(true))
        );
        assert_eq!(mirror.metadata.uid, None);
    }
}
