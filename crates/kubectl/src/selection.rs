//! Which objects a command means: `TYPE NAME…`, `TYPE/NAME…`, `TYPE,TYPE`, with selectors or files.

use std::collections::HashMap;

use crate::connection::Connection;
use crate::failure::{Failure, Result};
use crate::manifest::{self, Manifest};
use crate::mapping::{Kind, Mapping};

/// A resource and, of it, one object or what a selector finds.
#[derive(Debug, Clone)]
pub struct Target {
    /// The resource.
    pub kind: Kind,
    /// One object; none for all that the selectors find.
    pub name: Option<String>,
    /// The namespace, when it is not the command's.
    pub namespace: Option<String>,
    /// The file it came from.
    pub source: Option<String>,
}

/// Reads the arguments of a command into targets. With `several`, whether more than one resource was
/// asked for in a way that their output must tell them apart.
pub struct Selection {
    /// What was asked for, in order.
    pub targets: Vec<Target>,
    /// Whether the output names the kind of each object.
    pub show_kind: bool,
    /// Whether exactly one object was asked for by name.
    pub single: bool,
}

/// Understands arguments and files.
pub async fn select(
    connection: &Connection,
    mapping: &Mapping,
    arguments: &[String],
    files: &[String],
    recursive: bool,
) -> Result<Selection> {
    if !files.is_empty() {
        if !arguments.is_empty() {
            return Err(Failure::message(
                "when paths, URLs, or stdin is provided as input, you may not specify resource arguments as well",
            ));
        }
        let manifests = manifest::read(files, recursive, false)?;
        let single = manifests.len() == 1;
        let mut targets = Vec::new();
        for manifest in manifests {
            targets.push(target_of(connection, mapping, &manifest).await?);
        }
        let mut kinds: Vec<_> = targets.iter().map(|target| target.kind.group_resource()).collect();
        kinds.dedup();
        return Ok(Selection {
            show_kind: kinds.len() > 1,
            targets,
            single,
        });
    }
    let named: Vec<_> = arguments.iter().filter(|argument| argument.contains('/')).collect();
    if !named.is_empty() {
        if named.len() != arguments.len() {
            return Err(Failure::message(
                "there is no need to specify a resource type as a separate argument when passing arguments in resource/name form (e.g. 'kubectl get resource/<resource_name>' instead of 'kubectl get resource resource/<resource_name>'",
            ));
        }
        return slashed(connection, mapping, &named).await;
    }
    let Some((types, names)) = arguments.split_first() else {
        return Err(Failure::message("Required resource not specified."));
    };
    let mut targets = Vec::new();
    let mut show_kind = types.contains(',');
    for name in types.split(',').filter(|name| !name.is_empty()) {
        match mapping.resource(connection, name).await {
            Ok(kind) => push(&mut targets, kind, names),
            Err(failure) => {
                let all = mapping.category(connection, name).await?;
                if all.is_empty() {
                    return Err(failure);
                }
                show_kind = true;
                for kind in all {
                    push(&mut targets, kind, names);
                }
            }
        }
    }
    if targets.len() > 1 && !names.is_empty() && types.contains(',') && names.len() > 1 {
        return Err(Failure::message("you may only specify a single resource type"));
    }
    Ok(Selection {
        single: targets.len() == 1 && names.len() == 1,
        targets,
        show_kind,
    })
}

fn push(targets: &mut Vec<Target>, kind: Kind, names: &[String]) {
    let target = |name: Option<&String>| Target {
        kind: kind.clone(),
        name: name.cloned(),
        namespace: None,
        source: None,
    };
    if names.is_empty() {
        targets.push(target(None));
    }
    targets.extend(names.iter().map(|name| target(Some(name))));
}

async fn slashed(connection: &Connection, mapping: &Mapping, arguments: &[&String]) -> Result<Selection> {
    let mut targets = Vec::new();
    let mut kinds: HashMap<String, Kind> = HashMap::new();
    for argument in arguments {
        let parts: Vec<_> = argument.split('/').collect();
        let [resource, name] = parts.as_slice() else {
            return Err(Failure::message(
                "arguments in resource/name form may not have more than one slash",
            ));
        };
        if resource.is_empty() || name.is_empty() {
            return Err(Failure::message(
                "arguments in resource/name form must have a single resource and name",
            ));
        }
        if !kinds.contains_key(*resource) {
            kinds.insert((*resource).into(), mapping.resource(connection, resource).await?);
        }
        if let Some(kind) = kinds.get(*resource) {
            targets.push(Target {
                kind: kind.clone(),
                name: Some((*name).into()),
                namespace: None,
                source: None,
            });
        }
    }
    let mut different: Vec<_> = targets.iter().map(|target| target.kind.group_resource()).collect();
    different.sort();
    different.dedup();
    Ok(Selection {
        single: targets.len() == 1,
        show_kind: different.len() > 1,
        targets,
    })
}

/// The resource of an object in a file.
pub async fn kind_of(connection: &Connection, mapping: &Mapping, manifest: &Manifest) -> Result<Kind> {
    let (api_version, kind) = (manifest.api_version(), manifest.kind());
    let found = mapping.of_kind(connection, api_version, kind).await?;
    found.ok_or_else(|| {
        Failure::message(format!(
            "resource mapping not found for name: {:?} namespace: {:?} from {:?}: no matches for kind {kind:?} in version {api_version:?}\nensure CRDs are installed first",
            manifest.name(),
            manifest.namespace().unwrap_or_default(),
            manifest.source,
        ))
    })
}

async fn target_of(connection: &Connection, mapping: &Mapping, manifest: &Manifest) -> Result<Target> {
    Ok(Target {
        kind: kind_of(connection, mapping, manifest).await?,
        name: Some(manifest.name().to_owned()),
        namespace: manifest.namespace().map(str::to_owned),
        source: Some(manifest.source.clone()),
    })
}

/// A query of a path, with what is empty left out.
pub fn query(parameters: &[(&str, String)]) -> String {
    let mut text = String::new();
    for (key, value) in parameters.iter().filter(|(_, value)| !value.is_empty()) {
        text.push(if text.is_empty() { '?' } else { '&' });
        text.push_str(key);
        text.push('=');
        text.push_str(&escape(value));
    }
    text
}

/// A value for a query or a path.
pub fn escape(value: &str) -> String {
    value.bytes().fold(String::new(), |mut text, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(byte.into()),
            other => text.push_str(&format!("%{other:02X}")),
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        assert_eq!(query(&[("a", String::new())]), "");
        assert_eq!(
            query(&[
                ("labelSelector", "a in (b,c)".into()),
                ("x", String::new()),
                ("limit", "5".into())
            ]),
            "?labelSelector=a%20in%20%28b%2Cc%29&limit=5"
        );
    }
}
