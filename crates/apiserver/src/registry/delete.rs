//! `delete` and `deletecollection`.
//!
//! An object goes at once, unless something holds it: its keeper, for the grace period that its kind gives it, or
//! a finalizer. Then it is marked with its deletionTimestamp and goes with the update or deletion that lets go of
//! it last.

use std::{sync::Arc, time::Duration};

use api::{FieldError, Grace, Object, Path, Status, Strategy, decode, meta, status};
use bytes::Bytes;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta, Time};
use store::{Entry, Expected};

use crate::{
    Body,
    admission::{Attributes, Operation},
    answer::{Answer, Content, List},
    call::{Call, Outcome, read_object},
    query,
    registry::{current, encode, list, store_error, unstored},
};

/// The finalizer of a deletion that waits for the dependents to go.
const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of a deletion that waits for the dependents to be set free.
const ORPHAN: &str = "orphan";

/// The kinds whose deletion is answered with the object, where others have a Status.
const ANSWERED_WITH_OBJECT: &[&str] = &[
    "pods",
    "services",
    "serviceaccounts",
    "persistentvolumeclaims",
    "replicationcontrollers",
    "resourcequotas",
];

/// Deletes the object that a call names.
pub(crate) async fn delete(call: &Call<'_>, body: Body) -> Outcome {
    call.name()?;
    let options = options(call, body).await?;
    delete_with(call, &options).await
}

/// As [`delete`], with the options known.
pub(crate) async fn delete_with(call: &Call<'_>, options: &DeleteOptions) -> Outcome {
    let dry_run = is_dry(options)?;
    let attributes = Attributes {
        call,
        operation: Operation::Delete,
    };
    call.server.admission.validate(&attributes, None).await?;
    let name = call.name.unwrap_or_default();
    match remove(call, options, dry_run, || current(call)).await? {
        Removed::Gone { bytes, uid } => {
            if ANSWERED_WITH_OBJECT.contains(&call.resource.storage) {
                return Ok(Answer::object(bytes));
            }
            Ok(status::deleted(call.resource.group, call.resource.plural, name, &uid).into())
        }
        Removed::Held(bytes) => {
            // 202 only for clients of the older option, which is the one case that upstream keeps.
            let code = if options.orphan_dependents == Some(false) {
                202
            } else {
                200
            };
            Ok(Answer::new(code, Content::Object(bytes)))
        }
    }
}

/// Deletes every object that a call's selectors mean, and answers with what they were.
pub(crate) async fn delete_collection(call: &Call<'_>, body: Body) -> Outcome {
    let options = options(call, body).await?;
    let dry_run = is_dry(&options)?;
    let found = list::select(call).await?;
    for entry in &found.entries {
        let object = call.resource.strategy.load(&entry.value)?;
        let meta = object.metadata();
        let name = meta.name.clone().unwrap_or_default();
        let namespace = meta.namespace.clone();
        let one = Call {
            server: call.server,
            name: Some(&name),
            namespace: namespace.as_deref().or(call.namespace),
            ..*call
        };
        let attributes = Attributes {
            call: &one,
            operation: Operation::Delete,
        };
        call.server.admission.validate(&attributes, None).await?;
        match remove(&one, &options, dry_run, || current(&one)).await {
            Ok(_) => {}
            // Somebody else deleted it meanwhile, which is what was asked for.
            Err(error) if error.code() == 404 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Answer::new(
        200,
        Content::List(List {
            next: None,
            remaining: None,
            ..found
        }),
    ))
}

/// What a deletion came to.
enum Removed {
    /// The object is gone; this is what it was.
    Gone { bytes: Bytes, uid: String },
    /// The object is marked and held.
    Held(Bytes),
}

/// What a deletion does to an object.
#[derive(Debug, PartialEq)]
enum Step {
    Remove,
    /// The object is marked, or held by finalizers.
    Mark(Box<ObjectMeta>),
    /// It is marked already.
    Nothing,
}

async fn remove<'c, F, R>(
    call: &Call<'c>,
    options: &DeleteOptions,
    dry_run: bool,
    read_current: F,
) -> Result<Removed, Status>
where
    F: Fn() -> R,
    R: Future<Output = Result<Arc<Entry>, Status>>,
{
    loop {
        let entry = read_current().await?;
        let mut object = call.resource.strategy.load(&entry.value)?;
        check_preconditions(call, options, object.metadata())?;
        let grace = call.resource.strategy.graceful_deletion(&*object, options);
        let step = decide(
            object.metadata(),
            options,
            grace,
            call.resource.strategy.is_held(&*object),
            Timestamp::now(),
        );
        let gone = |bytes: &Bytes| {
            let uid = object.metadata().uid.clone().unwrap_or_default();
            Ok(Removed::Gone {
                bytes: bytes.clone(),
                uid,
            })
        };
        let expected = Expected::At(entry.revision);
        let written = match step {
            Step::Nothing => return Ok(Removed::Held(entry.value.clone())),
            Step::Remove if dry_run => return gone(&entry.value),
            Step::Remove => match call.server.store.delete(&entry.key, expected).await {
                Ok(last) => {
                    call.server.services.free(&*call.server.store, &*object).await;
                    return gone(&last.value);
                }
                Err(error) => Err(error),
            },
            Step::Mark(meta) => {
                *object.metadata_mut() = *meta;
                call.resource.strategy.mark_deleted(&mut *object);
                if dry_run {
                    return Ok(Removed::Held(unstored(&*object)?));
                }
                call.server.store.put(&entry.key, expected, encode(&mut *object)?).await
            }
        };
        match written {
            Ok(entry) => return Ok(Removed::Held(entry.value.clone())),
            Err(store::Error::Conflict { .. }) => {}
            Err(error) => return Err(store_error(error)),
        }
    }
}

