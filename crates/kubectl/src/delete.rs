//! `kubectl delete`: removes objects and waits until they are gone.

use std::time::Duration;

use futures::StreamExt;
use http::Method;
use serde_json::{Value, json};

use crate::connection::{Ask, Connection};
use crate::duration;
use crate::failure::{Failure, Result};
use crate::fetch::Query;
use crate::flags::{Delete, DryRun};
use crate::mapping::Mapping;
use crate::selection::{Target, query, select};
use crate::write::finish;
use crate::{output, warning};

/// How long a deletion is waited for when no timeout is given.
const FOREVER: Duration = Duration::from_secs(168 * 3600);

/// Runs the command.
pub async fn run(connection: &Connection, delete: &Delete) -> Result<()> {
    let grace = grace_period(delete)?;
    let policy = match delete.cascade.as_str() {
        "background" | "true" => "Background",
        "foreground" => "Foreground",
        "orphan" | "false" => "Orphan",
        other => {
            return Err(Failure::message(format!(
                "invalid cascade value ({other}). Must be \"background\", \"foreground\", or \"orphan\""
            )));
        }
    };
    if let Some(output) = delete.output.as_deref().filter(|output| *output != "name") {
        return Err(Failure::message(format!(
            "unexpected -o output mode: {output}. We only support '-o name'"
        )));
    }
    let timeout = match &delete.timeout {
        Some(text) => duration::parse("--timeout", text)?,
        None => Duration::ZERO,
    };
    if delete.force && grace == Some(0) {
        warning(
            "Immediate deletion does not wait for confirmation that the running resource has been terminated. The resource may continue to run on the cluster indefinitely.",
        );
    }
    if delete.targets.is_empty() && delete.files.filename.is_empty() {
        return Err(Failure::message(
            "You must provide one or more resources by argument or filename.\nExample resource specifications include:\n   '-f rsrc.yaml'\n   '--filename=rsrc.json'\n   '<resource> <name>'\n   '<resource>'",
        ));
    }
    let (targets, mut failures) = targets(connection, delete).await?;
    if targets.is_empty() && failures.is_empty() {
        return output("No resources found\n");
    }
    let mut gone = Vec::new();
    for target in targets {
        match one(connection, delete, &target, grace, policy).await {
            Ok(uid) => gone.push((target, uid)),
            Err(failure) if delete.ignore_not_found && failure.is_not_found() => {}
            Err(failure) => failures.push(failure),
        }
    }
    if failures.is_empty() && delete.wait && delete.dry_run == DryRun::None {
        let timeout = if timeout.is_zero() { FOREVER } else { timeout };
        for (target, uid) in gone {
            let waited = tokio::time::timeout(timeout, wait(connection, &target, &uid)).await;
            match waited {
                Ok(Ok(())) => {}
                // Who may delete but not watch has done what can be done.
                Ok(Err(failure)) if failure.is("Forbidden") || failure.is("MethodNotAllowed") => {}
                Ok(Err(failure)) => failures.push(failure),
                Err(_) => failures.push(Failure::message(format!(
                    "timed out waiting for the condition on {}/{}",
                    target.kind.group_resource(),
                    target.name.as_deref().unwrap_or_default(),
                ))),
            }
        }
    }
    finish(failures)
}

/// The seconds to send, if any.
fn grace_period(delete: &Delete) -> Result<Option<i64>> {
    let mut grace = delete.grace_period;
    if delete.now {
        if grace != -1 {
            return Err(Failure::message(
                "--now and --grace-period cannot be specified together",
            ));
        }
        grace = 1;
    }
    if grace == 0 && !delete.force {
        // Nothing that still runs is forgotten without --force.
        grace = 1;
    }
    if delete.force && grace < 0 {
        grace = 0;
    }
    if delete.force && grace > 0 {
        return Err(Failure::message(
            "--force and --grace-period greater than 0 cannot be specified together",
        ));
    }
    Ok((grace >= 0).then_some(grace))
}

