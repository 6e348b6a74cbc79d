//! The images of a node: their names, their layers, and the ways they come in.
//!
//! An *image* is a configuration and a list of layers; its *id* is the configuration's digest. Its *names*
//! are full ([`reference`]): with a tag, which may move to another image, or with the digest of a
//! manifest, which never moves. A *layer* is unpacked once, whoever uses it, under its *diff id*.
//!
//! On disk, below the data directory:
//!
//! ```text
//! images/                        archives of people's making, imported at start, never written
//! image-store/
//!   lock                         held by the one process that has the store open
//!   images.json                  every image with names, pins and layers; replaced whole
//!   configs/<hex>.json           an image's configuration, byte for byte
//!   layers/<hex of diff id>/     a layer as overlayfs takes it
//!   tmp/                         what is on its way; emptied at start
//! ```
//!
//! An image enters `images.json` only after its configuration and layers are durable, so what the file
//! names is whole; anything else in the store is left over from a crash and is removed at start. While a
//! container runs from an image ([`Images::hold`]) the image's layers stay, even when it is removed.

mod archive;
mod error;
mod index;
mod layers;
mod preload;
mod pull;
pub mod reference;
mod registries;
mod registry;
mod service;
mod stream;
mod unpack;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use oci_spec::image::{Digest, ImageConfiguration};
use parking_lot::{Mutex, RwLock};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

pub use error::{Error, Incomplete, Result};
pub use index::{Image, Layer, image_ref};
pub use layers::LayerError;
pub use registry::RegistryError;
pub use unpack::UnpackError;

use index::{Index, Preloaded, write_durably};
use layers::{Blob, Layers, Lease, OpenSource};

/// Where images live and how registries are reached.
#[derive(Debug, Clone)]
pub struct Config {
    /// Podium's data directory.
    pub data_dir: PathBuf,
    /// `registries.yaml`; it need not exist.
    pub registries_file: PathBuf,
}

/// The images of a node. Clones share them.
#[derive(Clone)]
pub struct Images(Arc<Shared>);

struct Shared {
    store: PathBuf,
    archives: PathBuf,
    registries_file: PathBuf,
    layers: Arc<Layers>,
    /// Read by taking the pointer; replaced whole by whoever holds `holders`.
    index: RwLock<Arc<Index>>,
    /// Which container runs from which image. Its lock is also the turn to change the index.
    holders: Mutex<HashMap<String, String>>,
    preloading: watch::Sender<bool>,
    /// Keeps every other process out.
    _lock: Flock<File>,
}

/// An image whose layers are here, on its way into the index.
struct NewImage {
    id: String,
    names: BTreeSet<String>,
    size: u64,
    layers: Vec<Layer>,
    config_bytes: Vec<u8>,
    config: ImageConfiguration,
    pinned: bool,
}

