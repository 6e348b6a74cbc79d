//! What images the node has: a value that knows how to change, and its file.
//!
//! The file is replaced whole, so that a reader finds the old list or the new one and never half of one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use oci_spec::image::{Config, ImageConfiguration};
use serde::{Deserialize, Serialize};

use super::error::{Error, Result};
use super::reference::repository_of;

/// The layout of the file; an older number would be migrated, a newer one is refused.
const VERSION: u32 = 1;

/// One image of the node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Image {
    /// `sha256:` and the digest of the configuration.
    pub id: String,
    /// Full names, with a tag or with the digest of a manifest, sorted.
    pub names: BTreeSet<String>,
    /// What the registry would send for it, in bytes.
    pub size: u64,
    /// Imported by hand or with the node: garbage collection leaves it.
    #[serde(default)]
    pub pinned: bool,
    /// Removed while a container still runs from it: nobody sees it, and it goes with the container.
    #[serde(default)]
    pub removed: bool,
    /// The lowest layer first.
    pub layers: Vec<Layer>,
    /// What the image says about running it.
    #[serde(skip)]
    pub config: Arc<ImageConfiguration>,
}

/// One unpacked layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Layer {
    /// Digest of the layer's tar stream.
    pub diff_id: String,
    /// Bytes on disk.
    pub bytes: u64,
    /// Files on disk.
    pub inodes: u64,
}

impl Image {
    /// The names with a tag: `docker.io/library/busybox:latest`.
    pub fn repo_tags(&self) -> impl Iterator<Item = &String> {
        self.names.iter().filter(|name| !name.contains('@'))
    }

    /// The names with a digest: `docker.io/library/busybox@sha256:…`.
    pub fn repo_digests(&self) -> impl Iterator<Item = &String> {
        self.names.iter().filter(|name| name.contains('@'))
    }

    /// The image's wishes for its process, when it has any.
    pub fn process(&self) -> Option<&Config> {
        self.config.config().as_ref()
    }
}

/// Every image of the node, and which archives were imported already.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    pub images: Vec<Arc<Image>>,
    pub preloaded: BTreeMap<String, Preloaded>,
}

/// An archive of the images directory as it was when it was imported, and what it brought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Preloaded {
    pub size: u64,
    pub modified_nanos: i128,
    pub images: Vec<String>,
}

/// The file's form.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document<'a> {
    version: u32,
    images: Vec<std::borrow::Cow<'a, Image>>,
    #[serde(default)]
    preloaded: BTreeMap<String, Preloaded>,
}

impl Index {
    pub fn get(&self, id: &str) -> Option<&Arc<Image>> {
        self.images.iter().find(|image| image.id == id)
    }

    /// Images that exist for the outside.
    pub fn visible(&self) -> impl Iterator<Item = &Arc<Image>> {
        self.images.iter().filter(|image| !image.removed)
    }

    /// The image with this full name.
    pub fn named(&self, name: &str) -> Option<&Arc<Image>> {
        self.visible().find(|image| image.names.contains(name))
    }

    /// The image with this id: `sha256:` and hex, the hex alone, or a beginning of it that no other has.
    pub fn with_id(&self, id: &str) -> Option<&Arc<Image>> {
        let hex = id.strip_prefix("sha256:").unwrap_or(id);
        if hex.is_empty() || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut found = self
            .visible()
            .filter(|image| image.id["sha256:".len()..].starts_with(hex));
        match (found.next(), found.next()) {
            (Some(image), None) => Some(image),
            _ => None,
        }
    }

    /// Adds an image, or gives an image more names. A name belongs to one image: it leaves any other.
    pub fn add(&mut self, mut image: Image) -> Arc<Image> {
        for other in &mut self.images {
            if other.id != image.id && !other.names.is_disjoint(&image.names) {
                Arc::make_mut(other).names.retain(|name| !image.names.contains(name));
            }
        }
        if let Some(at) = self.images.iter().position(|other| other.id == image.id) {
            let old = self.images.swap_remove(at);
            image.names.extend(old.names.iter().cloned());
            image.pinned |= old.pinned;
        }
        let image = Arc::new(image);
        self.images.push(image.clone());
        image
    }

    /// Takes an image away; while a container uses it, only from sight.
    pub fn remove(&mut self, id: &str, in_use: bool) {
        if in_use {
            if let Some(image) = self.images.iter_mut().find(|image| image.id == id) {
                let image = Arc::make_mut(image);
                image.removed = true;
                image.pinned = false;
                image.names.clear();
            }
        } else {
            self.images.retain(|image| image.id != id);
        }
    }

