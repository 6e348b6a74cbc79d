//! How a pod comes to the node: it is taken in, or refused.

use client::kube::Api;
use k8s_openapi::api::core::v1::Node;

use super::admission::{self, Refusal};
use super::ledger::{Amount, Bid};
use super::pod::PodExt;
use super::resize::is_taken_in;
use super::worker::Worker;

impl Worker {
    /// Takes the pod in, which holds its part of the node from then on, or refuses it.
    pub(super) async fn enter(&mut self) {
        let comes = self.memory.resize.as_ref().is_some_and(|resize| !resize.held);
        if !comes || self.is_over() {
            return;
        }
        let ledger = &self.context.ledger;
        // What an earlier kubelet took in runs on.
        if is_taken_in(&self.pod) || !self.observed.sandboxes.is_empty() {
            ledger.take_in(&self.pod);
        } else {
            let bid = Bid {
                wants: Amount::of(&self.pod),
                ports: api::pod::host_ports(&self.pod),
                critical: api::pod::is_critical(&self.pod),
                misplaced: self.misplaced().await,
            };
            let most = self.context.config.configuration.max_pods;
            if let Err(refusal) = ledger.admit(self.pod.uid(), bid, most) {
                return self.refuse(refusal.reason, refusal.message);
            }
        }
        if let Some(resize) = &mut self.memory.resize {
            resize.held = true;
        }
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
