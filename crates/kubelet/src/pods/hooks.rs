//! Lifecycle hooks of containers.

use std::time::Duration;

use cri::RuntimeService;
use k8s_openapi::api::core::v1::LifecycleHandler;

use crate::handler::{Handler, Outcome, Target};
use crate::words;

/// A hook has no timeout of its own but this.
const LONGEST: Duration = Duration::from_secs(3600);

/// Runs a hook; the error says what failed.
pub async fn run(
    hook: &LifecycleHandler,
    runtime: &dyn RuntimeService,
    target: &Target<'_>,
    within: Option<Duration>,
) -> Result<(), String> {
    let within = within.unwrap_or(LONGEST);
    let handler = match (&hook.exec, &hook.http_get, &hook.sleep, &hook.tcp_socket) {
        (Some(exec), ..) => Handler::Exec(exec),
        (None, Some(http), ..) => Handler::Http(http),
        (None, None, Some(sleep), _) => {
            let asked = Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0));
            tokio::time::sleep(asked.min(within)).await;
            return Ok(());
        }
        (None, None, None, Some(tcp)) => Handler::Tcp(tcp),
        (None, None, None, None) => return Ok(()),
    };
    match tokio::time::timeout(within, handler.run(runtime, target, within)).await {
        Ok(Outcome::Success) => Ok(()),
        Ok(Outcome::Failure(error) | Outcome::Error(error)) => Err(error),
        Err(_) => Err(format!("timed out after {}", words::duration(within))),
    }
}
