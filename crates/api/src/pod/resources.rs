//! What a pod asks of its node: requests and limits summed over its containers, and the QoS class.
//!
//! Init containers run one at a time, before the main ones, so a pod needs the larger of both; sidecars
//! started before an init container count on either side. Resources given for the whole pod win over the sum
//! of its containers, and the overhead of its runtime comes on top.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Written;

use super::{ContainerKind, condition, is_sidecar};
use crate::quantity::Quantity;

/// Amounts by the name of their resource.
pub type Resources = BTreeMap<String, Quantity>;

/// How a pod is treated when its node is short of memory or processor time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Qos {
    /// Every container has limits for CPU and memory and asks for as much.
    Guaranteed,
    /// Something is asked for or limited.
    Burstable,
    /// Nothing is.
    BestEffort,
}

impl Qos {
    /// The name in a pod's status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Qos::Guaranteed => "Guaranteed",
            Qos::Burstable => "Burstable",
            Qos::BestEffort => "BestEffort",
        }
    }
}

impl fmt::Display for Qos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Amounts as numbers. What is no quantity counts as nothing: it was refused when the pod was written.
fn amounts(written: Option<&BTreeMap<String, Written>>) -> Resources {
    written
        .into_iter()
        .flatten()
        .map(|(name, quantity)| (name.clone(), Quantity::of(quantity).unwrap_or(Quantity::ZERO)))
        .collect()
}

fn add(to: &mut Resources, more: &Resources) {
    for (name, quantity) in more {
        match to.get_mut(name) {
            Some(sum) => *sum += *quantity,
            None => {
                to.insert(name.clone(), *quantity);
            }
        }
    }
}

fn raise(to: &mut Resources, other: &Resources) {
    for (name, quantity) in other {
        match to.get_mut(name) {
            Some(max) => *max = (*max).max(*quantity),
            None => {
                to.insert(name.clone(), *quantity);
            }
        }
    }
}

/// Sums what `of` says of each container as a pod needs it over its whole life.
fn aggregate(spec: &PodSpec, of: impl Fn(ContainerKind, &Container) -> Resources) -> Resources {
    let mut running = Resources::new();
    for container in &spec.containers {
        add(&mut running, &of(ContainerKind::Main, container));
    }
    let mut sidecars = Resources::new();
    let mut starting = Resources::new();
    for container in spec.init_containers.iter().flatten() {
        let mut own = of(ContainerKind::Init, container);
        if is_sidecar(container) {
            add(&mut running, &own);
            add(&mut sidecars, &own);
            own.clone_from(&sidecars);
        } else {
            add(&mut own, &sidecars);
        }
        raise(&mut starting, &own);
    }
    raise(&mut running, &starting);
    running
}

fn own_requests(resources: Option<&ResourceRequirements>) -> Resources {
    amounts(resources.and_then(|resources| resources.requests.as_ref()))
}

fn own_limits(resources: Option<&ResourceRequirements>) -> Resources {
    amounts(resources.and_then(|resources| resources.limits.as_ref()))
}

/// Whether a resource can be given for a whole pod.
pub(crate) fn is_pod_level(name: &str) -> bool {
    name == "cpu" || name == "memory" || name.starts_with("hugepages-")
}

/// Whether resources are given for the pod as a whole.
pub fn has_pod_level_resources(spec: &PodSpec) -> bool {
    spec.resources.as_ref().is_some_and(|resources| {
        let given = |map: &Option<BTreeMap<String, Written>>| map.iter().flatten().any(|(name, _)| is_pod_level(name));
        given(&resources.requests) || given(&resources.limits)
    })
}

fn with_pod_level(mut sum: Resources, pod_level: Resources) -> Resources {
    sum.extend(pod_level.into_iter().filter(|(name, _)| is_pod_level(name)));
    sum
}

/// The containers' requests summed, without what is given for the whole pod and without overhead.
pub fn aggregate_container_requests(spec: &PodSpec) -> Resources {
    aggregate(spec, |_, container| own_requests(container.resources.as_ref()))
}

/// What the pod asks for, by its spec.
pub fn requests(pod: &Pod) -> Resources {
    let Some(spec) = &pod.spec else {
        return Resources::new();
    };
    complete_requests(
        spec,
        aggregate_container_requests(spec),
        own_requests(spec.resources.as_ref()),
    )
}

/// What the pod asks for, by its spec, without the overhead of its runtime.
pub fn requests_without_overhead(pod: &Pod) -> Resources {
    let Some(spec) = &pod.spec else {
        return Resources::new();
    };
    with_pod_level(
        aggregate_container_requests(spec),
        own_requests(spec.resources.as_ref()),
    )
}

/// The amounts as an object has them; none for an empty list.
pub fn written(amounts: &Resources) -> Option<BTreeMap<String, Written>> {
    let list = amounts
        .iter()
        .map(|(name, quantity)| (name.clone(), Written(quantity.to_string())));
    Some(list.collect::<BTreeMap<_, _>>()).filter(|list| !list.is_empty())
}

