//! `podium check`: what this machine has and lacks, with what to do about it. The server looks too, before it starts.
//!
//! [`observe`] asks the machine; [`findings`] decides, and touches nothing.

mod observe;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

pub use observe::observe;

/// `podium check`: prints each finding, and its remedy where there is one. Fails when no node can run here.
pub fn run() -> Result<ExitCode> {
    let mut all = findings(&observe(Path::new(crate::flags::DATA_DIR)));
    all.extend(network()?);
    for finding in &all {
        let mark = match finding.severity {
            Severity::Fine => "ok",
            Severity::Warning => "warning",
            Severity::Failure => "FAILURE",
        };
        println!("{mark:<8} {}: {}", finding.what, finding.found);
        if !finding.remedy.is_empty() {
            println!("         {}", finding.remedy);
        }
    }
    let failed = all.iter().any(|finding| finding.severity == Severity::Failure);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What stands in the way of pods' packets.
fn network() -> Result<Vec<Finding>> {
    let threads = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let seen = threads.block_on(network::check::observe(
        crate::flags::CLUSTER_CIDR,
        crate::flags::SERVICE_CIDR,
    ))?;
    let found: Vec<_> = network::check::findings(&seen)
        .into_iter()
        .map(|finding| Finding {
            severity: if finding.fatal {
                Severity::Failure
            } else {
                Severity::Warning
            },
            what: "network",
            found: finding.problem,
            remedy: finding.remedy,
        })
        .collect();
    if found.is_empty() {
        let found = "nothing eats pods' packets".into();
        return Ok(vec![Finding {
            severity: Severity::Fine,
            what: "network",
            found,
            remedy: String::new(),
        }]);
    }
    Ok(found)
}

/// What was seen of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Whether this process is root.
    pub root: bool,
    /// The kernel's release, such as `6.1.0-18-amd64`.
    pub kernel: String,
    /// How control groups are mounted.
    pub cgroups: Cgroups,
    /// Filesystem types the kernel knows now or has a module for.
    pub overlayfs: bool,
    /// Why the file system that holds the data directory does not hold an overlay, if it does not.
    pub overlay_refused: Option<String>,
    /// Programs that are missing from the path.
    pub missing_programs: Vec<&'static str>,
    /// fs.inotify.max_user_instances
    pub inotify_instances: u64,
    /// fs.inotify.max_user_watches
    pub inotify_watches: u64,
    /// Seconds since 1970 by the machine's clock.
    pub unix_time: u64,
    /// Free and total bytes of the file system that holds the data directory.
    pub disk: (u64, u64),
}

/// How control groups are mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cgroups {
    /// Version 1, with these controllers.
    V1(Vec<String>),
    /// Version 2 alone, with these controllers available.
    V2(Vec<String>),
    /// Not at all.
    None,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// As it should be.
    Fine,
    /// Works, with less than a user may expect.
    Warning,
    /// No node can run here.
    Failure,
}

/// One thing looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was looked at.
    pub what: &'static str,
    /// What was found.
    pub found: String,
    /// What to do about it; empty when it is fine.
    pub remedy: String,
}

const CONTROLLERS: [&str; 4] = ["cpu", "memory", "pids", "cpuset"];

/// The oldest kernel with all that a node asks of it: rename_noreplace on overlayfs, pidfd, openat2, close_range.
const OLDEST_KERNEL: (u32, u32) = (5, 11);

/// What the observations mean.
pub fn findings(seen: &Observed) -> Vec<Finding> {
    use Severity::{Failure, Fine, Warning};
    let finding = |severity, what, found: String, remedy: String| Finding {
        severity,
        what,
        found,
        remedy,
    };
    let mut all = Vec::new();

    all.push(match seen.root {
        true => finding(Fine, "user", "root".into(), String::new()),
        false => finding(
            Failure,
            "user",
            "not root".into(),
            "run podium as root: sudo podium server".into(),
        ),
    });

    all.push(match kernel_version(&seen.kernel) {
        Some(version) if version < OLDEST_KERNEL => {
            let (major, minor) = OLDEST_KERNEL;
            finding(
                Failure,
                "kernel",
                seen.kernel.clone(),
                format!("boot Linux {major}.{minor} or newer"),
            )
        }
        _ => finding(Fine, "kernel", seen.kernel.clone(), String::new()),
    });

    all.push(cgroups(&seen.cgroups));

    all.push(match (seen.overlayfs, &seen.overlay_refused) {
        (true, None) => finding(Fine, "overlayfs", "there".into(), String::new()),
        (true, Some(refused)) => finding(
            Failure,
            "overlayfs",
            refused.clone(),
            "give --data-dir a directory on ext4, xfs, btrfs or tmpfs that has room; overlayfs, NFS and FUSE hold no container's root".into(),
        ),
        (false, _) => finding(
            Failure,
            "overlayfs",
            "the kernel does not know it".into(),
            "load it with `modprobe overlay`; if there is no such module, boot a kernel with CONFIG_OVERLAY_FS".into(),
        ),
    });

    all.push(match seen.missing_programs.as_slice() {
        [] => finding(
            Fine,
            "programs",
            "nft and the others are on the path".into(),
            String::new(),
        ),
        missing => finding(
            Failure,
            "programs",
            format!("not on the path: {}", missing.join(", ")),
            "on Debian and Ubuntu: apt-get install nftables; on Fedora: dnf install nftables".into(),
        ),
    });

    // A log follower and a volume watcher each take an instance; upstream's advice for a node is the same.
    all.push(match (seen.inotify_instances, seen.inotify_watches) {
        (instances, watches) if instances < 128 || watches < 8192 => finding(
            Warning,
            "inotify",
            format!("max_user_instances {instances}, max_user_watches {watches}"),
            "sysctl -w fs.inotify.max_user_instances=512 fs.inotify.max_user_watches=524288".into(),
        ),
        (instances, watches) => finding(
            Fine,
            "inotify",
            format!("max_user_instances {instances}, max_user_watches {watches}"),
            String::new(),
        ),
    });

    // Certificates made under a clock that is years behind are not valid yet to anyone else.
    const BEFORE_THIS_BUILD: u64 = 1_767_225_600;
    all.push(match seen.unix_time {
        time if time < BEFORE_THIS_BUILD => finding(
            Failure,
            "clock",
            "it says a year before 2026".into(),
            "set it: timedatectl set-ntp true, or date -s".into(),
        ),
        _ => finding(Fine, "clock", "plausible".into(), String::new()),
    });

    let (free, total) = seen.disk;
    let percent = (free * 100).checked_div(total).unwrap_or(100);
    let found = format!("{} MiB free of {} MiB", free >> 20, total >> 20);
    all.push(match percent {
        0..10 => finding(
            Warning,
            "disk",
            found,
            "free some space: below a tenth the node reports DiskPressure, and images may not fit".into(),
        ),
        _ => finding(Fine, "disk", found, String::new()),
    });
    all
}

