//! Who ends when at the node's shutdown: groups of pods by priority, one after the other, each with its time.

use std::time::Duration;

use api::pod::SYSTEM_CRITICAL_PRIORITY;
use k8s_openapi::api::core::v1::Pod;

use crate::configuration::KubeletConfiguration;
use crate::pods::pod::PodExt;

/// Pods from a priority on, up to the next group's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// The least priority.
    pub priority: i32,
    /// How long its pods have.
    pub grace: Duration,
}

/// The groups in the order in which they end; none when the shutdown is not to wait.
pub fn configured(configuration: &KubeletConfiguration) -> Vec<Group> {
    let by_priority = &configuration.shutdown_grace_period_by_pod_priority;
    let mut groups: Vec<Group> = match by_priority.is_empty() {
        false => by_priority
            .iter()
            .map(|group| Group {
                priority: group.priority,
                grace: Duration::from_secs(group.shutdown_grace_period_seconds),
            })
            .collect(),
        true => {
            let (all, critical) = (
                configuration.shutdown_grace_period.0,
                configuration.shutdown_grace_period_critical_pods.0,
            );
            let regular = Group {
                priority: 0,
                grace: all.saturating_sub(critical),
            };
            let critical = Group {
                priority: SYSTEM_CRITICAL_PRIORITY,
                grace: critical,
            };
            if all.is_zero() {
                Vec::new()
            } else {
                vec![regular, critical]
            }
        }
    };
    groups.sort_by_key(|group| group.priority);
    groups
}

/// The group of a pod: that with the highest priority which is not above the pod's, or else the lowest.
pub fn of(groups: &[Group], pod: &Pod) -> usize {
    let priority = pod.spec().and_then(|spec| spec.priority).unwrap_or(0);
    groups.iter().rposition(|group| group.priority <= priority).unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use serde_json::json;

    use super::*;

    fn groups(fields: &str) -> Vec<Group> {
        let text = format!("apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n{fields}");
        configured(&KubeletConfiguration::parse(&text).unwrap())
    }

    #[test]
    fn the_time_is_shared_out() {
        let seconds = |groups: Vec<Group>| {
            let pair = |group: Group| (group.priority, group.grace.as_secs());
            groups.into_iter().map(pair).collect::<Vec<_>>()
        };
        assert_eq!(seconds(groups("")), []);
        assert_eq!(
            seconds(groups("shutdownGracePeriod: 30s\nshutdownGracePeriodCriticalPods: 10s")),
            [(0, 20), (SYSTEM_CRITICAL_PRIORITY, 10)]
        );
        let listed = "shutdownGracePeriodByPodPriority: [{priority: 100, shutdownGracePeriodSeconds: 5}, {priority: 0, shutdownGracePeriodSeconds: 9}]";
        assert_eq!(seconds(groups(listed)), [(0, 9), (100, 5)]);
    }

    #[test]
    fn who_ends_with_whom() {
        let listed = "shutdownGracePeriodByPodPriority: [{priority: 0, shutdownGracePeriodSeconds: 1}, {priority: 100, shutdownGracePeriodSeconds: 1}, {priority: 2000000000, shutdownGracePeriodSeconds: 1}]";
        let groups = groups(listed);
        for (priority, group) in [(-5, 0), (0, 0), (99, 0), (100, 1), (5000, 1), (2_000_001_000, 2)] {
            let pod: Pod = serde_json::from_value(json!({"spec": {"priority": priority, "containers": []}})).unwrap();
            assert_eq!(of(&groups, &pod), group, "{priority}");
        }
        // A static pod is what its priority says, which nobody works out for it from a class.
        let of_file =
            json!({"metadata": {"annotations": {"kubernetes.io/config.source": "file"}}, "spec": {"containers": []}});
        let pod: Pod = serde_json::from_value(of_file).unwrap();
        assert_eq!(of(&groups, &pod), 0);
    }
}
