//! Requests and limits as the kernel's numbers: CPU shares and quotas, memory limits, OOM scores, and the cgroup of a QoS class.

use std::collections::BTreeMap;

use cri::v1::{HugepageLimit, LinuxContainerResources};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use api::pod::{Qos, is_critical, stored_qos_class};

use crate::pods::pod::{PodExt, Role};

const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;
const SHARES_PER_CPU: i64 = 1024;
const PERIOD_MICROSECONDS: i64 = 100_000;
const MIN_QUOTA_MICROSECONDS: i64 = 1000;

/// The cgroup of a class, below the hierarchy's root.
pub fn class_cgroup(qos: Qos) -> &'static str {
    match qos {
        Qos::Guaranteed => "/kubepods",
        Qos::Burstable => "/kubepods/burstable",
        Qos::BestEffort => "/kubepods/besteffort",
    }
}

/// The cgroup of a pod, below the hierarchy's root.
pub fn pod_cgroup(qos: Qos, uid: &str) -> String {
    format!("{}/pod{uid}", class_cgroup(qos))
}

fn amount(list: Option<&BTreeMap<String, Quantity>>, resource: &str) -> i64 {
    let quantity = list
        .and_then(|list| list.get(resource))
        .and_then(|quantity| api::quantity::Quantity::of(quantity).ok());
    match (quantity, resource) {
        (Some(quantity), "cpu") => quantity.millis(),
        (Some(quantity), _) => quantity.value(),
        (None, _) => 0,
    }
}

/// A container's request in thousandths of a CPU, or bytes, or else its limit; 0 for none.
pub fn own_request(container: &Container, resource: &str) -> i64 {
    let requests = container
        .resources
        .as_ref()
        .and_then(|resources| resources.requests.as_ref());
    match amount(requests, resource) {
        0 => own_limit(container, resource),
        amount => amount,
    }
}

/// A container's own limit in thousandths of a CPU, or bytes; 0 for none.
pub fn own_limit(container: &Container, resource: &str) -> i64 {
    amount(
        container
            .resources
            .as_ref()
            .and_then(|resources| resources.limits.as_ref()),
        resource,
    )
}

/// What a container is weighed by: its own request, or else the limit that holds for it.
pub fn request(pod: &Pod, container: &Container, resource: &str) -> i64 {
    match own_request(container, resource) {
        0 => limit(pod, container, resource),
        amount => amount,
    }
}

/// The limit that holds for a container: its own, or else that of the whole pod; 0 for none.
pub fn limit(pod: &Pod, container: &Container, resource: &str) -> i64 {
    match own_limit(container, resource) {
        0 => amount(whole(pod).and_then(|whole| whole.limits.as_ref()), resource),
        amount => amount,
    }
}

fn whole(pod: &Pod) -> Option<&ResourceRequirements> {
    pod.spec()?.resources.as_ref()
}

/// What the pod as a whole asks for beyond its containers, spread over them.
fn spread_request(pod: &Pod, resource: &str) -> i64 {
    let asked = amount(whole(pod).and_then(|whole| whole.requests.as_ref()), resource);
    let staying = || pod.containers().filter(|(role, _)| *role != Role::Init);
    let own: i64 = staying().map(|(_, container)| own_request(container, resource)).sum();
    let count = i64::try_from(staying().count()).unwrap_or(i64::MAX);
    (asked - own).max(0).checked_div(count).unwrap_or(0)
}

