//! `create`: decode, default, admit, prepare and validate, store.

use api::{Decoded, Object, Status, lifecycle, status};
use bytes::Bytes;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use store::Expected;

use crate::{
    admission::{Attributes, Operation},
    answer::{Answer, Content},
    call::{Call, Outcome, read_object},
    query::WriteOptions,
    registry::{encode, key, store_error, unstored},
};

/// How often a generated name that is taken is replaced by another one, as upstream.
const NAME_ATTEMPTS: usize = 8;

/// Creates the object in the request's body.
pub(crate) async fn create(call: &Call<'_>, body: crate::Body) -> Outcome {
    if call.name.is_some() {
        return Err(status::unsupported_method());
    }
    let (body, format) = read_object(call, body).await?;
    let WriteOptions { dry_run, validation } = call.query.write_options("CreateOptions")?;
    let Decoded { object, warnings } = call.resource.strategy.decode(&body, format, validation)?;
    store_new(call, object, warnings, dry_run).await
}

/// Takes a decoded object the rest of the way into the store.
pub(crate) async fn store_new(
    call: &Call<'_>,
    mut object: Box<dyn Object>,
    mut warnings: Vec<String>,
    dry_run: bool,
) -> Outcome {
    let strategy = call.resource.strategy;
    if object
        .metadata()
        .resource_version
        .as_deref()
        .is_some_and(|version| !version.is_empty())
    {
        return Err(status::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    api::meta::match_namespace(call.resource, object.metadata_mut(), call.namespace)?;
    strategy.default(&mut *object);
    let attributes = Attributes {
        call,
        operation: Operation::Create,
    };
    call.server.admission.mutate(&attributes, &mut *object).await?;
    let generated = is_generated(object.metadata());
    let mut attempt = 0;
    loop {
        attempt += 1;
        lifecycle::before_create(call.resource, &mut *object, call.namespace, Timestamp::now())?;
        let name = object.metadata().name.clone().unwrap_or_default();
        call.server.admission.validate(&attributes, Some(&*object)).await?;
        if attempt == 1 {
            warnings.extend(strategy.warnings(&*object, None));
        }
        let held = call.server.services.allocate(call, &mut *object, None, dry_run).await?;
        let key = key(call.resource, call.namespace, &name);
        if dry_run {
            return if call.server.store.get(&key).await.map_err(store_error)?.is_some() {
                Err(status::already_exists(call.resource.group, call.resource.plural, &name))
            } else {
                Ok(created(unstored(&*object)?, warnings))
            };
        }
        match call
            .server
            .store
            .put(&key, Expected::Absent, encode(&mut *object)?)
            .await
        {
            Ok(entry) => {
                held.keep();
                return Ok(created(entry.value.clone(), warnings));
            }
            Err(error) => {
                held.release(&*call.server.store).await;
                match error {
                    store::Error::Conflict { .. } if generated && attempt < NAME_ATTEMPTS => {
                        object.metadata_mut().name = None;
                    }
                    store::Error::Conflict { .. } => return Err(taken(call, &name, generated)),
                    other => return Err(store_error(other)),
                }
            }
        }
    }
}

fn is_generated(meta: &ObjectMeta) -> bool {
    meta.name.as_deref().is_none_or(str::is_empty)
        && meta.generate_name.as_deref().is_some_and(|prefix| !prefix.is_empty())
}

fn taken(call: &Call<'_>, name: &str, generated: bool) -> Status {
    let (group, plural) = (call.resource.group, call.resource.plural);
    if generated {
        status::generate_name_conflict(group, plural, name, 1)
    } else {
        status::already_exists(group, plural, name)
    }
}

fn created(bytes: Bytes, warnings: Vec<String>) -> Answer {
    Answer::new(201, Content::Object(bytes)).warning(warnings)
}
