//! What becomes of images: names that move, removal, containers that hold, crashes.

use std::fs;
use std::path::Path;

use crate::compose::{Image, Layer, docker_archive};
use crate::{assert_empty, config, entries, open};
use runtime::images::{Error, Images};

async fn import(images: &Images, data: &Path, list: &[(&str, &Image)]) {
    let path = data.join("archive.tar");
    fs::write(&path, docker_archive(list)).unwrap();
    images.import(&path).await.unwrap();
}

fn image(unique: &[u8]) -> Image {
    Image::new(vec![
        Layer::new(&[("base", b"base")]),
        Layer::new(&[("unique", unique)]),
    ])
}

#[tokio::test]
async fn removal_takes_what_nothing_else_needs() {
    let data = tempfile::tempdir().unwrap();
    let images = open(data.path());
    let (one, two) = (image(b"1"), image(b"2"));
    import(&images, data.path(), &[("one:v1", &one), ("two:v1", &two)]).await;
    assert_eq!(entries(data.path(), "layers").len(), 3);
    images.remove("one:v1").await.unwrap();
    assert_eq!(entries(data.path(), "layers").len(), 2, "the base is shared");
    assert!(matches!(images.remove("one:v1").await, Err(Error::NotFound(_))));
    images.remove(&two.id()).await.unwrap();
    assert_empty(data.path());
    assert_eq!(entries(data.path(), "configs"), Vec::<String>::new());
}

#[tokio::test]
async fn containers_keep_their_layers() {
    let data = tempfile::tempdir().unwrap();
    let images = open(data.path());
    let one = image(b"1");
    import(&images, data.path(), &[("one:v1", &one)]).await;
    images.hold(&one.id(), "c1").unwrap();
    images.hold(&one.id(), "c2").unwrap();
    images.remove("one:v1").await.unwrap();
    assert!(images.list().is_empty());
    assert!(images.resolve(&one.id()).unwrap().is_none());
    assert_eq!(entries(data.path(), "layers").len(), 2);

    // The server is killed; the containers live on.
    drop(images);
    let images = open(data.path());
    assert_eq!(images.layers(&one.id()).unwrap().len(), 2);
    images.hold(&one.id(), "c2").unwrap();
    images.settle().await.unwrap();
    assert_eq!(entries(data.path(), "layers").len(), 2);
    images.release("c2").await.unwrap();
    assert_empty(data.path());

    // An image that is imported again while a container runs from it is an image again.
    import(&images, data.path(), &[("one:v1", &one)]).await;
    images.hold(&one.id(), "c3").unwrap();
    images.remove("one:v1").await.unwrap();
    import(&images, data.path(), &[("one:v1", &one)]).await;
    images.release("c3").await.unwrap();
    assert_eq!(images.list().len(), 1);
    assert_eq!(entries(data.path(), "layers").len(), 2);
}

#[tokio::test]
async fn a_name_moves() {
    let data = tempfile::tempdir().unwrap();
    let images = open(data.path());
    let (one, two) = (image(b"1"), image(b"2"));
    import(&images, data.path(), &[("app:v1", &one)]).await;
    import(&images, data.path(), &[("app:v1", &two)]).await;
    assert_eq!(images.resolve("app:v1").unwrap().unwrap().id, two.id());
    let old = images.resolve(&one.id()).unwrap().unwrap();
    assert!(old.names.is_empty());
    drop(images);
    let images = open(data.path());
    assert_eq!(images.resolve("app:v1").unwrap().unwrap().id, two.id());
}

#[tokio::test]
async fn what_a_crash_leaves_is_cleared() {
    let data = tempfile::tempdir().unwrap();
    let images = open(data.path());
    let one = image(b"1");
    import(&images, data.path(), &[("one:v1", &one)]).await;
    drop(images);
    let store = data.path().join("image-store");
    let leftover = store.join("layers").join("ab".repeat(32));
    fs::create_dir_all(leftover.join("usr/bin")).unwrap();
    fs::create_dir_all(store.join("tmp/layer-x/etc")).unwrap();
    fs::write(store.join("tmp/file"), "x").unwrap();
    fs::write(store.join("configs/abc.json"), "{}").unwrap();
    fs::write(store.join("images.json.new"), "{").unwrap();
    let images = open(data.path());
    assert_eq!(entries(data.path(), "layers").len(), 2);
    assert_eq!(entries(data.path(), "tmp").len(), 0);
    assert_eq!(entries(data.path(), "configs").len(), 1);
    assert_eq!(images.list().len(), 1);
}

#[tokio::test]
async fn one_process_at_a_time() {
    let data = tempfile::tempdir().unwrap();
    let images = open(data.path());
    let error = Images::open(config(data.path())).err().unwrap().to_string();
    assert!(error.ends_with("image-store is in use by another process"), "{error}");
    drop(images);
    open(data.path());
}