fn cgroups(cgroups: &Cgroups) -> Finding {
    let (version, controllers) = match cgroups {
        Cgroups::V1(controllers) => ("version 1", controllers),
        Cgroups::V2(controllers) => ("version 2", controllers),
        Cgroups::None => {
            return Finding {
                severity: Severity::Failure,
                what: "cgroups",
                found: "not mounted".into(),
                remedy: "mount -t cgroup2 none /sys/fs/cgroup".into(),
            };
        }
    };
    let missing: Vec<_> = CONTROLLERS
        .iter()
        .filter(|name| !controllers.iter().any(|has| has == *name))
        .copied()
        .collect();
    if missing.is_empty() {
        return Finding {
            severity: Severity::Fine,
            what: "cgroups",
            found: version.into(),
            remedy: String::new(),
        };
    }
    Finding {
        severity: Severity::Failure,
        what: "cgroups",
        found: format!("{version} without the controllers {}", missing.join(", ")),
        remedy: format!(
            "take cgroup_disable= off the kernel's command line, and on a Raspberry Pi add cgroup_enable=memory; needed: {}",
            CONTROLLERS.join(", ")
        ),
    }
}

fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Observed {
        Observed {
            root: true,
            kernel: "6.1.0-18-amd64".into(),
            cgroups: Cgroups::V2(["cpuset", "cpu", "io", "memory", "pids"].map(String::from).to_vec()),
            overlayfs: true,
            overlay_refused: None,
            missing_programs: vec![],
            inotify_instances: 512,
            inotify_watches: 524_288,
            unix_time: 1_800_000_000,
            disk: (50 << 30, 100 << 30),
        }
    }

    fn bad(seen: &Observed) -> Vec<(Severity, &'static str)> {
        let bad = findings(seen)
            .into_iter()
            .filter(|finding| finding.severity != Severity::Fine);
        bad.map(|finding| {
            assert!(!finding.remedy.is_empty(), "{finding:?} has no remedy");
            (finding.severity, finding.what)
        })
        .collect()
    }

    #[test]
    fn each_lack_is_one_finding_with_a_remedy() {
        use Severity::{Failure, Warning};
        assert_eq!(bad(&good()), []);
        let cases = [
            (Observed { root: false, ..good() }, (Failure, "user")),
            (
                Observed {
                    kernel: "5.10.0-28-amd64".into(),
                    ..good()
                },
                (Failure, "kernel"),
            ),
            (
                Observed {
                    cgroups: Cgroups::None,
                    ..good()
                },
                (Failure, "cgroups"),
            ),
            (
                Observed {
                    cgroups: Cgroups::V2(vec!["cpu".into()]),
                    ..good()
                },
                (Failure, "cgroups"),
            ),
            (
                Observed {
                    overlayfs: false,
                    ..good()
                },
                (Failure, "overlayfs"),
            ),
            (
                Observed {
                    overlay_refused: Some("mount an overlay in /d: Invalid argument".into()),
                    ..good()
                },
                (Failure, "overlayfs"),
            ),
            (
                Observed {
                    missing_programs: vec!["nft"],
                    ..good()
                },
                (Failure, "programs"),
            ),
            (
                Observed {
                    inotify_instances: 64,
                    ..good()
                },
                (Warning, "inotify"),
            ),
            (
                Observed {
                    unix_time: 86_400,
                    ..good()
                },
                (Failure, "clock"),
            ),
            (
                Observed {
                    disk: (1 << 30, 100 << 30),
                    ..good()
                },
                (Warning, "disk"),
            ),
        ];
        for (seen, expected) in cases {
            assert_eq!(bad(&seen), [expected], "{seen:?}");
        }
    }

    #[test]
    fn kernel_releases_are_read() {
        assert_eq!(kernel_version("6.18.44-fc-v445"), Some((6, 18)));
        assert_eq!(kernel_version("5.4"), Some((5, 4)));
        assert_eq!(kernel_version("what"), None);
    }
}
