//! Bringing an image in from a registry: resolve, choose the platform, fetch what is missing, commit.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Arc;

use cri::v1::AuthConfig;
use futures::future::try_join_all;
use oci_client::Reference;
use oci_client::secrets::RegistryAuth;
use oci_spec::image::{Arch, Descriptor, Digest, ImageConfiguration, ImageIndex, ImageManifest, MediaType, Os};

use super::error::{Error, Incomplete, Result};
use super::index::Image;
use super::layers::{Blob, LayerError};
use super::reference::normalize;
use super::registries::Registries;
use super::registry::{Manifest, Registry, RegistryError, is_index};
use super::stream::matches;
use super::{Images, NewImage};

/// Manifests and configurations are read into memory; more than this is not one.
pub(super) const MAX_DOCUMENT_BYTES: u64 = 8 << 20;

impl Images {
    /// Fetches an image, or finds that everything of it is here. Pulls of images that share layers
    /// share the work.
    pub async fn pull(&self, name: &str, auth: Option<&AuthConfig>) -> Result<Arc<Image>> {
        let reference = normalize(name)?;
        self.fetch(&reference, auth).await.map_err(|source| Error::Pull {
            reference: reference.to_string(),
            source: Box::new(source),
        })
    }

    async fn fetch(&self, reference: &Reference, auth: Option<&AuthConfig>) -> Result<Arc<Image>, Incomplete> {
        let unresolved = |source| Incomplete::Resolve {
            reference: reference.to_string(),
            source,
        };
        let auth =
            credentials(auth, reference.registry()).map_err(|reason| unresolved(RegistryError::Answer(reason)))?;
        let endpoints = Registries::load(self.registries_file())
            .map_err(|reason| unresolved(RegistryError::Answer(reason)))?
            .endpoints(reference.registry(), &auth);
        let (registry, top) = Registry::find(reference, endpoints).await.map_err(unresolved)?;

        let names = names(reference, &top.digest);
        let manifest = platform_manifest(&registry, top).await?;
        let id = manifest.config().digest().to_string();
        if let Some(image) = self.rename(&id, &names).await? {
            return Ok(image);
        }

        let config_bytes = document(&registry, manifest.config()).await?;
        let config: ImageConfiguration = serde_json::from_slice(&config_bytes)
            .map_err(|error| Incomplete::Malformed(format!("image config {id}: {error}")))?;
        let diff_ids = diff_ids(&config, manifest.layers().len())?;

        let lease = self.lease(&diff_ids);
        let layers = try_join_all(diff_ids.iter().zip(manifest.layers()).map(|(diff_id, blob)| {
            let (registry, blob) = (registry.clone(), blob.clone());
            let announced = Blob {
                digest: blob.digest().clone(),
                size: blob.size(),
            };
            let open = Box::new(move || -> futures::future::BoxFuture<'static, _> {
                Box::pin(async move {
                    registry.blob(&blob).await.map_err(|error| LayerError::Copy {
                        digest: blob.digest().to_string(),
                        reason: error.to_string(),
                    })
                })
            });
            self.ensure(diff_id.clone(), Some(announced), open)
        }))
        .await?;

        let size = manifest.layers().iter().map(Descriptor::size).sum::<u64>() + manifest.config().size();
        let new = NewImage {
            id,
            names,
            size,
            layers,
            config_bytes,
            config,
            pinned: false,
        };
        let images = self.commit(vec![new], None).await?;
        drop(lease);
        images
            .into_iter()
            .next()
            .ok_or_else(|| Incomplete::Malformed("the image was not kept".into()))
    }
}

/// The name asked for, and the name by digest that says for ever what was meant.
fn names(reference: &Reference, digest: &str) -> BTreeSet<String> {
    let by_digest = format!("{}/{}@{digest}", reference.registry(), reference.repository());
    let mut names = BTreeSet::from([by_digest]);
    if reference.tag().is_some() {
        names.insert(reference.to_string());
    }
    names
}

async fn platform_manifest(registry: &Registry, mut top: Manifest) -> Result<ImageManifest, Incomplete> {
    // An index may list indexes; more than a few levels is a registry that plays games.
    for _ in 0..4 {
        let (media_type, parsed) = parse_manifest(&top.bytes)?;
        let index = match parsed {
            Parsed::Manifest(manifest) => return Ok(*manifest),
            Parsed::Index(index) => *index,
            Parsed::Neither => {
                return Err(Incomplete::Malformed(format!(
                    "unsupported manifest media type {:?}",
                    media_type.unwrap_or_default()
                )));
            }
        };
        let chosen = choose(index.manifests()).ok_or(Incomplete::Platform)?;
        top = registry
            .manifest(Some(chosen.digest().as_ref()))
            .await
            .map_err(Incomplete::Fetch)?;
    }
    Err(Incomplete::Malformed("indexes nested too deep".into()))
}

pub(super) enum Parsed {
    Manifest(Box<ImageManifest>),
    Index(Box<ImageIndex>),
    Neither,
}

/// A manifest or an index, by its media type or, without one, by what it holds.
pub(super) fn parse_manifest(bytes: &[u8]) -> Result<(Option<String>, Parsed), Incomplete> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Probe {
        media_type: Option<MediaType>,
        manifests: Option<serde::de::IgnoredAny>,
        layers: Option<serde::de::IgnoredAny>,
        config: Option<serde::de::IgnoredAny>,
    }
    let malformed = |error: serde_json::Error| Incomplete::Malformed(format!("manifest: {error}"));
    let probe: Probe = serde_json::from_slice(bytes).map_err(malformed)?;
    let parsed = if is_index(probe.media_type.as_ref()) || (probe.media_type.is_none() && probe.manifests.is_some()) {
        Parsed::Index(serde_json::from_slice(bytes).map_err(malformed)?)
    } else if probe.layers.is_some() && probe.config.is_some() {
        Parsed::Manifest(serde_json::from_slice(bytes).map_err(malformed)?)
    } else {
        Parsed::Neither
    };
    Ok((probe.media_type.map(|media_type| media_type.to_string()), parsed))
}

