//! ObjectMeta: what the system sets, what clients may not change, and what is valid.

pub mod names;
mod validate;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use rand::RngExt as _;

use crate::catalogue::Resource;
use crate::status::{self, Status};

pub use names::NameRule;
pub use validate::{validate_annotations, validate_create, validate_labels, validate_update};

/// The letters of generated names: no vowels and nothing that is mistaken for them, so that no name offends.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// How many random letters end a generated name.
const SUFFIX: usize = 5;

/// `length` random letters that names may end with.
pub fn random_suffix(length: usize) -> String {
    let mut rng = rand::rng();
    (0..length)
        .map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())]))
        .collect()
}

/// A name made of `prefix`, cut so that it stays a DNS label, and five random letters.
pub fn generate_name(prefix: &str) -> String {
    let mut end = prefix.len().min(names::LABEL_MAX - SUFFIX);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{}", &prefix[..end], random_suffix(SUFFIX))
}

/// A new uid.
pub fn new_uid() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// `now` to the whole second, which is all that `meta/v1` Time holds.
pub fn time(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// Puts the namespace of the request into the object, or refuses an object of another one.
pub fn match_namespace(resource: &Resource, meta: &mut ObjectMeta, namespace: Option<&str>) -> Result<(), Status> {
    match (
        resource.namespaced.then_some(namespace).flatten(),
        meta.namespace.as_deref(),
    ) {
        (Some(namespace), None | Some("")) => meta.namespace = Some(namespace.to_owned()),
        (Some(namespace), Some(own)) if own == namespace => {}
        (Some(_), Some(_)) => {
            return Err(status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        (None, _) => meta.namespace = None,
    }
    Ok(())
}

/// Refuses an update whose body names another object than the request's path.
pub fn match_name(meta: &mut ObjectMeta, name: &str, namespace: Option<&str>) -> Result<(), Status> {
    match meta.name.as_deref().unwrap_or_default() {
        "" => {
            return Err(status::bad_request(format!(
                "the name of the object ({name} based on URL) was undeterminable: name must be provided"
            )));
        }
        own if own != name => {
            return Err(status::bad_request(format!(
                "the name of the object ({own}) does not match the name on the URL ({name})"
            )));
        }
        _ => {}
    }
    match (meta.namespace.as_deref().unwrap_or_default(), namespace) {
        (own, Some(namespace)) if !own.is_empty() && own != namespace => Err(status::bad_request(format!(
            "the namespace of the object ({own}) does not match the namespace on the request ({namespace})"
        ))),
        _ => Ok(()),
    }
}

/// Sets what only the system may set on a new object. A name is generated when only `generateName` is there.
pub fn prepare_create(meta: &mut ObjectMeta, now: Timestamp) {
    meta.deletion_timestamp = None;
    meta.deletion_grace_period_seconds = None;
    meta.creation_timestamp = Some(time(now));
    meta.uid = Some(new_uid());
    meta.generation = None;
    meta.resource_version = None;
    meta.self_link = None;
    meta.managed_fields = None;
    if meta.name.as_deref().is_none_or(str::is_empty)
        && let Some(prefix) = meta.generate_name.as_deref().filter(|prefix| !prefix.is_empty())
    {
        meta.name = Some(generate_name(prefix));
    }
}

/// Keeps what an update may not change, and fills in what it left out.
pub fn prepare_update(new: &mut ObjectMeta, old: &ObjectMeta) {
    new.generation = old.generation;
    new.creation_timestamp.clone_from(&old.creation_timestamp);
    new.self_link = None;
    new.managed_fields = None;
    if new.uid.as_deref().is_none_or(str::is_empty) {
        new.uid.clone_from(&old.uid);
    }
    // Only a deletion sets these, and nothing takes them back.
    if old.deletion_timestamp.is_some() {
        new.deletion_timestamp.clone_from(&old.deletion_timestamp);
    }
    if new.deletion_grace_period_seconds.is_none() {
        new.deletion_grace_period_seconds = old.deletion_grace_period_seconds;
    }
}

/// Counts the generation up when the desired state changed.
pub fn bump_generation(new: &mut ObjectMeta, old: &ObjectMeta, changed: bool) {
    new.generation = if changed {
        Some(old.generation.unwrap_or(0).saturating_add(1))
    } else {
        old.generation
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_fit_a_label() {
        let name = generate_name(&"a".repeat(80));
        assert_eq!(name.len(), 63);
        let name = generate_name("web-");
        assert!(name.starts_with("web-") && name.len() == 9, "{name}");
        assert!(name[4..].bytes().all(|b| ALPHABET.contains(&b)));
        // A cut inside a character would panic; validation refuses the name later.
        generate_name(&"é".repeat(40));
    }

    #[test]
    fn update_keeps_the_systems_fields() {
        let now = Timestamp::from_second(1_700_000_000).unwrap_or_default();
        let old = ObjectMeta {
            uid: Some("u".into()),
            generation: Some(3),
            creation_timestamp: Some(Time(now)),
            deletion_timestamp: Some(Time(now)),
            deletion_grace_period_seconds: Some(30),
            ..Default::default()
        };
        let mut new = ObjectMeta {
            generation: Some(9),
            self_link: Some("x".into()),
            ..Default::default()
        };
        prepare_update(&mut new, &old);
        assert_eq!(new, old);
    }
}
