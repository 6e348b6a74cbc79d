//! Admission: what the cluster adds to objects, and what it refuses, beyond the rules of their kinds.
//!
//! Each plugin is asked twice: to change the object before it is validated, and to refuse it after. Plugins run in
//! upstream's order. Webhooks are to become one more plugin.

mod default_storage_class;
mod namespace_lifecycle;
mod pod_tolerations;
mod priority;
mod runtime_class;
mod service_account;

use api::{Object, Status};
use async_trait::async_trait;

use crate::call::Call;

/// What is being done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
}

/// What a plugin may know of a request.
pub(crate) struct Attributes<'a> {
    pub call: &'a Call<'a>,
    pub operation: Operation,
}

impl Attributes<'_> {
    /// Whether a whole object of a core kind is created.
    fn creates(&self, plural: &str) -> bool {
        let resource = self.call.resource;
        self.operation == Operation::Create
            && self.call.subresource.is_none()
            && resource.group.is_empty()
            && resource.plural == plural
    }

    /// `… is forbidden`, of the object at hand.
    fn forbidden(&self, object: &dyn Object, why: &str) -> Status {
        let meta = object.metadata();
        let name = meta
            .name
            .as_deref()
            .or(meta.generate_name.as_deref())
            .unwrap_or_default();
        api::status::forbidden(self.call.resource.group, self.call.resource.plural, name, why)
    }
}

/// One admission plugin.
#[async_trait]
pub(crate) trait Plugin: Send + Sync {
    /// Whether the plugin has anything to do with a request: most have not, and are passed by at no cost.
    fn handles(&self, attributes: &Attributes<'_>) -> bool;

    /// Changes the object, or refuses it.
    async fn mutate(&self, attributes: &Attributes<'_>, object: &mut dyn Object) -> Result<(), Status> {
        let _ = (attributes, object);
        Ok(())
    }

    /// Refuses what may not be; a deletion has no object.
    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&dyn Object>) -> Result<(), Status> {
        let _ = (attributes, object);
        Ok(())
    }
}

/// The plugins, in their order.
pub(crate) struct Admission(Vec<Box<dyn Plugin>>);

impl Admission {
    /// The built-in plugins.
    pub fn builtin() -> Self {
        Self(vec![
            Box::new(namespace_lifecycle::NamespaceLifecycle),
            Box::new(service_account::ServiceAccount),
            Box::new(priority::Priority),
            Box::new(pod_tolerations::DefaultTolerationSeconds),
            Box::new(default_storage_class::DefaultStorageClass),
            Box::new(runtime_class::RuntimeClass),
        ])
    }

    pub async fn mutate(&self, attributes: &Attributes<'_>, object: &mut dyn Object) -> Result<(), Status> {
        for plugin in self.0.iter().filter(|plugin| plugin.handles(attributes)) {
            plugin.mutate(attributes, object).await?;
        }
        Ok(())
    }

    pub async fn validate(&self, attributes: &Attributes<'_>, object: Option<&dyn Object>) -> Result<(), Status> {
        for plugin in self.0.iter().filter(|plugin| plugin.handles(attributes)) {
            plugin.validate(attributes, object).await?;
        }
        Ok(())
    }
}
