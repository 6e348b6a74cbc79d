//! `/stats/summary`: upstream's `stats/v1alpha1.Summary`, as values.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Serialize;

/// All of it.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// The node.
    pub node: NodeStats,
    /// Its pods.
    pub pods: Vec<PodStats>,
}

/// What a node uses.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStats {
    /// Its name.
    pub node_name: String,
    /// Groups of processes that are not a pod's.
    pub system_containers: Vec<ContainerStats>,
    /// When the machine was started.
    pub start_time: Time,
    /// Processors.
    pub cpu: CpuStats,
    /// Memory.
    pub memory: MemoryStats,
    /// Links.
    pub network: NetworkStats,
    /// Where volumes and logs are.
    pub fs: Option<FsStats>,
    /// Where images and containers' own layers are.
    pub runtime: RuntimeStats,
    /// Process numbers.
    pub rlimit: RlimitStats,
}

/// The runtime's file systems.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeStats {
    /// That of images.
    pub image_fs: Option<FsStats>,
    /// That of containers' own layers.
    pub container_fs: Option<FsStats>,
}

/// Process numbers of a node.
#[derive(Debug, Clone, Serialize)]
pub struct RlimitStats {
    /// When it was looked.
    pub time: Time,
    /// How many there can be.
    pub maxpid: u64,
    /// How many are in use.
    pub curproc: u64,
}

/// Which pod.
#[derive(Debug, Clone, Serialize)]
pub struct PodReference {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its uid.
    pub uid: String,
}

/// What a pod uses.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStats {
    /// Which one.
    pub pod_ref: PodReference,
    /// Since when it runs.
    pub start_time: Time,
    /// Its containers.
    pub containers: Vec<ContainerStats>,
    /// Processors.
    pub cpu: Option<CpuStats>,
    /// Memory.
    pub memory: Option<MemoryStats>,
    /// Links.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkStats>,
    /// Its volumes.
    #[serde(rename = "volume", skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeStats>,
    /// What it has on the node's disk.
    #[serde(rename = "ephemeral-storage", skip_serializing_if = "Option::is_none")]
    pub ephemeral_storage: Option<FsStats>,
    /// Its processes.
    #[serde(rename = "process_stats", skip_serializing_if = "Option::is_none")]
    pub process_stats: Option<ProcessStats>,
}

/// Processes of a pod.
#[derive(Debug, Clone, Serialize)]
pub struct ProcessStats {
    /// How many.
    pub process_count: u64,
}

/// What a container uses.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStats {
    /// Its name.
    pub name: String,
    /// Since when it runs.
    pub start_time: Time,
    /// Processors.
    pub cpu: Option<CpuStats>,
    /// Memory.
    pub memory: Option<MemoryStats>,
    /// Its own layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rootfs: Option<FsStats>,
    /// Its logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logs: Option<FsStats>,
}

/// Use of processors.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CpuStats {
    /// When it was looked.
    pub time: Time,
    /// Nanoseconds of CPU in a second, of late.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_nano_cores: Option<u64>,
    /// Nanoseconds of CPU in all.
    pub usage_core_nano_seconds: u64,
}

/// Use of memory, in bytes.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MemoryStats {
    /// When it was looked.
    pub time: Time,
    /// What is left, where there is a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_bytes: Option<u64>,
    /// In use, caches included.
    pub usage_bytes: u64,
    /// In use, and not to be taken back at once.
    pub working_set_bytes: u64,
    /// Processes' own.
    pub rss_bytes: u64,
    /// Page faults.
    pub page_faults: u64,
    /// Page faults that had to read.
    pub major_page_faults: u64,
}

/// Use of links.
#[derive(Debug, Clone, Serialize)]
pub struct NetworkStats {
    /// When it was looked.
    pub time: Time,
    /// The link that matters.
    #[serde(flatten)]
    pub default: Option<InterfaceStats>,
    /// All of them.
    pub interfaces: Vec<InterfaceStats>,
}

/// Use of one link.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InterfaceStats {
    /// Its name.
    pub name: String,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Errors while receiving.
    pub rx_errors: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Errors while sending.
    pub tx_errors: u64,
}

/// Use of a file system.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FsStats {
    /// When it was looked.
    pub time: Time,
    /// Bytes that can still be written.
    pub available_bytes: u64,
    /// Bytes in all.
    pub capacity_bytes: u64,
    /// Bytes in use by whom this is about.
    pub used_bytes: u64,
    /// Files that there can still be.
    pub inodes_free: u64,
    /// Files that there can be.
    pub inodes: u64,
    /// Files of whom this is about.
    pub inodes_used: u64,
}

/// Use of a volume.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeStats {
    /// Its name in the pod.
    pub name: String,
    /// The claim that it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pvc_ref: Option<ClaimReference>,
    /// How full it is.
    #[serde(flatten)]
    pub files: FsStats,
}

/// Which PersistentVolumeClaim.
#[derive(Debug, Clone, Serialize)]
pub struct ClaimReference {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
}
