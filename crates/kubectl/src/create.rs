//! `kubectl create -f`.

use http::Method;
use serde_json::Value;

use crate::apply::with_last_applied;
use crate::connection::{Ask, Connection};
use crate::failure::{Failure, Result};
use crate::flags::{Create, DryRun};
use crate::manifest::{self, Manifest};
use crate::mapping::Mapping;
use crate::selection::{kind_of, query};
use crate::write::{Reports, field_validation, finish, namespace_of, placed};

/// Runs the command. An object that cannot be created does not keep the others from being.
pub async fn run(connection: &Connection, namespace: Option<&str>, create: &Create) -> Result<()> {
    if create.files.filename.is_empty() {
        return Err(Failure::message("must specify one of -f and -k"));
    }
    let validation = field_validation(&create.validate)?;
    let mapping = Mapping::default();
    let manifests = manifest::read(&create.files.filename, create.files.recursive, validation != "Ignore")?;
    if manifests.is_empty() {
        return Err(Failure::message("no objects passed to create"));
    }
    let mut failures = Vec::new();
    let mut reports = Reports::new(create.output.as_deref(), create.dry_run)?;
    for manifest in manifests {
        let created = one(connection, namespace, create, validation, &mapping, &manifest).await;
        match created {
            Ok(object) => reports.report(&object, "created")?,
            Err(failure) => failures.push(failure),
        }
    }
    finish(failures)
}

async fn one(
    connection: &Connection,
    namespace: Option<&str>,
    create: &Create,
    validation: &str,
    mapping: &Mapping,
    manifest: &Manifest,
) -> Result<Value> {
    let kind = kind_of(connection, mapping, manifest).await?;
    let namespace = namespace_of(connection, namespace, manifest, &kind)?;
    let mut object = placed(manifest, &kind, &namespace);
    if create.save_config {
        object = with_last_applied(object);
    }
    if create.dry_run == DryRun::Client {
        return Ok(object);
    }
    let dry_run = if create.dry_run == DryRun::Server { "All" } else { "" };
    let parameters = [
        ("dryRun", dry_run.to_owned()),
        ("fieldManager", "kubectl-create".to_owned()),
        ("fieldValidation", validation.to_owned()),
    ];
    let path = kind.path(Some(&namespace)) + &query(&parameters);
    let ask = Ask {
        body: Some(("application/json", object.to_string().into_bytes())),
        ..Ask::default()
    };
    let created = connection.json(Method::POST, &path, ask).await;
    created.map_err(|failure| failure.while_doing("creating", &manifest.source))
}
