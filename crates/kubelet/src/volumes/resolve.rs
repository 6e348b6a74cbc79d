//! From a volume of the spec to what it is to be, data included.

use std::collections::BTreeMap;

use api::quantity::Quantity;
use client::Client;
use k8s_openapi::api::core::v1::{
    CephFSVolumeSource, ConfigMapVolumeSource, DownwardAPIVolumeFile, EmptyDirVolumeSource, KeyToPath, Pod,
    ProjectedVolumeSource, SecretVolumeSource, Volume,
};

use super::ceph::{Ceph, Key};
use super::nfs::Nfs;
use super::{File, Resolved, Source, claim};
use crate::cri_config::{resources, security};
use crate::field::{self, Addresses, Capacity};
use crate::objects::{Data, Kind, Objects};
use crate::pods::pod::PodExt;
use crate::tokens::Tokens;

/// What volumes can refer to.
pub struct Context<'a> {
    /// The way to the API.
    pub client: &'a Client,
    /// ConfigMaps and Secrets of the pod's namespace.
    pub objects: &'a Objects,
    /// Tokens of the pod's ServiceAccount.
    pub tokens: &'a Tokens,
    /// The pod's addresses and its node's.
    pub addresses: Addresses,
    /// What the node can give.
    pub capacity: Capacity,
}

const DEFAULT_MODE: i32 = 0o644;

/// What a volume is; the error says why it is nothing.
pub async fn resolve(pod: &Pod, volume: &Volume, context: &Context<'_>) -> Result<Resolved, String> {
    let claim = match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(claim), _) => Some((claim.claim_name.clone(), false, claim.read_only.unwrap_or(false))),
        (None, Some(_)) => Some((format!("{}-{}", pod.name(), volume.name), true, false)),
        (None, None) => None,
    };
    if let Some((name, made_for_it, read_only)) = claim {
        let found = claim::find(pod, &volume.name, &name, made_for_it, context).await?;
        return Ok(Resolved {
            name: found.volume,
            plugin: found.plugin,
            source: found.source,
            read_only,
        });
    }
    let (plugin, source) = plain(pod, volume, context).await?;
    Ok(Resolved {
        name: volume.name.clone(),
        plugin,
        source,
        read_only: false,
    })
}

/// The name of its kind in paths, and the source, of a volume that is what it says.
async fn plain(pod: &Pod, volume: &Volume, context: &Context<'_>) -> Result<(&'static str, Source), String> {
    if let Some(empty) = &volume.empty_dir {
        return empty_dir(pod, empty, context.capacity).map(|source| ("empty-dir", source));
    }
    if let Some(host) = &volume.host_path {
        let kind = host.type_.clone().unwrap_or_default();
        return Ok((
            "host-path",
            Source::Host {
                path: host.path.clone().into(),
                kind,
            },
        ));
    }
    if let Some(map) = &volume.config_map {
        let files = config_map(map, context.objects).await?;
        return Ok((
            "configmap",
            Source::Files {
                files,
                in_memory: false,
            },
        ));
    }
    if let Some(secret) = &volume.secret {
        let files = self::secret(secret, context.objects).await?;
        return Ok(("secret", Source::Files { files, in_memory: true }));
    }
    if let Some(downward) = &volume.downward_api {
        let mode = downward.default_mode.unwrap_or(DEFAULT_MODE);
        let files = downward_api(pod, downward.items.as_deref().unwrap_or_default(), mode, context)?;
        return Ok(("downward-api", Source::Files { files, in_memory: true }));
    }
    if let Some(all) = &volume.projected {
        let files = projected(pod, all, context).await?;
        return Ok(("projected", Source::Files { files, in_memory: true }));
    }
    if let Some(source) = &volume.cephfs {
        return ceph(source, context.objects)
            .await
            .map(|ceph| ("cephfs", Source::Ceph(ceph)));
    }
    if let Some(source) = &volume.nfs {
        return Ok(("nfs", Source::Nfs(Nfs::of(source.clone(), Vec::new()))));
    }
    Err(format!("volumes of type {} are not served by this build", kind(volume)))
}

fn empty_dir(pod: &Pod, source: &EmptyDirVolumeSource, capacity: Capacity) -> Result<Source, String> {
    match source.medium.as_deref().unwrap_or_default() {
        "" => Ok(Source::Directory),
        "Memory" => {
            // No more than the volume, the pod and the node may have.
            let own = source.size_limit.as_ref().and_then(|limit| Quantity::of(limit).ok());
            let limits = [own.map(|limit| limit.value()), Some(resources::pod(pod).memory)];
            let size = limits.into_iter().flatten().filter(|limit| *limit > 0).min();
            Ok(Source::Memory {
                size: size.map_or(capacity.memory, |size| size.min(capacity.memory)),
            })
        }
        medium => {
            let asked = medium
                .strip_prefix("HugePages")
                .ok_or_else(|| format!("unknown storage medium {medium:?}"))?;
            let page = match asked.strip_prefix('-') {
                Some(size) => size.to_owned(),
                None => only_page_size(pod)?,
            };
            let page = page
                .parse::<Quantity>()
                .map_err(|error| format!("huge page size {page:?}: {error}"))?;
            Ok(Source::HugePages { page: page.value() })
        }
    }
}

