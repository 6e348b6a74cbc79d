//! Image volumes: an image's files at a path of a container, read-only, straight from the layers.

use std::io;
use std::path::Path;

use cri::v1::ContainerConfig;
use cri::{Error, Result};

use crate::images::Images;
use crate::rootfs::{self, Part};
use crate::runtime::Inner;
use crate::spec::{ImageVolume, PodUsers};

/// Under what name a container holds the image of one of its mounts.
fn holder(container: &str, index: usize) -> String {
    format!("{container}/{index}")
}

/// What a container from an earlier run holds, with the images' ids.
pub(crate) fn holders(container: &str, config: &ContainerConfig, images: &Images) -> Vec<(String, String)> {
    let asked = config
        .mounts
        .iter()
        .filter_map(|mount| mount.image.as_ref())
        .enumerate();
    asked
        .filter_map(|(index, image)| Some((holder(container, index), images.resolve(&image.image).ok()??.id.clone())))
        .collect()
}

impl Inner {
    /// The parts of images that a container mounts; their layers stay for as long as it does.
    pub(super) async fn hold_image_volumes(&self, container: &str, config: &ContainerConfig) -> Result<Vec<Part>> {
        let mut parts = Vec::new();
        for mount in &config.mounts {
            let Some(image) = &mount.image else { continue };
            let found = self.images.resolve_soon(&image.image).await?;
            let found = found
                .ok_or_else(|| Error::not_found(format!("failed to resolve image {:?}: not found", image.image)))?;
            self.images.hold(&found.id, &holder(container, parts.len()))?;
            let layers = self.images.layers(&found.id)?;
            let part = rootfs::part(&layers, Path::new(&mount.image_sub_path));
            parts.push(part.ok_or_else(|| {
                Error::not_found(format!(
                    "failed to find path {:?} in image {:?} to mount it at {:?}",
                    mount.image_sub_path, image.user_specified_image, mount.container_path
                ))
            })?);
        }
        Ok(parts)
    }
}

/// Names the parts in the bundle.
pub(super) fn link(bundle: &Path, parts: &[Part], pod: Option<&PodUsers>) -> io::Result<Vec<ImageVolume>> {
    let name = |(index, part): (usize, &Part)| match part {
        Part::File(path) => Ok(ImageVolume::Path(path.clone())),
        Part::Directory(layers) => match layers.as_slice() {
            [only] => Ok(ImageVolume::Path(only.clone())),
            layers => rootfs::link(bundle, &format!("v{index}-"), layers, pod).map(ImageVolume::Layers),
        },
    };
    parts.iter().enumerate().map(name).collect()
}
