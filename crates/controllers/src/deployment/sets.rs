//! A Deployment's ReplicaSets: which is the new one, what they are annotated with, how large they are to be.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::hash;
use crate::owner;

/// The label of a ReplicaSet and its pods with the hash of their template.
pub const HASH_LABEL: &str = "pod-template-hash";
/// The annotation with the number of a rollout.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// The annotation with the numbers that a set had before it was rolled back to.
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// The annotation with the replicas that the Deployment wished for when it last scaled the set.
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// The annotation with the replicas that the Deployment could have had then.
const MAXIMUM: &str = "deployment.kubernetes.io/max-replicas";

/// Annotations of a Deployment that are its own and not its sets'.
const NOT_COPIED: &[&str] = &[
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MAXIMUM,
    "deprecated.deployment.rollback.to",
];

/// The longest history that is kept.
const HISTORY_LENGTH: usize = 2000;

/// What a Deployment wishes for, with the defaults that it has in the store in any case.
pub fn spec(deployment: &Deployment) -> std::borrow::Cow<'_, DeploymentSpec> {
    deployment
        .spec
        .as_ref()
        .map_or_else(Default::default, std::borrow::Cow::Borrowed)
}

/// How many pods a Deployment wishes for.
pub fn wished(deployment: &Deployment) -> i32 {
    spec(deployment).replicas.unwrap_or(1)
}

/// How many pods a set is to have.
pub fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// How many pods sets are to have together.
pub fn sizes<'a>(sets: impl IntoIterator<Item = &'a ReplicaSet>) -> i32 {
    sets.into_iter().map(size).sum()
}

/// How many of a set's pods are available.
pub fn available(set: &ReplicaSet) -> i32 {
    set.status
        .as_ref()
        .and_then(|status| status.available_replicas)
        .unwrap_or(0)
}

pub fn is_rolling(deployment: &Deployment) -> bool {
    let spec = spec(deployment);
    let strategy = spec.strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
    strategy != Some("Recreate")
}

/// A part of `total`, rounded up or down.
fn part(of: Option<&IntOrString>, total: i32, up: bool) -> i32 {
    match of {
        None => 0,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(text)) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            let product = percent * i64::from(total);
            let part = if up { (product + 99) / 100 } else { product / 100 };
            i32::try_from(part).unwrap_or(i32::MAX)
        }
    }
}

/// How many pods there may be too many and too few while rolling out: (surge, unavailable). Not both are zero.
fn fenceposts(deployment: &Deployment) -> (i32, i32) {
    let spec = spec(deployment);
    let rolling = spec
        .strategy
        .as_ref()
        .and_then(|strategy| strategy.rolling_update.as_ref());
    let wished = wished(deployment);
    let surge = part(rolling.and_then(|rolling| rolling.max_surge.as_ref()), wished, true);
    let unavailable = part(
        rolling.and_then(|rolling| rolling.max_unavailable.as_ref()),
        wished,
        false,
    );
    (surge, if surge == 0 && unavailable == 0 { 1 } else { unavailable })
}

/// How many pods there may be beyond the wished ones.
pub fn max_surge(deployment: &Deployment) -> i32 {
    if is_rolling(deployment) {
        fenceposts(deployment).0
    } else {
        0
    }
}

/// How many of the wished pods may be missing.
pub fn max_unavailable(deployment: &Deployment) -> i32 {
    let wished = wished(deployment);
    if !is_rolling(deployment) || wished == 0 {
        return 0;
    }
    fenceposts(deployment).1.min(wished)
}

/// A template without the hash, as the Deployment has it.
fn plain(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    if let Some(meta) = &mut template.metadata {
        if let Some(labels) = &mut meta.labels {
            labels.remove(HASH_LABEL);
        }
        meta.labels = meta.labels.take().filter(|labels| !labels.is_empty());
        meta.annotations = meta.annotations.take().filter(|annotations| !annotations.is_empty());
    }
    template.metadata = template.metadata.filter(|meta| *meta != ObjectMeta::default());
    template
}

/// Whether a set is of the Deployment's template.
pub fn is_of_template(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
    template.is_some_and(|template| plain(template) == plain(&spec(deployment).template))
}

/// The oldest set of the Deployment's template, which is the new one, however old it is.
pub fn find_new(deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> Option<usize> {
    let fitting = sets
        .iter()
        .enumerate()
        .filter(|(_, set)| is_of_template(deployment, set));
    fitting.min_by(|(_, a), (_, b)| age_order(a, b)).map(|(index, _)| index)
}

/// The older first.
pub fn age_order(a: &ReplicaSet, b: &ReplicaSet) -> std::cmp::Ordering {
    let key = |set: &ReplicaSet| {
        (
            set.metadata.creation_timestamp.as_ref().map(|time| time.0),
            set.metadata.name.clone(),
        )
    };
    key(a).cmp(&key(b))
}

fn annotation<'a>(set: &'a ReplicaSet, key: &str) -> Option<&'a str> {
    set.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The number of the set's rollout; zero when it has none.
