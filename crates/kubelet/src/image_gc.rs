//! Garbage collection of images: every five minutes, when the disk is full above one part, unused images are removed until it is below
//! another, those first that nobody has used for longest. What a container runs from, what is pinned and what has just come stays.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use client::EventType::Warning;
use cri::v1::{Image, ImageSpec, ListContainersRequest, ListImagesRequest, RemoveImageRequest};
use cri::{ImageService, RuntimeService};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use tracing::{debug, info};

use crate::node;
use crate::pods::pod::PodExt;
use crate::pods::{Context, Pods};
use crate::stats::Stats;
use crate::stats::machine::FileSystem;

/// How often it is looked.
const PERIOD: Duration = Duration::from_secs(300);

/// What is known of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Record {
    first_seen: Timestamp,
    last_used: Timestamp,
    size: u64,
    pinned: bool,
}

/// By id.
type Records = HashMap<String, Record>;

/// Takes a look at the images of the node. What is there at the first look has been there for ever.
fn detect(known: &Records, images: &[Image], used: &HashSet<String>, first: bool, now: Timestamp) -> Records {
    let seen = images.iter().map(|image| {
        let before = known.get(&image.id);
        let since = if first { Timestamp::MIN } else { now };
        let record = Record {
            first_seen: before.map_or(since, |before| before.first_seen),
            last_used: match used.contains(&image.id) {
                true => now,
                false => before.map_or(Timestamp::MIN, |before| before.last_used),
            },
            size: image.size,
            pinned: image.pinned,
        };
        (image.id.clone(), record)
    });
    seen.collect()
}

/// What may be removed at `now`, which is when it was looked; the longest unused first. `age` is how old it must be.
fn removable(records: &Records, age: SignedDuration, now: Timestamp) -> Vec<(String, Record)> {
    let mut found: Vec<_> = records
        .iter()
        .filter(|(_, record)| !record.pinned && record.last_used < now)
        .filter(|(_, record)| now.duration_since(record.first_seen) >= age)
        .map(|(id, record)| (id.clone(), *record))
        .collect();
    found.sort_by(|(a, one), (b, other)| {
        (one.last_used, one.first_seen, a).cmp(&(other.last_used, other.first_seen, b))
    });
    found
}

/// What to remove to free so many bytes, and how many that frees.
fn choose(removable: Vec<(String, Record)>, bytes: u64) -> (Vec<String>, u64) {
    let mut freed = 0;
    let chosen = removable
        .into_iter()
        .take_while(|(_, record)| {
            let wanted = freed < bytes;
            freed += if wanted { record.size } else { 0 };
            wanted
        })
        .map(|(id, _)| id)
        .collect();
    (chosen, freed)
}

/// What nobody has used for too long.
fn too_old(removable: &[(String, Record)], most: SignedDuration, started: Timestamp, now: Timestamp) -> Vec<String> {
    let unused_since = |record: &Record| record.last_used.max(started);
    removable
        .iter()
        .filter(|(_, record)| now.duration_since(unused_since(record)) > most)
        .map(|(id, _)| id.clone())
        .collect()
}

/// The bytes to free on a disk, if it is too full.
fn excess(disk: FileSystem, high: i64, low: i64) -> Option<u64> {
    let capacity = i64::try_from(disk.capacity).unwrap_or(i64::MAX);
    let available = i64::try_from(disk.available).unwrap_or(i64::MAX).min(capacity);
    if capacity == 0 {
        return None;
    }
    let percent = 100 - (i128::from(available) * 100 / i128::from(capacity)) as i64;
    let wanted = i128::from(capacity) * i128::from(100 - low) / 100 - i128::from(available);
    (percent >= high).then(|| u64::try_from(wanted).unwrap_or(0))
}

/// Removes images that nobody needs.
pub struct ImageCollector {
    context: Arc<Context>,
    images: Arc<dyn ImageService>,
    pods: Pods,
    stats: Arc<Stats>,
    started: Timestamp,
    /// None before the first look.
    records: Mutex<Option<Records>>,
    /// One removes at a time.
    turn: tokio::sync::Mutex<()>,
}

