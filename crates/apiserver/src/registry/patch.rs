//! `patch`: JSON patch, merge patch and strategic merge patch.

use api::{Decoded, FieldValidation, Format, Object, Status, decode, patch, patch::MergeSchema, status};
use serde_json::Value;

use crate::{
    Body,
    call::{Call, Outcome, read},
    negotiate::media_type,
    query::WriteOptions,
    registry::modify::{Changed, match_path, modify},
};

/// The media types of patches that are applied here.
const KINDS: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

enum Patch {
    Json(Value),
    Merge(Value),
    Strategic(Value),
}

/// What a request to patch says.
pub(crate) struct Request {
    patch: Patch,
    pub dry_run: bool,
    pub validation: FieldValidation,
}

impl Request {
    /// Reads the patch in a request's body.
    pub async fn read(call: &Call<'_>, body: Body) -> Result<Self, Status> {
        let media = media_type(&call.parts.headers);
        if !KINDS.contains(&media) {
            return Err(status::unsupported_media_type(KINDS));
        }
        let WriteOptions { dry_run, validation } = call.query.write_options("PatchOptions")?;
        let body = read(body).await?;
        let value = decode::raw(&body, Format::Json)
            .map_err(|error| status::bad_request(format!("error decoding patch: {error}")))?;
        let patch = match media {
            "application/json-patch+json" => Patch::Json(value),
            "application/merge-patch+json" => Patch::Merge(value),
            _ => Patch::Strategic(value),
        };
        Ok(Self {
            patch,
            dry_run,
            validation,
        })
    }

    /// What the values that [`Self::apply`] makes are made by.
    pub fn origin(&self) -> decode::Origin<'_> {
        match &self.patch {
            Patch::Json(_) | Patch::Merge(_) => decode::Origin::Patch,
            Patch::Strategic(patch) => decode::Origin::StrategicPatch(patch),
        }
    }

    /// What the patch makes of a value.
    pub fn apply(&self, current: Value, schema: &MergeSchema) -> Result<Value, Status> {
        match &self.patch {
            Patch::Json(patch) => patch::json_patch(current, patch),
            Patch::Merge(patch) => patch::merge_patch(current, patch),
            Patch::Strategic(patch) => patch::strategic_merge(current, patch, schema),
        }
    }
}

/// Patches the object that a call names, or the part of it that the subresource is.
pub(crate) async fn patch(call: &Call<'_>, body: Body) -> Outcome {
    call.name()?;
    let request = Request::read(call, body).await?;
    modify(call, request.dry_run, |old| patched(call, &request, old)).await
}

fn patched(call: &Call<'_>, request: &Request, old: &dyn Object) -> Result<Changed, Status> {
    let strategy = call.resource.strategy;
    let value = request.apply(strategy.wire_value(old)?, strategy.merge_schema())?;
    let Decoded { mut object, warnings } = strategy.decode_value(value, request.validation, request.origin())?;
    match_path(call, &mut *object)?;
    Ok(Changed { object, warnings })
}
