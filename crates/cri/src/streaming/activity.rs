//! When something last moved on a connection.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// Knows when a connection has been quiet for too long.
pub(crate) struct Activity {
    last: Mutex<Instant>,
    limit: Duration,
}

impl Activity {
    /// Something moved just now; `limit` of quiet is too long.
    pub(crate) fn new(limit: Duration) -> Activity {
        Activity {
            last: Mutex::new(Instant::now()),
            limit,
        }
    }

    /// Something moved.
    pub(crate) fn touch(&self) {
        *self.last.lock() = Instant::now();
    }

    /// Resolves when nothing has moved for the limit.
    pub(crate) async fn expired(&self) {
        loop {
            let until = *self.last.lock() + self.limit;
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}