/// The weight of thousandths of a CPU.
pub fn shares(milli_cpu: i64) -> i64 {
    (milli_cpu.saturating_mul(SHARES_PER_CPU) / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

/// The microseconds of each period that thousandths of a CPU may use; 0 is no limit.
pub fn quota(milli_cpu: i64) -> i64 {
    match milli_cpu {
        0 => 0,
        milli => (milli.saturating_mul(PERIOD_MICROSECONDS) / 1000).max(MIN_QUOTA_MICROSECONDS),
    }
}

/// How soon the kernel kills a container's processes when memory runs out.
pub fn oom_score_adj(pod: &Pod, qos: Qos, container: &Container, role: Role, memory_capacity: i64) -> i64 {
    let critical = is_critical(pod);
    match qos {
        _ if critical => -997,
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let spread = spread_request(pod, "memory");
            let own = own_request(container, "memory") + spread;
            // A sidecar must not be killed before the containers it serves.
            let asked = match role {
                Role::Sidecar => pod
                    .containers()
                    .filter(|(role, _)| *role == Role::App)
                    .map(|(_, container)| own_request(container, "memory") + spread)
                    .min()
                    .map_or(own, |least| least.max(own)),
                _ => own,
            };
            let share = asked.saturating_mul(1000).checked_div(memory_capacity).unwrap_or(0);
            (1000 - share).clamp(3, 999)
        }
    }
}

/// What a name of a resource says of pages, as control groups name their size: `2MB` for `hugepages-2Mi`.
fn page_size(resource: &str) -> Option<String> {
    let size = resource.strip_prefix("hugepages-")?;
    let bytes = size.parse::<api::quantity::Quantity>().ok()?.value();
    let units = [("GB", 1 << 30), ("MB", 1 << 20), ("KB", 1 << 10)];
    let (unit, whole) = units
        .into_iter()
        .find(|(_, unit)| bytes >= *unit && bytes % unit == 0)?;
    Some(format!("{}{unit}", bytes / whole))
}

/// The huge pages that a list of limits allows: bytes by the size of pages.
fn hugepages<'a>(limits: impl Iterator<Item = (&'a String, i64)>) -> Vec<HugepageLimit> {
    limits
        .filter_map(|(resource, bytes)| {
            Some(HugepageLimit {
                page_size: page_size(resource)?,
                limit: u64::try_from(bytes).ok()?,
            })
        })
        .collect()
}

/// The huge pages of a whole pod: bytes by the size of pages.
pub fn pod_hugepages(pod: &Pod) -> Vec<HugepageLimit> {
    let limits = api::pod::limits(pod);
    hugepages(limits.iter().map(|(resource, amount)| (resource, amount.value())))
}

/// What a container may use.
pub fn container(
    pod: &Pod,
    container: &Container,
    role: Role,
    memory_capacity: i64,
    unified: bool,
) -> LinuxContainerResources {
    let qos = stored_qos_class(pod);
    let quota = quota(limit(pod, container, "cpu"));
    LinuxContainerResources {
        cpu_period: if quota > 0 { PERIOD_MICROSECONDS } else { 0 },
        cpu_quota: quota,
        cpu_shares: shares(request(pod, container, "cpu")),
        memory_limit_in_bytes: limit(pod, container, "memory"),
        oom_score_adj: oom_score_adj(pod, qos, container, role, memory_capacity),
        hugepage_limits: hugepages(
            container
                .resources
                .iter()
                .flat_map(|resources| resources.limits.iter().flatten())
                .filter_map(|(resource, amount)| Some((resource, api::quantity::Quantity::of(amount).ok()?.value()))),
        ),
        // On v2 a container is killed whole, never half.
        unified: if unified {
            [("memory.oom.group".to_owned(), "1".to_owned())].into()
        } else {
            Default::default()
        },
        ..Default::default()
    }
}

