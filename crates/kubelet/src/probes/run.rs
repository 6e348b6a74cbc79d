//! The task of one probe.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use client::EventType::Warning;
use client::Events;
use cri::RuntimeService;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, ObjectReference, Probe};
use tokio::time::{Instant, Interval};

use super::Kind;
use super::count::Count;
use crate::handler::{Handler, Outcome, Target};
use crate::metrics::Metrics;
use crate::pods::Mailbox;
use crate::pods::observed::{Instance, time};

/// What the probes of one pod share.
pub struct Surroundings {
    /// Runs commands.
    pub runtime: Arc<dyn RuntimeService>,
    /// Says what fails.
    pub events: Events,
    /// Where results go.
    pub mailbox: Arc<Mailbox>,
    /// Where results are counted.
    pub metrics: Arc<Metrics>,
    /// The pod's address.
    pub ip: String,
}

fn handler(probe: &Probe) -> Option<Handler<'_>> {
    None.or_else(|| probe.exec.as_ref().map(Handler::Exec))
        .or_else(|| probe.http_get.as_ref().map(Handler::Http))
        .or_else(|| probe.tcp_socket.as_ref().map(Handler::Tcp))
        .or_else(|| probe.grpc.as_ref().map(Handler::Grpc))
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(
        value
            .and_then(|value| u64::try_from(value).ok())
            .filter(|value| *value > 0)
            .unwrap_or(default),
    )
}

/// So often what cannot be asked is asked again at once.
const TRIES: usize = 3;

/// What is asked at the same moment wakes the machine once: of what a probe costs, most is waking it. So all probes of a node keep to one
/// grid, which is fine beside their periods of whole seconds.
const GRID: Duration = Duration::from_millis(100);

/// A beat on the grid, from the first of its moments that is not before `at`.
fn together(at: Instant, period: Duration) -> Interval {
    static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    let mut beat = tokio::time::interval_at(on_grid(*BEGIN, at), period);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    beat
}

fn on_grid(begin: Instant, at: Instant) -> Instant {
    let steps = at.duration_since(begin).as_nanos().div_ceil(GRID.as_nanos());
    // Steps of 100 ms that a u32 counts are 13 years.
    begin + GRID * u32::try_from(steps).unwrap_or(u32::MAX)
}

/// Probes until it is dropped, or until there is nothing more to find out.
pub async fn run(
    surroundings: Arc<Surroundings>,
    about: ObjectReference,
    container: Container,
    instance: Instance,
    probe: Probe,
    kind: Kind,
) {
    let Some(handler) = handler(&probe) else { return };
    let timeout = seconds(probe.timeout_seconds, 1);
    let delay = SignedDuration::from_secs(probe.initial_delay_seconds.unwrap_or(0).into());
    let begin = time(instance.started_at)
        .saturating_add(delay)
        .unwrap_or(Timestamp::MAX);
    tokio::time::sleep(
        begin
            .duration_since(Timestamp::now())
            .max(SignedDuration::ZERO)
            .unsigned_abs(),
    )
    .await;
    let period = seconds(probe.period_seconds, 10);
    // The first is due now.
    let mut beat = None::<Interval>;
    let mut count = Count::new(probe.success_threshold, probe.failure_threshold);
    let mut told = None;
    loop {
        match &mut beat {
            Some(beat) => drop(beat.tick().await),
            None => beat = Some(together(Instant::now() + period, period)),
        }
        let target = Target {
            id: &instance.id,
            container: &container,
            ip: &surroundings.ip,
        };
        let began = Instant::now();
        let mut outcome = handler.run(&*surroundings.runtime, &target, timeout).await;
        for _ in 1..TRIES {
            if matches!(outcome, Outcome::Error { .. }) {
                outcome = handler.run(&*surroundings.runtime, &target, timeout).await;
            }
        }
        let (good, event) = judge(outcome, kind);
        if let Some((reason, message)) = event {
            surroundings.events.record(&about, Warning, reason, message);
        }
        let Some(good) = good else { continue };
        let took = began.elapsed();
        surroundings
            .metrics
            .probed(&about, &container.name, kind.word(), good, took);
        let result = count.take(good);
        if result.is_some() && result != told {
            told = result;
            surroundings.mailbox.probed(instance.id.clone(), kind, good);
            // Once started, always started; a condemned instance is not asked again.
            if kind == Kind::Startup || (kind == Kind::Liveness && !good) {
                return;
            }
        }
    }
}

/// What an outcome says of the container, if anything, and the event that tells it: reason and message.
fn judge(outcome: Outcome, kind: Kind) -> (Option<bool>, Option<(&'static str, String)>) {
    let word = kind.word();
    match outcome {
        Outcome::Success => (Some(true), None),
        Outcome::Warning(seen) => {
            let message = format!("{word} probe warning: {seen}");
            (Some(true), Some(("ProbeWarning", message)))
        }
        Outcome::Failure(seen) => {
            let message = format!("{word} probe failed: {seen}");
            (Some(false), Some(("Unhealthy", message)))
        }
        // What could not be asked says nothing of the container.
        Outcome::Error { state, error } => {
            let message = format!("{word} probe errored and resulted in {state} state: {error}");
            (None, Some(("Unhealthy", message)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_moved_to_the_grid_and_never_earlier() {
        let begin = Instant::now();
        for (at, moved) in [
            (0, 0),
            (1, 100),
            (100, 100),
            (101, 200),
            (1_000, 1_000),
            (10_099, 10_100),
        ] {
            let [at, moved] = [at, moved].map(|ms| begin + Duration::from_millis(ms));
            assert_eq!(on_grid(begin, at), moved);
        }
    }
}
