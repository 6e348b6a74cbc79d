//! Rotation of containers' logs: one that has grown too large is renamed, the runtime opens a new one, and of the old ones as many are kept
//! as may be, compressed but for the newest.
//!
//! ```text
//! 0.log                        written now
//! 0.log.20261125-024500        the one before, which a reader may still follow
//! 0.log.20261125-023000.gz     older
//! ```

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cri::v1::ReopenContainerLogRequest;
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use tracing::warn;

use crate::pods::observed::State;
use crate::pods::{Context, Pods};

const COMPRESSED: &str = ".gz";
const UNFINISHED: &str = ".tmp";

/// What is to become of the old files of a log.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tidying {
    remove: Vec<String>,
    compress: Vec<String>,
}

/// Decides by the names of the files beside `log`, of which `most` may be there after a rotation, the new one among them.
fn tidy(log: &str, names: &[String], most: usize) -> Tidying {
    let mut tidying = Tidying::default();
    let of_it = |name: &&String| name.strip_prefix(log).is_some_and(|rest| rest.starts_with('.'));
    let (unfinished, mut old): (Vec<_>, Vec<_>) = names
        .iter()
        .filter(of_it)
        .cloned()
        .partition(|name| name.ends_with(UNFINISHED));
    tidying.remove = unfinished;
    // Their names tell their time.
    old.sort();
    // The one that is written now becomes an old one, and a new one comes.
    let excess = (old.len() + 2).saturating_sub(most);
    tidying.remove.extend(old.drain(..excess.min(old.len())));
    tidying.compress = old.into_iter().filter(|name| !name.ends_with(COMPRESSED)).collect();
    tidying
}

/// Watches the logs of all running containers until it is dropped.
pub async fn run(context: Arc<Context>, pods: Pods, size: u64) {
    let configuration = &context.config.configuration;
    let most = configuration.container_log_max_files as usize;
    loop {
        tokio::time::sleep(configuration.container_log_monitor_interval.0).await;
        for view in pods.views() {
            let running = view
                .observed
                .instances
                .iter()
                .filter(|instance| instance.state == State::Running);
            for instance in running.filter(|instance| !instance.log_path.is_empty()) {
                let log = PathBuf::from(&instance.log_path);
                if !fs::metadata(&log).is_ok_and(|found| found.len() > size) {
                    continue;
                }
                if let Err(error) = rotate(&context, &instance.id, log, most).await {
                    warn!(container = %instance.id, %error, "a log is not rotated");
                }
            }
        }
    }
}

async fn rotate(context: &Context, id: &str, log: PathBuf, most: usize) -> Result<(), String> {
    let at = log.clone();
    let tidied = tokio::task::spawn_blocking(move || tidy_up(&at, most)).await;
    tidied
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())?;
    let mut old = log.clone().into_os_string();
    old.push(Timestamp::now().strftime(".%Y%m%d-%H%M%S").to_string());
    fs::rename(&log, &old).map_err(|error| format!("rename {}: {error}", log.display()))?;
    let container_id = id.to_owned();
    let reopened = context
        .runtime
        .reopen_container_log(ReopenContainerLogRequest { container_id })
        .await;
    reopened.map(drop).map_err(|error| {
        // The runtime still writes to the old file, and is to be found under the name that all look for.
        let back = fs::rename(&old, &log)
            .err()
            .map(|error| format!("; rename it back: {error}"));
        format!("{error}{}", back.unwrap_or_default())
    })
}

fn tidy_up(log: &Path, most: usize) -> io::Result<()> {
    let (Some(directory), Some(name)) = (log.parent(), log.file_name().and_then(|name| name.to_str())) else {
        return Ok(());
    };
    let entries = fs::read_dir(directory)?.flatten();
    let names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    let tidying = tidy(name, &names, most);
    for name in tidying.remove {
        fs::remove_file(directory.join(name))?;
    }
    tidying
        .compress
        .iter()
        .try_for_each(|name| compress(&directory.join(name)))
}

fn compress(log: &Path) -> io::Result<()> {
    let named = |ending: &str| {
        let mut name = log.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    };
    let unfinished = named(UNFINISHED);
    let mut encoder = GzEncoder::new(File::create(&unfinished)?, Compression::default());
    io::copy(&mut File::open(log)?, &mut encoder)?;
    encoder.finish()?;
    fs::rename(&unfinished, named(COMPRESSED))?;
    fs::remove_file(log)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    fn old_logs_are_few_and_small() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        for (there, most, remove, compress) in [
            (&["0.log"][..], 5, &[][..], &[][..]),
            (&["0.log", "0.log.1", "1.log.2", "0.logx"], 5, &[], &["0.log.1"]),
            (&["0.log", "0.log.1.gz", "0.log.2"], 3, &["0.log.1.gz"], &["0.log.2"]),
            (
                &["0.log.3", "0.log.1.gz", "0.log.2.gz", "0.log.2.tmp"],
                2,
                &["0.log.2.tmp", "0.log.1.gz", "0.log.2.gz", "0.log.3"],
                &[],
            ),
        ] {
            let tidying = tidy("0.log", &names(there), most);
            assert_eq!(
                (tidying.remove, tidying.compress),
                (names(remove), names(compress)),
                "{there:?}"
            );
        }
    }

    #[test]
    fn what_is_compressed_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        fs::write(dir.path().join("0.log.1"), "all of it").unwrap();
        tidy_up(&log, 5).unwrap();
        let mut text = String::new();
        GzDecoder::new(File::open(dir.path().join("0.log.1.gz")).unwrap())
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "all of it");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
