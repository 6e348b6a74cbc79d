//! Event: what happened to an object. It is served in two versions, core/v1 and events.k8s.io/v1, which are
//! one set of objects: they are stored as core/v1.

mod convert;
mod print;
mod validate;

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::api::events::v1::Event as NewEvent;
use schemars::SchemaGenerator;
use serde_json::Value;

use crate::catalogue::{ALL_VERBS, Resource};
use crate::decode::{self, FieldValidation, Format};
use crate::field::FieldError;
use crate::meta::NameRule;
use crate::object::Object;
use crate::status::{self, Status};
use crate::strategy::{Typed, TypedStrategy};
use crate::table::Column;

const CORE_SCHEMA: &str = "io.k8s.api.core.v1.Event";
const EVENTS_SCHEMA: &str = "io.k8s.api.events.v1.Event";

/// `events`
pub static CORE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "Event",
    list_kind: "EventList",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    categories: &[],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[],
    storage: "events",
    schema: CORE_SCHEMA,
    strategy: &Typed::new(CoreEvents, CORE_SCHEMA),
};

/// `events.events.k8s.io`
pub static EVENTS: Resource = Resource {
    group: "events.k8s.io",
    schema: EVENTS_SCHEMA,
    strategy: &Typed::new(NewEvents, EVENTS_SCHEMA),
    ..CORE
};

struct CoreEvents;
struct NewEvents;

const FIELDS: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];

fn field(event: &Event, path: &str) -> Option<String> {
    let object = &event.involved_object;
    let source = event
        .source
        .as_ref()
        .and_then(|source| source.component.as_ref())
        .filter(|name| !name.is_empty());
    let value = match path {
        "involvedObject.kind" => object.kind.as_ref(),
        "involvedObject.namespace" => object.namespace.as_ref(),
        "involvedObject.name" => object.name.as_ref(),
        "involvedObject.uid" => object.uid.as_ref(),
        "involvedObject.apiVersion" => object.api_version.as_ref(),
        "involvedObject.resourceVersion" => object.resource_version.as_ref(),
        "involvedObject.fieldPath" => object.field_path.as_ref(),
        "reason" => event.reason.as_ref(),
        "reportingComponent" => event.reporting_component.as_ref(),
        // Reporters of the new version have no source.
        "source" => source.or(event.reporting_component.as_ref()),
        "type" => event.type_.as_ref(),
        _ => return None,
    };
    Some(value.cloned().unwrap_or_default())
}

impl TypedStrategy for CoreEvents {
    type Object = Event;

    fn name_rule(&self) -> NameRule {
        NameRule::Subdomain
    }

    fn validate_create(&self, event: &Event) -> Vec<FieldError> {
        validate::core(event)
    }

    fn validate_update(&self, _subresource: Option<&str>, new: &Event, _old: &Event) -> Vec<FieldError> {
        validate::core(new)
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        print::COLUMNS
    }

    fn row(&self, event: &Event, now: Timestamp) -> Vec<Value> {
        print::row(event, now)
    }

    fn fields(&self) -> &'static [&'static str] {
        FIELDS
    }

    fn field(&self, event: &Event, path: &str) -> Option<String> {
        field(event, path)
    }
}

impl TypedStrategy for NewEvents {
    type Object = Event;

    fn validate_create(&self, event: &Event) -> Vec<FieldError> {
        validate::new(event)
    }

    fn validate_update(&self, _subresource: Option<&str>, new: &Event, old: &Event) -> Vec<FieldError> {
        validate::new_update(new, old)
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        print::COLUMNS
    }

    fn row(&self, event: &Event, now: Timestamp) -> Vec<Value> {
        print::row(event, now)
    }

    fn fields(&self) -> &'static [&'static str] {
        // The names of this version, then those of core/v1, which upstream accepts here too.
        const BOTH: &[&str] = &[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reportingController",
            "reason",
            "type",
        ];
        BOTH
    }

    fn field(&self, event: &Event, path: &str) -> Option<String> {
        match path.strip_prefix("regarding.") {
            Some(rest) => field(event, &format!("involvedObject.{rest}")),
            None if path == "reportingController" => field(event, "reportingComponent"),
            None => field(event, path),
        }
    }

    fn decode(&self, body: &[u8], format: Format, validation: FieldValidation) -> Result<(Event, Vec<String>), Status> {
        let (event, warnings) = decode::body::<NewEvent>(body, format, validation)?;
        Ok((convert::to_core(event), warnings))
    }

    fn decode_value(
        &self,
        value: Value,
        validation: FieldValidation,
        origin: decode::Origin<'_>,
    ) -> Result<(Event, Vec<String>), Status> {
        let (event, warnings) = decode::value_as::<NewEvent>(value, validation, origin)?;
        Ok((convert::to_core(event), warnings))
    }

    fn schema(&self, generator: &mut SchemaGenerator) {
        generator.subschema_for::<NewEvent>();
    }

    fn wire_value(&self, event: &Event) -> Result<Value, Status> {
        convert::from_core(event.clone()).to_value().map_err(status::internal)
    }

    fn wire<'a>(&self, stored: &'a [u8]) -> Result<Cow<'a, [u8]>, Status> {
        let event: Event = serde_json::from_slice(stored).map_err(status::internal)?;
        let event = convert::from_core(event);
        serde_json::to_vec(&event).map(Cow::Owned).map_err(status::internal)
    }
}
