//! Exec and attach: the part that both transports share.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::ends::Inbox;
use super::status::Status;
use super::{Stdio, StreamingRuntime, TerminalSize, Wanted};

/// What is done with the streams.
pub(crate) enum Command {
    Exec { container_id: String, command: Vec<String> },
    Attach { container_id: String },
}

/// A session of exec or attach.
pub(crate) struct RemoteCommand {
    pub(crate) runtime: Arc<dyn StreamingRuntime>,
    pub(crate) command: Command,
    pub(crate) wanted: Wanted,
}

impl RemoteCommand {
    /// Runs to the end; how it ended.
    ///
    /// A process that exec started goes on when the client is lost. Attach has then nothing left to do, and a
    /// container that is silent would never tell it so.
    pub(crate) async fn run(self, stdio: Stdio) -> Status {
        let tty = self.wanted.tty;
        match self.command {
            Command::Exec { container_id, command } => {
                let result = self.runtime.exec(&container_id, &command, tty, stdio).await;
                Status::of_exec(result, &command)
            }
            Command::Attach { container_id } => {
                let lost = stdio.client_lost.clone();
                let attached = self.runtime.attach(&container_id, tty, stdio);
                tokio::select! {
                    result = attached => Status::of_attach(result),
                    () = lost.cancelled() => Status::success(),
                }
            }
        }
    }
}

/// The version of a protocol by its name; the oldest has none in it.
pub(crate) fn protocol_version(protocol: &str) -> u8 {
    match protocol.as_bytes() {
        [b'v', digit @ b'1'..=b'9', b'.', ..] => digit - b'0',
        _ => 1,
    }
}

/// The most bytes that one terminal size may take.
const MAX_SIZE_MESSAGE: usize = 4096;

/// Turns the resize stream's JSON into sizes. When they come faster than they are taken, only the newest counts.
pub(crate) fn terminal_sizes(mut inbox: Inbox) -> mpsc::Receiver<TerminalSize> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut text = Vec::new();
        let mut newest = None;
        loop {
            tokio::select! {
                chunk = inbox.chunk() => {
                    let Some(chunk) = chunk else { break };
                    text.extend_from_slice(&chunk);
                    newest = take_sizes(&mut text).or(newest);
                    if text.len() > MAX_SIZE_MESSAGE {
                        tracing::debug!("what came as terminal size is none");
                        return;
                    }
                }
                permit = sender.reserve(), if newest.is_some() => {
                    let (Ok(permit), Some(size)) = (permit, newest.take()) else { return };
                    permit.send(size);
                }
            }
        }
        if let Some(size) = newest {
            // The receiver may be gone with the process.
            let _ = sender.send(size).await;
        }
    });
    receiver
}

/// Takes every complete JSON value out of `text`; the last size among them.
fn take_sizes(text: &mut Vec<u8>) -> Option<TerminalSize> {
    let mut values = serde_json::Deserializer::from_slice(text).into_iter::<TerminalSize>();
    let mut newest = None;
    while let Some(Ok(size)) = values.next() {
        newest = Some(size);
    }
    let taken = values.byte_offset();
    text.drain(..taken);
    newest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_taken_as_they_become_whole() {
        let size = |width, height| Some(TerminalSize { width, height });
        for (text, newest, left) in [
            (&b""[..], None, &b""[..]),
            (b"{\"Width\":80,\"Height\":24}\n", size(80, 24), b"\n"),
            (
                b"{\"Width\":80,\"Height\":24}{\"Width\":90,\"Height\":25}{\"Wi",
                size(90, 25),
                b"{\"Wi",
            ),
            (b"{\"Width\":", None, b"{\"Width\":"),
        ] {
            let mut text = text.to_vec();
            assert_eq!(take_sizes(&mut text), newest);
            assert_eq!(text.trim_ascii(), left.trim_ascii());
        }
    }
}
