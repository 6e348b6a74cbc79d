//! Replay, order, gaps, progress.

use std::collections::HashMap;

use super::*;

/// A watch from a past revision gives what came after it, and then what comes.
pub async fn a_watch_replays_and_goes_on(store: Shared) {
    let start = put(&store, "a", "1").await;
    put(&store, "a", "2").await;
    delete(&store, "a").await;
    let mut watch = store.watch("", start).await.unwrap();

    let change = next(&mut watch).await;
    assert!(
        matches!(&change, Change::Put { previous: Some(previous), .. } if text(previous) == "1"),
        "{change:?}"
    );
    assert_eq!((change.revision(), text(change.entry())), (start + 1, "2"));

    let change = next(&mut watch).await;
    assert!(matches!(&change, Change::Delete { .. }), "{change:?}");
    assert_eq!((change.revision(), text(change.entry())), (start + 2, "2"));
    assert_eq!(change.previous().unwrap().revision, start + 1);

    let later = tokio::spawn(async move { (next(&mut watch).await, watch) });
    put(&store, "a", "3").await;
    let (change, mut watch) = later.await.unwrap();
    assert!(
        matches!(&change, Change::Put { previous: None, .. }),
        "made anew: {change:?}"
    );
    assert_eq!((change.revision(), text(change.entry())), (start + 3, "3"));

    put(&store, "b", "4").await;
    assert_eq!(&**next(&mut watch).await.key(), "b");
}

/// Changes to other keys do not show.
pub async fn a_watch_sees_its_prefix_only(store: Shared) {
    let start = store.revision().await.unwrap();
    let mut replayed = store.watch("pods/b", start).await.unwrap();
    for key in ["pods/a", "pods/b", "pods", "pods/b/x", "pods/c", "pods/bc", "p"] {
        put(&store, key, "").await;
    }
    let mut late = store.watch("pods/b", start).await.unwrap();
    for watch in [&mut replayed, &mut late] {
        for key in ["pods/b", "pods/b/x", "pods/bc"] {
            assert_eq!(&**next(watch).await.key(), key);
        }
    }
}

/// Before the oldest and after the newest revision there is nothing to begin from.
pub async fn a_watch_out_of_reach_is_refused(store: Shared) {
    put(&store, "a", "").await;
    let newest = put(&store, "a", "").await;
    let future = store.watch("", newest + 1).await.err();
    assert!(matches!(future, Some(Error::Future { .. })), "{future:?}");
    store.compact(newest).await.unwrap();
    let compacted = store.watch("", newest - 1).await.err();
    assert!(matches!(compacted, Some(Error::Compacted { .. })), "{compacted:?}");
    assert!(store.watch("", newest).await.is_ok());
}

/// Watches begun at all times, from all revisions, each see exactly their part of the one order.
pub async fn watches_have_no_gap_under_concurrent_writes(store: Shared) {
    const WRITERS: usize = 8;
    const EACH: usize = 100;
    let start = store.revision().await.unwrap();
    let end = start + (WRITERS * EACH) as Revision;

    let writers = (0..WRITERS).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0..EACH {
                // Two writers share a group, and all keys are used again and again.
                let key = format!("{}/{}/{}", writer % 4, writer, n % 5);
                match n % 7 {
                    6 if store.get(&key).await.unwrap().is_some() => delete(&store, &key).await,
                    _ => put(&store, &key, &n.to_string()).await,
                };
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let watchers = (0..16).map(|n| {
        let store = store.clone();
        tokio::spawn(async move {
            let prefix = ["", "0/", "1/", "2/3"][n % 4];
            let from = if n < 8 {
                start
            } else {
                start + (store.revision().await.unwrap() - start) / 2
            };
            let mut watch = store.watch(prefix, from).await.unwrap();
            let mut seen = Vec::new();
            // The mark that is put in when all writers are done ends each watch.
            loop {
                let change = next(&mut watch).await;
                assert!(change.revision() > from);
                assert!(watch.progress() >= change.revision(), "what has been given out counts");
                if change.key().ends_with("/end") {
                    return (prefix, from, seen);
                }
                seen.push(change);
            }
        })
    });
    let watchers: Vec<_> = watchers.collect();
    futures::future::try_join_all(writers).await.unwrap();
    assert_eq!(store.revision().await.unwrap(), end);
    for key in ["0/end", "1/end", "2/3/end"] {
        put(&store, key, "").await;
    }

    let mut whole = store.watch("", start).await.unwrap();
    let mut all = Vec::new();
    for revision in start + 1..=end {
        all.push(next(&mut whole).await);
        assert_eq!(all.last().unwrap().revision(), revision, "every revision, in order");
    }
    let mut state: HashMap<Arc<str>, Revision> = HashMap::new();
    for change in &all {
        let previous = match change {
            Change::Put { entry, .. } => state.insert(entry.key.clone(), entry.revision),
            Change::Delete { entry, .. } => state.remove(&entry.key),
        };
        assert_eq!(change.previous().map(|entry| entry.revision), previous, "{change:?}");
    }
    for watcher in watchers {
        let (prefix, from, seen) = watcher.await.unwrap();
        let expected = all
            .iter()
            .filter(|c| c.revision() > from && c.key().starts_with(prefix));
        let revisions = |change: &Change| change.revision();
        assert_eq!(
            seen.iter().map(revisions).collect::<Vec<_>>(),
            expected.map(revisions).collect::<Vec<_>>(),
            "prefix {prefix:?} from {from}"
        );
    }
}

/// A bookmark is never ahead of a change that has not been given out, nor behind one that has.
pub async fn a_watch_tells_how_far_it_has_come(store: Shared) {
    let start = put(&store, "a", "").await;
    let mut watch = store.watch("a", start).await.unwrap();
    assert_eq!(watch.progress(), start);
    let first = put(&store, "a", "").await;
    let second = put(&store, "a", "").await;
    assert_eq!(watch.progress(), start, "two changes wait to be given out");
    assert_eq!(next(&mut watch).await.revision(), first);
    assert!((first..second).contains(&watch.progress()));
    assert_eq!(next(&mut watch).await.revision(), second);
    assert!(watch.progress() >= second);
}
