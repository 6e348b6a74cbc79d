//! ServiceAccount: a pod that names no account runs as its namespace's default one.

use api::{Object, Status};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;

use super::{Attributes, Plugin};

/// The annotation of a pod that only mirrors one which a kubelet runs from a file.
const MIRROR: &str = "kubernetes.io/config.mirror";

pub(super) struct ServiceAccount;

#[async_trait]
impl Plugin for ServiceAccount {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.creates("pods")
    }

    async fn mutate(&self, _attributes: &Attributes<'_>, object: &mut dyn Object) -> Result<(), Status> {
        let mirror = object
            .metadata()
            .annotations
            .as_ref()
            .is_some_and(|all| all.contains_key(MIRROR));
        if mirror {
            return Ok(());
        }
        if let Some(spec) = object
            .as_any_mut()
            .downcast_mut::<Pod>()
            .and_then(|pod| pod.spec.as_mut())
            && spec.service_account_name.as_deref().is_none_or(str::is_empty)
        {
            spec.service_account_name = Some("default".into());
            spec.service_account = Some("default".into());
        }
        Ok(())
    }
}
