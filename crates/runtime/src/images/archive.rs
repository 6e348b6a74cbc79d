//! Bringing images in from an archive: an OCI image layout or what `docker save` writes, plain or
//! compressed with gzip or zstd, with as many images as it likes.
//!
//! Everything the archive says is read and checked first; then the layers are unpacked; then all images
//! enter the index at once. An archive that is broken anywhere leaves nothing behind.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use futures::future::try_join_all;
use oci_spec::image::{Descriptor, Digest, ImageConfiguration, ImageIndex, Os};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tar::{Archive, EntryType};

use super::error::{Error, Incomplete, Result};
use super::index::{Image, Preloaded};
use super::layers::{Blob, LayerError, Source};
use super::pull::{MAX_DOCUMENT_BYTES, Parsed, choose, diff_ids, parse_manifest};
use super::reference::normalize;
use super::stream::{decompressed, matches};
use super::{Images, NewImage};

/// The name of an image in a layout's index, as containerd and Docker write it.
const FULL_NAME: &str = "io.containerd.image.name";
/// The same in the specification's words; some tools write only a tag here.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

impl Images {
    /// Imports every image of an archive and pins it.
    pub async fn import(&self, archive: &Path) -> Result<Vec<Arc<Image>>> {
        self.import_as(archive, None).await
    }

    pub(super) async fn import_as(
        &self,
        archive: &Path,
        preloaded: Option<(String, Preloaded)>,
    ) -> Result<Vec<Arc<Image>>> {
        self.bring_in(archive, preloaded).await.map_err(|source| Error::Import {
            archive: archive.to_owned(),
            source: Box::new(source),
        })
    }

    async fn bring_in(
        &self,
        archive: &Path,
        preloaded: Option<(String, Preloaded)>,
    ) -> Result<Vec<Arc<Image>>, Incomplete> {
        let (path, temporary) = (archive.to_owned(), self.temporary().to_owned());
        let read = tokio::task::spawn_blocking(move || -> Result<_, Incomplete> {
            let contents = Contents::read(&path, &temporary)?;
            let planned = contents.plan()?;
            Ok((contents, planned))
        });
        let (contents, planned) = read
            .await
            .map_err(|stopped| Incomplete::Malformed(stopped.to_string()))??;

        let wanted: Vec<String> = planned
            .iter()
            .flat_map(|image| image.layers.iter().map(|layer| layer.diff_id.to_string()))
            .collect();
        let lease = self.lease_ids(&wanted);
        let contents = Arc::new(contents);
        let unpacked = try_join_all(planned.iter().map(|image| {
            try_join_all(image.layers.iter().map(|layer| {
                let (contents, entry) = (contents.clone(), layer.entry.clone());
                let digest = layer.diff_id.to_string();
                let open = Box::new(move || -> futures::future::BoxFuture<'static, _> {
                    Box::pin(async move {
                        contents.source(&entry).map_err(|reason| LayerError::Copy {
                            digest,
                            reason: reason.to_string(),
                        })
                    })
                });
                self.ensure(layer.diff_id.clone(), layer.blob.clone(), open)
            }))
        }))
        .await?;

        let images = planned.into_iter().zip(unpacked);
        let images = images.map(|(image, layers)| NewImage {
            id: image.id,
            names: image.names,
            size: image.size,
            layers,
            config_bytes: image.config_bytes,
            config: image.config,
            pinned: true,
        });
        let images = self.commit(images.collect(), preloaded).await?;
        drop(lease);
        Ok(images)
    }
}

/// An image of the archive, before its layers are unpacked.
struct Planned {
    id: String,
    names: BTreeSet<String>,
    size: u64,
    config_bytes: Vec<u8>,
    config: ImageConfiguration,
    layers: Vec<PlannedLayer>,
}

struct PlannedLayer {
    diff_id: Digest,
    /// None when the archive does not say: then the diff id alone is checked.
    blob: Option<Blob>,
    entry: String,
}

/// Where the archive has what.
struct Contents {
    file: Arc<File>,
    entries: HashMap<String, Place>,
}

enum Place {
    Bytes {
        at: u64,
        size: u64,
    },
    /// Old archives have a layer that two images share once, and a link.
    Link(String),
}

/// An entry of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

fn malformed(what: impl Into<String>) -> Incomplete {
    Incomplete::Malformed(what.into())
}

fn unreadable(error: io::Error) -> Incomplete {
    malformed(format!("read the archive: {error}"))
}

