//! `kubectl describe`: what an object is, for people, with the events about it.

mod container;
mod events;
mod generic;
mod node;
mod pod;
mod text;
mod volumes;

use jiff::Zoned;
use serde_json::Value;

use crate::connection::Connection;
use crate::failure::{Failure, Result};
use crate::fetch::Query;
use crate::flags::Describe;
use crate::mapping::Mapping;
use crate::output;
use crate::print::tabs::align;
use crate::selection::{Target, select};
use crate::write::finish;

/// Runs the command.
pub async fn run(connection: &Connection, describe: &Describe) -> Result<()> {
    if describe.targets.is_empty() && describe.files.filename.is_empty() {
        return Err(Failure::message(
            "You must specify the type of resource to describe. Use \"kubectl api-resources\" for a complete list of supported resources.",
        ));
    }
    let mapping = Mapping::default();
    let files = &describe.files;
    let selection = select(
        connection,
        &mapping,
        &describe.targets,
        &files.filename,
        files.recursive,
    )
    .await?;
    let mut failures = Vec::new();
    let mut first = true;
    let mut found = false;
    for target in &selection.targets {
        let objects = match objects(connection, describe, target).await {
            Ok(objects) => objects,
            Err(failure) => {
                failures.push(failure);
                continue;
            }
        };
        for object in objects {
            let exact = target.name.is_none() || target.name.as_deref() == object["metadata"]["name"].as_str();
            found = true;
            let text = one(connection, describe, target, &object).await?;
            output(&match (exact, first) {
                (true, true) => align(&text),
                (true, false) => format!("\n\n{}", align(&text)),
                // Those that only begin with the name each end with an empty line.
                (false, _) => align(&text) + "\n",
            })?;
            first = false;
        }
    }
    if !found && failures.is_empty() {
        if describe.all_namespaces {
            eprintln!("No resources found");
        } else {
            eprintln!("No resources found in {} namespace.", connection.namespace);
        }
    }
    finish(failures)
}

/// The objects of a target. A name that is none of an object may be the beginning of some.
async fn objects(connection: &Connection, describe: &Describe, target: &Target) -> Result<Vec<Value>> {
    let wanted = Query {
        all_namespaces: describe.all_namespaces,
        selectors: describe.selectors.clone(),
        chunk: 500,
        table: None,
    };
    let items = |list: Value| list["items"].as_array().cloned().unwrap_or_default();
    let Some(name) = &target.name else {
        return connection.fetch(target, &wanted).await.map(items);
    };
    let failure = match connection.fetch(target, &wanted).await {
        Ok(object) => return Ok(vec![object]),
        Err(failure) if failure.is_not_found() => failure,
        Err(failure) => return Err(failure),
    };
    let all = Target {
        name: None,
        ..target.clone()
    };
    let Ok(list) = connection.fetch(&all, &wanted).await else {
        return Err(failure);
    };
    let begins = |object: &Value| {
        object["metadata"]["name"]
            .as_str()
            .is_some_and(|full| full.starts_with(name))
    };
    let found: Vec<_> = items(list).into_iter().filter(begins).collect();
    if found.is_empty() { Err(failure) } else { Ok(found) }
}

async fn one(connection: &Connection, describe: &Describe, target: &Target, object: &Value) -> Result<String> {
    let now = &Zoned::now();
    let events = if describe.show_events {
        Some(events::about(connection, object).await)
    } else {
        None
    };
    let mut text = match target.kind.group_resource().as_str() {
        "pods" => pod::describe(object, now),
        "nodes" => {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let lease = format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}");
            let lease = connection.get(&lease).await.map_err(|failure| failure.text());
            let selector = format!(
                "/api/v1/pods?fieldSelector=spec.nodeName%3D{name}%2Cstatus.phase%21%3DFailed%2Cstatus.phase%21%3DSucceeded&limit=500"
            );
            let pods = connection.get(&selector).await?;
            let pods = pods["items"].as_array().cloned().unwrap_or_default();
            node::describe(object, lease, &pods, now)
        }
        _ => generic::describe(object),
    };
    if let Some(events) = events {
        text += &events::describe(&events, now);
    }
    Ok(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test fails by panicking
mod tests {
    //! The objects in `testdata` as upstream's kubectl 1.35 describes them, byte for byte.

    use super::*;

    /// When upstream was asked, in UTC.
    const NOW: &str = "2026-11-23T22:54:28Z[UTC]";

    fn read(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_a_resized_pod_holds() {
        let now = &NOW.parse::<Zoned>().unwrap();
        let node = serde_json::json!({"status": {"allocatable": {"cpu": "2", "memory": "1Gi"}}});
        for (reason, requests) in [("Infeasible", "150m (7%)"), ("Deferred", "100 (5000%)")] {
            let pod = serde_json::json!({
                "metadata": {"name": "rz", "namespace": "default", "creationTimestamp": "2026-11-23T22:54:18Z"},
                "spec": {"containers": [{
                    "name": "c",
                    "resources": {"requests": {"cpu": "100", "memory": "48Mi"}, "limits": {"cpu": "100"}},
                }]},
                "status": {
                    "conditions": [{"type": "PodResizePending", "status": "True", "reason": reason}],
                    "containerStatuses": [{
                        "name": "c",
                        "allocatedResources": {"cpu": "150m", "memory": "48Mi"},
                        "resources": {"requests": {"cpu": "150m", "memory": "48Mi"}, "limits": {"cpu": "300m"}},
                    }],
                },
            });
            let text = node::describe(&node, Err(String::new()), &[pod], now);
            let row = format!("  default\trz\t\t{requests}\t100 (5000%)\t48Mi (4%)\t0 (0%)\t10s\n");
            assert!(text.contains(&row), "{reason}: {text}");
        }
    }

    #[test]
    fn a_variable_from_a_file_is_not_shown() {
        let env = serde_json::json!([
            {"name": "F", "valueFrom": {"fileKeyRef": {"key": "K", "path": "env", "volumeName": "v"}}},
            {"name": "V", "value": "1"},
        ]);
        let pod = serde_json::json!({"spec": {"containers": [{"name": "c", "env": env}]}});
        let text = pod::describe(&pod, &NOW.parse::<Zoned>().unwrap());
        assert!(text.contains("Environment:\n") && text.contains("V:\t1\n"), "{text}");
        assert!(!text.contains("F:"), "{text}");
    }

    #[test]
    fn as_upstream() {
        let now = &NOW.parse::<Zoned>().unwrap();
        let events = read(include_str!("testdata/events.json"));
        let events = events::describe(events.as_array().unwrap(), now);
        let pod = read(include_str!("testdata/pod.json"));
        let pending = read(include_str!("testdata/pending.json"));
        let node = read(include_str!("testdata/node.json"));
        let lease = read(include_str!("testdata/lease.json"));
        let mut second = pod.clone();
        second["metadata"]["name"] = "second".into();
        second["metadata"]["namespace"] = "kube-system".into();
        let pods = [pod.clone(), second];
        for (what, text, upstream) in [
            (
                "pod",
                pod::describe(&pod, now) + &events,
                include_str!("testdata/pod.txt"),
            ),
            (
                "pending",
                pod::describe(&pending, now) + &events,
                include_str!("testdata/pending.txt"),
            ),
            (
                "node",
                node::describe(&node, Ok(lease), &pods, now) + &events::describe(&[], now),
                include_str!("testdata/node.txt"),
            ),
        ] {
            assert_eq!(align(&text), upstream, "{what}");
        }
    }
}
