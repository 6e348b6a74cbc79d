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
        (mode(""), mode("lock"), mode("objects.redb")),
        (0o700, 0o600, 0o600),
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
        .insert("format", 2)
        .unwrap();
    transaction.commit().unwrap();
    drop(database);
    let expected = format!(
        "{} has format 2, this server knows formats up to 1: start the newer server that wrote it",
        path.display()
    );
    assert_eq!(refusal(dir.path()).to_string(), expected);
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