impl Contents {
    /// Lists the archive. A compressed one is written out plain first, because images lie in it in any
    /// order and layers are read side by side.
    fn read(path: &Path, temporary: &Path) -> Result<Self, Incomplete> {
        let mut file = File::open(path).map_err(|error| malformed(error.to_string()))?;
        let mut start = [0; 4];
        let known = file.read(&mut start).map_err(unreadable)?;
        file.rewind().map_err(unreadable)?;
        let start = &start[..known];
        if start.starts_with(&[0x1f, 0x8b]) || start == [0x28, 0xb5, 0x2f, 0xfd] {
            let mut plain = tempfile::tempfile_in(temporary).map_err(unreadable)?;
            let mut source = decompressed(file).map_err(unreadable)?;
            io::copy(&mut source, &mut plain).map_err(unreadable)?;
            plain.rewind().map_err(unreadable)?;
            file = plain;
        }
        let length = file.metadata().map_err(unreadable)?.len();
        let mut entries = HashMap::new();
        let mut archive = Archive::new(file.try_clone().map_err(unreadable)?);
        for entry in archive.entries_with_seek().map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let name = clean(&String::from_utf8_lossy(&entry.path_bytes()));
            match entry.header().entry_type() {
                EntryType::Regular | EntryType::Continuous => {
                    let (at, size) = (entry.raw_file_position(), entry.size());
                    if at.checked_add(size).is_none_or(|end| end > length) {
                        return Err(malformed(format!("the archive breaks off in {name}")));
                    }
                    entries.insert(name, Place::Bytes { at, size });
                }
                kind @ (EntryType::Symlink | EntryType::Link) => {
                    let target = entry.link_name_bytes().unwrap_or_default();
                    let target = String::from_utf8_lossy(&target);
                    let dir = match name.rsplit_once('/') {
                        Some((dir, _)) if kind == EntryType::Symlink => dir,
                        _ => "",
                    };
                    let target = clean(&format!("{dir}/{target}"));
                    entries.insert(name, Place::Link(target));
                }
                _ => {}
            }
        }
        Ok(Self {
            file: Arc::new(file),
            entries,
        })
    }

    fn place(&self, name: &str) -> Result<(u64, u64), Incomplete> {
        let mut at = name;
        for _ in 0..8 {
            match self.entries.get(at) {
                Some(Place::Bytes { at, size }) => return Ok((*at, *size)),
                Some(Place::Link(target)) => at = target,
                None => break,
            }
        }
        Err(malformed(format!("the archive has no {name}")))
    }

    fn source(&self, name: &str) -> Result<Source, Incomplete> {
        let (at, size) = self.place(name)?;
        Ok(Box::new(FileRange {
            file: self.file.clone(),
            at,
            end: at + size,
        }))
    }

    fn document(&self, name: &str) -> Result<Vec<u8>, Incomplete> {
        let (at, size) = self.place(name)?;
        if size > MAX_DOCUMENT_BYTES {
            return Err(malformed(format!(
                "{name}: {size} bytes, at most {MAX_DOCUMENT_BYTES} are allowed"
            )));
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
        self.file.read_exact_at(&mut bytes, at).map_err(unreadable)?;
        Ok(bytes)
    }

    /// A document that is named by its digest.
    fn blob(&self, digest: &Digest) -> Result<Vec<u8>, Incomplete> {
        let bytes = self.document(&blob_entry(digest))?;
        if matches(&bytes, digest) {
            Ok(bytes)
        } else {
            Err(malformed(format!(
                "{}: the content has another digest",
                blob_entry(digest)
            )))
        }
    }

    fn plan(&self) -> Result<Vec<Planned>, Incomplete> {
        let docker: Vec<DockerImage> = if self.entries.contains_key("manifest.json") {
            serde_json::from_slice(&self.document("manifest.json")?)
                .map_err(|error| malformed(format!("manifest.json: {error}")))?
        } else {
            Vec::new()
        };
        let images = if self.entries.contains_key("index.json") {
            self.plan_layout(&docker)?
        } else if self.entries.contains_key("manifest.json") {
            docker
                .iter()
                .map(|image| self.plan_docker(image))
                .collect::<Result<_, _>>()?
        } else {
            return Err(malformed(
                "neither an OCI image layout (index.json) nor a docker archive (manifest.json)",
            ));
        };
        if images.is_empty() {
            return Err(malformed("the archive has no image"));
        }
        Ok(images)
    }

    /// The images of an OCI layout. Docker adds its own list with the tags.
    fn plan_layout(&self, docker: &[DockerImage]) -> Result<Vec<Planned>, Incomplete> {
        let index: ImageIndex = serde_json::from_slice(&self.document("index.json")?)
            .map_err(|error| malformed(format!("index.json: {error}")))?;
        let mut images: BTreeMap<String, Planned> = BTreeMap::new();
        for descriptor in index.manifests() {
            let unknown = Os::Other("unknown".into());
            if descriptor
                .platform()
                .as_ref()
                .is_some_and(|platform| *platform.os() == unknown)
            {
                continue; // an attestation about an image
            }
            let mut image = self.plan_manifest(descriptor)?;
            for tag in docker
                .iter()
                .filter(|other| other.config == blob_entry_of(&image.id))
                .flat_map(|other| other.repo_tags.iter().flatten())
            {
                add_names(&mut image.names, tag, Some(descriptor.digest()))?;
            }
            if let Some(name) = annotated_name(descriptor) {
                add_names(&mut image.names, name, Some(descriptor.digest()))?;
            }
            match images.get_mut(&image.id) {
                Some(same) => same.names.append(&mut image.names),
                None => {
                    images.insert(image.id.clone(), image);
                }
            }
        }
        Ok(images.into_values().collect())
    }

    fn plan_manifest(&self, descriptor: &Descriptor) -> Result<Planned, Incomplete> {
        let mut bytes = self.blob(descriptor.digest())?;
        for _ in 0..4 {
            let index = match parse_manifest(&bytes)?.1 {
                Parsed::Manifest(manifest) => {
                    let id = manifest.config().digest();
                    let (config, config_bytes) = parse_config(self.blob(id)?, id.as_ref())?;
                    let layers = diff_ids(&config, manifest.layers().len())?
                        .into_iter()
                        .zip(manifest.layers())
                        .map(|(diff_id, blob)| {
                            let entry = blob_entry(blob.digest());
                            self.place(&entry)?;
                            let blob = Some(Blob {
                                digest: blob.digest().clone(),
                                size: blob.size(),
                            });
                            Ok(PlannedLayer { diff_id, blob, entry })
                        })
                        .collect::<Result<_, Incomplete>>()?;
                    let size = manifest.layers().iter().map(Descriptor::size).sum::<u64>();
                    return Ok(Planned {
                        id: id.to_string(),
                        names: BTreeSet::new(),
                        size: size + config_bytes.len() as u64,
                        config_bytes,
                        config,
                        layers,
                    });
                }
                Parsed::Index(index) => *index,
                Parsed::Neither => {
                    return Err(malformed(format!(
                        "{}: not the manifest of an image",
                        blob_entry(descriptor.digest())
                    )));
                }
            };
            let chosen = choose(index.manifests()).ok_or(Incomplete::Platform)?;
            bytes = self.blob(chosen.digest())?;
        }
        Err(malformed("indexes nested too deep"))
    }

    fn plan_docker(&self, image: &DockerImage) -> Result<Planned, Incomplete> {
        let config_bytes = self.document(&image.config)?;
        let id = format!("sha256:{}", hex::encode(Sha256::digest(&config_bytes)));
        let (config, config_bytes) = parse_config(config_bytes, &image.config)?;
        let entries = image.layers.as_deref().unwrap_or_default();
        let mut size = config_bytes.len() as u64;
        let mut layers = Vec::new();
        for (diff_id, entry) in diff_ids(&config, entries.len())?.into_iter().zip(entries) {
            let entry = clean(entry);
            size += self.place(&entry)?.1;
            layers.push(PlannedLayer {
                diff_id,
                blob: None,
                entry,
            });
        }
        let mut names = BTreeSet::new();
        for tag in image.repo_tags.iter().flatten() {
            add_names(&mut names, tag, None)?;
        }
        Ok(Planned {
            id,
            names,
            size,
            config_bytes,
            config,
            layers,
        })
    }
}

