//! Services, pods and slices by namespace and Service, so that a change costs what it concerns and not all there is.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use client::Change;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Key, SERVICE_NAME, key_of, pods, split};

const ZONE: &str = "topology.kubernetes.io/zone";

/// What is known.
#[derive(Default)]
pub struct Index {
    /// By namespace and name.
    services: HashMap<String, HashMap<String, Arc<Service>>>,
    pods: HashMap<String, BTreeMap<String, Arc<Pod>>>,
    /// By Service and name.
    slices: HashMap<Key, BTreeMap<String, Arc<EndpointSlice>>>,
    /// By node.
    zones: HashMap<String, String>,
}

/// What concerns one Service.
pub struct Observed<'a> {
    pub service: Option<&'a Service>,
    /// Those that the Service's selector selects; none without a selector.
    pub pods: Vec<&'a Pod>,
    /// Those that name the Service.
    pub slices: Vec<&'a Arc<EndpointSlice>>,
    pub zones: &'a HashMap<String, String>,
}

impl Index {
    /// Takes in a change of a Service.
    pub fn service(&mut self, key: &str, change: &Change<Service>) {
        let (namespace, name) = split(key);
        match change {
            Change::Applied { object, .. } => {
                let services = self.services.entry(namespace.to_owned()).or_default();
                services.insert(name.to_owned(), object.clone());
            }
            Change::Deleted(_) => remove(&mut self.services, namespace, |services| {
                services.remove(name);
                services.is_empty()
            }),
        }
    }

    /// Takes in a change of a pod, and says which Services it concerns.
    pub fn pod(&mut self, change: &Change<Pod>) -> Vec<Key> {
        let meta = &change.object().metadata;
        let (namespace, name) = (
            meta.namespace.clone().unwrap_or_default(),
            meta.name.clone().unwrap_or_default(),
        );
        let before = match change {
            Change::Applied { object, .. } => {
                let pods = self.pods.entry(namespace.clone()).or_default();
                let before = pods.insert(name, object.clone());
                if before.as_ref().is_some_and(|before| !pods::differ(before, object)) {
                    return Vec::new();
                }
                before
            }
            Change::Deleted(_) => {
                let before = self.pods.get_mut(&namespace).and_then(|pods| pods.remove(&name));
                remove(&mut self.pods, &namespace, |pods| pods.is_empty());
                before
            }
        };
        let services = self.services.get(&namespace).into_iter().flatten();
        let concerned = services.filter(|(_, service)| {
            pods::selects(service, change.object()) || before.as_ref().is_some_and(|pod| pods::selects(service, pod))
        });
        concerned.map(|(name, _)| format!("{namespace}/{name}")).collect()
    }

    /// Takes in a change of a slice, and says which Service it concerns.
    pub fn slice(&mut self, change: &Change<EndpointSlice>) -> Option<Key> {
        let slice = change.object();
        let key = service_of(&slice.metadata)?;
        match change {
            Change::Applied { object, .. } => self.put(key.clone(), object.clone()),
            Change::Deleted(slice) => self.removed(slice),
        }
        Some(key)
    }

    /// Takes in a change of a node, and says whether its zone is another than before.
    pub fn node(&mut self, change: &Change<Node>) -> bool {
        let meta = &change.object().metadata;
        let name = meta.name.clone().unwrap_or_default();
        let zone = match change {
            Change::Applied { object, .. } => object
                .metadata
                .labels
                .as_ref()
                .and_then(|labels| labels.get(ZONE))
                .cloned(),
            Change::Deleted(_) => None,
        };
        let before = match zone.clone() {
            Some(zone) => self.zones.insert(name, zone),
            None => self.zones.remove(&name),
        };
        before != zone
    }

    /// Takes in what was just written, before the watch brings it.
    pub fn written(&mut self, slice: EndpointSlice) {
        if let Some(key) = service_of(&slice.metadata) {
            self.put(key, Arc::new(slice));
        }
    }

    /// Forgets a slice that is gone.
    pub fn removed(&mut self, slice: &EndpointSlice) {
        let name = slice.metadata.name.as_deref().unwrap_or_default();
        if let Some(key) = service_of(&slice.metadata) {
            remove(&mut self.slices, &key, |slices| {
                // Another one of that name may be there already.
                if slices
                    .get(name)
                    .is_some_and(|known| known.metadata.uid == slice.metadata.uid)
                {
                    slices.remove(name);
                }
                slices.is_empty()
            });
        }
    }

    fn put(&mut self, key: Key, slice: Arc<EndpointSlice>) {
        let slices = self.slices.entry(key).or_default();
        let name = slice.metadata.name.clone().unwrap_or_default();
        let newer = slices.get(&name).is_none_or(|known| {
            known.metadata.uid != slice.metadata.uid || revision(&slice.metadata) >= revision(&known.metadata)
        });
        if newer {
            slices.insert(name, slice);
        }
    }

    /// Every Service.
    pub fn services(&self) -> Vec<Key> {
        let all = self.services.values().flat_map(|services| services.values());
        all.map(|service| key_of(&service.metadata)).collect()
    }

    /// Decides on a Service by what is known of it.
    pub fn observe<T>(&self, key: &str, decide: impl FnOnce(Observed<'_>) -> T) -> T {
        let (namespace, name) = split(key);
        let service = self.services.get(namespace).and_then(|services| services.get(name));
        let pods = self.pods.get(namespace).into_iter().flat_map(|pods| pods.values());
        decide(Observed {
            service: service.map(|service| &**service),
            pods: match service {
                Some(service) => pods
                    .filter(|pod| pods::selects(service, pod))
                    .map(|pod| &**pod)
                    .collect(),
                None => Vec::new(),
            },
            slices: self
                .slices
                .get(key)
                .into_iter()
                .flat_map(|slices| slices.values())
                .collect(),
            zones: &self.zones,
        })
    }
}

fn service_of(meta: &ObjectMeta) -> Option<Key> {
    let service = meta.labels.as_ref()?.get(SERVICE_NAME)?;
    Some(format!("{}/{service}", meta.namespace.as_deref().unwrap_or_default()))
}

fn revision(meta: &ObjectMeta) -> u64 {
    meta.resource_version
        .as_deref()
        .and_then(|version| version.parse().ok())
        .unwrap_or_default()
}

/// Changes the entry of a key, and takes it away when the change says that nothing is left.
fn remove<V>(map: &mut HashMap<String, V>, key: &str, change: impl FnOnce(&mut V) -> bool) {
    if map.get_mut(key).is_some_and(change) {
        map.remove(key);
    }
}
