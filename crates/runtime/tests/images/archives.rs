//! Imports: both kinds of archive, plain and compressed, whole and broken.

use std::fs;
use std::path::PathBuf;

use runtime::images::Images;
use tempfile::TempDir;

use crate::compose::{Image, Layer, docker_archive, gzip, layout, tar};
use crate::{assert_empty, open};

fn two() -> [Image; 2] {
    [
        Image::new(vec![Layer::new(&[("base", b"base")]), Layer::zstd(&[("one", b"1")])]),
        Image::new(vec![Layer::new(&[("base", b"base")]), Layer::plain(&[("two", b"2")])]),
    ]
}

fn file(dir: &TempDir, bytes: &[u8]) -> PathBuf {
    let path = dir.path().join("archive.tar");
    fs::write(&path, bytes).unwrap();
    path
}

fn names(images: &Images) -> Vec<String> {
    let mut names: Vec<_> = images
        .list()
        .iter()
        .flat_map(|image| image.names.iter().cloned())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn both_kinds_in_every_wrapping() {
    let [one, two] = two();
    let tags = [("docker.io/library/one:v1", &one), ("two:v1", &two)];
    let (layout, docker) = (layout(&tags), docker_archive(&tags));
    for (what, bytes, digests) in [
        ("layout", layout.clone(), true),
        ("layout, gzip", gzip(&layout), true),
        ("layout, zstd", zstd::encode_all(&layout[..], 1).unwrap(), true),
        ("docker", docker.clone(), false),
        ("docker, gzip", gzip(&docker), false),
    ] {
        let data = tempfile::tempdir().unwrap();
        let images = open(data.path());
        let imported = images.import(&file(&data, &bytes)).await.unwrap();
        assert_eq!(imported.len(), 2, "{what}");
        assert!(imported.iter().all(|image| image.pinned), "{what}");
        let names = names(&images);
        let tagged: Vec<_> = names.iter().filter(|name| !name.contains('@')).collect();
        assert_eq!(
            tagged,
            ["docker.io/library/one:v1", "docker.io/library/two:v1"],
            "{what}"
        );
        assert_eq!(names.len() > 2, digests, "{what}");
        let image = images.resolve("two:v1").unwrap().unwrap();
        assert_eq!(image.id, two.id(), "{what}");
        let layers = images.layers(&image.id).unwrap();
        assert_eq!(fs::read(layers[1].join("two")).unwrap(), b"2", "{what}");
        assert_eq!(crate::entries(data.path(), "layers").len(), 3, "{what}");
    }
}

#[tokio::test]
async fn broken_archives_leave_nothing() {
    let [one, two] = two();
    let tags = [("one:v1", &one), ("two:v1", &two)];
    let whole = layout(&tags);
    let mut other_layer = whole.clone();
    let blob = &one.layers[1].blob;
    let at = whole.windows(blob.len()).position(|bytes| bytes == &blob[..]);
    other_layer[at.unwrap() + blob.len() - 1] ^= 1;
    let mut other_config = whole.clone();
    let at = whole
        .windows(one.config.len())
        .position(|bytes| bytes == &one.config[..]);
    other_config[at.unwrap()] = b' ';
    let compressed = gzip(&whole);
    for (what, bytes, reason) in [
        ("empty", Vec::new(), "neither an OCI image layout"),
        ("text", b"hello".repeat(500), "read the archive: "),
        (
            "something else",
            tar(&[("etc/passwd", b"root")]),
            "neither an OCI image layout (index.json) nor a docker archive (manifest.json)",
        ),
        ("cut off", whole[..whole.len() / 2].to_vec(), "the archive "),
        (
            "cut off, gzip",
            compressed[..compressed.len() / 2].to_vec(),
            "read the archive: ",
        ),
        ("a layer's bit", other_layer, "unexpected commit digest"),
        ("a configuration's bit", other_config, "the content has another digest"),
        (
            "no image",
            tar(&[("index.json", br#"{"schemaVersion":2,"manifests":[]}"#)]),
            "the archive has no image",
        ),
        (
            "no layer",
            tar(&[
                ("manifest.json", br#"[{"Config":"c","Layers":["l"]}]"#),
                (
                    "c",
                    br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]}}"#,
                ),
            ]),
            "the archive has no l",
        ),
        (
            "bad name",
            layout(&[("one:v1", &one), ("Two:v1", &two)]),
            "repository name (library/Two) must be lowercase",
        ),
    ] {
        let data = tempfile::tempdir().unwrap();
        let images = open(data.path());
        let path = file(&data, &bytes);
        let error = images.import(&path).await.unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("import {}: ", path.display())) && error.contains(reason),
            "{what}: {error}"
        );
        assert!(!error.contains('\n'), "{what}: {error}");
        assert!(images.list().is_empty(), "{what}");
        drop(images);
        open(data.path());
        assert_empty(data.path());
    }
}

#[tokio::test]
async fn archives_of_the_node_come_by_themselves() {
    let [one, two] = two();
    let data = tempfile::tempdir().unwrap();
    let images = open(data.path());
    let dir = data.path().join("images");
    fs::write(dir.join("one.tar"), layout(&[("one:v1", &one)])).unwrap();
    fs::write(dir.join("two.tar.gz"), gzip(&docker_archive(&[("two:v1", &two)]))).unwrap();
    fs::write(dir.join("broken.tar"), "hello").unwrap();
    fs::write(dir.join(".partial"), "hello").unwrap();

    // Who asks meanwhile waits, and finds it.
    let preload = images.preload();
    let (soon, errors) = tokio::join!(images.resolve_soon("one:v1"), preload);
    assert_eq!(soon.unwrap().unwrap().id, one.id());
    assert_eq!(errors.len(), 1);
    assert!(errors[0].to_string().contains("images/broken.tar: "), "{}", errors[0]);
    assert!(images.list().iter().all(|image| image.pinned));
    assert_eq!(images.list().len(), 2);

    // The next start finds them imported. An archive that was read again would bring its image back.
    images.remove("two:v1").await.unwrap();
    drop(images);
    let images = open(data.path());
    images.preload().await;
    assert_eq!(images.list().len(), 2, "a missing image is imported again");
    drop(images);
    fs::remove_file(dir.join("broken.tar")).unwrap();
    let images = open(data.path());
    let modified = fs::metadata(dir.join("one.tar")).unwrap().modified().unwrap();
    let size = fs::metadata(dir.join("one.tar")).unwrap().len();
    fs::write(dir.join("one.tar"), vec![b'x'; usize::try_from(size).unwrap()]).unwrap();
    let changed = fs::File::options().write(true).open(dir.join("one.tar")).unwrap();
    changed.set_modified(modified).unwrap();
    assert!(images.preload().await.is_empty(), "the unchanged archive was not read");
    changed.set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(images.preload().await.len(), 1, "the changed one was");
}
