//! Unpacked layers on disk: each once, whoever needs it, and whole or not at all.
//!
//! A layer is unpacked into a temporary directory and moved to its name when its digests are right.
//! It counts as kept only when an image in the index has it, and the index is written after all of the
//! layer is on disk; so whatever else is found at start is left over from a crash and goes.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::BoxFuture;
use oci_spec::image::Digest;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::error::{Error, Result};
use super::index::Layer;
use super::stream::{Measured, decompressed};
use super::unpack::{UnpackError, Usage, unpack};

/// The bytes of a blob, read on a thread that may wait.
pub(super) type Source = Box<dyn Read + Send>;

/// Opens a blob's bytes, asked only when the layer is not here yet.
pub(super) type OpenSource = Box<dyn FnOnce() -> BoxFuture<'static, Result<Source, LayerError>> + Send>;

/// Why a layer could not be brought in.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The blob is not the one that the manifest means.
    #[error(
        "failed commit on ref \"layer-{expected}\": unexpected commit digest {actual}, expected {expected}: failed precondition"
    )]
    Digest {
        /// The digest in the manifest.
        expected: String,
        /// The digest of what came.
        actual: String,
    },
    /// The blob is longer or shorter than the manifest says.
    #[error(
        "failed commit on ref \"layer-{digest}\": unexpected commit size, expected {expected}: failed precondition"
    )]
    Size {
        /// The digest in the manifest.
        digest: String,
        /// The size in the manifest, in bytes.
        expected: u64,
    },
    /// The archive is not the one that the configuration means.
    #[error("failed to extract layer {expected}: wrong diff id calculated on extraction {actual:?}")]
    DiffId {
        /// The diff id in the configuration.
        expected: String,
        /// The digest of what was unpacked.
        actual: String,
    },
    /// The archive could not be unpacked.
    #[error("failed to extract layer {diff_id}: {source}")]
    Unpack {
        /// Which layer.
        diff_id: String,
        /// Why.
        source: UnpackError,
    },
    /// The blob's bytes stopped coming.
    #[error("failed to copy layer {digest}: {reason}")]
    Copy {
        /// The layer's blob, or its diff id when it has no blob of its own.
        digest: String,
        /// What the source said.
        reason: String,
    },
    /// The digest is of an algorithm that is not registered with OCI.
    #[error("layer {0}: unsupported digest algorithm")]
    Algorithm(String),
    /// The layer's directory could not be made.
    #[error("{0}")]
    Directory(String),
}

/// A blob as a manifest announces it.
#[derive(Debug, Clone)]
pub(super) struct Blob {
    pub digest: Digest,
    pub size: u64,
}

/// The directory of all unpacked layers.
pub(super) struct Layers {
    layers: PathBuf,
    temporary: PathBuf,
    ledger: Mutex<Ledger>,
    /// Unpacking keeps a core busy; more at once than there are cores would only fill memory.
    cores: Semaphore,
}

#[derive(Default)]
struct Ledger {
    /// Layers that are here, by diff id.
    here: HashMap<String, Layer>,
    /// Layers that something in progress counts on, and how many count on each.
    leases: HashMap<String, usize>,
    /// One at a time unpacks a layer; the others wait for it.
    turns: HashMap<String, Arc<tokio::sync::Mutex<()>>>,
}

/// Keeps layers from being collected while an image that needs them is on its way into the index.
pub(super) struct Lease {
    of: Arc<Layers>,
    diff_ids: Vec<String>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut ledger = self.of.ledger.lock();
        for diff_id in &self.diff_ids {
            if let Some(count) = ledger.leases.get_mut(diff_id) {
                *count -= 1;
                if *count == 0 {
                    ledger.leases.remove(diff_id);
                    ledger.turns.remove(diff_id);
                }
            }
        }
    }
}

