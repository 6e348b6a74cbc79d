//! Random operations beside a model that keeps every state it ever had.

use std::collections::BTreeMap;

use futures::{FutureExt, StreamExt};
use proptest::prelude::*;

use crate::{Change, Embedded, Error, Expected, ListOptions, Revision, Store, Value, Window};

#[derive(Debug, Clone)]
enum Operation {
    Put(&'static str, Guess, u8),
    Delete(&'static str, Guess),
    /// Of a revision so many back, in pages.
    List(&'static str, u64, usize),
    /// From a revision so many back.
    Watch(&'static str, u64),
    Compact(u64),
    Reopen,
}

/// What a writer expects, by what the key truly is.
#[derive(Debug, Clone, Copy)]
enum Guess {
    Any,
    Absent,
    Right,
    Wrong,
}

#[derive(Debug, Clone, PartialEq)]
struct Kept {
    revision: Revision,
    created: Revision,
    value: String,
}

type State = BTreeMap<String, Kept>;

/// `states[r - 1]` is the state at revision `r`.
struct Model {
    states: Vec<State>,
    oldest: Revision,
}

impl Model {
    fn newest(&self) -> Revision {
        self.states.len() as Revision
    }

    fn at(&self, revision: Revision) -> &State {
        &self.states[revision as usize - 1]
    }

    fn now(&self) -> &State {
        self.at(self.newest())
    }

    fn expected(&self, key: &str, guess: Guess) -> Expected {
        let revision = self.now().get(key).map(|kept| kept.revision);
        match guess {
            Guess::Any => Expected::Any,
            Guess::Absent => Expected::Absent,
            Guess::Right => revision.map_or(Expected::Absent, Expected::At),
            Guess::Wrong => Expected::At(revision.unwrap_or(0) + 1),
        }
    }

    /// The changes after a revision as lines, told from two states each.
    fn changes(&self, prefix: &str, from: Revision) -> Vec<String> {
        (from + 1..=self.newest())
            .filter_map(|revision| {
                let (before, after) = (self.at(revision - 1), self.at(revision));
                let put = after.iter().find(|(_, kept)| kept.revision == revision);
                let deleted = before.iter().find(|(key, _)| !after.contains_key(*key));
                let (key, line) = match (put, deleted) {
                    (Some((key, kept)), _) => (key, format!("put {key} {} {revision}", kept.value)),
                    (None, Some((key, _))) => (key, format!("delete {key} {revision}")),
                    (None, None) => panic!("revision {revision} changed nothing"),
                };
                key.starts_with(prefix).then_some(line)
            })
            .collect()
    }
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let key = prop::sample::select(vec!["a", "a/b", "a/c", "b", "b/a"]);
    let prefix = prop::sample::select(vec!["", "a", "a/", "b", "c"]);
    let guess = prop::sample::select(vec![
        Guess::Any,
        Guess::Any,
        Guess::Absent,
        Guess::Right,
        Guess::Right,
        Guess::Wrong,
    ]);
    let operation = prop_oneof![
        8 => (key.clone(), guess.clone(), any::<u8>()).prop_map(|(k, g, v)| Operation::Put(k, g, v)),
        4 => (key, guess).prop_map(|(k, g)| Operation::Delete(k, g)),
        4 => (prefix.clone(), 0..8u64, 1..4usize).prop_map(|(p, back, limit)| Operation::List(p, back, limit)),
        3 => (prefix, 0..8u64).prop_map(|(p, back)| Operation::Watch(p, back)),
        1 => (0..6u64).prop_map(Operation::Compact),
        1 => Just(Operation::Reopen),
    ];
    prop::collection::vec(operation, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_as_the_model(operations in operations()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(operations));
    }
}

async fn run(operations: Vec<Operation>) {
    let dir = tempfile::tempdir().unwrap();
    let open = || Embedded::open(dir.path(), Window::default()).unwrap();
    let mut store = open();
    let mut model = Model {
        states: vec![State::new()],
        oldest: 1,
    };
    for operation in operations {
        match operation {
            Operation::Put(key, guess, value) => {
                let expected = model.expected(key, guess);
                let old = model.now().get(key).cloned();
                let outcome = store
                    .put(
                        key,
                        expected,
                        Value::stamped(format!("{value}@"), format!("{value}@").len()),
                    )
                    .await;
                if !expected.admits(old.as_ref().map(|kept| kept.revision)) {
                    conflicts(outcome.err(), old);
                    continue;
                }
                let revision = model.newest() + 1;
                let created = old.map_or(revision, |kept| kept.created);
                let mut state = model.now().clone();
                state.insert(
                    key.into(),
                    Kept {
                        revision,
                        created,
                        value: format!("{value}@{revision}"),
                    },
                );
                model.states.push(state);
                assert_eq!(outcome.unwrap().revision, revision);
            }
            Operation::Delete(key, guess) => {
                let expected = model.expected(key, guess);
                let old = model.now().get(key).cloned();
                let outcome = store.delete(key, expected).await;
                if old.is_none() || !expected.admits(old.as_ref().map(|kept| kept.revision)) {
                    conflicts(outcome.err(), old);
                    continue;
                }
                let mut state = model.now().clone();
                state.remove(key);
                model.states.push(state);
                assert_eq!(outcome.unwrap().revision, model.newest());
            }
            Operation::List(prefix, back, limit) => list(&store, &model, prefix, back, limit).await,
            Operation::Watch(prefix, back) => watch(&store, &model, prefix, back).await,
            Operation::Compact(back) => {
                let at = model.newest().saturating_sub(back);
                store.compact(at).await.unwrap();
                model.oldest = model.oldest.max(at);
            }
            Operation::Reopen => {
                drop(store);
                store = open();
                model.oldest = model.newest();
            }
        }
        assert_eq!(store.revision().await.unwrap(), model.newest());
    }
}

fn conflicts(error: Option<Error>, there: Option<Kept>) {
    match error {
        Some(Error::Conflict { current, .. }) => {
            assert_eq!(current.map(|entry| entry.revision), there.map(|kept| kept.revision));
        }
        other => panic!("expected a conflict, got {other:?}"),
    }
}

async fn list(store: &Embedded, model: &Model, prefix: &str, back: u64, limit: usize) {
    let revision = model.newest().saturating_sub(back).max(1);
    let mut options = ListOptions {
        revision: Some(revision),
        limit: Some(limit),
        start_after: None,
    };
    let mut read = State::new();
    loop {
        let page = match store.list(prefix, options.clone()).await {
            Ok(page) => page,
            Err(Error::Compacted { oldest, .. }) if revision < model.oldest => {
                return assert_eq!(oldest, model.oldest);
            }
            Err(error) => panic!("{error}"),
        };
        for entry in &page.entries {
            let value = String::from_utf8(entry.value.to_vec()).unwrap();
            let kept = Kept {
                revision: entry.revision,
                created: entry.create_revision,
                value,
            };
            read.insert(entry.key.to_string(), kept);
        }
        if !page.more {
            break;
        }
        options.start_after = page.entries.last().map(|entry| entry.key.to_string());
    }
    let expected: State = model
        .at(revision)
        .iter()
        .filter(|(key, _)| key.starts_with(prefix))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    assert_eq!(read, expected);
}

async fn watch(store: &Embedded, model: &Model, prefix: &str, back: u64) {
    let from = model.newest().saturating_sub(back).max(1);
    let mut watch = match store.watch(prefix, from).await {
        Ok(watch) => watch,
        Err(Error::Compacted { .. }) => return assert!(from < model.oldest),
        Err(error) => panic!("{error}"),
    };
    let mut seen = Vec::new();
    while let Some(change) = watch.next().now_or_never() {
        seen.push(match change.unwrap().unwrap() {
            Change::Put { entry, .. } => {
                format!(
                    "put {} {} {}",
                    entry.key,
                    std::str::from_utf8(&entry.value).unwrap(),
                    entry.revision
                )
            }
            Change::Delete { entry, .. } => format!("delete {} {}", entry.key, entry.revision),
        });
    }
    assert_eq!(seen, model.changes(prefix, from));
    assert_eq!(watch.progress(), model.newest());
}
