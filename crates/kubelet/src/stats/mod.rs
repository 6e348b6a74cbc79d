//! What the node, its pods and their containers use. Nothing is collected ahead of time: who asks sets a look going.
//!
//! [`machine`] reads the machine, the runtime says what is in its sandboxes, and [`summary`] is the shape in which both are told.

pub mod machine;
pub mod prometheus;
pub mod summary;
mod systems;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cri::v1::{
    self, ContainerStatsRequest, ImageFsInfoRequest, ListPodSandboxStatsRequest, PodSandboxStats, UInt64Value,
};
use cri::{ImageService, RuntimeService};
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use parking_lot::Mutex;

use crate::config::Config;
use crate::cri_config::{labels, sandbox};
use crate::eviction::rank::{ContainerUsage, Files, Usage};
use crate::pods::observed::time;
use crate::pods::pod::PodExt;
use crate::pods::{Pods, View};
use crate::volumes;
use machine::{FileSystem, Memory};
use summary::{
    ClaimReference, ContainerStats, CpuStats, FsStats, InterfaceStats, MemoryStats, NetworkStats, NodeStats,
    PodReference, PodStats, ProcessStats, RlimitStats, RuntimeStats, Summary, VolumeStats,
};
use systems::Systems;

/// A rate needs two looks; the second comes so long after the first, where there was none before.
const SECOND_LOOK: Duration = Duration::from_millis(100);
/// A look that is older says nothing of what is now.
const OLDEST_LOOK: Duration = Duration::from_secs(120);

/// Looks at everything. Shared by the node's port and by evictions.
pub struct Stats {
    config: Config,
    runtime: Arc<dyn RuntimeService>,
    images: Arc<dyn ImageService>,
    pods: Pods,
    /// The CPU time of the last look, by sandbox or container; `""` is the node.
    looks: Mutex<HashMap<String, Look>>,
    systems: Systems,
}

/// CPU time at a point in time, and the rate of the time before.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Look {
    at: i64,
    nanoseconds: u64,
    rate: Option<u64>,
}

impl Look {
    /// The next one, with the rate since then.
    fn next(self, at: i64, nanoseconds: u64) -> Self {
        let passed = at - self.at;
        // What is asked twice at once has the same answer.
        if passed < SECOND_LOOK.as_nanos() as i64 / 2 {
            return self;
        }
        let spent = nanoseconds.saturating_sub(self.nanoseconds);
        let rate = u128::from(spent) * 1_000_000_000 / u128::from(passed.unsigned_abs());
        Self {
            at,
            nanoseconds,
            rate: u64::try_from(rate).ok(),
        }
    }
}

/// How much of it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// CPU and memory, which cost nothing to look at.
    CpuAndMemory,
    /// What is on disk too, which is counted file by file.
    Files,
}

fn number(value: &Option<UInt64Value>) -> u64 {
    value.as_ref().map_or(0, |value| value.value)
}

fn now() -> Time {
    Time(Timestamp::now())
}

impl Stats {
    /// For the node's pods.
    pub fn new(config: Config, runtime: Arc<dyn RuntimeService>, images: Arc<dyn ImageService>, pods: Pods) -> Self {
        Self {
            config,
            runtime,
            images,
            pods,
            looks: Mutex::default(),
            systems: Systems::default(),
        }
    }

    /// Where the runtime has its images.
    pub async fn image_directory(&self) -> Option<PathBuf> {
        let info = self.images.image_fs_info(ImageFsInfoRequest {}).await.ok()?;
        let found = info.image_filesystems.into_iter().next()?;
        Some(found.fs_id?.mountpoint.into())
    }

    async fn sandboxes(&self) -> cri::Result<Vec<PodSandboxStats>> {
        let request = ListPodSandboxStatsRequest { filter: None };
        Ok(self.runtime.list_pod_sandbox_stats(request).await?.stats)
    }

    /// Notes the CPU time of all; whether any was never looked at before.
    fn note(&self, sandboxes: &[PodSandboxStats]) -> bool {
        let mut looks = self.looks.lock();
        let at = Timestamp::now().as_nanosecond() as i64;
        let oldest = at - OLDEST_LOOK.as_nanos() as i64;
        looks.retain(|_, look| look.at > oldest);
        let mut fresh = false;
        let mut one = |id: &str, nanoseconds: u64| {
            let first = Look {
                at,
                nanoseconds,
                rate: None,
            };
            let look = looks.entry(id.to_owned()).or_insert(first);
            *look = look.next(at, nanoseconds);
            fresh |= look.rate.is_none();
        };
        one("", machine::cpu_nanoseconds());
        for sandbox in sandboxes {
            let linux = sandbox.linux.as_ref();
            if let (Some(attributes), Some(cpu)) = (&sandbox.attributes, linux.and_then(|linux| linux.cpu.as_ref())) {
                one(&attributes.id, number(&cpu.usage_core_nano_seconds));
            }
            for container in linux.iter().flat_map(|linux| &linux.containers) {
                if let (Some(attributes), Some(cpu)) = (&container.attributes, &container.cpu) {
                    one(&attributes.id, number(&cpu.usage_core_nano_seconds));
                }
            }
        }
        fresh
    }

