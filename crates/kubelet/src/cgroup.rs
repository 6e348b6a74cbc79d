//! The cgroups of pods: `/kubepods[/burstable|/besteffort]/pod<uid>`, on hierarchies of version 1 or 2.
//!
//! The runtime puts each container into a cgroup of its own below its pod's. The kubelet makes the pod's, with the limits of the whole
//! pod, and takes it away when the pod is gone.
//!
//! The cgroups above them weigh the classes against each other: all BestEffort pods share what a single one would get, and the Burstable ones
//! what they ask for together. `/kubepods` has what the node can give. Where several nodes share a machine they share these cgroups too, and
//! the weight of the class is that of the node whose pods changed last.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use api::pod::Qos;

use crate::cri_config::resources::{self, PodLimits};
use crate::pods::pod::PodExt;
use k8s_openapi::api::core::v1::Pod;

const V1_CONTROLLERS_WITH_LIMITS: [&str; 4] = ["cpu", "memory", "pids", "hugetlb"];
const PERIOD_MICROSECONDS: i64 = 100_000;
const V2_CONTROLLERS: &str = "+cpu +memory +pids +cpuset +io +hugetlb";

/// The hierarchies of a node.
#[derive(Debug, Clone)]
pub struct Cgroups {
    root: PathBuf,
    unified: bool,
    /// How many processes a pod may have.
    pids: Option<i64>,
    /// What all pods may have.
    node: NodeLimits,
}

/// What all pods of a node may have together.
#[derive(Debug, Clone, Copy)]
pub struct NodeLimits {
    /// Thousandths of a CPU.
    pub cpu_millis: i64,
    /// Bytes.
    pub memory: i64,
    /// Processes; 0 is no limit.
    pub pids: i64,
}

/// What a cgroup is given.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Upper {
    cgroup: &'static str,
    cpu_shares: i64,
    /// Bytes and processes, where they are limited.
    limits: Option<(i64, i64)>,
}

