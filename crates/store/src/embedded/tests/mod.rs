//! The embedded store against the contract, a model, a damaged file and a full window.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod model;
mod opening;

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt};

use crate::{Embedded, Error, Expected, Store, Value, Window};

async fn open() -> (Arc<dyn Store>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path(), Window::default()).unwrap();
    (Arc::new(store), dir)
}

crate::contract_tests!(open);

#[tokio::test]
async fn an_idle_watch_has_come_as_far_as_the_store() {
    let (store, _dir) = open().await;
    let watch = store.watch("quiet/", 1).await.unwrap();
    for n in 2..=5 {
        store.put("busy", Expected::Any, Value::plain("")).await.unwrap();
        assert_eq!(watch.progress(), n);
    }
}

#[tokio::test]
async fn a_slow_watch_is_cut_off_and_an_idle_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let window = Window {
        changes: 10,
        ..Window::default()
    };
    let store = Embedded::open(dir.path(), window).unwrap();
    let mut slow = store.watch("busy", 1).await.unwrap();
    let mut idle = store.watch("quiet", 1).await.unwrap();
    for _ in 0..20 {
        store.put("busy", Expected::Any, Value::plain("")).await.unwrap();
    }
    let error = slow.next().await.unwrap().unwrap_err();
    assert!(
        matches!(
            error,
            Error::Compacted {
                requested: 1,
                oldest: 11
            }
        ),
        "{error}"
    );
    assert!(slow.next().await.is_none(), "the error ends it");
    assert!(idle.next().now_or_never().is_none());
    store.put("quiet", Expected::Any, Value::plain("")).await.unwrap();
    assert_eq!(idle.next().await.unwrap().unwrap().revision(), 22);
}

#[tokio::test]
async fn watches_end_with_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path(), Window::default()).unwrap();
    let mut watch = store.watch("", 1).await.unwrap();
    store.put("key", Expected::Any, Value::plain("")).await.unwrap();
    let watching = tokio::spawn(async move {
        (
            watch.next().await.unwrap().unwrap().revision(),
            watch.next().await.is_none(),
        )
    });
    drop(store);
    assert_eq!(
        tokio::time::timeout(Duration::from_secs(30), watching)
            .await
            .unwrap()
            .unwrap(),
        (2, true)
    );
}

#[tokio::test]
async fn a_dropped_watch_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path(), Window::default()).unwrap();
    let watches = futures::future::join_all(["a", "a", "b"].map(|prefix| store.watch(prefix, 1))).await;
    assert_eq!(store.memory.read().cursors.len(), 3);
    drop(watches);
    assert_eq!(store.memory.read().cursors.len(), 0);
}

#[tokio::test]
async fn the_space_of_replaced_and_deleted_data_is_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(
        dir.path(),
        Window {
            bytes: 0,
            ..Window::default()
        },
    )
    .unwrap();
    let file = dir.path().join("objects.redb");
    for round in 0..45 {
        let value = || Value::plain(vec![round; 20_000]);
        let names: Vec<String> = (0..50).map(|n| format!("{round}/{n}")).collect();
        futures::future::try_join_all(names.iter().map(|n| store.put(n, Expected::Any, value())))
            .await
            .unwrap();
        futures::future::try_join_all(names.iter().map(|n| store.delete(n, Expected::Any)))
            .await
            .unwrap();
    }
    let bytes = file.metadata().unwrap().len();
    assert!(
        bytes <= 8 << 20,
        "45 MB went through it, of which 1 MB was there at a time, and it has {bytes} bytes"
    );
}