/// Requests and limits, with what the runtime enforces in place of what it was told where that is something else.
pub fn in_force(mut told: ResourceRequirements, enforced: &LinuxContainerResources) -> ResourceRequirements {
    use api::quantity::Quantity as Amount;
    let cpu = |list: &Option<BTreeMap<String, Quantity>>| amount(list.as_ref(), "cpu");
    let put = |list: &mut Option<BTreeMap<String, Quantity>>, resource: &str, found: Amount| {
        if let Some(entry) = list.as_mut().and_then(|list| list.get_mut(resource)) {
            *entry = Quantity(found.to_string());
        }
    };
    let (limit, period) = (enforced.cpu_quota, enforced.cpu_period);
    if limit > 0 && period > 0 && limit != quota(cpu(&told.limits)) {
        put(
            &mut told.limits,
            "cpu",
            Amount::from_millis(limit.saturating_mul(1000) / period),
        );
    }
    let weight = enforced.cpu_shares;
    if weight > 0 && weight != shares(cpu(&told.requests)) {
        // Rounded up, so that thousandths come out as they went in.
        let millis = (weight.saturating_mul(1000) + SHARES_PER_CPU - 1) / SHARES_PER_CPU;
        put(&mut told.requests, "cpu", Amount::from_millis(millis));
    }
    let bytes = enforced.memory_limit_in_bytes;
    if bytes > 0 && bytes != amount(told.limits.as_ref(), "memory") {
        put(&mut told.limits, "memory", Amount::from_bytes(bytes));
    }
    told
}

/// What the cgroup of a whole pod gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodLimits {
    /// The weight.
    pub cpu_shares: i64,
    /// Microseconds of each 100 ms; 0 is no limit.
    pub cpu_quota: i64,
    /// Bytes; 0 is no limit.
    pub memory: i64,
}

impl PodLimits {
    /// The wider of both, of each.
    pub fn wider(self, other: Self) -> Self {
        let limit = |a: i64, b: i64| if a == 0 || b == 0 { 0 } else { a.max(b) };
        Self {
            cpu_shares: self.cpu_shares.max(other.cpu_shares),
            cpu_quota: limit(self.cpu_quota, other.cpu_quota),
            memory: limit(self.memory, other.memory),
        }
    }
}

