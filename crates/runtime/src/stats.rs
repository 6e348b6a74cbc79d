//! What containers and pods use, read from their control groups when somebody asks.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use cri::Result;
use cri::v1::{
    ContainerAttributes, ContainerStats, ContainerStatsRequest, ContainerStatsResponse, CpuUsage, FilesystemIdentifier,
    FilesystemUsage, LinuxPodSandboxStats, ListContainerStatsRequest, ListContainerStatsResponse,
    ListPodSandboxStatsRequest, ListPodSandboxStatsResponse, MemoryUsage, NetworkInterfaceUsage, NetworkUsage,
    PodSandboxAttributes, PodSandboxStats, PodSandboxStatsRequest, PodSandboxStatsResponse, ProcessUsage, UInt64Value,
};

use crate::host;
use crate::record::Status;
use crate::runtime::{Container, Inner, Sandbox, now};
use crate::{container, sandbox};

/// What a tree takes on disk; a file with several names counts once.
fn writable_layer(root: &Path) -> FilesystemUsage {
    let (mut bytes, mut inodes) = (0, 0);
    let mut seen = HashSet::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        // What goes away meanwhile takes nothing.
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                pending.push(entry.path());
            }
            if metadata.nlink() == 1 || metadata.is_dir() || seen.insert((metadata.dev(), metadata.ino())) {
                bytes += metadata.blocks() * 512;
                inodes += 1;
            }
        }
    }
    FilesystemUsage {
        timestamp: now(),
        fs_id: Some(FilesystemIdentifier {
            mountpoint: root.to_string_lossy().into_owned(),
        }),
        used_bytes: Some(UInt64Value { value: bytes }),
        inodes_used: Some(UInt64Value { value: inodes }),
    }
}

/// Numbers of one control group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub cpu_nanoseconds: u64,
    pub memory: u64,
    pub working_set: u64,
    pub rss: u64,
    pub limit: Option<u64>,
    pub faults: u64,
    pub major_faults: u64,
    pub processes: u64,
}

impl Inner {
    pub(crate) async fn container_stats(&self, request: ContainerStatsRequest) -> Result<ContainerStatsResponse> {
        let container = self.known_container(&request.container_id)?;
        let mut stats = self.stats_of(&container);
        let written = self.layout.writable(&container.id).join("upper");
        // What a container wrote may be much, and is counted file by file.
        stats.writable_layer = tokio::task::spawn_blocking(move || writable_layer(&written)).await.ok();
        Ok(ContainerStatsResponse { stats: Some(stats) })
    }

    pub(crate) async fn list_container_stats(
        &self,
        request: ListContainerStatsRequest,
    ) -> Result<ListContainerStatsResponse> {
        let filter = request.filter.unwrap_or_default();
        let wanted = cri::v1::ContainerFilter {
            id: filter.id,
            pod_sandbox_id: filter.pod_sandbox_id,
            label_selector: filter.label_selector,
            state: None,
        };
        let containers: Vec<_> = self.containers.read().values().cloned().collect();
        let stats = containers
            .iter()
            .filter(|found| container::matches(&container::list_entry(found), &wanted))
            .filter(|found| matches!(*found.status.borrow(), Status::Running { .. }))
            .map(|found| self.stats_of(found))
            .collect();
        Ok(ListContainerStatsResponse { stats })
    }

    pub(crate) async fn pod_sandbox_stats(&self, request: PodSandboxStatsRequest) -> Result<PodSandboxStatsResponse> {
        let found = self.sandbox(&request.pod_sandbox_id).ok_or_else(|| {
            cri::Error::not_found(format!(
                "an error occurred when trying to find sandbox {}: not found",
                request.pod_sandbox_id
            ))
        })?;
        Ok(PodSandboxStatsResponse {
            stats: Some(self.stats_of_pod(&found)),
        })
    }

