//! Lifecycle hooks of containers.

use std::time::Duration;

use cri::RuntimeService;
use cri::v1::ExecSyncRequest;
use k8s_openapi::api::core::v1::{ExecAction, LifecycleHandler, Pod};

use super::pod::PodExt;
use crate::handler::{LONGEST_OUTPUT, Target, http};
use crate::words;

/// A hook has no timeout of its own but this.
const LONGEST: Duration = Duration::from_secs(3600);

/// Runs a hook; the error says what failed, in upstream's words.
pub async fn run(
    hook: &LifecycleHandler,
    runtime: &dyn RuntimeService,
    target: &Target<'_>,
    pod: &Pod,
    within: Option<Duration>,
) -> Result<(), String> {
    let within = within.unwrap_or(LONGEST);
    let of = format!(
        "for Container {:?} in Pod {:?} failed - error: ",
        target.container.name,
        pod.full_name()
    );
    let late = || format!("timed out after {}", words::duration(within));
    match (&hook.exec, &hook.http_get, &hook.sleep) {
        (Some(action), ..) => {
            let said = tokio::time::timeout(within, exec(action, runtime, target.id, within)).await;
            said.unwrap_or_else(|_| Err((late(), String::new())))
                .map_err(|(error, output)| {
                    let command = action.command.iter().flatten().map(String::as_str);
                    let command = command.collect::<Vec<_>>().join(" ");
                    format!("Exec lifecycle hook ([{command}]) {of}{error}, message: {output:?}")
                })
        }
        (None, Some(action), _) => {
            let asked = tokio::time::timeout(within, http::hook(action, target, within)).await;
            asked.unwrap_or_else(|_| Err(late())).map_err(|error| {
                let path = action.path.as_deref().unwrap_or_default();
                format!("HTTP lifecycle hook ({path}) {of}{error}")
            })
        }
        (None, None, Some(sleep)) => {
            let asked = Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0));
            tokio::time::sleep(asked.min(within)).await;
            Ok(())
        }
        // The API knows a tcpSocket here, and says that it fails when it is run.
        (None, None, None) => Err("Cannot run handler: invalid handler: only exec, httpGet and sleep are hooks".into()),
    }
}

/// The error is what went wrong and what the command said.
async fn exec(
    action: &ExecAction,
    runtime: &dyn RuntimeService,
    id: &str,
    within: Duration,
) -> Result<(), (String, String)> {
    let command = action.command.clone().unwrap_or_default();
    let request = ExecSyncRequest {
        container_id: id.to_owned(),
        cmd: command.clone(),
        timeout: within.as_secs() as i64,
    };
    // What a hook says stands in the pod's status, which has to stay one that the API server takes.
    let answer = runtime
        .exec_sync_in_brief(request, LONGEST_OUTPUT)
        .await
        .map_err(|error| (words::runtime_error(&error), String::new()))?;
    if answer.exit_code == 0 {
        return Ok(());
    }
    let error = format!(
        "command '{}' exited with {}: {}",
        command.join(" "),
        answer.exit_code,
        String::from_utf8_lossy(&answer.stderr)
    );
    let mut output = answer.stdout;
    output.extend_from_slice(&answer.stderr);
    Err((error, String::from_utf8_lossy(&output).into_owned()))
}
