//! Objects and lists from the server, whole however many pieces they come in.

use http::Method;
use serde_json::{Value, json};

use crate::connection::{Ask, Connection};
use crate::failure::{Failure, Result};
use crate::flags::Selectors;
use crate::mapping::Kind;
use crate::selection::{Target, escape, query};

/// The server's tables.
pub const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// What to ask of a list.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Of every namespace.
    pub all_namespaces: bool,
    /// Labels and fields.
    pub selectors: Selectors,
    /// The most to ask for at once; none for all.
    pub chunk: u32,
    /// As a table, with the whole object in each row or only its metadata.
    pub table: Option<bool>,
}

impl Connection {
    /// The path of a target: an object, or the list of its resource.
    pub fn path(&self, target: &Target, all_namespaces: bool) -> String {
        let namespace = target.namespace.as_deref().unwrap_or(&self.namespace);
        let list = target.kind.path((!all_namespaces).then_some(namespace));
        match &target.name {
            Some(name) => format!("{list}/{}", escape(name)),
            None => list,
        }
    }

    /// An object or a list. The objects of a list say of what kind they are.
    pub async fn fetch(&self, target: &Target, wanted: &Query) -> Result<Value> {
        let path = self.path(target, wanted.all_namespaces);
        let accept = wanted.table.map(|_| TABLE);
        let include = match wanted.table {
            Some(true) => "Object",
            _ => "",
        };
        let mut parameters = vec![("includeObject", include.to_owned())];
        if target.name.is_none() {
            parameters.push(("labelSelector", wanted.selectors.selector.clone().unwrap_or_default()));
            parameters.push((
                "fieldSelector",
                wanted.selectors.field_selector.clone().unwrap_or_default(),
            ));
            if wanted.chunk > 0 {
                parameters.push(("limit", wanted.chunk.to_string()));
            }
        }
        let ask = || Ask {
            accept,
            ..Ask::default()
        };
        let first = self
            .json(Method::GET, &(path.clone() + &query(&parameters)), ask())
            .await;
        let mut whole = match first {
            Ok(whole) => whole,
            Err(failure) if target.name.is_some() => return Err(self.nearer(target, failure).await),
            Err(failure) => return Err(unlisted(target, wanted, failure)),
        };
        while let Some(token) = more(&whole) {
            let mut parameters = parameters.clone();
            parameters.push(("continue", token));
            let piece = self
                .json(Method::GET, &(path.clone() + &query(&parameters)), ask())
                .await?;
            append(&mut whole, piece);
        }
        if wanted.table.is_none() && target.name.is_none() {
            name_kinds(&mut whole, &target.kind);
        }
        Ok(whole)
    }

    /// When an object is not there because its namespace is not, that is what to say.
    pub async fn nearer(&self, target: &Target, failure: Failure) -> Failure {
        if !target.kind.namespaced || !failure.is_not_found() {
            return failure;
        }
        let namespace = target.namespace.as_deref().unwrap_or(&self.namespace);
        match self.get(&format!("/api/v1/namespaces/{}", escape(namespace))).await {
            Err(missing) if missing.is_not_found() => missing,
            _ => failure,
        }
    }
}

/// A refused list with what was asked for.
fn unlisted(target: &Target, wanted: &Query, failure: Failure) -> Failure {
    let Failure::Status(mut status) = failure else {
        return failure;
    };
    if matches!(status.reason.as_deref(), Some("BadRequest" | "NotFound")) {
        let kind = &target.kind;
        let resource = format!("{}/{}, Resource={}", kind.group, kind.version, kind.plural);
        let labels = wanted.selectors.selector.as_deref().unwrap_or_default();
        let fields = wanted.selectors.field_selector.as_deref().unwrap_or_default();
        let message = status.message.as_deref().unwrap_or_default();
        status.message = Some(if labels.is_empty() && fields.is_empty() {
            format!("Unable to list {resource:?}: {message}")
        } else {
            format!(
                "Unable to find {resource:?} that match label selector {labels:?}, field selector {fields:?}: {message}"
            )
        });
    }
    Failure::Status(status)
}

fn more(list: &Value) -> Option<String> {
    let token = list["metadata"]["continue"].as_str()?;
    (!token.is_empty()).then(|| token.to_owned())
}

fn append(whole: &mut Value, mut piece: Value) {
    for field in ["items", "rows"] {
        if let (Some(into), Some(from)) = (
            whole.get_mut(field).and_then(Value::as_array_mut),
            piece.get_mut(field).and_then(Value::as_array_mut),
        ) {
            into.append(from);
        }
    }
    if let Some(metadata) = whole.get_mut("metadata") {
        *metadata = piece["metadata"].take();
    }
}

/// The server leaves out of a list's objects what the list says.
fn name_kinds(list: &mut Value, kind: &Kind) {
    for item in list
        .get_mut("items")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if let Some(item) = item.as_object_mut() {
            item.entry("apiVersion").or_insert_with(|| kind.api_version().into());
            item.entry("kind").or_insert_with(|| kind.kind.clone().into());
        }
    }
}

/// A list of objects of any kind, as kubectl prints several.
pub fn list_of(items: Vec<Value>) -> Value {
    json!({"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"resourceVersion": ""}})
}
