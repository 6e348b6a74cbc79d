//! ServiceAccount: every pod runs as an account that is there, and finds that account's token where clients look.

use std::time::Duration;

use api::{Object, Status, meta, status};
use async_trait::async_trait;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{
    ConfigMapProjection, Container, DownwardAPIProjection, DownwardAPIVolumeFile, KeyToPath, ObjectFieldSelector, Pod,
    PodSpec, ProjectedVolumeSource, ServiceAccount as Account, ServiceAccountTokenProjection, Volume, VolumeMount,
    VolumeProjection,
};
use store::Change;
use tokio::time::timeout;

use super::{Attributes, Plugin};
use crate::{
    call::Call,
    registry::{key, lookup, store_error},
};

/// The annotation of a pod that only mirrors one which a kubelet runs from a file.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// The account of pods that name none.
const DEFAULT: &str = "default";

/// Where clients look for the token.
const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// What the volume's name begins with.
const VOLUME: &str = "kube-api-access-";

/// How long a pod waits for the account of its namespace, which is made right after the namespace.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct ServiceAccount;

fn is_mirror(object: &dyn Object) -> bool {
    let annotations = object.metadata().annotations.as_ref();
    annotations.is_some_and(|all| all.contains_key(MIRROR))
}

#[async_trait]
impl Plugin for ServiceAccount {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.creates("pods")
    }

    async fn mutate(&self, attributes: &Attributes<'_>, object: &mut dyn Object) -> Result<(), Status> {
        let spec = |object: &'_ dyn Object| object.as_any().downcast_ref::<Pod>().and_then(|pod| pod.spec.clone());
        let Some(mut spec) = spec(object) else { return Ok(()) };
        if is_mirror(object) {
            return match refuse_mirror(&spec) {
                Some(why) => Err(attributes.forbidden(object, why)),
                None => Ok(()),
            };
        }
        let name = spec.service_account_name.clone().filter(|name| !name.is_empty());
        let name = name.unwrap_or_else(|| DEFAULT.to_owned());
        let namespace = attributes.call.namespace.unwrap_or_default();
        let Some(account) = account(attributes.call, namespace, &name).await? else {
            let missing = status::not_found("", "serviceaccounts", &name);
            let why = format!(
                "error looking up service account {namespace}/{name}: {}",
                missing.message().replacen("serviceaccounts", "serviceaccount", 1)
            );
            return Err(attributes.forbidden(object, &why));
        };
        spec.service_account_name = Some(name.clone());
        spec.service_account = Some(name);
        if spec.image_pull_secrets.as_ref().is_none_or(Vec::is_empty) {
            spec.image_pull_secrets.clone_from(&account.image_pull_secrets);
        }
        let wanted = spec
            .automount_service_account_token
            .or(account.automount_service_account_token)
            .unwrap_or(true);
        if wanted {
            mount_token(&mut spec);
        }
        if let Some(pod) = object.as_any_mut().downcast_mut::<Pod>() {
            pod.spec = Some(spec);
        }
        Ok(())
    }
}

/// What a mirror of a static pod may not ask for: its node knows nothing of accounts.
fn refuse_mirror(spec: &PodSpec) -> Option<&'static str> {
    if spec
        .service_account_name
        .as_deref()
        .is_some_and(|name| !name.is_empty())
    {
        return Some("a mirror pod may not reference service accounts");
    }
    let volumes = spec.volumes.iter().flatten();
    let mut sources = volumes.flat_map(|volume| volume.projected.iter().flat_map(|all| all.sources.iter().flatten()));
    sources
        .any(|source| source.service_account_token.is_some())
        .then_some("a mirror pod may not use service account token volume projections")
}

