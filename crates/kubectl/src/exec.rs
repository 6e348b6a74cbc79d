//! `kubectl exec`: a command in a container, its terminal and its exit code.

use futures::SinkExt;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::Api;
use kube::api::{AttachParams, AttachedProcess, TerminalSize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};

use crate::connection::Connection;
use crate::failure::{Failure, Result, root_cause};
use crate::flags::Exec;
use crate::pods;
use crate::terminal::{RawMode, is_terminal, size};

/// Bytes under way in each direction.
const BUFFER_BYTES: usize = 64 * 1024;

/// Runs the command.
pub async fn run(connection: &Connection, exec: &Exec) -> Result<()> {
    let target = match exec.target.as_slice() {
        [] => return Err(Failure::message("pod, type/name or --filename must be specified")),
        [target] => target,
        _ => {
            return Err(Failure::message(
                "exec [POD] [COMMAND] is not supported anymore. Use exec [POD] -- [COMMAND] instead\nSee 'kubectl exec -h' for help and examples",
            ));
        }
    };
    if exec.command.is_empty() {
        return Err(Failure::message(
            "you must specify at least one command for the container",
        ));
    }
    let pod = pods::find(connection, target).await?;
    let metadata = &pod["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default();
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    if matches!(phase, "Succeeded" | "Failed") {
        return Err(Failure::message(format!(
            "cannot exec into a container in a completed pod; current phase is {phase}"
        )));
    }
    // A name is for the server to judge.
    let container = match exec.container.as_deref() {
        Some(container) => container,
        None => pods::container(&pod, None, exec.quiet)?,
    };
    let mut tty = exec.tty;
    if tty && !(exec.stdin && is_terminal(std::io::stdin())) {
        if exec.stdin {
            eprintln!("Unable to use a TTY - input is not a terminal or the right kind of file");
        }
        tty = false;
    }
    let parameters = AttachParams {
        container: Some(container.to_owned()),
        stdin: exec.stdin,
        stdout: true,
        // A terminal has one stream for both.
        stderr: !tty,
        tty,
        max_stdin_buf_size: Some(BUFFER_BYTES),
        max_stdout_buf_size: Some(BUFFER_BYTES),
        max_stderr_buf_size: Some(BUFFER_BYTES),
    };
    let namespace = metadata["namespace"].as_str().unwrap_or(&connection.namespace);
    let pods: Api<Pod> = Api::namespaced(connection.client.clone(), namespace);
    let process = pods.exec(name, exec.command.clone(), &parameters).await;
    session(process.map_err(|error| connection.failed(error))?, tty).await
}

/// Passes bytes until the remote process ends, and gives what became of it.
async fn session(mut process: AttachedProcess, tty: bool) -> Result<()> {
    let terminal = if tty {
        Some(RawMode::enter(std::io::stdin()).map_err(|error| Failure::message(format!("terminal: {error}")))?)
    } else {
        None
    };
    if let Some(mut input) = process.stdin() {
        // It waits for a key that may never come; the end of the process ends it.
        tokio::spawn(async move {
            let mut stdin = tokio::io::stdin();
            let mut buffer = vec![0; 4096];
            while let Ok(count) = stdin.read(&mut buffer).await {
                if count == 0 || input.write_all(&buffer[..count]).await.is_err() {
                    break;
                }
            }
            // The other side may be gone already.
            let _ = input.shutdown().await;
        });
    }
    if let Some(mut sizes) = process.terminal_size() {
        tokio::spawn(async move {
            let Ok(mut changes) = signal(SignalKind::window_change()) else {
                return;
            };
            while let Some((width, height)) = size(std::io::stdin()) {
                if sizes.send(TerminalSize { width, height }).await.is_err() {
                    break;
                }
                changes.recv().await;
            }
        });
    }
    let status = process.take_status();
    let (stdout, stderr) = (process.stdout(), process.stderr());
    let output = async {
        if let Some(mut stdout) = stdout {
            tokio::io::copy(&mut stdout, &mut tokio::io::stdout()).await?;
        }
        tokio::io::stdout().flush().await
    };
    let errors = async {
        if let Some(mut stderr) = stderr {
            tokio::io::copy(&mut stderr, &mut tokio::io::stderr()).await?;
        }
        tokio::io::stderr().flush().await
    };
    let (output, errors) = tokio::join!(output, errors);
    drop(terminal);
    output.and(errors).map_err(|_| Failure::Silent)?;
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    match status {
        Some(status) => outcome(&status),
        None => match process.join().await {
            Ok(()) => Ok(()),
            Err(error) => Err(Failure::message(root_cause(&error))),
        },
    }
}

/// The exit code, or why there is none.
fn outcome(status: &Status) -> Result<()> {
    if status.status.as_deref() != Some("Failure") {
        return Ok(());
    }
    let causes = status.details.as_ref().and_then(|details| details.causes.as_deref());
    let code = causes
        .unwrap_or_default()
        .iter()
        .find(|cause| cause.reason.as_deref() == Some("ExitCode"))
        .and_then(|cause| cause.message.as_deref()?.parse().ok());
    match code {
        Some(code) => Err(Failure::Exit(code)),
        None => Err(Failure::message(status.message.clone().unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn outcomes() {
        let text = |status: serde_json::Value| {
            let status = serde_json::from_value(status).unwrap_or_default();
            outcome(&status).err().map(|failure| (failure.code(), failure.text()))
        };
        assert_eq!(text(json!({"status": "Success"})), None);
        assert_eq!(
            text(json!({"status": "Failure", "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": "3"}]}})),
            Some((3, "command terminated with exit code 3\n".into()))
        );
        assert_eq!(
            text(json!({"status": "Failure", "message": "no such file"})),
            Some((1, "error: no such file\n".into()))
        );
    }
}