/// A cgroup that could not be made, set or removed.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {}: {source}", path.display())]
pub struct CgroupError {
    operation: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl Cgroups {
    /// Finds out what is mounted at `root`, usually `/sys/fs/cgroup`; `pids` is how many processes a pod may have there.
    pub fn at(root: &Path, pids: Option<i64>, node: NodeLimits) -> Self {
        Self {
            pids,
            node,
            root: root.to_owned(),
            unified: root.join("cgroup.controllers").exists(),
        }
    }

    /// Whether there is only the hierarchy of version 2.
    pub fn unified(&self) -> bool {
        self.unified
    }

    /// The directories that a cgroup is, in every hierarchy that has the controllers.
    fn directories(&self, cgroup: &str) -> Vec<PathBuf> {
        let below = cgroup.trim_start_matches('/');
        if self.unified {
            return vec![self.root.join(below)];
        }
        let hierarchies = fs::read_dir(&self.root).into_iter().flatten().flatten();
        // Links such as `cpu -> cpu,cpuacct` would be the same directory again.
        let real = hierarchies.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        real.map(|entry| entry.path().join(below)).collect()
    }

    /// Makes sure of the cgroups above those of pods, with their weights and limits; Burstable pods ask for so many thousandths of a CPU.
    pub fn weigh_classes(&self, burstable_millis: i64) -> Result<(), CgroupError> {
        uppers(self.node, burstable_millis)
            .iter()
            .try_for_each(|upper| self.set_upper(upper))
    }

    fn set_upper(&self, upper: &Upper) -> Result<(), CgroupError> {
        let below = upper.cgroup.trim_start_matches('/');
        if self.unified {
            let directory = self.root.join(below);
            self.create_unified(&directory)?;
            return set(&directory, upper_v2(upper));
        }
        for controller in ["cpu", "memory", "pids"] {
            let hierarchy = self.root.join(controller);
            if !hierarchy.is_dir() {
                continue;
            }
            let directory = hierarchy.join(below);
            fs::create_dir_all(&directory).map_err(failed("create", &directory))?;
            set(&directory, upper_v1(controller, upper))?;
        }
        Ok(())
    }

    /// Makes the cgroup of a pod with its limits; `burstable_millis` as [above](Self::weigh_classes), should the class have none yet.
    pub fn create(&self, pod: &Pod, burstable_millis: i64) -> Result<(), CgroupError> {
        let class = resources::class_cgroup(api::pod::stored_qos_class(pod));
        // A node that left the machine may have taken it away.
        let hierarchy = if self.unified {
            self.root.clone()
        } else {
            self.root.join("cpu")
        };
        if !hierarchy.join(class.trim_start_matches('/')).is_dir() {
            self.weigh_classes(burstable_millis)?;
        }
        self.limit(pod, resources::pod(pod))
    }

    /// Makes sure of a pod's cgroup, with these limits.
    pub fn limit(&self, pod: &Pod, limits: PodLimits) -> Result<(), CgroupError> {
        let qos = api::pod::stored_qos_class(pod);
        let cgroup = resources::pod_cgroup(qos, pod.uid());
        if self.unified {
            let directory = self.root.join(cgroup.trim_start_matches('/'));
            self.create_unified(&directory)?;
            set_pages(&directory, pod, "max")?;
            return set(&directory, v2(limits, self.pids));
        }
        for controller in V1_CONTROLLERS_WITH_LIMITS {
            let hierarchy = self.root.join(controller);
            if !hierarchy.is_dir() {
                continue;
            }
            let directory = hierarchy.join(cgroup.trim_start_matches('/'));
            fs::create_dir_all(&directory).map_err(failed("create", &directory))?;
            if controller == "hugetlb" {
                set_pages(&directory, pod, "limit_in_bytes")?;
                continue;
            }
            set(&directory, v1(controller, limits, self.pids))?;
        }
        Ok(())
    }

    /// On version 2, each level must hand its controllers down before the next can use them.
    fn create_unified(&self, directory: &Path) -> Result<(), CgroupError> {
        fs::create_dir_all(directory).map_err(failed("create", directory))?;
        let mut levels: Vec<&Path> = directory
            .ancestors()
            .take_while(|level| level.starts_with(&self.root))
            .collect();
        levels.reverse();
        for level in levels {
            let path = level.join("cgroup.subtree_control");
            for controller in V2_CONTROLLERS.split(' ') {
                // One that the kernel lacks must not keep the others away.
                let _ = fs::write(&path, controller);
            }
        }
        Ok(())
    }

    /// Removes the cgroup of a pod and what is left below it.
    pub fn remove(&self, uid: &str) -> Result<(), CgroupError> {
        for qos in [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort] {
            for directory in self.directories(&resources::pod_cgroup(qos, uid)) {
                remove_tree(&directory)?;
            }
        }
        Ok(())
    }
}

fn failed<'a>(operation: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> CgroupError + 'a {
    move |source| CgroupError {
        operation,
        path: path.to_owned(),
        source,
    }
}

fn set(directory: &Path, files: Vec<(&str, String)>) -> Result<(), CgroupError> {
    for (file, value) in files {
        let path = directory.join(file);
        match fs::write(&path, value) {
            // A kernel without bandwidth control has no quota to set.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            written => written.map_err(failed("write", &path))?,
        }
    }
    Ok(())
}

/// Limits the huge pages of a pod.
fn set_pages(directory: &Path, pod: &Pod, file: &str) -> Result<(), CgroupError> {
    resources::pod_hugepages(pod).into_iter().try_for_each(|limit| {
        let file = format!("hugetlb.{}.{file}", limit.page_size);
        set(directory, vec![(file.as_str(), limit.limit.to_string())])
    })
}

fn remove_tree(directory: &Path) -> Result<(), CgroupError> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed("read", directory))?,
    };
    for entry in entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
    {
        remove_tree(&entry.path())?;
    }
    match fs::remove_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(failed("remove", directory)),
    }
}

fn v1(controller: &str, limits: PodLimits, pids: Option<i64>) -> Vec<(&'static str, String)> {
    match controller {
        "cpu" => {
            let quota = if limits.cpu_quota > 0 { limits.cpu_quota } else { -1 };
            vec![
                ("cpu.shares", limits.cpu_shares.to_string()),
                ("cpu.cfs_period_us", PERIOD_MICROSECONDS.to_string()),
                ("cpu.cfs_quota_us", quota.to_string()),
            ]
        }
        "pids" => vec![("pids.max", maximum(pids.unwrap_or(0)))],
        _ if limits.memory > 0 => vec![("memory.limit_in_bytes", limits.memory.to_string())],
        _ => Vec::new(),
    }
}

/// A limit as a file says it, 0 being none.
fn maximum(value: i64) -> String {
    if value > 0 { value.to_string() } else { "max".to_owned() }
}

fn v2(limits: PodLimits, pids: Option<i64>) -> Vec<(&'static str, String)> {
    vec![
        ("cpu.weight", weight(limits.cpu_shares).to_string()),
        (
            "cpu.max",
            format!("{} {PERIOD_MICROSECONDS}", maximum(limits.cpu_quota)),
        ),
        ("memory.max", maximum(limits.memory)),
        ("pids.max", maximum(pids.unwrap_or(0))),
    ]
}