impl Images {
    /// Opens the store, makes it if there is none, and clears what a crash left. One process at a time.
    pub fn open(config: Config) -> Result<Self> {
        // An error means that a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let store = config.data_dir.join("image-store");
        let archives = config.data_dir.join("images");
        for dir in [&store, &archives, &store.join("configs")] {
            fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
        }
        fs::set_permissions(&store, Permissions::from_mode(0o700)).map_err(Error::io("protect", &store))?;
        let lock_file = store.join("lock");
        let lock = File::create(&lock_file).map_err(Error::io("create", &lock_file))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            Errno::EWOULDBLOCK => Error::InUse(store.clone()),
            other => Error::io("lock", &lock_file)(other.into()),
        })?;
        let index = Index::load(&store.join("images.json"), |id| config_file(&store, id))?;
        let known = index.images.iter().flat_map(|image| image.layers.iter().cloned());
        let layers = Layers::open(&store, known)?;
        clear_configs(&store, &index)?;
        Ok(Self(Arc::new(Shared {
            archives,
            registries_file: config.registries_file,
            layers: Arc::new(layers),
            index: RwLock::new(Arc::new(index)),
            holders: Mutex::default(),
            preloading: watch::Sender::new(false),
            store,
            _lock: lock,
        })))
    }

    /// Every image.
    pub fn list(&self) -> Vec<Arc<Image>> {
        self.index().visible().cloned().collect()
    }

    /// The image with this id or name, if the node has it.
    pub fn resolve(&self, name: &str) -> Result<Option<Arc<Image>>> {
        let index = self.index();
        // An id is no name, but a short one may look like one; then the name goes first.
        let named = match reference::normalize(name) {
            Ok(reference) => index.named(&reference.to_string()),
            Err(error) => match index.with_id(name) {
                None if !is_id(name) => return Err(error.into()),
                found => found,
            },
        };
        Ok(named.or_else(|| index.with_id(name)).cloned())
    }

    /// As [`Self::resolve`], but an image that is not here may yet come with the node's archives.
    pub async fn resolve_soon(&self, name: &str) -> Result<Option<Arc<Image>>> {
        if let Some(image) = self.resolve(name)? {
            return Ok(Some(image));
        }
        // The sender lives in self, so waiting cannot fail.
        let _ = self.0.preloading.subscribe().wait_for(|busy| !busy).await;
        self.resolve(name)
    }

    /// What an image says about running it.
    pub fn config(&self, id: &str) -> Result<Arc<ImageConfiguration>> {
        let index = self.index();
        let image = index.get(id).ok_or_else(|| Error::NotFound(id.to_owned()))?;
        Ok(image.config.clone())
    }

    /// The directory of all layers.
    pub(crate) fn layers_dir(&self) -> &Path {
        self.0.layers.directory()
    }

    /// The directories of an image's layers, the lowest first.
    pub fn layers(&self, id: &str) -> Result<Vec<PathBuf>> {
        let index = self.index();
        let image = index.get(id).ok_or_else(|| Error::NotFound(id.to_owned()))?;
        Ok(image
            .layers
            .iter()
            .map(|layer| self.0.layers.path(&layer.diff_id))
            .collect())
    }

    /// Keeps an image's layers for a container until [`Self::release`]. It is not kept across restarts:
    /// after [`Self::open`] it is called for each container that lives, and then [`Self::settle`].
    pub fn hold(&self, id: &str, container: &str) -> Result<Arc<Image>> {
        let mut holders = self.0.holders.lock();
        let index = self.index();
        let image = index.get(id).ok_or_else(|| Error::NotFound(id.to_owned()))?;
        holders.insert(container.to_owned(), id.to_owned());
        Ok(image.clone())
    }

    /// Says that a container is gone, and with it the images that `container/…` holds for its volumes.
    pub async fn release(&self, container: &str) -> Result<()> {
        let container = container.to_owned();
        self.change(move |images| {
            let mut holders = images.0.holders.lock();
            let of_it = |holder: &str| {
                holder
                    .strip_prefix(container.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            let ids: Vec<String> = holders
                .extract_if(|holder, _| of_it(holder))
                .map(|(_, id)| id)
                .collect();
            images.forget_removed(&holders, |image| ids.contains(&image.id))
        })
        .await
    }

    /// Says that every container that lives has its image held.
    pub async fn settle(&self) -> Result<()> {
        self.change(|images| {
            let holders = images.0.holders.lock();
            images.forget_removed(&holders, |_| true)
        })
        .await
    }

    /// Removes an image with all its names, and the layers that nothing else needs. While containers
    /// run from it, its layers stay for them.
    pub async fn remove(&self, name: &str) -> Result<()> {
        let name = name.to_owned();
        self.change(move |images| {
            let holders = images.0.holders.lock();
            let image = images.resolve(&name)?.ok_or_else(|| Error::NotFound(name.clone()))?;
            let held = holders.values().any(|id| *id == image.id);
            let mut index = Index::clone(&images.index());
            index.remove(&image.id, held);
            images.replace_index(index)?;
            if held { Ok(()) } else { images.discard(&image) }
        })
        .await
    }

    /// What all layers take on disk.
    fn usage(&self) -> unpack::Usage {
        let index = self.index();
        let mut seen = HashSet::new();
        let mut usage = unpack::Usage::default();
        for layer in index.images.iter().flat_map(|image| &image.layers) {
            if seen.insert(&layer.diff_id) {
                usage.bytes += layer.bytes;
                usage.inodes += layer.inodes;
            }
        }
        usage
    }

    /// Gives an image that is here more names; none when it is not here.
    async fn rename(&self, id: &str, names: &BTreeSet<String>) -> Result<Option<Arc<Image>>> {
        let Some(image) = self.index().get(id).cloned() else {
            return Ok(None);
        };
        if !image.removed && names.is_subset(&image.names) {
            return Ok(Some(image));
        }
        let (id, names) = (id.to_owned(), names.clone());
        self.change(move |images| {
            let _turn = images.0.holders.lock();
            let mut index = Index::clone(&images.index());
            let Some(image) = index.get(&id) else {
                return Ok(None);
            };
            let image = Image {
                names,
                removed: false,
                ..Image::clone(image)
            };
            let image = index.add(image);
            images.replace_index(index)?;
            Ok(Some(image))
        })
        .await
    }

    /// Puts images into the index, all at once, when everything of them is durable.
    async fn commit(&self, new: Vec<NewImage>, preloaded: Option<(String, Preloaded)>) -> Result<Vec<Arc<Image>>> {
        self.change(move |images| {
            images.0.layers.sync()?;
            let _turn = images.0.holders.lock();
            for image in &new {
                let file = config_file(&images.0.store, &image.id);
                write_durably(&file, &image.config_bytes)?;
            }
            let mut index = Index::clone(&images.index());
            let added: Vec<_> = new
                .into_iter()
                .map(|image| {
                    index.add(Image {
                        id: image.id,
                        names: image.names,
                        size: image.size,
                        pinned: image.pinned,
                        removed: false,
                        layers: image.layers,
                        config: Arc::new(image.config),
                    })
                })
                .collect();
            if let Some((archive, state)) = preloaded {
                let images = added.iter().map(|image| image.id.clone()).collect();
                index.preloaded.insert(archive, Preloaded { images, ..state });
            }
            images.replace_index(index)?;
            Ok(added)
        })
        .await
    }

    /// Runs what waits for the disk where waiting is allowed.
    async fn change<T: Send + 'static>(&self, change: impl FnOnce(&Images) -> Result<T> + Send + 'static) -> Result<T> {
        let images = self.clone();
        match tokio::task::spawn_blocking(move || change(&images)).await {
            Ok(result) => result,
            Err(stopped) => match stopped.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(stopped) => Err(Error::io("change", &self.0.store)(std::io::Error::other(stopped))),
            },
        }
    }

    /// Forgets removed images that no container runs from any more.
    fn forget_removed(&self, holders: &HashMap<String, String>, which: impl Fn(&Image) -> bool) -> Result<()> {
        let mut index = Index::clone(&self.index());
        let gone: Vec<_> = index
            .images
            .iter()
            .filter(|image| image.removed && which(image))
            .filter(|image| !holders.values().any(|id| *id == image.id))
            .cloned()
            .collect();
        if gone.is_empty() {
            return Ok(());
        }
        for image in &gone {
            index.remove(&image.id, false);
        }
        self.replace_index(index)?;
        gone.iter().try_for_each(|image| self.discard(image))
    }

    /// Removes what only this image needed, after it left the index.
    fn discard(&self, image: &Image) -> Result<()> {
        let index = self.index();
        let needed = index
            .images
            .iter()
            .flat_map(|image| image.layers.iter().map(|layer| layer.diff_id.clone()))
            .collect();
        let config = config_file(&self.0.store, &image.id);
        fs::remove_file(&config).map_err(Error::io("remove", &config))?;
        self.0.layers.collect(&image.layers, &needed)
    }

    fn replace_index(&self, index: Index) -> Result<()> {
        index.save(&self.0.store.join("images.json"))?;
        *self.0.index.write() = Arc::new(index);
        Ok(())
    }

    fn index(&self) -> Arc<Index> {
        self.0.index.read().clone()
    }

    fn lease(&self, diff_ids: &[Digest]) -> Lease {
        let diff_ids: Vec<_> = diff_ids.iter().map(ToString::to_string).collect();
        self.lease_ids(&diff_ids)
    }

    fn lease_ids(&self, diff_ids: &[String]) -> Lease {
        self.0.layers.lease(diff_ids)
    }

    async fn ensure(&self, diff_id: Digest, blob: Option<Blob>, open: OpenSource) -> Result<Layer, LayerError> {
        self.0.layers.ensure(diff_id, blob, open).await
    }

    fn temporary(&self) -> &Path {
        self.0.layers.temporary()
    }

    fn store_dir(&self) -> &Path {
        &self.0.store
    }

    fn archives_dir(&self) -> &Path {
        &self.0.archives
    }

    fn registries_file(&self) -> &Path {
        &self.0.registries_file
    }

    fn preloading(&self) -> &watch::Sender<bool> {
        &self.0.preloading
    }
}

fn config_file(store: &Path, id: &str) -> PathBuf {
    let hex = id.split_once(':').map_or(id, |(_, hex)| hex);
    store.join("configs").join(format!("{hex}.json"))
}

/// Removes configurations of images that never came into the index.
fn clear_configs(store: &Path, index: &Index) -> Result<()> {
    let known: HashSet<_> = index.images.iter().map(|image| config_file(store, &image.id)).collect();
    let dir = store.join("configs");
    for entry in fs::read_dir(&dir).map_err(Error::io("read", &dir))? {
        let path = entry.map_err(Error::io("read", &dir))?.path();
        if !known.contains(&path) {
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
    }
    Ok(())
}

fn is_id(name: &str) -> bool {
    let hex = name.strip_prefix("sha256:").unwrap_or(name);
    hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The digest that stands for the layers upon each other.
fn chain_id(image: &Image) -> String {
    image.layers.iter().fold(String::new(), |chain, layer| {
        if chain.is_empty() {
            layer.diff_id.clone()
        } else {
            let both = Sha256::digest(format!("{chain} {}", layer.diff_id));
            format!("sha256:{}", hex::encode(both))
        }
    })
}
