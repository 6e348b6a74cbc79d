//! `get`: one object, as it is stored.

use api::{Status, status};

use crate::{
    answer::Answer,
    call::{Call, Outcome},
    registry::{current, selection::revision},
};

/// The newest state of one object: every resourceVersion that a client may ask for is met by it.
pub(crate) async fn get(call: &Call<'_>) -> Outcome {
    if let Some(asked) = call.query.get("resourceVersion") {
        await_revision(call, revision(asked)?).await?;
    }
    Ok(Answer::object(current(call).await?.value.clone()))
}

/// Refuses a revision that the store has not reached.
pub(crate) async fn await_revision(call: &Call<'_>, asked: u64) -> Result<(), Status> {
    let newest = call.server.store.revision().await.map_err(super::store_error)?;
    if asked > newest {
        Err(status::too_large_resource_version(asked, newest, 1))
    } else {
        Ok(())
    }
}