fn parse_config(bytes: Vec<u8>, name: &str) -> Result<(ImageConfiguration, Vec<u8>), Incomplete> {
    let config = serde_json::from_slice(&bytes).map_err(|error| malformed(format!("image config {name}: {error}")))?;
    Ok((config, bytes))
}

/// The full name of a tag and, when the manifest is known, the name by its digest.
fn add_names(names: &mut BTreeSet<String>, tag: &str, manifest: Option<&Digest>) -> Result<(), Incomplete> {
    let reference = normalize(tag).map_err(|error| malformed(error.to_string()))?;
    names.insert(reference.to_string());
    if let Some(digest) = manifest {
        names.insert(format!("{}/{}@{digest}", reference.registry(), reference.repository()));
    }
    Ok(())
}

fn annotated_name(descriptor: &Descriptor) -> Option<&String> {
    let annotations = descriptor.annotations().as_ref()?;
    annotations
        .get(FULL_NAME)
        .or_else(|| annotations.get(REF_NAME).filter(|name| name.contains(['/', ':', '@'])))
}

fn blob_entry(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.digest())
}

fn blob_entry_of(id: &str) -> String {
    format!("blobs/{}", id.replacen(':', "/", 1))
}

/// A name in the archive without `.`, `..` and doubled `/`. Nothing is opened by it.
fn clean(name: &str) -> String {
    let mut components = Vec::new();
    for component in name.split('/') {
        match component {
            "" | "." => {}
            ".." => {
                components.pop();
            }
            component => components.push(component),
        }
    }
    components.join("/")
}

/// A part of a file, read without moving the file's own position, so that many read side by side.
struct FileRange {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for FileRange {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let most = buffer.len().min(left);
        let count = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}
