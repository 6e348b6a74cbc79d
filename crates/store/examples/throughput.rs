//! How fast the embedded store is on this disk: durable creates by 1 and by 32 writers, gets, lists.
//!
//! `cargo run --release -p store --example throughput [DIR]`

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use store::{Embedded, Error, Expected, ListOptions, Result, Store, Value, Window};

const PHASE: Duration = Duration::from_secs(3);
const BYTES: usize = 700;

#[tokio::main]
async fn main() -> Result<()> {
    let dir = std::env::args_os()
        .nth(1)
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = dir.join(format!("throughput-{}", std::process::id()));
    let outcome = measure(&dir).await;
    if let Err(cause) = std::fs::remove_dir_all(&dir) {
        eprintln!("removing {}: {cause}", dir.display());
    }
    outcome
}

async fn measure(dir: &std::path::Path) -> Result<()> {
    let store: Arc<dyn Store> = Arc::new(Embedded::open(dir, Window::default())?);
    for writers in [1, 32] {
        let begun = Instant::now();
        let tasks = (0..writers).map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut slowest = Duration::ZERO;
                let mut count = 0u64;
                while begun.elapsed() < PHASE {
                    let one = Instant::now();
                    let key = format!("configmaps/{writers}/{writer}-{count}");
                    store
                        .put(&key, Expected::Absent, Value::stamped(vec![b'x'; BYTES], 100))
                        .await?;
                    slowest = slowest.max(one.elapsed());
                    count += 1;
                }
                Ok::<_, Error>((count, slowest))
            })
        });
        let mut total = 0;
        let mut slowest = Duration::ZERO;
        for task in tasks.collect::<Vec<_>>() {
            let (count, slow) = task.await.map_err(|_| Error::Closed)??;
            total += count;
            slowest = slowest.max(slow);
        }
        let rate = total as f64 / begun.elapsed().as_secs_f64();
        println!("durable creates, {writers:2} writers: {rate:8.0} per s, slowest {slowest:.1?}");
    }

    let begun = Instant::now();
    let mut gets = 0;
    while begun.elapsed() < PHASE {
        store.get("configmaps/1/0-0").await?;
        gets += 1;
    }
    println!(
        "gets:                       {:8.0} per s",
        f64::from(gets) / begun.elapsed().as_secs_f64()
    );

    let begun = Instant::now();
    let mut lists = 0;
    while begun.elapsed() < PHASE {
        store
            .list(
                "configmaps/1/",
                ListOptions {
                    limit: Some(500),
                    ..Default::default()
                },
            )
            .await?;
        lists += 1;
    }
    println!(
        "lists, 500 of many:         {:8.0} per s",
        f64::from(lists) / begun.elapsed().as_secs_f64()
    );

    drop(store);
    let begun = Instant::now();
    let store = Embedded::open(dir, Window::default())?;
    let size = std::fs::metadata(dir.join("objects.redb")).map_or(0, |file| file.len());
    println!(
        "opened revision {} in {:.1?}, file of {} MiB",
        store.revision().await?,
        begun.elapsed(),
        size >> 20
    );
    Ok(())
}
