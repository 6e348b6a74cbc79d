//! A container's root: links to the image's layers beside directories of its own, for overlayfs to put together.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use crate::spec::{Accounts, LAYERS, PodUsers};

/// Prepares a bundle's directory; the answer is the layers' names in it, the uppermost first, as overlayfs wants them.
/// `layers` has the lowest first, as an image has them.
pub(crate) fn prepare(
    bundle: &Path,
    writable: &Path,
    layers: &[PathBuf],
    pod: Option<&PodUsers>,
) -> io::Result<Vec<String>> {
    fs::create_dir_all(bundle.join("rootfs"))?;
    for name in ["upper", "work"] {
        let dir = writable.join(name);
        fs::create_dir_all(&dir)?;
        symlink(&dir, bundle.join(name))?;
    }
    // The root directory that a container sees is the uppermost one.
    if let Some(top) = layers.last() {
        let metadata = fs::metadata(top)?;
        let upper = writable.join("upper");
        give(&upper, (metadata.uid(), metadata.gid()), pod)?;
        fs::set_permissions(&upper, fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
    }
    link(bundle, "", layers, pod)
}

/// Gives what is in a container's own layer to a user and a group of the image: that layer is kept with the node's numbers.
pub(crate) fn give(path: &Path, (uid, gid): (u32, u32), pod: Option<&PodUsers>) -> io::Result<()> {
    let (uid, gid) = outer((uid, gid), pod);
    std::os::unix::fs::chown(path, Some(uid), Some(gid))
}

/// The node's numbers for a user and a group of the image.
pub(crate) fn outer((uid, gid): (u32, u32), pod: Option<&PodUsers>) -> (u32, u32) {
    match pod {
        Some(pod) => (
            pod.users.outer_uid(uid).unwrap_or(pod.users.uid),
            pod.users.outer_gid(gid).unwrap_or(pod.users.gid),
        ),
        None => (uid, gid),
    }
}

/// Links in the bundle to layers, whose lowest comes first; the answer is their names, the uppermost first. A pod with
/// users of its own sees layers where the bundle has them for these users.
pub(crate) fn link(bundle: &Path, prefix: &str, layers: &[PathBuf], pod: Option<&PodUsers>) -> io::Result<Vec<String>> {
    let mut names = Vec::with_capacity(layers.len());
    for (index, layer) in layers.iter().rev().enumerate() {
        let name = format!("{prefix}{}", short(index));
        let own = pod.and_then(|pod| layer.strip_prefix(&pod.layers).ok());
        let target = own.map_or_else(|| layer.clone(), |layer| Path::new(LAYERS).join(layer));
        symlink(target, bundle.join(&name))?;
        names.push(name);
    }
    Ok(names)
}

/// What a path leads to in a stack of layers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// A directory, as the layers have it, the lowest first.
    Directory(Vec<PathBuf>),
    /// A file.
    File(PathBuf),
}

/// A part of an image; none when there is no such path. No link is followed: an image's author would choose where it leads.
pub(crate) fn part(layers: &[PathBuf], path: &Path) -> Option<Part> {
    if !path.components().all(|part| matches!(part, Component::Normal(_))) {
        return None;
    }
    let mut found = Vec::new();
    'layers: for layer in layers.iter().rev() {
        let mut here = layer.clone();
        let mut hides = false;
        for part in path.components() {
            here.push(part);
            let Ok(metadata) = fs::symlink_metadata(&here) else {
                match hides {
                    true => break 'layers,
                    false => continue 'layers,
                }
            };
            if !metadata.is_dir() {
                if here == layer.join(path) && metadata.is_file() && found.is_empty() {
                    return Some(Part::File(here));
                }
                break 'layers;
            }
            hides |= opaque(&here);
        }
        found.push(here);
        if hides {
            break;
        }
    }
    found.reverse();
    (!found.is_empty()).then_some(Part::Directory(found))
}

/// A number in as few characters as a file's name allows without care for letters' case.
fn short(mut number: usize) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut digits = Vec::new();
    loop {
        digits.push(DIGITS[number % DIGITS.len()]);
        number /= DIGITS.len();
        if number == 0 {
            break;
        }
    }
    digits.reverse();
    digits.into_iter().map(char::from).collect()
}

/// The account files as the container will see them.
pub(crate) fn accounts(layers: &[PathBuf]) -> Accounts {
    let read = |path: &str| {
        find(layers, Path::new(path), 0)
            .and_then(|path| fs::read_to_string(path).ok())
            .unwrap_or_default()
    };
    Accounts {
        passwd: read("etc/passwd"),
        group: read("etc/group"),
    }
}

/// So many links are followed for one path.
const MAX_LINKS: usize = 16;

/// The file that a path leads to in the stack of layers, links followed within it.
fn find(layers: &[PathBuf], path: &Path, links: usize) -> Option<PathBuf> {
    if links > MAX_LINKS {
        return None;
    }
    let mut walked = PathBuf::new();
    let mut parts = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    while let Some(part) = parts.next() {
        if part == ".." {
            walked.pop();
            continue;
        }
        walked.push(&part);
        let (layer, kind) = lookup(layers, &walked)?;
        let here = layer.join(&walked);
        if kind.is_symlink() {
            let target = fs::read_link(&here).ok()?;
            walked.pop();
            // An absolute target replaces the whole path, as it does in the container.
            let rest: PathBuf = parts.collect();
            return find(layers, &walked.join(target).join(rest), links + 1);
        }
        if kind.is_file() {
            return parts.next().is_none().then_some(here);
        }
    }
    None
}

