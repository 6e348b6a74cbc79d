//! Images made of a few small files, as archives and as what a registry takes.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, Header};

pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub struct Layer {
    pub diff_id: String,
    pub blob: Vec<u8>,
    pub media_type: &'static str,
}

impl Layer {
    pub fn new(files: &[(&str, &[u8])]) -> Self {
        let tar = tar(files);
        Self {
            diff_id: digest(&tar),
            blob: gzip(&tar),
            media_type: "application/vnd.oci.image.layer.v1.tar+gzip",
        }
    }

    pub fn zstd(files: &[(&str, &[u8])]) -> Self {
        let tar = tar(files);
        Self {
            diff_id: digest(&tar),
            blob: zstd::encode_all(&tar[..], 1).unwrap(),
            media_type: "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }

    pub fn plain(files: &[(&str, &[u8])]) -> Self {
        let tar = tar(files);
        Self {
            diff_id: digest(&tar),
            blob: tar,
            media_type: "application/vnd.oci.image.layer.v1.tar",
        }
    }
}

pub struct Image {
    pub layers: Vec<Layer>,
    pub config: Vec<u8>,
    pub manifest: Vec<u8>,
}

impl Image {
    pub fn new(layers: Vec<Layer>) -> Self {
        Self::with(layers, json!({"Cmd": ["/hello"], "Env": ["A=b"], "User": "7:8"}))
    }

    pub fn with(layers: Vec<Layer>, process: Value) -> Self {
        let arch = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let diff_ids: Vec<_> = layers.iter().map(|layer| &layer.diff_id).collect();
        let config = json!({
            "architecture": arch, "os": "linux", "config": process,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = serde_json::to_vec(&config).unwrap();
        let blobs: Vec<_> = layers
            .iter()
            .map(
                |layer| json!({"mediaType": layer.media_type, "digest": digest(&layer.blob), "size": layer.blob.len()}),
            )
            .collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(&config), "size": config.len()},
            "layers": blobs,
        });
        Self {
            layers,
            config,
            manifest: serde_json::to_vec(&manifest).unwrap(),
        }
    }

    pub fn id(&self) -> String {
        digest(&self.config)
    }
}

fn blob_name(bytes: &[u8]) -> String {
    format!("blobs/{}", digest(bytes).replace(':', "/"))
}

/// An OCI layout of several images with their names.
pub fn layout(images: &[(&str, &Image)]) -> Vec<u8> {
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    let mut manifests = Vec::new();
    for (name, image) in images {
        for bytes in image
            .layers
            .iter()
            .map(|layer| &layer.blob)
            .chain([&image.config, &image.manifest])
        {
            files.push((blob_name(bytes), bytes.clone()));
        }
        manifests.push(json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest(&image.manifest), "size": image.manifest.len(),
            "annotations": {"org.opencontainers.image.ref.name": name},
        }));
    }
    files.push(("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
    let index = json!({"schemaVersion": 2, "manifests": manifests});
    files.push(("index.json".into(), serde_json::to_vec(&index).unwrap()));
    let files: Vec<_> = files.iter().map(|(name, bytes)| (name.as_str(), &bytes[..])).collect();
    tar(&files)
}

/// What `docker save` wrote before it wrote layouts.
pub fn docker_archive(images: &[(&str, &Image)]) -> Vec<u8> {
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    let mut list = Vec::new();
    for (tag, image) in images {
        let mut layers = Vec::new();
        for layer in &image.layers {
            let name = format!("{}/layer.tar", &layer.diff_id[7..]);
            files.push((format!("./{name}"), layer.blob.clone()));
            layers.push(name);
        }
        let config = format!("{}.json", &image.id()[7..]);
        files.push((config.clone(), image.config.clone()));
        list.push(json!({"Config": config, "RepoTags": [tag], "Layers": layers}));
    }
    files.push(("manifest.json".into(), serde_json::to_vec(&list).unwrap()));
    let files: Vec<_> = files.iter().map(|(name, bytes)| (name.as_str(), &bytes[..])).collect();
    tar(&files)
}
