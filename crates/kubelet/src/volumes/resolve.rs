//! From a volume of the spec to what it is to be, data included.

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, DownwardAPIVolumeFile, KeyToPath, Pod, ProjectedVolumeSource, SecretVolumeSource, Volume,
};

use super::{File, Source};
use crate::field::{self, Addresses, Capacity};
use crate::objects::{Data, Kind, Objects};

/// What volumes can refer to.
pub struct Context<'a> {
    /// ConfigMaps and Secrets of the pod's namespace.
    pub objects: Objects<'a>,
    /// The pod's addresses and its node's.
    pub addresses: Addresses,
    /// What the node can give.
    pub capacity: Capacity,
}

const DEFAULT_MODE: i32 = 0o644;

/// The directory of its kind, and the source; the error says why there is none.
pub async fn resolve(pod: &Pod, volume: &Volume, context: &mut Context<'_>) -> Result<(&'static str, Source), String> {
    if let Some(empty) = &volume.empty_dir {
        let size = empty
            .size_limit
            .as_ref()
            .and_then(|limit| api::quantity::Quantity::of(limit).ok())
            .map(|limit| limit.value());
        return match empty.medium.as_deref().unwrap_or_default() {
            "" => Ok(("empty-dir", Source::Directory)),
            "Memory" => Ok((
                "empty-dir",
                Source::Memory {
                    size: size.filter(|size| *size > 0).or(Some(context.capacity.memory)),
                },
            )),
            medium => Err(format!("emptyDir.medium {medium:?} is not served by this build")),
        };
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
        let files = config_map(map, &mut context.objects).await?;
        return Ok((
            "configmap",
            Source::Files {
                files,
                in_memory: false,
            },
        ));
    }
    if let Some(secret) = &volume.secret {
        let files = self::secret(secret, &mut context.objects).await?;
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
    Err(format!("volumes of type {} are not served by this build", kind(volume)))
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

async fn config_map(source: &ConfigMapVolumeSource, objects: &mut Objects<'_>) -> Result<Vec<File>, String> {
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

async fn secret(source: &SecretVolumeSource, objects: &mut Objects<'_>) -> Result<Vec<File>, String> {
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
        })
    };
    items.iter().map(file).collect()
}

async fn projected(pod: &Pod, source: &ProjectedVolumeSource, context: &mut Context<'_>) -> Result<Vec<File>, String> {
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
        let volume = serde_json::from_value(json!({"name": "v", "nfs": {"server": "s", "path": "/"}})).unwrap();
        assert_eq!(kind(&volume), "nfs");
    }
}
