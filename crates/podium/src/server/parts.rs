//! The parts that a server is made of. Each is a task that works until the server ends. One that ends before, by itself, by an error or by a
//! panic, would leave a server that looks whole and is not: the server ends with it, and says which it was.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::task::{Id, JoinError, JoinSet};
use tracing::warn;

/// How long parts have to end when they are told to.
const PATIENCE: Duration = Duration::from_secs(10);

/// The parts at work.
#[derive(Default)]
pub struct Parts {
    tasks: JoinSet<Result<()>>,
    names: HashMap<Id, &'static str>,
}

impl Parts {
    /// Starts a part that ends when the server does.
    pub fn start(&mut self, name: &'static str, part: impl Future<Output = Result<()>> + Send + 'static) {
        let id = self.tasks.spawn(part).id();
        self.names.insert(id, name);
    }

    /// Waits for a part to end that was not told to, and says why it did.
    pub async fn failed(&mut self) -> anyhow::Error {
        match self.tasks.join_next_with_id().await {
            Some(ended) => {
                let (name, outcome) = self.outcome(ended);
                outcome.err().unwrap_or_else(|| anyhow!("{name} ended by itself"))
            }
            None => std::future::pending().await,
        }
    }

    /// Waits for all that were told to end; those that do not are cut off.
    pub async fn end(mut self) -> Result<()> {
        let mut failures = Vec::new();
        let all = async {
            while let Some(ended) = self.tasks.join_next_with_id().await {
                if let (_, Err(failure)) = self.outcome(ended) {
                    failures.push(failure.to_string());
                }
            }
        };
        if tokio::time::timeout(PATIENCE, all).await.is_err() {
            let mut names: Vec<_> = self.names.values().copied().collect();
            names.sort_unstable();
            warn!("cut off after {} s: {}", PATIENCE.as_secs(), names.join(", "));
        }
        match failures.is_empty() {
            true => Ok(()),
            false => Err(anyhow!(failures.join("; "))),
        }
    }

    /// Whose end it was, and how it went.
    fn outcome(&mut self, ended: Result<(Id, Result<()>), JoinError>) -> (&'static str, Result<()>) {
        let id = match &ended {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let name = self.names.remove(&id).unwrap_or("a part of the server");
        let outcome = match ended {
            Ok((_, outcome)) => outcome.map_err(|error| anyhow!("{name}: {error:#}")),
            Err(error) => Err(anyhow!("{name}: {}", panic_message(error))),
        };
        (name, outcome)
    }
}

/// What a panic said, on one line.
fn panic_message(error: JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else {
        return "cut off".into();
    };
    let said = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without words");
    format!("panicked: {}", said.lines().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;

    /// Parts of which one lives until the token says so.
    fn parts(ending: &CancellationToken) -> Parts {
        let mut parts = Parts::default();
        let ending = ending.clone();
        parts.start("the lasting part", async move {
            ending.cancelled().await;
            Ok(())
        });
        parts
    }

    #[tokio::test]
    async fn an_early_end_is_told_in_one_line() {
        let ending = CancellationToken::new();
        let mut all = parts(&ending);
        all.start("the scheduler", async { Ok(()) });
        assert_eq!(all.failed().await.to_string(), "the scheduler ended by itself");
        all.start("the CRI socket", async { Err(anyhow!("no space").context("accept")) });
        assert_eq!(all.failed().await.to_string(), "the CRI socket: accept: no space");
        all.start("the kubelet", async { panic!("first line\n{} line", "second") });
        assert_eq!(
            all.failed().await.to_string(),
            "the kubelet: panicked: first line second line"
        );
        ending.cancel();
        assert!(all.end().await.is_ok(), "the lasting part ends when it is told to");
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_waits_for_all_but_not_for_ever() {
        let ending = CancellationToken::new();
        let mut all = parts(&ending);
        let told = ending.clone();
        all.start("the controllers", async move {
            told.cancelled().await;
            Err(anyhow!("too late"))
        });
        all.start("the stubborn part", std::future::pending());
        ending.cancel();
        let start = tokio::time::Instant::now();
        assert_eq!(
            all.end().await.map_err(|error| error.to_string()),
            Err("the controllers: too late".into())
        );
        assert_eq!(start.elapsed(), PATIENCE);
    }
}