/// The size of the huge pages that the pod's containers ask for, which has to be one.
fn only_page_size(pod: &Pod) -> Result<String, String> {
    let asked = pod
        .containers()
        .filter_map(|(_, container)| container.resources.as_ref()?.requests.as_ref());
    let sizes: std::collections::BTreeSet<&str> = asked
        .flat_map(|requests| requests.keys())
        .filter_map(|name| name.strip_prefix("hugepages-"))
        .collect();
    let mut sizes = sizes.into_iter();
    match (sizes.next(), sizes.next()) {
        (Some(size), None) => Ok(size.to_owned()),
        (None, _) => Err("no huge page resource requested for medium \"HugePages\"".into()),
        (Some(_), Some(_)) => {
            Err("medium \"HugePages\" can only be used if container requests exactly one huge page size".into())
        }
    }
}

async fn ceph(source: &CephFSVolumeSource, objects: &Objects) -> Result<Ceph, String> {
    let secret = source.secret_ref.as_ref().filter(|secret| !secret.name.is_empty());
    let key = match secret {
        Some(secret) => Some(own_ceph_key(&secret.name, objects).await?),
        None => None,
    };
    Ok(ceph_with(source, key))
}

/// A Ceph user's key, of a Secret in the pod's namespace.
pub(super) async fn own_ceph_key(secret: &str, objects: &Objects) -> Result<Key, String> {
    let data = objects.get(Kind::Secret, secret, false).await?.unwrap_or_default();
    ceph_key(secret, &data)
}

/// A Ceph user's key in the data of a Secret, which may have it under any name.
pub(super) fn ceph_key<V: AsRef<[u8]>>(secret: &str, data: &BTreeMap<String, V>) -> Result<Key, String> {
    let key = data.get("key").or_else(|| data.values().next());
    let key = key.ok_or_else(|| format!("secret {secret:?} has no data"))?;
    Ok(Key::Text(String::from_utf8_lossy(key.as_ref()).trim().to_owned()))
}

/// The file system with the key of a Secret, or else that of the node's file.
pub(super) fn ceph_with(source: &CephFSVolumeSource, key: Option<Key>) -> Ceph {
    let text = |field: &Option<String>, default: &str| match field.as_deref() {
        None | Some("") => default.to_owned(),
        Some(text) => text.to_owned(),
    };
    let user = text(&source.user, "admin");
    let file = || Key::File(text(&source.secret_file, &format!("/etc/ceph/{user}.secret")).into());
    Ceph {
        key: key.unwrap_or_else(file),
        monitors: source.monitors.clone(),
        path: text(&source.path, "/"),
        user,
        read_only: source.read_only.unwrap_or(false),
    }
}

/// The field of a volume that is set.
fn kind(volume: &Volume) -> String {
    let value = serde_json::to_value(volume).unwrap_or_default();
    let fields = value.as_object().into_iter().flat_map(|fields| fields.keys());
    fields
        .into_iter()
        .find(|field| *field != "name")
        .cloned()
        .unwrap_or_else(|| "emptyDir".into())
}

async fn config_map(source: &ConfigMapVolumeSource, objects: &Objects) -> Result<Vec<File>, String> {
    let optional = source.optional.unwrap_or(false);
    let data = objects.get(Kind::ConfigMap, &source.name, optional).await?;
    pick(
        data.as_deref(),
        source.items.as_deref(),
        source.default_mode.unwrap_or(DEFAULT_MODE),
        optional,
        "config",
    )
}

async fn secret(source: &SecretVolumeSource, objects: &Objects) -> Result<Vec<File>, String> {
    let optional = source.optional.unwrap_or(false);
    let data = objects
        .get(
            Kind::Secret,
            source.secret_name.as_deref().unwrap_or_default(),
            optional,
        )
        .await?;
    pick(
        data.as_deref(),
        source.items.as_deref(),
        source.default_mode.unwrap_or(DEFAULT_MODE),
        optional,
        "secret",
    )
}

