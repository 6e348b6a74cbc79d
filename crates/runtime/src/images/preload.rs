//! The images that come with the node: archives in `<data-dir>/images`, imported side by side at start.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use futures::future::join_all;
use tokio::sync::watch;

use super::Images;
use super::error::{Error, Result};
use super::index::{Image, Preloaded};

impl Images {
    /// Imports the archives of the images directory that are new or have changed. The node need not
    /// wait: until this is through, whoever asks for an image that is not here waits for it.
    ///
    /// Each archive that cannot be imported is one error; the others are imported all the same.
    pub fn preload(&self) -> impl Future<Output = Vec<Error>> + Send + use<> {
        let running = Running::start(self.preloading());
        let images = self.clone();
        async move {
            let archives = match archives(images.archives_dir()) {
                Ok(archives) => archives,
                Err(error) => return vec![error],
            };
            let results = join_all(archives.into_iter().map(|(path, mut now)| {
                let images = images.clone();
                async move {
                    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    if images.is_preloaded(&name, &now) {
                        return Ok(Vec::new());
                    }
                    now.images.clear();
                    images.import_as(&path, Some((name, now))).await
                }
            }))
            .await;
            drop(running);
            let failed = |result: Result<Vec<Arc<Image>>>| result.err();
            results.into_iter().filter_map(failed).collect()
        }
    }

    /// Whether this very archive was imported and its images are all here still.
    fn is_preloaded(&self, name: &str, now: &Preloaded) -> bool {
        let index = self.index();
        index.preloaded.get(name).is_some_and(|then| {
            (then.size, then.modified_nanos) == (now.size, now.modified_nanos)
                && then
                    .images
                    .iter()
                    .all(|id| index.get(id).is_some_and(|image| image.pinned && !image.removed))
        })
    }
}

/// Says for as long as it lives that archives are being imported.
struct Running(watch::Sender<bool>);

impl Running {
    fn start(state: &watch::Sender<bool>) -> Self {
        state.send_replace(true);
        Self(state.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

fn archives(dir: &Path) -> Result<Vec<(PathBuf, Preloaded)>> {
    let mut archives = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io("read", dir))? {
        let path = entry.map_err(Error::io("read", dir))?.path();
        let metadata = fs::metadata(&path).map_err(Error::io("read", &path))?;
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !metadata.is_file() || hidden {
            continue;
        }
        let modified = metadata.modified().map_err(Error::io("read", &path))?;
        let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        let state = Preloaded {
            size: metadata.len(),
            modified_nanos: since.as_nanos().try_into().unwrap_or(i128::MAX),
            images: Vec::new(),
        };
        archives.push((path, state));
    }
    archives.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(archives)
}
