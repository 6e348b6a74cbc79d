//! Which pod goes first, and what it is told.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::Pod;

use super::thresholds::{Observations, Signal, Threshold};
use crate::pods::pod::{PodExt, Role};

/// Space and inodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Files {
    /// Bytes on disk.
    pub bytes: u64,
    /// Files and directories.
    pub inodes: u64,
}

impl Files {
    fn plus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes + other.bytes,
            inodes: self.inodes + other.inodes,
        }
    }
}

/// What a container uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ContainerUsage {
    /// Its working set in bytes.
    pub memory: u64,
    /// What it wrote into its own layer.
    pub layer: Files,
    /// Its logs.
    pub logs: Files,
}

/// What a pod uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Its working set in bytes.
    pub memory: u64,
    /// Its processes.
    pub processes: u64,
    /// By container.
    pub containers: BTreeMap<String, ContainerUsage>,
    /// Its volumes on the node's disk.
    pub volumes: Files,
}

impl Usage {
    /// What it has on the file system that a signal is about: with one for all, everything.
    fn files(&self, signal: Signal, separate: bool) -> Files {
        let of =
            |part: fn(&ContainerUsage) -> Files| self.containers.values().map(part).fold(Files::default(), Files::plus);
        let (layers, others) = (of(|usage| usage.layer), of(|usage| usage.logs).plus(self.volumes));
        match signal {
            Signal::ImageFsAvailable | Signal::ImageFsInodesFree if separate => layers,
            Signal::NodeFsAvailable | Signal::NodeFsInodesFree if separate => others,
            _ => layers.plus(others),
        }
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Orders pods by who goes first: those that use more than they asked for, then the lower priority, then who uses the most above what
/// they asked for. For process numbers, which nobody asks for: the lower priority, then who has the most. A pod of which nothing is known
/// goes before those of which something is. `separate` says that images have a file system of their own.
pub fn rank<P: AsRef<Pod>>(pods: &mut [(P, Option<Usage>)], signal: Signal, separate: bool) {
    let asked = |pod: &Pod| {
        let resource = match signal {
            Signal::MemoryAvailable => "memory",
            Signal::NodeFsAvailable | Signal::ImageFsAvailable => "ephemeral-storage",
            _ => return 0,
        };
        api::pod::requests(pod).get(resource).map_or(0, |asked| asked.value())
    };
    let used = |usage: &Usage| match signal {
        Signal::MemoryAvailable => signed(usage.memory),
        Signal::PidAvailable => signed(usage.processes),
        Signal::NodeFsAvailable | Signal::ImageFsAvailable => signed(usage.files(signal, separate).bytes),
        Signal::NodeFsInodesFree | Signal::ImageFsInodesFree => signed(usage.files(signal, separate).inodes),
    };
    pods.sort_by(|(a, used_a), (b, used_b)| {
        let (a, b) = (a.as_ref(), b.as_ref());
        let priority = |pod: &Pod| pod.spec().and_then(|spec| spec.priority).unwrap_or(0);
        let above = |pod: &Pod, usage: &Option<Usage>| usage.as_ref().map(|usage| used(usage) - asked(pod));
        let (above_a, above_b) = (above(a, used_a), above(b, used_b));
        let exceeds = |above: Option<i64>| Reverse(above.is_none_or(|above| above > 0));
        let unknown = |above: Option<i64>| Reverse(above.is_none());
        let by_requests = match signal {
            Signal::PidAvailable => Ordering::Equal,
            _ => unknown(above_a)
                .cmp(&unknown(above_b))
                .then(exceeds(above_a).cmp(&exceeds(above_b))),
        };
        by_requests
            .then(priority(a).cmp(&priority(b)))
            .then(unknown(above_a).cmp(&unknown(above_b)))
            .then(Reverse(above_a).cmp(&Reverse(above_b)))
    });
}

/// What an evicted pod is told.
pub fn message(pod: &Pod, usage: Option<&Usage>, due: &[Threshold], seen: &Observations) -> String {
    let Some(first) = due.first() else {
        return String::new();
    };
    let resource = first.signal.resource();
    let mut message = format!("The node was low on resource: {resource}. ");
    let mut met = due.iter().filter(|threshold| threshold.signal.resource() == resource);
    if let Some((threshold, seen)) = met.find_map(|threshold| Some((threshold, seen.get(&threshold.signal)?))) {
        let quantity = match threshold.value {
            super::thresholds::Value::Amount(amount) => amount,
            super::thresholds::Value::Part(_) => threshold.signal.amount(threshold.value.of(seen.capacity)),
        };
        let available = threshold.signal.amount(seen.available);
        message += &format!("Threshold quantity: {quantity}, available: {available}. ");
    }
    let running = pod.containers().filter(|(role, _)| *role != Role::Init);
    for (_, container) in running {
        let Some(usage) = usage.and_then(|usage| usage.containers.get(&container.name)) else {
            continue;
        };
        let used = match resource {
            "memory" => usage.memory,
            "ephemeral-storage" => usage.layer.plus(usage.logs).bytes,
            _ => continue,
        };
        let requests = container
            .resources
            .as_ref()
            .and_then(|resources| resources.requests.as_ref());
        let request = requests.and_then(|requests| Quantity::of(requests.get(resource)?).ok());
        let (used, request) = (Quantity::from_bytes(signed(used)), request.unwrap_or(Quantity::ZERO));
        if used > request {
            message += &format!(
                "Container {} was using {used}, request is {request}, has larger consumption of {resource}. ",
                container.name
            );
        }
    }
    message
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::eviction::thresholds::{Observed, Value};

    fn pod(name: &str, priority: i32, memory: &str) -> Arc<Pod> {
        let requests = json!({"memory": memory, "ephemeral-storage": memory});
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"priority": priority,
                "containers": [{"name": "c", "resources": {"requests": requests}}]}}))
            .unwrap(),
        )
    }

    fn usage(memory: u64, processes: u64, layer: u64, volumes: u64) -> Option<Usage> {
        let files = |bytes| Files { bytes, inodes: bytes };
        let container = ContainerUsage {
            memory,
            layer: files(layer),
            logs: Files::default(),
        };
        Some(Usage {
            memory,
            processes,
            containers: [("c".to_owned(), container)].into(),
            volumes: files(volumes),
        })
    }

    #[test]
    fn who_goes_first() {
        let pods = || {
            vec![
                (pod("within", 0, "100"), usage(100, 5, 90, 0)),
                (pod("a-little-above", 0, "100"), usage(110, 3, 50, 60)),
                (pod("much-above", 0, "100"), usage(900, 1, 0, 105)),
                (pod("important-above", 9, "0"), usage(2000, 9, 2000, 0)),
                (pod("unknown", 9, "0"), None),
                (pod("important-within", 9, "100"), usage(0, 2, 0, 0)),
            ]
        };
        for (signal, separate, order) in [
            (
                Signal::MemoryAvailable,
                false,
                [
                    "unknown",
                    "much-above",
                    "a-little-above",
                    "important-above",
                    "within",
                    "important-within",
                ],
            ),
            (
                Signal::PidAvailable,
                false,
                [
                    "within",
                    "a-little-above",
                    "much-above",
                    "unknown",
                    "important-above",
                    "important-within",
                ],
            ),
            (
                Signal::NodeFsAvailable,
                false,
                [
                    "unknown",
                    "a-little-above",
                    "much-above",
                    "important-above",
                    "within",
                    "important-within",
                ],
            ),
            (
                Signal::NodeFsAvailable,
                true,
                [
                    "unknown",
                    "much-above",
                    "a-little-above",
                    "within",
                    "important-above",
                    "important-within",
                ],
            ),
            (
                Signal::ImageFsAvailable,
                true,
                [
                    "unknown",
                    "important-above",
                    "within",
                    "a-little-above",
                    "much-above",
                    "important-within",
                ],
            ),
            (
                Signal::NodeFsInodesFree,
                false,
                [
                    "unknown",
                    "a-little-above",
                    "much-above",
                    "within",
                    "important-above",
                    "important-within",
                ],
            ),
        ] {
            let mut pods = pods();
            rank(&mut pods, signal, separate);
            let names: Vec<_> = pods.iter().map(|(pod, _)| pod.name()).collect();
            assert_eq!(names, order, "{signal:?} {separate}");
        }
    }

    #[test]
    fn what_it_is_told() {
        let seen = |signal| {
            Observations::from([(
                signal,
                Observed {
                    available: 12 << 10,
                    capacity: 1 << 20,
                },
            )])
        };
        let due = |signal, value| {
            [Threshold {
                signal,
                value,
                grace: None,
                reclaim: None,
            }]
        };
        let amount = Value::Amount("100Mi".parse().unwrap());
        let pod = pod("p", 0, "1Ki");
        let usage = usage(3 << 10, 1, 512, 1 << 20);
        for (signal, value, said) in [
            (
                Signal::MemoryAvailable,
                amount,
                "The node was low on resource: memory. Threshold quantity: 100Mi, available: 12Ki. Container c was using 3Ki, request is 1Ki, has larger consumption of memory. ",
            ),
            (
                Signal::NodeFsAvailable,
                Value::Part(0.1),
                "The node was low on resource: ephemeral-storage. Threshold quantity: 104857, available: 12Ki. ",
            ),
            (
                Signal::PidAvailable,
                Value::Part(0.5),
                "The node was low on resource: pids. Threshold quantity: 524288, available: 12288. ",
            ),
        ] {
            assert_eq!(message(&pod, usage.as_ref(), &due(signal, value), &seen(signal)), said);
        }
    }
}
