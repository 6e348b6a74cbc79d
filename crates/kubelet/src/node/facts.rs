//! What the machine is: read once, from the kernel's files.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::NodeSystemInfo;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::cgroup::NodeLimits;
use crate::eviction::thresholds::{Signal, Threshold};
use crate::field::Capacity;

/// Something of the machine that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// A file that cannot be read.
    #[error("read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file system that cannot be asked.
    #[error("statvfs {}: {source}", path.display())]
    FileSystem {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: nix::Error,
    },
}

/// The machine under the node.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Processors that are online.
    pub cpus: i64,
    /// Bytes.
    pub memory: i64,
    /// Processes that there may be; 0 where the kernel does not say.
    pub pids: i64,
    /// Bytes of the file system of the kubelet's directory.
    pub disk: i64,
    /// What the kubelet's configuration reserves for others than pods.
    pub system: Capacity,
    /// What hard evictions keep free of memory and disk, in bytes.
    pub reserved: [i64; 2],
    /// Bytes of each size of huge page, by the resource's name.
    pub hugepages: BTreeMap<String, i64>,
    /// As the node's status has it, but for the runtime.
    pub info: NodeSystemInfo,
}

fn read(path: impl AsRef<Path>) -> Result<String, FactsError> {
    let path = path.as_ref();
    fs::read_to_string(path).map_err(|source| FactsError::Read {
        path: path.to_owned(),
        source,
    })
}

/// Files that not every machine has.
fn read_or_empty(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

impl Machine {
    /// Looks at it; what `thresholds` keep free, and what is the `system`'s, is not for pods.
    pub fn look(root_dir: &Path, thresholds: &[Threshold], system: Capacity) -> Result<Self, FactsError> {
        let file_system = nix::sys::statvfs::statvfs(root_dir).map_err(|source| FactsError::FileSystem {
            path: root_dir.to_owned(),
            source,
        })?;
        let machine_id = read_or_empty("/etc/machine-id");
        let system_uuid = match read_or_empty("/sys/class/dmi/id/product_uuid") {
            uuid if uuid.is_empty() => machine_id.clone(),
            uuid => uuid,
        };
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let memory = memory_total(&read("/proc/meminfo")?);
        let disk = (file_system.blocks() * file_system.fragment_size()) as i64;
        let kept = |signal: Signal, whole: i64| {
            let hard = thresholds.iter().filter(|threshold| threshold.grace.is_none());
            let of_it = hard.filter(|threshold| threshold.signal == signal);
            of_it.map(|threshold| threshold.value.of(whole)).max().unwrap_or(0)
        };
        Ok(Self {
            cpus: online(&read("/sys/devices/system/cpu/online")?),
            memory,
            pids: most_processes(),
            disk,
            system,
            reserved: [
                kept(Signal::MemoryAvailable, memory),
                kept(Signal::NodeFsAvailable, disk),
            ],
            hugepages: hugepages(Path::new("/sys/kernel/mm/hugepages")),
            info: NodeSystemInfo {
                architecture: architecture.into(),
                boot_id: read("/proc/sys/kernel/random/boot_id")?.trim().into(),
                kernel_version: read("/proc/sys/kernel/osrelease")?.trim().into(),
                kubelet_version: super::VERSION.into(),
                machine_id,
                operating_system: "linux".into(),
                os_image: os_image(&read_or_empty("/etc/os-release")),
                system_uuid,
                ..Default::default()
            },
        })
    }

    /// What the cgroup of all pods is limited to: as upstream's, it includes what evictions keep free.
    pub fn limits(&self) -> NodeLimits {
        NodeLimits {
            cpu_millis: (self.cpus * 1000 - self.system.cpu_millis).max(0),
            memory: (self.memory - self.system.memory).max(0),
            pids: self.pids,
        }
    }

    /// What pods can use. Memory in huge pages is asked for by its own name.
    pub fn allocatable(&self) -> Capacity {
        let in_pages: i64 = self.hugepages.values().sum();
        Capacity {
            cpu_millis: (self.cpus * 1000 - self.system.cpu_millis).max(0),
            memory: (self.memory - self.reserved[0] - self.system.memory - in_pages).max(0),
            ephemeral_storage: (self.disk - self.reserved[1] - self.system.ephemeral_storage).max(0),
        }
    }

    /// Capacity and allocatable, as a node's status has them.
    pub fn resources(&self, max_pods: u32) -> [BTreeMap<String, Quantity>; 2] {
        let list = |capacity: Capacity| {
            let mut list = BTreeMap::from([
                ("cpu".to_owned(), cpus(capacity.cpu_millis)),
                ("memory".to_owned(), binary(capacity.memory)),
                ("ephemeral-storage".to_owned(), binary(capacity.ephemeral_storage)),
                ("pods".to_owned(), Quantity(max_pods.to_string())),
            ]);
            list.extend(
                self.hugepages
                    .iter()
                    .map(|(name, bytes)| (name.clone(), binary(*bytes))),
            );
            list
        };
        let whole = Capacity {
            cpu_millis: self.cpus * 1000,
            memory: self.memory,
            ephemeral_storage: self.disk,
        };
        [list(whole), list(self.allocatable())]
    }
}

fn cpus(millis: i64) -> Quantity {
    match millis % 1000 {
        0 => Quantity((millis / 1000).to_string()),
        _ => Quantity(format!("{millis}m")),
    }
}

fn most_processes() -> i64 {
    let most = |file: &str| read_or_empty(file).parse::<i64>().ok();
    let limits = ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"].map(most);
    limits.into_iter().flatten().min().unwrap_or(0)
}

/// Bytes with the largest binary suffix that divides them.
fn binary(bytes: i64) -> Quantity {
    let mut value = bytes;
    let mut suffix = "";
    for next in ["Ki", "Mi", "Gi", "Ti"] {
        if value == 0 || value % 1024 != 0 {
            break;
        }
        value /= 1024;
        suffix = next;
    }
    Quantity(format!("{value}{suffix}"))
}

/// Counts the processors of a list such as `0-3,8`.
fn online(list: &str) -> i64 {
    let ranges = list.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(last.parse::<i64>().ok()? - first.parse::<i64>().ok()? + 1)
    });
    ranges.sum::<i64>().max(1)
}

