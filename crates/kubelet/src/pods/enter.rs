//! How a pod comes to the node: it is taken in, or refused.

use std::sync::Arc;

use client::EventType::Warning;
use client::kube::Api;
use k8s_openapi::api::core::v1::{Node, Pod};

use super::admission::{self, Refusal};
use super::ledger::{Amount, Bid, Denial, Lack};
use super::memory::Verdict;
use super::pod::PodExt;
use super::preempt;
use super::resize::is_taken_in;
use super::worker::Worker;

impl Worker {
    /// Takes the pod in, which holds its part of the node from then on, or refuses it. Answers whether one of both was done: a pod that was told
    /// to end meanwhile is to be looked at again.
    pub(super) async fn enter(&mut self) -> bool {
        let comes = self.memory.resize.as_ref().is_some_and(|resize| !resize.held);
        if !comes || self.is_over() {
            return true;
        }
        // What an earlier kubelet took in runs on.
        if is_taken_in(&self.pod) || !self.observed.sandboxes.is_empty() {
            self.context.ledger.take_in(&self.pod);
        } else {
            match self.admission().await {
                None => return false,
                Some(Err(refusal)) => {
                    self.refuse(refusal.reason, refusal.message);
                    return true;
                }
                Some(Ok(())) => {}
            }
        }
        if let Some(resize) = &mut self.memory.resize {
            resize.held = true;
        }
        true
    }

    /// Whether there is room for the pod, others having gone for it if need be; nothing when it was told to end while it waited for them.
    async fn admission(&self) -> Option<Result<(), Refusal>> {
        loop {
            let bid = Bid {
                wants: Amount::of(&self.pod),
                class: api::pod::stored_qos_class(&self.pod),
                ports: api::pod::host_ports(&self.pod),
                critical: api::pod::is_critical(&self.pod),
                misplaced: self.misplaced().await,
                extended: self.extended(),
            };
            let refusal = match self.context.ledger.admit(self.pod.uid(), bid) {
                Ok(()) => return Some(Ok(())),
                Err(Denial::Refused(refusal)) => refusal,
                Err(Denial::Crowded(lacks)) => match self.preempt(&lacks).await {
                    Ok(true) => continue,
                    Ok(false) => return None,
                    Err(error) => Refusal {
                        reason: "UnexpectedAdmissionError".into(),
                        message: format!(
                            "Unexpected error while attempting to recover from admission failure: {error}"
                        ),
                    },
                },
            };
            return Some(Err(refusal));
        }
    }

    /// Has others ended for the pod, and waits until they hold nothing any more; whether the pod itself is still wanted then.
    async fn preempt(&self, lacks: &[Lack]) -> Result<bool, String> {
        let mut others: Vec<Arc<Pod>> = self.pods.views().into_iter().map(|view| view.pod).collect();
        others.retain(|other| self.context.ledger.has(other.uid()));
        let victims = preempt::victims(&self.pod, &others, lacks)
            .map_err(|error| format!("preemption: error finding a set of pods to preempt: {error}"))?;
        let make_room = async {
            // Those that this kubelet has just found have no worker yet to be told.
            self.pods.complete().await;
            // One that ends already, or has ended, is only waited for.
            let lives = |pod: &&Arc<Pod>| pod.deletion().is_none() && !api::pod::is_terminal(pod);
            for victim in victims.iter().filter(lives) {
                let message = "Preempted in order to admit critical pod";
                self.context
                    .events
                    .record(&victim.reference(), Warning, "Preempting", message);
                let verdict = Verdict {
                    reason: "Preempting".into(),
                    message: message.into(),
                    grace: None,
                    disrupts: true,
                };
                self.pods.end_early(victim.uid(), verdict);
            }
            let uids: Vec<&str> = victims.iter().map(|victim| victim.uid()).collect();
            self.context.ledger.released(&uids).await;
        };
        tokio::select! {
            () = make_room => Ok(true),
            () = self.mailbox.ends() => Ok(false),
        }
    }

    /// The extended resources that the node has now.
    fn extended(&self) -> Amount {
        let known = self.context.node.get(None, &self.context.config.node_name);
        let allocatable = known
            .as_ref()
            .and_then(|node| node.status.as_ref()?.allocatable.as_ref());
        allocatable
            .map(|list| Amount::listed(list).extended())
            .unwrap_or_default()
    }

    async fn misplaced(&self) -> Option<Refusal> {
        let name = &self.context.config.node_name;
        let known = self.context.node.get(None, name);
        let seen = known.as_deref().unwrap_or(&self.context.registers);
        let refusal = admission::misplaced(&self.pod, seen)?;
        // What is known may be behind what the pod was bound for. A static pod waits for no API server.
        if api::pod::is_static(&self.pod) {
            return Some(refusal);
        }
        match Api::<Node>::all(self.context.client.clone()).get(name).await {
            Ok(node) => admission::misplaced(&self.pod, &node),
            Err(_) => Some(refusal),
        }
    }
}
