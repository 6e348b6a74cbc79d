//! What of a container's mounts is mounted beforehand, by the shim: when the container's own users may not, its root and everything of the
//! node's; when mounts are to travel differently in its volumes, these. In the specification each becomes a bind of what stands ready in the
//! bundle then.

use std::path::{Path, PathBuf};

use cri::v1::MountPropagation;
use oci_spec::runtime::Mount;

use super::mounts::{bind, rebound, widest};
use super::{PodUsers, Request, SpecError};
use crate::shim::protocol::{Spread, Stage, Staged, Staging};

/// Where the bundle has the node's layers as the pod's users may see them.
pub(crate) const LAYERS: &str = "layers";
const MOUNTS: &str = "mounts";

pub(super) fn stage(
    mounts: Vec<Mount>,
    request: &Request<'_>,
    pod: &PodUsers,
) -> Result<(Vec<Mount>, Staging), SpecError> {
    let bundle = request.bundle();
    let mut staging = Staging {
        layers: Some((pod.layers.clone(), LAYERS.into())),
        mounts: Vec::new(),
    };
    let mut left = Vec::new();
    for (index, mount) in mounts.into_iter().enumerate() {
        let wish = request
            .config
            .mounts
            .iter()
            .find(|wish| Path::new(&wish.container_path) == mount.destination());
        let is_root = mount.destination() == Path::new("/");
        let target = match is_root {
            true => PathBuf::from("rootfs"),
            false => Path::new(MOUNTS).join(index.to_string()),
        };
        let source = mount.source().clone().unwrap_or_default();
        let what = match mount.typ().as_deref() {
            Some("overlay") => Stage::Overlay {
                options: mount.options().clone().unwrap_or_default(),
            },
            // The kernel's own are mounted by the container itself.
            Some("bind") if wish.is_some() || !source.starts_with("/sys/fs/cgroup") => Stage::Tree {
                // What the runtime makes for the pod is its users' from the start.
                mapped: wish.is_some_and(|wish| wish.image.is_some() || !wish.uid_mappings.is_empty()),
                source,
                spread: None,
            },
            _ => {
                left.push(mount);
                continue;
            }
        };
        if !is_root {
            let source = bundle.join(&target);
            left.push(match &what {
                Stage::Overlay { .. } => bind(&source, mount.destination(), &["rbind"])?,
                Stage::Tree { .. } => rebound(&mount, &source)?,
            });
        }
        staging.mounts.push(Staged { what, target });
    }
    Ok((left, staging))
}

/// Where the container's volumes differ in how mounts travel between them and the node, each is made as it wants beforehand: libcontainer
/// has one answer for all of a container's mounts.
pub(super) fn spread(mounts: Vec<Mount>, request: &Request<'_>) -> Result<(Vec<Mount>, Option<Staging>), SpecError> {
    let (bundle, widest) = (request.bundle(), widest(request.config));
    let wishes = &request.config.mounts;
    if wishes.iter().all(|wish| wish.propagation() == widest) {
        return Ok((mounts, None));
    }
    let mut staging = Staging::default();
    let mut left = Vec::new();
    for (index, mount) in mounts.into_iter().enumerate() {
        let wish = wishes
            .iter()
            .find(|wish| Path::new(&wish.container_path) == mount.destination() && wish.image.is_none());
        let Some(wish) = wish else {
            left.push(mount);
            continue;
        };
        let target = Path::new(MOUNTS).join(index.to_string());
        left.push(rebound(&mount, &bundle.join(&target))?);
        let what = Stage::Tree {
            source: mount.source().clone().unwrap_or_default(),
            mapped: false,
            spread: match wish.propagation() {
                MountPropagation::PropagationPrivate => Some(Spread::Private),
                MountPropagation::PropagationHostToContainer => Some(Spread::Slave),
                MountPropagation::PropagationBidirectional => None,
            },
        };
        staging.mounts.push(Staged { what, target });
    }
    Ok((left, Some(staging)))
}