fn pick(
    data: Option<&Data>,
    items: Option<&[KeyToPath]>,
    mode: i32,
    optional: bool,
    what: &str,
) -> Result<Vec<File>, String> {
    let Some(data) = data else { return Ok(Vec::new()) };
    let file = |path: &str, data: &[u8], mode: i32| File {
        path: path.to_owned(),
        data: data.to_vec(),
        mode: mode as u32 & 0o777,
        owner: None,
    };
    match items {
        None | Some([]) => Ok(data.iter().map(|(key, value)| file(key, value, mode)).collect()),
        Some(items) => {
            let mut files = Vec::with_capacity(items.len());
            for item in items {
                match data.get(&item.key) {
                    Some(value) => files.push(file(&item.path, value, item.mode.unwrap_or(mode))),
                    None if optional => {}
                    None => return Err(format!("references non-existent {what} key: {}", item.key)),
                }
            }
            Ok(files)
        }
    }
}

fn downward_api(
    pod: &Pod,
    items: &[DownwardAPIVolumeFile],
    mode: i32,
    context: &Context<'_>,
) -> Result<Vec<File>, String> {
    let text = |item: &DownwardAPIVolumeFile| match (&item.field_ref, &item.resource_field_ref) {
        (Some(field), _) => field::pod_field(pod, &context.addresses, &field.field_path),
        (None, Some(resource)) => field::resource_field(pod, "", resource, context.capacity),
        (None, None) => Ok(String::new()),
    };
    let file = |item: &DownwardAPIVolumeFile| {
        Ok(File {
            path: item.path.clone(),
            data: text(item)?.into_bytes(),
            mode: item.mode.unwrap_or(mode) as u32 & 0o777,
            owner: None,
        })
    };
    items.iter().map(file).collect()
}

async fn projected(pod: &Pod, source: &ProjectedVolumeSource, context: &Context<'_>) -> Result<Vec<File>, String> {
    let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
    let mut files = Vec::new();
    for part in source.sources.iter().flatten() {
        if let Some(map) = &part.config_map {
            let optional = map.optional.unwrap_or(false);
            let data = context.objects.get(Kind::ConfigMap, &map.name, optional).await?;
            files.extend(pick(data.as_deref(), map.items.as_deref(), mode, optional, "config")?);
        } else if let Some(secret) = &part.secret {
            let optional = secret.optional.unwrap_or(false);
            let data = context.objects.get(Kind::Secret, &secret.name, optional).await?;
            files.extend(pick(
                data.as_deref(),
                secret.items.as_deref(),
                mode,
                optional,
                "secret",
            )?);
        } else if let Some(downward) = &part.downward_api {
            files.extend(downward_api(
                pod,
                downward.items.as_deref().unwrap_or_default(),
                mode,
                context,
            )?);
        } else if let Some(token) = &part.service_account_token {
            let owner = only_user(pod);
            let grouped = pod
                .spec()
                .and_then(|spec| spec.security_context.as_ref()?.fs_group)
                .is_some();
            let private = owner.is_some() || grouped;
            files.push(File {
                path: token.path.clone(),
                data: context.tokens.get(pod, token).await?.into_bytes(),
                mode: if private { 0o600 } else { mode as u32 & 0o777 },
                owner,
            });
        } else {
            let value = serde_json::to_value(part).unwrap_or_default();
            let field = value
                .as_object()
                .and_then(|fields| fields.keys().next().cloned())
                .unwrap_or_default();
            return Err(format!(
                "projected sources of type {field} are not served by this build"
            ));
        }
    }
    Ok(files)
}

/// The user that all containers run as, if the pod says so of each: whose a token's file is.
fn only_user(pod: &Pod) -> Option<u32> {
    let mut users = pod
        .containers()
        .map(|(_, container)| security::run_as_user(pod, container));
    let first = users.next()??;
    users
        .all(|user| user == Some(first))
        .then(|| u32::try_from(first).ok())?
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_picked_and_missed() {
        let data = Data::from([("a".to_owned(), b"1".to_vec()), ("b".to_owned(), b"2".to_vec())]);
        let names = |files: Vec<File>| {
            files
                .into_iter()
                .map(|file| format!("{} {:o}", file.path, file.mode))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            names(pick(Some(&data), None, 0o644, false, "config").unwrap()),
            ["a 644", "b 644"]
        );
        let items: Vec<KeyToPath> =
            serde_json::from_value(json!([{"key": "b", "path": "x/y", "mode": 0o400}, {"key": "c", "path": "z"}]))
                .unwrap();
        assert_eq!(
            pick(Some(&data), Some(&items), 0o644, false, "secret").unwrap_err(),
            "references non-existent secret key: c"
        );
        assert_eq!(
            names(pick(Some(&data), Some(&items), 0o644, true, "secret").unwrap()),
            ["x/y 400"]
        );
        assert!(pick(None, Some(&items), 0o644, true, "config").unwrap().is_empty());
    }

    #[test]
    fn a_volume_is_known_by_its_field() {
        let volume = serde_json::from_value(json!({"name": "v", "rbd": {"monitors": ["m"], "image": "i"}})).unwrap();
        assert_eq!(kind(&volume), "rbd");
    }
}