/// Decides what a deletion does, from the object's metadata and how its kind goes.
fn decide(meta: &ObjectMeta, options: &DeleteOptions, grace: Grace, content: bool, now: Timestamp) -> Step {
    let seconds = match grace {
        Grace::Immediate => 0,
        Grace::Seconds(seconds) => seconds.max(0),
    };
    let mut new = meta.clone();
    new.finalizers = finalizers(meta, options);
    let held = content || new.finalizers.as_ref().is_some_and(|finalizers| !finalizers.is_empty());
    match &meta.deletion_timestamp {
        Some(Time(marked)) => {
            let pending = meta.deletion_grace_period_seconds.unwrap_or(0);
            if pending > 0 {
                if options.grace_period_seconds.is_none() || seconds >= pending {
                    return Step::Nothing;
                }
                if seconds == 0 && !held {
                    return Step::Remove;
                }
                // A deletion under way may be made shorter, never longer.
                let began = *marked - Duration::from_secs(pending.unsigned_abs());
                new.deletion_timestamp = Some(Time(began + Duration::from_secs(seconds.unsigned_abs())));
                new.deletion_grace_period_seconds = Some(seconds);
            } else if !held {
                return Step::Remove;
            }
        }
        None if seconds == 0 && !held => return Step::Remove,
        None => {
            let now = meta::time(now).0;
            new.deletion_timestamp = Some(Time(now + Duration::from_secs(seconds.unsigned_abs())));
            new.deletion_grace_period_seconds = Some(seconds);
            // The wish changed: it is to be gone.
            new.generation = meta.generation.map(|generation| generation + i64::from(generation > 0));
        }
    }
    if new == *meta {
        Step::Nothing
    } else {
        Step::Mark(Box::new(new))
    }
}

/// The finalizers that the wished propagation leaves on the object.
fn finalizers(meta: &ObjectMeta, options: &DeleteOptions) -> Option<Vec<String>> {
    let wished = match (options.orphan_dependents, options.propagation_policy.as_deref()) {
        (Some(true), _) | (_, Some("Orphan")) => Some(ORPHAN),
        (_, Some("Foreground")) => Some(FOREGROUND),
        (Some(false), _) | (_, Some("Background")) => None,
        // Nothing wished: what is there stays.
        _ => return meta.finalizers.clone(),
    };
    let kept =
        meta.finalizers.iter().flatten().filter(|finalizer| {
            !matches!(finalizer.as_str(), FOREGROUND | ORPHAN) || Some(finalizer.as_str()) == wished
        });
    let mut finalizers: Vec<String> = kept.cloned().collect();
    if let Some(wished) = wished.filter(|wished| !finalizers.iter().any(|finalizer| finalizer == wished)) {
        finalizers.push(wished.into());
    }
    (!finalizers.is_empty()).then_some(finalizers)
}

