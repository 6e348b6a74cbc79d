//! What this machine has: read once, when a runtime opens.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use caps::{CapSet, Capability};
use oci_spec::runtime::LinuxDevice;

use crate::spec::{self, Host};

/// Where control groups are, on every machine that libcgroups supports.
const CGROUPS: &str = "/sys/fs/cgroup";

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
    let swap = if unified() {
        // Only cgroups below the root have the file; every machine of version 2 with swap accounting has a slice.
        fs::read_dir(CGROUPS).is_ok_and(|mut entries| {
            entries.any(|entry| entry.is_ok_and(|entry| entry.path().join("memory.swap.max").exists()))
        })
    } else {
        Path::new(CGROUPS).join("memory/memory.memsw.limit_in_bytes").exists()
    };
    Host {
        controllers: controllers().to_vec(),
        swap,
        oom_score_floor: floor,
        capabilities,
        user_namespaces: fs::read_to_string("/proc/sys/user/max_user_namespaces")
            .is_ok_and(|most| most.trim().parse::<u64>().is_ok_and(|most| most > 0)),
        selinux: Path::new("/sys/fs/selinux/enforce").exists(),
    }
}

/// The directories of version 1's controllers, of a mount table.
fn mounted(mountinfo: &str) -> Vec<String> {
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

/// The controllers of version 1 on this machine, none for version 2: read once, and by a zygote for all its shims.
pub(crate) fn controllers() -> &'static [String] {
    static CONTROLLERS: OnceLock<Vec<String>> = OnceLock::new();
    CONTROLLERS.get_or_init(|| mounted(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default()))
}

/// Whether there is one hierarchy for all controllers.
pub(crate) fn unified() -> bool {
    controllers().is_empty()
}

/// The directory of a cgroup in the hierarchy of a controller.
pub(crate) fn cgroup_dir(controller: &str, cgroup: &Path) -> PathBuf {
    let root = Path::new(CGROUPS);
    let relative = cgroup.strip_prefix("/").unwrap_or(cgroup);
    if unified() {
        root.join(relative)
    } else {
        root.join(controller).join(relative)
    }
}

/// The directories of a cgroup in every hierarchy; none for the root, which is not ours.
fn cgroup_dirs(cgroup: &Path) -> Vec<PathBuf> {
    if cgroup.components().all(|part| part == Component::RootDir) {
        return Vec::new();
    }
    if unified() {
        return vec![cgroup_dir("", cgroup)];
    }
    controllers().iter().map(|name| cgroup_dir(name, cgroup)).collect()
}

/// Every process of a cgroup and those below it.
pub(crate) fn cgroup_processes(cgroup: &Path) -> Vec<i32> {
    let mut found = Vec::new();
    // All hierarchies have the same processes.
    let mut dirs: Vec<PathBuf> = cgroup_dirs(cgroup).into_iter().take(1).collect();
    while let Some(dir) = dirs.pop() {
        // A cgroup that has gone has none.
        let Ok(processes) = fs::read_to_string(dir.join("cgroup.procs")) else {
            continue;
        };
        found.extend(processes.lines().filter_map(|line| line.parse::<i32>().ok()));
        dirs.extend(subdirectories(&dir));
    }
    found
}

/// Removes a cgroup and those below it; what still has processes stays.
pub(crate) fn remove_cgroup(cgroup: &Path) {
    fn remove(dir: &Path) {
        if let Err(err) = fs::remove_dir(dir)
            && err.kind() != io::ErrorKind::NotFound
        {
            for below in subdirectories(dir) {
                remove(&below);
            }
            let _ = fs::remove_dir(dir);
        }
    }
    for dir in cgroup_dirs(cgroup) {
        remove(&dir);
    }
}

/// Removes a cgroup when nothing is in it or below it.
pub(crate) fn remove_empty_cgroup(cgroup: &Path) {
    for dir in cgroup_dirs(cgroup) {
        let _ = fs::remove_dir(&dir);
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
        assert_eq!(mounted(hybrid), ["cpu", "memory"]);
        let unified = "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert!(mounted(unified).is_empty());
    }

    #[test]
    fn the_root_is_not_ours() {
        assert!(cgroup_dirs(Path::new("/")).is_empty());
        assert!(cgroup_dirs(Path::new("")).is_empty());
        assert!(cgroup_dirs(Path::new("/pod")).iter().all(|dir| dir.ends_with("pod")));
    }
}