/// The account; one that is about to be made is waited for.
async fn account(call: &Call<'_>, namespace: &str, name: &str) -> Result<Option<Account>, Status> {
    let Some(resource) = call.server.catalogue.find("", "v1", "serviceaccounts") else {
        return Ok(None);
    };
    let store = &*call.server.store;
    let read = |object: Box<dyn Object>| object.as_any().downcast_ref::<Account>().cloned();
    if let Some(found) = lookup(store, resource, Some(namespace), name).await? {
        return Ok(read(found));
    }
    if name != DEFAULT {
        return Ok(None);
    }
    let from = store.revision().await.map_err(store_error)?;
    if let Some(found) = lookup(store, resource, Some(namespace), name).await? {
        return Ok(read(found));
    }
    let key = key(resource, Some(namespace), name);
    let mut changes = store.watch(&key, from).await.map_err(store_error)?;
    let appears = async {
        loop {
            match changes.next().await {
                Some(Ok(Change::Put { entry, .. })) if *entry.key == *key => return Some(entry),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    };
    match timeout(PATIENCE, appears).await {
        Ok(Some(entry)) => resource.strategy.load(&entry.value).map(read),
        _ => Ok(None),
    }
}

/// Mounts the token, the cluster's authority and the namespace's name into every container that has nothing there.
fn mount_token(spec: &mut PodSpec) {
    let known = spec
        .volumes
        .iter()
        .flatten()
        .find(|volume| volume.name.starts_with(VOLUME))
        .map(|volume| volume.name.clone());
    let name = known
        .clone()
        .unwrap_or_else(|| format!("{VOLUME}{}", meta::random_suffix(5)));
    let mut is_used = false;
    let mut mount = |container: &mut Container| {
        let mounts = container.volume_mounts.get_or_insert_default();
        if mounts.iter().all(|mount| mount.mount_path != MOUNT) {
            is_used = true;
            mounts.push(VolumeMount {
                name: name.clone(),
                read_only: Some(true),
                mount_path: MOUNT.into(),
                ..VolumeMount::default()
            });
        }
    };
    spec.init_containers.iter_mut().flatten().for_each(&mut mount);
    spec.containers.iter_mut().for_each(&mut mount);
    if is_used && known.is_none() {
        spec.volumes.get_or_insert_default().push(volume(name));
    }
}

fn volume(name: String) -> Volume {
    let token = ServiceAccountTokenProjection {
        // A little more than an hour: so it can be told from one that was asked for.
        expiration_seconds: Some(3607),
        path: "token".into(),
        ..ServiceAccountTokenProjection::default()
    };
    let authority = ConfigMapProjection {
        name: "kube-root-ca.crt".into(),
        items: Some(vec![KeyToPath {
            key: "ca.crt".into(),
            path: "ca.crt".into(),
            mode: None,
        }]),
        optional: None,
    };
    let namespace = DownwardAPIProjection {
        items: Some(vec![DownwardAPIVolumeFile {
            path: "namespace".into(),
            field_ref: Some(ObjectFieldSelector {
                api_version: Some("v1".into()),
                field_path: "metadata.namespace".into(),
            }),
            ..DownwardAPIVolumeFile::default()
        }]),
    };
    let sources = vec![
        VolumeProjection {
            service_account_token: Some(token),
            ..VolumeProjection::default()
        },
        VolumeProjection {
            config_map: Some(authority),
            ..VolumeProjection::default()
        },
        VolumeProjection {
            downward_api: Some(namespace),
            ..VolumeProjection::default()
        },
    ];
    Volume {
        name,
        projected: Some(ProjectedVolumeSource {
            default_mode: Some(0o644),
            sources: Some(sources),
        }),
        ..Volume::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test fails by panicking.
    use serde_json::{Value, json};

    use super::*;

    fn mounted(spec: Value) -> Value {
        let mut spec: PodSpec = serde_json::from_value(spec).unwrap();
        mount_token(&mut spec);
        serde_json::to_value(spec).unwrap()
    }

    #[test]
    fn every_container_gets_the_token() {
        let spec = mounted(json!({"initContainers": [{"name": "i"}], "containers": [{"name": "a"}, {"name": "b"}]}));
        let name = spec["volumes"][0]["name"].as_str().unwrap();
        assert!(name.starts_with(VOLUME) && name.len() == VOLUME.len() + 5, "{name}");
        let mount = json!([{"name": name, "readOnly": true, "mountPath": MOUNT}]);
        for container in [
            &spec["initContainers"][0],
            &spec["containers"][0],
            &spec["containers"][1],
        ] {
            assert_eq!(container["volumeMounts"], mount);
        }
        assert_eq!(
            spec["volumes"][0]["projected"],
            json!({"defaultMode": 420, "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
            ]})
        );
    }

    #[test]
    fn what_is_there_stays() {
        let own = json!({"containers": [{"name": "a", "volumeMounts": [{"name": "x", "mountPath": MOUNT}]}]});
        assert_eq!(mounted(own.clone()), own);
        let named = json!({"volumes": [{"name": "kube-api-access-mine"}], "containers": [{"name": "a"}]});
        let spec = mounted(named);
        assert_eq!(spec["volumes"], json!([{"name": "kube-api-access-mine"}]));
        assert_eq!(spec["containers"][0]["volumeMounts"][0]["name"], "kube-api-access-mine");
    }

    #[test]
    fn mirrors_have_no_account() {
        let refused = |spec: Value| refuse_mirror(&serde_json::from_value(spec).unwrap());
        assert_eq!(refused(json!({"containers": []})), None);
        assert!(refused(json!({"containers": [], "serviceAccountName": "a"})).is_some());
        let token = json!([{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]);
        assert!(refused(json!({"containers": [], "volumes": token})).is_some());
    }
}
