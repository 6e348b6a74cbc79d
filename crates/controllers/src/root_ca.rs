//! Publishes the cluster's authority in each namespace, as the ConfigMap `kube-root-ca.crt`, for pods to trust.

use std::collections::BTreeMap;

use client::kube::api::{Api, Patch, PatchParams, PostParams};
use client::{Informers, Selection, WorkQueue};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use crate::controller;

const NAME: &str = "kube-root-ca.crt";
const KEY: &str = "ca.crt";
const DESCRIPTION: (&str, &str) = (
    "kubernetes.io/description",
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.",
);

/// What becomes of a namespace's ConfigMap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is as it should be, or its namespace is going.
    Keep,
    /// It is made.
    Create,
    /// It is written anew.
    Mend,
}

/// Decides on the ConfigMap of a namespace.
pub fn reconcile(namespace: Option<&Namespace>, map: Option<&ConfigMap>, authority: &str) -> Verdict {
    let is_living = namespace.is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_none());
    match map {
        _ if !is_living => Verdict::Keep,
        None => Verdict::Create,
        Some(map) if map.data == Some(data(authority)) => Verdict::Keep,
        Some(_) => Verdict::Mend,
    }
}

fn data(authority: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(KEY.to_owned(), authority.to_owned())])
}

/// Runs until it is dropped; `authority` is the authority's certificate.
pub async fn run(authority: &str, informers: &Informers) {
    let namespaces = informers.all::<Namespace>();
    let maps = informers.selected::<ConfigMap>(Selection::fields(format!("metadata.name={NAME}")));
    namespaces.synced().await;
    maps.synced().await;
    let queue = WorkQueue::<String>::default();
    let feed_namespaces = controller::feed(&namespaces, &queue, |change| change.object().metadata.name.clone());
    let feed_maps = controller::feed(&maps, &queue, |change| change.object().metadata.namespace.clone());
    let work = controller::work("root-ca", &queue, async |namespace: String| {
        let verdict = reconcile(
            namespaces.get(None, &namespace).as_deref(),
            maps.get(Some(&namespace), NAME).as_deref(),
            authority,
        );
        let api = Api::<ConfigMap>::namespaced(informers.client().clone(), &namespace);
        let result = match verdict {
            Verdict::Keep => return Ok(()),
            Verdict::Create => {
                let (key, text) = DESCRIPTION;
                let map = ConfigMap {
                    metadata: ObjectMeta {
                        name: Some(NAME.into()),
                        annotations: Some(BTreeMap::from([(key.into(), text.into())])),
                        ..ObjectMeta::default()
                    },
                    data: Some(data(authority)),
                    ..ConfigMap::default()
                };
                api.create(&PostParams::default(), &map).await
            }
            Verdict::Mend => {
                let patch = json!([{"op": "add", "path": "/data", "value": data(authority)}]);
                let patch = Patch::<()>::Json(serde_json::from_value(patch).map_err(client::kube::Error::SerdeError)?);
                api.patch(NAME, &PatchParams::default(), &patch).await
            }
        };
        match result {
            // Made by somebody else, gone, or the namespace is ending.
            Err(client::kube::Error::Api(status)) if [403, 404, 409].contains(&status.code) => Ok(()),
            result => result.map(drop),
        }
    });
    tokio::join!(feed_namespaces, feed_maps, work);
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    #[test]
    fn every_living_namespace_has_the_authority() {
        let living = Namespace::default();
        let ending = Namespace {
            metadata: ObjectMeta {
                deletion_timestamp: Some(Time(Timestamp::UNIX_EPOCH)),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        let map = |authority: &str| ConfigMap {
            data: Some(data(authority)),
            ..ConfigMap::default()
        };
        for (namespace, found, want) in [
            (None, None, Verdict::Keep),
            (Some(&ending), None, Verdict::Keep),
            (Some(&ending), Some(map("old")), Verdict::Keep),
            (Some(&living), None, Verdict::Create),
            (Some(&living), Some(map("ca")), Verdict::Keep),
            (Some(&living), Some(map("old")), Verdict::Mend),
            (Some(&living), Some(ConfigMap::default()), Verdict::Mend),
        ] {
            assert_eq!(reconcile(namespace, found.as_ref(), "ca"), want);
        }
    }
}
