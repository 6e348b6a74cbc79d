//! What a claim stands for: the volume that it is bound to, as a source like any other.

use client::Client;
use client::kube::{self, Api};
use k8s_openapi::api::core::v1::{
    CephFSPersistentVolumeSource, CephFSVolumeSource, PersistentVolume, PersistentVolumeClaim, Pod, Secret,
};

use super::ceph::Ceph;
use super::nfs::Nfs;
use super::resolve::Context;
use super::{Source, device, resolve};
use crate::pods::pod::PodExt;

/// A claim's volume.
pub struct Claimed {
    /// The volume's name.
    pub volume: String,
    /// Where volumes of its kind are, below the pod's directory.
    pub plugin: &'static str,
    /// What it is.
    pub source: Source,
}

fn said(error: kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message,
        error => error.to_string(),
    }
}

/// Whether a claim may be used by a pod, and the name of its volume.
fn bound(pod: &Pod, claim: &PersistentVolumeClaim, made_for_it: bool) -> Result<String, String> {
    if claim.metadata.deletion_timestamp.is_some() {
        return Err("PVC is being deleted".into());
    }
    let mut owners = claim.metadata.owner_references.iter().flatten();
    if made_for_it && !owners.any(|owner| owner.controller == Some(true) && owner.uid == pod.uid()) {
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        let (namespace, pod) = (pod.namespace(), pod.name());
        return Err(format!(
            "PVC \"{namespace}/{name}\" was not created for pod \"{namespace}/{pod}\" (pod is not owner)"
        ));
    }
    let volume = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_name.clone())
        .unwrap_or_default();
    if volume.is_empty() || api::storage::claim_phase(claim) != "Bound" {
        return Err("PVC is not bound".into());
    }
    Ok(volume)
}

/// Finds what the claim `name` stands for, which is the pod's volume `volume`.
pub async fn find(
    pod: &Pod,
    volume: &str,
    name: &str,
    made_for_it: bool,
    context: &Context<'_>,
) -> Result<Claimed, String> {
    let used_as = volume;
    let client: &Client = context.client;
    let processing = |error: String| format!("error processing PVC {}/{name}: {error}", pod.namespace());
    let claim = Api::<PersistentVolumeClaim>::namespaced(client.clone(), pod.namespace())
        .get(name)
        .await;
    let claim = claim.map_err(|error| processing(format!("failed to fetch PVC from API server: {}", said(error))))?;
    let name = bound(pod, &claim, made_for_it).map_err(processing)?;
    let volume = Api::<PersistentVolume>::all(client.clone()).get(&name).await;
    let volume =
        volume.map_err(|error| processing(format!("failed to fetch PV {name} from API server: {}", said(error))))?;
    if !api::storage::is_for(&volume, &claim) {
        return Err(processing(format!("PV {name} is bound to another claim")));
    }
    let spec = volume.spec.unwrap_or_default();
    let block = spec.volume_mode.as_deref() == Some("Block");
    device::fits(pod, used_as, block).map_err(processing)?;
    let (plugin, source) = if block {
        let local = spec.local.ok_or_else(|| {
            format!("PersistentVolume {name:?} of mode Block is of a kind that is not served by this build")
        })?;
        let path = local.path.into();
        ("local-volume", Source::Device { path })
    } else if let Some(host) = spec.host_path {
        let kind = host.type_.unwrap_or_default();
        let path = host.path.into();
        ("host-path", Source::Host { path, kind })
    } else if let Some(local) = spec.local {
        let context = pod.spec().and_then(|spec| spec.security_context.as_ref());
        let policy = context.and_then(|context| context.fs_group_change_policy.as_deref());
        let source = Source::Local {
            path: local.path.into(),
            only_on_mismatch: policy == Some("OnRootMismatch"),
        };
        ("local-volume", source)
    } else if let Some(ceph) = spec.cephfs {
        ("cephfs", Source::Ceph(self::ceph(pod, ceph, context).await?))
    } else if let Some(nfs) = spec.nfs {
        let options = spec.mount_options.unwrap_or_default();
        ("nfs", Source::Nfs(Nfs::of(nfs, options)))
    } else {
        return Err(format!(
            "PersistentVolume {name:?} is of a kind that is not served by this build"
        ));
    };
    Ok(Claimed {
        volume: name,
        plugin,
        source,
    })
}

/// A Ceph file system, whose key may be in any namespace: whoever makes volumes may say so.
async fn ceph(pod: &Pod, ceph: CephFSPersistentVolumeSource, context: &Context<'_>) -> Result<Ceph, String> {
    let secret = ceph.secret_ref.unwrap_or_default();
    let name = secret.name.unwrap_or_default();
    let namespace = secret.namespace.filter(|namespace| !namespace.is_empty());
    let key = match namespace.filter(|namespace| namespace != pod.namespace()) {
        _ if name.is_empty() => None,
        None => Some(resolve::own_ceph_key(&name, context.objects).await?),
        Some(other) => {
            let found = Api::<Secret>::namespaced(context.client.clone(), &other)
                .get(&name)
                .await;
            let found = found.map_err(|error| format!("couldn't get secret {other}/{name} err: {}", said(error)))?;
            let data = found.data.unwrap_or_default();
            let data = data.into_iter().map(|(key, value)| (key, value.0)).collect();
            Some(resolve::ceph_key(&name, &data)?)
        }
    };
    let source = CephFSVolumeSource {
        secret_ref: None,
        monitors: ceph.monitors,
        path: ceph.path,
        read_only: ceph.read_only,
        secret_file: ceph.secret_file,
        user: ceph.user,
    };
    Ok(resolve::ceph_with(&source, key))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn only_a_bound_claim_of_its_own_serves_a_pod() {
        let pod = serde_json::from_value(json!({"metadata": {"namespace": "n", "name": "p", "uid": "u"}})).unwrap();
        let claim = |meta: Value, phase: &str| {
            let value = json!({"metadata": meta, "spec": {"volumeName": "v"}, "status": {"phase": phase}});
            serde_json::from_value::<PersistentVolumeClaim>(value).unwrap()
        };
        let owned = json!({"name": "p-x", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true}]});
        assert_eq!(bound(&pod, &claim(json!({}), "Bound"), false).unwrap(), "v");
        assert_eq!(bound(&pod, &claim(owned, "Bound"), true).unwrap(), "v");
        assert_eq!(
            bound(&pod, &claim(json!({}), "Pending"), false).unwrap_err(),
            "PVC is not bound"
        );
        let deleted = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        assert_eq!(
            bound(&pod, &claim(deleted, "Bound"), false).unwrap_err(),
            "PVC is being deleted"
        );
        let stranger = bound(&pod, &claim(json!({"name": "p-x"}), "Bound"), true).unwrap_err();
        assert_eq!(
            stranger,
            "PVC \"n/p-x\" was not created for pod \"n/p\" (pod is not owner)"
        );
    }
}
