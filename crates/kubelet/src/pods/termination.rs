//! What a container leaves behind as its last words.

use k8s_openapi::api::core::v1::Pod;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::observed::Instance;
use super::pod::PodExt;

const LONGEST_MESSAGE: u64 = 4096;
const LONGEST_LOG: u64 = 2048;
const LOG_LINES: usize = 80;

/// The message of a container that ended: its termination message file, or the end of its log when it failed and asks for that.
pub async fn message(pod: &Pod, instance: &Instance) -> String {
    let mut message = String::new();
    if let Some(path) = &instance.message_file {
        message = tail(path, LONGEST_MESSAGE).await;
    }
    let asks = |policy: Option<&str>| policy == Some("FallbackToLogsOnError");
    let falls_back = match pod.container(&instance.name) {
        Some((_, container)) => asks(container.termination_message_policy.as_deref()),
        None => pod
            .ephemeral()
            .any(|container| container.name == instance.name && asks(container.termination_message_policy.as_deref())),
    };
    if message.is_empty() && falls_back && instance.exit_code != 0 {
        message = log_tail(&tail(&instance.log_path, LONGEST_LOG * 4).await);
    }
    message
}

async fn tail(path: &str, most: u64) -> String {
    let read = async {
        let mut file = tokio::fs::File::open(path).await?;
        let length = file.metadata().await?.len();
        file.seek(std::io::SeekFrom::Start(length.saturating_sub(most))).await?;
        let mut bytes = Vec::new();
        file.take(most).read_to_end(&mut bytes).await?;
        std::io::Result::Ok(bytes)
    };
    // No file, no message: a container that could not be started has neither.
    String::from_utf8_lossy(&read.await.unwrap_or_default()).into_owned()
}

/// The last lines of a CRI log (`TIME STREAM TAG TEXT`), only their text.
fn log_tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).collect();
    let mut text = lines[lines.len().saturating_sub(LOG_LINES)..]
        .iter()
        .flat_map(|line| [line, "\n"])
        .collect::<String>();
    let mut cut = text.len().saturating_sub(LONGEST_LOG as usize);
    while !text.is_char_boundary(cut) {
        cut += 1;
    }
    text.split_off(cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_its_text() {
        let log = "ut off\n2026-01-01T00:00:00Z stdout F one\n2026-01-01T00:00:01Z stderr F two words\n";
        assert_eq!(log_tail(log), "one\ntwo words\n");
    }
}
