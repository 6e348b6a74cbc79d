//! A writer is killed at random moments. Every write that it was told is durable is there afterwards, and
//! of the ones it was not told about each is there whole or not at all.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use rand::RngExt;
use store::{Embedded, Expected, ListOptions, Revision, Store, Value, Window};

const WRITERS: usize = 4;
const KEYS: u64 = 10;
const ROUNDS: usize = 12;

/// What a writer's n-th step does to its key: a value that shows n and the revision, or a deletion.
fn step(writer: usize, n: u64) -> (String, Option<Value>) {
    let key = format!("{writer}/{}", n % KEYS);
    let head = format!("{n} ");
    let body = format!(" {}", "abcdefghij".repeat((n * 37 % 400) as usize));
    let stamp = head.len();
    let value = (n % 7 != 3).then(|| Value::stamped(head + &body, stamp));
    (key, value)
}

/// The steps done by writer, from the acknowledgements printed: `writer n revision`.
#[derive(Default)]
struct Acknowledged {
    steps: [u64; WRITERS],
    revision: Revision,
}

#[test]
fn every_acknowledged_write_outlives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut done = [0; WRITERS];
    for _ in 0..ROUNDS {
        let acknowledged = write_and_kill(dir.path(), &done);
        done = check(dir.path(), &acknowledged);
    }
}

fn write_and_kill(dir: &Path, done: &[u64; WRITERS]) -> Acknowledged {
    let starts: Vec<String> = done.iter().map(u64::to_string).collect();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["writer", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env("STORE", dir)
        .env("STARTS", starts.join(","))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut patience = rand::rng().random_range(1..400);
    let mut acknowledged = Acknowledged {
        steps: *done,
        revision: 0,
    };
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let Some((_, numbers)) = line.split_once("acknowledged ") else {
            continue;
        };
        let numbers: Vec<u64> = numbers.split(' ').map(|number| number.parse().unwrap()).collect();
        let [writer, n, revision] = numbers[..] else {
            panic!("{line}")
        };
        assert_eq!(n, acknowledged.steps[writer as usize], "a writer's steps are in order");
        acknowledged.steps[writer as usize] = n + 1;
        acknowledged.revision = acknowledged.revision.max(revision);
        patience -= 1;
        if patience == 0 {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(patience <= 0, "the writer ended by itself");
    acknowledged
}

/// Compares what is there with what was acknowledged, and gives the steps that each writer truly did.
fn check(dir: &Path, acknowledged: &Acknowledged) -> [u64; WRITERS] {
    let store = Embedded::open(dir, Window::default()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let listing = runtime.block_on(store.list("", ListOptions::default())).unwrap();
    assert!(listing.revision >= acknowledged.revision, "the revision went back");
    let shown = |key: &str| {
        let entry = listing.entries.iter().find(|entry| &*entry.key == key)?;
        assert!(entry.revision <= listing.revision);
        Some((entry.revision, String::from_utf8(entry.value.to_vec()).unwrap()))
    };
    let mut done = acknowledged.steps;
    for (writer, done) in done.iter_mut().enumerate() {
        // One step of each writer was on its way: it happened if its key is in the state it would leave.
        // That state tells itself, but for a deletion of what was not there, which is no write anyway.
        let on_its_way = *done;
        let holds = |n: u64| {
            let (key, value) = step(writer, n);
            match (value, shown(&key)) {
                (None, shown) => shown.is_none(),
                (Some(_), None) => false,
                (Some(value), Some((revision, shown))) => {
                    let bytes = std::str::from_utf8(&value.bytes).unwrap();
                    let (before, after) = bytes.split_at(value.stamp.unwrap());
                    shown == format!("{before}{revision}{after}")
                }
            }
        };
        let happened = holds(on_its_way);
        for key in 0..KEYS.min(on_its_way) {
            let last = on_its_way - 1 - key;
            let overtaken = happened && last % KEYS == on_its_way % KEYS;
            assert!(
                overtaken || holds(last),
                "writer {writer}: step {last} of {on_its_way} acknowledged is gone"
            );
        }
        *done += u64::from(happened);
    }
    done
}

#[test]
#[ignore = "the child process of every_acknowledged_write_outlives_a_kill"]
fn writer() {
    let dir = std::env::var("STORE").unwrap();
    let starts: Vec<u64> = std::env::var("STARTS")
        .unwrap()
        .split(',')
        .map(|n| n.parse().unwrap())
        .collect();
    let store: Arc<dyn Store> = Arc::new(Embedded::open(Path::new(&dir), Window::default()).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    let writers = starts.into_iter().enumerate().map(|(writer, start)| {
        let store = store.clone();
        runtime.spawn(async move {
            for n in start.. {
                let (key, value) = step(writer, n);
                let revision = match value {
                    Some(value) => store.put(&key, Expected::Any, value).await.unwrap().revision,
                    // One on its way when the last writer was killed may be done already.
                    None => store
                        .delete(&key, Expected::Any)
                        .await
                        .map_or(0, |entry| entry.revision),
                };
                let mut out = std::io::stdout().lock();
                writeln!(out, "acknowledged {writer} {n} {revision}").unwrap();
                out.flush().unwrap();
            }
        })
    });
    runtime.block_on(futures::future::join_all(writers.collect::<Vec<_>>()));
}
