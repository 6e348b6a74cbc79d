//! `scale`: how many replicas an object wishes for and has, in the one form that all workloads share.
//!
//! A write of it is a write of the object, in which nothing but the replicas is new.

use api::{Object, Status, decode, kinds::apps::scale, meta, patch::MergeSchema, status};
use k8s_openapi::api::autoscaling::v1::Scale;

use crate::{
    Body,
    answer::{Answer, Content},
    call::{Call, Outcome, read_object},
    query::WriteOptions,
    registry::{
        current,
        modify::{Changed, modify},
        patch::Request,
    },
};

static MERGE: MergeSchema = MergeSchema::of(scale::SCHEMA);

fn scale_of(call: &Call<'_>, object: &dyn Object) -> Result<Scale, Status> {
    call.resource
        .strategy
        .scale(object)
        .ok_or_else(status::no_such_resource)
}

/// Shows the scale of the object that a call names.
pub(super) async fn get(call: &Call<'_>) -> Outcome {
    let object = call.resource.strategy.load(&current(call).await?.value)?;
    show(call, &*object)
}

fn show(call: &Call<'_>, object: &dyn Object) -> Outcome {
    let json = serde_json::to_vec(&scale_of(call, object)?).map_err(status::internal)?;
    Ok(Answer::new(200, Content::Other(json.into())))
}

/// Replaces it.
pub(super) async fn update(call: &Call<'_>, body: Body) -> Outcome {
    let (body, format) = read_object(call, body).await?;
    let WriteOptions { dry_run, validation } = call.query.write_options("UpdateOptions")?;
    let (scale, warnings) = decode::body::<Scale>(&body, format, validation)?;
    write(call, dry_run, |_| Ok((scale.clone(), warnings.clone()))).await
}

/// Patches it.
pub(super) async fn patch(call: &Call<'_>, body: Body) -> Outcome {
    let request = Request::read(call, body).await?;
    write(call, request.dry_run, |old| {
        let current = serde_json::to_value(old).map_err(status::internal)?;
        decode::value_as::<Scale>(request.apply(current, &MERGE)?, request.validation, request.origin())
    })
    .await
}

/// Writes what `change` makes of the scale as it is, and its warnings.
async fn write<F>(call: &Call<'_>, dry_run: bool, mut change: F) -> Outcome
where
    F: FnMut(Scale) -> Result<(Scale, Vec<String>), Status> + Send,
{
    let written = modify(call, dry_run, |old| {
        let (mut scale, warnings) = change(scale_of(call, old)?)?;
        meta::match_name(&mut scale.metadata, call.name()?, call.namespace)?;
        let errors = scale::validate(&scale);
        if !errors.is_empty() {
            return Err(status::invalid("autoscaling", "Scale", call.name()?, &errors));
        }
        let mut object = old.clone_object();
        let replicas = scale.spec.and_then(|spec| spec.replicas).unwrap_or(0);
        call.resource.strategy.set_replicas(&mut *object, replicas);
        object.metadata_mut().resource_version = scale.metadata.resource_version;
        if scale.metadata.uid.as_deref().is_some_and(|uid| !uid.is_empty()) {
            object.metadata_mut().uid = scale.metadata.uid;
        }
        Ok(Changed { object, warnings })
    })
    .await?;
    let Content::Object(bytes) = &written.content else {
        return Ok(written);
    };
    let object = call.resource.strategy.load(bytes)?;
    Ok(show(call, &*object)?.warning(written.warnings))
}
