//! Opening: what is found again, and what is refused in which words.

use std::{fs, os::unix::fs::PermissionsExt};

use redb::{Database, TableDefinition};

use crate::{Embedded, Error, Expected, ListOptions, Store, Value, Window};

fn open(dir: &std::path::Path) -> crate::Result<Embedded> {
    Embedded::open(dir, Window::default())
}

fn refusal(dir: &std::path::Path) -> Error {
    open(dir).err().expect("it should have been refused")
}

#[tokio::test]
async fn everything_acknowledged_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("made/on/the/way");
    let store = open(&dir).unwrap();
    store.put("a", Expected::Any, Value::stamped("<>", 1)).await.unwrap();
    store.put("b", Expected::Any, Value::plain("")).await.unwrap();
    store.put("a", Expected::Any, Value::stamped("(())", 2)).await.unwrap();
    store.delete("b", Expected::Any).await.unwrap();
    drop(store);

    let store = open(&dir).unwrap();
    assert_eq!(
        store.revision().await.unwrap(),
        5,
        "a deletion's revision is not used again"
    );
    let listing = store.list("", ListOptions::default()).await.unwrap();
    let [a] = &listing.entries[..] else {
        panic!("{listing:?}")
    };
    assert_eq!(
        (&*a.key, a.revision, a.create_revision, &a.value[..]),
        ("a", 4, 2, &b"((4))"[..])
    );
    assert!(matches!(
        store.watch("", 4).await.err(),
        Some(Error::Compacted {
            requested: 4,
            oldest: 5
        })
    ));
    assert_eq!(store.delete("a", Expected::At(4)).await.unwrap().value, "((6))");
    let mode = |name| fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode(""), mode("lock"), mode("log"), mode("objects.redb")),
        (0o700, 0o600, 0o600, 0o600),
        "it holds secrets"
    );
}

#[test]
fn a_directory_has_one_server() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).unwrap();
    let expected = format!(
        "{} is in use by another server (process {})",
        dir.path().display(),
        std::process::id()
    );
    assert_eq!(refusal(dir.path()).to_string(), expected);
    drop(first);
    open(dir.path()).unwrap();
}

#[test]
fn a_directory_that_can_not_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let inside = file.join("store");
    let expected = format!("creating {}: Not a directory (os error 20)", inside.display());
    assert_eq!(refusal(&inside).to_string(), expected);
}

#[test]
fn a_newer_servers_file_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    let path = dir.path().join("objects.redb");
    let database = Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction
        .open_table(TableDefinition::<&str, u64>::new("meta"))
        .unwrap()
        .insert("format", 3)
        .unwrap();
    transaction.commit().unwrap();
    drop(database);
    let expected = format!(
        "{} has format 3, this server knows formats up to 2: start the newer server that wrote it",
        path.display()
    );
    assert_eq!(refusal(dir.path()).to_string(), expected);
}

#[tokio::test]
async fn a_file_of_format_1_is_brought_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    let database = Database::create(dir.path().join("objects.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut meta = transaction
            .open_table(TableDefinition::<&str, u64>::new("meta"))
            .unwrap();
        meta.insert("format", 1).unwrap();
        meta.insert("revision", 9).unwrap();
        let mut objects = transaction
            .open_table(TableDefinition::<&str, &[u8]>::new("objects"))
            .unwrap();
        let numbers = [7_u64, 5, u64::MAX].map(u64::to_le_bytes).concat();
        objects.insert("a", &[&numbers, &b"text"[..]].concat()[..]).unwrap();
    }
    transaction.commit().unwrap();
    drop(database);
    for revision in [9, 10] {
        let store = open(dir.path()).unwrap();
        assert_eq!(store.revision().await.unwrap(), revision);
        let a = store.get("a").await.unwrap().unwrap();
        assert_eq!((a.revision, a.create_revision, &a.value[..]), (7, 5, &b"text"[..]));
        store.put("b", Expected::Any, Value::plain("")).await.unwrap();
    }
}

