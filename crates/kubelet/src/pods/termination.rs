//! What a container leaves behind as its last words.

use k8s_openapi::api::core::v1::Pod;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::observed::Instance;
use super::pod::PodExt;

const LONGEST_MESSAGE: u64 = 4096;
const LONGEST_LOG: usize = 2048;
const LOG_LINES: usize = 80;
/// As much of a log's end as surely holds that: a record is no longer than half of it.
const LOG_END: u64 = 32 << 10;

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
        message = log_tail(&tail(&instance.log_path, LOG_END).await);
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

/// The last lines of a CRI log (`TIME STREAM TAG TEXT`), only their text. The first may be cut off, and then says nothing.
fn log_tail(log: &str) -> String {
    let mut records: Vec<(&str, &str)> = log.lines().filter_map(record).collect();
    records.drain(..records.len().saturating_sub(LOG_LINES));
    let mut text = String::new();
    for (tag, words) in records {
        text.push_str(words);
        // The rest of a line is in the records after it.
        if tag != "P" {
            text.push('\n');
        }
    }
    let cut = text.ceil_char_boundary(text.len().saturating_sub(LONGEST_LOG));
    text.split_off(cut)
}

fn record(line: &str) -> Option<(&str, &str)> {
    let mut parts = line.splitn(4, ' ');
    let (time, stream, tag) = (parts.next()?, parts.next()?, parts.next()?);
    let whole = time.parse::<jiff::Timestamp>().is_ok() && matches!(stream, "stdout" | "stderr");
    whole.then_some((tag, parts.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_its_text() {
        let log = "ut off and more words\n2026-01-01T00:00:00Z stdout F one\n2026-01-01T00:00:01Z stderr F two words\n\
                   2026-01-01T00:00:02Z stdout P thr\n2026-01-01T00:00:02Z stdout F ee\n";
        assert_eq!(log_tail(log), "one\ntwo words\nthree\n");
    }

    #[test]
    fn the_end_of_a_log_is_short() {
        let line = |text: &str| format!("2026-01-01T00:00:00Z stdout F {text}\n");
        let many: String = (0..200).map(|n| line(&n.to_string())).collect();
        let tail = log_tail(&many);
        assert_eq!((tail.lines().next(), tail.lines().count()), (Some("120"), 80));
        let long = log_tail(&(line(&"é".repeat(3000)) + &line("end")));
        assert!(
            long.len() <= LONGEST_LOG && long.ends_with("é\nend\n"),
            "{}",
            long.len()
        );
    }
}
