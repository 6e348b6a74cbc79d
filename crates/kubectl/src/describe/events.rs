//! The events about an object.

use jiff::{Timestamp, Zoned};
use serde_json::Value;

use super::text::{since, string};
use crate::connection::Connection;
use crate::selection::query;

/// Asks for the events about an object. A description is worth having without them.
pub async fn about(connection: &Connection, object: &Value) -> Vec<Value> {
    let metadata = &object["metadata"];
    let namespace = string(metadata, "namespace");
    let mut selector = vec![format!("involvedObject.name={}", string(metadata, "name"))];
    if !namespace.is_empty() {
        selector.push(format!("involvedObject.namespace={namespace}"));
    }
    selector.push(format!("involvedObject.kind={}", string(object, "kind")));
    // A node's events carry its name where others carry a uid.
    if string(object, "kind") != "Node" {
        selector.push(format!("involvedObject.uid={}", string(metadata, "uid")));
    }
    let path = if namespace.is_empty() {
        "/api/v1/events".to_owned()
    } else {
        format!("/api/v1/namespaces/{namespace}/events")
    };
    let parameters = [("fieldSelector", selector.join(",")), ("limit", "500".to_owned())];
    let list = connection.get(&(path + &query(&parameters))).await.unwrap_or_default();
    let mut events = list["items"].as_array().cloned().unwrap_or_default();
    // Upstream asks by uid and then by name.
    events.sort_by_key(|event| string(&event["involvedObject"], "uid") != string(metadata, "uid"));
    events
}

/// The table of events, the oldest first.
pub fn describe(events: &[Value], now: &Zoned) -> String {
    if events.is_empty() {
        return "Events:\t<none>\n".to_owned();
    }
    let mut events: Vec<_> = events.iter().collect();
    events.sort_by_key(|event| string(event, "lastTimestamp").parse::<Timestamp>().ok());
    let mut text = "Events:\n  Type\tReason\tAge\tFrom\tMessage\n  ----\t------\t----\t----\t-------\n".to_owned();
    for event in events {
        let component = string(&event["source"], "component");
        let from = if component.is_empty() {
            string(event, "reportingComponent")
        } else {
            component
        };
        let part = match string(&event["involvedObject"], "fieldPath") {
            "" => String::new(),
            path => format!("{path}: "),
        };
        text += &format!(
            "  {}\t{}\t{}\t{from}\t{part}{}\n",
            string(event, "type"),
            string(event, "reason"),
            age(event, now),
            string(event, "message").trim(),
        );
    }
    text
}

fn age(event: &Value, now: &Zoned) -> String {
    let first = match &event["firstTimestamp"] {
        Value::Null => since(&event["eventTime"], now),
        first => since(first, now),
    };
    let several = |last: &Value, count: &Value| format!("{} (x{count} over {first})", since(last, now));
    let series = &event["series"];
    if series.is_object() {
        several(&series["lastObservedTime"], &series["count"])
    } else if event["count"].as_i64().unwrap_or(0) > 1 {
        several(&event["lastTimestamp"], &event["count"])
    } else {
        first
    }
}