/// Whether an update lets go of a marked object last, so that it goes now.
pub(crate) fn releases(strategy: &dyn Strategy, new: &dyn Object, old: &dyn Object) -> bool {
    let free = new.metadata().finalizers.as_ref().is_none_or(Vec::is_empty) && !strategy.is_held(new);
    let marked = old.metadata();
    free && marked.deletion_timestamp.is_some() && marked.deletion_grace_period_seconds.unwrap_or(0) == 0
}

fn check_preconditions(call: &Call<'_>, options: &DeleteOptions, meta: &ObjectMeta) -> Result<(), Status> {
    let Some(wanted) = &options.preconditions else {
        return Ok(());
    };
    for (what, wanted, found) in [
        ("UID", &wanted.uid, &meta.uid),
        ("ResourceVersion", &wanted.resource_version, &meta.resource_version),
    ] {
        if wanted.is_some() && wanted != found {
            return Err(call.conflict(&format!(
                "Precondition failed: {what} in precondition: {}, {what} in object meta: {}",
                wanted.as_deref().unwrap_or_default(),
                found.as_deref().unwrap_or_default()
            )));
        }
    }
    Ok(())
}

fn is_dry(options: &DeleteOptions) -> Result<bool, Status> {
    query::dry_run("DeleteOptions", options.dry_run.iter().flatten().map(String::as_str))
}

/// The options of a deletion: in the body, else in the query.
async fn options(call: &Call<'_>, body: Body) -> Result<DeleteOptions, Status> {
    let (bytes, format) = read_object(call, body).await?;
    let options = if bytes.is_empty() {
        from_query(call)?
    } else {
        let value = decode::raw(&bytes, format).map_err(|error| {
            status::bad_request(format!(
                "unable to decode the DeleteOptions in the request's body: {error}"
            ))
        })?;
        let kind = value
            .get("kind")
            .and_then(serde_json::Value::as_str)
            .unwrap_or("DeleteOptions")
            .to_owned();
        if kind != "DeleteOptions" {
            return Err(status::bad_request(format!(
                "expected DeleteOptions in the request's body, but found kind {kind:?}"
            )));
        }
        serde_json::from_value(value).map_err(|error| {
            status::bad_request(format!(
                "unable to decode the DeleteOptions in the request's body: {error}"
            ))
        })?
    };
    check_options(&options)?;
    Ok(options)
}

fn from_query(call: &Call<'_>) -> Result<DeleteOptions, Status> {
    let query = call.query;
    let dry_run: Vec<String> = query
        .all("dryRun")
        .filter(|value| !value.is_empty())
        .map(String::from)
        .collect();
    Ok(DeleteOptions {
        dry_run: (!dry_run.is_empty()).then_some(dry_run),
        grace_period_seconds: query.integer("gracePeriodSeconds")?,
        orphan_dependents: query.get("orphanDependents").map(|_| query.flag("orphanDependents")),
        propagation_policy: query.get("propagationPolicy").map(String::from),
        ..DeleteOptions::default()
    })
}

