//! Keeps a pod's worker at work. A panic of one is a bug, and is told; it costs its pod a pause, and other pods nothing.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use jiff::Timestamp;

use super::backoff::Backoffs;

/// Has a worker work to its end. When it panics, `broke` is told why and what comes of `wait` is waited for, at most so long; then another
/// takes over: the first at once, the others after pauses that double, as for a container that fails.
pub async fn keep<W, P>(
    mut employ: impl FnMut() -> W,
    mut broke: impl FnMut(&str, Duration),
    mut hurry: impl FnMut() -> P,
) where
    W: Future<Output = ()>,
    P: Future<Output = ()>,
{
    let mut backoffs = Backoffs::default();
    loop {
        // Nothing that a worker shares is left half-changed by its end: what it says goes out whole, and what it notes goes with it.
        let work = AssertUnwindSafe(async { employ().await });
        let Err(panic) = work.catch_unwind().await else { return };
        let now = Timestamp::now();
        let pause = backoffs
            .until("", now, now)
            .map_or(Duration::ZERO, |(_, pause)| pause.unsigned_abs());
        backoffs.next("", now, now);
        broke(said(&*panic), pause);
        let _ = tokio::time::timeout(pause, hurry()).await;
    }
}

/// What was said with a panic.
fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("it panicked without a word")
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::future::pending;

    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn another_worker_takes_over_from_one_that_panics() {
        let (begin, made) = (Instant::now(), Cell::new(0));
        let broken = RefCell::new(Vec::new());
        let employ = || {
            made.set(made.get() + 1);
            let number = made.get();
            async move {
                match number {
                    1 => panic!("worker {number}"),
                    2 => panic!("no words of its own"),
                    3 => std::panic::panic_any(3),
                    _ => tokio::time::sleep(Duration::from_secs(1)).await,
                }
            }
        };
        keep(
            employ,
            |why, pause| broken.borrow_mut().push((why.to_owned(), pause.as_secs())),
            pending,
        )
        .await;
        let told = [
            ("worker 1", 0),
            ("no words of its own", 10),
            ("it panicked without a word", 20),
        ];
        assert_eq!(broken.into_inner(), told.map(|(why, pause)| (why.to_owned(), pause)));
        assert_eq!((made.get(), begin.elapsed().as_secs()), (4, 31));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_can_be_cut_short() {
        let (begin, made) = (Instant::now(), Cell::new(0));
        let employ = || {
            made.set(made.get() + 1);
            let number = made.get();
            async move { assert!(number > 5, "worker {number}") }
        };
        keep(employ, |_, _| {}, || tokio::time::sleep(Duration::from_secs(1))).await;
        assert_eq!((made.get(), begin.elapsed().as_secs()), (6, 4));
    }
}