fn memory_total(meminfo: &str) -> i64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<i64>().ok())
        .unwrap_or(0)
        * 1024
}

fn os_image(os_release: &str) -> String {
    let value = |key: &str| {
        os_release
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .map(|value| value.trim_matches('"'))
    };
    value("PRETTY_NAME").unwrap_or("Linux").to_owned()
}

fn hugepages(directory: &Path) -> BTreeMap<String, i64> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| {
        let kib: i64 = entry
            .file_name()
            .to_str()?
            .strip_prefix("hugepages-")?
            .strip_suffix("kB")?
            .parse()
            .ok()?;
        let count: i64 = fs::read_to_string(entry.path().join("nr_hugepages"))
            .ok()?
            .trim()
            .parse()
            .ok()?;
        Some((format!("hugepages-{}", binary(kib * 1024).0), count * kib * 1024))
    });
    sizes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_kernel() {
        assert_eq!(["0\n", "0-3\n", "0-1,4-5,7\n"].map(online), [1, 4, 5]);
        assert_eq!(
            memory_total("MemTotal:       24649420 kB\nMemFree: 1 kB\n"),
            24_649_420 * 1024
        );
        assert_eq!(
            os_image("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\n"),
            "Debian GNU/Linux 13 (trixie)"
        );
        assert_eq!(
            [0, 1, 2048, 3 << 20, 1 << 30].map(|bytes| binary(bytes).0),
            ["0", "1", "2Ki", "3Mi", "1Gi"]
        );
    }
}