    fn rate(&self, id: &str) -> Option<u64> {
        self.looks.lock().get(id).and_then(|look| look.rate)
    }

    /// Everything, as `/stats/summary` tells it.
    pub async fn summary(&self, depth: Depth) -> cri::Result<Summary> {
        let mut sandboxes = self.sandboxes().await?;
        if self.note(&sandboxes) {
            tokio::time::sleep(SECOND_LOOK).await;
            sandboxes = self.sandboxes().await?;
            self.note(&sandboxes);
        }
        let images = self.image_directory().await;
        let views = self.pods.views();
        let pods = sandboxes.iter().filter_map(|stats| {
            let uid = stats.attributes.as_ref()?.labels.get(labels::POD_UID)?;
            let view = views.iter().find(|view| view.pod.uid() == *uid)?;
            Some(self.pod(stats, view, depth, images.as_deref()))
        });
        let pods = join_all(pods).await;
        Ok(Summary {
            node: self.node(images.as_deref(), depth).await,
            pods,
        })
    }

    async fn node(&self, images: Option<&Path>, depth: Depth) -> NodeStats {
        let memory = Memory::now();
        let (maxpid, curproc) = machine::processes();
        let interfaces: Vec<InterfaceStats> = machine::links()
            .into_iter()
            .map(|(name, [rx_bytes, rx_errors, tx_bytes, tx_errors])| InterfaceStats {
                name,
                rx_bytes,
                rx_errors,
                tx_bytes,
                tx_errors,
            })
            .collect();
        let whole = |path: &Path| {
            FileSystem::of(path).map(|found| {
                let inodes_used = found.inodes.saturating_sub(found.inodes_free);
                files(found, found.used(), inodes_used)
            })
        };
        let files_too = depth == Depth::Files;
        let image_fs = match images.filter(|_| files_too) {
            Some(images) => self.image_usage(images).await,
            None => None,
        };
        NodeStats {
            node_name: self.config.node_name.clone(),
            system_containers: Vec::new(),
            start_time: Time(Timestamp::from_second(machine::boot_seconds()).unwrap_or_default()),
            cpu: CpuStats {
                time: now(),
                usage_nano_cores: self.rate(""),
                usage_core_nano_seconds: machine::cpu_nanoseconds(),
            },
            memory: MemoryStats {
                time: now(),
                available_bytes: Some(memory.available()),
                usage_bytes: memory.usage,
                working_set_bytes: memory.working_set,
                rss_bytes: memory.rss,
                page_faults: 0,
                major_page_faults: 0,
            },
            network: NetworkStats {
                time: now(),
                default: interfaces.first().cloned(),
                interfaces,
            },
            fs: whole(&self.config.root_dir).filter(|_| files_too),
            runtime: RuntimeStats {
                container_fs: image_fs.clone(),
                image_fs,
            },
            rlimit: RlimitStats {
                time: now(),
                maxpid,
                curproc,
            },
        }
    }

    /// The file system of images, with what images have of it.
    async fn image_usage(&self, directory: &Path) -> Option<FsStats> {
        let info = self.images.image_fs_info(ImageFsInfoRequest {}).await.ok()?;
        let used = info.image_filesystems.first()?;
        let found = FileSystem::of(directory)?;
        Some(files(found, number(&used.used_bytes), number(&used.inodes_used)))
    }