impl ImageCollector {
    /// For the node's images.
    pub fn new(context: Arc<Context>, images: Arc<dyn ImageService>, pods: Pods, stats: Arc<Stats>) -> Self {
        Self {
            context,
            images,
            pods,
            stats,
            started: Timestamp::now(),
            records: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Works until it is dropped.
    pub async fn run(&self) {
        // What pods use is known when they are.
        self.pods.complete().await;
        let mut beat = tokio::time::interval(PERIOD);
        let mut failures = 0;
        loop {
            beat.tick().await;
            match self.collect().await {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures += 1;
                    info!(%error, "images are not collected");
                    // Once may be chance.
                    if failures > 1 {
                        self.tell("ImageGCFailed", error);
                    }
                }
            }
        }
    }

    fn tell(&self, reason: &str, message: String) {
        let about = node::reference(&self.context.config.node_name);
        self.context.events.record(&about, Warning, reason, message);
    }

    async fn collect(&self) -> Result<(), String> {
        let _turn = self.turn.lock().await;
        let configuration = &self.context.config.configuration;
        let age = SignedDuration::try_from(configuration.image_minimum_gc_age.0).unwrap_or(SignedDuration::MAX);
        let most = SignedDuration::try_from(configuration.image_maximum_gc_age.0).unwrap_or(SignedDuration::MAX);
        let now = Timestamp::now();
        let mut found = removable(&self.look(now).await?, age, now);
        if most > SignedDuration::ZERO {
            let old = too_old(&found, most, self.started, now);
            self.remove(&old).await?;
            found.retain(|(id, _)| !old.contains(id));
        }
        let Some(directory) = self.stats.image_directory().await else {
            return Err("the runtime does not say where images are".into());
        };
        let disk = FileSystem::of(Path::new(&directory))
            .ok_or_else(|| format!("invalid capacity 0 on {}", directory.display()))?;
        let (high, low) = (
            configuration.image_gc_high_threshold_percent,
            configuration.image_gc_low_threshold_percent,
        );
        // 100 is never.
        let Some(bytes) = excess(disk, high, low).filter(|_| high < 100) else {
            return Ok(());
        };
        let (chosen, freed) = choose(found, bytes);
        info!(
            bytes,
            images = chosen.len(),
            "the disk is too full, removing unused images"
        );
        self.remove(&chosen).await?;
        if freed < bytes {
            let message = format!(
                "Failed to garbage collect required amount of images. Attempted to free {bytes} bytes, but only found {freed} bytes eligible to free."
            );
            self.tell("FreeDiskSpaceFailed", message.clone());
            return Err(message);
        }
        Ok(())
    }

    /// Removes all that is unused, however new: the node is short of disk.
    pub async fn remove_unused(&self) -> Result<(), String> {
        let _turn = self.turn.lock().await;
        let now = Timestamp::now();
        let found = removable(&self.look(now).await?, SignedDuration::ZERO, now);
        let ids: Vec<String> = found.into_iter().map(|(id, _)| id).collect();
        self.remove(&ids).await
    }

    async fn look(&self, now: Timestamp) -> Result<Records, String> {
        let images = self.images.list_images(ListImagesRequest { filter: None }).await;
        let images = images.map_err(|error| error.to_string())?.images;
        let used = self.used(&*self.context.runtime, &images).await?;
        let mut records = self.records.lock();
        let first = records.is_none();
        let seen = detect(records.as_ref().unwrap_or(&Records::new()), &images, &used, first, now);
        *records = Some(seen.clone());
        Ok(seen)
    }

    /// The ids of images that containers were made from, running or not, and of those that pods mount.
    async fn used(&self, runtime: &dyn RuntimeService, images: &[Image]) -> Result<HashSet<String>, String> {
        let containers = runtime.list_containers(ListContainersRequest { filter: None }).await;
        let containers = containers.map_err(|error| error.to_string())?.containers;
        let by_name = |name: &str| {
            let is_it = |image: &&Image| {
                let mut names = image.repo_tags.iter().chain(&image.repo_digests);
                image.id == name || names.any(|known| known == name)
            };
            images.iter().find(is_it).map(|image| image.id.clone())
        };
        let mut used = HashSet::new();
        for container in containers {
            let specified = container.image.unwrap_or_default().image;
            for name in [container.image_id, container.image_ref, specified] {
                used.extend(by_name(&name));
            }
        }
        for pod in self.pods.active() {
            let volumes = pod.spec().and_then(|spec| spec.volumes.clone()).unwrap_or_default();
            for reference in volumes.into_iter().filter_map(|volume| volume.image?.reference) {
                let found = self.context.images.find(&reference).await;
                used.extend(found.ok().flatten().map(|image| image.id));
            }
        }
        Ok(used)
    }

    async fn remove(&self, ids: &[String]) -> Result<(), String> {
        let mut failures = Vec::new();
        for id in ids {
            debug!(image = %id, "removing an unused image");
            let spec = ImageSpec {
                image: id.clone(),
                ..Default::default()
            };
            match self.images.remove_image(RemoveImageRequest { image: Some(spec) }).await {
                Ok(_) => {
                    if let Some(records) = &mut *self.records.lock() {
                        records.remove(id);
                    }
                }
                Err(error) => failures.push(error.to_string()),
            }
        }
        match failures.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "wanted to free images, but freed not all of them: {}",
                failures.join("; ")
            )),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn image(id: &str, size: u64, pinned: bool) -> Image {
        Image {
            id: id.into(),
            size,
            pinned,
            ..Default::default()
        }
    }

