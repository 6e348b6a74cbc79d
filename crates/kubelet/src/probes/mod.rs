//! Probes: whether containers have started, are ready for traffic, and live.
//!
//! Each probe of a running instance is a task of its own. It keeps count ([`count`], without I/O) and tells the pod's worker only when the
//! result turns. Until the startup probe has succeeded the others wait; it then ends. Liveness and startup end with a failure, since the
//! instance does.

mod count;
mod run;

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use tokio::task::AbortHandle;

use crate::pods::observed::{Instance, Observed, State};
use crate::pods::pod::{PodExt, Role};

pub use run::Surroundings;

/// The three probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Whether it has started.
    Startup,
    /// Whether it is ready for traffic.
    Readiness,
    /// Whether it lives.
    Liveness,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Startup, Kind::Readiness, Kind::Liveness];

    fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Kind::Startup => container.startup_probe.as_ref(),
            Kind::Readiness => container.readiness_probe.as_ref(),
            Kind::Liveness => container.liveness_probe.as_ref(),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Readiness => "Readiness",
            Kind::Liveness => "Liveness",
        }
    }
}

/// Whether a container has any probe.
pub fn any(container: &Container) -> bool {
    Kind::ALL.into_iter().any(|kind| kind.of(container).is_some())
}

/// What the probes of a pod have found, by instance.
#[derive(Debug, Clone, Default)]
pub struct Results {
    found: HashMap<(String, Kind), bool>,
}

impl Results {
    /// A probe's result turned.
    pub fn set(&mut self, instance: &str, kind: Kind, good: bool) {
        self.found.insert((instance.to_owned(), kind), good);
    }

    /// Forgets instances that do not run any more.
    pub fn retain(&mut self, observed: &Observed) {
        self.found
            .retain(|(id, _), _| observed.instances.iter().any(|instance| instance.id == *id));
    }

    fn get(&self, instance: &str, kind: Kind) -> Option<bool> {
        self.found.get(&(instance.to_owned(), kind)).copied()
    }

    /// Whether an instance has started, as far as its startup probe says.
    pub fn started(&self, container: &Container, instance: &str) -> bool {
        container.startup_probe.is_none() || self.get(instance, Kind::Startup) == Some(true)
    }

    /// Whether a started instance is ready, as far as its readiness probe says.
    pub fn ready(&self, container: &Container, instance: &str) -> bool {
        container.readiness_probe.is_none() || self.get(instance, Kind::Readiness) == Some(true)
    }

    /// Why an instance must end, and in how many seconds, where not what the pod says.
    pub fn condemned(
        &self,
        pod: &Pod,
        role: Role,
        container: &Container,
        instance: &str,
    ) -> Option<(String, Option<i64>)> {
        [(Kind::Liveness, "liveness"), (Kind::Startup, "startup")]
            .into_iter()
            .find(|(kind, _)| self.get(instance, *kind) == Some(false))
            .map(|(kind, word)| {
                let grace = kind
                    .of(container)
                    .and_then(|probe| probe.termination_grace_period_seconds);
                (epitaph(pod, role, container, word), grace)
            })
    }
}

/// What the event of a container's end says that failed a probe.
fn epitaph(pod: &Pod, role: Role, container: &Container, probe: &str) -> String {
    let name = &container.name;
    let policy = container
        .restart_policy
        .as_ref()
        .or_else(|| pod.spec.as_ref()?.restart_policy.as_ref());
    match role {
        Role::Init | Role::Sidecar => format!("Init container {name} failed {probe} probe"),
        _ if policy.is_none_or(|policy| policy != "Never") => {
            format!("Container {name} failed {probe} probe, will be restarted")
        }
        _ => format!("Container {name} failed {probe} probe"),
    }
}

/// The running probes of one pod.
#[derive(Default)]
pub struct Probes {
    running: HashMap<(String, Kind), AbortHandle>,
}

impl Probes {
    /// Has exactly the probes run that the instances need. Of a pod that is `over` only readiness is of interest: who still talks to it
    /// wants to know how long it answers.
    pub fn keep(
        &mut self,
        pod: &Pod,
        observed: &Observed,
        results: &Results,
        over: bool,
        surroundings: &Arc<Surroundings>,
    ) {
        let mut wanted = HashMap::new();
        for (_, container) in pod.containers() {
            let Some(instance) = observed
                .latest(&container.name)
                .filter(|instance| instance.state == State::Running)
            else {
                continue;
            };
            for kind in Kind::ALL {
                let Some(probe) = kind.of(container) else { continue };
                let started = results.started(container, &instance.id);
                let due = match kind {
                    Kind::Startup => !over && !started && results.get(&instance.id, kind) != Some(false),
                    Kind::Readiness => started,
                    Kind::Liveness => !over && started && results.get(&instance.id, kind) != Some(false),
                };
                if due {
                    wanted.insert((instance.id.clone(), kind), (container, instance, probe));
                }
            }
        }
        self.running.retain(|key, task| {
            let stays = wanted.contains_key(key);
            if !stays {
                task.abort();
            }
            stays
        });
        for (key, (container, instance, probe)) in wanted {
            let kind = key.1;
            self.running
                .entry(key)
                .or_insert_with(|| spawn(pod, container, instance, probe, kind, surroundings));
        }
    }
}

fn spawn(
    pod: &Pod,
    container: &Container,
    instance: &Instance,
    probe: &Probe,
    kind: Kind,
    surroundings: &Arc<Surroundings>,
) -> AbortHandle {
    let role = pod.container(&container.name).map_or(Role::App, |(role, _)| role);
    let about = pod.container_reference(role, &container.name);
    let task = run::run(
        surroundings.clone(),
        about,
        container.clone(),
        instance.clone(),
        probe.clone(),
        kind,
    );
    tokio::spawn(task).abort_handle()
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.running.values().for_each(AbortHandle::abort);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_end_of_a_container_is_told_by_its_policy() {
        let probed = |policy: Value| json!({"name": "c", "restartPolicy": policy, "livenessProbe": {"terminationGracePeriodSeconds": 3}});
        let pod = |policy: &str, own: Value, init: bool| -> Pod {
            let (inits, apps) = if init {
                (json!([probed(own)]), json!([]))
            } else {
                (json!([]), json!([probed(own)]))
            };
            let spec = json!({"restartPolicy": policy, "initContainers": inits, "containers": apps});
            serde_json::from_value(json!({"spec": spec})).unwrap()
        };
        let mut results = Results::default();
        results.set("1", Kind::Liveness, false);
        for (pod, said) in [
            (
                pod("Always", Value::Null, false),
                "Container c failed liveness probe, will be restarted",
            ),
            (pod("Never", Value::Null, false), "Container c failed liveness probe"),
            (
                pod("Never", "OnFailure".into(), false),
                "Container c failed liveness probe, will be restarted",
            ),
            (
                pod("Always", "Always".into(), true),
                "Init container c failed liveness probe",
            ),
        ] {
            let (role, container) = pod.container("c").unwrap();
            assert_eq!(
                results.condemned(&pod, role, container, "1"),
                Some((said.to_owned(), Some(3)))
            );
            assert_eq!(results.condemned(&pod, role, container, "2"), None);
        }
    }
}
