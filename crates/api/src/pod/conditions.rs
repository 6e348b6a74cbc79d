//! The conditions of a pod's status.

use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};

/// The condition of that type.
pub fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status
        .as_ref()?
        .conditions
        .as_ref()?
        .iter()
        .find(|condition| condition.type_ == kind)
}

/// Whether the condition of that type is there and true.
pub fn condition_is_true(pod: &Pod, kind: &str) -> bool {
    condition(pod, kind).is_some_and(|condition| condition.status == "True")
}

/// Whether the pod takes traffic: its Ready condition is true.
pub fn is_ready(pod: &Pod) -> bool {
    condition_is_true(pod, "Ready")
}

/// Puts a condition in, in place of the one of its type. The transition time given is used only when the
/// condition is new or its status changes; else the old one stays. Answers whether anything changed.
pub fn set_condition(status: &mut PodStatus, mut new: PodCondition) -> bool {
    let conditions = status.conditions.get_or_insert_default();
    match conditions.iter_mut().find(|old| old.type_ == new.type_) {
        None => {
            conditions.push(new);
            true
        }
        Some(old) => {
            if old.status == new.status {
                new.last_transition_time.clone_from(&old.last_transition_time);
            }
            let changed = *old != new;
            *old = new;
            changed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn ready(status: &str, second: i64, reason: Option<&str>) -> PodCondition {
        PodCondition {
            type_: "Ready".into(),
            status: status.into(),
            reason: reason.map(Into::into),
            last_transition_time: Timestamp::from_second(second).ok().map(Time),
            ..Default::default()
        }
    }

    #[test]
    fn the_transition_time_moves_with_the_status_only() {
        let mut status = PodStatus::default();
        assert!(set_condition(&mut status, ready("False", 1, None)));
        assert!(!set_condition(&mut status, ready("False", 2, None)));
        assert_eq!(status.conditions, Some(vec![ready("False", 1, None)]));
        assert!(set_condition(
            &mut status,
            ready("False", 3, Some("ContainersNotReady"))
        ));
        assert_eq!(
            status.conditions,
            Some(vec![ready("False", 1, Some("ContainersNotReady"))])
        );
        assert!(set_condition(&mut status, ready("True", 4, None)));
        assert_eq!(status.conditions, Some(vec![ready("True", 4, None)]));
        let pod = Pod {
            status: Some(status),
            ..Default::default()
        };
        assert!(is_ready(&pod));
        assert!(!condition_is_true(&pod, "PodScheduled"));
    }
}
