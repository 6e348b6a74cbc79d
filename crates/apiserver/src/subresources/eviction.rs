//! `pods/eviction`: a deletion that asks the pod's keepers first. Disruption budgets are to be asked here.

use api::{decode, status};
use k8s_openapi::api::policy::v1::Eviction;

use crate::{
    Body,
    answer::Answer,
    call::{Call, Outcome, read_object},
    query::WriteOptions,
    registry::delete::delete_with,
};

/// Evicts the pod that the path names.
pub(super) async fn create(call: &Call<'_>, body: Body) -> Outcome {
    let (body, format) = read_object(call, body).await?;
    let WriteOptions { dry_run, validation } = call.query.write_options("CreateOptions")?;
    let (eviction, warnings) = decode::body::<Eviction>(&body, format, validation)?;
    let name = call.name()?;
    if eviction.metadata.name.as_deref().is_some_and(|own| own != name) {
        return Err(status::bad_request(
            "name in URL does not match name in Eviction object",
        ));
    }
    let mut options = eviction.delete_options.unwrap_or_default();
    if dry_run {
        options.dry_run = Some(vec!["All".into()]);
    }
    delete_with(call, &options).await?;
    Ok(Answer::from(status::success(201)).warning(warnings))
}