    async fn pod(&self, stats: &PodSandboxStats, view: &View, depth: Depth, images: Option<&Path>) -> PodStats {
        let pod = &*view.pod;
        let linux = stats.linux.clone().unwrap_or_default();
        let id = stats
            .attributes
            .as_ref()
            .map_or("", |attributes| attributes.id.as_str());
        let layers = match depth {
            Depth::Files => self.layers(&linux.containers).await,
            Depth::CpuAndMemory => HashMap::new(),
        };
        let measured = match depth {
            Depth::Files => Some(self.measure(pod).await),
            Depth::CpuAndMemory => None,
        };
        let (root, images) = (FileSystem::of(&self.config.root_dir), images.and_then(FileSystem::of));
        let container = |found: &v1::ContainerStats| {
            let attributes = found.attributes.as_ref()?;
            let name = attributes.metadata.as_ref()?.name.clone();
            let instance = view
                .observed
                .instances
                .iter()
                .find(|instance| instance.id == attributes.id)?;
            let layer = layers.get(&name);
            let logs = measured.as_ref().and_then(|measured| measured.logs.get(&name));
            Some(ContainerStats {
                start_time: Time(time(instance.started_at)),
                cpu: found.cpu.as_ref().map(|cpu| self.cpu(&attributes.id, cpu)),
                memory: found.memory.as_ref().map(memory),
                rootfs: layer.and_then(|layer| Some(files(images?, layer.bytes, layer.inodes))),
                logs: logs.and_then(|logs| Some(files(root?, logs.bytes, logs.inodes))),
                name,
            })
        };
        let containers: Vec<_> = linux.containers.iter().filter_map(container).collect();
        let network = linux.network.as_ref().filter(|_| !pod.host_network()).map(network);
        let started = pod.status.as_ref().and_then(|status| status.start_time.clone());
        let ephemeral_storage = measured.as_ref().and_then(|measured| {
            let parts = layers
                .values()
                .chain(measured.logs.values())
                .chain(measured.volumes.values());
            let all = parts.fold(Files::default(), |all, part| Files {
                bytes: all.bytes + part.bytes,
                inodes: all.inodes + part.inodes,
            });
            Some(files(root?, all.bytes, all.inodes))
        });
        PodStats {
            pod_ref: PodReference {
                name: pod.name().into(),
                namespace: pod.namespace().into(),
                uid: pod.uid().into(),
            },
            start_time: started.unwrap_or_else(now),
            containers,
            cpu: linux.cpu.as_ref().map(|cpu| self.cpu(id, cpu)),
            memory: linux.memory.as_ref().map(memory),
            network: network.filter(|_| depth == Depth::Files),
            volumes: measured.map(|measured| measured.told(pod)).unwrap_or_default(),
            ephemeral_storage,
            process_stats: linux.process.as_ref().map(|process| ProcessStats {
                process_count: number(&process.process_count),
            }),
        }
    }

    fn cpu(&self, id: &str, cpu: &v1::CpuUsage) -> CpuStats {
        let told = cpu.usage_nano_cores.as_ref().map(|rate| rate.value);
        CpuStats {
            time: Time(time(cpu.timestamp)),
            usage_nano_cores: told.or_else(|| self.rate(id)),
            usage_core_nano_seconds: number(&cpu.usage_core_nano_seconds),
        }
    }

    /// What containers have written into their own layers, by name.
    async fn layers(&self, containers: &[v1::ContainerStats]) -> HashMap<String, Files> {
        let asked = containers.iter().map(|container| self.layer(container));
        join_all(asked).await.into_iter().flatten().collect()
    }

    async fn layer(&self, container: &v1::ContainerStats) -> Option<(String, Files)> {
        let attributes = container.attributes.as_ref()?;
        let name = attributes.metadata.as_ref()?.name.clone();
        let container_id = attributes.id.clone();
        let answer = self
            .runtime
            .container_stats(ContainerStatsRequest { container_id })
            .await;
        let layer = answer.ok()?.stats?.writable_layer?;
        let used = Files {
            bytes: number(&layer.used_bytes),
            inodes: number(&layer.inodes_used),
        };
        Some((name, used))
    }

    /// What a pod has on disk, its containers' layers aside.
    async fn measure(&self, pod: &Pod) -> Measured {
        let directory = self.config.pod_dir(pod.uid());
        let systems = {
            let (pod, directory) = (pod.clone(), directory.clone());
            let look = move || volumes::file_systems(&pod, &directory);
            async { tokio::task::spawn_blocking(look).await.unwrap_or_default() }
        };
        let systems = self.systems.of(pod.uid(), systems).await;
        let pod = pod.clone();
        let logs = self.config.pod_logs_dir.join(sandbox::log_directory(&pod));
        let look = move || Measured {
            volumes: volumes::used(&pod, &directory),
            systems,
            logs: pod
                .containers()
                .map(|(_, container)| (container.name.clone(), volumes::count(&logs.join(&container.name))))
                .collect(),
        };
        tokio::task::spawn_blocking(look).await.unwrap_or_default()
    }

    /// What each pod that has a sandbox uses, by uid, for evictions.
    pub async fn usage(&self, depth: Depth) -> cri::Result<HashMap<String, Usage>> {
        let sandboxes = self.sandboxes().await?;
        let views = self.pods.views();
        let pods = sandboxes.iter().filter_map(|stats| {
            let uid = stats.attributes.as_ref()?.labels.get(labels::POD_UID)?;
            let view = views.iter().find(|view| view.pod.uid() == *uid)?;
            let linux = stats.linux.as_ref()?;
            Some(async move { (uid.clone(), self.pod_usage(linux, view, depth).await) })
        });
        Ok(join_all(pods).await.into_iter().collect())
    }