    pub(crate) async fn list_pod_sandbox_stats(
        &self,
        request: ListPodSandboxStatsRequest,
    ) -> Result<ListPodSandboxStatsResponse> {
        let filter = request.filter.unwrap_or_default();
        let wanted = cri::v1::PodSandboxFilter {
            id: filter.id,
            label_selector: filter.label_selector,
            state: None,
        };
        let sandboxes: Vec<_> = self.sandboxes.read().values().cloned().collect();
        let stats = sandboxes
            .iter()
            .filter(|found| found.ready() && sandbox::matches(&sandbox::summary(found), &wanted))
            .map(|found| self.stats_of_pod(found))
            .collect();
        Ok(ListPodSandboxStatsResponse { stats })
    }

    fn stats_of(&self, container: &Container) -> ContainerStats {
        let config = &container.record.config.0;
        let usage = read(&container.cgroup());
        ContainerStats {
            attributes: Some(ContainerAttributes {
                id: container.id.clone(),
                metadata: config.metadata.clone(),
                labels: config.labels.clone(),
                annotations: config.annotations.clone(),
            }),
            cpu: Some(cpu(&usage)),
            memory: Some(memory(&usage)),
            writable_layer: None,
            swap: None,
            io: None,
        }
    }

    fn stats_of_pod(&self, sandbox: &Sandbox) -> PodSandboxStats {
        let summary = sandbox::summary(sandbox);
        // The pod's group is the kubelet's; the sandbox and its containers are what the runtime knows to be in it.
        let usage = read(&sandbox.cgroup_parent());
        let interfaces = interfaces(sandbox);
        PodSandboxStats {
            attributes: Some(PodSandboxAttributes {
                id: summary.id,
                metadata: summary.metadata,
                labels: summary.labels,
                annotations: summary.annotations,
            }),
            linux: Some(LinuxPodSandboxStats {
                cpu: Some(cpu(&usage)),
                memory: Some(memory(&usage)),
                network: Some(NetworkUsage {
                    timestamp: now(),
                    default_interface: interfaces.iter().find(|link| link.name == "eth0").cloned(),
                    interfaces,
                }),
                process: Some(ProcessUsage {
                    timestamp: now(),
                    process_count: value(usage.processes),
                }),
                containers: self
                    .containers_of(&sandbox.id)
                    .iter()
                    .filter(|found| matches!(*found.status.borrow(), Status::Running { .. }))
                    .map(|found| self.stats_of(found))
                    .collect(),
                io: None,
            }),
            windows: None,
        }
    }
}

fn cpu(usage: &Usage) -> CpuUsage {
    CpuUsage {
        timestamp: now(),
        usage_core_nano_seconds: value(usage.cpu_nanoseconds),
        ..Default::default()
    }
}

fn memory(usage: &Usage) -> MemoryUsage {
    MemoryUsage {
        timestamp: now(),
        working_set_bytes: value(usage.working_set),
        available_bytes: usage
            .limit
            .and_then(|limit| value(limit.saturating_sub(usage.working_set))),
        usage_bytes: value(usage.memory),
        rss_bytes: value(usage.rss),
        page_faults: value(usage.faults),
        major_page_faults: value(usage.major_faults),
        psi: None,
    }
}

fn value(value: u64) -> Option<UInt64Value> {
    Some(UInt64Value { value })
}

/// The numbers of a control group; what is not there counts as nothing.
pub(crate) fn read(cgroup: &str) -> Usage {
    let file = |controller: &str, name: &str| {
        fs::read_to_string(host::cgroup_dir(controller, Path::new(cgroup)).join(name)).unwrap_or_default()
    };
    let number = |controller: &str, name: &str| file(controller, name).trim().parse::<u64>().unwrap_or(0);
    if host::unified() {
        unified(
            &file("", "cpu.stat"),
            &file("", "memory.stat"),
            number("", "memory.current"),
            file("", "memory.max").trim().parse().ok(),
            number("", "pids.current"),
        )
    } else {
        legacy(
            number("cpuacct", "cpuacct.usage"),
            &file("memory", "memory.stat"),
            number("memory", "memory.usage_in_bytes"),
            number("memory", "memory.limit_in_bytes"),
            number("pids", "pids.current"),
        )
    }
}

