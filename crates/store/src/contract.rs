//! The tests that every [`Store`] has to pass, each on an empty one.
//!
//! [`contract_tests!`](crate::contract_tests) makes a test of each. They ask only for what the contract
//! promises, so they hold for a store on another machine as well.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a failed step is a failed test"
)]

mod lists;
mod watches;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;

use crate::{Change, Entry, Error, Expected, ListOptions, Revision, Store, Value, Watch};

pub use lists::*;
pub use watches::*;
pub use writes::*;

/// Makes a test of every part of the contract. Its argument opens an empty store:
/// `async fn() -> (Arc<dyn Store>, guard)`, where the guard is kept until the test is over.
#[macro_export]
macro_rules! contract_tests {
    ($open:path) => {
        $crate::contract_tests! { $open:
            a_write_takes_the_next_revision
            a_write_is_refused_when_the_key_is_not_as_expected
            a_value_shows_its_revision_wherever_it_is_handed_out
            a_stamp_outside_the_value_is_refused
            concurrent_writers_never_lose_a_write
            a_list_has_the_prefix_in_order
            a_list_can_be_read_in_pages
            pages_at_a_revision_do_not_see_later_writes
            a_list_out_of_reach_is_refused
            compaction_gives_up_history_only
            a_watch_replays_and_goes_on
            a_watch_sees_its_prefix_only
            a_watch_out_of_reach_is_refused
            watches_have_no_gap_under_concurrent_writes
            a_watch_tells_how_far_it_has_come
        }
    };
    ($open:path: $($name:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn $name() {
            let (store, guard) = $open().await;
            $crate::contract::$name(store).await;
            drop(guard);
        }
    )*};
}

type Shared = Arc<dyn Store>;

async fn put(store: &Shared, key: &str, value: &str) -> Revision {
    store
        .put(key, Expected::Any, Value::plain(value.to_owned()))
        .await
        .unwrap()
        .revision
}

async fn delete(store: &Shared, key: &str) -> Revision {
    store.delete(key, Expected::Any).await.unwrap().revision
}

async fn keys(store: &Shared, prefix: &str, options: ListOptions) -> Vec<String> {
    let listing = store.list(prefix, options).await.unwrap();
    listing.entries.iter().map(|entry| entry.key.to_string()).collect()
}

async fn next(watch: &mut Watch) -> Change {
    let change = tokio::time::timeout(Duration::from_secs(30), watch.next()).await;
    change
        .expect("a change within 30 s")
        .expect("a watch without end")
        .unwrap()
}

fn text(entry: &Entry) -> &str {
    std::str::from_utf8(&entry.value).unwrap()
}

fn at(revision: Revision) -> ListOptions {
    ListOptions {
        revision: Some(revision),
        ..Default::default()
    }
}
