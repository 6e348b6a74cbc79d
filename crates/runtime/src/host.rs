//! What this machine has: read once, when a runtime opens.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use caps::{CapSet, Capability};
use oci_spec::runtime::LinuxDevice;

use crate::spec::{self, Host};

/// Where control groups are, on every machine that libcgroups supports.
pub(crate) const CGROUPS: &str = "/sys/fs/cgroup";

/// The controllers of version 1 that libcgroups puts a container into.
const CONTROLLERS: [&str; 12] = [
    "blkio",
    "cpu",
    "cpuacct",
    "cpuset",
    "devices",
    "freezer",
    "hugetlb",
    "memory",
    "net_cls",
    "net_prio",
    "perf_event",
    "pids",
];

pub(crate) fn read() -> Host {
    let capabilities = caps::read(None, CapSet::Permitted).unwrap_or_default();
    let floor = if capabilities.contains(&Capability::CAP_SYS_RESOURCE) {
        None
    } else {
        let own = fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
        Some(own.trim().parse().unwrap_or(0))
    };
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let controllers = controllers(&mounts);
    let swap = if controllers.is_empty() {
        // Only cgroups below the root have the file; every machine of version 2 with swap accounting has a slice.
        fs::read_dir(CGROUPS).is_ok_and(|mut entries| {
            entries.any(|entry| entry.is_ok_and(|entry| entry.path().join("memory.swap.max").exists()))
        })
    } else {
        Path::new(CGROUPS).join("memory/memory.memsw.limit_in_bytes").exists()
    };
    Host {
        controllers,
        swap,
        oom_score_floor: floor,
        capabilities,
    }
}

/// The directories of version 1's controllers, of a mount table.
fn controllers(mountinfo: &str) -> Vec<String> {
    let mounted: BTreeSet<&str> = mountinfo
        .lines()
        .filter(|line| line.contains(" - cgroup "))
        .filter_map(|line| line.split(' ').nth(4)?.strip_prefix(CGROUPS)?.strip_prefix('/'))
        .collect();
    CONTROLLERS
        .iter()
        .filter(|name| mounted.contains(*name))
        .map(ToString::to_string)
        .collect()
}

/// The directories of a cgroup in every hierarchy.
pub(crate) fn cgroup_dirs(host: &Host, cgroup: &str) -> Vec<PathBuf> {
    let relative = cgroup.trim_start_matches('/');
    if host.unified() {
        return vec![Path::new(CGROUPS).join(relative)];
    }
    host.controllers
        .iter()
        .map(|name| Path::new(CGROUPS).join(name).join(relative))
        .collect()
}

/// Every process of a cgroup and those below it.
pub(crate) fn cgroup_processes(host: &Host, cgroup: &str) -> Vec<i32> {
    let mut found = Vec::new();
    let mut dirs: Vec<PathBuf> = cgroup_dirs(host, cgroup).into_iter().take(1).collect();
    while let Some(dir) = dirs.pop() {
        let processes = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        found.extend(processes.lines().filter_map(|line| line.parse::<i32>().ok()));
        dirs.extend(subdirectories(&dir));
    }
    found
}

/// Removes a cgroup and those below it; what still has processes stays.
pub(crate) fn remove_cgroup(host: &Host, cgroup: &str) {
    fn remove(dir: &Path) {
        for below in subdirectories(dir) {
            remove(&below);
        }
        let _ = fs::remove_dir(dir);
    }
    if cgroup.trim_matches('/').is_empty() {
        return;
    }
    for dir in cgroup_dirs(host, cgroup) {
        remove(&dir);
    }
}

/// Removes a cgroup when nothing is in it or below it.
pub(crate) fn remove_empty_cgroup(host: &Host, cgroup: &str) {
    if !cgroup.trim_matches('/').is_empty() {
        for dir in cgroup_dirs(host, cgroup) {
            let _ = fs::remove_dir(&dir);
        }
    }
}

fn subdirectories(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// The devices below a path, under the names they have below another.
pub(crate) fn devices(path: &Path, name: &Path) -> std::io::Result<Vec<LinuxDevice>> {
    if !path.is_dir() {
        return Ok(spec::device(path, name)?.into_iter().collect());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        // A container has these for itself.
        if [
            "pts", "shm", "mqueue", "fd", "console", "ptmx", "stdin", "stdout", "stderr",
        ]
        .iter()
        .any(|own| entry.path() == Path::new("/dev").join(own))
        {
            continue;
        }
        found.extend(devices(&entry.path(), &name.join(entry.file_name()))?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_one_is_known_by_its_mounts() {
        let hybrid = "\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw
32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
35 31 0:32 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";
        assert_eq!(controllers(hybrid), ["cpu", "memory"]);
        let unified = "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert!(controllers(unified).is_empty());
    }

    #[test]
    fn a_cgroup_is_a_directory_in_every_hierarchy() {
        let mut host = Host::default();
        let one = cgroup_dirs(&host, "/kubepods/pod1");
        assert_eq!(one, [Path::new("/sys/fs/cgroup/kubepods/pod1")]);
        host.controllers = vec!["cpu".into(), "memory".into()];
        let two = cgroup_dirs(&host, "/kubepods/pod1");
        assert_eq!(
            two,
            [
                Path::new("/sys/fs/cgroup/cpu/kubepods/pod1"),
                Path::new("/sys/fs/cgroup/memory/kubepods/pod1")
            ]
        );
    }
}