fn check_options(options: &DeleteOptions) -> Result<(), Status> {
    let policy = Path::new("propagationPolicy");
    let mut errors = Vec::new();
    if options.orphan_dependents.is_some() && options.propagation_policy.is_some() {
        errors.push(FieldError::invalid(
            &policy,
            &options.propagation_policy,
            "orphanDependents and deletionPropagation cannot be both set",
        ));
    }
    if let Some(wished) = &options.propagation_policy
        && !matches!(wished.as_str(), "Foreground" | "Background" | "Orphan")
    {
        errors.push(FieldError::not_supported(
            &policy,
            wished,
            &["Foreground", "Background", "Orphan", "nil"],
        ));
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(status::invalid("meta.k8s.io", "DeleteOptions", "", &errors))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test fails by panicking.
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn marked(deletion: &str, grace: i64, finalizers: &[&str]) -> ObjectMeta {
        ObjectMeta {
            deletion_timestamp: Some(Time(at(deletion))),
            deletion_grace_period_seconds: Some(grace),
            finalizers: (!finalizers.is_empty()).then(|| finalizers.iter().map(ToString::to_string).collect()),
            ..ObjectMeta::default()
        }
    }

    fn grace(seconds: i64) -> DeleteOptions {
        DeleteOptions {
            grace_period_seconds: Some(seconds),
            ..DeleteOptions::default()
        }
    }

    #[test]
    fn an_object_goes_when_nothing_holds_it() {
        let now = at("2026-01-01T00:00:10Z");
        let plain = ObjectMeta::default();
        let held = ObjectMeta {
            finalizers: Some(vec!["x/y".into()]),
            generation: Some(2),
            ..ObjectMeta::default()
        };
        let none = DeleteOptions::default();
        assert_eq!(decide(&plain, &none, Grace::Immediate, false, now), Step::Remove);
        assert_eq!(decide(&plain, &none, Grace::Seconds(0), false, now), Step::Remove);
        let waits = decide(&plain, &none, Grace::Seconds(30), false, now);
        assert_eq!(waits, Step::Mark(Box::new(marked("2026-01-01T00:00:40Z", 30, &[]))));
        let mut expected = marked("2026-01-01T00:00:10Z", 0, &["x/y"]);
        expected.generation = Some(3);
        assert_eq!(
            decide(&held, &none, Grace::Immediate, false, now),
            Step::Mark(Box::new(expected))
        );
        let content = decide(&plain, &none, Grace::Immediate, true, now);
        assert_eq!(content, Step::Mark(Box::new(marked("2026-01-01T00:00:10Z", 0, &[]))));
    }

    #[test]
    fn a_deletion_under_way_is_made_shorter_and_never_longer() {
        let now = at("2026-01-01T00:00:15Z");
        let pending = marked("2026-01-01T00:00:40Z", 30, &[]);
        for (options, grace, expected) in [
            (DeleteOptions::default(), 30, Step::Nothing),
            (self::grace(60), 60, Step::Nothing),
            (
                self::grace(5),
                5,
                Step::Mark(Box::new(marked("2026-01-01T00:00:15Z", 5, &[]))),
            ),
            (self::grace(0), 0, Step::Remove),
        ] {
            assert_eq!(
                decide(&pending, &options, Grace::Seconds(grace), false, now),
                expected,
                "{grace}"
            );
        }
        let over = marked("2026-01-01T00:00:10Z", 0, &["x/y"]);
        assert_eq!(decide(&over, &grace(0), Grace::Immediate, false, now), Step::Nothing);
        let free = marked("2026-01-01T00:00:10Z", 0, &[]);
        assert_eq!(
            decide(&free, &DeleteOptions::default(), Grace::Immediate, false, now),
            Step::Remove
        );
    }

    #[test]
    fn propagation_is_a_finalizer() {
        let with = |finalizers: &[&str]| ObjectMeta {
            finalizers: Some(finalizers.iter().map(ToString::to_string).collect()),
            ..ObjectMeta::default()
        };
        let policy = |policy: &str| DeleteOptions {
            propagation_policy: Some(policy.into()),
            ..DeleteOptions::default()
        };
        for (before, options, after) in [
            (vec![], policy("Foreground"), vec![FOREGROUND]),
            (vec!["a"], policy("Orphan"), vec!["a", ORPHAN]),
            (vec![ORPHAN, "a"], policy("Background"), vec!["a"]),
            (vec![ORPHAN], policy("Foreground"), vec![FOREGROUND]),
            (vec![FOREGROUND], policy("Foreground"), vec![FOREGROUND]),
            (vec![ORPHAN], DeleteOptions::default(), vec![ORPHAN]),
            (
                vec![ORPHAN],
                DeleteOptions {
                    orphan_dependents: Some(false),
                    ..DeleteOptions::default()
                },
                vec![],
            ),
        ] {
            let found = finalizers(&with(&before), &options).unwrap_or_default();
            assert_eq!(found, after, "{before:?} {:?}", options.propagation_policy);
        }
    }

    #[test]
    fn options_that_contradict_are_refused() {
        let both = DeleteOptions {
            orphan_dependents: Some(true),
            propagation_policy: Some("Orphan".into()),
            ..DeleteOptions::default()
        };
        assert!(
            check_options(&both)
                .unwrap_err()
                .message()
                .contains("cannot be both set")
        );
        let unknown = DeleteOptions {
            propagation_policy: Some("Sideways".into()),
            ..DeleteOptions::default()
        };
        assert!(
            check_options(&unknown)
                .unwrap_err()
                .message()
                .contains(r#"Unsupported value: "Sideways""#)
        );
    }
}
