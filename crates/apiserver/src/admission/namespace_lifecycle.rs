//! NamespaceLifecycle: nothing is made in a namespace that is not there or on its way out.

use api::{Object, Status, status};
use async_trait::async_trait;

use super::{Attributes, Operation, Plugin};
use crate::registry::{facets::Facets, key, store_error};

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
        let found = call
            .server
            .store
            .get(&key(namespaces, None, name))
            .await
            .map_err(store_error)?;
        match found {
            None => Err(status::not_found("", "namespaces", name)),
            Some(entry) if entry.facets(|_| Facets::default()).is_terminating(&entry) => {
                Err(refusal(attributes, object, name))
            }
            Some(_) => Ok(()),
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
