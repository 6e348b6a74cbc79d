//! Asks the machine.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::{Cgroups, Observed};

/// Programs that a node starts.
const PROGRAMS: [&str; 1] = ["nft"];

/// What is seen of the machine; `data_dir` or its nearest parent that exists is the disk looked at.
pub fn observe(data_dir: &Path) -> Observed {
    let disk = data_dir
        .ancestors()
        .find_map(|dir| nix::sys::statvfs::statvfs(dir).ok());
    let root = nix::unistd::geteuid().is_root();
    let overlayfs = knows_overlayfs();
    Observed {
        root,
        kernel: read("/proc/sys/kernel/osrelease"),
        cgroups: cgroups(&read("/proc/self/mounts"), &read("/sys/fs/cgroup/cgroup.controllers")),
        overlayfs,
        overlay_refused: (root && overlayfs).then(|| try_overlay(data_dir).err()).flatten(),
        missing_programs: PROGRAMS.into_iter().filter(|program| !on_path(program)).collect(),
        inotify_instances: read("/proc/sys/fs/inotify/max_user_instances")
            .parse()
            .unwrap_or(u64::MAX),
        inotify_watches: read("/proc/sys/fs/inotify/max_user_watches")
            .parse()
            .unwrap_or(u64::MAX),
        unix_time: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
        disk: disk.map_or((0, 0), |disk| {
            (
                disk.blocks_available() * disk.fragment_size(),
                disk.blocks() * disk.fragment_size(),
            )
        }),
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// How control groups are mounted, from the mount table and, for version 2, the root's list of controllers. Where both
/// versions are mounted the controllers are version 1's, as long as it has any.
fn cgroups(mounts: &str, v2_controllers: &str) -> Cgroups {
    let mut v1 = Vec::new();
    let mut v2 = false;
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(2);
        match (fields.next(), fields.next()) {
            (Some("cgroup"), Some(options)) => v1.extend(options.split(',').map(String::from)),
            (Some("cgroup2"), _) => v2 = true,
            _ => {}
        }
    }
    match (v1.iter().any(|option| option == "memory" || option == "cpu"), v2) {
        (true, _) => Cgroups::V1(v1),
        (false, true) => Cgroups::V2(v2_controllers.split_whitespace().map(String::from).collect()),
        (false, false) => Cgroups::None,
    }
}

/// Whether the kernel has overlayfs, built in, loaded, or as a module that mounting would load.
fn knows_overlayfs() -> bool {
    let known = read("/proc/filesystems")
        .lines()
        .any(|line| line.ends_with("\toverlay"));
    let modules = format!("/lib/modules/{}/modules.dep", read("/proc/sys/kernel/osrelease"));
    known || fs::read_to_string(modules).is_ok_and(|modules| modules.contains("/overlay.ko"))
}

/// Mounts an overlay of empty directories beside the data, as a container's root is: not every file system holds one.
fn try_overlay(data_dir: &Path) -> Result<(), String> {
    let Some(dir) = data_dir.ancestors().find(|dir| dir.is_dir()) else {
        return Ok(());
    };
    let trial = dir.join(format!(".podium-check-{}", std::process::id()));
    let outcome = (|| {
        let parts = ["lower", "upper", "work", "merged"].map(|part| trial.join(part));
        for part in &parts {
            fs::create_dir_all(part).map_err(|error| format!("create {}: {error}", part.display()))?;
        }
        let [lower, upper, work, merged] = &parts;
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            upper.display(),
            work.display()
        );
        let refused = |error: nix::Error| format!("mount an overlay in {}: {}", dir.display(), error.desc());
        mount(
            Some("overlay"),
            merged,
            Some("overlay"),
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .map_err(refused)?;
        umount2(merged, MntFlags::MNT_DETACH).map_err(refused)
    })();
    // What could not be made needs no removal, and the next trial has a name of its own.
    let _ = fs::remove_dir_all(&trial);
    outcome
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|dir| dir.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroups_are_read_from_the_mount_table() {
        let v1 = "cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu,cpuacct 0 0\ncgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let Cgroups::V1(controllers) = cgroups(v1, "") else {
            panic!("not version 1")
        };
        assert!(controllers.contains(&"cpu".to_owned()) && controllers.contains(&"memory".to_owned()));
        assert_eq!(
            cgroups("cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n", "cpu memory pids"),
            Cgroups::V2(vec!["cpu".into(), "memory".into(), "pids".into()])
        );
        assert_eq!(cgroups("proc /proc proc rw 0 0\n", ""), Cgroups::None);
    }
}
