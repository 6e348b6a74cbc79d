//! What processes use, as the kernel counts it.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// Proportional set size of all the processes, in bytes.
pub fn pss(processes: &[i32]) -> Result<u64> {
    let mut total = 0;
    for pid in processes {
        let Ok(rollup) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) else {
            continue;
        };
        let line = rollup
            .lines()
            .find_map(|line| line.strip_prefix("Pss:"))
            .context("smaps_rollup without Pss")?;
        total += line.trim().trim_end_matches("kB").trim().parse::<u64>()? * 1024;
    }
    Ok(total)
}

/// Processor time that the processes have used since they started.
pub fn cpu(processes: &[i32]) -> Result<Duration> {
    // Linux counts in ticks of 1/100 s for user space whatever the kernel's own tick is.
    const TICK: Duration = Duration::from_millis(10);
    let mut ticks = 0;
    for pid in processes {
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        // The command name may hold spaces; the fields after its closing bracket do not.
        let (_, fields) = stat.rsplit_once(") ").context("a malformed stat")?;
        let fields: Vec<_> = fields.split(' ').collect();
        for field in [11, 12] {
            ticks += fields.get(field).context("a short stat")?.parse::<u32>()?;
        }
    }
    Ok(TICK * ticks)
}

/// The processes with one of these names.
pub fn named(names: &[String]) -> Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let command = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        // The kernel keeps 15 characters of a name.
        if names
            .iter()
            .any(|name| name.bytes().take(15).eq(command.trim_end().bytes()))
        {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Bytes as a table shows them.
pub fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
