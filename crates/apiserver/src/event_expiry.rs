//! Events are kept for an hour after they were last written, and then deleted.
//!
//! What is written is seen by a watch and put at the end of a queue; a timer stands on the queue's head. An Event
//! that was written again meanwhile is at another revision, for which it stands in the queue once more.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures::StreamExt as _;
use store::{Change, Expected, ListOptions, Revision, Store};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// How long an Event is kept, as upstream.
pub(crate) const KEPT_FOR: Duration = Duration::from_secs(60 * 60);

/// Deletes what lies under the prefix and was not written for a time, until the server ends.
pub(crate) async fn run(store: Arc<dyn Store>, prefix: &str, kept_for: Duration, ending: CancellationToken) {
    while !ending.is_cancelled() {
        match follow(&*store, prefix, kept_for, &ending).await {
            // It fell behind the store's history: it begins anew with what is there.
            Err(store::Error::Compacted { .. }) => {}
            Err(error) => return tracing::error!(%error, "deleting old Events"),
            Ok(()) => return,
        }
    }
}

async fn follow(
    store: &dyn Store,
    prefix: &str,
    kept_for: Duration,
    ending: &CancellationToken,
) -> Result<(), store::Error> {
    let listing = store.list(prefix, ListOptions::default()).await?;
    // How old these are is not asked: after a restart they are kept for another hour at most.
    let until = Instant::now() + kept_for;
    let mut queue: VecDeque<(Instant, Arc<str>, Revision)> = listing
        .entries
        .iter()
        .map(|entry| (until, entry.key.clone(), entry.revision))
        .collect();
    drop(listing.entries);
    let mut changes = store.watch(prefix, listing.revision).await?;
    loop {
        let head = queue.front().map(|(until, ..)| *until);
        tokio::select! {
            () = ending.cancelled() => return Ok(()),
            change = changes.next() => match change {
                Some(Ok(Change::Put { entry, .. })) => {
                    queue.push_back((Instant::now() + kept_for, entry.key.clone(), entry.revision));
                }
                Some(Ok(Change::Delete { .. })) => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
            () = sleep_until(head.unwrap_or_else(Instant::now)), if head.is_some() => {
                let Some((_, key, revision)) = queue.pop_front() else { continue };
                match store.delete(&key, Expected::At(revision)).await {
                    // Written again, or deleted by somebody else.
                    Ok(_) | Err(store::Error::Conflict { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test fails by panicking.
    use store::{Embedded, Value, Window};

    use super::*;

    #[tokio::test]
    async fn what_was_not_written_for_a_time_goes() {
        let dir = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(Embedded::open(dir.path(), Window::default()).unwrap());
        let put = async |key: &str| store.put(key, Expected::Any, Value::plain("x")).await.unwrap().revision;
        put("/events/old").await;
        let other = put("/other/old").await;
        let mut changes = store.watch("/", other).await.unwrap();
        let ending = CancellationToken::new();
        let running = tokio::spawn({
            let (store, ending) = (store.clone(), ending.clone());
            async move { run(store, "/events/", Duration::from_millis(50), ending).await }
        });
        let mut gone = Vec::new();
        put("/events/new").await;
        while gone.len() < 2 {
            if let Change::Delete { previous, .. } = changes.next().await.unwrap().unwrap() {
                gone.push(previous.key.to_string());
            }
        }
        gone.sort();
        assert_eq!(gone, ["/events/new", "/events/old"]);
        assert!(store.get("/other/old").await.unwrap().is_some());
        ending.cancel();
        running.await.unwrap();
    }
}
