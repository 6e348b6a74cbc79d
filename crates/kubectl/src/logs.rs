//! `kubectl logs`.

use std::io::Write;

use bytes::Bytes;
use futures::{Stream, StreamExt, future::try_join_all};
use http::Method;
use serde_json::Value;

use crate::connection::{Ask, Connection};
use crate::failure::{Failure, Result};
use crate::flags::Logs;
use crate::selection::{escape, query};
use crate::{duration, output, pods};

/// How many lines of each pod are shown when several are selected.
const TAIL_OF_SELECTED: i64 = 10;

/// Runs the command.
pub async fn run(connection: &Connection, logs: &Logs) -> Result<()> {
    let mut container = logs.container.clone();
    if let [_, second] = logs.target.as_slice() {
        if container.is_some() {
            return Err(Failure::message(
                "only one of -c or an inline [CONTAINER] arg is allowed",
            ));
        }
        container = Some(second.clone());
    }
    check(logs, container.as_deref())?;
    let since = logs.since.as_deref().map(|since| duration::parse("--since", since));
    if let Some(Err(mistake)) = since {
        let text = mistake.text() + "See 'kubectl logs --help' for usage.";
        return Err(Failure::Usage(text));
    }
    let pods = match &logs.selector {
        Some(selector) => {
            let parameters = [("labelSelector", selector.clone())];
            let path = format!("/api/v1/namespaces/{}/pods", connection.namespace) + &query(&parameters);
            let list = connection.get(&path).await?;
            let pods = list["items"].as_array().cloned().unwrap_or_default();
            if pods.is_empty() {
                eprintln!("No resources found in {} namespace.", connection.namespace);
            }
            pods
        }
        None => vec![find(connection, &logs.target[0]).await?],
    };
    let mut sources = Vec::new();
    for pod in &pods {
        if logs.all_containers {
            sources.extend(pods::containers(pod).into_iter().map(|container| (pod, container)));
        } else {
            sources.push((pod, pods::container(pod, container.as_deref(), false)?));
        }
    }
    if logs.follow && sources.len() > 1 {
        // Side by side: each line goes out whole.
        try_join_all(
            sources
                .iter()
                .map(|(pod, container)| one(connection, logs, pod, container)),
        )
        .await?;
    } else {
        for (pod, container) in sources {
            one(connection, logs, pod, container).await?;
        }
    }
    Ok(())
}

/// As [`pods::find`], but upstream words it otherwise when there is no such pod.
async fn find(connection: &Connection, target: &str) -> Result<Value> {
    pods::find(connection, target).await.map_err(|failure| match &failure {
        Failure::Status(status) if failure.is_not_found() => Failure::message(format!(
            "error from server (NotFound): {} in namespace {:?}",
            status.message.as_deref().unwrap_or_default(),
            connection.namespace
        )),
        _ => failure,
    })
}

fn check(logs: &Logs, container: Option<&str>) -> Result<()> {
    let mistake = if logs.target.is_empty() && logs.selector.is_none() {
        "expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]'.\nPOD or TYPE/NAME is a required argument for the logs command\nSee 'kubectl logs -h' for help and examples"
    } else if !logs.target.is_empty() && logs.selector.is_some() {
        "only a selector (-l) or a POD name is allowed\nSee 'kubectl logs -h' for help and examples"
    } else if logs.since.is_some() && logs.since_time.is_some() {
        "at most one of `sinceTime` or `sinceSeconds` may be specified"
    } else if logs.all_containers && container.is_some() {
        "--all-containers=true should not be specified with container name"
    } else if logs.tail.is_some_and(|tail| tail < -1) {
        "--tail must be greater than or equal to -1"
    } else if logs.limit_bytes.is_some_and(|limit| limit < 1) {
        "--limit-bytes must be greater than 0"
    } else {
        return Ok(());
    };
    Err(Failure::message(mistake))
}

fn parameters(logs: &Logs, container: &str) -> Result<Vec<(&'static str, String)>> {
    let flag = |set: bool| if set { "true".to_owned() } else { String::new() };
    let since = match &logs.since {
        Some(since) => {
            let since = duration::parse("--since", since)?;
            // None at all is as if it were not given.
            if since.is_zero() {
                String::new()
            } else {
                since.as_secs_f64().ceil().to_string()
            }
        }
        None => String::new(),
    };
    let tail = match (logs.tail, &logs.selector) {
        (Some(-1), _) | (None, None) => String::new(),
        (Some(tail), _) => tail.to_string(),
        (None, Some(_)) => TAIL_OF_SELECTED.to_string(),
    };
    Ok(vec![
        ("container", container.to_owned()),
        ("follow", flag(logs.follow)),
        (
            "limitBytes",
            logs.limit_bytes.map(|limit| limit.to_string()).unwrap_or_default(),
        ),
        ("previous", flag(logs.previous)),
        ("sinceSeconds", since),
        ("sinceTime", logs.since_time.clone().unwrap_or_default()),
        ("tailLines", tail),
        ("timestamps", flag(logs.timestamps)),
    ])
}

async fn one(connection: &Connection, logs: &Logs, pod: &Value, container: &str) -> Result<()> {
    let metadata = &pod["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default();
    let namespace = metadata["namespace"].as_str().unwrap_or(&connection.namespace);
    let path = format!("/api/v1/namespaces/{namespace}/pods/{}/log", escape(name));
    let path = path + &query(&parameters(logs, container)?);
    let ask = Ask {
        accept: Some("*/*"),
        ..Ask::default()
    };
    let stream = connection.stream(Method::GET, &path, ask).await?;
    let prefix = if logs.prefix {
        format!("[pod/{name}/{container}] ")
    } else {
        String::new()
    };
    copy(stream, &prefix).await
}

/// Writes the log as it comes, in whole lines when each has a prefix.
async fn copy(mut stream: impl Stream<Item = Result<Bytes>> + Unpin, prefix: &str) -> Result<()> {
    let mut rest = Vec::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        if prefix.is_empty() {
            write(&chunk)?;
            continue;
        }
        rest.extend_from_slice(&chunk);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            write(&[prefix.as_bytes(), &line].concat())?;
        }
    }
    if rest.is_empty() {
        Ok(())
    } else {
        output(&format!("{prefix}{}", String::from_utf8_lossy(&rest)))
    }
}

fn write(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    // Whoever reads the output may have enough of it.
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(|_| Failure::Silent)
}
