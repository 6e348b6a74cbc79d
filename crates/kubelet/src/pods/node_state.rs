//! What the node says of itself right now, and which pods it therefore does not take.

use std::collections::BTreeSet;

use api::pod::{Qos, is_critical, stored_qos_class};
use k8s_openapi::api::core::v1::{Pod, Taint};

use crate::eviction::thresholds::Pressure;

const MEMORY_TAINT: &str = "node.kubernetes.io/memory-pressure";

/// The state of the node that all of its parts look at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeState {
    /// What runs short.
    pub pressures: BTreeSet<Pressure>,
    /// Whether the machine is about to be shut down.
    pub shutting_down: bool,
}

/// Why a pod that has not begun is not taken: the event's reason and message, if there is a reason.
pub fn refusal(pod: &Pod, state: &NodeState) -> Option<(&'static str, String)> {
    if state.shutting_down {
        return Some(("NodeShutdown", "Pod was rejected as the node is shutting down.".into()));
    }
    if state.pressures.is_empty() || is_critical(pod) {
        return None;
    }
    let memory_alone = state.pressures.iter().eq([&Pressure::Memory]);
    if memory_alone && (stored_qos_class(pod) != Qos::BestEffort || tolerates_memory_pressure(pod)) {
        return None;
    }
    let names: Vec<_> = state.pressures.iter().map(|pressure| pressure.name()).collect();
    Some(("Evicted", format!("The node had condition: [{}]. ", names.join(" "))))
}

fn tolerates_memory_pressure(pod: &Pod) -> bool {
    let taint = Taint {
        key: MEMORY_TAINT.into(),
        effect: "NoSchedule".into(),
        ..Default::default()
    };
    api::pod::tolerates(pod, &taint)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn who_is_taken_in_need() {
        let pod = |more: Value| -> Pod {
            let mut spec = json!({"containers": [{"name": "c"}]});
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
        };
        let best = pod(json!({}));
        let burstable = pod(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}));
        let tolerant =
            pod(json!({"tolerations": [{"key": MEMORY_TAINT, "operator": "Exists", "effect": "NoSchedule"}]}));
        let critical = pod(json!({"priority": 2_000_001_000}));
        let state = |pressures: &[Pressure], shutting_down| NodeState {
            pressures: pressures.iter().copied().collect(),
            shutting_down,
        };
        let memory = state(&[Pressure::Memory], false);
        let disk = state(&[Pressure::Disk], false);
        let both = state(&[Pressure::Memory, Pressure::Pid], false);
        for (pod, state, said) in [
            (&best, &NodeState::default(), None),
            (&best, &memory, Some("The node had condition: [MemoryPressure]. ")),
            (&burstable, &memory, None),
            (&tolerant, &memory, None),
            (&critical, &memory, None),
            (&burstable, &disk, Some("The node had condition: [DiskPressure]. ")),
            (
                &tolerant,
                &both,
                Some("The node had condition: [MemoryPressure PIDPressure]. "),
            ),
            (&critical, &both, None),
            (
                &critical,
                &state(&[], true),
                Some("Pod was rejected as the node is shutting down."),
            ),
        ] {
            assert_eq!(refusal(pod, state).map(|(_, message)| message).as_deref(), said);
        }
    }
}