    pub fn load(file: &Path, config_file: impl Fn(&str) -> std::path::PathBuf) -> Result<Self> {
        let bytes = match fs::read(file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => return Err(Error::io("read", file)(error)),
        };
        let corrupt = |path: &Path, reason: String| Error::Corrupt {
            path: path.to_owned(),
            reason,
        };
        let document: Document<'_> =
            serde_json::from_slice(&bytes).map_err(|error| corrupt(file, error.to_string()))?;
        if document.version != VERSION {
            return Err(corrupt(
                file,
                format!("layout version {}, this podium knows {VERSION}", document.version),
            ));
        }
        let mut images = Vec::with_capacity(document.images.len());
        for image in document.images {
            let mut image = image.into_owned();
            let path = config_file(&image.id);
            let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
            let config = serde_json::from_slice(&bytes).map_err(|error| corrupt(&path, error.to_string()))?;
            image.config = Arc::new(config);
            images.push(Arc::new(image));
        }
        Ok(Self {
            images,
            preloaded: document.preloaded,
        })
    }

    pub fn save(&self, file: &Path) -> Result<()> {
        let document = Document {
            version: VERSION,
            images: self
                .images
                .iter()
                .map(|image| std::borrow::Cow::Borrowed(&**image))
                .collect(),
            preloaded: self.preloaded.clone(),
        };
        let bytes = serde_json::to_vec_pretty(&document).map_err(|error| Error::Corrupt {
            path: file.to_owned(),
            reason: error.to_string(),
        })?;
        write_durably(file, &bytes)
    }
}

/// Replaces a file in one step that survives a loss of power.
pub(super) fn write_durably(file: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = file.with_file_name(name);
    File::create(&fresh)
        .and_then(|mut out| out.write_all(bytes).and_then(|()| out.sync_all()))
        .map_err(Error::io("write", &fresh))?;
    fs::rename(&fresh, file).map_err(Error::io("replace", file))?;
    let dir = file.parent().unwrap_or(Path::new("/"));
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(Error::io("sync", dir))
}

/// What the kubelet prints as the image of a container: a name with a digest if there is one, of the
/// repository asked for when it has several.
pub fn image_ref<'a>(image: &'a Image, asked: &str) -> &'a str {
    let repository = repository_of(asked);
    image
        .repo_digests()
        .find(|name| repository.is_some() && repository_of(name) == repository)
        .or_else(|| image.repo_digests().next())
        .unwrap_or(&image.id)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test fails by panicking
mod tests {
    use super::*;

    fn image(id: &str, names: &[&str]) -> Image {
        Image {
            id: format!("sha256:{}", id.repeat(64)),
            names: names.iter().map(ToString::to_string).collect(),
            size: 1,
            pinned: false,
            removed: false,
            layers: Vec::new(),
            config: Arc::default(),
        }
    }

    fn names(index: &Index) -> Vec<Vec<&str>> {
        index
            .images
            .iter()
            .map(|image| image.names.iter().map(String::as_str).collect())
            .collect()
    }

    #[test]
    fn a_name_belongs_to_one_image() {
        let mut index = Index::default();
        index.add(image("a", &["r/x:1", "r/x@sha256:1"]));
        index.add(image("b", &["r/x:1", "r/x@sha256:2"]));
        assert_eq!(names(&index), [vec!["r/x@sha256:1"], vec!["r/x:1", "r/x@sha256:2"]]);
        index.add(image("a", &["r/y:1"]));
        assert_eq!(
            names(&index),
            [vec!["r/x:1", "r/x@sha256:2"], vec!["r/x@sha256:1", "r/y:1"]]
        );
    }

    #[test]
    fn found_by_id() {
        let mut index = Index::default();
        index.add(image("a", &["r/x:1"]));
        index.add(image("b", &[]));
        for (id, found) in [
            ("sha256:aa", Some("a")),
            ("aaa", Some("a")),
            ("b", Some("b")),
            ("", None),
            ("c", None),
            ("x", None),
            ("sha256:", None),
        ] {
            assert_eq!(index.with_id(id).map(|image| &image.id[7..8]), found, "{id}");
        }
        index.add(image("ab", &[]));
        assert_eq!(index.with_id("a"), None, "two begin so");
    }

    #[test]
    fn survives_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("images.json");
        let config = dir.path().join("config.json");
        fs::write(
            &config,
            r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#,
        )
        .unwrap();
        let load = || Index::load(&file, |_| config.clone());
        assert!(load().unwrap().images.is_empty());
        let mut index = Index::default();
        index.add(image("a", &["r/x:1"]));
        index.save(&file).unwrap();
        assert_eq!(names(&load().unwrap()), [["r/x:1"]]);
        fs::write(&file, r#"{"version":2,"images":[]}"#).unwrap();
        assert!(
            load()
                .unwrap_err()
                .to_string()
                .ends_with("layout version 2, this podium knows 1")
        );
    }
}
