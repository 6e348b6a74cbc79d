//! DefaultStorageClass: a claim that names no class is of the one that is marked as the default, if there is one.

use api::kinds::storage::class::is_default;
use api::{Object, Status};
use async_trait::async_trait;
use k8s_openapi::api::{core::v1::PersistentVolumeClaim, storage::v1::StorageClass};
use store::ListOptions;

use super::{Attributes, Plugin};
use crate::registry::{prefix, store_error};

pub(super) struct DefaultStorageClass;

/// Of several that are marked, the newest; of those of one age, the first by name.
fn choose(classes: impl Iterator<Item = StorageClass>) -> Option<String> {
    let mut marked: Vec<StorageClass> = classes.filter(is_default).collect();
    marked.sort_by(|a, b| {
        let (a, b) = (&a.metadata, &b.metadata);
        b.creation_timestamp
            .cmp(&a.creation_timestamp)
            .then_with(|| a.name.cmp(&b.name))
    });
    marked.into_iter().next()?.metadata.name
}

#[async_trait]
impl Plugin for DefaultStorageClass {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.creates("persistentvolumeclaims")
    }

    async fn mutate(&self, attributes: &Attributes<'_>, object: &mut dyn Object) -> Result<(), Status> {
        let call = attributes.call;
        let Some(spec) = object
            .as_any_mut()
            .downcast_mut::<PersistentVolumeClaim>()
            .and_then(|claim| claim.spec.as_mut())
            .filter(|spec| spec.storage_class_name.is_none())
        else {
            return Ok(());
        };
        let Some(classes) = call.server.catalogue.find("storage.k8s.io", "v1", "storageclasses") else {
            return Ok(());
        };
        let listing = call
            .server
            .store
            .list(&prefix(classes, None), ListOptions::default())
            .await
            .map_err(store_error)?;
        let mut all = Vec::with_capacity(listing.entries.len());
        for entry in &listing.entries {
            let object = classes.strategy.load(&entry.value)?;
            all.extend(object.as_any().downcast_ref::<StorageClass>().cloned());
        }
        spec.storage_class_name = choose(all.into_iter());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test fails by panicking.
    use serde_json::json;

    use super::*;

    #[test]
    fn the_newest_that_is_marked_is_chosen() {
        let class = |name: &str, default: &str, created: &str| -> StorageClass {
            let annotations = json!({"storageclass.kubernetes.io/is-default-class": default});
            let metadata = json!({"name": name, "annotations": annotations, "creationTimestamp": created});
            serde_json::from_value(json!({"metadata": metadata, "provisioner": "x"})).unwrap()
        };
        let (old, new) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        let all = [
            class("a", "true", old),
            class("c", "true", new),
            class("b", "true", new),
            class("d", "false", new),
        ];
        assert_eq!(choose(all.into_iter()).as_deref(), Some("b"));
        assert_eq!(choose([class("d", "false", old)].into_iter()), None);
    }
}
