//! Prefixes, order, pages, revisions, compaction.

use super::*;

/// A prefix is of bytes, not of path segments, and keys come in byte order.
pub async fn a_list_has_the_prefix_in_order(store: Shared) {
    for key in ["b", "a/10", "a", "a/2", "a/", "a0", "a/1", "é", "a/1/x"] {
        put(&store, key, "").await;
    }
    let cases: [(&str, &[&str]); 6] = [
        ("", &["a", "a/", "a/1", "a/1/x", "a/10", "a/2", "a0", "b", "é"]),
        ("a", &["a", "a/", "a/1", "a/1/x", "a/10", "a/2", "a0"]),
        ("a/", &["a/", "a/1", "a/1/x", "a/10", "a/2"]),
        ("a/1", &["a/1", "a/1/x", "a/10"]),
        ("é", &["é"]),
        ("c", &[]),
    ];
    for (prefix, expected) in cases {
        assert_eq!(
            keys(&store, prefix, ListOptions::default()).await,
            expected,
            "{prefix:?}"
        );
    }
}

/// Pages of every size put together are the list, and each tells what is to come.
pub async fn a_list_can_be_read_in_pages(store: Shared) {
    for n in 0..10 {
        put(&store, &format!("p/{n}"), "").await;
    }
    put(&store, "o", "").await;
    put(&store, "q", "").await;
    let whole = keys(&store, "p/", ListOptions::default()).await;
    for limit in [1, 3, 5, 9, 10, 11] {
        let mut read = Vec::new();
        let mut options = ListOptions {
            limit: Some(limit),
            ..Default::default()
        };
        loop {
            let page = store.list("p/", options.clone()).await.unwrap();
            assert_eq!(*options.revision.get_or_insert(page.revision), page.revision);
            read.extend(page.entries.iter().map(|entry| entry.key.to_string()));
            assert_eq!(page.remaining as usize, whole.len() - read.len(), "limit {limit}");
            assert_eq!(page.more, page.remaining > 0);
            if !page.more {
                break;
            }
            assert_eq!(page.entries.len(), limit);
            options.start_after = read.last().cloned();
        }
        assert_eq!(read, whole, "limit {limit}");
    }
    for (after, first) in [
        ("", Some("p/0")),
        ("a", Some("p/0")),
        ("p/4", Some("p/5")),
        ("p/45", Some("p/5")),
        ("z", None),
    ] {
        let options = ListOptions {
            start_after: Some(after.into()),
            ..Default::default()
        };
        let read = keys(&store, "p/", options).await;
        assert_eq!(read.first().map(String::as_str), first, "after {after:?}");
    }
}

/// Pages read while others write are all of the first page's revision.
pub async fn pages_at_a_revision_do_not_see_later_writes(store: Shared) {
    for n in 0..100 {
        put(&store, &format!("k/{n:02}"), "old").await;
    }
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for n in 0..100 {
                put(&store, &format!("k/{n:02}+"), "made").await;
                put(&store, &format!("k/{n:02}"), "new").await;
                if n % 2 == 0 {
                    delete(&store, &format!("k/{n:02}")).await;
                }
            }
        }
    });
    let mut options = ListOptions {
        limit: Some(7),
        revision: Some(store.revision().await.unwrap()),
        ..Default::default()
    };
    let whole = store.list("k/", at(options.revision.unwrap())).await.unwrap();
    let mut read = Vec::new();
    loop {
        let page = store.list("k/", options.clone()).await.unwrap();
        read.extend(page.entries);
        if !page.more {
            break;
        }
        options.start_after = read.last().map(|entry| entry.key.to_string());
    }
    let identity = |entries: &[Arc<Entry>]| -> Vec<(String, Revision, String)> {
        entries
            .iter()
            .map(|entry| (entry.key.to_string(), entry.revision, text(entry).into()))
            .collect()
    };
    assert_eq!(identity(&read), identity(&whole.entries));
    writer.await.unwrap();
    assert_eq!(keys(&store, "k/", ListOptions::default()).await.len(), 150);
}

/// Revisions that are yet to come are told from those that are gone.
pub async fn a_list_out_of_reach_is_refused(store: Shared) {
    let newest = put(&store, "a", "").await;
    let error = store.list("", at(newest + 1)).await.unwrap_err();
    assert!(
        matches!(error, Error::Future { requested, .. } if requested == newest + 1),
        "{error}"
    );
    let newest = put(&store, "a", "").await;
    store.compact(newest).await.unwrap();
    let error = store.list("", at(newest - 1)).await.unwrap_err();
    assert!(
        matches!(error, Error::Compacted { requested, oldest } if (requested, oldest) == (newest - 1, newest)),
        "{error}"
    );
    assert_eq!(keys(&store, "", at(newest)).await, ["a"]);
}

/// What is there stays there, and so does every state from the compacted revision on.
pub async fn compaction_gives_up_history_only(store: Shared) {
    put(&store, "a", "1").await;
    let first = put(&store, "b", "1").await;
    let second = put(&store, "a", "2").await;
    let third = delete(&store, "b").await;
    store.compact(second).await.unwrap();
    store.compact(first).await.expect("gone already");
    let error = store.compact(third + 1).await.unwrap_err();
    assert!(matches!(error, Error::Future { .. }), "{error}");
    assert!(matches!(store.list("", at(first)).await, Err(Error::Compacted { .. })));
    assert!(matches!(store.watch("", first).await, Err(Error::Compacted { .. })));
    assert_eq!(keys(&store, "", at(second)).await, ["a", "b"]);
    let mut watch = store.watch("", second).await.unwrap();
    assert_eq!(next(&mut watch).await.revision(), third);
    assert_eq!(keys(&store, "", ListOptions::default()).await, ["a"]);
    assert_eq!(store.revision().await.unwrap(), third, "compaction is no write");
}
