//! What is to be done about a Deployment's ReplicaSets, and what its status is to say. No I/O.
//!
//! A [`Round`] works on copies of the sets; what is different at its end is what is to be written. A rollout takes many
//! rounds: each is woken by what the one before has brought about.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::jiff::Timestamp;

use super::{proportion, sets, status};

/// What is known when a Deployment is looked at.
pub struct Observed<'a> {
    /// The Deployment.
    pub deployment: &'a Deployment,
    /// The sets that it controls.
    pub sets: &'a [Arc<ReplicaSet>],
    /// The uids of the sets that have pods which have not ended, those that are ending included.
    pub with_pods: &'a [String],
    /// The time.
    pub now: Timestamp,
}

/// A set to write.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// As it is to be.
    pub set: ReplicaSet,
    /// What to tell of it, when it is written: each change of its size.
    pub events: Vec<String>,
}

/// What is to be done, in this order.
#[derive(Debug, Default, PartialEq)]
pub struct Changes {
    /// The set to make.
    pub create: Option<Update>,
    /// Sets to write.
    pub update: Vec<Update>,
    /// Names of sets to delete.
    pub delete: Vec<String>,
    /// The Deployment with its new status and revision, when they are new.
    pub status: Option<Deployment>,
    /// When to look again, though nothing has happened.
    pub again: Option<Duration>,
}

/// Decides what becomes of the sets and the status.
pub fn reconcile(observed: &Observed<'_>) -> Changes {
    let mut round = Round::new(observed);
    let status = round.play();
    round.end(status)
}

struct Working<'a> {
    set: ReplicaSet,
    /// As it is stored; none when it is to be made.
    stored: Option<&'a ReplicaSet>,
    events: Vec<String>,
}

struct Round<'a> {
    observed: &'a Observed<'a>,
    /// The Deployment with what this round has to say in its status.
    deployment: Deployment,
    sets: Vec<Working<'a>>,
    /// Which of the sets is the new one.
    new: Option<usize>,
    delete: Vec<String>,
}

