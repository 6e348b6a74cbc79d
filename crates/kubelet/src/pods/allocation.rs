//! How much CPU and memory a pod was granted, and how much is in force.
//!
//! What a pod's spec asks for, what its node grants and what the kernel enforces are the same until somebody resizes the pod; then the
//! first changes at once, the second when the node has room, and the third when it is done. The last two are kept in a file of the pod,
//! as upstream keeps them in checkpoints: the spec no longer says them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Written;
use serde::{Deserialize, Serialize};

use super::pod::{PodExt, Role};
use crate::cri_config::resources;

/// The file, below the pod's directory.
const FILE: &str = "resources.json";

/// Requests and limits of a pod and of its containers by name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Shares {
    /// Of the pod as a whole, where it has some.
    pub pod: Option<ResourceRequirements>,
    /// Of init and app containers.
    pub containers: BTreeMap<String, ResourceRequirements>,
}

impl Shares {
    /// What the pod's spec says.
    pub fn of(pod: &Pod) -> Self {
        let own = |container: &Container| container.resources.clone().unwrap_or_default();
        Self {
            pod: pod.spec().and_then(|spec| spec.resources.clone()),
            containers: pod
                .containers()
                .map(|(_, container)| (container.name.clone(), own(container)))
                .collect(),
        }
    }

    /// The pod as if its spec said this.
    pub fn put_into(&self, pod: &Pod) -> Pod {
        let mut pod = pod.clone();
        if let Some(spec) = &mut pod.spec {
            spec.resources.clone_from(&self.pod);
            let inits = spec.init_containers.iter_mut().flatten();
            for container in inits.chain(&mut spec.containers) {
                if let Some(own) = self.containers.get(&container.name) {
                    container.resources = Some(own.clone());
                }
            }
        }
        pod
    }

    /// The containers that have something else in the other.
    pub fn differing<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a String> {
        let nothing = ResourceRequirements::default();
        self.containers.iter().filter_map(move |(name, own)| {
            let theirs = other.containers.get(name).unwrap_or(&nothing);
            (!same(own, theirs)).then_some(name)
        })
    }

    /// Whether both are the same amounts, however they are written.
    pub fn matches(&self, other: &Self) -> bool {
        let nothing = ResourceRequirements::default();
        let pod = |shares: &Self| shares.pod.clone().unwrap_or_default();
        same(&pod(self), &pod(other))
            && self.containers.keys().chain(other.containers.keys()).all(|name| {
                let own = |shares: &'_ Self| shares.containers.get(name).unwrap_or(&nothing).clone();
                same(&own(self), &own(other))
            })
    }
}

fn same(a: &ResourceRequirements, b: &ResourceRequirements) -> bool {
    let amounts = |list: &Option<BTreeMap<String, Written>>| -> BTreeMap<String, Option<api::quantity::Quantity>> {
        let read = |written: &Written| api::quantity::Quantity::of(written).ok();
        let list = list.iter().flatten();
        list.map(|(name, written)| (name.clone(), read(written))).collect()
    };
    amounts(&a.requests) == amounts(&b.requests) && amounts(&a.limits) == amounts(&b.limits)
}

/// What was granted and what is in force.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Allocation {
    /// What the node has promised.
    pub granted: Shares,
    /// What containers and the pod's cgroup have.
    pub actual: Shares,
}

impl Allocation {
    /// That of a pod which nobody has resized yet.
    pub fn new(pod: &Pod) -> Self {
        let shares = Shares::of(pod);
        Self {
            granted: shares.clone(),
            actual: shares,
        }
    }

    /// Whether nothing is left to be put in force.
    pub fn settled(&self) -> bool {
        self.granted == self.actual || self.granted.matches(&self.actual)
    }

    /// Takes over a new grant. What does not run has nothing in force that would have to change.
    pub fn grant(&mut self, shares: Shares, running: impl Fn(&str) -> bool, has_sandbox: bool) {
        self.granted = shares;
        if !has_sandbox {
            self.actual.clone_from(&self.granted);
        }
        for (name, own) in &self.granted.containers {
            if !running(name) {
                self.actual.containers.insert(name.clone(), own.clone());
            }
        }
    }

