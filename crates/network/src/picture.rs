//! Services and their slices as they come in, by the Service's name: what the proxy and DNS decide on.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use client::Change;
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};

/// Which Service a slice belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A Service's `namespace/name`.
pub(crate) type Name = Arc<str>;

/// A Service with its slices, as observed.
#[derive(Debug, Clone)]
pub struct Observed {
    /// The Service.
    pub service: Arc<Service>,
    /// Those that name it.
    pub slices: Vec<Arc<EndpointSlice>>,
}

/// Services and their slices, by the Service's `namespace/name`.
#[derive(Default)]
pub(crate) struct Picture {
    services: HashMap<Name, Arc<Service>>,
    slices: HashMap<Name, BTreeMap<String, Arc<EndpointSlice>>>,
}

impl Picture {
    /// Takes in a change of a Service, and names it.
    pub(crate) fn service(&mut self, change: Change<Service>) -> Option<Name> {
        let meta = &change.object().metadata;
        let name = key(meta.namespace.as_deref(), meta.name.as_deref()?);
        match change {
            Change::Applied { object, .. } => self.services.insert(name.clone(), object),
            Change::Deleted(_) => self.services.remove(&name),
        };
        Some(name)
    }

    /// Takes in a change of a slice, and names the Services that it belongs to and belonged to.
    pub(crate) fn slice(&mut self, change: Change<EndpointSlice>) -> Vec<Name> {
        let mut touched = Vec::new();
        let own = change.object().metadata.name.clone().unwrap_or_default();
        if let Change::Applied {
            previous: Some(previous),
            object,
        } = &change
            && service_of(previous) != service_of(object)
            && let Some(service) = service_of(previous)
        {
            self.remove_slice(&service, &own);
            touched.push(service);
        }
        if let Some(service) = service_of(change.object()) {
            match change {
                Change::Applied { object, .. } => {
                    self.slices.entry(service.clone()).or_default().insert(own, object);
                }
                Change::Deleted(_) => self.remove_slice(&service, &own),
            }
            touched.push(service);
        }
        touched
    }

    fn remove_slice(&mut self, service: &Name, slice: &str) {
        if let Some(slices) = self.slices.get_mut(service) {
            slices.remove(slice);
            if slices.is_empty() {
                self.slices.remove(service);
            }
        }
    }

    /// A Service with its slices, if it is there.
    pub(crate) fn get(&self, name: &str) -> Option<Observed> {
        let service = self.services.get(name)?.clone();
        let slices = self.slices.get(name).map(|slices| slices.values().cloned().collect());
        Some(Observed {
            service,
            slices: slices.unwrap_or_default(),
        })
    }
}

fn service_of(slice: &EndpointSlice) -> Option<Name> {
    let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some(key(slice.metadata.namespace.as_deref(), service))
}

/// The name of a Service.
pub(crate) fn key(namespace: Option<&str>, name: &str) -> Name {
    format!("{}/{name}", namespace.unwrap_or_default()).into()
}
