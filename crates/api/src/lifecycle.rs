//! The order of steps that makes a client's object one that can be stored.

use jiff::Timestamp;

use crate::catalogue::Resource;
use crate::field::Path;
use crate::meta;
use crate::object::Object;
use crate::status::{self, Status};

/// Makes a decoded, defaulted and admitted object ready to be stored for the first time: the system's
/// metadata is set (uid, creation time, a generated name), what clients may not set is cleared, and
/// everything is validated.
///
/// `namespace` is that of the request's path, none for a resource without namespaces.
pub fn before_create(
    resource: &Resource,
    object: &mut dyn Object,
    namespace: Option<&str>,
    now: Timestamp,
) -> Result<(), Status> {
    meta::match_namespace(resource, object.metadata_mut(), namespace)?;
    meta::prepare_create(object.metadata_mut(), now);
    resource.strategy.prepare_create(object);
    let mut errors = meta::validate_create(
        object.metadata(),
        resource.namespaced,
        resource.strategy.name_rule(),
        &Path::new("metadata"),
    );
    errors.extend(resource.strategy.validate_create(object));
    if errors.is_empty() {
        Ok(())
    } else {
        Err(invalid(resource, object, &errors))
    }
}

/// Makes a decoded, defaulted and admitted object ready to take the place of `old`, or of that part of it
/// that the subresource is.
pub fn before_update(
    resource: &Resource,
    subresource: Option<&str>,
    new: &mut dyn Object,
    old: &dyn Object,
) -> Result<(), Status> {
    meta::match_namespace(resource, new.metadata_mut(), old.metadata().namespace.as_deref())?;
    meta::prepare_update(new.metadata_mut(), old.metadata());
    resource.strategy.prepare_update(subresource, new, old);
    let mut errors = meta::validate_update(new.metadata(), old.metadata(), &Path::new("metadata"));
    errors.extend(resource.strategy.validate_update(subresource, new, old));
    if errors.is_empty() {
        Ok(())
    } else {
        Err(invalid(resource, new, &errors))
    }
}

fn invalid(resource: &Resource, object: &dyn Object, errors: &[crate::FieldError]) -> Status {
    let meta = object.metadata();
    let name = meta
        .name
        .as_deref()
        .or(meta.generate_name.as_deref())
        .unwrap_or_default();
    status::invalid(resource.group, resource.kind, name, errors)
}