impl Layers {
    /// Opens the directory with the layers that the index knows, and clears what a crash left.
    pub fn open(store: &Path, known: impl Iterator<Item = Layer>) -> Result<Self> {
        let (layers, temporary) = (store.join("layers"), store.join("tmp"));
        for dir in [&layers, &temporary] {
            fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
            fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(Error::io("protect", dir))?;
        }
        let here: HashMap<_, _> = known.map(|layer| (layer.diff_id.clone(), layer)).collect();
        let names: HashSet<&str> = here.keys().map(|diff_id| name(diff_id)).collect();
        for (dir, keep) in [(&temporary, &HashSet::new()), (&layers, &names)] {
            for entry in fs::read_dir(dir).map_err(Error::io("read", dir))? {
                let entry = entry.map_err(Error::io("read", dir))?;
                if entry.file_name().to_str().is_some_and(|name| keep.contains(name)) {
                    continue;
                }
                let path = entry.path();
                let removed = match entry.file_type() {
                    Ok(kind) if kind.is_dir() => fs::remove_dir_all(&path),
                    _ => fs::remove_file(&path),
                };
                removed.map_err(Error::io("remove", &path))?;
            }
        }
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Ok(Self {
            layers,
            temporary,
            ledger: Mutex::new(Ledger {
                here,
                ..Ledger::default()
            }),
            cores: Semaphore::new(cores.max(2)),
        })
    }

    /// Where a layer is, or will be.
    /// Where all of them are.
    pub fn directory(&self) -> &Path {
        &self.layers
    }

    pub fn path(&self, diff_id: &str) -> PathBuf {
        self.layers.join(name(diff_id))
    }

    /// A place for files that are gone after the next start.
    pub fn temporary(&self) -> &Path {
        &self.temporary
    }

    pub fn lease(self: &Arc<Self>, diff_ids: &[String]) -> Lease {
        let mut ledger = self.ledger.lock();
        for diff_id in diff_ids {
            *ledger.leases.entry(diff_id.clone()).or_default() += 1;
        }
        Lease {
            of: self.clone(),
            diff_ids: diff_ids.to_vec(),
        }
    }

    /// Makes sure that a leased layer is here. It goes on when the caller loses interest: whoever asks
    /// next finds the work done.
    pub async fn ensure(
        self: &Arc<Self>,
        diff_id: Digest,
        blob: Option<Blob>,
        open: OpenSource,
    ) -> Result<Layer, LayerError> {
        let layers = self.clone();
        let lease = self.lease(&[diff_id.to_string()]);
        let work = tokio::spawn(async move {
            let _lease = lease;
            layers.bring(diff_id, blob, open).await
        });
        work.await
            .unwrap_or_else(|stopped| Err(LayerError::Directory(format!("unpacking a layer: {stopped}"))))
    }

    async fn bring(
        self: &Arc<Self>,
        diff_id: Digest,
        blob: Option<Blob>,
        open: OpenSource,
    ) -> Result<Layer, LayerError> {
        let turn = {
            let mut ledger = self.ledger.lock();
            if let Some(layer) = ledger.here.get(diff_id.as_ref()) {
                return Ok(layer.clone());
            }
            ledger.turns.entry(diff_id.to_string()).or_default().clone()
        };
        let _turn = turn.lock().await;
        if let Some(layer) = self.ledger.lock().here.get(diff_id.as_ref()) {
            return Ok(layer.clone());
        }
        // Nobody closes the semaphore; the permit only bounds how many unpack at once.
        let _core = self.cores.acquire().await;
        let source = open().await?;
        let layers = self.clone();
        let layer = tokio::task::spawn_blocking(move || layers.make(&diff_id, blob.as_ref(), source))
            .await
            .unwrap_or_else(|stopped| Err(LayerError::Directory(format!("unpacking a layer: {stopped}"))))?;
        self.ledger.lock().here.insert(layer.diff_id.clone(), layer.clone());
        Ok(layer)
    }

    fn make(&self, diff_id: &Digest, blob: Option<&Blob>, source: Source) -> Result<Layer, LayerError> {
        let directory = |operation: &str, error: io::Error| {
            LayerError::Directory(format!("{operation} the layer {diff_id}: {error}"))
        };
        let made = tempfile::Builder::new()
            .prefix("layer-")
            .tempdir_in(&self.temporary)
            .map_err(|error| directory("make a directory for", error))?;
        let usage = checked(diff_id, blob, source, |archive| unpack(archive, made.path()))?;
        // Not kept() before the rename: until then it must go when something fails.
        fs::rename(made.path(), self.path(diff_id.as_ref())).map_err(|error| directory("move into place", error))?;
        drop(made.keep());
        Ok(Layer {
            diff_id: diff_id.to_string(),
            bytes: usage.bytes,
            inodes: usage.inodes,
        })
    }

