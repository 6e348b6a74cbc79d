//! Conversion between the two versions of Event.

use k8s_openapi::api::core::v1::{Event, EventSeries};
use k8s_openapi::api::events::v1::{Event as NewEvent, EventSeries as NewSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;

/// The stored form of an events.k8s.io/v1 Event.
pub(super) fn to_core(event: NewEvent) -> Event {
    Event {
        action: event.action,
        count: event.deprecated_count,
        event_time: event.event_time,
        first_timestamp: event.deprecated_first_timestamp,
        involved_object: event.regarding.unwrap_or_default(),
        last_timestamp: event.deprecated_last_timestamp,
        message: event.note,
        metadata: event.metadata,
        reason: event.reason,
        related: event.related,
        reporting_component: event.reporting_controller,
        reporting_instance: event.reporting_instance,
        series: event.series.map(|series| EventSeries {
            count: Some(series.count),
            last_observed_time: Some(series.last_observed_time),
        }),
        source: event.deprecated_source,
        type_: event.type_,
    }
}

/// The events.k8s.io/v1 form of a stored Event.
pub(super) fn from_core(event: Event) -> NewEvent {
    NewEvent {
        action: event.action,
        deprecated_count: event.count,
        deprecated_first_timestamp: event.first_timestamp,
        deprecated_last_timestamp: event.last_timestamp,
        deprecated_source: event.source,
        event_time: event.event_time,
        metadata: event.metadata,
        note: event.message,
        reason: event.reason,
        regarding: Some(event.involved_object),
        related: event.related,
        reporting_controller: event.reporting_component,
        reporting_instance: event.reporting_instance,
        series: event.series.map(|series| NewSeries {
            count: series.count.unwrap_or_default(),
            last_observed_time: series.last_observed_time.unwrap_or(MicroTime(Timestamp::UNIX_EPOCH)),
        }),
        type_: event.type_,
    }
}