impl<'a> Round<'a> {
    fn new(observed: &'a Observed<'a>) -> Self {
        let working = |set: &'a Arc<ReplicaSet>| Working {
            set: ReplicaSet::clone(set),
            stored: Some(&**set),
            events: Vec::new(),
        };
        Self {
            observed,
            deployment: observed.deployment.clone(),
            sets: observed.sets.iter().map(working).collect(),
            new: sets::find_new(observed.deployment, observed.sets),
            delete: Vec::new(),
        }
    }

    fn play(&mut self) -> DeploymentStatus {
        if self.deployment.metadata.deletion_timestamp.is_some() {
            return self.counted();
        }
        status::pause(&mut self.deployment, self.observed.now);
        self.keep_up_new();
        let is_paused = sets::spec(&self.deployment).paused == Some(true);
        if is_paused || self.was_scaled() {
            self.scale();
            // In the middle of a rollout, who looks at the history may still want to go back in it.
            if is_paused {
                self.clean_up();
            }
            return self.counted();
        }
        if sets::is_rolling(&self.deployment) {
            self.roll();
        } else {
            self.recreate();
        }
        let status = self.of_rollout();
        if status::is_complete(&self.deployment, &status) {
            self.clean_up();
        }
        status
    }

    /// What is different from what is stored.
    fn end(self, status: DeploymentStatus) -> Changes {
        let mut changes = Changes {
            delete: self.delete,
            ..Changes::default()
        };
        for working in self.sets {
            let Working { set, stored, events } = working;
            match stored {
                None => changes.create = Some(Update { set, events }),
                Some(stored) if *stored != set => changes.update.push(Update { set, events }),
                Some(_) => {}
            }
        }
        let mut deployment = self.deployment;
        if self.observed.deployment.status.as_ref() == Some(&status) {
            changes.again = status::look_again(&deployment, &status, self.observed.now);
        }
        deployment.status = Some(status);
        if deployment != *self.observed.deployment {
            changes.status = Some(deployment);
        }
        changes
    }

    fn all(&self) -> Vec<&ReplicaSet> {
        self.sets.iter().map(|working| &working.set).collect()
    }

    fn new_set(&self) -> Option<&ReplicaSet> {
        self.new.map(|new| &self.sets[new].set)
    }

    /// The places of the old sets, the oldest first.
    fn old(&self) -> Vec<usize> {
        let mut old: Vec<usize> = (0..self.sets.len()).filter(|index| Some(*index) != self.new).collect();
        old.sort_by(|a, b| sets::age_order(&self.sets[*a].set, &self.sets[*b].set));
        old
    }

    fn counted(&self) -> DeploymentStatus {
        status::counted(&self.deployment, self.new_set(), &self.all(), self.observed.now)
    }

    fn of_rollout(&self) -> DeploymentStatus {
        status::of_rollout(&self.deployment, self.new_set(), &self.all(), self.observed.now)
    }

    /// The number that the new set is to have.
    fn next_revision(&self) -> i64 {
        let old = self
            .old()
            .into_iter()
            .map(|index| sets::revision(&self.sets[index].set));
        old.max().unwrap_or(0) + 1
    }

    /// Has the new set, when there is one, follow its Deployment in what is no part of the template.
    fn keep_up_new(&mut self) {
        let Some(new) = self.new else { return };
        let revision = self.next_revision();
        let seconds = sets::spec(&self.deployment).min_ready_seconds;
        let set = &mut self.sets[new].set;
        sets::annotate_new(&self.deployment, set, revision);
        let spec = set.spec.get_or_insert_default();
        if spec.min_ready_seconds.unwrap_or(0) != seconds.unwrap_or(0) {
            spec.min_ready_seconds = seconds;
        }
        let name = set.metadata.name.clone().unwrap_or_default();
        self.take_revision(new);
        status::set_found(&mut self.deployment, &name, self.observed.now);
    }

    /// Writes the number of a set to the Deployment.
    fn take_revision(&mut self, index: usize) {
        let revision = sets::revision(&self.sets[index].set).to_string();
        let annotations = self.deployment.metadata.annotations.get_or_insert_default();
        annotations.insert(sets::REVISION.into(), revision);
    }

    /// Makes the new set, when there is none.
    fn make_new(&mut self) {
        if self.new.is_some() {
            return;
        }
        let revision = self.next_revision();
        let mut set = sets::make(&self.deployment);
        let size = self.size_of_new(&set);
        sets::annotate_new(&self.deployment, &mut set, revision);
        sets::annotate_size(&self.deployment, &mut set);
        set.spec.get_or_insert_default().replicas = Some(size);
        let name = set.metadata.name.clone().unwrap_or_default();
        let made = (size > 0).then(|| format!("Scaled up replica set {name} from 0 to {size}"));
        self.sets.push(Working {
            set,
            stored: None,
            events: made.into_iter().collect(),
        });
        let new = self.sets.len() - 1;
        self.new = Some(new);
        self.take_revision(new);
        status::set_created(&mut self.deployment, &name, self.observed.now);
    }

    /// Whether another number of pods is wished for than when a set was last scaled.
    fn was_scaled(&self) -> bool {
        let wished = sets::wished(&self.deployment);
        self.all()
            .iter()
            .any(|set| sets::size(set) > 0 && sets::desired(set).is_some_and(|desired| desired != wished))
    }

    /// Gives a set another size, and tells of it; writes down what the Deployment wishes for in any case.
    fn resize(&mut self, index: usize, size: i32) {
        let working = &mut self.sets[index];
        let before = sets::size(&working.set);
        sets::annotate_size(&self.deployment, &mut working.set);
        if size == before {
            return;
        }
        working.set.spec.get_or_insert_default().replicas = Some(size);
        let name = working.set.metadata.name.as_deref().unwrap_or_default();
        let direction = if size > before { "up" } else { "down" };
        let event = format!("Scaled {direction} replica set {name} from {before} to {size}");
        working.events.push(event);
    }

    /// How large the new set may be now.
    fn size_of_new(&self, new: &ReplicaSet) -> i32 {
        let (wished, size) = (sets::wished(&self.deployment), sets::size(new));
        if !sets::is_rolling(&self.deployment) {
            return wished;
        }
        let most = wished + sets::max_surge(&self.deployment);
        let present = sets::sizes(self.all());
        if present >= most {
            return size;
        }
        size + (most - present).min(wished - size)
    }

    /// One round of a rolling update: the new set grows as far as it may, or else the old ones shrink.
    fn roll(&mut self) {
        self.make_new();
        let Some(new) = self.new else { return };
        let wished = sets::wished(&self.deployment);
        let size = sets::size(&self.sets[new].set);
        let next = match size.cmp(&wished) {
            std::cmp::Ordering::Equal => size,
            std::cmp::Ordering::Greater => wished,
            std::cmp::Ordering::Less => self.size_of_new(&self.sets[new].set),
        };
        if next != size {
            self.resize(new, next);
            return;
        }
        self.shrink_old(new);
    }

    fn shrink_old(&mut self, new: usize) {
        let old = self.old();
        if old.iter().all(|index| sets::size(&self.sets[*index].set) == 0) {
            return;
        }
        let least = sets::wished(&self.deployment) - sets::max_unavailable(&self.deployment);
        let new_set = &self.sets[new].set;
        let new_missing = sets::size(new_set) - sets::available(new_set);
        let most = sets::sizes(self.all()) - least - new_missing;
        if most <= 0 {
            return;
        }
        // Pods that are not available go first: nobody misses them.
        let mut gone = 0;
        for index in &old {
            let set = &self.sets[*index].set;
            let (size, available) = (sets::size(set), sets::available(set));
            let count = (size - available).clamp(0, most - gone);
            if count > 0 {
                self.resize(*index, size - count);
                gone += count;
            }
        }
        let available: i32 = self.all().into_iter().map(sets::available).sum();
        let mut spare = available - least;
        for index in old {
            let size = sets::size(&self.sets[index].set);
            let count = size.min(spare).max(0);
            if count > 0 {
                self.resize(index, size - count);
                spare -= count;
            }
        }
    }

    /// One round of a recreation: the old sets go to zero, and when their pods have ended the new one comes.
    fn recreate(&mut self) {
        let active: Vec<usize> = self
            .old()
            .into_iter()
            .filter(|index| sets::size(&self.sets[*index].set) > 0)
            .collect();
        if !active.is_empty() {
            active.into_iter().for_each(|index| self.resize(index, 0));
            return;
        }
        let has_pods = |set: &ReplicaSet| {
            set.status.as_ref().is_some_and(|status| status.replicas > 0)
                || set
                    .metadata
                    .uid
                    .as_ref()
                    .is_some_and(|uid| self.observed.with_pods.contains(uid))
        };
        if self.old().into_iter().any(|index| has_pods(&self.sets[index].set)) {
            return;
        }
        self.make_new();
        if let Some(new) = self.new {
            let wished = sets::wished(&self.deployment);
            if sets::size(&self.sets[new].set) != wished {
                self.resize(new, wished);
            }
        }
    }

    /// Brings the sets to the wished number of pods without rolling out: one set takes all of it, several take their
    /// share.
    fn scale(&mut self) {
        let wished = sets::wished(&self.deployment);
        let active: Vec<usize> = (0..self.sets.len())
            .filter(|index| sets::size(&self.sets[*index].set) > 0)
            .collect();
        let only = match active[..] {
            [] => self.new.or_else(|| self.old().pop()),
            [only] => Some(only),
            _ => None,
        };
        if let Some(only) = only {
            self.resize(only, wished);
            return;
        }
        if active.is_empty() {
            return;
        }
        let is_saturated = self.new_set().is_some_and(|new| {
            sets::desired(new) == Some(wished) && sets::size(new) == wished && sets::available(new) == wished
        });
        if is_saturated {
            for index in self.old() {
                if sets::size(&self.sets[index].set) > 0 {
                    self.resize(index, 0);
                }
            }
            return;
        }
        if sets::is_rolling(&self.deployment) {
            let shares = {
                let members: Vec<&ReplicaSet> = active.iter().map(|index| &self.sets[*index].set).collect();
                proportion::sizes(&self.deployment, &members)
            };
            for (index, size) in active.into_iter().zip(shares) {
                self.resize(index, size);
            }
        }
    }

    /// Deletes the oldest of the old sets that are more than the history is to hold.
    fn clean_up(&mut self) {
        let limit = sets::spec(&self.deployment).revision_history_limit;
        let Some(limit) = limit.filter(|limit| *limit != i32::MAX) else {
            return;
        };
        let mut old: Vec<usize> = self
            .old()
            .into_iter()
            .filter(|index| self.sets[*index].set.metadata.deletion_timestamp.is_none())
            .collect();
        let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        old.sort_by_key(|index| sets::revision(&self.sets[*index].set));
        for index in old.into_iter().take(surplus) {
            let set = &self.sets[index].set;
            let status = set.status.clone().unwrap_or_default();
            let is_done =
                status.replicas == 0 && sets::size(set) == 0 && status.observed_generation >= set.metadata.generation;
            if is_done {
                self.delete.extend(set.metadata.name.clone());
            }
        }
    }
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
