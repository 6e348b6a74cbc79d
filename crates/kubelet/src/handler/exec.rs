//! A command in the container.

use std::time::Duration;

use cri::RuntimeService;
use cri::v1::ExecSyncRequest;
use k8s_openapi::api::core::v1::{Container, ExecAction};

use super::{LONGEST_OUTPUT, Outcome, Target};
use crate::expand::expand;
use crate::words;

/// Runs it; it is well when its exit code is 0.
pub async fn run(runtime: &dyn RuntimeService, target: &Target<'_>, action: &ExecAction, timeout: Duration) -> Outcome {
    let command = command(action, target.container);
    let request = ExecSyncRequest {
        container_id: target.id.to_owned(),
        cmd: command.clone(),
        timeout: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
    };
    match runtime.exec_sync_in_brief(request, LONGEST_OUTPUT).await {
        Ok(answer) if answer.exit_code == 0 => Outcome::Success,
        Ok(answer) => {
            let mut output = answer.stdout;
            output.truncate(LONGEST_OUTPUT);
            let left = LONGEST_OUTPUT - output.len();
            output.extend(answer.stderr.into_iter().take(left));
            Outcome::Failure(String::from_utf8_lossy(&output).into_owned())
        }
        Err(error) if error.code == cri::Code::DeadlineExceeded => Outcome::Failure(format!(
            "command timed out: {} timed out after {}",
            words::quote(&command.join(" ")),
            words::duration(timeout)
        )),
        Err(error) => Outcome::unknown(error.to_string()),
    }
}

/// The command with those variables put in whose values stand in the spec; others are empty, as the kubelet does not know them any more.
fn command(action: &ExecAction, container: &Container) -> Vec<String> {
    let words = action.command.iter().flatten();
    if !words.clone().any(|word| word.contains('$')) {
        return words.cloned().collect();
    }
    let env: Vec<(String, String)> = container
        .env
        .iter()
        .flatten()
        .map(|variable| (variable.name.clone(), variable.value.clone().unwrap_or_default()))
        .collect();
    words.map(|word| expand(word, &env)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_command_knows_the_values_in_the_spec() {
        let container: Container = serde_json::from_value(json!({"name": "c", "env": [
            {"name": "DIR", "value": "/srv"},
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ]}))
        .unwrap();
        let action = ExecAction {
            command: Some(
                ["ls", "$(DIR)/a", "$(POD)", "$(NONE)", "$$(DIR)"]
                    .map(str::to_owned)
                    .to_vec(),
            ),
        };
        assert_eq!(command(&action, &container), ["ls", "/srv/a", "", "$(NONE)", "$(DIR)"]);
    }
}
