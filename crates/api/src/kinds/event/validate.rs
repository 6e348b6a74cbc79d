//! Validation of Events: little for core/v1, as its writers expect, more for events.k8s.io/v1.

use k8s_openapi::api::core::v1::Event;

use crate::field::{FieldError, Path};
use crate::meta::names;

/// The most bytes of an event's note.
const NOTE_MAX: usize = 1024;
const SHORT_MAX: usize = 128;

fn namespaces(event: &Event, errors: &mut Vec<FieldError>) {
    let own = event.metadata.namespace.as_deref().unwrap_or_default();
    let involved = event.involved_object.namespace.as_deref().unwrap_or_default();
    // Events of objects without a namespace are kept in "default".
    let fits = if involved.is_empty() {
        own.is_empty() || own == "default"
    } else {
        own == involved
    };
    if !fits {
        let object = Path::new("involvedObject");
        errors.push(FieldError::invalid(
            &object.child("namespace"),
            involved,
            "does not match event.namespace",
        ));
    }
}

pub(super) fn core(event: &Event) -> Vec<FieldError> {
    let mut errors = Vec::new();
    namespaces(event, &mut errors);
    errors
}

pub(super) fn new(event: &Event) -> Vec<FieldError> {
    let mut errors = Vec::new();
    namespaces(event, &mut errors);
    if event.event_time.is_none() {
        errors.push(FieldError::required(&Path::new("eventTime"), ""));
    }
    if let Some(series) = &event.series {
        let path = Path::new("series");
        let count = series.count.unwrap_or_default();
        if count < 2 {
            errors.push(FieldError::invalid(&path.child("count"), "", "should be at least 2"));
        }
        if series.last_observed_time.is_none() {
            errors.push(FieldError::required(&path.child("lastObservedTime"), ""));
        }
    }
    let controller = event.reporting_component.as_deref().unwrap_or_default();
    let path = Path::new("reportingController");
    if controller.is_empty() {
        errors.push(FieldError::required(&path, ""));
    } else {
        errors.extend(
            names::qualified_name(controller)
                .into_iter()
                .map(|m| FieldError::invalid(&path, controller, m)),
        );
    }
    for (field, value) in [
        ("reportingInstance", &event.reporting_instance),
        ("action", &event.action),
        ("reason", &event.reason),
    ] {
        let path = Path::new(field);
        match value.as_deref().unwrap_or_default() {
            "" => errors.push(FieldError::required(&path, "")),
            value if value.len() > SHORT_MAX => {
                errors.push(FieldError::invalid(
                    &path,
                    "",
                    format!("can have at most {SHORT_MAX} characters"),
                ));
            }
            _ => {}
        }
    }
    if event.message.as_ref().is_some_and(|note| note.len() > NOTE_MAX) {
        errors.push(FieldError::invalid(
            &Path::new("message"),
            "",
            format!("can have at most {NOTE_MAX} characters"),
        ));
    }
    let kind = event.type_.as_deref().unwrap_or_default();
    if !matches!(kind, "Normal" | "Warning") {
        errors.push(FieldError::invalid(
            &Path::new("type"),
            "",
            format!("has invalid value: {kind}"),
        ));
    }
    errors
}

pub(super) fn new_update(new: &Event, old: &Event) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if new.series.is_some() || old.series.is_some() {
        errors.extend(self::new(new));
    }
    for (field, same) in [
        ("involvedObject", new.involved_object == old.involved_object),
        ("reason", new.reason == old.reason),
        ("message", new.message == old.message),
        ("source", new.source == old.source),
        ("firstTimestamp", new.first_timestamp == old.first_timestamp),
        ("lastTimestamp", new.last_timestamp == old.last_timestamp),
        ("count", new.count == old.count),
        ("type", new.type_ == old.type_),
        ("eventTime", new.event_time == old.event_time),
        ("action", new.action == old.action),
        ("related", new.related == old.related),
        (
            "reportingController",
            new.reporting_component == old.reporting_component,
        ),
        ("reportingInstance", new.reporting_instance == old.reporting_instance),
    ] {
        if !same {
            errors.push(FieldError::invalid(&Path::new(field), "", "field is immutable"));
        }
    }
    errors
}
