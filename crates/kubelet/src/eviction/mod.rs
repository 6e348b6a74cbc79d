//! Node-pressure eviction: the node looks at what is left of memory, disk and process numbers, says when it is short of something, and
//! ends pods before the kernel has to, one at a time, those first that use more than they asked for.
//!
//! ```text
//! timer, PSI ──> machine::observations ──> decide ──> conditions (NodeState) ──> node status, admission
//!                                            └─ due ──> images ──> rank ──> one pod's worker: its verdict
//! ```
//!
//! The timer is upstream's; a stall of memory, of which the kernel tells, is looked at in between.

pub mod decide;
pub mod rank;
mod stall;
pub mod thresholds;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::EventType::Warning;
use k8s_openapi::api::core::v1::Pod;
use tracing::{info, warn};

use crate::image_gc::ImageCollector;
use crate::node;
use crate::pods::memory::Verdict;
use crate::pods::pod::PodExt;
use crate::pods::{Context, Pods};
use crate::stats::machine::{self, FileSystem};
use crate::stats::{Depth, Stats};
use decide::Shortages;
use rank::Usage;
use stall::Stall;
use thresholds::{Observations, Pressure, Threshold};

/// How often the node is looked at.
const LOOK: Duration = Duration::from_secs(10);
/// How long an evicted pod is waited for, before the next look.
const CLEAN_UP: Duration = Duration::from_secs(30);
/// The seconds that a pod has which must go at once.
const AT_ONCE: i64 = 1;

/// Watches the node's resources.
pub struct Evictor {
    /// The node around the pods.
    pub context: Arc<Context>,
    /// The pods.
    pub pods: Pods,
    /// What they use.
    pub stats: Arc<Stats>,
    /// Frees the disk of images first.
    pub images: Arc<ImageCollector>,
    /// What must be left.
    pub thresholds: Vec<Threshold>,
}

impl Evictor {
    /// Works until it is dropped.
    pub async fn run(self) {
        if self.thresholds.is_empty() {
            return std::future::pending().await;
        }
        let mut shortages = Shortages::default();
        let mut stall = Stall::of_memory();
        let images = self.stats.image_directory().await;
        // Who goes first can be said when all are known.
        self.pods.complete().await;
        loop {
            match self.look(&mut shortages, images.as_deref()).await {
                // What it gives back is to be seen before another one goes.
                Some(uid) => drop(tokio::time::timeout(CLEAN_UP, self.pods.cleaned(&uid)).await),
                None => drop(tokio::time::timeout(LOOK, stall.wait()).await),
            }
        }
    }

    fn observe(&self, images: Option<&std::path::Path>) -> Observations {
        machine::observations(&self.context.config.root_dir, images)
    }

    /// Looks, says what is short, and ends a pod if it must; the uid of that pod.
    async fn look(&self, shortages: &mut Shortages, images: Option<&std::path::Path>) -> Option<String> {
        let configuration = &self.context.config.configuration;
        let seen = self.observe(images);
        let transition = configuration.eviction_pressure_transition_period.0;
        let verdict = shortages.look(&self.thresholds, &seen, transition, Instant::now());
        self.context.state.send_if_modified(|state| {
            let changed = state.pressures != verdict.pressures;
            state.pressures.clone_from(&verdict.pressures);
            changed
        });
        let first = *verdict.due.first()?;
        let resource = first.signal.resource();
        let message = format!("Attempting to reclaim {resource}");
        let about = node::reference(&self.context.config.node_name);
        self.context
            .events
            .record(&about, Warning, "EvictionThresholdMet", message);
        let separate = self.separate(images);
        if frees_images(first, separate) {
            if let Err(error) = self.images.remove_unused().await {
                warn!(%error, "unused images are not all removed");
            }
            let seen = self.observe(images);
            if !self.thresholds.iter().any(|threshold| threshold.is_met(&seen, true)) {
                info!(resource, "removing images was enough");
                return None;
            }
        }
        self.evict(first, &verdict.due, &seen, separate).await
    }

    /// Whether images have a file system of their own.
    fn separate(&self, images: Option<&std::path::Path>) -> bool {
        let id = |path: PathBuf| FileSystem::of(&path).map(|found| found.id);
        images.is_some_and(|images| id(images.to_owned()) != id(self.context.config.root_dir.clone()))
    }

    async fn evict(&self, first: Threshold, due: &[Threshold], seen: &Observations, separate: bool) -> Option<String> {
        let depth = match first.signal.pressure() {
            Pressure::Disk => Depth::Files,
            Pressure::Memory | Pressure::Pid => Depth::CpuAndMemory,
        };
        let mut usage: HashMap<String, Usage> = match self.stats.usage(depth).await {
            Ok(usage) => usage,
            Err(error) => {
                warn!(%error, "the runtime does not say what pods use");
                return None;
            }
        };
        let mut pods: Vec<(Arc<Pod>, Option<Usage>)> = self
            .pods
            .active()
            .into_iter()
            .map(|pod| (pod.clone(), usage.remove(pod.uid())))
            .collect();
        rank::rank(&mut pods, first.signal, separate);
        let evictable = pods.iter().find(|(pod, _)| !api::pod::is_critical(pod));
        let Some((pod, usage)) = evictable else {
            warn!(signal = first.signal.name(), "no pod can be evicted");
            return None;
        };
        let message = rank::message(pod, usage.as_ref(), &prefer(first, due), seen);
        info!(pod = %pod.full_name(), signal = first.signal.name(), "evicting");
        self.context
            .events
            .record(&pod.reference(), Warning, "Evicted", message.clone());
        self.context.metrics.evicted(first.signal);
        let grace = match first.grace {
            None => AT_ONCE,
            Some(_) => self.context.config.configuration.eviction_max_pod_grace_period,
        };
        self.pods.end_early(
            pod.uid(),
            Verdict {
                reason: "Evicted".into(),
                message,
                grace: Some(grace),
                disrupts: true,
            },
        );
        Some(pod.uid().to_owned())
    }
}

/// The thresholds with that first that is acted on.
fn prefer(first: Threshold, due: &[Threshold]) -> Vec<Threshold> {
    let others = due.iter().filter(|threshold| **threshold != first);
    std::iter::once(first).chain(others.copied()).collect()
}

/// Whether removing images helps.
fn frees_images(due: Threshold, separate: bool) -> bool {
    use thresholds::Signal::{ImageFsAvailable, ImageFsInodesFree, NodeFsAvailable, NodeFsInodesFree};
    match due.signal {
        ImageFsAvailable | ImageFsInodesFree => true,
        NodeFsAvailable | NodeFsInodesFree => !separate,
        _ => false,
    }
}
