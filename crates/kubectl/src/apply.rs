//! `kubectl apply -f`, on the client's side: what the file said last time is kept in an annotation, so that
//! what it no longer says is removed, and what others wrote stays.

use api::Catalogue;
use http::Method;
use serde_json::{Map, Value, json};

use crate::connection::{Ask, Connection};
use crate::failure::{Failure, Result};
use crate::flags::{Apply, DryRun};
use crate::manifest::{self, Manifest};
use crate::mapping::{Kind, Mapping};
use crate::print::json::to_compact_json;
use crate::print::name;
use crate::selection::{escape, kind_of, query};
use crate::three_way::{self, Fields};
use crate::write::{Reports, field_validation, finish, namespace_of, placed};

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// How often a patch is made anew when someone else changed the object meanwhile.
const CONFLICTS: usize = 5;

/// Runs the command. An object that cannot be applied does not keep the others from being.
pub async fn run(connection: &Connection, namespace: Option<&str>, apply: &Apply) -> Result<()> {
    if apply.files.filename.is_empty() {
        return Err(Failure::message("must specify one of -f and -k"));
    }
    let applying = Applying {
        connection,
        namespace,
        apply,
        validation: field_validation(&apply.validate)?,
        mapping: Mapping::default(),
    };
    let manifests = manifest::read(
        &apply.files.filename,
        apply.files.recursive,
        applying.validation != "Ignore",
    )?;
    if manifests.is_empty() {
        return Err(Failure::message("no objects passed to apply"));
    }
    let mut failures = Vec::new();
    let mut reports = Reports::new(apply.output.as_deref(), apply.dry_run)?;
    for manifest in manifests {
        match applying.one(&manifest).await {
            Ok((object, operation)) => reports.report(&object, operation)?,
            Err(failure) => failures.push(failure),
        }
    }
    finish(failures)
}

struct Applying<'a> {
    connection: &'a Connection,
    namespace: Option<&'a str>,
    apply: &'a Apply,
    validation: &'static str,
    mapping: Mapping,
}

impl Applying<'_> {
    async fn one(&self, manifest: &Manifest) -> Result<(Value, &'static str)> {
        let kind = kind_of(self.connection, &self.mapping, manifest).await?;
        let namespace = namespace_of(self.connection, self.namespace, manifest, &kind)?;
        if let ("", Some(generate)) = (manifest.name(), manifest.object["metadata"]["generateName"].as_str()) {
            return Err(Failure::message(format!(
                "from {generate}: cannot use generate name with apply"
            )));
        }
        if manifest.name().is_empty() {
            return Err(Failure::message(format!(
                "error when retrieving current configuration of:\nResource: {:?}, GroupVersionKind: {:?}\nName: \"\", Namespace: {namespace:?}\nfrom server for: {:?}: resource name may not be empty",
                format!("{}/{}, Resource={}", kind.group, kind.version, kind.plural),
                format!("{}/{}, Kind={}", kind.group, kind.version, kind.kind),
                manifest.source
            )));
        }
        let modified = with_last_applied(placed(manifest, &kind, &namespace));
        let list = kind.path(Some(&namespace));
        let path = format!("{list}/{}", escape(manifest.name()));
        let retrieving =
            |failure: Failure| failure.while_doing("retrieving current configuration of", &manifest.source);
        for attempt in 1.. {
            let current = match self.connection.get(&path).await {
                Ok(current) => current,
                Err(failure) if failure.is_not_found() => {
                    let created = self.send(Method::POST, &list, "application/json", &modified).await;
                    let created = created.map_err(|failure| failure.while_doing("creating", &manifest.source))?;
                    return Ok((created, "created"));
                }
                Err(failure) => return Err(retrieving(failure)),
            };
            // Nothing is compared that is not sent.
            if self.apply.dry_run == DryRun::Client {
                return Ok((modified, "configured"));
            }
            let (patch, content_type) = self.patch(&kind, &modified, &current);
            if patch.as_object().is_none_or(Map::is_empty) {
                return Ok((current, "unchanged"));
            }
            match self.send(Method::PATCH, &path, content_type, &patch).await {
                Ok(patched) => return Ok((patched, "configured")),
                Err(failure) if failure.is("Conflict") && attempt < CONFLICTS => {}
                Err(failure) => {
                    let text = to_compact_json(&patch);
                    let what = format!("applying patch:\n{text}\nto:\nfor");
                    return Err(failure.while_doing(&what, &manifest.source));
                }
            }
        }
        Err(Failure::Silent)
    }

    fn patch(&self, kind: &Kind, modified: &Value, current: &Value) -> (Value, &'static str) {
        let original = last_applied(current);
        if original.is_none() {
            eprintln!(
                "Warning: resource {} is missing the {LAST_APPLIED} annotation which is required by kubectl apply. kubectl apply should only be used on resources created declaratively by either kubectl create --save-config or kubectl apply. The missing annotation will be patched automatically.",
                name(current).replacen(&kind.group_kind(), &kind.group_resource(), 1),
            );
        }
        let original = original.unwrap_or_else(|| json!({}));
        match Catalogue::builtin().find_kind(&kind.group, &kind.version, &kind.kind) {
            Some(resource) => (
                three_way::patch(&original, modified, current, Fields::of(resource.schema)),
                "application/strategic-merge-patch+json",
            ),
            None => (
                three_way::patch(&original, modified, current, Fields::unknown()),
                "application/merge-patch+json",
            ),
        }
    }

    async fn send(&self, method: Method, path: &str, content_type: &str, body: &Value) -> Result<Value> {
        if self.apply.dry_run == DryRun::Client {
            return Ok(body.clone());
        }
        let dry_run = if self.apply.dry_run == DryRun::Server {
            "All"
        } else {
            ""
        };
        let parameters = [
            ("dryRun", dry_run.to_owned()),
            ("fieldManager", "kubectl-client-side-apply".to_owned()),
            ("fieldValidation", self.validation.to_owned()),
        ];
        let ask = Ask {
            body: Some((content_type, body.to_string().into_bytes())),
            ..Ask::default()
        };
        self.connection
            .json(method, &(path.to_owned() + &query(&parameters)), ask)
            .await
    }
}

/// What was applied last, as the object remembers it.
fn last_applied(object: &Value) -> Option<Value> {
    let text = object["metadata"]["annotations"][LAST_APPLIED].as_str()?;
    serde_json::from_str(text).ok()
}

/// The object with itself, as it is, in the annotation.
pub fn with_last_applied(mut object: Value) -> Value {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
        return object;
    };
    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
    if annotations.is_null() {
        *annotations = json!({});
    }
    if let Some(annotations) = annotations.as_object_mut() {
        annotations.remove(LAST_APPLIED);
    }
    let text = to_compact_json(&object) + "\n";
    object["metadata"]["annotations"][LAST_APPLIED] = text.into();
    object
}