/// What the pod holds at its node: as [`requests`], but while a resize is under way the most of what is
/// asked for, allocated and in force.
pub fn observed_requests(pod: &Pod) -> Resources {
    let Some(spec) = &pod.spec else {
        return Resources::new();
    };
    let Some(status) = &pod.status else {
        return requests(pod);
    };
    // What cannot be had is not counted: the pod stays as it is.
    let infeasible = condition(pod, "PodResizePending").is_some_and(|c| c.reason.as_deref() == Some("Infeasible"));
    let most =
        |asked: Resources, allocated: Option<&BTreeMap<String, Written>>, in_force: Option<&ResourceRequirements>| {
            let in_force = in_force.and_then(|resources| resources.requests.as_ref());
            let mut most = if infeasible && (in_force.is_some() || allocated.is_some()) {
                Resources::new()
            } else {
                asked
            };
            raise(&mut most, &amounts(in_force));
            raise(&mut most, &amounts(allocated));
            most
        };
    let sum = aggregate(spec, |kind, container| {
        let asked = own_requests(container.resources.as_ref());
        match kind.statuses(status).iter().find(|s| s.name == container.name) {
            Some(observed) => most(
                asked,
                observed.allocated_resources.as_ref(),
                observed.resources.as_ref(),
            ),
            None => asked,
        }
    });
    let mut whole = own_requests(spec.resources.as_ref());
    if !whole.is_empty() {
        // What is allocated may name resources that only containers ask for.
        let named: Vec<String> = whole.keys().cloned().collect();
        whole = most(whole, status.allocated_resources.as_ref(), status.resources.as_ref());
        whole.retain(|name, _| named.contains(name));
    }
    complete_requests(spec, sum, whole)
}

fn complete_requests(spec: &PodSpec, sum: Resources, whole: Resources) -> Resources {
    let mut total = with_pod_level(sum, whole);
    add(&mut total, &amounts(spec.overhead.as_ref()));
    total
}

/// What the pod may use at most. A resource without a limit is not in the answer.
pub fn limits(pod: &Pod) -> Resources {
    let Some(spec) = &pod.spec else {
        return Resources::new();
    };
    let sum = aggregate(spec, |_, container| own_limits(container.resources.as_ref()));
    let mut total = with_pod_level(sum, own_limits(spec.resources.as_ref()));
    for (name, overhead) in amounts(spec.overhead.as_ref()) {
        if let Some(limit) = total.get_mut(&name) {
            *limit += overhead;
        }
    }
    total
}

/// The QoS class that the pod's spec gives it.
pub fn qos_class(spec: &PodSpec) -> Qos {
    let mut requests = Resources::new();
    let mut limits = Resources::new();
    let mut all_limited = true;
    let mut count = |resources: Option<&ResourceRequirements>| {
        let compute = |amounts: Resources| -> Resources {
            amounts
                .into_iter()
                .filter(|(name, quantity)| matches!(name.as_str(), "cpu" | "memory") && *quantity > Quantity::ZERO)
                .collect()
        };
        let limited = compute(own_limits(resources));
        all_limited &= limited.len() == 2;
        add(&mut requests, &compute(own_requests(resources)));
        add(&mut limits, &limited);
    };
    if has_pod_level_resources(spec) {
        count(spec.resources.as_ref());
    } else {
        for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
            count(container.resources.as_ref());
        }
    }
    if requests.is_empty() && limits.is_empty() {
        Qos::BestEffort
    } else if all_limited && requests == limits {
        Qos::Guaranteed
    } else {
        Qos::Burstable
    }
}