    /// What was granted to a container is in force.
    pub fn enact(&mut self, container: &str) {
        if let Some(own) = self.granted.containers.get(container) {
            self.actual.containers.insert(container.to_owned(), own.clone());
        }
    }

    /// What an earlier kubelet kept of a pod.
    pub fn load(directory: &Path) -> Option<Self> {
        let text = fs::read(directory.join(FILE)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Keeps it for the next kubelet.
    pub fn save(&self, directory: &Path) -> io::Result<()> {
        let text = serde_json::to_vec(self)?;
        let (new, file) = (directory.join(format!("{FILE}.new")), directory.join(FILE));
        fs::write(&new, text)?;
        fs::rename(new, file)
    }
}

/// What is to be done to put a grant in force.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    /// Containers whose limits are changed while they run, those that give something back first.
    pub update: Vec<String>,
    /// Containers that get theirs by starting anew.
    pub restart: Vec<String>,
    /// Containers whose memory limit shrinks, and to how many bytes.
    pub shrinking: Vec<(String, i64)>,
    /// The memory limit of the pod in bytes, when it shrinks.
    pub pod_shrinks: Option<i64>,
}

/// Compares what is in force with what was granted. `pod` has the grant in its spec.
pub fn change(pod: &Pod, allocation: &Allocation) -> Change {
    let before = allocation.actual.put_into(pod);
    let mut change = Change::default();
    let mut giving = Vec::new();
    for (_, container) in pod.containers() {
        let name = &container.name;
        let Some((_, old)) = before.container(name) else {
            continue;
        };
        let numbers = |pod: &Pod, container: &Container, resource: &str| {
            [
                resources::request(pod, container, resource),
                resources::limit(pod, container, resource),
            ]
        };
        let turned: Vec<(&str, [i64; 2], [i64; 2])> = ["cpu", "memory"]
            .into_iter()
            .map(|resource| {
                (
                    resource,
                    numbers(&before, old, resource),
                    numbers(pod, container, resource),
                )
            })
            .filter(|(_, old, new)| old != new)
            .collect();
        let textual = allocation.actual.containers.get(name) != allocation.granted.containers.get(name);
        if turned.is_empty() && !textual {
            continue;
        }
        if turned.iter().any(|(resource, ..)| restarts(container, resource)) {
            change.restart.push(name.clone());
            continue;
        }
        let [old_memory, new_memory] = [
            resources::limit(&before, old, "memory"),
            resources::limit(pod, container, "memory"),
        ];
        if shrinks(old_memory, new_memory) {
            change.shrinking.push((name.clone(), new_memory));
        }
        let gives = turned
            .iter()
            .all(|(_, [_, old], [_, new])| old == new || shrinks(*old, *new));
        let list = if gives { &mut giving } else { &mut change.update };
        list.push(name.clone());
    }
    giving.append(&mut change.update);
    change.update = giving;
    let [old, new] = [&before, pod].map(|pod| resources::pod(pod).memory);
    change.pod_shrinks = shrinks(old, new).then_some(new);
    change
}

/// Whether a limit becomes smaller; 0 is none.
fn shrinks(old: i64, new: i64) -> bool {
    new > 0 && (old == 0 || new < old)
}

/// Whether a container has to start anew to have another amount of a resource.
fn restarts(container: &Container, resource: &str) -> bool {
    let mut policies = container.resize_policy.iter().flatten();
    policies.any(|policy| policy.resource_name == resource && policy.restart_policy == "RestartContainer")
}

/// Whether a running container is to end because it gets its new resources only by starting anew.
pub fn ends_for_resize(pod: &Pod, role: Role, container: &Container, allocation: Option<&Allocation>) -> bool {
    role != Role::Init
        && container.resize_policy.is_some()
        && allocation.is_some_and(|allocation| {
            !allocation.settled() && change(pod, allocation).restart.contains(&container.name)
        })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(containers: Value, whole: Value) -> Pod {
        serde_json::from_value(
            json!({"metadata": {"uid": "u"}, "spec": {"containers": containers, "resources": whole}}),
        )
        .unwrap()
    }

    fn container(name: &str, cpu: &str, memory: &str) -> Value {
        json!({
            "name": name, "resources": {"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}},
            "resizePolicy": [{"resourceName": "memory", "restartPolicy": if name == "r" { "RestartContainer" } else { "NotRequired" }}],
        })
    }

    fn resized(before: &Pod, after: &Pod) -> Change {
        let mut allocation = Allocation::new(before);
        allocation.grant(Shares::of(after), |_| true, true);
        change(after, &allocation)
    }

    #[test]
    fn what_a_resize_needs() {
        let pods = |containers: Value| pod(containers, Value::Null);
        let update = |names: &[&str]| Change {
            update: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Change::default()
        };
        for (what, before, after, want) in [
            (
                "nothing",
                pods(json!([container("a", "1", "1Gi")])),
                pods(json!([container("a", "1", "1Gi")])),
                Change::default(),
            ),
            (
                "more",
                pods(json!([container("a", "1", "1Gi")])),
                pods(json!([container("a", "2", "1Gi")])),
                update(&["a"]),
            ),
            (
                "who gives back goes first",
                pods(json!([container("a", "1", "1Gi"), container("b", "2", "1Gi")])),
                pods(json!([container("a", "2", "1Gi"), container("b", "1", "1Gi")])),
                update(&["b", "a"]),
            ),
            (
                "less memory",
                pods(json!([container("a", "1", "2Gi")])),
                pods(json!([container("a", "1", "1Gi")])),
                Change {
                    shrinking: vec![("a".into(), 1 << 30)],
                    pod_shrinks: Some(1 << 30),
                    ..update(&["a"])
                },
            ),
            (
                "CPU without, memory with a restart",
                pods(json!([container("r", "1", "1Gi")])),
                pods(json!([container("r", "2", "1Gi")])),
                update(&["r"]),
            ),
            (
                "memory with a restart",
                pods(json!([container("r", "1", "1Gi")])),
                pods(json!([container("r", "2", "2Gi")])),
                Change {
                    restart: vec!["r".into()],
                    ..Change::default()
                },
            ),
            (
                "of the whole pod, for whoever has no limit of its own",
                pod(
                    json!([{"name": "own", "resources": {"limits": {"cpu": "1"}}}, {"name": "none"}]),
                    json!({"limits": {"cpu": "2"}}),
                ),
                pod(
                    json!([{"name": "own", "resources": {"limits": {"cpu": "1"}}}, {"name": "none"}]),
                    json!({"limits": {"cpu": "3"}}),
                ),
                update(&["none"]),
            ),
        ] {
            assert_eq!(resized(&before, &after), want, "{what}");
        }
    }

    #[test]
    fn what_does_not_run_has_nothing_to_change() {
        let before = pod(
            json!([container("a", "1", "1Gi"), container("b", "1", "1Gi")]),
            Value::Null,
        );
        let after = pod(
            json!([container("a", "2", "1Gi"), container("b", "2", "1Gi")]),
            Value::Null,
        );
        let mut allocation = Allocation::new(&before);
        allocation.grant(Shares::of(&after), |name| name == "a", true);
        assert!(!allocation.settled());
        assert_eq!(change(&after, &allocation).update, ["a"]);
        allocation.enact("a");
        assert!(allocation.settled());
        let mut unstarted = Allocation::new(&before);
        unstarted.grant(Shares::of(&after), |_| false, false);
        assert!(unstarted.settled());
    }

    #[test]
    fn it_outlives_the_process() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Allocation::load(directory.path()), None);
        let mut allocation = Allocation::new(&pod(
            json!([container("a", "1", "1Gi")]),
            json!({"limits": {"cpu": "2"}}),
        ));
        allocation.granted.pod = None;
        allocation.save(directory.path()).unwrap();
        assert_eq!(Allocation::load(directory.path()), Some(allocation));
    }

    #[test]
    fn amounts_count_not_their_spelling() {
        let one = Shares::of(&pod(json!([container("a", "1", "1Gi")]), Value::Null));
        let other = Shares::of(&pod(json!([container("a", "1000m", "1073741824")]), Value::Null));
        assert!(one.matches(&other));
        assert!(!one.matches(&Shares::of(&pod(json!([container("a", "1", "2Gi")]), Value::Null))));
    }
}