pub fn revision(set: &ReplicaSet) -> i64 {
    annotation(set, REVISION)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

/// The replicas that the Deployment wished for when it last scaled the set.
pub fn desired(set: &ReplicaSet) -> Option<i32> {
    annotation(set, DESIRED)?.parse().ok()
}

/// The replicas that the Deployment could have had when it last scaled the set.
pub fn maximum(set: &ReplicaSet) -> Option<i32> {
    annotation(set, MAXIMUM)?.parse().ok()
}

/// Writes down what the Deployment wishes for.
pub fn annotate_size(deployment: &Deployment, set: &mut ReplicaSet) {
    let wished = wished(deployment);
    let annotations = set.metadata.annotations.get_or_insert_default();
    annotations.insert(DESIRED.into(), wished.to_string());
    annotations.insert(MAXIMUM.into(), (wished + max_surge(deployment)).to_string());
}

/// Makes the annotations of the new set those of its Deployment, and `revision` its number, unless it has a higher one.
pub fn annotate_new(deployment: &Deployment, set: &mut ReplicaSet, revision: i64) {
    let before = annotation(set, REVISION).map(str::to_owned);
    let annotations = set.metadata.annotations.get_or_insert_default();
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        if !NOT_COPIED.contains(&key.as_str()) {
            annotations.insert(key.clone(), value.clone());
        }
    }
    let number = before.as_ref().and_then(|before| before.parse::<i64>().ok());
    if number.is_some_and(|number| number >= revision) {
        return;
    }
    annotations.insert(REVISION.into(), revision.to_string());
    // Rolled back to: the numbers it had are kept.
    if let Some(number) = number {
        let history = annotations.entry(HISTORY.into()).or_default();
        if !history.is_empty() {
            history.push(',');
        }
        history.push_str(&number.to_string());
        while history.len() > HISTORY_LENGTH {
            let cut = history.find(',').map_or(history.len(), |comma| comma + 1);
            history.drain(..cut);
        }
    }
}

/// The set of the Deployment's template, of size zero.
pub fn make(deployment: &Deployment) -> ReplicaSet {
    let spec = spec(deployment);
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
    let hash = hash::of(&spec.template, collisions);
    let mut template = spec.template.clone();
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH_LABEL.into(), hash.clone());
    let labels = labels.clone();
    let mut selector: LabelSelector = spec.selector.clone();
    selector
        .match_labels
        .get_or_insert_with(BTreeMap::new)
        .insert(HASH_LABEL.into(), hash.clone());
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{hash}")),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![owner::reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            min_ready_seconds: spec.min_ready_seconds,
            replicas: Some(0),
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use serde_json::{Value, json};

    use super::*;

    fn deployment(replicas: i32, unavailable: Value, surge: Value) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "ns", "uid": "d", "annotations": {"a": "1", REVISION: "7", "kubectl.kubernetes.io/last-applied-configuration": "{}"}},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": "web"}},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": surge}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
            },
        }))
        .unwrap()
    }

    #[test]
    fn too_many_and_too_few() {
        for (replicas, unavailable, surge, want) in [
            (10, json!("25%"), json!("25%"), (3, 2)),
            (1, json!("25%"), json!("25%"), (1, 0)),
            (4, json!("25%"), json!("25%"), (1, 1)),
            (10, json!(0), json!(1), (1, 0)),
            (10, json!("1%"), json!(0), (0, 1)),
            (2, json!(5), json!(0), (0, 2)),
            (0, json!("25%"), json!("25%"), (0, 0)),
            (3, json!("100%"), json!("100%"), (3, 3)),
        ] {
            let deployment = deployment(replicas, unavailable.clone(), surge.clone());
            assert_eq!(
                (max_surge(&deployment), max_unavailable(&deployment)),
                want,
                "{replicas} {unavailable} {surge}"
            );
        }
    }

    #[test]
    fn a_new_set_is_told_apart_by_the_hash() {
        let deployment = deployment(3, json!(1), json!(1));
        let set = make(&deployment);
        let value = serde_json::to_value(&set).unwrap();
        let hash = value["metadata"]["labels"][HASH_LABEL].as_str().unwrap();
        assert_eq!(value["metadata"]["name"], format!("web-{hash}"));
        assert_eq!(
            value["spec"]["selector"]["matchLabels"],
            json!({"app": "web", HASH_LABEL: hash})
        );
        assert_eq!(
            value["spec"]["template"]["metadata"]["labels"],
            json!({"app": "web", HASH_LABEL: hash})
        );
        assert_eq!(
            value["metadata"]["ownerReferences"],
            json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "d", "controller": true, "blockOwnerDeletion": true}])
        );
        assert!(is_of_template(&deployment, &set));
        let mut other = deployment.clone();
        other.spec.as_mut().unwrap().template.spec.as_mut().unwrap().containers[0].image = Some("j".into());
        assert!(!is_of_template(&other, &set));
    }

    #[test]
    fn annotations_and_revisions() {
        let deployment = deployment(3, json!(1), json!(1));
        let with = |annotations: Value| -> ReplicaSet {
            serde_json::from_value(json!({"metadata": {"annotations": annotations}})).unwrap()
        };
        for (before, revision, after) in [
            (json!({}), 1, json!({"a": "1", REVISION: "1"})),
            (
                json!({REVISION: "1", "b": "2"}),
                2,
                json!({"a": "1", "b": "2", REVISION: "2", HISTORY: "1"}),
            ),
            (
                json!({REVISION: "9", HISTORY: "1,3"}),
                10,
                json!({"a": "1", REVISION: "10", HISTORY: "1,3,9"}),
            ),
            (json!({REVISION: "3"}), 2, json!({"a": "1", REVISION: "3"})),
            (json!({REVISION: "2"}), 2, json!({"a": "1", REVISION: "2"})),
            (json!({REVISION: "x"}), 2, json!({"a": "1", REVISION: "2"})),
        ] {
            let mut set = with(before.clone());
            annotate_new(&deployment, &mut set, revision);
            assert_eq!(json!(set.metadata.annotations), after, "{before}");
        }
        let mut set = with(json!({}));
        annotate_size(&deployment, &mut set);
        assert_eq!(json!(set.metadata.annotations), json!({DESIRED: "3", MAXIMUM: "4"}));
        assert_eq!((desired(&set), maximum(&set)), (Some(3), Some(4)));
    }
}