/// The manifest for this machine: of its architecture, else one that names no platform.
pub(super) fn choose(manifests: &[Descriptor]) -> Option<&Descriptor> {
    let here = Arch::default();
    manifests
        .iter()
        .find(|manifest| {
            manifest
                .platform()
                .as_ref()
                .is_some_and(|platform| *platform.os() == Os::Linux && *platform.architecture() == here)
        })
        .or_else(|| manifests.iter().find(|manifest| manifest.platform().is_none()))
}

/// The diff ids of an image's layers, as many as the manifest has layers.
pub(super) fn diff_ids(config: &ImageConfiguration, layers: usize) -> Result<Vec<Digest>, Incomplete> {
    let diff_ids = config.rootfs().diff_ids();
    if diff_ids.len() != layers {
        return Err(Incomplete::Malformed(format!(
            "mismatched image rootfs and manifest layers: {} diff ids, {layers} layers",
            diff_ids.len()
        )));
    }
    diff_ids
        .iter()
        .map(|diff_id| {
            diff_id
                .parse()
                .map_err(|error| Incomplete::Malformed(format!("diff id {diff_id:?}: {error}")))
        })
        .collect()
}

/// A small blob, whole and checked.
async fn document(registry: &Registry, blob: &Descriptor) -> Result<Vec<u8>, Incomplete> {
    if blob.size() > MAX_DOCUMENT_BYTES {
        return Err(Incomplete::Malformed(format!(
            "image config {}: {} bytes, at most {MAX_DOCUMENT_BYTES} are allowed",
            blob.digest(),
            blob.size()
        )));
    }
    let source = registry.blob(blob).await.map_err(Incomplete::Fetch)?;
    let (digest, size) = (blob.digest().clone(), blob.size());
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        // One byte more, so that a longer one shows.
        source.take(size + 1).read_to_end(&mut bytes).map(|_| bytes)
    });
    let bytes = match read.await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) => {
            return Err(Incomplete::Fetch(RegistryError::Answer(error.to_string())));
        }
        Err(stopped) => return Err(Incomplete::Malformed(stopped.to_string())),
    };
    if bytes.len() as u64 != size || !matches(&bytes, &digest) {
        return Err(Incomplete::Malformed(format!(
            "failed commit on ref \"config-{digest}\": unexpected content, expected digest {digest}: failed precondition"
        )));
    }
    Ok(bytes)
}

/// The credentials of a request, if they are for this registry.
fn credentials(auth: Option<&AuthConfig>, registry: &str) -> Result<RegistryAuth, String> {
    use base64::Engine;
    let Some(auth) = auth else {
        return Ok(RegistryAuth::Anonymous);
    };
    if !auth.server_address.is_empty() {
        let address = auth
            .server_address
            .trim_start_matches("https://")
            .trim_start_matches("http://");
        let host = address.split('/').next().unwrap_or_default();
        let host = match host {
            "index.docker.io" | "registry-1.docker.io" => "docker.io",
            host => host,
        };
        if host != registry {
            return Ok(RegistryAuth::Anonymous);
        }
    }
    if !auth.registry_token.is_empty() {
        return Ok(RegistryAuth::Bearer(auth.registry_token.clone()));
    }
    if !auth.username.is_empty() {
        return Ok(RegistryAuth::Basic(auth.username.clone(), auth.password.clone()));
    }
    if !auth.identity_token.is_empty() {
        return Err("identity tokens are not supported: use a user name and a password".into());
    }
    if auth.auth.is_empty() {
        return Ok(RegistryAuth::Anonymous);
    }
    let decoded = base64::engine::general_purpose::STANDARD
        .decode(auth.auth.trim())
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    match decoded.as_deref().and_then(|text| text.split_once(':')) {
        Some((username, password)) => Ok(RegistryAuth::Basic(
            username.to_owned(),
            password.trim_end_matches('\0').to_owned(),
        )),
        None => Err("the credentials' auth must be user:password in base64".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_credentials() {
        let auth = |server: &str| AuthConfig {
            username: "ada".into(),
            password: "secret".into(),
            server_address: server.into(),
            ..Default::default()
        };
        let ada = RegistryAuth::Basic("ada".into(), "secret".into());
        let none = RegistryAuth::Anonymous;
        for (auth, registry, expected) in [
            (None, "r.io", Ok(none.clone())),
            (Some(auth("")), "r.io", Ok(ada.clone())),
            (Some(auth("https://r.io/v2/")), "r.io", Ok(ada.clone())),
            (Some(auth("other.io")), "r.io", Ok(none.clone())),
            (Some(auth("https://index.docker.io/v1/")), "docker.io", Ok(ada.clone())),
            (
                Some(AuthConfig {
                    auth: "YWRhOnNlY3JldA==".into(),
                    ..Default::default()
                }),
                "r.io",
                Ok(ada),
            ),
            (
                Some(AuthConfig {
                    auth: "??".into(),
                    ..Default::default()
                }),
                "r.io",
                Err("the credentials' auth must be user:password in base64".to_owned()),
            ),
            (Some(AuthConfig::default()), "r.io", Ok(none)),
        ] {
            assert_eq!(credentials(auth.as_ref(), registry), expected);
        }
    }
}
