//! What the machine uses, read from the kernel's files when somebody asks.

use std::fs;
use std::path::Path;

use crate::eviction::thresholds::Observed;

/// The kernel counts CPU time in hundredths of a second for programs.
const NANOSECONDS_PER_TICK: u64 = 10_000_000;

/// The memory of the machine, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// All there is.
    pub capacity: u64,
    /// All that is in use, file caches included.
    pub usage: u64,
    /// What is in use and cannot be taken back at once.
    pub working_set: u64,
    /// What processes have of their own.
    pub rss: u64,
}

impl Memory {
    /// What can still be used.
    pub fn available(self) -> u64 {
        self.capacity.saturating_sub(self.working_set)
    }

    /// As it is now.
    pub fn now() -> Self {
        parse_memory(&read("/proc/meminfo"))
    }
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn parse_memory(meminfo: &str) -> Memory {
    let bytes = |key: &str| {
        let line = meminfo
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok())
            .unwrap_or(0)
            * 1024
    };
    let capacity = bytes("MemTotal");
    let usage = capacity.saturating_sub(bytes("MemFree"));
    Memory {
        capacity,
        usage,
        working_set: usage.saturating_sub(bytes("Inactive(file)")),
        rss: bytes("AnonPages"),
    }
}

/// A file system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FileSystem {
    /// Bytes that are used or can be.
    pub capacity: u64,
    /// Bytes that programs may still write.
    pub available: u64,
    /// Files that there can be.
    pub inodes: u64,
    /// Files that there can still be.
    pub inodes_free: u64,
    /// Which one it is.
    pub id: u64,
}

impl FileSystem {
    /// That which has `path`; none where it cannot be asked.
    pub fn of(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        let found = nix::sys::statvfs::statvfs(path).ok()?;
        // As df counts: what is kept back is neither used nor to be had, and can be most of a disk.
        let blocks = found.blocks() - found.blocks_free() + found.blocks_available();
        Some(Self {
            capacity: blocks * found.fragment_size(),
            available: found.blocks_available() * found.fragment_size(),
            inodes: found.files() - found.files_free() + found.files_available(),
            inodes_free: found.files_available(),
            id: fs::metadata(path).ok()?.dev(),
        })
    }

    /// Bytes in use.
    pub fn used(self) -> u64 {
        self.capacity.saturating_sub(self.available)
    }
}

/// Process numbers: how many there can be, and how many are in use.
pub fn processes() -> (u64, u64) {
    let number = |path: &str| read(path).trim().parse::<u64>().ok();
    let most = [
        number("/proc/sys/kernel/pid_max"),
        number("/proc/sys/kernel/threads-max"),
    ];
    let most = most.into_iter().flatten().min().unwrap_or(0);
    (most, running(&read("/proc/loadavg")))
}

/// The number after the slash: all threads.
fn running(loadavg: &str) -> u64 {
    let fraction = loadavg.split_whitespace().nth(3).unwrap_or_default();
    let all = fraction.split_once('/').map(|(_, all)| all);
    all.and_then(|all| all.parse().ok()).unwrap_or(0)
}

/// The CPU time that all of the machine has used, in nanoseconds.
pub fn cpu_nanoseconds() -> u64 {
    busy(&read("/proc/stat")) * NANOSECONDS_PER_TICK
}

/// user, nice, system, irq, softirq and steal; not idle and iowait, and not guests, which are in user already.
fn busy(stat: &str) -> u64 {
    let numbers: Vec<u64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|number| number.parse().ok())
        .collect();
    [0, 1, 2, 5, 6, 7].iter().filter_map(|at| numbers.get(*at)).sum()
}

/// When the machine was started, in seconds of Unix time.
pub fn boot_seconds() -> i64 {
    let stat = read("/proc/stat");
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "));
    line.and_then(|line| line.trim().parse().ok()).unwrap_or(0)
}

/// A network link: its name; bytes and errors received, bytes and errors sent.
pub type Link = (String, [u64; 4]);

/// The links of this network namespace, loopback aside.
pub fn links() -> Vec<Link> {
    parse_links(&read("/proc/self/net/dev"))
}

fn parse_links(text: &str) -> Vec<Link> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines
        .map(|(name, numbers)| (name.trim(), numbers))
        .filter(|(name, _)| *name != "lo")
        .filter_map(|(name, numbers)| {
            let numbers: Vec<u64> = numbers
                .split_whitespace()
                .filter_map(|number| number.parse().ok())
                .collect();
            let at = |at: usize| numbers.get(at).copied();
            Some((name.to_owned(), [at(0)?, at(2)?, at(8)?, at(10)?]))
        })
        .collect()
}

/// What evictions look at.
pub fn observations(root: &Path, images: Option<&Path>) -> crate::eviction::thresholds::Observations {
    use crate::eviction::thresholds::Signal;
    let seen = |available: u64, capacity: u64| Observed {
        available: i64::try_from(available).unwrap_or(i64::MAX),
        capacity: i64::try_from(capacity).unwrap_or(i64::MAX),
    };
    let memory = Memory::now();
    let (most, running) = processes();
    let mut all = crate::eviction::thresholds::Observations::from([
        (Signal::MemoryAvailable, seen(memory.available(), memory.capacity)),
        (Signal::PidAvailable, seen(most.saturating_sub(running), most)),
    ]);
    for (path, bytes, inodes) in [
        (Some(root), Signal::NodeFsAvailable, Signal::NodeFsInodesFree),
        (images, Signal::ImageFsAvailable, Signal::ImageFsInodesFree),
    ] {
        let Some(found) = path.and_then(FileSystem::of) else {
            continue;
        };
        all.insert(bytes, seen(found.available, found.capacity));
        // Some file systems count no inodes.
        if found.inodes > 0 {
            all.insert(inodes, seen(found.inodes_free, found.inodes));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_kernel() {
        let memory = parse_memory(
            "MemTotal: 100 kB\nMemFree: 40 kB\nInactive: 30 kB\nInactive(file): 20 kB\nAnonPages: 10 kB\n",
        );
        let kib = |kib: u64| kib << 10;
        assert_eq!(
            memory,
            Memory {
                capacity: kib(100),
                usage: kib(60),
                working_set: kib(40),
                rss: kib(10)
            }
        );
        assert_eq!(memory.available(), kib(60));
        assert_eq!(running("0.5 0.4 0.3 5/107 26978\n"), 107);
        assert_eq!(busy("cpu  1 2 4 1000 1000 8 16 32 9 9\ncpu0 1 1 1\n"), 63);
        let links = parse_links("head |\n lo: 1 0 0 0 0 0 0 0 1 0 0\n eth0: 2 0 3 0 0 0 0 0 4 0 5 0\n");
        assert_eq!(links, [("eth0".to_owned(), [2, 3, 4, 5])]);
    }
}
