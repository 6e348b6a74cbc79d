//! Static pods from the files of a directory, as the files come, change and go.
//!
//! A file counts when whoever writes it has closed it, or when it is renamed into the directory whole. A file that can no longer be read
//! as pods is named, and the pods that it had go on: it may be in the midst of being edited.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use nix::sys::inotify::{AddWatchFlags, InotifyEvent};
use tracing::warn;

use super::manifest::{Origin, parse};
use crate::inotify::Watch;

/// Before looking again at a directory that cannot be watched.
const PAUSE: Duration = Duration::from_secs(20);

/// What a path holds.
#[derive(Default)]
pub struct Files {
    pods: BTreeMap<PathBuf, Vec<Pod>>,
}

/// A file that is not what it should be.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which.
    pub file: PathBuf,
    /// Why.
    pub error: String,
}

impl Files {
    /// All pods, those of the first file first.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values().flatten()
    }

    /// Looks at one file again.
    fn look(&mut self, file: &Path, node: &str) -> Result<(), Broken> {
        if !file.is_file() {
            self.pods.remove(file);
            return Ok(());
        }
        let broken = |error| Broken {
            file: file.to_owned(),
            error,
        };
        let text = std::fs::read(file).map_err(|error| broken(error.to_string()))?;
        let pods = parse(&text, Origin::File(&file.to_string_lossy()), node).map_err(broken)?;
        self.pods.insert(file.to_owned(), pods);
        Ok(())
    }

    /// Looks at all of it again.
    fn look_at_all(&mut self, path: &Path, node: &str) -> Vec<Broken> {
        let mut files = Vec::new();
        if path.is_dir() {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
            files.extend(
                entries
                    .filter(|entry| !is_hidden(&entry.file_name()))
                    .map(|entry| entry.path()),
            );
        } else if path.is_file() {
            files.push(path.to_owned());
        }
        files.sort();
        self.pods.retain(|file, _| files.contains(file));
        files.iter().filter_map(|file| self.look(file, node).err()).collect()
    }
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

/// What an event asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asks {
    Nothing,
    Look(PathBuf),
    LookAtAll,
}

/// `directory` is what is watched; `path` is it, a file in it, or what is to come below it.
fn asks(event: &InotifyEvent, directory: &Path, path: &Path) -> Asks {
    let Some(name) = &event.name else {
        return Asks::LookAtAll;
    };
    let file = directory.join(name);
    if directory != path {
        return if path.starts_with(&file) {
            Asks::LookAtAll
        } else {
            Asks::Nothing
        };
    }
    if event.mask.contains(AddWatchFlags::IN_CREATE) && !file.is_symlink() {
        let whole = std::fs::metadata(&file).is_ok_and(|it| std::os::unix::fs::MetadataExt::nlink(&it) > 1);
        // What is being written will be closed.
        return if whole && !is_hidden(name) {
            Asks::Look(file)
        } else {
            Asks::Nothing
        };
    }
    match is_hidden(name) {
        // A link that others may lead through, as in a mounted ConfigMap.
        true if file.is_symlink() => Asks::LookAtAll,
        true => Asks::Nothing,
        false => Asks::Look(file),
    }
}

/// Watches the path, or the nearest directory above it that is there.
fn watch(path: &Path) -> std::io::Result<(Watch, PathBuf)> {
    let directory = path.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    let events = AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_MOVE_SELF;
    Ok((Watch::new(directory, events)?, directory.to_owned()))
}