fn unified(cpu: &str, memory: &str, current: u64, limit: Option<u64>, processes: u64) -> Usage {
    Usage {
        cpu_nanoseconds: keyed(cpu, "usage_usec") * 1000,
        memory: current,
        working_set: current.saturating_sub(keyed(memory, "inactive_file")),
        rss: keyed(memory, "anon"),
        limit,
        faults: keyed(memory, "pgfault"),
        major_faults: keyed(memory, "pgmajfault"),
        processes,
    }
}

fn legacy(cpu: u64, memory: &str, current: u64, limit: u64, processes: u64) -> Usage {
    /// What version 1 says when there is no limit: the largest number of whole pages.
    const UNLIMITED: u64 = 0x7fff_ffff_ffff_0000;
    Usage {
        cpu_nanoseconds: cpu,
        memory: current,
        working_set: current.saturating_sub(keyed(memory, "total_inactive_file")),
        rss: keyed(memory, "total_rss"),
        limit: (limit < UNLIMITED).then_some(limit),
        faults: keyed(memory, "total_pgfault"),
        major_faults: keyed(memory, "total_pgmajfault"),
        processes,
    }
}

/// A number of a file of names and numbers.
fn keyed(text: &str, name: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

/// The links in the pod's network namespace, loopback aside.
pub(crate) fn interfaces(sandbox: &Sandbox) -> Vec<NetworkInterfaceUsage> {
    let shim = sandbox.record.lock().shim_pid;
    interfaces_of(&fs::read_to_string(format!("/proc/{shim}/net/dev")).unwrap_or_default())
}

/// The links of a `/proc/<pid>/net/dev`, loopback aside.
fn interfaces_of(text: &str) -> Vec<NetworkInterfaceUsage> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, numbers)| (name.trim(), numbers))
        .filter(|(name, _)| *name != "lo")
        .filter_map(|(name, numbers)| {
            let numbers: Vec<u64> = numbers
                .split_whitespace()
                .filter_map(|number| number.parse().ok())
                .collect();
            Some(NetworkInterfaceUsage {
                name: name.to_owned(),
                rx_bytes: value(*numbers.first()?),
                rx_errors: value(*numbers.get(2)?),
                tx_bytes: value(*numbers.get(8)?),
                tx_errors: value(*numbers.get(10)?),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_mean_the_same() {
        let expected = Usage {
            cpu_nanoseconds: 5000,
            memory: 100,
            working_set: 70,
            rss: 40,
            limit: Some(1000),
            faults: 9,
            major_faults: 2,
            processes: 3,
        };
        let two = unified(
            "usage_usec 5\nuser_usec 4\n",
            "anon 40\ninactive_file 30\npgfault 9\npgmajfault 2\n",
            100,
            Some(1000),
            3,
        );
        let one = legacy(
            5000,
            "rss 1\ntotal_rss 40\ntotal_inactive_file 30\ntotal_pgfault 9\ntotal_pgmajfault 2\n",
            100,
            1000,
            3,
        );
        assert_eq!((two, one), (expected.clone(), expected));
        assert_eq!(legacy(0, "", 0, 0x7fff_ffff_ffff_f000, 0).limit, None);
    }

    #[test]
    fn links_are_read_without_loopback() {
        let text = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  eth0:     200       2    1    0    0     0          0         0      300       3    4    0    0     0       0          0
";
        let links = interfaces_of(text);
        assert_eq!(links.len(), 1);
        let number = |value: &Option<UInt64Value>| value.as_ref().map(|value| value.value);
        let link = &links[0];
        assert_eq!(link.name, "eth0");
        assert_eq!(
            [&link.rx_bytes, &link.rx_errors, &link.tx_bytes, &link.tx_errors].map(number),
            [Some(200), Some(1), Some(300), Some(4)]
        );
    }
}