    async fn pod_usage(&self, linux: &v1::LinuxPodSandboxStats, view: &View, depth: Depth) -> Usage {
        let working_set =
            |memory: Option<&v1::MemoryUsage>| memory.map_or(0, |memory| number(&memory.working_set_bytes));
        let mut usage = Usage {
            memory: working_set(linux.memory.as_ref()),
            processes: linux
                .process
                .as_ref()
                .map_or(0, |process| number(&process.process_count)),
            ..Usage::default()
        };
        for container in &linux.containers {
            if let Some(metadata) = container
                .attributes
                .as_ref()
                .and_then(|attributes| attributes.metadata.as_ref())
            {
                let used = ContainerUsage {
                    memory: working_set(container.memory.as_ref()),
                    ..ContainerUsage::default()
                };
                usage.containers.insert(metadata.name.clone(), used);
            }
        }
        if depth == Depth::Files {
            let measured = self.measure(&view.pod).await;
            for (name, layer) in self.layers(&linux.containers).await {
                usage.containers.entry(name).or_default().layer = layer;
            }
            for (name, logs) in measured.logs {
                usage.containers.entry(name).or_default().logs = logs;
            }
            for volume in measured.volumes.values() {
                usage.volumes.bytes += volume.bytes;
                usage.volumes.inodes += volume.inodes;
            }
        }
        usage
    }
}

/// What a pod has on disk.
#[derive(Default)]
struct Measured {
    /// EmptyDir volumes on disk, by name.
    volumes: HashMap<String, Files>,
    /// The file systems of volumes, by name.
    systems: HashMap<String, FileSystem>,
    /// Logs, by container.
    logs: HashMap<String, Files>,
}

impl Measured {
    fn told(&self, pod: &Pod) -> Vec<VolumeStats> {
        let volumes = pod.spec().and_then(|spec| spec.volumes.as_ref()).into_iter().flatten();
        let told = volumes.filter_map(|volume| {
            let found = self.systems.get(&volume.name)?;
            let used = self.volumes.get(&volume.name).copied().unwrap_or(Files {
                bytes: found.used(),
                inodes: found.inodes.saturating_sub(found.inodes_free),
            });
            Some(VolumeStats {
                name: volume.name.clone(),
                pvc_ref: claim(pod, volume).map(|name| ClaimReference {
                    name,
                    namespace: pod.namespace().into(),
                }),
                files: files(*found, used.bytes, used.inodes),
            })
        });
        told.collect()
    }
}

/// The claim that a volume is.
fn claim(pod: &Pod, volume: &Volume) -> Option<String> {
    let named = volume
        .persistent_volume_claim
        .as_ref()
        .map(|claim| claim.claim_name.clone());
    named.or_else(|| {
        volume
            .ephemeral
            .as_ref()
            .map(|_| format!("{}-{}", pod.name(), volume.name))
    })
}

fn files(system: FileSystem, used_bytes: u64, inodes_used: u64) -> FsStats {
    FsStats {
        time: now(),
        available_bytes: system.available,
        capacity_bytes: system.capacity,
        used_bytes,
        inodes_free: system.inodes_free,
        inodes: system.inodes,
        inodes_used,
    }
}

fn memory(memory: &v1::MemoryUsage) -> MemoryStats {
    MemoryStats {
        time: Time(time(memory.timestamp)),
        available_bytes: memory.available_bytes.as_ref().map(|available| available.value),
        usage_bytes: number(&memory.usage_bytes),
        working_set_bytes: number(&memory.working_set_bytes),
        rss_bytes: number(&memory.rss_bytes),
        page_faults: number(&memory.page_faults),
        major_page_faults: number(&memory.major_page_faults),
    }
}

fn network(network: &v1::NetworkUsage) -> NetworkStats {
    let one = |link: &v1::NetworkInterfaceUsage| InterfaceStats {
        name: link.name.clone(),
        rx_bytes: number(&link.rx_bytes),
        rx_errors: number(&link.rx_errors),
        tx_bytes: number(&link.tx_bytes),
        tx_errors: number(&link.tx_errors),
    };
    NetworkStats {
        time: Time(time(network.timestamp)),
        default: network.default_interface.as_ref().map(one),
        interfaces: network.interfaces.iter().map(one).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_needs_time_between_two_looks() {
        let first = Look {
            at: 0,
            nanoseconds: 1000,
            rate: None,
        };
        assert_eq!(first.next(1, 2000), first, "asked twice at once");
        let second = first.next(2_000_000_000, 1_000_001_000);
        assert_eq!(second.rate, Some(500_000_000), "half a processor");
        assert_eq!(
            second.next(4_000_000_000, 0).rate,
            Some(0),
            "a container that began anew"
        );
    }
}