/// Tells what the path holds, first as it is and then after every change, with what is wrong.
pub async fn follow(path: &Path, node: &str, mut tell: impl FnMut(&Files, Vec<Broken>)) {
    let mut files = Files::default();
    loop {
        // Before the look, so that no change is missed.
        let watch = watch(path);
        let broken = files.look_at_all(path, node);
        tell(&files, broken);
        match watch {
            Ok((watch, directory)) => changes(&watch, &directory, path, node, &mut files, &mut tell).await,
            Err(error) => {
                warn!(path = %path.display(), %error, "the manifests cannot be watched");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Returns when all must be looked at again.
async fn changes(
    watch: &Watch,
    directory: &Path,
    path: &Path,
    node: &str,
    files: &mut Files,
    tell: &mut impl FnMut(&Files, Vec<Broken>),
) {
    loop {
        let Ok(events) = watch.events().await else { return };
        let mut looked = Vec::new();
        for event in &events {
            match asks(event, directory, path) {
                Asks::Nothing => {}
                Asks::LookAtAll => return,
                Asks::Look(file) if looked.contains(&file) => {}
                Asks::Look(file) => looked.push(file),
            }
        }
        if !looked.is_empty() {
            let broken = looked.iter().filter_map(|file| files.look(file, node).err()).collect();
            tell(files, broken);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use tokio::sync::mpsc;

    use super::*;
    use crate::pods::pod::PodExt;

    fn manifest(name: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: c, image: i}}]}}\n"
        )
    }

    fn names(files: &Files) -> Vec<String> {
        files.pods().map(|pod| pod.name().to_owned()).collect()
    }

    #[test]
    fn hidden_and_broken_files_stop_nobody() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.yaml"), manifest("a")).unwrap();
        fs::write(dir.path().join(".b.yaml"), manifest("b")).unwrap();
        fs::write(dir.path().join("c.yaml"), "spec: [").unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        let mut files = Files::default();
        let broken = files.look_at_all(dir.path(), "n");
        assert_eq!(names(&files), ["a-n"]);
        assert_eq!(broken.len(), 1);
        assert_eq!(broken[0].file, dir.path().join("c.yaml"));
        // What was whole and is broken goes on; what is gone goes.
        fs::write(dir.path().join("a.yaml"), "spec: [").unwrap();
        assert_eq!(files.look_at_all(dir.path(), "n").len(), 2);
        assert_eq!(names(&files), ["a-n"]);
        fs::remove_file(dir.path().join("a.yaml")).unwrap();
        files.look_at_all(dir.path(), "n");
        assert!(names(&files).is_empty());
        // A path may be a file.
        fs::write(dir.path().join("c.yaml"), manifest("c")).unwrap();
        files.look_at_all(&dir.path().join("c.yaml"), "n");
        assert_eq!(names(&files), ["c-n"]);
    }

    #[tokio::test]
    async fn files_are_followed_and_the_directory_may_come_late() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etc/manifests");
        let (told, mut tells) = mpsc::unbounded_channel();
        let followed = path.clone();
        let following = tokio::spawn(async move {
            follow(&followed, "n", |files, _| drop(told.send(names(files)))).await;
        });
        let mut until = async |expected: &[&str]| loop {
            let told = tells.recv().await.unwrap();
            if told == expected {
                break;
            }
        };
        until(&[]).await;
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("a"), manifest("a")).unwrap();
        until(&["a-n"]).await;
        // As a mounted ConfigMap changes: a link through a link that is replaced.
        fs::create_dir(path.join("..1")).unwrap();
        fs::write(path.join("..1/b"), manifest("b")).unwrap();
        symlink("..1", path.join("..data")).unwrap();
        symlink("..data/b", path.join("b")).unwrap();
        until(&["a-n", "b-n"]).await;
        fs::create_dir(path.join("..2")).unwrap();
        fs::write(path.join("..2/b"), manifest("bb")).unwrap();
        symlink("..2", path.join("..next")).unwrap();
        fs::rename(path.join("..next"), path.join("..data")).unwrap();
        until(&["a-n", "bb-n"]).await;
        fs::remove_file(path.join("a")).unwrap();
        until(&["bb-n"]).await;
        fs::remove_dir_all(&path).unwrap();
        until(&[]).await;
        following.abort();
    }
}
