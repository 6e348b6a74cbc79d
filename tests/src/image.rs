//! Images that differ from the composed ones: in their configuration, or by a layer on top.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::image;

/// Writes an archive into `dir`: a composed image under another reference and with a changed `config` (`Cmd`, `User`, `Env` …).
///
/// # Panics
/// When the archive cannot be read or written.
pub fn variant(dir: &Path, name: &str, reference: &str, change: impl FnOnce(&mut Value)) -> PathBuf {
    let path = dir.join(format!("{}.tar", reference.replace(['/', ':'], "-")));
    write(&path, name, reference, None, change).unwrap_or_else(|error| panic!("image {reference} of {name}: {error}"));
    path
}

/// Writes an archive into `dir`: a composed image under another reference, with one more layer, which is a tar file.
///
/// # Panics
/// When the archive cannot be read or written.
pub fn layered(dir: &Path, name: &str, reference: &str, layer: Vec<u8>) -> PathBuf {
    let path = dir.join(format!("{}.tar", reference.replace(['/', ':'], "-")));
    write(&path, name, reference, Some(layer), |_| {})
        .unwrap_or_else(|error| panic!("image {reference} of {name}: {error}"));
    path
}

/// Writes an archive at `path`.
fn write(
    path: &Path,
    name: &str,
    reference: &str,
    more: Option<Vec<u8>>,
    change: impl FnOnce(&mut Value),
) -> io::Result<()> {
    let blobs = read(&image(name))?;
    let index: Value = serde_json::from_slice(find(&blobs, "index.json")?)?;
    let mut manifest: Value = serde_json::from_slice(blob(&blobs, &index["manifests"][0])?)?;
    let mut config: Value = serde_json::from_slice(blob(&blobs, &manifest["config"])?)?;
    change(&mut config["config"]);
    if let Some(layer) = &more {
        let like = json!({"mediaType": "application/vnd.oci.image.layer.v1.tar"});
        let layer = descriptor(&like, layer);
        if let Some(ids) = config["rootfs"]["diff_ids"].as_array_mut() {
            ids.push(layer["digest"].clone());
        }
        if let Some(layers) = manifest["layers"].as_array_mut() {
            layers.push(layer);
        }
    }
    let config = serde_json::to_vec(&config)?;
    manifest["config"] = descriptor(&manifest["config"], &config);
    let layers = manifest["layers"].as_array().into_iter().flatten();
    // The one on top is in no archive yet.
    let layers = layers
        .take(manifest["layers"].as_array().map_or(0, Vec::len) - usize::from(more.is_some()))
        .map(|layer| blob(&blobs, layer))
        .collect::<io::Result<Vec<_>>>()?;
    let manifest = serde_json::to_vec(&manifest)?;
    let mut entry = descriptor(&index["manifests"][0], &manifest);
    entry["annotations"] =
        json!({"org.opencontainers.image.ref.name": reference, "io.containerd.image.name": reference});
    let index = serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": [entry]}))?;

    let mut archive = tar::Builder::new(File::create(path)?);
    let mut add = |path: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, bytes)
    };
    add("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    add("index.json", &index)?;
    for bytes in [&manifest, &config].into_iter().chain(layers).chain(&more) {
        add(&format!("blobs/sha256/{}", hex::encode(Sha256::digest(bytes))), bytes)?;
    }
    archive.into_inner()?.sync_all()
}

/// The archive's files with their paths.
fn read(archive: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for entry in tar::Archive::new(fs::File::open(archive)?).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.to_string_lossy().into_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        files.push((path, bytes));
    }
    Ok(files)
}

fn find<'a>(files: &'a [(String, Vec<u8>)], path: &str) -> io::Result<&'a Vec<u8>> {
    let file = files.iter().find(|(name, _)| name == path);
    file.map(|(_, bytes)| bytes)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{path} is not in the archive")))
}

fn blob<'a>(files: &'a [(String, Vec<u8>)], descriptor: &Value) -> io::Result<&'a Vec<u8>> {
    let digest = descriptor["digest"].as_str().unwrap_or_default();
    find(files, &format!("blobs/{}", digest.replace(':', "/")))
}

/// A descriptor as `like`, of other bytes.
fn descriptor(like: &Value, bytes: &[u8]) -> Value {
    let digest = format!("sha256:{}", hex::encode(Sha256::digest(bytes)));
    json!({"mediaType": like["mediaType"], "digest": digest, "size": bytes.len()})
}