    #[test]
    fn the_longest_unused_go_first_and_what_is_needed_stays() {
        let images = [
            image("old", 10, false),
            image("used", 10, false),
            image("pinned", 10, true),
            image("once", 10, false),
        ];
        let used = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<HashSet<_>>();
        let first = detect(&Records::new(), &images, &used(&["used", "once"]), true, at(100));
        let mut all = images.to_vec();
        all.push(image("new", 10, false));
        let second = detect(&first, &all, &used(&["used"]), false, at(200));
        let ids = |seconds: i64, now: i64| {
            let found = removable(&second, SignedDuration::from_secs(seconds), at(now));
            found.into_iter().map(|(id, _)| id).collect::<Vec<_>>()
        };
        // What was there before the first look is old enough, always; what is used now is not unused.
        assert_eq!(ids(120, 200), ["old", "once"]);
        assert_eq!(ids(0, 200), ["old", "new", "once"]);
        let found = removable(&second, SignedDuration::ZERO, at(200));
        for (bytes, chosen, freed) in [(0, 0, 0), (1, 1, 10), (10, 1, 10), (11, 2, 20), (99, 3, 30)] {
            let (ids, freed_) = choose(found.clone(), bytes);
            assert_eq!((ids.len(), freed_), (chosen, freed), "{bytes}");
        }
        let old = |most: i64, started: i64| too_old(&found, SignedDuration::from_secs(most), at(started), at(200));
        assert_eq!(old(99, 0), ["old", "new", "once"]);
        assert_eq!(old(100, 0), ["old", "new"], "once was used 100 seconds ago");
        assert_eq!(
            old(50, 170),
            [""; 0],
            "the kubelet knows nothing of before it was started"
        );
    }

    #[test]
    fn when_a_disk_is_too_full() {
        let disk = |available| FileSystem {
            capacity: 1000,
            available,
            ..FileSystem::default()
        };
        for (available, bytes) in [(160, None), (151, Some(49)), (150, Some(50)), (0, Some(200))] {
            assert_eq!(excess(disk(available), 85, 80), bytes, "{available}");
        }
        assert_eq!(excess(FileSystem::default(), 85, 80), None);
    }
}
