//! Services, pods and slices by namespace and Service, so that a change costs what it concerns and not all there is.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
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
    /// By namespace.
    services: HashMap<String, Services>,
    pods: HashMap<String, BTreeMap<String, Arc<Pod>>>,
    /// By Service and name.
    slices: HashMap<Key, BTreeMap<String, Arc<EndpointSlice>>>,
    /// By node.
    zones: HashMap<String, String>,
}

/// The Services of a namespace.
#[derive(Default)]
struct Services {
    by_name: HashMap<String, Arc<Service>>,
    /// The names of those whose selector begins with this `key=value`: a pod is asked about by few of many Services.
    by_label: HashMap<String, HashSet<String>>,
}

impl Services {
    fn put(&mut self, name: &str, service: Arc<Service>) {
        self.take(name);
        if let Some(label) = first_label(&service) {
            self.by_label.entry(label).or_default().insert(name.to_owned());
        }
        self.by_name.insert(name.to_owned(), service);
    }

    fn take(&mut self, name: &str) {
        let service = self.by_name.remove(name);
        if let Some(label) = service.and_then(|service| first_label(&service)) {
            remove(&mut self.by_label, &label, |names| {
                names.remove(name);
                names.is_empty()
            });
        }
    }

    /// The names of those that select a pod.
    fn selecting<'a>(&'a self, pod: &'a Pod) -> impl Iterator<Item = &'a String> {
        let labels = pod.metadata.labels.iter().flatten();
        let asking = labels.filter_map(|(key, value)| self.by_label.get(&label(key, value)));
        asking.flatten().filter(|name| {
            let service = self.by_name.get(*name);
            service.is_some_and(|service| pods::selects(service, pod))
        })
    }
}

fn first_label(service: &Service) -> Option<String> {
    let (key, value) = service.spec.as_ref()?.selector.as_ref()?.first_key_value()?;
    Some(label(key, value))
}

fn label(key: &str, value: &str) -> String {
    format!("{key}={value}")
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
                services.put(name, object.clone());
            }
            Change::Deleted(_) => remove(&mut self.services, namespace, |services| {
                services.take(name);
                services.by_name.is_empty()
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
        let Some(services) = self.services.get(&namespace) else {
            return Vec::new();
        };
        let now = services.selecting(change.object());
        let then = before.iter().flat_map(|pod| services.selecting(pod));
        let concerned: BTreeSet<&String> = now.chain(then).collect();
        concerned
            .into_iter()
            .map(|name| format!("{namespace}/{name}"))
            .collect()
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

    /// Whether there is the Service.
    pub fn has_service(&self, key: &str) -> bool {
        let (namespace, name) = split(key);
        let services = self.services.get(namespace);
        services.is_some_and(|services| services.by_name.contains_key(name))
    }

    /// Every Service.
    pub fn services(&self) -> Vec<Key> {
        let all = self.services.values().flat_map(|services| services.by_name.values());
        all.map(|service| key_of(&service.metadata)).collect()
    }

    /// Decides on a Service by what is known of it.
    pub fn observe<T>(&self, key: &str, decide: impl FnOnce(Observed<'_>) -> T) -> T {
        let (namespace, name) = split(key);
        let service = self
            .services
            .get(namespace)
            .and_then(|services| services.by_name.get(name));
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use serde_json::{Value, json};

    use super::*;

    fn service(name: &str, selector: Value) -> (String, Change<Service>) {
        let object = json!({"metadata": {"name": name, "namespace": "n"}, "spec": {"selector": selector}});
        let object: Arc<Service> = Arc::new(serde_json::from_value(object).unwrap());
        (format!("n/{name}"), Change::Applied { object, previous: None })
    }

    fn pod(namespace: &str, labels: Value) -> Change<Pod> {
        let object = json!({"metadata": {"name": "p", "namespace": namespace, "labels": labels}});
        let object: Arc<Pod> = Arc::new(serde_json::from_value(object).unwrap());
        Change::Applied { object, previous: None }
    }

    #[test]
    fn a_pod_concerns_the_services_that_select_it_and_those_that_did() {
        let mut index = Index::default();
        for (name, selector) in [
            ("a", json!({"app": "a"})),
            ("a-1", json!({"app": "a", "version": "1"})),
            ("b", json!({"app": "b"})),
            ("none", Value::Null),
            ("empty", json!({})),
        ] {
            let (key, change) = service(name, selector);
            index.service(&key, &change);
        }
        assert_eq!(
            index.pod(&pod("n", json!({"app": "a", "version": "1"}))),
            ["n/a", "n/a-1"]
        );
        assert_eq!(
            index.pod(&pod("n", json!({"app": "a", "version": "1"}))).len(),
            0,
            "nothing changed"
        );
        assert_eq!(
            index.pod(&pod("n", json!({"app": "a", "version": "2"}))),
            ["n/a", "n/a-1"]
        );
        assert_eq!(
            index.pod(&pod("n", json!({"app": "b", "version": "2"}))),
            ["n/a", "n/b"]
        );
        assert_eq!(index.pod(&pod("other", json!({"app": "b"}))).len(), 0);

        let (key, change) = service("b", json!({"version": "2"}));
        index.service(&key, &change);
        let (key, Change::Applied { object, .. }) = service("a", Value::Null) else {
            unreachable!()
        };
        index.service(&key, &Change::Deleted(object));
        assert_eq!(index.pod(&pod("n", json!({"app": "a", "version": "2"}))), ["n/b"]);
        assert_eq!(index.pod(&pod("n", json!({"app": "b"}))), ["n/b"]);
        assert_eq!(index.pod(&pod("n", json!({"app": "c"}))).len(), 0);
        assert_eq!(index.services().len(), 4);
    }
}
