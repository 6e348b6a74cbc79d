//! ExecSync: a command to its end, with what it wrote.

use std::time::Duration;

use cri::v1::{ExecSyncRequest, ExecSyncResponse};
use cri::{Error, Result};
use tokio::io::AsyncReadExt;

use super::sessions::{exec, running};
use crate::runtime::Inner;
use crate::session::{Command, Stream, Streams};
use crate::shim::protocol::Request;

/// As much of an output is kept for one who does not say how much is wanted.
pub(crate) const MAX_OUTPUT: usize = 16 * 1024 * 1024;

impl Inner {
    /// Runs a command to its end. Of each output the first `most` bytes are kept; the rest is read and dropped, so that the command can end.
    pub(crate) async fn exec_sync(&self, request: ExecSyncRequest, most: usize) -> Result<ExecSyncResponse> {
        if request.cmd.is_empty() {
            return Err(Error::invalid_argument("cmd: Required value"));
        }
        let container = self.known_container(&request.container_id)?;
        let shim = running(&container)?;
        let command = Command {
            args: request.cmd,
            streams: Streams {
                stdout: true,
                stderr: true,
                ..Streams::default()
            },
        };
        let (session, name) = exec(&shim, &container, command).await?;
        let to_end = async {
            let (code, stdout, stderr) =
                tokio::join!(session.exit, output(session.stdout, most), output(session.stderr, most));
            Ok(ExecSyncResponse {
                stdout,
                stderr,
                exit_code: code.map_err(|_| Error::unknown("failed to exec in container: the pod's shim has gone"))?,
            })
        };
        let Ok(seconds @ 1..) = u64::try_from(request.timeout) else {
            return to_end.await;
        };
        let time = Duration::from_secs(seconds);
        match tokio::time::timeout(time, to_end).await {
            Ok(result) => result,
            Err(_) => {
                let kill = Request::KillExec {
                    exec: name,
                    signal: libc::SIGKILL,
                };
                if let Err(err) = shim.run(kill).await {
                    tracing::warn!(container = container.id, %err, "kill a command whose time was up");
                }
                Err(Error::deadline_exceeded(format!(
                    "failed to exec in container: timeout {seconds}s exceeded: context deadline exceeded"
                )))
            }
        }
    }
}

async fn output(stream: Option<Stream>, most: usize) -> Vec<u8> {
    let mut kept = Vec::new();
    if let Some(mut stream) = stream {
        // A stream that breaks off has ended.
        let _ = (&mut stream).take(most as u64).read_to_end(&mut kept).await;
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    }
    kept
}
