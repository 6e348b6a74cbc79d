//! NamespaceLifecycle: nothing is made in a namespace that is not there or on its way out.

use api::{Object, Status, status};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Namespace;

use super::{Attributes, Operation, Plugin};
use crate::registry::lookup;

/// The namespaces that are never deleted.
const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];

pub(super) struct NamespaceLifecycle;

#[async_trait]
impl Plugin for NamespaceLifecycle {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        let resource = attributes.call.resource;
        match attributes.operation {
            Operation::Create => resource.namespaced,
            Operation::Delete => resource.storage == "namespaces",
            Operation::Update => false,
        }
    }

    async fn mutate(&self, attributes: &Attributes<'_>, object: &mut dyn Object) -> Result<(), Status> {
        let call = attributes.call;
        let (Some(name), Some(namespaces)) = (call.namespace, call.server.catalogue.find("", "v1", "namespaces"))
        else {
            return Ok(());
        };
        let Some(found) = lookup(&*call.server.store, namespaces, None, name).await? else {
            return Err(status::not_found("", "namespaces", name));
        };
        let terminating = found.as_any().downcast_ref::<Namespace>().is_some_and(is_terminating);
        if terminating {
            Err(refusal(attributes, object, name))
        } else {
            Ok(())
        }
    }

    async fn validate(&self, attributes: &Attributes<'_>, _object: Option<&dyn Object>) -> Result<(), Status> {
        let name = attributes.call.name.unwrap_or_default();
        if attributes.operation == Operation::Delete && IMMORTAL.contains(&name) {
            return Err(status::forbidden(
                "",
                "namespaces",
                name,
                "this namespace may not be deleted",
            ));
        }
        Ok(())
    }
}

fn is_terminating(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_some()
        || namespace
            .status
            .as_ref()
            .is_some_and(|status| status.phase.as_deref() == Some("Terminating"))
}

fn refusal(attributes: &Attributes<'_>, object: &dyn Object, namespace: &str) -> Status {
    let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
    let mut refusal = attributes.forbidden(object, &why).as_meta().clone();
    let cause = status::cause(
        "NamespaceTerminating",
        format!("namespace {namespace} is being terminated"),
        "metadata.namespace",
    );
    refusal
        .details
        .get_or_insert_default()
        .causes
        .get_or_insert_default()
        .push(cause);
    refusal.into()
}