/// Copies what is on disk, as a machine that stops leaves it.
fn stopped(dir: &std::path::Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in ["log", "objects.redb"] {
        fs::copy(dir.join(name), copy.path().join(name)).unwrap();
    }
    copy
}

#[tokio::test]
async fn what_only_the_log_holds_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    store.put("a", Expected::Any, Value::stamped("", 0)).await.unwrap();
    // More than the log takes, so that redb has some of it, and some of that is written and deleted again.
    for n in 0..50 {
        let value = Value::plain(vec![b'x'; 300_000]);
        store.put(&format!("{}", n % 30), Expected::Any, value).await.unwrap();
    }
    store.delete("0", Expected::Any).await.unwrap();
    store.put("a", Expected::Any, Value::stamped("", 0)).await.unwrap();
    store.delete("29", Expected::Any).await.unwrap();
    let copy = stopped(dir.path());
    let again = open(copy.path()).unwrap();
    assert_eq!(again.revision().await.unwrap(), 55);
    let listed = async |store: &Embedded| {
        let entries = store.list("", ListOptions::default()).await.unwrap().entries;
        let shown = |entry: &std::sync::Arc<crate::Entry>| (entry.key.to_string(), entry.revision, entry.value.clone());
        entries.iter().map(shown).collect::<Vec<_>>()
    };
    assert_eq!(listed(&again).await, listed(&store).await);
    assert_eq!(again.get("a").await.unwrap().unwrap().value, "54");
}

#[tokio::test]
async fn a_damaged_log_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    for n in 0..3 {
        store
            .put(&format!("{n}"), Expected::Any, Value::plain("x"))
            .await
            .unwrap();
    }
    let copy = stopped(dir.path());
    let path = copy.path().join("log");
    let good = fs::read(&path).unwrap();
    for at in [0, 30, 4096 + 8, 4096 + 24] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&path, bad).unwrap();
        let expected = format!(
            "{} is damaged or not a store: the batch at byte {} is damaged; restore it from a backup, or move it away to begin empty",
            path.display(),
            at / 4096 * 4096
        );
        assert_eq!(refusal(copy.path()).to_string(), expected);
    }
    // The last batch may have been cut short when the machine stopped, before it was acknowledged.
    let mut bad = good;
    bad[2 * 4096 + 24] ^= 1;
    fs::write(&path, bad).unwrap();
    assert_eq!(open(copy.path()).unwrap().revision().await.unwrap(), 3);
}

#[tokio::test]
async fn a_damaged_file_is_refused_and_never_panics() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    for n in 0..200 {
        store
            .put(&format!("{n}"), Expected::Any, Value::plain(vec![b'x'; 1000]))
            .await
            .unwrap();
    }
    drop(store);
    let path = dir.path().join("objects.redb");
    let good = fs::read(&path).unwrap();

    let cut = good[..good.len() / 3].to_vec();
    let text = b"this is not a database".repeat(1000);
    for bad in [cut, text] {
        fs::write(&path, bad).unwrap();
        let error = refusal(dir.path());
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    }

    // A flipped byte either lies in a page that is free, or is found.
    let mut found = 0;
    for n in 0..64 {
        let mut bad = good.clone();
        let at = good.len() / 64 * n + 1234;
        bad[at] ^= 0x40;
        fs::write(&path, &bad).unwrap();
        match open(dir.path()) {
            Err(Error::Corrupt { .. }) => found += 1,
            Err(error) => panic!("byte {at}: {error}"),
            Ok(store) => {
                let listing = store.list("", ListOptions::default()).await.unwrap();
                assert_eq!(listing.entries.len(), 200, "byte {at}");
                assert!(
                    listing
                        .entries
                        .iter()
                        .all(|entry| entry.value.iter().all(|byte| *byte == b'x'))
                );
            }
        }
    }
    assert!(found > 0, "no flipped byte was in a page in use");
}
