//! Changing an object that is there: read, change, check, store; again when somebody else was faster.

use api::{FieldError, Object, Path, Status, lifecycle, meta, status};
use store::{Entry, Expected};

use crate::{
    admission::{Attributes, Operation},
    answer::Answer,
    call::{Call, Outcome},
    registry::{current, delete::releases, encode, store_error, unstored},
};

/// What a change makes of an object.
pub(crate) struct Changed {
    pub object: Box<dyn Object>,
    pub warnings: Vec<String>,
}

impl From<Box<dyn Object>> for Changed {
    fn from(object: Box<dyn Object>) -> Self {
        Self {
            object,
            warnings: Vec::new(),
        }
    }
}

/// Changes the object that a call names.
///
/// `change` is given the object as it is, and asked again when another writer came between; what it returns holds
/// on to the resourceVersion that the client named, if it named one.
pub(crate) async fn modify<F>(call: &Call<'_>, dry_run: bool, mut change: F) -> Outcome
where
    F: FnMut(&dyn Object) -> Result<Changed, Status> + Send,
{
    loop {
        let entry = current(call).await?;
        let old = call.resource.strategy.load(&entry.value)?;
        let changed = change(&*old)?;
        match attempt(call, dry_run, &entry, &*old, changed).await? {
            Some(answer) => return Ok(answer),
            None => continue,
        }
    }
}

/// One attempt; `None` when another writer came between.
async fn attempt(
    call: &Call<'_>,
    dry_run: bool,
    entry: &Entry,
    old: &dyn Object,
    changed: Changed,
) -> Result<Option<Answer>, Status> {
    let Changed {
        object: mut new,
        mut warnings,
    } = changed;
    let strategy = call.resource.strategy;
    check_identity(call, entry, &*new, old)?;
    strategy.default(&mut *new);
    let attributes = Attributes {
        call,
        operation: Operation::Update,
    };
    call.server.admission.mutate(&attributes, &mut *new).await?;
    lifecycle::before_update(call.resource, call.subresource_name(), &mut *new, old)?;
    call.server.admission.validate(&attributes, Some(&*new)).await?;
    warnings.extend(strategy.warnings(&*new, Some(old)));
    let held = call
        .server
        .services
        .allocate(call, &mut *new, Some(old), dry_run)
        .await?;
    new.metadata_mut()
        .resource_version
        .clone_from(&old.metadata().resource_version);
    if dry_run {
        return Ok(Some(Answer::object(unstored(&*new)?).warning(warnings)));
    }
    // Writing nothing new would only wake every watcher.
    if new.equals(old) {
        return Ok(Some(Answer::object(entry.value.clone()).warning(warnings)));
    }
    let expected = Expected::At(entry.revision);
    let last_finalizer_gone = releases(strategy, &*new, old);
    let written = if last_finalizer_gone {
        call.server.store.delete(&entry.key, expected).await
    } else {
        call.server.store.put(&entry.key, expected, encode(&mut *new)?).await
    };
    match written {
        Ok(_) if last_finalizer_gone => {
            call.server.services.free(&*call.server.store, old).await;
            Ok(Some(Answer::object(unstored(&*new)?).warning(warnings)))
        }
        Ok(written) => {
            held.keep();
            call.server
                .services
                .free_replaced(&*call.server.store, old, &*new)
                .await;
            Ok(Some(Answer::object(written.value.clone()).warning(warnings)))
        }
        Err(error) => {
            held.release(&*call.server.store).await;
            match error {
                store::Error::Conflict { .. } => Ok(None),
                other => Err(store_error(other)),
            }
        }
    }
}

/// Refuses a change that was made to another state of the object, or to another object of its name.
fn check_identity(call: &Call<'_>, entry: &Entry, new: &dyn Object, old: &dyn Object) -> Result<(), Status> {
    let (wanted, found) = (new.metadata(), old.metadata());
    match wanted.resource_version.as_deref() {
        None | Some("") => {
            if !call.resource.strategy.allow_unconditional_update() {
                let error = FieldError::invalid(
                    &Path::new("metadata").child("resourceVersion"),
                    0,
                    "must be specified for an update",
                );
                let name = call.name.unwrap_or_default();
                return Err(status::invalid(call.resource.group, call.resource.kind, name, &[error]));
            }
        }
        Some(version) if version.parse() != Ok(entry.revision) => return Err(call.conflict(status::MODIFIED)),
        Some(_) => {}
    }
    match (wanted.uid.as_deref(), found.uid.as_deref()) {
        (Some(wanted), Some(found)) if !wanted.is_empty() && wanted != found => Err(call.conflict(&format!(
            "Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}"
        ))),
        _ => Ok(()),
    }
}

/// Refuses an object whose name or namespace is not that of the request's path.
pub(crate) fn match_path(call: &Call<'_>, object: &mut dyn Object) -> Result<(), Status> {
    let namespace = call.namespace.filter(|_| call.resource.namespaced);
    meta::match_name(object.metadata_mut(), call.name()?, namespace)
}

/// Changes the object that a call names in a way that its kind's rules for updates do not know: the steps of an
/// update are left out, and nothing but `change` decides.
pub(crate) async fn rewrite<F>(call: &Call<'_>, dry_run: bool, mut change: F) -> Result<(), Status>
where
    F: FnMut(&mut dyn Object) -> Result<(), Status> + Send,
{
    loop {
        let entry = current(call).await?;
        let mut object = call.resource.strategy.load(&entry.value)?;
        change(&mut *object)?;
        if dry_run {
            return Ok(());
        }
        match call
            .server
            .store
            .put(&entry.key, Expected::At(entry.revision), encode(&mut *object)?)
            .await
        {
            Ok(_) => return Ok(()),
            Err(store::Error::Conflict { .. }) => {}
            Err(error) => return Err(store_error(error)),
        }
    }
}
