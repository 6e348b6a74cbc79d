//! Who controls an object: the reference to its controller, and who may become it.

use std::sync::Arc;

use api::selector::LabelSelector;
use client::kube::api::{Api, Patch, PatchParams};
use client::kube::{Client, Error, Resource};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::controller;

/// The object's controller.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller == Some(true))
}

/// The reference that makes `owner` the controller of another object.
pub fn reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// What an object is to one who looks for its own by labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is its controller, and is to stay so.
    Own,
    /// Nobody is; it may become its controller.
    Adopt,
    /// It is its controller, but the labels say no longer.
    Release,
    /// It is none of its business.
    Leave,
}

/// What `object` is to `owner`, whose own are those that `selector` selects.
pub fn claim(owner: &ObjectMeta, selector: &LabelSelector, object: &ObjectMeta) -> Claim {
    let selected = selector.matches(object.labels.as_ref());
    let ending = owner.deletion_timestamp.is_some();
    match controller_of(object) {
        Some(controller) if Some(&controller.uid) != owner.uid.as_ref() => Claim::Leave,
        Some(_) if selected => Claim::Own,
        Some(_) if ending => Claim::Leave,
        Some(_) => Claim::Release,
        None if ending || !selected || object.deletion_timestamp.is_some() => Claim::Leave,
        None => Claim::Adopt,
    }
}

/// Makes `owner` the controller of objects that have none. The owner is read anew before: its deletion may not have
/// been heard of yet, and what it adopted then would go with it.
pub async fn adopt<O, K>(client: &Client, owner: &O, objects: &[Arc<K>]) -> Result<(), Error>
where
    O: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    if objects.is_empty() {
        return Ok(());
    }
    let namespace = owner.meta().namespace.as_deref().unwrap_or_default();
    let owners = Api::<O>::namespaced(client.clone(), namespace);
    let fresh = match owners.get(owner.meta().name.as_deref().unwrap_or_default()).await {
        Err(error) => return controller::ignore_gone(Err::<(), _>(error)),
        Ok(fresh) => fresh,
    };
    if fresh.meta().uid != owner.meta().uid || fresh.meta().deletion_timestamp.is_some() {
        return Ok(());
    }
    for object in objects {
        patch_references(client, &**object, json!([reference(owner)])).await?;
    }
    Ok(())
}

/// Lets go of objects that `owner` controls.
pub async fn release<O, K>(client: &Client, owner: &O, objects: &[Arc<K>]) -> Result<(), Error>
where
    O: Resource<DynamicType = ()>,
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    for object in objects {
        let gone = json!([{"$patch": "delete", "uid": owner.meta().uid}]);
        patch_references(client, &**object, gone).await?;
    }
    Ok(())
}

async fn patch_references<K>(client: &Client, object: &K, references: serde_json::Value) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let meta = object.meta();
    let api = Api::<K>::namespaced(client.clone(), meta.namespace.as_deref().unwrap_or_default());
    // With the uid, so that another object of the name is not meant.
    let patch = json!({"metadata": {"uid": meta.uid, "ownerReferences": references}});
    let name = meta.name.as_deref().unwrap_or_default();
    controller::ignore_gone(api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    #[test]
    fn claims() {
        let meta = |value: serde_json::Value| serde_json::from_value::<ObjectMeta>(value).unwrap();
        let selector: LabelSelector = "app=web".parse().unwrap();
        let owner = meta(json!({"uid": "u"}));
        let ending = meta(json!({"uid": "u", "deletionTimestamp": "2026-01-01T00:00:00Z"}));
        let by = |uid: &str| json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": uid, "controller": true}]);
        let (web, other) = (json!({"app": "web"}), json!({"app": "other"}));
        for (owner, object, want) in [
            (&owner, json!({"labels": web, "ownerReferences": by("u")}), Claim::Own),
            (&ending, json!({"labels": web, "ownerReferences": by("u")}), Claim::Own),
            (
                &owner,
                json!({"labels": other, "ownerReferences": by("u")}),
                Claim::Release,
            ),
            (
                &ending,
                json!({"labels": other, "ownerReferences": by("u")}),
                Claim::Leave,
            ),
            (&owner, json!({"labels": web, "ownerReferences": by("x")}), Claim::Leave),
            (&owner, json!({"labels": web}), Claim::Adopt),
            (&ending, json!({"labels": web}), Claim::Leave),
            (&owner, json!({"labels": other}), Claim::Leave),
            (
                &owner,
                json!({"labels": web, "deletionTimestamp": "2026-01-01T00:00:00Z"}),
                Claim::Leave,
            ),
        ] {
            assert_eq!(claim(owner, &selector, &meta(object.clone())), want, "{object}");
        }
    }
}