    /// Waits until everything unpacked is on disk. Called once before an image enters the index.
    pub fn sync(&self) -> Result<()> {
        let dir = File::open(&self.layers).map_err(Error::io("open", &self.layers))?;
        nix::unistd::syncfs(dir)
            .map_err(io::Error::from)
            .map_err(Error::io("sync", &self.layers))
    }

    /// Removes those of the layers that neither `needed` nor anything in progress wants.
    pub fn collect(&self, candidates: &[Layer], needed: &HashSet<String>) -> Result<()> {
        let mut doomed = Vec::new();
        {
            let mut ledger = self.ledger.lock();
            for layer in candidates {
                let diff_id = &layer.diff_id;
                if needed.contains(diff_id) || ledger.leases.contains_key(diff_id) {
                    continue;
                }
                if ledger.here.remove(diff_id).is_none() {
                    continue;
                }
                // Out of the way at once: the same layer may be wanted again while it is deleted.
                let grave = tempfile::Builder::new()
                    .prefix("removed-")
                    .tempdir_in(&self.temporary)
                    .map_err(Error::io("make a directory in", &self.temporary))?;
                let path = self.path(diff_id);
                fs::rename(&path, grave.path().join("layer")).map_err(Error::io("remove", &path))?;
                doomed.push(grave);
            }
        }
        for grave in doomed {
            let path = grave.path().to_owned();
            grave.close().map_err(Error::io("remove", path))?;
        }
        Ok(())
    }
}

/// A layer's directory: the hex of its diff id.
fn name(diff_id: &str) -> &str {
    diff_id.split_once(':').map_or(diff_id, |(_, hex)| hex)
}

/// Reads a blob to its end through `unpack` and judges it: a blob that is not what the manifest names is
/// reported as such, whatever sense its bytes made.
fn checked(
    diff_id: &Digest,
    blob: Option<&Blob>,
    source: Source,
    unpack: impl FnOnce(&mut dyn Read) -> Result<Usage, UnpackError>,
) -> Result<Usage, LayerError> {
    let algorithm = |digest: &Digest| LayerError::Algorithm(digest.to_string());
    let (blob_digest, limit) = blob.map_or((diff_id, u64::MAX), |blob| (&blob.digest, blob.size));
    let mut raw = Measured::new(source, blob_digest.algorithm(), limit).ok_or_else(|| algorithm(blob_digest))?;
    let unpacked = decompressed(&mut raw)
        .map_err(UnpackError::Archive)
        .map(|plain| Measured::new(plain, diff_id.algorithm(), u64::MAX))
        .and_then(|plain| {
            let Some(mut plain) = plain else {
                return Ok(None);
            };
            let usage = unpack(&mut plain)?;
            // Behind the archive's end may be padding, which its digest covers too.
            plain.drain();
            match plain.failure.take() {
                Some(error) => Err(UnpackError::Archive(error)),
                None => Ok(Some((usage, plain.digest()))),
            }
        });
    raw.drain();
    if let Some(error) = raw.failure.take() {
        return Err(LayerError::Copy {
            digest: blob_digest.to_string(),
            reason: error.to_string(),
        });
    }
    if let Some(blob) = blob {
        if raw.exceeded || raw.count < blob.size {
            return Err(LayerError::Size {
                digest: blob.digest.to_string(),
                expected: blob.size,
            });
        }
        let actual = raw.digest();
        if actual != blob.digest.as_ref() {
            return Err(LayerError::Digest {
                expected: blob.digest.to_string(),
                actual,
            });
        }
    }
    let unpacked = unpacked.map_err(|source| LayerError::Unpack {
        diff_id: diff_id.to_string(),
        source,
    })?;
    let (usage, actual) = unpacked.ok_or_else(|| algorithm(diff_id))?;
    if actual != diff_id.as_ref() {
        return Err(LayerError::DiffId {
            expected: diff_id.to_string(),
            actual,
        });
    }
    Ok(usage)
}
