//! Revisions, expectations and stamps.

use super::*;

/// Each success takes one revision, a refusal none; a key remembers the revision that made it.
pub async fn a_write_takes_the_next_revision(store: Shared) {
    let start = store.revision().await.unwrap();
    assert!(start >= 1, "zero is no revision");
    assert!(store.get("a").await.unwrap().is_none());

    assert_eq!(put(&store, "a", "1").await, start + 1);
    assert_eq!(put(&store, "b", "2").await, start + 2);
    store.put("a", Expected::Absent, Value::plain("no")).await.unwrap_err();
    assert_eq!(put(&store, "a", "3").await, start + 3);
    let a = store.get("a").await.unwrap().unwrap();
    assert_eq!((a.revision, a.create_revision, text(&a)), (start + 3, start + 1, "3"));

    let deleted = store.delete("a", Expected::Any).await.unwrap();
    assert_eq!(
        (deleted.revision, deleted.create_revision, text(&deleted)),
        (start + 4, start + 1, "3")
    );
    assert!(store.get("a").await.unwrap().is_none());
    store.delete("a", Expected::Any).await.unwrap_err();

    put(&store, "a", "4").await;
    let a = store.get("a").await.unwrap().unwrap();
    assert_eq!((a.revision, a.create_revision), (start + 5, start + 5), "made anew");
    assert_eq!(store.revision().await.unwrap(), start + 5);
}

/// Every expectation on an absent key and on one at a revision, for puts and deletes.
pub async fn a_write_is_refused_when_the_key_is_not_as_expected(store: Shared) {
    put(&store, "present", "old").await;
    let now = put(&store, "present", "new").await;
    let cases = [
        ("present", Expected::Any, true, true),
        ("present", Expected::Absent, false, false),
        ("present", Expected::At(now), true, true),
        ("present", Expected::At(now - 1), false, false),
        ("present", Expected::At(now + 1), false, false),
        ("absent", Expected::Any, true, false),
        ("absent", Expected::Absent, true, false),
        ("absent", Expected::At(now), false, false),
    ];
    for (key, expected, puts, deletes) in cases {
        if !deletes {
            refused(store.delete(key, expected).await, key, now);
        }
        if !puts {
            refused(store.put(key, expected, Value::plain("")).await, key, now);
        }
    }
    assert_eq!(
        store.revision().await.unwrap(),
        now,
        "a refused write takes no revision"
    );

    let now = store
        .put("present", Expected::At(now), Value::plain(""))
        .await
        .unwrap()
        .revision;
    store.delete("present", Expected::At(now)).await.unwrap();
    store.put("present", Expected::Absent, Value::plain("")).await.unwrap();
    store.put("absent", Expected::Any, Value::plain("")).await.unwrap();
}

fn refused(outcome: crate::Result<Arc<Entry>>, key: &str, present: Revision) {
    match outcome {
        Err(Error::Conflict { key: told, current }) => {
            assert_eq!(told, key);
            let expected = (key == "present").then_some(present);
            assert_eq!(current.map(|entry| entry.revision), expected, "what is there is told");
        }
        other => panic!("{key}: expected a conflict, got {other:?}"),
    }
}

/// The answer to a write, gets, lists and watches all have the revision filled in.
pub async fn a_value_shows_its_revision_wherever_it_is_handed_out(store: Shared) {
    let start = store.revision().await.unwrap();
    let value = || Value::stamped("<>", 1);
    let shown = |revision: Revision| format!("<{revision}>");
    for step in 1..=12 {
        let entry = store.put("key", Expected::Any, value()).await.unwrap();
        assert_eq!(text(&entry), shown(start + step));
        assert_eq!(text(&store.get("key").await.unwrap().unwrap()), shown(start + step));
    }
    let listing = store.list("", at(start + 5)).await.unwrap();
    assert_eq!(text(&listing.entries[0]), shown(start + 5));
    let deleted = store.delete("key", Expected::Any).await.unwrap();
    assert_eq!(text(&deleted), shown(start + 13));

    let mut watch = store.watch("", start).await.unwrap();
    for step in 1..=13 {
        let change = next(&mut watch).await;
        assert_eq!(text(change.entry()), shown(start + step));
        if let Some(previous) = change.previous() {
            assert_eq!(text(previous), shown(start + step - 1));
        }
    }
}

/// A stamp may stand right behind the last byte, no further.
pub async fn a_stamp_outside_the_value_is_refused(store: Shared) {
    let error = store
        .put("key", Expected::Any, Value::stamped("abc", 4))
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::Stamp {
                stamp: 4,
                length: 3,
                ..
            }
        ),
        "{error}"
    );
    assert!(store.get("key").await.unwrap().is_none());
    let entry = store.put("key", Expected::Any, Value::stamped("abc", 3)).await.unwrap();
    assert_eq!(text(&entry), format!("abc{}", entry.revision));
}

/// Eight writers count one key up by compare and swap: no count is lost, no revision is used twice.
pub async fn concurrent_writers_never_lose_a_write(store: Shared) {
    const WRITERS: u64 = 8;
    const EACH: u64 = 25;
    let start = put(&store, "count", "0").await;
    let writers = (0..WRITERS).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut mine = Vec::new();
            while mine.len() < EACH as usize {
                let entry = store.get("count").await.unwrap().unwrap();
                let more = text(&entry).parse::<u64>().unwrap() + 1;
                let value = Value::plain(more.to_string());
                match store.put("count", Expected::At(entry.revision), value).await {
                    Ok(entry) => mine.push(entry.revision),
                    Err(Error::Conflict { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            assert!(mine.is_sorted(), "one writer's revisions rise");
            mine
        })
    });
    let mut revisions: Vec<Revision> = futures::future::join_all(writers)
        .await
        .into_iter()
        .flat_map(Result::unwrap)
        .collect();
    revisions.sort_unstable();
    assert_eq!(revisions, (start + 1..=start + WRITERS * EACH).collect::<Vec<_>>());
    assert_eq!(
        text(&store.get("count").await.unwrap().unwrap()),
        (WRITERS * EACH).to_string()
    );
}