/// By what the pod asks for in all; a limit only where nothing in the pod is without one.
pub fn pod(pod: &Pod) -> PodLimits {
    let (requests, limits) = (api::pod::requests(pod), api::pod::limits(pod));
    let bounded = |resource: &str| {
        pod.containers()
            .all(|(_, container)| limit(pod, container, resource) > 0)
    };
    let limited = |resource: &str| limits.get(resource).filter(|_| bounded(resource));
    PodLimits {
        cpu_shares: shares(requests.get("cpu").map_or(0, |cpu| cpu.millis())),
        cpu_quota: quota(limited("cpu").map_or(0, |cpu| cpu.millis())),
        memory: limited("memory").map_or(0, |memory| memory.value()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn with(containers: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"uid": "u"}, "spec": {"containers": containers}})).unwrap()
    }

    #[test]
    fn classes_scores_and_pod_limits() {
        let gib = 1 << 30;
        let cases = [
            (
                json!([{"name": "a"}]),
                Qos::BestEffort,
                1000,
                PodLimits {
                    cpu_shares: 2,
                    cpu_quota: 0,
                    memory: 0,
                },
            ),
            (
                json!([{"name": "a", "resources": {"requests": {"cpu": "250m", "memory": "256Mi"}}}]),
                Qos::Burstable,
                750,
                PodLimits {
                    cpu_shares: 256,
                    cpu_quota: 0,
                    memory: 0,
                },
            ),
            (
                json!([{"name": "a", "resources": {"limits": {"cpu": "1", "memory": "64Mi"}, "requests": {"cpu": "1", "memory": "64Mi"}}}]),
                Qos::Guaranteed,
                -997,
                PodLimits {
                    cpu_shares: 1024,
                    cpu_quota: 100_000,
                    memory: 64 << 20,
                },
            ),
            (
                json!([{"name": "a", "resources": {"limits": {"memory": "64Mi"}}}, {"name": "b", "resources": {"requests": {"cpu": "1m"}}}]),
                Qos::Burstable,
                938,
                PodLimits {
                    cpu_shares: 2,
                    cpu_quota: 0,
                    memory: 0,
                },
            ),
        ];
        for (containers, class, score, limits) in cases {
            let pod = with(containers);
            let (role, first) = pod.containers().next().unwrap();
            assert_eq!(stored_qos_class(&pod), class);
            assert_eq!(oom_score_adj(&pod, class, first, role, gib), score);
            assert_eq!(super::pod(&pod), limits);
        }
    }

    #[test]
    fn the_whole_pod_stands_in_for_what_its_containers_do_not_say() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"uid": "u"}, "spec": {
            "resources": {"requests": {"cpu": "1", "memory": "512Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}},
            "containers": [{"name": "none"}, {"name": "own", "resources": {"requests": {"cpu": "250m"}, "limits": {"cpu": "500m", "memory": "256Mi"}}}],
        }}))
        .unwrap();
        let of = |name: &str| {
            let (role, container) = pod.container(name).unwrap();
            let all = super::container(&pod, container, role, 1 << 30, false);
            (
                all.cpu_shares,
                all.cpu_quota,
                all.memory_limit_in_bytes,
                all.oom_score_adj,
            )
        };
        // 512Mi less the 256Mi that one of them has, in halves.
        assert_eq!(of("none"), (2048, 200_000, 1 << 30, 875));
        assert_eq!(of("own"), (256, 50_000, 256 << 20, 625));
        let limits = PodLimits {
            cpu_shares: 1024,
            cpu_quota: 200_000,
            memory: 1 << 30,
        };
        assert_eq!(super::pod(&pod), limits);
        let narrow = PodLimits {
            cpu_shares: 2048,
            cpu_quota: 0,
            memory: 1,
        };
        let wide = PodLimits {
            cpu_quota: 0,
            cpu_shares: 2048,
            ..limits
        };
        assert_eq!(limits.wider(narrow), wide);
    }

    #[test]
    fn what_is_enforced_is_told() {
        let told: ResourceRequirements = serde_json::from_value(
            json!({"requests": {"cpu": "333m", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}}),
        )
        .unwrap();
        let enforced = LinuxContainerResources {
            cpu_shares: 340,
            cpu_quota: 100_000,
            cpu_period: 100_000,
            memory_limit_in_bytes: 1 << 30,
            ..Default::default()
        };
        assert_eq!(in_force(told.clone(), &enforced), told);
        let less = LinuxContainerResources {
            cpu_shares: 1024,
            cpu_quota: 50_000,
            memory_limit_in_bytes: 512 << 20,
            ..enforced
        };
        assert_eq!(
            serde_json::to_value(in_force(told, &less)).unwrap(),
            json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "500m", "memory": "512Mi"}})
        );
    }

    #[test]
    fn huge_pages_are_named_as_control_groups_name_them() {
        for (resource, size) in [
            ("hugepages-2Mi", Some("2MB")),
            ("hugepages-1Gi", Some("1GB")),
            ("hugepages-64Ki", Some("64KB")),
            ("memory", None),
        ] {
            assert_eq!(page_size(resource).as_deref(), size, "{resource}");
        }
        let limits = json!({"hugepages-2Mi": "4Mi", "memory": "1Gi"});
        let pod = with(
            json!([{"name": "a", "resources": {"limits": limits.clone()}}, {"name": "b", "resources": {"limits": limits}}]),
        );
        let (role, first) = pod.containers().next().unwrap();
        let of = |found: &[HugepageLimit]| {
            found
                .iter()
                .map(|limit| (limit.page_size.clone(), limit.limit))
                .collect::<Vec<_>>()
        };
        let container = super::container(&pod, first, role, 1 << 30, false);
        assert_eq!(of(&container.hugepage_limits), [("2MB".to_owned(), 4 << 20)]);
        assert_eq!(of(&pod_hugepages(&pod)), [("2MB".to_owned(), 8 << 20)]);
    }

    #[test]
    fn shares_and_quotas_have_the_kernels_bounds() {
        assert_eq!([0, 1, 1000, 1_000_000].map(shares), [2, 2, 1024, 262_144]);
        assert_eq!([0, 1, 500].map(quota), [0, 1000, 50_000]);
    }
}
