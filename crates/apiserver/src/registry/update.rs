//! `update`: a whole object takes the place of the one that is there.

use api::Decoded;

use crate::{
    Body,
    call::{Call, Outcome, read_object},
    query::WriteOptions,
    registry::{
        create::store_new,
        modify::{Changed, match_path, modify},
    },
};

/// Replaces the object that a call names, or the part of it that the subresource is.
pub(crate) async fn update(call: &Call<'_>, body: Body) -> Outcome {
    call.name()?;
    let (body, format) = read_object(call, body).await?;
    let WriteOptions { dry_run, validation } = call.query.write_options("UpdateOptions")?;
    let strategy = call.resource.strategy;
    let Decoded { mut object, warnings } = strategy.decode(&body, format, validation)?;
    match_path(call, &mut *object)?;
    let updated = modify(call, dry_run, |_| {
        Ok(Changed {
            object: object.clone_object(),
            warnings: warnings.clone(),
        })
    })
    .await;
    match updated {
        Err(error) if error.code() == 404 && strategy.allow_create_on_update() && call.subresource.is_none() => {
            if let Some(uid) = object.metadata().uid.as_deref().filter(|uid| !uid.is_empty()) {
                return Err(call.conflict(&format!(
                    "Precondition failed: UID in precondition: {uid}, UID in object meta: "
                )));
            }
            object.metadata_mut().resource_version = None;
            store_new(call, object, warnings, dry_run).await
        }
        other => other,
    }
}
