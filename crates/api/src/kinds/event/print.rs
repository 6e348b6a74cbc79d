//! The table of Events.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use serde_json::Value;

use crate::table::{Column, NAME, age};

pub(super) const COLUMNS: &[Column] = &[
    Column::new("Last Seen", "string", "The time at which the most recent occurrence of this event was recorded."),
    Column::new("Type", "string", "Type of this event (Normal, Warning), new types could be added in the future"),
    Column::new("Reason", "string", "This should be a short, machine understandable string that gives the reason for the transition into the object's current status."),
    Column::new("Object", "string", "The object that this event is about."),
    Column::new("Subobject", "string", "If referring to a piece of an object instead of an entire object, this string should contain a valid JSON/Go field access statement, such as desiredState.manifest.containers[2]. For example, if the object reference is to a container within a pod, this would take on a value like: \"spec.containers{name}\" (where \"name\" refers to the name of the container that triggered the event) or if no container name is specified \"spec.containers[2]\" (container with index 2 in this pod). This syntax is chosen only to have some well-defined way of referencing a part of an object.").wide(),
    Column::new("Source", "string", "The component reporting this event. Should be a short machine understandable string.").wide(),
    Column::new("Message", "string", "A human-readable description of the status of this operation."),
    Column::new("First Seen", "string", "The time at which the event was first recorded. (Time of server receipt is in TypeMeta.)").wide(),
    Column::new("Count", "string", "The number of times this event has occurred.").wide(),
    Column { priority: 1, ..NAME },
];

fn source(event: &Event) -> String {
    let some = |value: Option<&String>| value.filter(|value| !value.is_empty()).cloned();
    let source = event.source.as_ref();
    let component = some(source.and_then(|source| source.component.as_ref()))
        .or_else(|| event.reporting_component.clone())
        .unwrap_or_default();
    let host = some(source.and_then(|source| source.host.as_ref())).or_else(|| some(event.reporting_instance.as_ref()));
    match host {
        Some(host) => format!("{component}, {host}"),
        None => component,
    }
}

pub(super) fn row(event: &Event, now: Timestamp) -> Vec<Value> {
    let event_time = event.event_time.as_ref().map(|time| time.0);
    let first = event.first_timestamp.as_ref().map(|time| time.0).or(event_time);
    let mut last = event.last_timestamp.as_ref().map(|time| time.0).or(first);
    let mut count = event.count.unwrap_or_default().max(1);
    if let Some(series) = &event.series {
        last = series.last_observed_time.as_ref().map(|time| time.0);
        count = series.count.unwrap_or_default();
    }
    let object = &event.involved_object;
    let kind = object.kind.as_deref().unwrap_or_default().to_lowercase();
    let target = match object.name.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => format!("{kind}/{name}"),
        None => kind,
    };
    let text = |value: &Option<String>| Value::from(value.as_deref().unwrap_or_default());
    vec![
        age(last, now).into(),
        text(&event.type_),
        text(&event.reason),
        target.into(),
        text(&object.field_path),
        source(event).into(),
        event.message.as_deref().unwrap_or_default().trim().into(),
        age(first, now).into(),
        count.into(),
        text(&event.metadata.name),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::kinds::event::{CORE, EVENTS};
    use crate::{FieldValidation, Format};

    #[test]
    fn one_event_in_two_versions() {
        let body = br#"{"metadata":{"name":"e","namespace":"default"},"eventTime":"2024-01-01T00:00:00.000000Z",
            "reportingController":"kubelet","reportingInstance":"n1","action":"Start","reason":"Started",
            "regarding":{"kind":"Pod","name":"web","namespace":"default"},"note":" hello ","type":"Normal"}"#;
        let mut event = EVENTS
            .strategy
            .decode(body, Format::Json, FieldValidation::Strict)
            .unwrap()
            .object;
        assert!(EVENTS.strategy.validate_create(&*event).is_empty());
        let stored = event.encode().unwrap();
        let core: Value = serde_json::from_slice(&stored.stamped(7)).unwrap();
        assert_eq!(
            (core["apiVersion"].as_str(), core["message"].as_str()),
            (Some("v1"), Some(" hello "))
        );
        let bytes = stored.stamped(7);
        let new: Value = serde_json::from_slice(&EVENTS.strategy.wire(&bytes).unwrap()).unwrap();
        assert_eq!(new["apiVersion"], "events.k8s.io/v1");
        assert_eq!(new["note"], " hello ");
        assert_eq!(new["metadata"]["resourceVersion"], "7");
        let now: Timestamp = "2024-01-01T00:03:10Z".parse().unwrap();
        assert_eq!(
            CORE.strategy.row(&*event, now),
            [
                "3m10s",
                "Normal",
                "Started",
                "pod/web",
                "",
                "kubelet, n1",
                "hello",
                "3m10s"
            ]
            .map(Value::from)
            .into_iter()
            .chain([1.into(), "e".into()])
            .collect::<Vec<Value>>()
        );
        assert_eq!(EVENTS.strategy.field(&*event, "regarding.name").as_deref(), Some("web"));
        assert_eq!(
            CORE.strategy.field(&*event, "involvedObject.name").as_deref(),
            Some("web")
        );
    }
}