/// The objects to delete, each by its name.
async fn targets(connection: &Connection, delete: &Delete) -> Result<(Vec<Target>, Vec<Failure>)> {
    let mapping = Mapping::default();
    let files = &delete.files;
    let selected = delete.selectors.selector.is_some() || delete.selectors.field_selector.is_some();
    let selection = select(connection, &mapping, &delete.targets, &files.filename, files.recursive).await?;
    if delete.all && delete.selectors.selector.is_some() {
        return Err(Failure::message(
            "setting 'all' parameter but found a non empty selector. ",
        ));
    }
    let mut targets = Vec::new();
    let mut failures = Vec::new();
    for target in selection.targets {
        if target.name.is_some() {
            if selected || delete.all {
                return Err(Failure::message("name cannot be provided when a selector is specified"));
            }
            targets.push(target);
            continue;
        }
        if !selected && !delete.all {
            return Err(Failure::message("resource(s) were provided, but no name was specified"));
        }
        let wanted = Query {
            all_namespaces: delete.all_namespaces,
            selectors: delete.selectors.clone(),
            chunk: 500,
            table: None,
        };
        match connection.fetch(&target, &wanted).await {
            Ok(list) => {
                for item in list["items"].as_array().into_iter().flatten() {
                    targets.push(Target {
                        name: item["metadata"]["name"].as_str().map(str::to_owned),
                        namespace: item["metadata"]["namespace"].as_str().map(str::to_owned),
                        ..target.clone()
                    });
                }
            }
            Err(failure) => failures.push(failure),
        }
    }
    Ok((targets, failures))
}

/// Deletes one object and says so; gives the uid of what is going.
async fn one(
    connection: &Connection,
    delete: &Delete,
    target: &Target,
    grace: Option<i64>,
    policy: &str,
) -> Result<String> {
    let mut uid = String::new();
    if delete.dry_run != DryRun::Client {
        let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy});
        if let Some(grace) = grace {
            options["gracePeriodSeconds"] = grace.into();
        }
        if delete.dry_run == DryRun::Server {
            options["dryRun"] = json!(["All"]);
        }
        let ask = Ask {
            body: Some(("application/json", options.to_string().into_bytes())),
            ..Ask::default()
        };
        let answer = connection
            .json(Method::DELETE, &connection.path(target, false), ask)
            .await;
        let answer = answer.map_err(|failure| match &target.source {
            Some(source) => failure.while_doing("deleting", source),
            None => failure,
        })?;
        let from = if answer["kind"] == "Status" {
            &answer["details"]
        } else {
            &answer["metadata"]
        };
        uid = from["uid"].as_str().unwrap_or_default().to_owned();
    }
    let (kind, name) = (target.kind.group_kind(), target.name.as_deref().unwrap_or_default());
    let operation = if grace == Some(0) { "force deleted" } else { "deleted" };
    let place = if target.kind.namespaced {
        format!(
            " from {} namespace",
            target.namespace.as_deref().unwrap_or(&connection.namespace)
        )
    } else {
        String::new()
    };
    output(&if delete.output.is_some() {
        format!("{kind}/{name}\n")
    } else {
        format!("{kind} {name:?} {operation}{place}{}\n", delete.dry_run.note())
    })?;
    Ok(uid)
}

/// Returns when the object is gone, or another has its name.
async fn wait(connection: &Connection, target: &Target, uid: &str) -> Result<()> {
    let name = target.name.as_deref().unwrap_or_default();
    let list = Target {
        name: None,
        ..target.clone()
    };
    let path = connection.path(&list, false);
    loop {
        let selector = ("fieldSelector", format!("metadata.name={name}"));
        let now = connection
            .get(&(path.clone() + &query(std::slice::from_ref(&selector))))
            .await?;
        let there = now["items"].as_array().into_iter().flatten().any(|item| is(item, uid));
        if !there {
            return Ok(());
        }
        let version = now["metadata"]["resourceVersion"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let parameters = [("watch", "true".to_owned()), ("resourceVersion", version), selector];
        let events = connection
            .stream(Method::GET, &(path.clone() + &query(&parameters)), Ask::default())
            .await?;
        let mut text = Vec::new();
        let mut events = events;
        // A watch that ends is begun anew from the list.
        while let Some(chunk) = events.next().await {
            text.extend_from_slice(&chunk?);
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line).unwrap_or_default();
                if event["type"] == "DELETED" && is(&event["object"], uid) {
                    return Ok(());
                }
            }
        }
    }
}

fn is(object: &Value, uid: &str) -> bool {
    uid.is_empty() || object["metadata"]["uid"] == uid
}
