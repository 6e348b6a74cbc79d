//! Pods that want to be near other pods, or far from them.
//!
//! Near means: on a node with the same value of a label, the topology key. What the snapshot says of that is
//! worked out once a pod, as sets of values; a node then only has to be looked up in them.

use std::collections::HashSet;

use api::pod;
use api::selector::LabelSelector;
use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm};

use super::{Filter, Rejection};
use crate::snapshot::{NodeInfo, Snapshot};

/// A term as it is matched: which pods, in which namespaces, near by which label.
struct Term {
    topology_key: String,
    namespaces: Vec<String>,
    namespace_selector: Option<LabelSelector>,
    selector: LabelSelector,
}

impl Term {
    fn new(term: &PodAffinityTerm, owner: &Pod) -> Self {
        // A selector that cannot be read was refused when the pod was written; it matches nothing.
        let selector = |selector| LabelSelector::from_object(selector).unwrap_or_else(|_| LabelSelector::nothing());
        let mut namespaces = term.namespaces.clone().unwrap_or_default();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.push(pod::namespace(owner).to_owned());
        }
        Term {
            topology_key: term.topology_key.clone(),
            namespaces,
            namespace_selector: term.namespace_selector.as_ref().map(|s| selector(Some(s))),
            selector: selector(term.label_selector.as_ref()),
        }
    }

    fn matches(&self, other: &Pod, snapshot: &Snapshot) -> bool {
        let namespace = pod::namespace(other);
        let selected = |selector: &LabelSelector| {
            selector.is_everything() || selector.matches(snapshot.namespace_labels(namespace))
        };
        (self.namespaces.iter().any(|own| own == namespace) || self.namespace_selector.as_ref().is_some_and(selected))
            && self.selector.matches(other.metadata.labels.as_ref())
    }
}

fn required_near(pod: &Pod) -> Vec<Term> {
    let affinity = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.affinity.as_ref()?.pod_affinity.as_ref());
    let terms = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    terms.into_iter().flatten().map(|term| Term::new(term, pod)).collect()
}

fn required_far(pod: &Pod) -> Vec<Term> {
    let affinity = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.affinity.as_ref()?.pod_anti_affinity.as_ref());
    let terms = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    terms.into_iter().flatten().map(|term| Term::new(term, pod)).collect()
}

type Places = HashSet<(String, String)>;

/// The required terms of a pod, and of the pods that are there already.
pub(crate) struct PodTerms {
    near_keys: Vec<String>,
    /// Where a pod is that every near term matches.
    near: Vec<Places>,
    /// Whether the pod may be the first of its kind: nothing matches yet, but it would match itself.
    first: bool,
    far: Places,
    /// Where pods are that do not want this one near.
    unwanted: Places,
}

impl PodTerms {
    pub(super) fn new(pod: &Pod, snapshot: &Snapshot) -> Self {
        let (near_terms, far_terms) = (required_near(pod), required_far(pod));
        let mut near = vec![Places::new(); near_terms.len()];
        let (mut far, mut unwanted) = (Places::new(), Places::new());
        for info in snapshot.nodes() {
            let place = |key: &str| info.label(key).map(|value| (key.to_owned(), value.to_owned()));
            for placed in info.pods.values() {
                let other = &*placed.pod;
                // Upstream asks for a pod that all terms match at once.
                if !near_terms.is_empty() && near_terms.iter().all(|term| term.matches(other, snapshot)) {
                    for (term, places) in near_terms.iter().zip(&mut near) {
                        places.extend(place(&term.topology_key));
                    }
                }
                far.extend(
                    far_terms
                        .iter()
                        .filter(|t| t.matches(other, snapshot))
                        .filter_map(|t| place(&t.topology_key)),
                );
                let refused = required_far(other);
                unwanted.extend(
                    refused
                        .iter()
                        .filter(|t| t.matches(pod, snapshot))
                        .filter_map(|t| place(&t.topology_key)),
                );
            }
        }
        let first = near.iter().all(HashSet::is_empty) && near_terms.iter().all(|term| term.matches(pod, snapshot));
        PodTerms {
            near_keys: near_terms.into_iter().map(|term| term.topology_key).collect(),
            near,
            first,
            far,
            unwanted,
        }
    }

    pub(super) fn check(&self, info: &NodeInfo) -> Result<(), Rejection> {
        let near = self
            .near_keys
            .iter()
            .zip(&self.near)
            .all(|(key, places)| match info.label(key) {
                None => false,
                Some(value) => self.first || places.contains(&(key.clone(), value.to_owned())),
            });
        if !near {
            return Err(Rejection::lasting(
                Filter::InterPodAffinity,
                "node(s) didn't match pod affinity rules",
            ));
        }
        let is_in = |places: &Places| places.iter().any(|(key, value)| info.label(key) == Some(value));
        if is_in(&self.far) {
            return Err(Rejection::passing(
                Filter::InterPodAffinity,
                "node(s) didn't match pod anti-affinity rules",
            ));
        }
        if is_in(&self.unwanted) {
            let why = "node(s) didn't satisfy existing pods anti-affinity rules";
            return Err(Rejection::passing(Filter::InterPodAffinity, why));
        }
        Ok(())
    }
}