/// Where a directory's path leads, links followed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// As far as there are directories, free of links.
    pub there: PathBuf,
    /// What is missing behind that.
    pub missing: PathBuf,
}

/// Where the path of a directory leads in the stack of layers; none if something in its way is no directory.
pub(crate) fn place(layers: &[PathBuf], path: &Path) -> Option<Place> {
    let mut links = 0;
    let mut there = PathBuf::new();
    let mut rest: Vec<OsString> = backwards(path)?;
    while let Some(part) = rest.pop() {
        let next = there.join(&part);
        match lookup(layers, &next) {
            None => {
                rest.push(part);
                break;
            }
            Some((_, kind)) if kind.is_dir() => there = next,
            Some((layer, kind)) if kind.is_symlink() && links < MAX_LINKS => {
                links += 1;
                let target = fs::read_link(layer.join(&next)).ok()?;
                if target.is_absolute() {
                    there = PathBuf::new();
                }
                rest.extend(backwards(&target)?);
            }
            Some(_) => return None,
        }
    }
    rest.reverse();
    Some(Place {
        there,
        missing: rest.into_iter().collect(),
    })
}

/// The names in a path, the last one first; none if it leads upwards.
fn backwards(path: &Path) -> Option<Vec<OsString>> {
    let mut names = Vec::new();
    for part in path.components().rev() {
        match part {
            Component::Normal(name) => names.push(name.to_owned()),
            Component::ParentDir => return None,
            _ => {}
        }
    }
    Some(names)
}

/// A directory as the uppermost layer has it that has one there.
pub(crate) fn directory(layers: &[PathBuf], path: &Path) -> Option<PathBuf> {
    let (layer, kind) = lookup(layers, path)?;
    kind.is_dir().then(|| layer.join(path))
}

/// The uppermost layer that has a path, unless a layer above it has hidden it.
fn lookup<'a>(layers: &'a [PathBuf], path: &Path) -> Option<(&'a PathBuf, fs::FileType)> {
    for layer in layers.iter().rev() {
        let mut hidden = false;
        let mut prefix = layer.clone();
        for part in path.components() {
            prefix.push(part);
            let Ok(metadata) = fs::symlink_metadata(&prefix) else {
                break;
            };
            let kind = metadata.file_type();
            if kind.is_char_device() && metadata.rdev() == 0 {
                return None;
            }
            if prefix.strip_prefix(layer) == Ok(path) {
                return Some((layer, kind));
            }
            hidden |= !kind.is_dir() || opaque(&prefix);
        }
        if hidden {
            return None;
        }
    }
    None
}

/// Whether a layer's directory hides what is below it.
pub(crate) fn opaque(dir: &Path) -> bool {
    xattr::get(dir, "trusted.overlay.opaque").is_ok_and(|value| value.as_deref() == Some(b"y"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed call fails the test

    use super::*;

    #[test]
    fn names_stay_short() {
        let names = [(0, "0"), (10, "a"), (35, "z"), (36, "10"), (499, "dv")];
        for (number, name) in names {
            assert_eq!(short(number), name);
        }
    }

    #[test]
    fn parts_of_images_are_found_without_links() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for path in ["low/data/sub", "high/data", "high/other"] {
            fs::create_dir_all(at(path)).unwrap();
        }
        fs::write(at("low/data/file"), "").unwrap();
        symlink("/etc", at("high/out")).unwrap();
        let layers = [at("low"), at("high")];
        let found = |path: &str| part(&layers, Path::new(path));
        assert_eq!(
            found("data"),
            Some(Part::Directory(vec![at("low/data"), at("high/data")]))
        );
        assert_eq!(found("data/sub"), Some(Part::Directory(vec![at("low/data/sub")])));
        assert_eq!(found("data/file"), Some(Part::File(at("low/data/file"))));
        assert_eq!(found(""), Some(Part::Directory(layers.to_vec())));
        for path in ["none", "out", "out/passwd", "data/../../x", "/data"] {
            assert_eq!(found(path), None, "{path}");
        }
    }

    #[test]
    fn account_files_are_found_as_the_container_would() {
        let dir = tempfile::tempdir().unwrap();
        let layer = |name: &str| dir.path().join(name);
        let file = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        file("low/etc/passwd", "low");
        file("low/etc/group", "group");
        file("high/etc/passwd", "high");
        let layers = [layer("low"), layer("high")];
        let found = accounts(&layers);
        assert_eq!((found.passwd.as_str(), found.group.as_str()), ("high", "group"));

        // A link leads through the stack, and an absolute one starts at the container's root.
        file("low/usr/share/accounts", "linked");
        fs::create_dir_all(layer("links/etc")).unwrap();
        symlink("/usr/share/accounts", layer("links/etc/passwd")).unwrap();
        symlink("../../../usr/share/accounts", layer("links/etc/group")).unwrap();
        let found = accounts(&[layer("low"), layer("links")]);
        assert_eq!((found.passwd.as_str(), found.group.as_str()), ("linked", "linked"));
        symlink("loop", layer("links/loop")).unwrap();
        assert!(find(&[layer("links")], Path::new("loop"), 0).is_none());
        assert_eq!(accounts(&[]).passwd, "");
    }
}