/// The QoS class as the status has it, which never changes; computed for a pod without one.
pub fn stored_qos_class(pod: &Pod) -> Qos {
    match pod.status.as_ref().and_then(|status| status.qos_class.as_deref()) {
        Some("Guaranteed") => Qos::Guaranteed,
        Some("Burstable") => Qos::Burstable,
        Some("BestEffort") => Qos::BestEffort,
        _ => pod.spec.as_ref().map_or(Qos::BestEffort, qos_class),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "the fixtures are constants")]
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"spec": spec})).unwrap()
    }

    fn shown(resources: &Resources) -> Vec<String> {
        resources
            .iter()
            .map(|(name, quantity)| format!("{name}={quantity}"))
            .collect()
    }

    fn asks(cpu: &str, memory: &str) -> Value {
        json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}}})
    }

    fn sidecar(cpu: &str, memory: &str) -> Value {
        let mut container = asks(cpu, memory);
        container["restartPolicy"] = json!("Always");
        container
    }

    #[test]
    fn sums() {
        for (what, spec, want) in [
            ("none", json!({"containers": [{"name": "c"}]}), vec![]),
            (
                "two containers",
                json!({"containers": [asks("100m", "64Mi"), asks("1", "1Gi")]}),
                vec!["cpu=1100m", "memory=1088Mi"],
            ),
            (
                "a greedy init container",
                json!({"containers": [asks("100m", "1Gi")], "initContainers": [asks("2", "10Mi"), asks("1", "20Mi")]}),
                vec!["cpu=2", "memory=1Gi"],
            ),
            (
                "a sidecar counts beside later init containers and beside the main ones",
                json!({"containers": [asks("1", "1Mi")], "initContainers": [asks("4", "1Mi"), sidecar("1", "1Mi"), asks("2500m", "1Mi")]}),
                vec!["cpu=4", "memory=2Mi"],
            ),
            (
                "later init containers wait beside the sidecar",
                json!({"containers": [asks("1", "1Mi")], "initContainers": [sidecar("1", "1Mi"), asks("4", "1Mi")]}),
                vec!["cpu=5", "memory=2Mi"],
            ),
            (
                "for the whole pod",
                json!({"containers": [asks("1", "1Mi")], "resources": {"requests": {"cpu": "3"}}}),
                vec!["cpu=3", "memory=1Mi"],
            ),
            (
                "overhead",
                json!({"containers": [asks("1", "1Mi")], "overhead": {"cpu": "250m", "memory": "1Mi"}}),
                vec!["cpu=1250m", "memory=2Mi"],
            ),
        ] {
            assert_eq!(shown(&requests(&pod(spec))), want, "{what}");
        }
    }

    #[test]
    fn overhead_adds_to_limits_that_exist() {
        let pod = pod(json!({
            "containers": [{"name": "c", "resources": {"limits": {"cpu": "1"}}}],
            "overhead": {"cpu": "1", "memory": "1Mi"},
        }));
        assert_eq!(shown(&limits(&pod)), ["cpu=2"]);
    }

    #[test]
    fn a_resize_under_way_holds_the_most() {
        let mut pod = pod(json!({"containers": [asks("1", "1Mi")]}));
        pod.status = serde_json::from_value(json!({"containerStatuses": [{
            "name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
            "allocatedResources": {"cpu": "500m"},
            "resources": {"requests": {"cpu": "3", "memory": "1Mi"}},
        }]}))
        .unwrap();
        assert_eq!(shown(&observed_requests(&pod)), ["cpu=3", "memory=1Mi"]);
        assert_eq!(shown(&requests(&pod)), ["cpu=1", "memory=1Mi"]);
    }

    #[test]
    fn a_resize_of_the_whole_pod_holds_the_most() {
        let mut pod = pod(json!({"containers": [{"name": "c"}], "resources": {"requests": {"cpu": "1"}}}));
        pod.status = serde_json::from_value(
            json!({"allocatedResources": {"cpu": "2", "memory": "1Mi"}, "resources": {"requests": {"cpu": "3"}}}),
        )
        .unwrap();
        assert_eq!(shown(&observed_requests(&pod)), ["cpu=3"]);
        assert_eq!(shown(&requests(&pod)), ["cpu=1"]);
        let mut pod = self::pod(json!({"containers": [{"name": "c"}], "resources": {"requests": {"cpu": "100"}}}));
        pod.status = serde_json::from_value(json!({
            "allocatedResources": {"cpu": "2"}, "resources": {"requests": {"cpu": "2"}},
            "conditions": [{"type": "PodResizePending", "status": "True", "reason": "Infeasible"}],
        }))
        .unwrap();
        assert_eq!(
            shown(&observed_requests(&pod)),
            ["cpu=2"],
            "what cannot be had is not counted"
        );
    }

    #[test]
    fn classes() {
        let resources = |resources: Value| json!({"containers": [{"name": "c", "resources": resources}]});
        for (spec, want) in [
            (resources(json!({})), Qos::BestEffort),
            (resources(json!({"requests": {"cpu": "0"}})), Qos::BestEffort),
            (
                resources(json!({"requests": {"ephemeral-storage": "1Gi"}})),
                Qos::BestEffort,
            ),
            (resources(json!({"requests": {"cpu": "1"}})), Qos::Burstable),
            (
                resources(json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}})),
                Qos::Burstable,
            ),
            (json!({"containers": [asks("1", "1Gi")]}), Qos::Guaranteed),
            (json!({"containers": [asks("1", "1Gi"), {"name": "b"}]}), Qos::Burstable),
            (
                json!({"containers": [asks("1", "1Gi")], "initContainers": [{"name": "i"}]}),
                Qos::Burstable,
            ),
            (
                resources(
                    json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "500Mi"}}),
                ),
                Qos::Burstable,
            ),
            (
                json!({"containers": [{"name": "c"}], "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}}}),
                Qos::Guaranteed,
            ),
        ] {
            assert_eq!(qos_class(pod(spec.clone()).spec.as_ref().unwrap()), want, "{spec}");
        }
    }

    #[test]
    fn the_stored_class_stays() {
        let mut pod = pod(json!({"containers": [asks("1", "1Gi")]}));
        assert_eq!(stored_qos_class(&pod), Qos::Guaranteed);
        pod.status = serde_json::from_value(json!({"qosClass": "Burstable"})).unwrap();
        assert_eq!(stored_qos_class(&pod), Qos::Burstable);
    }
}
