//! What a pod takes from a node, as the numbers that filters and scores compare.

use std::collections::BTreeMap;

use api::pod;
use k8s_openapi::api::core::v1::Pod;

/// What a container that asks for nothing is counted with in scores, so that such pods spread too.
const DEFAULT_MILLI_CPU: i64 = 100;
const DEFAULT_MEMORY_BYTES: i64 = 200 * 1024 * 1024;

/// The resources of a pod, or of all pods of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Processor time, in thousandths of a CPU.
    pub milli_cpu: i64,
    /// Memory, in bytes.
    pub memory: i64,
    /// Local disk, in bytes.
    pub ephemeral_storage: i64,
    /// Other resources, by name.
    pub scalars: BTreeMap<String, i64>,
    /// As `milli_cpu`, with something put in for containers that ask for nothing.
    pub scored_milli_cpu: i64,
    /// As `memory`, with something put in for containers that ask for nothing.
    pub scored_memory: i64,
}

impl Demand {
    /// What a pod asks for.
    pub fn of(pod: &Pod) -> Self {
        let mut demand = Self::from_amounts(pod::observed_requests(pod));
        demand.scored_milli_cpu = demand.milli_cpu;
        demand.scored_memory = demand.memory;
        if let Some(spec) = pod.spec.as_ref().filter(|spec| !pod::has_pod_level_resources(spec)) {
            for container in &spec.containers {
                let requests = container
                    .resources
                    .as_ref()
                    .and_then(|resources| resources.requests.as_ref());
                let asks = |name: &str| requests.is_some_and(|requests| requests.contains_key(name));
                if !asks("cpu") {
                    demand.scored_milli_cpu += DEFAULT_MILLI_CPU;
                }
                if !asks("memory") {
                    demand.scored_memory += DEFAULT_MEMORY_BYTES;
                }
            }
        }
        demand
    }

    /// Amounts by name as numbers, as for a node's allocatable.
    pub(crate) fn from_amounts(amounts: pod::Resources) -> Self {
        let mut demand = Demand::default();
        for (name, quantity) in amounts {
            match name.as_str() {
                "cpu" => demand.milli_cpu = quantity.millis(),
                "memory" => demand.memory = quantity.value(),
                "ephemeral-storage" => demand.ephemeral_storage = quantity.value(),
                "pods" => {}
                _ => {
                    demand.scalars.insert(name, quantity.value());
                }
            }
        }
        demand
    }

    pub(crate) fn add(&mut self, other: &Demand) {
        self.each(other, |own, other| *own = own.saturating_add(other));
    }

    pub(crate) fn subtract(&mut self, other: &Demand) {
        self.each(other, |own, other| *own = own.saturating_sub(other));
    }

    fn each(&mut self, other: &Demand, change: impl Fn(&mut i64, i64)) {
        change(&mut self.milli_cpu, other.milli_cpu);
        change(&mut self.memory, other.memory);
        change(&mut self.ephemeral_storage, other.ephemeral_storage);
        change(&mut self.scored_milli_cpu, other.scored_milli_cpu);
        change(&mut self.scored_memory, other.scored_memory);
        for (name, amount) in &other.scalars {
            change(self.scalars.entry(name.clone()).or_default(), *amount);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "the fixtures are constants")]
    use super::*;
    use serde_json::json;

    #[test]
    fn amounts() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [
            {"name": "a", "resources": {"requests": {"cpu": "250m", "memory": "1Gi", "example.com/gpu": "2"}}},
            {"name": "b"},
        ]}}))
        .unwrap();
        let demand = Demand::of(&pod);
        assert_eq!((demand.milli_cpu, demand.memory), (250, 1 << 30));
        assert_eq!(demand.scalars["example.com/gpu"], 2);
        assert_eq!(
            (demand.scored_milli_cpu, demand.scored_memory),
            (350, (1 << 30) + DEFAULT_MEMORY_BYTES)
        );
        let mut sum = demand.clone();
        sum.add(&demand);
        assert_eq!(sum.scalars["example.com/gpu"], 4);
        sum.subtract(&demand);
        assert_eq!(sum, demand);
    }
}
