//! A disk that fills up refuses writes and nothing else, and when there is room again the store goes on.
//! The disk is a tmpfs in a mount namespace of a child process, which takes it along when it ends.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt};
use store::{Embedded, Error, Expected, ListOptions, Store, Value, Window};

#[test]
fn a_full_disk_refuses_writes_until_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=16m tmpfs \"$DISK\" && exec \"$0\" \"$@\"";
    let status = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .args(["on_a_small_disk", "--exact", "--ignored", "--nocapture"])
        .env("DISK", dir.path())
        .status()
        .unwrap();
    assert!(status.success(), "on_a_small_disk: {status}");
}

#[tokio::test]
#[ignore = "the child process of a_full_disk_refuses_writes_until_there_is_room"]
async fn on_a_small_disk() {
    let disk = std::env::var("DISK").unwrap();
    let filler = Path::new(&disk).join("filler");
    let dir = Path::new(&disk).join("store");
    std::fs::write(&filler, vec![0; 8 << 20]).unwrap();
    let store = Embedded::open(&dir, Window::default()).unwrap();
    let mut watch = store.watch("", 1).await.unwrap();

    let value = || Value::plain(vec![b'x'; 100_000]);
    let mut written = 0;
    let error = loop {
        match store.put(&format!("{written:03}"), Expected::Absent, value()).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 200, "20 MB on a disk of 16 MiB");
    };
    assert!(error.to_string().contains("No space left on device"), "{error}");
    assert!(written > 0, "the disk was full from the start");

    // Nothing of it shows, and everything else does.
    let refused = format!("{written:03}");
    assert!(store.get(&refused).await.unwrap().is_none());
    assert_eq!(store.revision().await.unwrap(), 1 + written);
    assert_eq!(
        store.list("", ListOptions::default()).await.unwrap().entries.len(),
        written as usize
    );
    for revision in 2..2 + written {
        assert_eq!(watch.next().await.unwrap().unwrap().revision(), revision);
    }
    assert!(watch.next().now_or_never().is_none());
    let again = store.put(&refused, Expected::Absent, value()).await;
    assert!(matches!(again, Err(Error::Write { .. })), "{again:?}");

    // It tries anew by itself, at most every so often, so the first writes may still be refused.
    std::fs::remove_file(&filler).unwrap();
    let patience = Instant::now() + Duration::from_secs(20);
    let entry = loop {
        match store.put(&refused, Expected::Absent, value()).await {
            Ok(entry) => break entry,
            Err(error) => assert!(Instant::now() < patience, "{error}"),
        }
    };
    assert_eq!(entry.revision, 2 + written, "the refused writes took no revision");
    assert_eq!(watch.next().await.unwrap().unwrap().revision(), 2 + written);

    drop(store);
    let store = Embedded::open(&dir, Window::default()).unwrap();
    assert_eq!(store.revision().await.unwrap(), 2 + written);
    assert_eq!(
        store.list("", ListOptions::default()).await.unwrap().entries.len() as u64,
        written + 1
    );
}
