//! A Service and all that concerns it, for tests.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::Change;
use super::index::Observed;

pub struct World {
    pub service: Option<Service>,
    pub pods: Vec<Pod>,
    pub slices: Vec<Arc<EndpointSlice>>,
    pub zones: HashMap<String, String>,
    written: usize,
}

impl World {
    pub fn new(service: Service) -> Self {
        Self {
            service: Some(service),
            pods: Vec::new(),
            slices: Vec::new(),
            zones: HashMap::new(),
            written: 0,
        }
    }

    pub fn observe<T>(&self, decide: impl FnOnce(Observed<'_>) -> T) -> T {
        decide(Observed {
            service: self.service.as_ref(),
            pods: self.pods.iter().collect(),
            slices: self.slices.iter().collect(),
            zones: &self.zones,
        })
    }

    /// Decides, and does to the slices what was decided, as the API server would.
    pub fn step(&mut self, decide: impl FnOnce(Observed<'_>) -> Vec<Change>) -> Vec<Change> {
        let changes = self.observe(decide);
        for change in &changes {
            match change {
                Change::Create(slice) => {
                    self.written += 1;
                    let mut slice = slice.clone();
                    let prefix = slice.metadata.generate_name.clone().unwrap();
                    slice.metadata.name = Some(format!("{prefix}{}", self.written));
                    self.slices.push(Arc::new(slice));
                }
                Change::Update(slice) => {
                    let at = self
                        .slices
                        .iter()
                        .position(|old| old.metadata.name == slice.metadata.name);
                    self.slices[at.unwrap()] = Arc::new(slice.clone());
                }
                Change::Delete(slice) => self.slices.retain(|old| old.metadata.name != slice.metadata.name),
            }
        }
        changes
    }
}

/// The Service `web`, with what is different of its spec.
pub fn service(spec: Value) -> Service {
    let mut service = json!({
        "metadata": {"name": "web", "namespace": "n", "uid": "u", "labels": {"app": "web"},
            "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.5", "selector": {"app": "web"},
            "ports": [{"port": 80, "targetPort": 8090, "protocol": "TCP"}]},
    });
    merge(&mut service["spec"], spec);
    serde_json::from_value(service).unwrap()
}

/// A ready pod of it, with what is different.
pub fn pod(number: u32, different: Value) -> Pod {
    let ip = format!("10.244.{}.{}", number / 256, number % 256);
    let mut pod = json!({
        "metadata": {"name": format!("web-{number}"), "namespace": "n", "uid": format!("p{number}"), "labels": {"app": "web"}},
        "spec": {"nodeName": "node",
            "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 8090, "protocol": "TCP"}]}]},
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-02T00:00:00Z"}]},
    });
    merge(&mut pod, different);
    serde_json::from_value(pod).unwrap()
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}