/// The cgroups above those of pods, from the outermost in.
fn uppers(node: NodeLimits, burstable_millis: i64) -> [Upper; 3] {
    let class = |qos, millis| Upper {
        cgroup: resources::class_cgroup(qos),
        cpu_shares: resources::shares(millis),
        limits: None,
    };
    [
        Upper {
            limits: Some((node.memory, node.pids)),
            // Guaranteed pods are right below it.
            ..class(Qos::Guaranteed, node.cpu_millis)
        },
        class(Qos::Burstable, burstable_millis),
        class(Qos::BestEffort, 0),
    ]
}

fn upper_v1(controller: &str, upper: &Upper) -> Vec<(&'static str, String)> {
    match (controller, upper.limits) {
        ("cpu", _) => vec![("cpu.shares", upper.cpu_shares.to_string())],
        ("memory", Some((memory, _))) => vec![("memory.limit_in_bytes", memory.to_string())],
        ("pids", Some((_, pids))) => vec![("pids.max", maximum(pids))],
        _ => Vec::new(),
    }
}

fn upper_v2(upper: &Upper) -> Vec<(&'static str, String)> {
    let mut files = vec![("cpu.weight", weight(upper.cpu_shares).to_string())];
    if let Some((memory, pids)) = upper.limits {
        files.extend([("memory.max", maximum(memory)), ("pids.max", maximum(pids))]);
    }
    files
}

/// Version 1 counts shares from 2 to 262,144, version 2 weights from 1 to 10,000. Upstream's kubelet converts the one to the other linearly
/// for what it makes itself, down to the pods; runtimes have a curve for containers, which only compete with those of their own pod.
fn weight(shares: i64) -> i64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;

    #[test]
    fn weights_follow_shares() {
        assert_eq!(
            [0, 2, 1024, 8192, 262_144, 1 << 20].map(weight),
            [1, 1, 39, 313, 10_000, 10_000]
        );
    }

    const NODE: NodeLimits = NodeLimits {
        cpu_millis: 8000,
        memory: 1 << 30,
        pids: 1000,
    };

    #[test]
    fn classes_are_weighed_against_each_other() {
        for (millis, shares) in [(0, 2), (350, 358)] {
            let [node, burstable, best_effort] = uppers(NODE, millis);
            assert_eq!(upper_v1("cpu", &node), [("cpu.shares", "8192".to_owned())]);
            assert_eq!(upper_v1("cpu", &burstable), [("cpu.shares", shares.to_string())]);
            assert_eq!(upper_v1("cpu", &best_effort), [("cpu.shares", "2".to_owned())]);
            assert_eq!(
                upper_v1("memory", &node),
                [("memory.limit_in_bytes", (1 << 30).to_string())]
            );
            assert_eq!(upper_v1("pids", &node), [("pids.max", "1000".to_owned())]);
            assert!(upper_v1("memory", &burstable).is_empty());
            assert_eq!(
                upper_v2(&node),
                [
                    ("cpu.weight", "313".to_owned()),
                    ("memory.max", (1 << 30).to_string()),
                    ("pids.max", "1000".to_owned())
                ]
            );
            assert_eq!(upper_v2(&best_effort), [("cpu.weight", "1".to_owned())]);
        }
    }

    #[test]
    fn limits_become_files() {
        let limits = PodLimits {
            cpu_shares: 1024,
            cpu_quota: 50_000,
            memory: 1 << 20,
        };
        assert_eq!(
            v1("memory", limits, None),
            [("memory.limit_in_bytes", "1048576".to_owned())]
        );
        assert_eq!(v2(limits, None)[1], ("cpu.max", "50000 100000".to_owned()));
        for (limit, written) in [(Some(64), "64"), (None, "max")] {
            let written = ("pids.max", written.to_owned());
            assert_eq!(v1("pids", limits, limit).first(), Some(&written));
            assert_eq!(v2(limits, limit)[3], written);
        }
        let none = PodLimits {
            cpu_shares: 2,
            cpu_quota: 0,
            memory: 0,
        };
        assert_eq!(v1("cpu", none, None)[2], ("cpu.cfs_quota_us", "-1".to_owned()));
        assert!(v1("memory", none, None).is_empty());
        assert_eq!(v2(none, None)[2], ("memory.max", "max".to_owned()));
    }

    #[test]
    fn a_pod_is_removed_from_every_hierarchy() {
        let dir = tempfile::tempdir().unwrap();
        for hierarchy in ["cpu", "memory", "pids"] {
            fs::create_dir_all(dir.path().join(hierarchy).join("kubepods/burstable/podu-1/container")).unwrap();
        }
        let cgroups = Cgroups::at(dir.path(), None, NODE);
        assert!(!cgroups.unified());
        cgroups.remove("u-1").unwrap();
        for hierarchy in ["cpu", "memory", "pids"] {
            assert!(!dir.path().join(hierarchy).join("kubepods/burstable/podu-1").exists());
        }
        cgroups.remove("u-1").unwrap();
    }
}
